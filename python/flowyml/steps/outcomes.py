"""Values that can be read only once: generators and their like, which are no result of a step and no argument.

Whoever reads such a value takes it from all others, another attempt finds it empty, and it goes to no other process: so
it is refused, on every executor alike. The module knows neither steps nor runs.

What pipelines are, for those who must know no more: whether a value is one.

A step that returns a pipeline means something by it (see `steps/dynamic.py`), so what steps return is looked at.

The function of a step whose value the caller of `run` gives.

`run(given={"load": rows})` plans `load` as a step of this function that waits for nothing, with the value as its
parameter. The run ends it in the state `given` before anything else begins, so the function is never called.

How a step says that it is not to run.

Apart from `conditions.py` because every worker needs it, and most need nothing else of that.
"""

from __future__ import annotations

import contextlib
import types
from typing import Any, TypeVar


class PipelineBase:
    """The base of `Pipeline`."""


def is_pipeline(value: object) -> bool:
    """Tell whether a value is a pipeline; the value itself, which may be anything, is not asked."""
    return issubclass(type(value), PipelineBase)


T = TypeVar("T")


def given_value(value: T) -> T:
    """Return the value."""
    return value


SINGLE_USE_TYPES = frozenset(
    (types.GeneratorType, types.AsyncGeneratorType, types.CoroutineType, map, filter, zip, enumerate),
)
"""The classes of such values."""


def close_iterator(value: Any) -> str:
    """Close such a value, so that nobody warns of it; return the name of its class."""
    if isinstance(value, (types.CoroutineType, types.GeneratorType)):
        with contextlib.suppress(Exception, SystemExit):  # code of the step that it has begun may run
            value.close()
    return type(value).__name__


def single_use_error(step: str, kind: str, output: str | None = None) -> TypeError:
    """Return what is wrong with a step that returned such a value; `kind` is the name of its class."""
    what = f"step {step!r} returned {_called(kind)}{f' for output {output!r}' if output else ''}"
    if kind == types.CoroutineType.__name__:
        return TypeError(f"{what} that nobody has awaited; make the step `async def`, and return what it awaits")
    return TypeError(f"{what}, which can be read only once; return {_as_list(kind)} of it")


def single_use_argument(parameter: str, value: object, source: str) -> str:
    """Say what is wrong with such a value as an argument."""
    kind = type(value).__name__
    what = f"parameter {parameter!r} gets {_called(kind)} from {source}, which can be read only once"
    return f"{what}; make it {_as_list(kind)}"


def _called(kind: str) -> str:
    words = kind.replace("_", " ")
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}{'' if 'or' in words or 'coroutine' in words else ' object'}"


def _as_list(kind: str) -> str:
    return "[each async for each in ...]" if kind == types.AsyncGeneratorType.__name__ else "list(...)"


def generator_kind(function: Any) -> str:
    """Say what is wrong with a generator function; "" for all others.

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
    """A step is not to run; raised by `conditions.Guarded` and caught by every executor."""
