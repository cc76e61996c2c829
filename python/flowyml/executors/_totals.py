"""What this machine has for steps to take: CPUs, GPUs, memory."""

from __future__ import annotations

import os
import sys

from flowyml.executors._cpus import usable_cpus
from flowyml.steps import devices

_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def detected() -> dict[str, float]:
    """Return CPUs, GPUs and bytes of memory that this process may use.

    >>> sorted(detected())
    ['cpu', 'gpu', 'memory']
    """
    return {"cpu": usable_cpus(), "gpu": devices.present(), "memory": _memory()}


def _memory() -> int:
    """Return the memory of the machine, or of the cgroup where that is less; no limit where nobody can tell."""
    if not hasattr(os, "sysconf"):
        return sys.maxsize
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _MEMORY_LIMITS:
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123
                return min(most, int(file.read()))
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
    return most
