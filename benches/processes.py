"""CPU time and memory of a process and all that it has started, read from `/proc`.

Sums count every process that lives when they are read, and what ended children left to their parents. Peak memory of
several processes is the sum of their peaks: an upper bound, since they need not come at the same moment. This process
counts whole; of its workers a page that several processes have counts in equal parts, as the kernel does it (`Pss`):
forked processes share most of what they have, and a sum of what each sees has it as often as there are processes.
Where there is no `/proc` only this process is seen.
"""

from __future__ import annotations

import os
import resource
import threading
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat after the name in parentheses: own and waited-for children's user and system time.
_TIMES = slice(11, 15)


def descendants(pid: int | None = None) -> list[int]:
    """Return the processes that a process has started, and those that they have started."""
    children = [each for task in (_PROC / str(pid or os.getpid()) / "task").glob("*") for each in _children(task)]
    return children + [below for child in children for below in descendants(child)]


def cpu_of_workers() -> float:
    """Return the CPU seconds of what this process has started: what lives, and the children that have ended."""
    return cpu_of_children() + sum(map(_cpu_of, descendants()))


def memory() -> dict[str, int]:
    """Return the bytes in use now and at the peak: of this process, and with its workers."""
    own = _memory_of(os.getpid())
    workers = [(_memory_of(pid), _counted_elsewhere(pid)) for pid in descendants()]
    return {
        "rss": own.now,
        "peak": own.peak,
        "rss_with_workers": own.now + sum(each.now - elsewhere for each, elsewhere in workers),
        "peak_with_workers": own.peak + sum(each.peak - elsewhere for each, elsewhere in workers),
    }


def cpu_of_machine() -> float:
    """Return the CPU seconds that all processes of the machine have used; 0 where that cannot be known."""
    with suppress(OSError):
        user, nice, system, _, _, irq, softirq, steal = (_PROC / "stat").read_text().split()[1:9]
        return sum(map(int, (user, nice, system, irq, softirq, steal))) / _TICKS
    return 0.0


def cpu_of_children() -> float:
    """Return the CPU seconds of the children that have ended, and of theirs."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


class Peak:
    """The most memory of all processes together while a block runs: what each has for itself, and what they share.

    Shared are the memory files that this process has open, each counted once.

    Attributes:
        most: Bytes.
    """

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            own = sum(_memory_of(pid).anonymous for pid in (os.getpid(), *descendants()))
            self.most = max(self.most, own + _shared())


def _shared() -> int:
    """Return the bytes of the memory files that this process has open."""
    size = 0
    for descriptor in (_PROC / "self/fd").iterdir():
        with suppress(OSError):  # it is closed by now
            if str(descriptor.readlink()).startswith("/memfd:"):
                size += descriptor.stat().st_blocks * 512
    return size


def _counted_elsewhere(pid: int) -> int:
    """Return how much of what a process has in memory is the part of others: of pages that they have, too."""
    sizes = {"Rss": 0, "Pss": 0}
    with suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in sizes:
                sizes[name] = int(value.split()[0]) * 1024
    return sizes["Rss"] - sizes["Pss"]


def _children(task: Path) -> list[int]:
    with suppress(OSError):
        return [int(pid) for pid in (task / "children").read_text().split()]
    return []


def _cpu_of(pid: int) -> float:
    with suppress(OSError):
        after_name = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return sum(map(int, after_name[_TIMES])) / _TICKS
    return 0.0


class _Memory(NamedTuple):
    now: int
    peak: int
    anonymous: int


def _memory_of(pid: int) -> _Memory:
    sizes: dict[str, int] = {}
    with suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in {"VmRSS", "VmHWM", "RssAnon"}:
                sizes[name] = int(value.split()[0]) * 1024
    return _Memory(sizes.get("VmRSS", 0), sizes.get("VmHWM", 0), sizes.get("RssAnon", 0))
