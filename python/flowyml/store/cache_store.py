"""CacheStore: values that steps have returned, on disk, found by the content of what made them.

```
key ──▶ index.db (SQLite): small values          ├── cache folder, readable for its owner alone
   └──▶ objects/ab/cdef...: values over 64 KiB   ┘
```

What is damaged is named, removed, and never served. The store does not know what keys are made of;
`caching/step_cache.py` asks it for a run.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from typing import TYPE_CHECKING, Any, Self

from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.errors import StoreError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator, Sequence
    from os import PathLike
    from pathlib import Path
    from types import TracebackType

    from flowyml.store.blobs import BlobStore
    from flowyml.store.cache_index import CacheEntry, CacheIndex
    from flowyml.store.serialization import SerializedValue

DEFAULT = ".flowyml/cache"
GIB = 1 << 30
# Entries that were used within this time are not noted again.
_FRESH = 3600
_OVERHEAD = 200  # bytes of an entry beside its value, roughly


@functools.cache
def usual_folder(name: str) -> Path:
    """Return one of the few folders that are used where none is given: to make a `Path` takes longer than to look."""
    from pathlib import Path

    return Path(name)


class CacheStore:
    """A folder of cached values.

    Several processes may use one folder at the same time. Values that were not used for the longest time go first when
    it grows beyond its limit, at the end of a run.

    Args:
        cache_dir: The folder; made when something is stored, for its owner alone.
        max_bytes: How large it may grow; `None`: without limit.

    Raises:
        TypeError: If `cache_dir` is no path, or `max_bytes` no whole number.
        ValueError: If `max_bytes` is below 1.
        StoreError: On use, if the folder is another user's, or was written by a newer version.

    Attributes:
        hits: How many values were found through this object.
        misses: How many were not.

    >>> import tempfile
    >>> from flowyml import CacheStore, Pipeline
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = CacheStore(folder)
    ...     pipeline = Pipeline("p", cache_dir=store).add_step(max, params={"a": 1, "b": 2}, cache=True)
    ...     states = [pipeline.run().step_results["max"].state.value for _ in range(2)]
    ...     states, store.stats()["total_entries"], store.clear_step("max")
    (['success', 'cached'], 1, 1)
    """

    @hides_internal_frames
    def __init__(self, cache_dir: str | PathLike[str] = DEFAULT, *, max_bytes: int | None = 10 * GIB) -> None:
        from pathlib import Path

        if not isinstance(cache_dir, (str, os.PathLike)):
            raise TypeError(f"cache_dir must be a folder, got {type(cache_dir).__name__} {cache_dir!r:.60}")
        self.cache_dir: Path = usual_folder(cache_dir) if cache_dir is DEFAULT else Path(cache_dir)
        self.max_bytes: int | None = _checked_size(max_bytes)
        self.hits = self.misses = 0
        self._index: CacheIndex | None = None
        self._files: BlobStore  # beside the index, once that is opened
        self._uses = 0
        self._added = False

    # -- for people

    @hides_internal_frames
    def clear(self) -> int:
        """Remove everything; return how many values there were."""
        with self.opened(create=False) as index:
            if index is None:
                return 0
            count, _ = index.remove("1", ())
            self._files.remove_all()
            index.shrink()
            return count

    @hides_internal_frames
    def clear_step(self, name: str) -> int:
        """Remove what a step has stored or used; return how many values."""
        return self.invalidate(step_name=name)

    @hides_internal_frames
    def invalidate(
        self, key: str | None = None, step_name: str | None = None, *, before: str | dt.date | None = None
    ) -> int:
        """Remove values; of several conditions all must hold. None given: nothing is removed.

        Args:
            key: A key, as text.
            step_name: What this step has stored or used.
            before: What was stored before a day or time: a `date`, a `datetime`, or as ISO text.

        Returns:
            How many values were removed.
        """
        conditions: list[str] = []
        values: list[Any] = []
        if key is not None:
            conditions.append("key = ?")
            values.append(_key(key))
        if step_name is not None:
            conditions.append("(step = ? OR key IN (SELECT key FROM aliases WHERE step = ?))")
            values += [step_name, step_name]
        if before is not None:
            conditions.append("created < ?")
            values.append(_seconds(before))
        return self._remove(" AND ".join(conditions), values) if conditions else 0

    def invalidate_steps(self, names: Iterable[str], *, before: str | dt.date | None = None) -> int:
        """Remove what these steps have stored or used, as `invalidate` does."""
        return sum(self.invalidate(step_name=name, before=before) for name in names)

    @hides_internal_frames
    def stats(self) -> dict[str, Any]:
        """Return what is stored, and how often values were found through this object.

        Returns:
            `cache_dir`, `total_entries`, `total_size_mb`, `hits`, `misses`, `hit_rate`, and `by_step`: name to `count`
            and `size_bytes`.
        """
        with self.opened(create=False) as index:
            count, size = (0, 0) if index is None else index.total()
            steps = {} if index is None else index.by_step()
        asked = self.hits + self.misses
        return {
            "cache_dir": str(self.cache_dir),
            "total_entries": count,
            "total_size_mb": size / 2**20,
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate": self.hits / asked if asked else 0.0,
            "by_step": {step: {"count": each, "size_bytes": bytes_} for step, (each, bytes_) in steps.items()},
        }

    def __repr__(self) -> str:
        """Show the folder."""
        return f"CacheStore({str(self.cache_dir)!r})"

    # -- opening

    def open(self, *, create: bool = True) -> CacheIndex | None:
        """Open the index; `None` if there is none and none is to be made.

        Raises:
            StoreError: If the folder is another user's, or was written by a newer version.
            sqlite3.Error: If it cannot be opened.
            OSError: If it cannot be made.
        """
        self._uses += 1
        if self._index is not None:
            return self._index
        from flowyml.store.blobs import BlobStore
        from flowyml.store.directories import private_folder

        try:
            folder = self.cache_dir.absolute()
            if create or folder.exists():
                folder = private_folder(folder)
            path = folder / "index.db"
            self._files = BlobStore(folder / "objects")
            if create or path.exists():
                self._index = self._opened(path)
        except BaseException:
            self._uses -= 1
            raise
        return self._index

    def close(self) -> None:
        """Close the index when the last one who opened it closes it."""
        self._uses -= 1
        if self._uses == 0 and self._index is not None:
            index, self._index = self._index, None
            index.close()

    @contextlib.contextmanager
    def opened(self, *, create: bool = True) -> Iterator[CacheIndex | None]:
        """Open the index for a block."""
        index = self.open(create=create)
        try:
            yield index
        finally:
            self.close()

    def __enter__(self) -> Self:
        """Keep the index open."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _opened(self, path: Path) -> CacheIndex:
        from flowyml.store.cache_index import (  # SQLite is imported by who needs it
            CacheIndex,
            DatabaseErrors,
            is_damage,
        )
        from flowyml.store.directories import check_owner

        if path.exists():
            check_owner(path)
        try:
            return CacheIndex(path)
        except DatabaseErrors as error:
            if not is_damage(error):
                raise
            self._put_aside(path, error)
            return CacheIndex(path)

    def begin_anew(self, error: Exception) -> None:
        """After damage to the index that showed in the middle of things: the next one who opens it finds a new one."""
        if self._index is not None:
            path = self._index.path
            self._index.close()
            self._index = None
            self._put_aside(path, error)

    def _put_aside(self, path: Path, error: Exception) -> None:
        """Leave a damaged index to whoever wants to look at it."""
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        _warn("cache: %s is damaged (%s); it is now %s, and the cache begins anew", path, error, aside.name)
        path.replace(aside)
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        self._files.remove_all()

    # -- for runs; the index is open

    def find(self, keys: Sequence[bytes]) -> dict[bytes, CacheEntry]:
        """Return the entries of these keys that there are and that are whole."""
        index = self._opened_index()
        found = {}
        for entry in index.find(keys):
            if entry.is_whole:
                found[entry.key] = entry
            else:
                self._drop(entry, f"an entry of step {entry.step!r} in {index.path} is damaged")
        return found

    def load(self, entry: CacheEntry) -> Any:
        """Return the value of an entry, encoded.

        Raises:
            LookupError: If it is not there any more, or damaged: then it was named, and is gone.
        """
        from flowyml.store.serialization import SerializedValue, unpacked

        if entry.value is not None:
            return unpacked(SerializedValue(entry.kind, entry.value))
        try:
            return unpacked(self._files.get(entry.kind, entry.file or b""))
        except FileNotFoundError:
            self._drop(entry, None)
        except StoreError as error:
            self._drop(entry, str(error))
            self._files.remove(entry.file or b"")
        raise LookupError(entry.key)

    def _drop(self, entry: CacheEntry, reason: str | None) -> None:
        if reason is not None:
            _warn("cache: %s; it is removed, its step runs", reason)
        self._opened_index().remove("key = ?", [entry.key])

    def entry(self, key: bytes, step: str, value: SerializedValue, content: bytes | None, recipe: bytes) -> CacheEntry:
        """Return the entry of a value; a large one is written to its file now.

        Raises:
            OSError: If that cannot be written.
        """
        from flowyml.store.blobs import LARGE
        from flowyml.store.cache_index import CacheEntry

        data: bytes | None = value.data
        file, size = None, len(value.data)
        if size > LARGE:
            data, file = None, value.checksum
            self._files.put(value, file)
        now = time.time()
        made = CacheEntry(key, step, now, size + _OVERHEAD, value.kind, data, file, content, recipe, used=now)
        return made.sealed()

    def add(self, entries: Sequence[CacheEntry], recipes: Sequence[tuple[bytes, bytes]]) -> None:
        """Store entries."""
        self._added = self._added or bool(entries)
        self._opened_index().add(entries, recipes)

    def forget(self, entries: Sequence[CacheEntry]) -> None:
        """Remove the files of entries that were not stored after all."""
        index = self._opened_index()
        for file in {entry.file for entry in entries if entry.file}:
            if not index.names(file):
                self._files.remove(file)

    def note_use(self, entries: Sequence[tuple[str, CacheEntry]]) -> None:
        """Note which step has used which entry."""
        aliases = [(step, entry.key) for step, entry in entries if entry.step != step]
        stale = time.time() - _FRESH
        keys = [entry.key for _, entry in entries if entry.used < stale]
        if aliases or keys:
            self._opened_index().note_use(keys, aliases)

    def trim(self) -> None:
        """After something was added: remove what was not used for the longest time, if there is too much.

        Once a day also files that no entry names: whoever wrote them was killed before it wrote the entries.
        """
        if self.max_bytes is not None and self._added:
            oldest = self._opened_index().oldest_beyond(self.max_bytes)
            if oldest is not None:
                self._remove("used <= ?", [oldest])
        if self._added:
            self._files.sweep(self._opened_index().files)
        self._added = False

    def _remove(self, where: str, values: Sequence[Any]) -> int:
        with self.opened(create=False) as index:
            if index is None:
                return 0
            count, files = index.remove(where, values)
            for file in files:
                self._files.remove(file)
            return count

    def _opened_index(self) -> CacheIndex:
        if self._index is None:
            raise StoreError(str(self.cache_dir), "is not open")
        return self._index


def _checked_size(max_bytes: Any) -> int | None:
    if max_bytes is None:
        return None
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int):
        kind = type(max_bytes).__name__
        raise TypeError(f"max_bytes must be a whole number of bytes or None, got {kind} {max_bytes!r:.60}")
    if max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
    return max_bytes


def _warn(message: str, *arguments: object) -> None:
    import logging

    logging.getLogger("flowyml").warning(message, *arguments)


def _key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        raise ValueError(f"a key is text of hexadecimal digits, got {text!r:.60}") from None


def _seconds(before: Any) -> float:
    """Return a day or time as seconds since 1970; without a time zone it is meant here."""
    import datetime as dt

    given = before
    try:
        if isinstance(given, str):
            given = dt.datetime.fromisoformat(given)
        if not isinstance(given, dt.datetime):
            given = dt.datetime.combine(given, dt.time())
    except (TypeError, ValueError):
        raise ValueError(
            f"before= takes a date, a datetime or ISO text like '2026-01-31', got {before!r:.60}"
        ) from None
    return float(given.timestamp())
