"""Frames of tracebacks: which are flowyml's own, and what the others were called with.

```
run() ─ _prepared() ─ Plan() ─ raise        ──▶ nothing of it is shown: the user's line, then the message
call_steps() ─ call() ─ step() ─ helper()   ──▶ step() and helper(), with their arguments in short form
```

A public function that raises leaves no frame behind: its body stands in `with own_frames_hidden:`. That works because
neither a `with` block nor a bare `raise` adds the frame that it is in to what it raises again. With
FLOWYML_TRACEBACK=full in the environment nothing is hidden. All of this happens when something has failed.
"""

from __future__ import annotations

import functools
import os
import re
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from flowyml.messages.short import short
from flowyml.messages.words import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType, TracebackType

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound="Callable[..., Any]")

_HOME: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep  # noqa: PTH100, PTH120  a prefix of co_filename
_LIBRARY: Final = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120
# Patterns are compiled where they are used: each takes a part of a millisecond, and few processes see a failure.
_INSTALLED: Final = r"[/\\](site|dist)-packages[/\\]|^<frozen "
_UNSHOWN: Final = r"passw|secret|token|credential|api_?key"
_UNEXPECTED: Final = r"(.*unexpected keyword argument '(\w+)')(\. Did you mean '\w+'\?)?$"  # from 3.13 on with a guess
_MOST_LINKED: Final = 100
_HIDDEN: Final = "__flowyml_hidden__"
_CALLERS: Final[set[CodeType]] = set()


# ---- whose frames --------------------------------------------------------------------------------------------------


def is_own(filename: str) -> bool:
    """Tell whether a file is one of flowyml's."""
    return filename.startswith(_HOME)


def is_pythons(filename: str) -> bool:
    """Tell whether a file is one of the standard library's."""
    installed = re.search(_INSTALLED, filename)
    return installed[0] == "<frozen " if installed else filename.startswith(_LIBRARY)


def calls_steps(func: F) -> F:
    """Mark a function of ours that calls that of a step: what it seems to raise, C code of the user has raised."""
    _CALLERS.add(func.__code__)
    return func


def without_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first frame on that is not flowyml's; `None` if all are."""
    while trace is not None and is_own(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def cut_own_frames(error: BaseException) -> None:
    """Take flowyml's frames off an exception: those that led to the function of the user, and those that it led to.

    Where there are only ours the last one stays: it may tell of a mistake of ours. A `raise` statement is none, and the
    call of a step that is a builtin is none.
    """
    with suppress(Exception):  # whatever the exception's class does to attributes
        trace = error.__traceback__
        if trace is None or _everything_asked_for():
            return
        deliberate = _is_deliberate(trace)
        kept = without_own_frames(trace)
        if kept is None and not deliberate and (last := _last(trace)).tb_frame.f_code not in _CALLERS:
            kept = last
        _set_traceback(error, _without_own_end(kept) if deliberate else kept)


def hide_own_frames(error: BaseException) -> None:
    """Take flowyml's frames off an exception that leaves a public function, and off its causes.

    What was raised by accident, and not by a `raise` statement, keeps all of them.
    """
    if _everything_asked_for():
        return
    with suppress(Exception):
        for each in islice(_linked(error), _MOST_LINKED):
            _hide(each)


def _hide(error: BaseException) -> None:
    trace = error.__traceback__
    deliberate = trace is not None and (_HIDDEN in error.__dict__ or _is_deliberate(trace))
    kept = without_own_frames(trace)
    if kept is None and deliberate:
        error.__dict__[_HIDDEN] = True  # for the public function around this one
    if kept is not None or deliberate:
        _set_traceback(error, _without_own_end(kept) if deliberate else kept)


def _set_traceback(error: BaseException, trace: TracebackType | None) -> None:
    BaseException.with_traceback(error, trace)  # its class may refuse attributes


class _OwnFramesHidden:
    """Around the body of a public function: what it raises shows the user's frames only."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            hide_own_frames(error)


own_frames_hidden: Final = _OwnFramesHidden()


def leaves_no_frames(func: Callable[P, R]) -> Callable[P, R]:
    """Let a public function raise in `with own_frames_hidden:`; for those that are called seldom."""

    @functools.wraps(func)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with own_frames_hidden:
                return func(*args, **kwargs)
        except TypeError as error:
            _tell_of_call(error, func)
            raise

    return call


def _tell_of_call(error: TypeError, func: Callable[..., Any]) -> None:
    """Where Python has found that arguments do not fit, say it of the class, not of its method, with a near match."""
    trace = error.__traceback__
    if trace is None or trace.tb_next is not None or trace.tb_frame.f_code.co_filename != __file__:
        return
    text, code = str(error).replace(".__init__()", "()"), getattr(func, "__code__", None)
    unknown = re.match(_UNEXPECTED, text)
    if unknown is not None and code is not None:
        text = unknown[1] + nearest(unknown[2], code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    error.args = (text,)
    if not _everything_asked_for():
        _set_traceback(error, None)


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


def _is_deliberate(trace: TracebackType) -> bool:
    """Tell whether a `raise` statement of ours raised it."""
    last = _last(trace)
    if not is_own(last.tb_frame.f_code.co_filename):
        return False
    from opcode import opmap

    code = last.tb_frame.f_code.co_code
    return last.tb_lasti < len(code) and code[last.tb_lasti] == opmap["RAISE_VARARGS"]


def _without_own_end(trace: TracebackType | None) -> TracebackType | None:
    """Let a traceback end with the user's last frame."""
    last, each = None, trace
    while each is not None:
        if not is_own(each.tb_frame.f_code.co_filename):
            last = each
        each = each.tb_next
    if last is not None:
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
    if is_own(code.co_filename) or code.co_filename.startswith(_LIBRARY) or re.search(_INSTALLED, code.co_filename):
        return {}
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
    names = [name for name in code.co_varnames[:count] if name not in {"self", "cls"} and not name.startswith(".")]
    values = frame.f_locals if names else {}
    return {name: _argument(name, values[name]) for name in names if name in values and not _is_ours(values[name])}


def called_as(error: BaseException) -> str:
    """Return how the function was called that an exception came from, as in "half(n=5)"; "" if it is not known."""
    trace = without_own_frames(error.__traceback__)
    arguments = {} if trace is None else arguments_of(trace.tb_frame)
    if trace is None or not arguments:
        return ""
    told = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return f"{trace.tb_frame.f_code.co_name}({told})"


def _is_ours(value: object) -> bool:
    return type(value).__module__.startswith("flowyml.")


def _argument(name: str, value: Any) -> str:
    return "(not shown)" if re.search(_UNSHOWN, name, re.IGNORECASE) and value is not None else short(value)
