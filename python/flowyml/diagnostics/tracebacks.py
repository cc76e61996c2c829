"""Frames of tracebacks: which are internal, and what the others were called with.

```
run() ─ _prepared() ─ Plan() ─ raise        ──▶ nothing of it is shown: the user's line, then the message
call_steps() ─ call() ─ step() ─ helper()   ──▶ step() and helper(), with their arguments in short form
```

A frame is internal if its file is inside the package. `hide_internal_frames` takes internal frames off an exception
in two places: where it leaves a public function (`@hides_internal_frames`; the few functions for which the call of a
decorator costs too much call it themselves, in `except BaseException`), and where an attempt of a step failed.

Neither a bare `raise` nor an `except` block adds the frame that it is in to the traceback of what it raises again, so
the decorator leaves no frame of its own. With FLOWYML_TRACEBACK=full in the environment nothing is hidden.

Warnings, issued for the user's line, and the keywords of flowyml 2.2.1 that get nothing but a warning.
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
# Patterns are compiled where they are used: each takes a part of a millisecond, and few processes see a failure.
_INSTALLED: Final = r"[/\\](site|dist)-packages[/\\]|^<frozen "
_UNSHOWN: Final = r"passw|secret|token|credential|api_?key"
_UNEXPECTED: Final = r"(.*unexpected keyword argument '(\w+)')(\. Did you mean '\w+'\?)?$"  # from 3.13 on with a guess
_MOST_LINKED: Final = 100
_HIDDEN: Final = "__flowyml_hidden__"
_COROUTINE: Final = 0x80  # CO_COROUTINE of `inspect`
_BOUNDARIES: Final[set[CodeType]] = set()


# ---- which frames are internal -------------------------------------------------------------------------------------


def is_internal(filename: str) -> bool:
    """Return True if a file is inside the package."""
    return filename.startswith(_HOME)


def is_pythons(filename: str) -> bool:
    """Return True if a file is one of the standard library's."""
    installed = re.search(_INSTALLED, filename)
    return installed[0] == "<frozen " if installed else filename.startswith(_LIBRARY)


def user_code_boundary(func: F) -> F:
    """Mark an internal function that calls user code: what begins in its frame was raised by a C function it called."""
    _BOUNDARIES.add(func.__code__)
    return func


# ---- how they are hidden -------------------------------------------------------------------------------------------


def hides_internal_frames(func: F) -> F:
    """Let a public function, or coroutine function, raise without internal frames."""
    call: Callable[..., Any]
    if func.__code__.co_flags & _COROUTINE:

        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return await func(*args, **kwargs)
            except BaseException as error:
                _leave(error, func)
                raise

    else:

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return func(*args, **kwargs)
            except BaseException as error:
                _leave(error, func)
                raise

    return cast("F", functools.wraps(func)(call))


def _leave(error: BaseException, func: Callable[..., Any]) -> None:
    if isinstance(error, TypeError) and _is_of_call(error):
        _correct_message(error, func)
        if not _everything_asked_for():
            _set_traceback(error, None)
    else:
        hide_internal_frames(error)


def hide_internal_frames(error: BaseException) -> None:
    """Take internal frames off an exception, and off its causes and contexts.

    Those before the first frame of the user are removed; if a `raise` statement of flowyml raised the exception, those
    after the user's last frame, too. If all frames are internal they are removed after such a statement, or if the last
    one is at the boundary to user code; otherwise the exception shows a defect of flowyml and keeps all of them.
    """
    if _everything_asked_for():
        return
    with suppress(Exception):  # whatever the exception's class does to attributes
        for each in islice(_linked(error), _MOST_LINKED):
            _hide(each)


def _hide(error: BaseException) -> None:
    trace = error.__traceback__
    if trace is None:
        return
    is_deliberate = _HIDDEN in error.__dict__ or _is_deliberate(trace)
    kept = _external(trace)
    if kept is not None:
        _set_traceback(error, _without_internal_end(kept) if is_deliberate else kept)
    elif is_deliberate:
        error.__dict__[_HIDDEN] = True  # for the public function around this one
        _set_traceback(error, None)
    elif _last(trace).tb_frame.f_code in _BOUNDARIES:
        _set_traceback(error, None)


def _set_traceback(error: BaseException, trace: TracebackType | None) -> None:
    BaseException.with_traceback(error, trace)  # its class may refuse attributes


def _is_of_call(error: BaseException) -> bool:
    """Return True if Python found that the arguments of a decorated function do not fit its parameters."""
    trace = error.__traceback__
    return trace is not None and trace.tb_next is None and trace.tb_frame.f_code.co_filename == __file__


def _correct_message(error: TypeError, func: Callable[..., Any]) -> None:
    """Name the class, not its method, in the message of a call whose arguments do not fit; add a near match."""
    text, code = str(error).replace(".__init__()", "()"), func.__code__
    unknown = re.match(_UNEXPECTED, text)
    if unknown is not None:
        text = unknown[1] + did_you_mean(unknown[2], code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    error.args = (text,)


def _everything_asked_for() -> bool:
    return os.environ.get("FLOWYML_TRACEBACK") == "full"


def _linked(error: BaseException) -> Iterator[BaseException]:
    """Go through an exception and those that would be printed above it."""
    seen: set[int] = set()
    other: BaseException | None = error
    while other is not None and id(other) not in seen:
        yield other
        seen.add(id(other))
        other = other.__cause__ or (None if other.__suppress_context__ else other.__context__)


def _external(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from its first frame on that is not internal; `None` if all are."""
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
    last, each = trace, trace.tb_next
    while each is not None:
        if not is_internal(each.tb_frame.f_code.co_filename):
            last = each
        each = each.tb_next
    last.tb_next = None
    return trace


def _last(trace: TracebackType) -> TracebackType:
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace


# ---- what they were called with ------------------------------------------------------------------------------------


def arguments_of(frame: FrameType) -> dict[str, str]:
    """Return the arguments of a function of the user in short form; {} for frames of libraries and of modules.

    They are what the parameters hold now: of a name that was bound anew, the later value.
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
    return {name: _argument(name, values[name]) for name in names if name in values and not _is_ours(values[name])}


def called_as(error: BaseException) -> str:
    """Return how the function was called that an exception came from, as in "half(n=5)"; "" if it is not known."""
    trace = _external(error.__traceback__)
    arguments = {} if trace is None else arguments_of(trace.tb_frame)
    if trace is None or not arguments:
        return ""
    told = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return f"{trace.tb_frame.f_code.co_name}({told})"


def _is_ours(value: object) -> bool:
    return type(value).__module__.startswith("flowyml.")


def _argument(name: str, value: Any) -> str:
    return "(not shown)" if re.search(_UNSHOWN, name, re.IGNORECASE) and value is not None else short_repr(value)


# Keywords of the 2.2.1 documentation for what this package does not do, with a hint if there is one.
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
    """Warn, with `UserWarning`, for the innermost line that is neither flowyml's nor Python's; of none where none is.

    Raises:
        UserWarning: Where the user's filters make errors of warnings.
    """
    level = 2
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  skip_file_prefixes= of warnings came with Python 3.12
    while frame is not None and (is_internal(frame.f_code.co_filename) or is_pythons(frame.f_code.co_filename)):
        level, frame = level + 1, frame.f_back
    try:
        warnings.warn(message, UserWarning, stacklevel=level)
    except UserWarning as error:  # raised by a statement of ours, it leaves no frame of ours; see `frames.py`
        raise error.with_traceback(None) from None


def warn_out_of_scope(where: str, unknown: Mapping[str, object], known: Sequence[str]) -> None:
    """Warn once of unknown keywords that 2.2.1 has and this package does not have.

    Args:
        where: The called function, for messages.
        unknown: The keywords that it does not know.
        known: The keywords that it knows.

    Raises:
        TypeError: For any other unknown keyword, with the nearest known one.
    """
    strange = [name for name in unknown if name not in _OUT_OF_SCOPE]
    if strange:
        raise TypeError(unknown_keyword_message(where, strange, known))
    if unknown:
        names = ", ".join(sorted(unknown))
        hints = "".join(f"; {_OUT_OF_SCOPE[name]}" for name in sorted(unknown) if _OUT_OF_SCOPE[name])
        warn_caller(f"{where} ignores {names}: out of scope of this package{hints}")
