"""What goes on in a thread and can be asked to end from another one.

A thread itself cannot be stopped. But the run of a pipeline that a step began can be interrupted, and a coroutine can
be cancelled; either then lets its thread go on. They register here while they last; whoever gives a thread up asks.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# By thread, the innermost last.
_asks: dict[int, list[Callable[[], None]]] = {}


@contextlib.contextmanager
def ends_when_asked(ask: Callable[[], None]) -> Iterator[None]:
    """Have a function called when this thread is given up inside the block; from another thread."""
    asks = _asks.setdefault(threading.get_ident(), [])
    asks.append(ask)
    try:
        yield
    finally:
        asks.remove(ask)
        if not asks:
            _asks.pop(threading.get_ident(), None)


def ask_to_end(thread: int) -> bool:
    """Ask everything that goes on in a thread to end; tell whether there was something."""
    asks = list(_asks.get(thread, ()))
    for ask in asks:
        ask()
    return bool(asks)
