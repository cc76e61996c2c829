"""Output of the command: messages and summaries on stderr, results on stdout, reports in files."""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flowyml.results.result import PipelineResult


_MAX_TRACEBACKS = 3
_MAX_TRACEBACK_LENGTH = 8_000
_FILE_OPTIONS = ("report", "trace", "json")
_STATE_COLOURS = {"success": "green", "cancelled": "yellow"}


class RunOutput:
    """Reports the runs of one command.

    Args:
        options: The parsed command line.

    Raises:
        UsageError: If a requested file cannot be written, which is checked before the run.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._quiet = options.quiet
        self._files = {name: given for name in _FILE_OPTIONS if (given := getattr(options, name)) is not None}
        self._numbers = itertools.count(1)
        for name, given in self._files.items():
            if given != "-" or name != "json":
                _check_parent(f"--{name}", Path(given))
        _check_differ(self._files)
        logging.getLogger("flowyml").addFilter(_is_not_failure)

    def end(self, result: PipelineResult) -> bool:
        """Report the outcome of a run; return True if all requested files are written."""
        number = next(self._numbers)
        if not self._quiet:
            self._summary(result)
        if not result.success:
            self._failures(result)
        writers: dict[str, Callable[[str], None]] = {
            "report": result.to_html,
            "trace": result.to_trace,
            "json": lambda path: _write_json(result, path),
        }
        written = [self._write(writers[name], given, number) for name, given in self._files.items()]
        return all(written)

    def _summary(self, result: PipelineResult) -> None:
        head, status, *rest = result.summary().partition("Status: ")
        first, _, others = "".join(rest).partition("\n")
        colour = _STATE_COLOURS.get(result.state, "red")
        say(f"{head}{status}{coloured(first, colour, sys.stderr)}\n{others}")

    def _failures(self, result: PipelineResult) -> None:
        """Write the tracebacks of the first failures; with --quiet also the run that failed."""
        failed = result.failed
        if self._quiet:
            lines = [f"  {step.step_name} ({step.state}): {step.error_line}" for step in failed[:_MAX_TRACEBACKS]]
            complain("\n".join([f"pipeline {result.pipeline_name!r} {result.state} (run {result.run_id})", *lines]))
        for step in failed[:_MAX_TRACEBACKS]:
            message, _, trace = (step.error or "").partition("\n")
            text = trace.rstrip() or message
            if len(text) > _MAX_TRACEBACK_LENGTH:
                text = f"[...]\n{text[-_MAX_TRACEBACK_LENGTH:]}"
            say(f"\n{coloured(f'{step.step_name}:', 'bold', sys.stderr)}\n{text}")
        if len(failed) > _MAX_TRACEBACKS:
            where = "" if "report" in self._files else "; --report FILE lists more of them"
            say(f"\n... and {len(failed) - _MAX_TRACEBACKS:,} more failures{where}")

    def _write(self, writer: Callable[[str], None], given: str, number: int) -> bool:
        """Write a file, numbered for further runs of the same script; return True if it was written."""
        path = Path(given)
        if number > 1 and given != "-":
            path = path.with_name(f"{path.name.removesuffix(''.join(path.suffixes))}-{number}{''.join(path.suffixes)}")
        try:
            writer(given if given == "-" else str(path))
        except OutputError as error:
            complain(f"--json -: {error}")
            return False
        except OSError as error:
            if given == "-" and isinstance(error, BrokenPipeError):  # the reader has closed the pipe
                return True
            complain(f"{path} cannot be written: {error.strerror or error}")
            return False
        if not self._quiet and given != "-":
            say(f"Wrote {path}")
        return True


def _write_json(result: PipelineResult, path: str) -> None:
    if path == "-":
        write_json(result.to_dict())
        flush()
    else:
        Path(path).write_text(f"{json_text(result.to_dict(), 'utf-8')}\n", encoding="utf-8")


def _check_differ(files: Mapping[str, str]) -> None:
    names: dict[str, str] = {}
    for name, given in files.items():
        other = names.setdefault(str(Path(given).absolute()), name)
        if other != name and Path(given).exists() <= Path(given).is_file():  # a device can be written twice
            raise UsageError(f"--{other} and --{name} name the same file {given!r}; give each one of its own")


def _check_parent(option: str, path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{option} expects a file, but {str(path)!r} is a directory")
    if not path.parent.is_dir():
        raise UsageError(f"{option}: the directory {str(path.parent)!r} does not exist")


def _is_not_failure(record: logging.LogRecord) -> bool:
    """Drop the log record of a failed run, which repeats the summary, unless logging is configured."""
    is_failure = isinstance(record.msg, str) and record.msg.startswith(
        "pipeline %r: %s failed, result.success is False"
    )
    return not is_failure or logging.getLogger("flowyml").hasHandlers()


SUCCESS, FAILURE, WRONG_USE, NOT_WRITTEN, INTERRUPTED = 0, 1, 2, 3, 130
_COLOURS = {"bold": "1", "faint": "2", "red": "31", "green": "32", "yellow": "33"}


class UsageError(Exception):
    """The command line is wrong; the command ends with exit code 2."""


class OutputError(Exception):
    """Standard output or a requested file cannot be written; the command ends with exit code 3."""


class UserError(Exception):
    """An exception raised by the user's file."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Exit(BaseException):
    """Ends the command early; not an `Exception`, so that scripts do not catch it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def say(text: str = "") -> None:
    """Write a message to stderr; if it is closed or full, only the exit code reports the problem."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


def write(text: str) -> None:
    """Write a result to stdout.

    Raises:
        OutputError: If it is closed or cannot be written.
        BrokenPipeError: If its reader has closed the pipe.
    """
    with _stdout() as stream:
        text = text if text.endswith("\n") else f"{text}\n"
        try:
            stream.write(text)
        except UnicodeEncodeError as error:
            stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))


def flush() -> None:
    """Flush stdout, if there is one; raises as `write` does."""
    if sys.stdout is not None:
        with _stdout() as stream:
            stream.flush()


def discard(stream: Any) -> None:
    """Discard the buffer of a stream, which the interpreter would try to write again at exit."""
    with suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), stream.fileno())


@contextmanager
def _stdout() -> Iterator[Any]:
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    try:
        yield sys.stdout
    except (BrokenPipeError, UnicodeError):
        raise
    except (OSError, ValueError) as error:  # ValueError: closed by the script
        discard(sys.stdout)
        raise OutputError(f"standard output cannot be written: {getattr(error, 'strerror', None) or error}") from error


def json_text(value: Any, encoding: str | None) -> str:
    r"""Return data as JSON, with escapes for characters that an encoding cannot represent.

    >>> json_text("é", "utf-8"), json_text("é", "ascii")
    ('"é"', '"\\u00e9"')
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, indent=2)
    return text


def write_json(value: Any) -> None:
    """Write data to stdout as JSON."""
    write(json_text(value, getattr(sys.stdout, "encoding", None)))


def complain(text: str) -> None:
    """Write an error message to stderr."""
    say(f"{coloured('flowyml:', 'red', sys.stderr)} {text}")


def coloured(text: str, colour: str, stream: Any = None) -> str:
    """Return a coloured string if the stream is a terminal that shows colours."""
    stream = sys.stdout if stream is None else stream
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if has_colours(stream) else text


def has_colours(stream: Any) -> bool:
    """Return True if a stream shows colours."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and is_terminal(stream)


def is_terminal(stream: Any) -> bool:
    """Return True if a stream is a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def columns(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterable[str]:
    """Yield the lines of a table; columns whose heading starts with ">" are right-aligned.

    >>> list(columns(["run", ">n"], [["a", 1], ["bcd", 20]]))
    ['run   n', 'a     1', 'bcd  20']
    """
    right = [head[:1] == ">" for head in heads]
    lines = [[head.removeprefix(">") for head in heads], *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, right, strict=True)
        yield "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width) for cell, width, at_right in cells
        ).rstrip()


def confirm(question: str) -> bool:
    """Ask a yes-or-no question at the terminal; no answer means no."""
    if sys.stderr is None or sys.stdin is None:
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def ago(seconds: float) -> str:
    """Return an age in the largest fitting unit.

    >>> ago(3), ago(200), ago(90_000)
    ('3 seconds ago', '3 minutes ago', '1 day ago')
    """
    units = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
    unit, size = next((pair for pair in units if seconds >= pair[1]), units[-1])
    count = max(0, int(seconds // size))
    return f"{count:,} {unit}{'' if count == 1 else 's'} ago"
