"""The database of a cache: keys and bytes on disk, without knowledge of steps or of what keys are made of.

```
entries: key ──▶ step, time, the value or the checksum of its file, the value's content, recipe, checksum of the row
recipes: what the keys of a step are made of, in words, so that a change can be explained
aliases: other steps that have used an entry

cache directory, private to its owner:  index.db (SQLite) with values up to 64 KiB │ objects/ab/cdef... for larger ones
```

SQLite in WAL mode is safe for several processes and for writers that are killed. Each row also has a checksum: a row or
file that was damaged in another way is named in a warning, removed, and never served.

SQLite is used directly: diskcache, which is built the same way, has had no release since 2023 and pickles by itself,
and one table does not justify a dependency.
"""

from __future__ import annotations

import logging
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
from flowyml.store.blobs import LARGE, BlobStore
from flowyml.store.directories import check_format, check_owner, private_directory
from flowyml.store.serialization import SIZE, SerializedValue, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

DatabaseErrors = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises; messages about a damaged file may not be valid UTF-8 either."""

FORMAT = 2
_log = logging.getLogger("flowyml")
_MARSHAL_VERSION = 2
_LOCK_TIMEOUT_SECONDS = 10.0  # for another process to end its transaction
_KEYS_PER_QUERY = 500  # SQLite limits the number of parameters
_USE_RESOLUTION_SECONDS = 3600  # the time of use of an entry is not updated more often
_ENTRY_OVERHEAD_BYTES = 200  # of an entry in addition to its value, roughly
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
        key: Its key.
        step: Name of the step that has stored it.
        created: When it was stored (seconds since 1970).
        size: Bytes of the value.
        kind: See `SerializedValue`.
        value: The bytes of the value; `None` if they are in a file.
        file: Checksum of the value, which is the name of its file.
        content: The value's content for the keys of its readers, if it was known.
        recipe: What the key was made of; the table `recipes` has the words.
        checksum: Of all these.
        used: When it was last used, to within an hour (seconds since 1970).
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
        return self._replace(checksum=self._computed_checksum())

    @property
    def is_intact(self) -> bool:
        """Whether it is as it was stored."""
        return self.checksum == self._computed_checksum()

    def _computed_checksum(self) -> bytes:
        return blake2b(marshal.dumps(tuple(self[:9]), _MARSHAL_VERSION), digest_size=SIZE).digest()


class CacheDatabase:
    """A cache directory; it is open between `open` and `close`, which nest.

    Args:
        directory: The directory.
        max_bytes: Size limit in bytes; `None`: no limit.
    """

    def __init__(self, directory: Path, max_bytes: int | None) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._blobs = BlobStore(directory / "objects")
        self._path = directory / "index.db"
        self._open_count = 0
        self._has_added = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it closed."""
        return CacheDatabase, (self.directory, self._max_bytes)

    # -- opening

    def open(self, *, create: bool = True) -> bool:
        """Open the database; return False if there is none and none is to be created. Each call needs a `close`.

        Raises:
            StoreError: If the directory belongs to another user, or has the format of another version.
            sqlite3.Error: If it cannot be opened.
            OSError: If it cannot be created.
        """
        self._open_count += 1
        try:
            if self._connection is None:
                directory = self.directory.absolute()
                if create or directory.exists():
                    directory = private_directory(directory)
                self._blobs, self._path = BlobStore(directory / "objects"), directory / "index.db"
                if create or self._path.exists():
                    self._connection = self._connect()
        except BaseException:
            self._open_count -= 1
            raise
        return self._connection is not None

    def close(self) -> None:
        """Close the database if this is the last `close`."""
        self._open_count -= 1
        if self._open_count == 0:
            self._disconnect()

    @contextmanager
    def opened(self) -> Iterator[CacheDatabase | None]:
        """Open the database for a block; `None` if there is none."""
        is_open = self.open(create=False)
        try:
            yield self if is_open else None
        finally:
            self.close()

    def _connect(self) -> sqlite3.Connection:
        if self._path.exists():
            check_owner(self._path)
        try:
            return self._new_connection()
        except DatabaseErrors as error:
            if not is_damage(error):
                raise
            self._put_aside(error)
            return self._new_connection()

    def _new_connection(self) -> sqlite3.Connection:
        if not self._path.exists():
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite's other files get the same mode
        connection = sqlite3.connect(
            self._path, timeout=_LOCK_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = lambda data: data.decode("utf-8", "replace")  # the row has a checksum
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        run = connection.execute
        version = run("PRAGMA user_version").fetchone()[0]
        if version:
            check_format(
                self._path, version, FORMAT, f"delete the directory {self._path.parent}, or use another cache_dir"
            )
        with suppress(sqlite3.OperationalError):  # another process is changing it
            run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        if not version:
            with self._transaction(connection):
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    run(statement)
                run(f"PRAGMA user_version = {FORMAT}")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with self._lock:
                connection.close()

    def replace_damaged(self, error: Exception) -> None:
        """Put the index aside after damage showed during a query; the next `open` creates a new one."""
        if self._connection is not None:
            self._disconnect()
            self._put_aside(error)

    def _put_aside(self, error: Exception) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
        _log.warning(
            "cache: %s is damaged (%s); it was renamed to %s, and a new cache begins", self._path, error, aside.name
        )
        self._path.replace(aside)
        for ending in ("-wal", "-shm"):
            self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
        self._blobs.remove_all()

    # -- queries

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection | None = None) -> Iterator[sqlite3.Connection]:
        """Write everything in a block, or nothing."""
        with self._lock:
            connection = connection or self._connected()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._connected().execute(query, values).fetchall()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(str(self.directory), "is not open")
        return self._connection

    # -- reading

    def lookup(self, keys: Sequence[bytes]) -> dict[bytes, CacheEntry]:
        """Return the intact entries of these keys by key; damaged ones are removed."""
        entries = {}
        for first in range(0, len(keys), _KEYS_PER_QUERY):
            some = keys[first : first + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(some))
            for row in self._read(f"SELECT {_FIELDS} FROM entries WHERE key IN ({marks})", some):  # noqa: S608
                entry = CacheEntry._make(row)
                if entry.is_intact:
                    entries[entry.key] = entry
                else:
                    self._drop(entry, f"an entry of step {entry.step!r} in {self._path} is damaged")
        return entries

    def newest(self, step: str) -> CacheEntry | None:
        """Return the newest entry of a step."""
        rows = self._read(f"SELECT {_FIELDS} FROM entries WHERE step = ? ORDER BY created DESC LIMIT 1", [step])  # noqa: S608
        return CacheEntry._make(rows[0]) if rows else None

    def words(self, recipe: bytes) -> bytes | None:
        """Return the words of a recipe."""
        rows = self._read("SELECT words FROM recipes WHERE digest = ?", [recipe])
        return rows[0][0] if rows else None

    def load(self, entry: CacheEntry) -> Any:
        """Return the value of an entry, encoded.

        Raises:
            LookupError: If it is gone, or damaged; then a warning names it, and it is removed.
        """
        if entry.value is not None:
            return unpacked(SerializedValue(entry.kind, entry.value))
        checksum = entry.file or b""
        try:
            return unpacked(self._blobs.get(entry.kind, checksum))
        except FileNotFoundError:
            self._drop(entry, None)
        except StoreError as error:
            self._drop(entry, str(error))
            self._blobs.remove(checksum)
        raise LookupError(entry.key)

    def _drop(self, entry: CacheEntry, reason: str | None) -> None:
        if reason is not None:
            _log.warning("cache: %s; it is removed, and its step runs", reason)
        self._delete("key = ?", [entry.key])

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return for each step how many entries it has and how many bytes."""
        with self.opened() as database:
            if database is None:
                return {}
            rows = self._read("SELECT step, count(*), sum(size) FROM entries GROUP BY step ORDER BY step")
            return {step: (count, size) for step, count, size in rows}

    # -- writing

    def new_entry(
        self, key: bytes, step: str, value: SerializedValue, content: bytes | None, recipe: bytes
    ) -> CacheEntry:
        """Return an entry for a value, to be stored by `add`; a large value is written to its file now.

        Raises:
            OSError: If that cannot be written.
        """
        data: bytes | None = value.data
        file, size = None, len(value.data)
        if size > LARGE:
            data, file = None, value.checksum
            self._blobs.put(value, file)
        now = time.time()
        size += _ENTRY_OVERHEAD_BYTES
        return CacheEntry(key, step, now, size, value.kind, data, file, content, recipe, used=now).sealed()

    def add(self, entries: Sequence[CacheEntry], recipes: Iterable[tuple[bytes, bytes]]) -> None:
        """Store entries; they replace those with the same keys."""
        self._has_added = self._has_added or bool(entries)
        marks = ",".join("?" * len(CacheEntry._fields))
        with self._transaction() as connection:
            connection.executemany(f"INSERT OR REPLACE INTO entries({_FIELDS}) VALUES({marks})", entries)
            connection.executemany("INSERT OR IGNORE INTO recipes VALUES(?, ?)", recipes)

    def discard_files(self, entries: Sequence[CacheEntry]) -> None:
        """Remove the files of entries that could not be stored."""
        for file in {entry.file for entry in entries if entry.file}:
            if not self._is_referenced(file):
                self._blobs.remove(file)

    def note_use(self, uses: Sequence[tuple[str, CacheEntry]]) -> None:
        """Record that steps have used entries."""
        now = time.time()
        aliases = [(step, entry.key) for step, entry in uses if entry.step != step]
        keys = [(now, entry.key) for _, entry in uses if entry.used < now - _USE_RESOLUTION_SECONDS]
        if aliases or keys:
            with self._transaction() as connection:
                connection.executemany("UPDATE entries SET used = ? WHERE key = ?", keys)
                connection.executemany("INSERT OR IGNORE INTO aliases VALUES(?, ?)", aliases)

    # -- removing

    def trim(self) -> None:
        """If something was added, remove the least recently used values above the size limit, and abandoned files."""
        if self._has_added:
            oldest = None if self._max_bytes is None else self._eviction_time(self._max_bytes)
            if oldest is not None:
                self._delete("used <= ?", [oldest])
            self._blobs.sweep(self._referenced_files)
        self._has_added = False

    def _eviction_time(self, max_bytes: int) -> float | None:
        """Return the time of use up to which entries must go so that nine tenths of the limit remain in use."""
        size = self._read("SELECT sum(size) FROM entries")[0][0] or 0
        if size > max_bytes:
            with self._lock:
                for used, entry_size in self._connected().execute("SELECT used, size FROM entries ORDER BY used"):
                    size -= entry_size
                    if size <= max_bytes * 0.9:
                        return float(used)
        return None

    def remove(self, where: str, values: Sequence[Any]) -> int:
        """Remove the entries that meet a condition in SQL; return how many there were."""
        with self.opened() as database:
            return 0 if database is None else self._delete(where, values)

    def clear(self) -> int:
        """Remove all entries and files; return how many entries there were."""
        with self.opened() as database:
            if database is None:
                return 0
            count = self._delete("1", ())
            self._blobs.remove_all()
            with self._lock, suppress(sqlite3.OperationalError):  # another process is reading
                self._connected().execute("VACUUM")
                self._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return count

    def _delete(self, where: str, values: Sequence[Any]) -> int:
        with self._transaction() as connection:
            files = {row[0] for row in connection.execute(f"SELECT file FROM entries WHERE {where}", values)}  # noqa: S608
            count = connection.execute(f"DELETE FROM entries WHERE {where}", values).rowcount  # noqa: S608
            if not connection.execute("SELECT 1 FROM entries LIMIT 1").fetchone():
                connection.execute("DELETE FROM recipes")
                connection.execute("DELETE FROM aliases")
            unreferenced = [file for file in files - {None} if not self._is_referenced(file)]
        for file in unreferenced:
            self._blobs.remove(file)
        return count

    def _is_referenced(self, file: bytes) -> bool:
        return bool(self._read("SELECT 1 FROM entries WHERE file = ? LIMIT 1", [file]))

    def _referenced_files(self) -> set[str]:
        return {row[0].hex() for row in self._read("SELECT file FROM entries WHERE file IS NOT NULL")}


def is_damage(error: Exception) -> bool:
    """Return True if SQLite reports that a file is not as it wrote it."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
