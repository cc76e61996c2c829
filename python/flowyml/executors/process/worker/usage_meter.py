"""Measures the resource usage of a step in its worker: the worker's side of `results/resource_usage.py`.

Only for steps that are expected to take a millisecond or more: it takes a few microseconds before and after a step. CPU
seconds are those of all threads of the process, and of children that were waited for. The kernel's peak resident size
is reset before the step, so that it is not that of an earlier one.
"""

from __future__ import annotations

import os
import resource
import time

MIN_STEP_SECONDS = 0.001
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
        """Return CPU seconds and bytes of memory; `None` if the step was too short to report."""
        self.runs = False
        if clock() - self._start < MIN_STEP_SECONDS:
            return None
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return max(0.0, _cpu_seconds() - self._cpu), memory if self._resets else None


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _set_back() -> bool:
    """Reset the peak resident size of this process; return False if that is not possible here."""
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
