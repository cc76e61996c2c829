"""Cancellation callbacks of work that runs in a thread.

A thread cannot be stopped from outside, but a pipeline run that a step started can be interrupted and a coroutine can
be cancelled, and both end the work of their thread. They register a callback here while they run; an executor that
gives up a thread calls it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# By thread id, the innermost last.
_callbacks: dict[int, list[Callable[[], None]]] = {}


@contextlib.contextmanager
def on_cancel(callback: Callable[[], None]) -> Iterator[None]:
    """Register a callback for this thread in a block; `cancel_thread` calls it from another thread."""
    callbacks = _callbacks.setdefault(threading.get_ident(), [])
    callbacks.append(callback)
    try:
        yield
    finally:
        callbacks.remove(callback)
        if not callbacks:
            _callbacks.pop(threading.get_ident(), None)


def cancel_thread(thread: int) -> bool:
    """Call the callbacks of a thread; return True if there were any."""
    callbacks = list(_callbacks.get(thread, ()))
    for callback in callbacks:
        callback()
    return bool(callbacks)
