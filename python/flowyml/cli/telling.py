"""What came of a run, told: the summary and tracebacks on stderr, a page, a trace and JSON in files."""

from __future__ import annotations

import itertools
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flowyml.cli.terminal import OutputError, UsageError, coloured, complain, flush, json_text, say, write_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from flowyml.results.result import PipelineResult

_MOST_TRACEBACKS = 3
_LONGEST_TRACEBACK = 8_000
_FILES = ("report", "trace", "json")
_COLOURS = {"success": "green", "cancelled": "yellow"}


class Told:
    """What is told of the runs of one command.

    Args:
        options: What the command line says.

    Raises:
        UsageError: If a file cannot be written: better now than at the end of the run.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        """See that the files can be written."""
        self._quiet = options.quiet
        self._files = {name: given for name in _FILES if (given := getattr(options, name)) is not None}
        self._numbers = itertools.count(1)
        for name, given in self._files.items():
            if given != "-" or name != "json":
                _check_folder(f"--{name}", Path(given))
        _check_differ(self._files)
        logging.getLogger("flowyml").addFilter(_is_news)

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
        colour = _COLOURS.get(result.state, "red")
        say(f"{head}{status}{coloured(first, colour, sys.stderr)}\n{others}")

    def _failures(self, result: PipelineResult) -> None:
        """Write the tracebacks of what failed first; with --quiet also which run that is."""
        failed = result.failed
        if self._quiet:
            lines = [f"  {each.step_name} ({each.state}): {each.error_line}" for each in failed[:_MOST_TRACEBACKS]]
            complain("\n".join([f"pipeline {result.pipeline_name!r} {result.state} (run {result.run_id})", *lines]))
        for each in failed[:_MOST_TRACEBACKS]:
            message, _, trace = (each.error or "").partition("\n")
            text = trace.rstrip() or message
            if len(text) > _LONGEST_TRACEBACK:
                text = f"[...]\n{text[-_LONGEST_TRACEBACK:]}"
            say(f"\n{coloured(f'{each.step_name}:', 'bold', sys.stderr)}\n{text}")
        if len(failed) > _MOST_TRACEBACKS:
            where = "" if "report" in self._files else "; --report FILE has more of them"
            say(f"\n... and {len(failed) - _MOST_TRACEBACKS:,} more failures{where}")

    def _write(self, writer: Callable[[str], None], given: str, number: int) -> bool:
        """Write a file; of a further run of the same script, next to the first one. Return True if it is written."""
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
        if other != name and Path(given).exists() <= Path(given).is_file():  # a device takes both
            raise UsageError(f"--{other} and --{name} name the same file {given!r}; give each one of its own")


def _check_folder(option: str, path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{option} takes a file, and {str(path)!r} is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"{option}: there is no folder {str(path.parent)!r}")


def _is_news(record: logging.LogRecord) -> bool:
    """Keep the record of a failed run from a terminal that gets the summary; who has set up logging gets it."""
    is_failure = isinstance(record.msg, str) and record.msg.startswith(
        "pipeline %r: %s failed, result.success is False"
    )
    return not is_failure or logging.getLogger("flowyml").hasHandlers()
