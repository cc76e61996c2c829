"""Write buffer: finished items are written in groups, because one write per item costs more than a tiny step.

```
add ──defer──▶ held ──as many as a batch, or after a short delay──▶ write
 └───────────── otherwise ─────────────────────────────────────────▶ write
```

The journal holds items for some milliseconds, the cache for half a second. The core applies the bounds of the journal
itself to the items that its loops report (`Scheduler.note`). A call into C that keeps the interpreter's lock delays the
writing thread like any other.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOLD_SECONDS = 0.02
"""How long the journal holds an item at most."""
BATCH_SIZE = 512
"""How many items the journal holds at most; the cost per item is near its minimum then."""
TINY_STEP_SECONDS = 0.001
"""The journal defers an item only if the item before it ended less than this time before."""


class WriteBuffer:
    """Columns of values that are written together.

    Args:
        lock: Held by the callers of `add` and `flush`; the writing thread acquires it, too.
        write: Called with the columns, in the order of their addition.
        columns: How many columns there are.
        max_items: How many items are held at most.
        max_seconds: How long an item is held at most.
    """

    def __init__(
        self, lock: threading.RLock, write: Callable[..., None], *, columns: int, max_items: int, max_seconds: float
    ) -> None:
        self._lock = lock
        self._write = write
        self._count = columns
        self._max_items = max_items
        self._max_seconds = max_seconds
        self._columns: list[list[Any]] = [[] for _ in range(columns)]
        self._since = 0.0
        self._has_items = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, columns: Sequence[Sequence[Any]], now: float, *, defer: bool) -> None:
        """Add items; write all held items now unless they may be deferred."""
        for held, added in zip(self._columns, columns, strict=True):
            held.extend(added)
        if defer:
            count = len(self._columns[0])
            if count == len(columns[0]):
                self._since = now
                self._wake_thread()
            if count < self._max_items and now - self._since < self._max_seconds:
                return
        self.flush()

    def flush(self) -> None:
        """Write all held items."""
        if self._columns[0]:
            self._write(*self.drop())

    def drop(self) -> list[list[Any]]:
        """Hold nothing any more; return the columns that were held."""
        columns, self._columns = self._columns, [[] for _ in range(self._count)]
        return columns

    def end(self) -> None:
        """End the thread; held items were written or are dropped. Must not be called under the lock."""
        self._ended.set()
        self._has_items.set()
        if self._thread is not None:
            self._thread.join()

    def _wake_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._flush_repeatedly, name="flowyml-write-buffer", daemon=True)
            self._thread.start()
        self._has_items.set()

    def _flush_repeatedly(self) -> None:
        while True:
            self._has_items.wait()
            self._has_items.clear()
            if self._ended.wait(self._max_seconds):
                return
            with self._lock:
                self.flush()
