"""Guard against pipelines that run while a worker imports the module of a step.

A module that runs a pipeline at its top level would start workers in the worker, which import the module again, without
end. So a worker marks the time in which it loads functions and values (`loading()`), and each run checks the mark first
(`refuse_if_loading()`).

The mark belongs to the loading thread: a thread left by an earlier step may run a pipeline meanwhile. The module knows
nothing of pipelines or workers and imports nothing of the package but its errors.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flowyml.errors import FlowymlError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.loaders: list[FrameType] = []


_thread = _ThreadState()
_DEPTH = 2  # frames from `loading` through `contextmanager` to the caller


@contextmanager
def loading() -> Iterator[None]:
    """Mark that this thread loads a function or a value of a step.

    >>> with loading():
    ...     refuse_if_loading()
    Traceback (most recent call last):
    flowyml.errors.FlowymlError: a pipeline is run while a step loads; ...
    """
    _thread.loaders.append(sys._getframe(_DEPTH))  # noqa: SLF001  no public way to get the caller's frame
    try:
        yield
    finally:
        _thread.loaders.pop()


def refuse_if_loading() -> None:
    """Refuse to run a pipeline while this thread loads a step; called at the start of every run.

    Raises:
        FlowymlError: If this thread is loading, with the name of the module that runs a pipeline on import.
    """
    if not _thread.loaders:
        return
    module = _importing(sys._getframe(1))  # noqa: SLF001  as above
    who = f"module {module!r} runs a pipeline when it is imported" if module else "a pipeline is run while a step loads"
    raise FlowymlError(f'{who}; put it under if __name__ == "__main__"')


def _importing(frame: FrameType | None) -> str | None:
    """Return the name of the innermost module that is being imported, up to the frame of the loader."""
    while frame is not None and frame is not _thread.loaders[-1]:
        if frame.f_code.co_name == "<module>":
            return str(frame.f_globals.get("__name__"))
        frame = frame.f_back
    return None
