"""Resources and output of steps: CPU seconds and peak memory, measured by the worker; output and log records.

```
worker ──with each result of a step of a millisecond or more──▶ ResourceUsage ──▶ StepResult.cpu_seconds, max_rss
pipes, log records ──by the step that wrote──────────────────▶ ResourceUsage ──▶ StepResult.logs
```

The flat arrays are created with the first measurement, so a run without measurements or output pays nothing.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT: Final = 32 * 1024  # bytes kept of a step's output, from its beginning and from its end
MAX_KEPT: Final = 64 << 20  # bytes kept in a run


class ResourceUsage:
    """Resources and output of the steps of one run, by item.

    Args:
        captures: True if the output of steps is captured.
    """

    def __init__(self, *, captures: bool) -> None:
        self._captures = captures
        self._cpu = array("f")
        self._memory = array("I")
        self._logs: dict[int, StepLog] = {}
        self._kept = 0

    def note(self, item: int, cpu: float, memory: int | None, count: int) -> None:
        """Record the last attempt of an item; `count` is the number of items of the run."""
        if item >= len(self._cpu):
            more = count - len(self._cpu)
            self._cpu.extend(array("f", [math.nan]) * more)
            self._memory.extend(array("I", [0]) * more)
        self._cpu[item] = cpu
        self._memory[item] = 0 if memory is None else max(1, memory >> 10)

    def forget(self, item: int) -> None:
        """Discard the measurement of an item whose last attempt was not measured."""
        if item < len(self._cpu):
            self._cpu[item], self._memory[item] = math.nan, 0

    def keep(self, item: int, text: str) -> None:
        """Append output of an item, within the limit of the run."""
        if self._kept < MAX_KEPT:
            log = self._logs.get(item)
            if log is None:
                log = self._logs[item] = StepLog()
            before = log.held
            log.add(text)
            self._kept += log.held - before

    def cpu_seconds(self, items: Sequence[int]) -> float | None:
        """Return the sum of the known CPU seconds of items, `None` if none is known."""
        known = [cpu for item in items if item < len(self._cpu) and not math.isnan(cpu := self._cpu[item])]
        return sum(known) if known else None

    def max_rss(self, items: Sequence[int]) -> int | None:
        """Return the peak memory in bytes of the workers that ran these items, `None` if unknown."""
        most = max((self._memory[item] for item in items if item < len(self._memory)), default=0)
        return most << 10 or None

    def columns(self, count: int) -> tuple[array[float], array[int]]:
        """Return for each of `count` items its CPU seconds, NaN if unknown, and its KiB of memory, 0 if unknown."""
        more = max(0, count - len(self._cpu))
        return self._cpu + array("f", [math.nan]) * more, self._memory + array("I", [0]) * more

    def logs(self, items: Sequence[int]) -> str | None:
        """Return the output of items in their order; `None` if output is not captured."""
        return "".join(self._logs[item].text() for item in items if item in self._logs) if self._captures else None


class StepLog:
    r"""The output of one step: its beginning and its end.

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
        """Number of bytes kept."""
        return len(self._head) + len(self._tail)

    def add(self, text: str) -> None:
        """Append output; linear in its size over all calls."""
        data = text.encode("utf-8", "backslashreplace")
        room = KEPT - len(self._head)
        self.size += len(data)
        self._head += data[:room]
        self._tail += data[room:][-KEPT:] if room > 0 else data[-KEPT:]
        if len(self._tail) > 2 * KEPT:
            del self._tail[:-KEPT]

    def text(self) -> str:
        """Return the kept output, with a note in place of the gap."""
        tail = self._tail[-KEPT:]
        missing = self.size - len(self._head) - len(tail)
        gap = f"\n... {missing} bytes left out ...\n".encode() if missing else b""
        return (self._head + gap + tail).decode("utf-8", "replace")
