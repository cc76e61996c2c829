"""What the return value of a step may be: pipelines, single-use iterators, and the signal that a step is skipped.

Generators, iterators of builtins and coroutines can be read only once: a second reader or a second attempt finds them
empty, and they cannot be sent to another process. So every executor refuses them. A pipeline is expanded if the step is
dynamic (`steps/dynamic.py`). Every worker imports this module, so it imports next to nothing.
"""

from __future__ import annotations

import contextlib
import types
from typing import Any, TypeVar


class PipelineBase:
    """The base of `Pipeline`."""


def is_pipeline(value: object) -> bool:
    """Return True if a value is a pipeline; no code of the value's class is called."""
    return issubclass(type(value), PipelineBase)


T = TypeVar("T")


def given_value(value: T) -> T:
    """Return the value: the function of a step in `run(given=)`, whose value is its parameter; it is never called."""
    return value


SINGLE_USE_TYPES = frozenset(
    (types.GeneratorType, types.AsyncGeneratorType, types.CoroutineType, map, filter, zip, enumerate),
)
"""The classes of single-use values."""


def close_iterator(value: Any) -> str:
    """Close a single-use value, so that Python does not warn of it; return the name of its class."""
    if isinstance(value, (types.CoroutineType, types.GeneratorType)):
        with contextlib.suppress(Exception, SystemExit):  # code of the step that it has begun may run
            value.close()
    return type(value).__name__


def single_use_error(step: str, kind: str, output: str | None = None) -> TypeError:
    """Return the error of a step that returned a single-use value; `kind` is the name of its class."""
    what = f"step {step!r} returned {_called(kind)}{f' for output {output!r}' if output else ''}"
    if kind == types.CoroutineType.__name__:
        return TypeError(f"{what} that nobody has awaited; make the step `async def`, and return what it awaits")
    return TypeError(f"{what}, which can be read only once; return {_as_list(kind)} of it")


def single_use_argument(parameter: str, value: object, source: str) -> str:
    """Return a message about a single-use value as an argument."""
    kind = type(value).__name__
    what = f"parameter {parameter!r} gets {_called(kind)} from {source}, which can be read only once"
    return f"{what}; make it {_as_list(kind)}"


def _called(kind: str) -> str:
    words = kind.replace("_", " ")
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}{'' if 'or' in words or 'coroutine' in words else ' object'}"


def _as_list(kind: str) -> str:
    return "[each async for each in ...]" if kind == types.AsyncGeneratorType.__name__ else "list(...)"


def generator_kind(function: Any) -> str:
    """Return a message about a generator function; "" for all other functions.

    >>> generator_kind(len)
    ''
    """
    import inspect  # takes milliseconds, and workers have no use for it

    if inspect.isasyncgenfunction(function):
        return "an async generator function, which has no single result; return [each async for each in ...] of it"
    if inspect.isgeneratorfunction(function):
        return "a generator function, which has no single result; return list(...) of it"
    return ""


class StepSkipped(BaseException):
    """A condition does not hold; raised by `GuardedFunction` and caught by every executor."""
