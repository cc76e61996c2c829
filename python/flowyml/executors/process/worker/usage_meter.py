"""What a step uses, measured in its worker: the side of the worker of `results/resource_usage.py`.

Only for a step that is expected to take a millisecond or more: a few microseconds before and after it.
CPU seconds are those of the whole process, of all of its threads, and of children that were waited for. The highest
resident size, which the kernel keeps, is set back before the step, so that it is not that of one before it.
"""

from __future__ import annotations

import os
import resource
import time

_SHORTEST = 0.001
_SET_BACK = b"5"

clock = time.monotonic


class UsageMeter:
    """Measures one step at a time.

    Attributes:
        runs: Whether it measures.
    """

    def __init__(self) -> None:
        self.runs = False
        self._resets = False
        self._cpu = self._start = 0.0

    def begin(self) -> None:
        """Begin before a step."""
        self._resets = _set_back()
        self.runs, self._cpu, self._start = True, _cpu_seconds(), clock()

    def end(self) -> tuple[float, int | None] | None:
        """Return CPU seconds and bytes of memory; `None` for a step that was too short to be worth a message."""
        self.runs = False
        if clock() - self._start < _SHORTEST:
            return None
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return max(0.0, _cpu_seconds() - self._cpu), memory if self._resets else None


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _set_back() -> bool:
    """Set the highest resident size of this process back to what it has; tell whether that is possible here."""
    try:
        file = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.write(file, _SET_BACK) == len(_SET_BACK)
    except OSError:
        return False
    finally:
        os.close(file)
