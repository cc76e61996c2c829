"""Functions that can be awaited: they go on in helper threads while the event loop goes on, too.

Cancelling the awaiting task asks the function to end (a run as Ctrl-C does: nothing new starts, worker processes go, a
step in a thread is left behind). The module knows nothing of pipelines.
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

# How long a cancelled run may take to end before the task goes on without it.
_PATIENCE = 1.0


class _WorkerThread(threading.Thread):
    """A thread that calls one function after the other, each of which says whether there may be more."""

    def __init__(self) -> None:
        super().__init__(name="flowyml-run", daemon=True)
        self.inbox: SimpleQueue[Callable[[], bool] | None] = SimpleQueue()

    def run(self) -> None:
        while True:
            function = self.inbox.get()
            if function is None or not function():
                return
            del function  # it holds what it was called with, and the next one may be long in coming


class ThreadCache:
    """The helper threads of an event loop: each calls one function at a time, and is kept for the next one.

    All methods are called in the loop's thread.
    """

    def __init__(self) -> None:
        self._idle: list[_WorkerThread] = []
        self._busy: set[_WorkerThread] = set()

    def take(self) -> _WorkerThread:
        """Return a thread that has nothing to do, a new one if need be; it is not asked for again before `release`."""
        if self._idle:
            helper = self._idle.pop()
        else:
            helper = _WorkerThread()
            Context().run(helper.start)  # what it calls brings a context along: where threads inherit one, not this
        self._busy.add(helper)
        return helper

    def release(self, helper: _WorkerThread) -> None:
        """Take back a thread whose function has returned."""
        self._busy.discard(helper)
        self._idle.append(helper)

    def close(self) -> None:
        """End them, and wait for those that have nothing to do; the others end when they can."""
        for helper in (*self._idle, *self._busy):
            helper.inbox.put(None)
        for helper in self._idle:
            helper.join()


async def in_thread(
    function: Callable[[], T],
    cancel: Callable[[], None],
    *,
    patience: float = _PATIENCE,
    threads: ThreadCache | None = None,
) -> T:
    """Call a function in a thread of its own, and return what it returns or raise what it raises.

    Args:
        function: What is called; it sees the context variables of this task.
        cancel: Called when the task is cancelled; the function should return soon then.
        patience: How long to wait for that, in seconds.
        threads: Where to take the thread from; by default it is a new one.
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
            future.exception()  # it has been seen, also where nobody waits any more

    def work() -> bool:
        result, caught = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  the task raises it
            caught = error
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
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
