"""Exceptions as text: the string in `StepResult.error`, identical on every backend.

It consists of the message (`str(exception)`, or the name of the class if that is empty), a line break and the
traceback if there is one: what Python would print, with source lines, causes, contexts, notes and members of groups,
but without flowyml's own frames at the top, and with the arguments of the user's functions in short form.

An exception from a worker has no traceback of its own. Its text was made in the worker and is in the `RemoteTraceback`
at the end of its `__cause__` chain. Source lines that the worker could not know (notebook cells) are added here if
`linecache` knows them.

Everything is bounded and nothing raises, whatever an exception's `__str__` does. Exceptions are not modified.
"""

from __future__ import annotations

import linecache
import re
from itertools import zip_longest
from traceback import TracebackException, walk_tb
from typing import TYPE_CHECKING, Final

from flowyml.diagnostics.tracebacks import arguments_of, is_internal
from flowyml.errors import FlowymlError, PipelineValidationError, RemoteTraceback

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_MESSAGE: Final = 8 * 1024  # characters
MAX_TRACEBACK: Final = 64 * 1024  # characters
MAX_FRAMES: Final = 2000  # of each exception, the innermost

_WHERE: Final = "where "  # no line of Python begins like "where x = 1"
_MAX_DESCRIBED: Final = 8  # frames with arguments, at each end
_FRAME: Final = r'(?P<indent>[ |+-]*)File "(?P<file>[^"]+)", line (?P<line>\d+), in '


def error_text(exception: BaseException) -> str:
    """Return message and traceback of an exception, or only the message if the traceback adds nothing.

    >>> try:
    ...     1 / 0
    ... except ZeroDivisionError as error:
    ...     lines = error_text(error).splitlines()
    >>> lines[0], lines[1], lines[-1]
    ('division by zero', 'Traceback (most recent call last):', 'ZeroDivisionError: division by zero')
    """
    message, text = message_text(exception) or type(exception).__name__, traceback_text(exception)
    line = text.removesuffix("\n")
    is_alone = line == message or (isinstance(exception, FlowymlError) and line.endswith(f": {message}"))
    return message if is_alone and line.count("\n") == message.count("\n") else f"{message}\n{text}"


def error_line(error: BaseException) -> str:
    """Return type and message of an exception in one line."""
    line = message_text(error).partition("\n")[0]
    if isinstance(error, PipelineValidationError) and error.problems:
        more = len(error.problems) - 1
        line = f"{error.problems[0]}{f' (and {more} more)' if more else ''}"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def message_text(exception: BaseException) -> str:
    """Return `str(exception)`, shortened if it is long; if that raises, a placeholder that says so.

    >>> message_text(KeyError("x"))
    "'x'"
    """
    try:
        text = str(exception)
    except BaseException as error:  # noqa: BLE001  code of the user, which may even exit
        text = f"<str() of this {type(exception).__name__} raised {type(error).__name__}>"
    return shortened(text, MAX_MESSAGE)


def traceback_text(exception: BaseException) -> str:
    """Return the worker's traceback if the exception came from a worker and was not raised again, else its own."""
    try:
        remote = remote_traceback(exception)
        if remote is not None and exception.__traceback__ is None:
            return remote.text
        text = _formatted(exception)
    except BaseException:  # noqa: BLE001  formatting calls code of the user
        text = f"{type(exception).__name__}: {message_text(exception)}\n"
    return shortened(text, MAX_TRACEBACK)


def remote_traceback(exception: BaseException) -> RemoteTraceback | None:
    """Return the worker's traceback of an exception that a worker sent.

    >>> error = ValueError("bad")
    >>> error.__cause__ = RemoteTraceback("Traceback ...")
    >>> remote_traceback(error).text
    'Traceback ...'
    """
    last = last_cause(exception)
    return last if isinstance(last, RemoteTraceback) else None


def last_cause(exception: BaseException) -> BaseException:
    """Return the end of the chain of causes; the exception itself if it has no cause or the chain is cyclic."""
    seen = {id(exception)}
    last = exception
    while last.__cause__ is not None:
        last = last.__cause__
        if id(last) in seen:
            return exception
        seen.add(id(last))
    return last


def fill_source(text: str) -> str:
    """Add the source lines that are missing in a traceback and known in this process."""
    lines = text.split("\n")
    return "\n".join(_with_source(lines)) if len(lines) > 1 else text


def shortened(text: str, limit: int) -> str:
    r"""Return the beginning and the end of a string that is longer than `limit` characters.

    >>> shortened("a" * 50 + "b" * 50, 10)
    'aaaaa\n... 90 characters left out ...\nbbbbb'
    """
    half = limit // 2
    missing = len(text) - 2 * half
    return f"{text[:half]}\n... {missing} characters left out ...\n{text[-half:]}" if missing > 0 else text


def _formatted(exception: BaseException) -> str:
    """Return the traceback that Python would print, without flowyml's frames at the top and with arguments."""
    kind, trace = type(exception), exception.__traceback__
    report = TracebackException(kind, exception, trace, limit=-MAX_FRAMES, compact=True)
    for part, error in _parts(report, exception):
        _add_arguments(part, error)
        _hide_internal_frames(part, keep_last=not isinstance(exception, FlowymlError))
    return "".join(report.format())


def _parts(
    report: TracebackException, exception: BaseException
) -> Iterator[tuple[TracebackException, BaseException | None]]:
    """Yield a report with its causes, contexts and group members, each with its exception."""
    waiting: list[tuple[TracebackException | None, BaseException | None]] = [(report, exception)]
    while waiting:
        part, error = waiting.pop()
        if part is None:
            continue
        yield part, error
        waiting.append((part.__cause__, error and error.__cause__))
        waiting.append((part.__context__, error and error.__context__))
        members = getattr(error, "exceptions", None) or ()
        waiting.extend(zip_longest(part.exceptions or (), members))


def _add_arguments(report: TracebackException, error: BaseException | None) -> None:
    """Set the arguments of the outermost and the innermost frames."""
    stack = report.stack
    frames = [frame for frame, _ in walk_tb(error.__traceback__)][-MAX_FRAMES:] if error is not None else []
    if len(frames) != len(stack):
        return
    for index, (summary, frame) in enumerate(zip(stack, frames, strict=True)):
        if index < _MAX_DESCRIBED or index >= len(frames) - _MAX_DESCRIBED:
            summary.locals = {f"{_WHERE}{name}": value for name, value in arguments_of(frame).items()} or None


def _hide_internal_frames(report: TracebackException, *, keep_last: bool) -> None:
    """Drop flowyml's frames at the top; if there are no others, the last one may show a defect of flowyml."""
    stack = report.stack
    own = next((n for n, frame in enumerate(stack) if not is_internal(frame.filename)), len(stack))
    if own == len(stack) and keep_last:
        own -= 1
    del stack[: max(own, 0)]


def _with_source(lines: list[str]) -> Iterator[str]:
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        yield line
        frame = re.match(_FRAME, line)
        if frame is not None and not _is_source(following, frame["indent"]):
            source = linecache.getline(frame["file"], int(frame["line"])).strip()
            if source:
                yield f"{frame['indent']}  {source}"


def _is_source(line: str, indent: str) -> bool:
    return line.startswith(indent + "  ") and not line.startswith(f"{indent}  {_WHERE}")
