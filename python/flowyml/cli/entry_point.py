"""Dispatches the command line to its subcommand, and turns exceptions into messages and exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from flowyml.cli.console import (
    FAILURE,
    INTERRUPTED,
    NOT_WRITTEN,
    SUCCESS,
    WRONG_USE,
    Exit,
    OutputError,
    UsageError,
    UserError,
    complain,
    discard,
    flush,
    write,
)
from flowyml.cli.parser import parse, parser
from flowyml.diagnostics.tracebacks import hide_internal_frames, is_internal
from flowyml.errors import FlowymlError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_IMPORTLIB = os.path.join("importlib", "__init__.py")  # noqa: PTH118  a suffix


def execute(arguments: Sequence[str]) -> int:
    """Execute a command line and return the exit code; raises nothing for errors of the user."""
    code = _guarded(arguments)
    try:
        flush()
    except BrokenPipeError:  # the reader has closed the pipe: `flowyml runs | head`
        discard(sys.stdout)
    except OutputError as error:
        complain(str(error))
        code = code or NOT_WRITTEN
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        discard(sys.stderr)
    return code


def _guarded(arguments: Sequence[str]) -> int:
    try:
        return _dispatch(arguments)
    except (UsageError, FlowymlError, ImportError, OutputError) as error:
        complain(str(error))  # ImportError: an unsuitable extension, no SQLite
        return NOT_WRITTEN if isinstance(error, OutputError) else WRONG_USE
    except UserError as error:
        _print_exception(error.error)
        return FAILURE
    except Exit as ended:
        return ended.code
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return SUCCESS


def _has_directory() -> bool:
    try:
        os.getcwd()  # noqa: PTH109  pathlib is not imported here
    except FileNotFoundError:
        return False
    return True


def _dispatch(arguments: Sequence[str]) -> int:
    try:
        options = parse(arguments)
    except SystemExit as error:  # --help
        return int(error.code or 0)
    if options.version:
        import flowyml

        write(f"flowyml {flowyml.__version__}")
        return SUCCESS
    if options.command is None:
        write(parser().format_help())
        return SUCCESS
    try:
        return _subcommand(options)
    except FileNotFoundError as error:
        if _has_directory():
            raise
        raise UsageError("the working directory does not exist any more; change to an existing one") from error


def _subcommand(options: argparse.Namespace) -> int:
    if options.command == "run":
        from flowyml.cli.run_command import run

        return run(options)
    if options.command == "graph":
        from flowyml.cli.graph_command import graph

        return graph(options)
    if options.command == "runs":
        from flowyml.cli.runs_command import runs

        return runs(options)
    if options.command == "show":
        from flowyml.cli.runs_command import show

        return show(options)
    if options.command == "bench":
        from flowyml.cli.bench_command import bench

        return bench(options)
    from flowyml.cli.cache_command import cache

    return cache(options)


def _print_exception(error: BaseException) -> None:
    hide_internal_frames(error)
    trace = error.__traceback__
    while trace is not None and _is_hidden(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            traceback.print_exception(type(error), error.with_traceback(trace), trace)


def _is_hidden(file: str) -> bool:
    """Return True for files of flowyml and of the import system."""
    return is_internal(file) or file.startswith("<frozen importlib") or file.endswith(_IMPORTLIB)
