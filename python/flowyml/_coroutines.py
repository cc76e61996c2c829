"""`async def` steps where steps are called one by one: each runs to its end in an event loop of its own."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def blocking(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function as one that waits for its result, and any other function as it is.

    >>> async def one():
    ...     return 1
    >>> blocking(one)(), blocking(len) is len
    (1, True)
    """
    inner = func.func if isinstance(func, functools.partial) else func
    called = inner if inspect.isroutine(inner) else type(inner).__call__
    return functools.partial(_run, func) if inspect.iscoroutinefunction(called) else func


def coroutine_function(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the coroutine function behind what `blocking` has returned; `None` if it was a plain function."""
    if isinstance(function, functools.partial) and function.func is _run:
        found: Callable[..., Any] = function.args[0]
        return found
    return None


def _run(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(func(*args, **kwargs))
    return _run_in_thread(func, args, kwargs)


def _run_in_thread(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A notebook's thread has a running loop already, and one thread has one loop."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor
    from contextvars import copy_context

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, lambda: asyncio.run(func(*args, **kwargs))).result()
