"""The devices of this machine, by the names under which libraries are told which of them to use.

    CUDA_VISIBLE_DEVICES=2,GPU-8f3e ──▶ ("2", "GPU-8f3e")      not set ──▶ ("0", "1", ...), as many as there are

A library reads the variable when it looks for devices first, and not again: a process has its devices for life. The
variables of ROCm are read, too, where CUDA's is not set. No driver is asked for anything.
"""

from __future__ import annotations

import os

VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")

_PRESENT = "/proc/driver/nvidia/gpus"


def variable() -> str:
    """Return the variable that says which devices a process sees: the first that is set, else CUDA's."""
    return next((name for name in VARIABLES if name in os.environ), VARIABLES[0])


def visible() -> tuple[str, ...] | None:
    """Return the devices that the variable names, each once; `None` where it is not set.

    What stands behind an entry that names none is not seen, as CUDA has it.
    """
    found: dict[str, None] = {}
    text = os.environ.get(variable())
    for entry in [] if text is None else text.split(","):
        if entry.strip() in {"", "-1"}:
            break
        found[entry.strip()] = None
    return None if text is None else tuple(found)


def present() -> int:
    """Return how many devices this process may use."""
    names = visible()
    if names is not None:
        return len(names)
    return len(os.listdir(_PRESENT)) if os.path.isdir(_PRESENT) else 0  # noqa: PTH112, PTH208  pathlib takes ms to import


def named(count: int) -> tuple[str, ...]:
    """Return the names of the first devices."""
    names = visible()
    return tuple(map(str, range(count))) if names is None else names[:count]
