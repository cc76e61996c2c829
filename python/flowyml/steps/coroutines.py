"""`async def` steps on executors that call one step at a time: each runs in an event loop of its own."""

from __future__ import annotations

import contextlib
import functools
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

from flowyml.cancellation import on_cancel

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable


_CO_COROUTINE = 0x80  # as `inspect` has it
_MARK = "_is_coroutine_mark"  # of `inspect.markcoroutinefunction`


def make_sync(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function as one that waits for its result, and any other function as it is.

    >>> async def one():
    ...     return 1
    >>> make_sync(one)(), make_sync(len) is len
    (1, True)
    """
    if _is_plain(func):
        return func
    import inspect  # takes milliseconds: most workers never need it

    inner = func.func if isinstance(func, functools.partial) else func
    called = inner if inspect.isroutine(inner) else type(inner).__call__
    return functools.partial(_run, func) if inspect.iscoroutinefunction(called) else func


def _is_plain(func: Callable[..., Any]) -> bool:
    """Return True if a function is known to be no coroutine function, without importing `inspect`."""
    if type(func) is FunctionType:
        return not func.__code__.co_flags & _CO_COROUTINE and _MARK not in func.__dict__
    return type(func) is BuiltinFunctionType


def coroutine_function(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the coroutine function behind what `make_sync` has returned; `None` if it was a plain function."""
    if isinstance(function, functools.partial) and function.func is _run:
        found: Callable[..., Any] = function.args[0]
        return found
    return None


def is_coroutine_function(func: Callable[..., Any]) -> bool:
    """Return True if a function, or the function in a partial, is a coroutine function.

    >>> async def one(): ...
    >>> is_coroutine_function(functools.partial(one)), is_coroutine_function(len)
    (True, False)
    """
    return coroutine_function(make_sync(func)) is not None


def _run(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_cancelled_when_asked(func(*args, **kwargs)))
    return _run_in_thread(func, args, kwargs)


async def _cancelled_when_asked(coroutine: Any) -> Any:
    """Await a coroutine, which is cancelled if its thread is abandoned."""
    import asyncio

    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101  it runs in a loop
    with on_cancel(lambda: _cancel(loop, task)):
        return await coroutine


def _cancel(loop: AbstractEventLoop, task: Task[Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed: the coroutine has ended
        loop.call_soon_threadsafe(task.cancel)


def _run_in_thread(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A notebook's thread has a running loop already, and one thread has one loop."""
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, _run, func, *args, **kwargs).result()
