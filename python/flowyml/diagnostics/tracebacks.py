"""Tracebacks and warnings: internal frames are hidden, and the user's frames shown with their arguments.

```
run() ─ _prepared() ─ Plan() ─ raise        ──▶ hidden: the user sees the line of the call, then the message
call_steps() ─ call() ─ step() ─ helper()   ──▶ step() and helper(), with their arguments in short form
```

A frame is internal if its file is inside the package. `hide_internal_frames` removes internal frames from an exception
in two places: where it leaves a public function (`@hides_internal_frames`; a few functions for which the decorator's
call costs too much do it themselves, in `except BaseException`), and where an attempt of a step failed.

A bare `raise` adds no frame to the traceback of the exception, so the decorator leaves no frame of its own. With
FLOWYML_TRACEBACK=full in the environment nothing is hidden.

Warnings are attributed to the user's line. Keywords of flowyml 2.2.1 that have no effect here get one warning.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from flowyml.diagnostics.text import did_you_mean, short_repr, unknown_keyword_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import CodeType, FrameType, TracebackType


F = TypeVar("F", bound="Callable[..., Any]")

_HOME: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH100, PTH120  a prefix of co_filename
_LIBRARY: Final = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120
# Compiled on use: that takes a fraction of a millisecond, and few processes see a failure.
_INSTALLED: Final = r"[/\\](site|dist)-packages[/\\]|^<frozen "
_SENSITIVE: Final = r"passw|secret|token|credential|api_?key"
_UNEXPECTED_KEYWORD: Final = r"(.*unexpected keyword argument '(\w+)')(\. Did you mean '\w+'\?)?$"  # 3.13 adds a guess
_MAX_CHAIN: Final = 100
_HIDDEN: Final = "__flowyml_hidden__"
_COROUTINE: Final = 0x80  # CO_COROUTINE of `inspect`
_BOUNDARIES: Final[set[CodeType]] = set()


# ---- which frames are internal -------------------------------------------------------------------------------------


def is_internal(filename: str) -> bool:
    """Return True if a file is inside the package."""
    return filename.startswith(_HOME)


def is_stdlib(filename: str) -> bool:
    """Return True if a file belongs to the standard library."""
    installed = re.search(_INSTALLED, filename)
    return installed[0] == "<frozen " if installed else filename.startswith(_LIBRARY)


def user_code_boundary(func: F) -> F:
    """Mark an internal function that calls user code: a traceback that ends in its frame comes from a C function."""
    _BOUNDARIES.add(func.__code__)
    return func


# ---- hiding frames -------------------------------------------------------------------------------------------------


def hides_internal_frames(func: F) -> F:
    """Let a public function or coroutine function raise without internal frames."""
    call: Callable[..., Any]
    if func.__code__.co_flags & _COROUTINE:

        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return await func(*args, **kwargs)
            except BaseException as error:
                _hide_on_exit(error, func)
                raise

    else:

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return func(*args, **kwargs)
            except BaseException as error:
                _hide_on_exit(error, func)
                raise

    return cast("F", functools.wraps(func)(call))


def _hide_on_exit(error: BaseException, func: Callable[..., Any]) -> None:
    if isinstance(error, TypeError) and _is_signature_error(error):
        _correct_message(error, func)
        if not _shows_everything():
            _set_traceback(error, None)
    else:
        hide_internal_frames(error)


def hide_internal_frames(error: BaseException) -> None:
    """Remove internal frames from an exception, its causes and contexts.

    Frames before the first frame of the user are removed; if a `raise` statement of flowyml raised the exception, those
    after the user's last frame, too. If all frames are internal, they are removed if a `raise` statement raised it or
    the last one is at the boundary to user code; otherwise the exception shows a defect of flowyml and keeps all of
    them.
    """
    if _shows_everything():
        return
    with suppress(Exception):  # the exception's class may override attributes
        for linked in islice(_chain(error), _MAX_CHAIN):
            _hide(linked)


def _hide(error: BaseException) -> None:
    trace = error.__traceback__
    if trace is None:
        return
    is_deliberate = _HIDDEN in error.__dict__ or _is_deliberate(trace)
    kept = _external(trace)
    if kept is not None:
        _set_traceback(error, _without_internal_end(kept) if is_deliberate else kept)
    elif is_deliberate:
        error.__dict__[_HIDDEN] = True  # read by the public function around this one
        _set_traceback(error, None)
    elif _last(trace).tb_frame.f_code in _BOUNDARIES:
        _set_traceback(error, None)


def _set_traceback(error: BaseException, trace: TracebackType | None) -> None:
    BaseException.with_traceback(error, trace)  # the class may override it


def _is_signature_error(error: BaseException) -> bool:
    """Return True if the arguments of a decorated function do not match its parameters."""
    trace = error.__traceback__
    return trace is not None and trace.tb_next is None and trace.tb_frame.f_code.co_filename == __file__


def _correct_message(error: TypeError, func: Callable[..., Any]) -> None:
    """Name the class, not its `__init__`, in the message of such an error; add a near match."""
    text, code = str(error).replace(".__init__()", "()"), func.__code__
    unknown = re.match(_UNEXPECTED_KEYWORD, text)
    if unknown is not None:
        text = unknown[1] + did_you_mean(unknown[2], code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    error.args = (text,)


def _shows_everything() -> bool:
    return os.environ.get("FLOWYML_TRACEBACK") == "full"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes and contexts that would be printed above it."""
    seen: set[int] = set()
    other: BaseException | None = error
    while other is not None and id(other) not in seen:
        yield other
        seen.add(id(other))
        other = other.__cause__ or (None if other.__suppress_context__ else other.__context__)


def _external(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from its first frame that is not internal; `None` if all are."""
    while trace is not None and is_internal(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _is_deliberate(trace: TracebackType) -> bool:
    """Return True if a `raise` statement of flowyml raised the exception."""
    last = _last(trace)
    if not is_internal(last.tb_frame.f_code.co_filename):
        return False
    from opcode import opmap

    code = last.tb_frame.f_code.co_code
    return last.tb_lasti < len(code) and code[last.tb_lasti] == opmap["RAISE_VARARGS"]


def _without_internal_end(trace: TracebackType) -> TracebackType:
    """Let a traceback end with the user's last frame."""
    last, current = trace, trace.tb_next
    while current is not None:
        if not is_internal(current.tb_frame.f_code.co_filename):
            last = current
        current = current.tb_next
    last.tb_next = None
    return trace


def _last(trace: TracebackType) -> TracebackType:
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace


# ---- arguments of frames -------------------------------------------------------------------------------------------


def arguments_of(frame: FrameType) -> dict[str, str]:
    """Return the arguments of a user function in short form; {} for frames of libraries and modules.

    They are the current values of the parameters, which the function may have rebound.
    """
    code = frame.f_code
    if (
        is_internal(code.co_filename)
        or code.co_filename.startswith(_LIBRARY)
        or re.search(_INSTALLED, code.co_filename)
    ):
        return {}
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
    names = [name for name in code.co_varnames[:count] if name not in {"self", "cls"} and not name.startswith(".")]
    values = frame.f_locals if names else {}
    return {
        name: _describe_argument(name, values[name])
        for name in names
        if name in values and not _is_internal_value(values[name])
    }


def called_as(error: BaseException) -> str:
    """Return the call that raised an exception, like "half(n=5)"; "" if it is not known."""
    trace = _external(error.__traceback__)
    arguments = {} if trace is None else arguments_of(trace.tb_frame)
    if trace is None or not arguments:
        return ""
    described = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return f"{trace.tb_frame.f_code.co_name}({described})"


def _is_internal_value(value: object) -> bool:
    return type(value).__module__.startswith("flowyml.")


def _describe_argument(name: str, value: Any) -> str:
    return "(not shown)" if re.search(_SENSITIVE, name, re.IGNORECASE) and value is not None else short_repr(value)


# Keywords in the documentation of 2.2.1 for features outside of this package, with a hint if there is one.
_OUT_OF_SCOPE = {
    "stack": "",
    "project": "",
    "project_name": "",
    "version": "",
    "env": "",
    "tracking": "",
    "auto_track": "",
    "enable_experiment_tracking": "",
    "auto_start_ui": "",
    "orchestrator": "",
    "docker_config": "",
    "resources": "the totals are set in ParallelExecutor(resources=)",
    "execution_group": "the executor decides where steps run",
}


def warn_caller(message: str) -> None:
    """Issue a `UserWarning` for the innermost line outside of flowyml and the standard library.

    Raises:
        UserWarning: If the user's filters turn warnings into errors.
    """
    level = 2
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  skip_file_prefixes= of warnings came with Python 3.12
    while frame is not None and (is_internal(frame.f_code.co_filename) or is_stdlib(frame.f_code.co_filename)):
        level, frame = level + 1, frame.f_back
    try:
        warnings.warn(message, UserWarning, stacklevel=level)
    except UserWarning as error:  # from this `raise` it leaves no internal frame
        raise error.with_traceback(None) from None


def warn_out_of_scope(where: str, unknown: Mapping[str, object], known: Sequence[str]) -> None:
    """Warn of keywords that only 2.2.1 has; raise a `TypeError` for any other unknown keyword."""
    other_names = [name for name in unknown if name not in _OUT_OF_SCOPE]
    if other_names:
        raise TypeError(unknown_keyword_message(where, other_names, known))
    if unknown:
        names = ", ".join(sorted(unknown))
        hints = "".join(f"; {_OUT_OF_SCOPE[name]}" for name in sorted(unknown) if _OUT_OF_SCOPE[name])
        warn_caller(f"{where} ignores {names}: out of scope of this package{hints}")
