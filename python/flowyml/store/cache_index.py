"""The index of a cache: one SQLite database with all entries, small values in it.

```
entries: key ──▶ step, when, the value or the name of its file, the value's content, recipe, checksum of all of it
recipes: what a step's keys are made of, in words, so that a change can be told
aliases: other steps that have used an entry
```

SQLite in WAL mode is safe for several processes and for writers that are killed. Each row has a checksum of its own: of
a file that was damaged in some other way nothing is served. It knows keys and bytes, neither steps nor values.

From the standard library: diskcache, which is built alike, has had no release since 2023 and pickles by itself, and
one table is not worth a dependency.
"""

from __future__ import annotations

import marshal
import os
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.errors import StoreError
from flowyml.hashing import blake2b
from flowyml.store.serialization import SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

DatabaseErrors = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises; messages about a damaged file may be damaged, too."""

FORMAT = 1
_VERSION = 2
_WAIT = 10.0  # seconds for another process to end its transaction
_AT_ONCE = 500  # SQLite takes a limited number of parameters
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries(
    key BLOB PRIMARY KEY, step TEXT, created REAL, used REAL, size INTEGER,
    kind BLOB, value BLOB, file BLOB, content BLOB, recipe BLOB, checksum BLOB);
CREATE INDEX IF NOT EXISTS by_step ON entries(step, created);
CREATE INDEX IF NOT EXISTS by_use ON entries(used, size);
CREATE INDEX IF NOT EXISTS by_file ON entries(file) WHERE file IS NOT NULL;
CREATE TABLE IF NOT EXISTS recipes(digest BLOB PRIMARY KEY, words BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS aliases(step TEXT, key BLOB, PRIMARY KEY(step, key)) WITHOUT ROWID;
"""
_FIELDS = "key, step, created, size, kind, value, file, content, recipe, checksum, used"


class CacheEntry(NamedTuple):
    """One cached value.

    Attributes:
        key: What it is found by.
        step: Name of the step that has stored it.
        created: When (seconds since 1970).
        size: Bytes of the value.
        kind: See `encoding.Packed`.
        value: The bytes of the value; `None` if they are in a file.
        file: Checksum of the value, which is the name of its file.
        content: The content of the value for the keys of what reads it, where it was known.
        recipe: What the key was made of: `recipes` has the words.
        checksum: Of all these.
        used: When it was used last, or nearly so (seconds since 1970).
    """

    key: bytes
    step: str
    created: float
    size: int
    kind: bytes
    value: bytes | None
    file: bytes | None
    content: bytes | None
    recipe: bytes
    checksum: bytes = b""
    used: float = 0.0

    def sealed(self) -> CacheEntry:
        """Return it with its checksum."""
        return self._replace(checksum=self._sum())

    @property
    def is_whole(self) -> bool:
        """Whether it is what was stored."""
        return self.checksum == self._sum()

    def _sum(self) -> bytes:
        return blake2b(marshal.dumps(tuple(self[:9]), _VERSION), digest_size=SIZE).digest()


class CacheIndex:
    """An open index.

    Args:
        path: Its file.

    Raises:
        sqlite3.Error: If it cannot be opened.
        StoreError: If it was written by a newer version.
    """

    def __init__(self, path: Path) -> None:
        """Open it, or make a new one."""
        self.path = path
        self._lock = threading.RLock()
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite's other files get the same mode
        self._connection = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
        self._connection.text_factory = _text
        try:
            self._set_up()
        except BaseException:
            self._connection.close()
            raise

    def _set_up(self) -> None:
        run = self._connection.execute
        found = run("PRAGMA user_version").fetchone()[0]
        if found > FORMAT:
            raise StoreError(str(self.path), f"has format {found}; this version of flowyml knows up to {FORMAT}")
        with suppress(sqlite3.OperationalError):  # another process is at it
            run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        if not found:
            with self._writing():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    run(statement)
                run(f"PRAGMA user_version = {FORMAT}")

    def close(self) -> None:
        """Close it."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    # -- entries

    def find(self, keys: Sequence[bytes]) -> Iterator[CacheEntry]:
        """Go through the entries of these keys that there are."""
        for first in range(0, len(keys), _AT_ONCE):
            some = keys[first : first + _AT_ONCE]
            marks = ",".join("?" * len(some))
            yield from map(CacheEntry._make, self._read(f"SELECT {_FIELDS} FROM entries WHERE key IN ({marks})", some))  # noqa: S608

    def add(self, entries: Iterable[CacheEntry], recipes: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Store entries, in place of those with the same keys."""
        marks = ",".join("?" * len(CacheEntry._fields))
        with self._writing() as connection:
            connection.executemany(f"INSERT OR REPLACE INTO entries({_FIELDS}) VALUES({marks})", entries)
            connection.executemany("INSERT OR IGNORE INTO recipes VALUES(?, ?)", recipes)

    def note_use(self, keys: Sequence[bytes], aliases: Sequence[tuple[str, bytes]]) -> None:
        """Note that entries are used now, and which are used by steps of other names."""
        now = time.time()
        with self._writing() as connection:
            connection.executemany("UPDATE entries SET used = ? WHERE key = ?", [(now, key) for key in keys])
            connection.executemany("INSERT OR IGNORE INTO aliases VALUES(?, ?)", aliases)

    def last(self, step: str) -> CacheEntry | None:
        """Return the newest entry of a step."""
        found = self._read(f"SELECT {_FIELDS} FROM entries WHERE step = ? ORDER BY created DESC LIMIT 1", [step])  # noqa: S608
        return CacheEntry._make(found[0]) if found else None

    def words(self, recipe: bytes) -> bytes | None:
        """Return what a recipe says."""
        found = self._read("SELECT words FROM recipes WHERE digest = ?", [recipe])
        return found[0][0] if found else None

    # -- removing

    def remove(self, where: str, values: Sequence[Any]) -> tuple[int, list[bytes]]:
        """Remove entries by a condition; return how many, and the files that nothing names any more."""
        with self._writing() as connection:
            files = {row[0] for row in connection.execute(f"SELECT file FROM entries WHERE {where}", values)}  # noqa: S608
            count = connection.execute(f"DELETE FROM entries WHERE {where}", values).rowcount  # noqa: S608
            if not connection.execute("SELECT 1 FROM entries LIMIT 1").fetchone():
                connection.execute("DELETE FROM recipes")
                connection.execute("DELETE FROM aliases")
            unnamed = [file for file in files - {None} if not self.names(file)]
        return count, unnamed

    def oldest_beyond(self, most: int) -> float | None:
        """Return the time of use up to which entries must go so that nine tenths of `most` bytes are left."""
        size = self.total()[1]
        if size <= most:
            return None
        with self._lock:
            for used, bytes_ in self._connection.execute("SELECT used, size FROM entries ORDER BY used"):
                size -= bytes_
                if size <= most * 0.9:
                    return float(used)
        return None

    def shrink(self) -> None:
        """Give the space of what was removed back to the file system, if nobody else is reading."""
        with self._lock, suppress(sqlite3.OperationalError):
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- what there is

    def total(self) -> tuple[int, int]:
        """Return how many entries there are, and the bytes of their values."""
        count, size = self._read("SELECT count(*), sum(size) FROM entries")[0]
        return count, size or 0

    def by_step(self) -> dict[str, tuple[int, int]]:
        """Return the same for each step."""
        rows = self._read("SELECT step, count(*), sum(size) FROM entries GROUP BY step ORDER BY step")
        return {step: (count, size) for step, count, size in rows}

    def names(self, file: bytes) -> bool:
        """Tell whether an entry has its value in this file."""
        return bool(self._read("SELECT 1 FROM entries WHERE file = ? LIMIT 1", [file]))

    def files(self) -> set[str]:
        """Return the names of the files that entries have."""
        return {row[0].hex() for row in self._read("SELECT file FROM entries WHERE file IS NOT NULL")}


def _text(data: bytes) -> str:
    """Return text, also what is damaged: its row has a checksum."""
    return data.decode("utf-8", "replace")


def is_damage(error: Exception) -> bool:
    """Tell whether SQLite says that a file is not what it wrote."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
