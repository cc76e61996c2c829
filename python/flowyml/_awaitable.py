"""A run that can be awaited: it goes on in a helper thread while the event loop goes on, too.

Cancelling the awaiting task asks the run to end as Ctrl-C does: nothing new starts, worker processes go, a step in a
thread is left behind. The module knows nothing of pipelines.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# How long a cancelled run may take to end before the task goes on without it.
_PATIENCE = 1.0


async def in_thread(function: Callable[[], T], cancel: Callable[[], None], *, patience: float = _PATIENCE) -> T:
    """Call a function in a thread of its own, and return what it returns or raise what it raises.

    Args:
        function: What is called; it sees the context variables of this task.
        cancel: Called when the task is cancelled; the function should return soon then.
        patience: How long to wait for that, in seconds.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)
            future.exception()  # it has been seen, also where nobody waits any more

    def work() -> None:
        result, caught = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  the task raises it
            caught = error
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, caught)

    threading.Thread(target=copy_context().run, args=(work,), name="flowyml-run", daemon=True).start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        cancel()
        await asyncio.wait([future], timeout=patience)
        raise
