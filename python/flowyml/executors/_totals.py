"""What this machine has for steps to take: CPUs, GPUs, memory."""

from __future__ import annotations

import os

from flowyml.executors._cpus import usable_cpus

_GPUS = "/proc/driver/nvidia/gpus"
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


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
    return len(os.listdir(_GPUS)) if os.path.isdir(_GPUS) else 0  # noqa: PTH112, PTH208  pathlib takes ms to import


def _memory() -> int:
    """Return the memory of the machine, or of the cgroup where that is less."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _MEMORY_LIMITS:
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123
                return min(most, int(file.read()))
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
    return most
