"""What steps have used and written: CPU seconds and peak memory, measured by their worker; output and log records.

```
worker ──with the result of a step that took a millisecond or more───────────▶ Usage ──▶ StepResult.cpu_seconds, max_rss
pipes, log records ──by the step that wrote──────────────────────────────────▶ Usage ──▶ StepResult.logs
```

A run that nobody measures has nothing of it, and a step that nobody measures and that writes nothing costs nothing:
flat arrays of numbers come with the first one that is measured.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT: Final = 32 * 1024  # bytes kept of the beginning of what a step writes, and of its end
MOST: Final = 64 << 20  # bytes kept in a run


class ResourceUsage:
    """What the steps of one run have used and written, by item.

    Attributes:
        captures: Whether what steps write is seen.
    """

    def __init__(self) -> None:
        self.captures = False
        self._cpu = array("f")
        self._memory = array("I")
        self._logs: dict[int, StepLog] = {}
        self._kept = 0

    def note(self, item: int, cpu: float, memory: int | None, count: int) -> None:
        """Take in what the last attempt of an item has used; `count` is how many items there are."""
        if item >= len(self._cpu):
            more = count - len(self._cpu)
            self._cpu.extend(array("f", [math.nan]) * more)
            self._memory.extend(array("I", [0]) * more)
        self._cpu[item] = cpu
        self._memory[item] = 0 if memory is None else max(1, memory >> 10)

    def forget(self, item: int) -> None:
        """Take in that nobody has measured the last attempt of an item."""
        if item < len(self._cpu):
            self._cpu[item], self._memory[item] = math.nan, 0

    def keep(self, item: int, text: str) -> None:
        """Take in what an item has written, as long as there is room."""
        if self._kept < MOST:
            log = self._logs.get(item)
            if log is None:
                log = self._logs[item] = StepLog()
            before = log.held
            log.add(text)
            self._kept += log.held - before

    def cpu_seconds(self, items: Sequence[int]) -> float | None:
        """Return the CPU seconds of items, as far as they are known."""
        known = [each for item in items if item < len(self._cpu) and not math.isnan(each := self._cpu[item])]
        return sum(known) if known else None

    def max_rss(self, items: Sequence[int]) -> int | None:
        """Return the most bytes of memory that the worker of one of these items had while it ran it."""
        most = max((self._memory[item] for item in items if item < len(self._memory)), default=0)
        return most << 10 or None

    def columns(self, count: int) -> tuple[array[float], array[int]]:
        """Return for each of so many items its CPU seconds, NaN where unknown, and its KiB of memory, else 0."""
        more = max(0, count - len(self._cpu))
        return self._cpu + array("f", [math.nan]) * more, self._memory + array("I", [0]) * more

    def logs(self, items: Sequence[int]) -> str | None:
        """Return what items have written, one after the other; `None` where that is not seen."""
        return "".join(self._logs[item].text() for item in items if item in self._logs) if self.captures else None


class StepLog:
    r"""What one step wrote: its beginning and its end, bounded.

    At most `KEPT` bytes from the beginning and, in memory, twice that from the end.

    >>> log = StepLog()
    >>> log.add("spam\n" * 100_000)
    >>> log.text()[:10], "434464 bytes left out" in log.text(), log.size
    ('spam\nspam\n', True, 500000)
    """

    __slots__ = ("_head", "_tail", "size")

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self.size = 0
        """Bytes written, kept or not."""

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        return len(self._head) + len(self._tail)

    def add(self, text: str) -> None:
        """Append text; linear in the text over all calls."""
        data = text.encode("utf-8", "backslashreplace")
        room = KEPT - len(self._head)
        self.size += len(data)
        self._head += data[:room]
        self._tail += data[room:][-KEPT:] if room > 0 else data[-KEPT:]
        if len(self._tail) > 2 * KEPT:
            del self._tail[:-KEPT]

    def text(self) -> str:
        """Return what was kept, with a line in the place of what was not."""
        tail = self._tail[-KEPT:]
        missing = self.size - len(self._head) - len(tail)
        gap = f"\n... {missing} bytes left out ...\n".encode() if missing else b""
        return (self._head + gap + tail).decode("utf-8", "replace")
