"""CacheStore, the public handle of a cache directory; `cache_index.py` has the database behind it.

This module is imported by every pipeline, so it imports neither SQLite nor pathlib before a cache is used.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, Self

from flowyml.diagnostics.tracebacks import hides_internal_frames

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable
    from os import PathLike
    from pathlib import Path
    from types import TracebackType

    from flowyml.store.cache_index import CacheDatabase

DEFAULT = ".flowyml/cache"
GIB = 1 << 30


@functools.cache
def default_directory(name: str) -> Path:
    """Return one of the few default directories; creating a `Path` takes longer than this lookup."""
    from pathlib import Path

    return Path(name)


class CacheStore:
    """A directory of cached values.

    Several processes may use one directory at the same time. When the directory grows beyond its limit, the least
    recently used values are removed at the end of a run.

    Args:
        cache_dir: The directory; created when the first value is stored, readable only by its owner.
        max_bytes: Size limit in bytes; `None`: no limit.

    Raises:
        TypeError: If `cache_dir` is not a path, or `max_bytes` is not an integer.
        ValueError: If `max_bytes` is below 1.
        StoreError: On use, if the directory belongs to another user or has the format of another version.

    Attributes:
        hits: How many lookups through this object found a value.
        misses: How many did not.

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
            raise TypeError(
                f"cache_dir must be a path of a directory, got {type(cache_dir).__name__} {cache_dir!r:.60}"
            )
        self.cache_dir: Path = default_directory(cache_dir) if cache_dir is DEFAULT else Path(cache_dir)
        self.max_bytes: int | None = _checked_size(max_bytes)
        self.hits = self.misses = 0

    @functools.cached_property
    def _database(self) -> CacheDatabase:
        from flowyml.store.cache_index import CacheDatabase  # with SQLite

        return CacheDatabase(self.cache_dir, self.max_bytes)

    @hides_internal_frames
    def clear(self) -> int:
        """Remove all values; return how many there were."""
        return self._database.clear()

    @hides_internal_frames
    def clear_step(self, name: str) -> int:
        """Remove the values that a step has stored or used; return how many there were."""
        return self.invalidate(step_name=name)

    @hides_internal_frames
    def invalidate(
        self, key: str | None = None, step_name: str | None = None, *, before: str | dt.date | None = None
    ) -> int:
        """Remove the values that meet all given conditions; without a condition, nothing is removed.

        Args:
            key: A key, as a hexadecimal string.
            step_name: Values that this step has stored or used.
            before: Values stored before a day or time: a `date`, a `datetime`, or an ISO string.

        Returns:
            How many values were removed.
        """
        conditions: list[str] = []
        values: list[Any] = []
        if key is not None:
            conditions.append("key = ?")
            values.append(_key_bytes(key))
        if step_name is not None:
            conditions.append("(step = ? OR key IN (SELECT key FROM aliases WHERE step = ?))")
            values += [step_name, step_name]
        if before is not None:
            conditions.append("created < ?")
            values.append(_timestamp(before))
        return self._database.remove(" AND ".join(conditions), values) if conditions else 0

    def invalidate_steps(self, names: Iterable[str], *, before: str | dt.date | None = None) -> int:
        """Remove the values that these steps have stored or used; see `invalidate`."""
        return sum(self.invalidate(step_name=name, before=before) for name in names)

    @hides_internal_frames
    def stats(self) -> dict[str, Any]:
        """Return what is stored, and how often lookups through this object found a value.

        Returns:
            `cache_dir`, `total_entries`, `total_size_mb`, `hits`, `misses`, `hit_rate`, and `by_step`: a mapping from
            name to `count` and `size_bytes`.
        """
        steps = self._database.sizes()
        lookups = self.hits + self.misses
        return {
            "cache_dir": str(self.cache_dir),
            "total_entries": sum(count for count, _ in steps.values()),
            "total_size_mb": sum(size for _, size in steps.values()) / 2**20,
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate": self.hits / lookups if lookups else 0.0,
            "by_step": {step: {"count": count, "size_bytes": size} for step, (count, size) in steps.items()},
        }

    def __enter__(self) -> Self:
        """Keep the index open until the end of the block."""
        self._database.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()

    def __repr__(self) -> str:
        return f"CacheStore({str(self.cache_dir)!r})"


def database_of(store: CacheStore) -> CacheDatabase:
    """Return the database of a cache, for runs."""
    return store._database  # noqa: SLF001  so that the public class has no methods for runs


def _checked_size(max_bytes: Any) -> int | None:
    if max_bytes is None:
        return None
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int):
        kind = type(max_bytes).__name__
        raise TypeError(f"max_bytes must be an int (bytes) or None, got {kind} {max_bytes!r:.60}")
    if max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
    return max_bytes


def _key_bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        raise ValueError(f"key must be a string of hexadecimal digits, got {text!r:.60}") from None


def _timestamp(before: Any) -> float:
    """Return a day or time as seconds since 1970; without a time zone it is a local time."""
    import datetime as dt

    given = before
    try:
        if isinstance(given, str):
            given = dt.datetime.fromisoformat(given)
        if not isinstance(given, dt.datetime):
            given = dt.datetime.combine(given, dt.time())
    except (TypeError, ValueError):
        raise ValueError(
            f"before must be a date, a datetime or an ISO string like '2026-01-31', got {before!r:.60}"
        ) from None
    return float(given.timestamp())
