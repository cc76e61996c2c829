"""How many CPUs this process may use, and what a worker's share of them is.

Inside a worker of ours `max_workers=None` means the worker's share, so that nested pools do not multiply; an explicit
number always wins. A worker process gets its share in the environment, a worker thread in a thread-local.

What this machine has for steps to take: CPUs, GPUs, memory.
"""

from __future__ import annotations

import os
import sys
import threading

from flowyml.steps import resources

SHARE_VARIABLE = "FLOWYML_CPU_SHARE"
_CGROUP = "/sys/fs/cgroup"

thread_share = threading.local()


def usable_cpus() -> int:
    """Return the CPUs that this process may use: affinity and cgroup quota, at least 1.

    >>> usable_cpus() >= 1
    True
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(allowed, quota) if quota else allowed)


def default_workers() -> int:
    """Return the number of workers for `max_workers=None`: the share of a worker inside one, else the usable CPUs."""
    share = getattr(thread_share, "cpus", None) or os.environ.get(SHARE_VARIABLE)
    return max(1, int(share)) if share else usable_cpus()


def share_of(workers: int) -> int:
    """Return what each of so many workers may use."""
    return max(1, default_workers() // workers)


def _cgroup_quota() -> int:
    """Return the CPUs of a cgroup's quota, rounded up; 0 if there is none."""
    try:
        quota, period = _read("cpu.max").split()
    except (OSError, ValueError):
        return _cgroup_v1_quota()
    return 0 if quota == "max" else -(-int(quota) // int(period))


def _cgroup_v1_quota() -> int:
    try:
        quota, period = int(_read("cpu/cpu.cfs_quota_us")), int(_read("cpu/cpu.cfs_period_us"))
    except (OSError, ValueError):
        return 0
    return -(-quota // period) if quota > 0 else 0


def _read(name: str) -> str:
    with open(f"{_CGROUP}/{name}", encoding="ascii") as file:  # noqa: PTH123  workers import this; pathlib takes milliseconds
        return file.read()


_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def detected() -> dict[str, float]:
    """Return CPUs, GPUs and bytes of memory that this process may use.

    >>> sorted(detected())
    ['cpu', 'gpu', 'memory']
    """
    return {"cpu": usable_cpus(), "gpu": resources.present(), "memory": _memory()}


def _memory() -> int:
    """Return the memory of the machine, or of the cgroup if that is less; `sys.maxsize` if it is not known."""
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
