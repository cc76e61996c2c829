"""What has ended and waits a moment to be written with others: a record of its own would cost more than a tiny step.

```
keep ──the last one ended just now──▶ held ──as many as a batch, or after 20 ms──▶ write
   └────────────── otherwise ────────────────────────────────────────────────────▶ write
```

So what is held was finished within some milliseconds, each longer step is written when it ends, and nothing waits
longer than `WINDOW` (and what holds the interpreter's lock without a break delays this thread like all others). What
the loops of this process report by themselves has waited already, noted by the core within the same bounds
(`Scheduler.note`). The module knows neither keys nor records.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Write = Callable[[Sequence[int], Sequence[Any], bytes], None]

WINDOW = 0.02
"""Seconds that something is held at the most."""

MOST = 512
"""Items that are held at the most; so many together cost about as little as it gets."""

TINY = 0.001
"""Seconds between the ends of two steps that are worth waiting for each other."""

_FEW = 32  # so many that end together are a batch of their own
_LARGE = 1 << 14  # bytes of a value that is worth a write of its own

clock = time.monotonic


class WriteBuffer:
    """Items that have ended, with their values and states, until they are written.

    Args:
        lock: Is held by whoever calls; the thread that writes what has waited takes it, too.
        write: Writes items, in the order in which they came.
    """

    def __init__(self, lock: threading.RLock, write: Write) -> None:
        """Hold nothing; the thread starts when something waits for it."""
        self._lock = lock
        self._write = write
        self._items: list[int] = []
        self._values: list[Any] = []
        self._states = bytearray()
        self._last = self._since = 0.0
        self._some = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, items: Sequence[int], values: Sequence[Any], states: bytes) -> None:
        """Take over items that have ended; write them with all that is held, if there is nothing to wait for."""
        before, self._last = self._last, clock()
        self._items += items
        self._values += values
        self._states += states
        if self._last - before < TINY and len(items) < _FEW and not any(map(_is_large, values)):
            if len(self._items) == len(items):
                self._wait()
            if len(self._items) < MOST and self._last - self._since < WINDOW:
                return
        self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self._items:
            items, values, states = self._items, self._values, bytes(self._states)
            self._items, self._values, self._states = [], [], bytearray()
            self._write(items, values, states)

    def end(self) -> None:
        """End the thread; what is held was written or is given up. Not to be called under the lock."""
        self._over.set()
        self._some.set()
        if self._thread is not None:
            self._thread.join()

    def _wait(self) -> None:
        """Let the thread look in a while: nothing else may end until then."""
        self._since = self._last
        if self._thread is None:
            self._thread = threading.Thread(target=self._go, name="flowyml-held", daemon=True)
            self._thread.start()
        self._some.set()

    def _go(self) -> None:
        while True:
            self._some.wait()
            self._some.clear()
            if self._over.wait(WINDOW):
                return
            with self._lock:
                self.flush()


def _is_large(value: Any) -> bool:
    return type(value) is not int and hasattr(value, "__len__") and len(value) > _LARGE
