"""The end of the interpreter while a daemon thread is in a run.

At exit pools close in the main thread, and a dispatch loop in a daemon thread would find its sockets closed under it.
Such a thread is about to be frozen anyway: it waits for that, instead of failing loudly. Other threads are waited for
before pools close.
"""

from __future__ import annotations

import atexit
import threading


class _InterpreterExit:
    watched = False
    ending = False


def watch() -> None:
    """Notice the end before pools close: to be called after one was started, as what is registered last runs first."""
    if not _InterpreterExit.watched:
        _InterpreterExit.watched = True
        atexit.register(_note)


def wait_if_ending() -> None:
    """Never return once the interpreter ends, unless it is the main thread that calls."""
    if _InterpreterExit.ending and threading.current_thread() is not threading.main_thread():
        threading.Event().wait()


def _note() -> None:
    _InterpreterExit.ending = True
