"""What a step has returned or raised, as it goes to the driver; see `wire.py` for the outcomes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from flowyml._pipelines import is_pipeline
from flowyml.errors import FlowymlError, SerializationError
from flowyml.executors._processes.crossing import wire
from flowyml.executors._processes.crossing.values import dump_result, load_value
from flowyml.steps.once import ONCE, let_go
from flowyml.steps.skips import Skipped
from flowyml.store.values import Outputs, split_outputs

if TYPE_CHECKING:
    from collections.abc import Callable


NO_TERMINAL = (
    "a worker process has no terminal and no standard input; to debug a step or let it ask, run it in this process: "
    "run(executor=LocalExecutor())"
)
_WANTS_TERMINAL = (
    ("builtins", "EOFError", ("EOF when reading a line",)),  # input()
    ("bdb", "BdbQuit", ()),  # pdb.set_trace()
)


def refuse_to_break(*args: Any, **kwargs: Any) -> Any:
    """Replace `sys.breakpointhook`: pdb would read the end of its input and raise an empty `BdbQuit`.

    If `PYTHONBREAKPOINT` names another debugger, or none, that still holds.

    Raises:
        RuntimeError: If pdb would be called.
    """
    if os.environ.get("PYTHONBREAKPOINT", "") in {"", "pdb.set_trace"}:
        raise RuntimeError(f"breakpoint(): {NO_TERMINAL}")
    return sys.__breakpointhook__(*args, **kwargs)  # noqa: T100  as the user has configured


def raised(error: BaseException) -> tuple[int, Any]:
    """Return what came of a step that raised."""
    if isinstance(error, Skipped):
        return wire.SKIPPED, None
    if (type(error).__module__, type(error).__name__, error.args) in _WANTS_TERMINAL:
        error.args = ("; ".join([*error.args, NO_TERMINAL]),)
    return _packed(error)


def _packed(error: BaseException) -> tuple[int, Any]:
    from flowyml.executors._processes.crossing.failure import (
        pack_exception,  # takes milliseconds; most workers never need it
    )

    return wire.RAISED, pack_exception(error, dump_result, load_value)


def encoded(  # noqa: PLR0911  each kind of value has its line
    value: Any, outputs: tuple[str, ...] | None, step: str, dump: Callable[[Any], Any] = dump_result
) -> tuple[int, Any]:
    """Return a value as it goes to the driver, output by output where several are declared."""
    try:
        if not outputs and type(value) in wire.ATOMS:
            return wire.RETURNED, value
        if is_pipeline(value):
            from flowyml.steps.dynamic import packed

            return wire.PIPELINE, dump_result(packed(value), f"the pipeline {value.name!r}")
        if not outputs:
            if type(value) in ONCE:
                return wire.ONCE, let_go(value)
            data = dump(value)
            return wire.STORED if type(data) is tuple else wire.RETURNED, data
        parts: Any = split_outputs(value, tuple(outputs), step)
        return wire.PARTS, [_kind(parts), [wire.encode(part, dump) for part in parts.parts]]
    except SerializationError as error:
        return wire.UNPICKLABLE, error.reason
    except (FlowymlError, TypeError) as error:  # of what the declared outputs say
        return _packed(error)


def with_content(outcome: int, value: Any, returned: Any) -> tuple[int, Any]:
    """Return a value in the form for the driver, with its content if that takes time to compute.

    It has none here if it holds code of the user's: only the driver knows what that reaches.
    """
    from flowyml.keys.content import Unhashable, plain_content

    if outcome not in {wire.RETURNED, wire.STORED, wire.PARTS} or type(returned) in wire.ATOMS:
        return outcome, value
    parts = [returned]
    if outcome == wire.PARTS:
        parts = list(returned.values()) if isinstance(returned, dict) else list(returned)
    try:
        contents = [plain_content(part) for part in parts]
    except Unhashable:
        return outcome, value
    return (outcome, value) if None in contents else (wire.HASHED, [outcome, value, contents])


def _kind(parts: Outputs) -> Any:
    """Return what kind of thing the step returned, for the wire: "tuple", "list" or the keys of a dict."""
    return parts.kind.__name__ if isinstance(parts.kind, type) else list(parts.kind)
