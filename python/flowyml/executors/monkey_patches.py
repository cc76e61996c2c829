"""Monkey patches of gevent and eventlet that break workers.

Their `patch_all()` replaces locks, queues and polls by ones that switch greenlets, for which worker threads would wait
for ever, and removes `select.epoll`, with which the driver waits for worker processes. The local executor and
the event loop run with them.
"""

from __future__ import annotations

import sys
from typing import Final

from flowyml.errors import ExecutorError

_GEVENT: Final = {"process": ("select",), "thread": ("thread", "queue")}
_EVENTLET: Final = {"process": ("select", "os"), "thread": ("thread",)}
"""By backend, the parts that must not be patched, by the names of the arguments with which they are left out."""
_MODULES: Final = {"thread": "_thread"}
"""The modules that gevent patches for parts with another name."""


def refuse_patches(backend: str) -> None:
    """Refuse to start workers where they would hang or fail.

    Raises:
        ExecutorError: If they are patched; says what, and what to do.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None:
        parts = [part for part in _GEVENT[backend] if gevent.is_module_patched(_MODULES.get(part, part))]
        _refuse(backend, "gevent", "monkey.patch_all", parts, _GEVENT[backend])
    if eventlet is not None:
        parts = [part for part in _EVENTLET[backend] if eventlet.is_monkey_patched(part)]
        _refuse(backend, "eventlet", "monkey_patch", parts, _EVENTLET[backend])


def _refuse(backend: str, library: str, call: str, patched: list[str], needed: tuple[str, ...]) -> None:
    if patched:
        workers = "worker processes" if backend == "process" else "worker threads"
        others = ", ".join(f"{part}=False" for part in needed)
        raise ExecutorError(
            f"{library} has patched {' and '.join(patched)}, and {workers} need the standard library's own; use "
            f"LocalExecutor(), or backend='async', or patch less: {call}({others})"
        )
