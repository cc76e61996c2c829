"""Awaitable calls of blocking functions: they run in helper threads while the event loop continues.

If the awaiting task is cancelled, the function is asked to end: a run ends as after Ctrl-C, that is, it starts nothing
new and ends worker processes, and a step in a thread is left behind. The module knows nothing of pipelines.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# How long a cancelled task waits for its run to end.
_CANCEL_SECONDS = 1.0


class _WorkerThread(threading.Thread):
    """A thread that calls functions one after the other, until one returns False."""

    def __init__(self) -> None:
        super().__init__(name="flowyml-run", daemon=True)
        self.inbox: SimpleQueue[Callable[[], bool] | None] = SimpleQueue()

    def run(self) -> None:
        while True:
            function = self.inbox.get()
            if function is None or not function():
                return
            del function  # it holds its arguments, and the next function may take long to arrive


class ThreadCache:
    """The helper threads of an event loop: each calls one function at a time, and is kept for the next one.

    All methods are called in the loop's thread.
    """

    def __init__(self) -> None:
        self._idle: list[_WorkerThread] = []
        self._busy: set[_WorkerThread] = set()

    def take(self) -> _WorkerThread:
        """Return an idle thread, or a new one; it is not returned again before `release`."""
        if self._idle:
            helper = self._idle.pop()
        else:
            helper = _WorkerThread()
            Context().run(
                helper.start
            )  # each function has a context of its own; some threads inherit that of their creator
        self._busy.add(helper)
        return helper

    def release(self, helper: _WorkerThread) -> None:
        """Keep a thread whose function has returned."""
        self._busy.discard(helper)
        self._idle.append(helper)

    def close(self) -> None:
        """End all threads, and wait for the idle ones; the others end with their function."""
        for helper in (*self._idle, *self._busy):
            helper.inbox.put(None)
        for helper in self._idle:
            helper.join()


async def in_thread(
    function: Callable[[], T],
    cancel: Callable[[], None],
    *,
    patience: float = _CANCEL_SECONDS,
    threads: ThreadCache | None = None,
) -> T:
    """Call a function in a thread of its own; return its value or raise its exception.

    Args:
        function: The function; it sees the context variables of this task.
        cancel: Called when the task is cancelled; the function should return soon after.
        patience: How long to wait for that, in seconds.
        threads: Provides the thread; a new one by default.
    """
    kept = threads is not None
    threads = threads or ThreadCache()
    helper = threads.take()
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        threads.release(helper)
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)
            future.exception()  # mark it as retrieved: the task may have been cancelled

    def work() -> bool:
        result, caught = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  the task raises it
            caught = error
        with contextlib.suppress(RuntimeError):  # the loop was closed, so no task waits
            loop.call_soon_threadsafe(settle, result, caught)
            return kept
        return False

    helper.inbox.put(partial(copy_context().run, work))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        cancel()
        await asyncio.wait([future], timeout=patience)
        raise
