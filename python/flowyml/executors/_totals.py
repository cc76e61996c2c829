"""What this machine has for steps to take: CPUs, GPUs, memory."""

from __future__ import annotations

import os
from pathlib import Path

from flowyml.executors._cpus import usable_cpus

_GPUS = Path("/proc/driver/nvidia/gpus")
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def detected() -> dict[str, float]:
    """Return CPUs, GPUs and bytes of memory that this process may use.

    >>> sorted(detected())
    ['cpu', 'gpu', 'memory']
    """
    return {"cpu": usable_cpus(), "gpu": _gpus(), "memory": _memory()}


def _gpus() -> int:
    """Return the number of CUDA devices that are visible, without asking a driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return 0 if visible.strip() in {"", "-1"} else len(visible.split(","))
    return len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0


def _memory() -> int:
    """Return the memory of the machine, or of the cgroup where that is less."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _MEMORY_LIMITS:
        try:
            return min(most, int(path.read_text()))
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
    return most
