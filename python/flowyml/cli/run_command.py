"""`flowyml run`: run a pipeline with the options of the command line, and report the result.

```
file runs its pipeline itself ──▶ CliRun.run ──┐
file only defines a pipeline ──────────────────┴──▶ pipeline.run(**changed) ──▶ summary, report, trace, exit code
```
"""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from flowyml import run_interceptor
from flowyml.cli.console import (
    FAILURE,
    INTERRUPTED,
    NOT_WRITTEN,
    SUCCESS,
    Exit,
    RunOutput,
    UsageError,
    UserError,
    is_terminal,
)
from flowyml.cli.loader import at_line, execute_target, find_pipeline, line_of, parse_target
from flowyml.cli.parser import parse_assignments
from flowyml.diagnostics.text import did_you_mean, join_names
from flowyml.errors import FlowymlError, RunInterrupted
from flowyml.executors.local_executor import LocalExecutor
from flowyml.executors.parallel_executor import OF_PROCESSES, OPTIONS, ParallelExecutor, checked_workers
from flowyml.launch import RunOptions, rerun

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from flowyml.cli.loader import PipelineRef
    from flowyml.executors.executor import Executor
    from flowyml.pipeline import Pipeline
    from flowyml.results.result import PipelineResult

_CHECK_ERRORS = (TypeError, ValueError, LookupError, ImportError)


def run(options: argparse.Namespace) -> int:
    """Run a pipeline, and return the exit code.

    Raises:
        UsageError: If the command line is wrong; nothing has run, or the message names the pipelines that have.
    """
    target = parse_target(options.pipeline)
    cli_run = CliRun(options, target)
    try:
        names = execute_target(target, options.rest, cli_run)
        pipeline = None if cli_run.ran else cli_run.find_target(names)
        if pipeline is not None:
            at_line(line_of(pipeline, target, names), names, partial(cli_run.run_target, pipeline, {}))
    except Exit as ended:
        return ended.code or cli_run.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except UserError as raised:
        if raised.error is not cli_run.wrong:
            raise
        raise UsageError(_message(raised.error) + cli_run.hint) from raised.error
    except Exception as error:
        if error is not cli_run.wrong:
            raise
        raise UsageError(_message(error) + cli_run.hint) from error
    return cli_run.code


class CliRun:
    """The interceptor for the runs of a script.

    Attributes:
        ran: True if a requested pipeline has run.
        code: The exit code so far.
        wrong: The exception of a wrong command line or an invalid pipeline: nothing has run.
        hint: A near match for a wrong name.
    """

    def __init__(self, options: argparse.Namespace, target: PipelineRef) -> None:
        self._options = options
        self._target = target
        self._context, self._inputs = parse_assignments("-c", options.context), parse_assignments("-i", options.inputs)
        self._output = RunOutput(options)
        if options.fresh and options.resume:
            raise UsageError("--fresh and --resume are mutually exclusive")
        _check_workers(options)
        self._variants: WeakKeyDictionary[ParallelExecutor, ParallelExecutor] = WeakKeyDictionary()
        self._plain: ParallelExecutor | None = None
        self.ran = False
        self._in_factory = False  # a named factory function is running
        self._started: list[Pipeline] = []  # pipelines run by the factory function
        self._others: list[str] = []
        self.code = SUCCESS
        self.wrong: Exception | None = None
        self.hint = ""
        self._refuse_unused()

    def is_target(self, pipeline: Pipeline) -> bool:
        """Return True if the command line refers to this pipeline: by name, or as one of the file's."""
        name = self._target.name
        if name is None or name == pipeline.name or self._in_factory:
            return True
        main = sys.modules.get("__main__")
        return getattr(main, name, None) is pipeline

    def find_target(self, names: Mapping[str, Any]) -> Pipeline | None:
        """Return the requested pipeline of a file that has not run it; `None` if a factory function has run it.

        Raises:
            UsageError: As `find_pipeline` does, with the pipelines that the file has run itself.
        """
        self._in_factory = True
        try:
            with run_interceptor.install(self):
                pipeline = find_pipeline(self._target, names)
        except UsageError as error:
            if self.ran:
                return None
            if not self._others:
                raise
            raise UsageError(f"{error}; the file itself has run {join_names(dict.fromkeys(self._others))}") from None
        return None if any(started is pipeline for started in self._started) else pipeline

    def run(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
        """Run a pipeline of the script; options of the command line override its arguments."""
        self._refuse_in_module()
        if self.is_target(pipeline):
            return self.run_target(pipeline, arguments)
        self._others.append(pipeline.name)
        with run_interceptor.passthrough():
            return pipeline.run(**arguments)

    def rerun(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
        """Rerun the run that the command line or the script names; with --fresh start from the beginning."""
        self._refuse_in_module()
        if not self.is_target(pipeline):
            self._others.append(pipeline.name)
            with run_interceptor.passthrough():
                return pipeline.rerun(**arguments)
        arguments["resume"], from_step = arguments.pop("run_id"), arguments.pop("from_step")
        if self._options.fresh:
            return self.run_target(pipeline, arguments)
        return self.run_target(pipeline, {**arguments, "from_step": from_step}, again=True)

    def run_target(self, pipeline: Pipeline, arguments: dict[str, Any], *, again: bool = False) -> PipelineResult:
        """Run the requested pipeline; with `again`, as `Pipeline.rerun` does."""
        changed = self._merge_arguments(pipeline, arguments)
        self._on_start(pipeline)
        try:
            with run_interceptor.passthrough():
                result = rerun(pipeline, RunOptions(**changed)) if again else pipeline.run(**changed)
        except BaseException as error:
            self._on_error(pipeline, error)
            raise
        self._on_end(result)
        return result

    async def run_async(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
        """Run a pipeline of the script in an event loop."""
        self._refuse_in_module()
        if not self.is_target(pipeline):
            self._others.append(pipeline.name)
            with run_interceptor.passthrough():
                return await pipeline.run_async(**arguments)
        if self._options.dry_run:
            return self.run_target(pipeline, arguments)
        changed = self._merge_arguments(pipeline, arguments)
        self._on_start(pipeline)
        try:
            with run_interceptor.passthrough():
                result = await pipeline.run_async(**changed)
        except BaseException as error:
            self._on_error(pipeline, error)
            raise
        self._on_end(result)
        return result

    def _refuse_in_module(self) -> None:
        module = self._target.module
        if module and not self.ran and _is_being_imported(module):
            raise UsageError(
                f"module {module!r} runs a pipeline when it is imported, which workers would repeat; put it under "
                f'if __name__ == "__main__", or give the file'
            )

    def _refuse_unused(self) -> None:
        """Turn the warning about a value that no step takes into an error: the default would be used instead."""
        names = "|".join(re.escape(repr(name)) for name in (*self._context, *self._inputs))
        if names:
            warnings.filterwarnings("error", rf"({names}) of run\((context|inputs)=\) ", UserWarning)

    def _merge_arguments(self, pipeline: Pipeline, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a run, overridden by those of the command line."""
        options, changed = self._options, dict(arguments)
        if self._context:
            changed["context"] = {**(changed.get("context") or {}), **self._context}
        if self._inputs:
            changed["inputs"] = {**(changed.get("inputs") or {}), **self._inputs}
        executor = self._executor(changed.get("executor") or pipeline.executor)
        if executor is not None:
            changed["executor"] = executor
        if options.resume or options.fresh:
            changed["resume"] = options.resume or False
        for name in ("fail_fast", "dry_run", "targets"):
            if getattr(options, name):
                changed[name] = getattr(options, name)
        for name in ("seed", "run_id"):
            if getattr(options, name) is not None:  # a seed may be 0
                changed[name] = getattr(options, name)
        if options.progress != "auto" or (not options.quiet and is_terminal(sys.stderr)):
            changed["progress"] = options.progress != "off"
        return changed

    def _executor(self, given: Executor | None) -> Executor | None:
        """Return the executor for --workers and --backend, with the other options of the given one."""
        workers, backend = self._options.workers, self._options.backend
        if workers is None and backend is None:
            return None
        if isinstance(given, ParallelExecutor):
            return self._variant(given, workers, backend)
        if backend == "local":
            return LocalExecutor()
        if self._plain is None:
            self._plain = ParallelExecutor(workers, backend or "process")
        return self._plain

    def _variant(self, given: ParallelExecutor, workers: int | None, backend: Any) -> Executor:
        """Return the replacement of a script's executor, the same for all its runs, so that its workers stay warm."""
        if given.initializer is not None and backend in {"async", "local"}:
            raise UsageError(
                f"--backend {backend} does not support initializers, and the executor of the script has one that its "
                f"steps may need; use process or thread"
            )
        if backend == "local":
            return LocalExecutor()
        if given not in self._variants:
            self._variants[given] = _variant_of(given, workers, backend)
        return self._variants[given]

    def _on_end(self, result: PipelineResult) -> None:
        if result.state == "dry_run":  # ends the command, unless the script asked for it
            if self._options.dry_run:
                raise Exit(SUCCESS)
            return
        if not result.success:
            self.code = FAILURE
        if not self._output.end(result):
            self.code = self.code or NOT_WRITTEN

    def _on_start(self, pipeline: Pipeline) -> None:
        self.ran = True
        if self._in_factory:
            self._started.append(pipeline)

    def _on_error(self, pipeline: Pipeline, error: BaseException) -> None:
        if isinstance(error, RunInterrupted):
            self.code = INTERRUPTED
            if error.result is not None:
                self._output.end(error.result)
        elif isinstance(error, UserWarning):
            self.wrong = error
            self.hint = self._did_you_mean(pipeline, str(error))
        elif isinstance(error, FlowymlError) or (isinstance(error, _CHECK_ERRORS) and _is_check(error)):
            self.wrong = error

    def _did_you_mean(self, pipeline: Pipeline, message: str) -> str:
        name = message.partition("' of run(")[0].removeprefix("'")
        known = {parameter for step in pipeline.steps for parameter in inspect.signature(step.func).parameters}
        return "" if "did you mean" in message else did_you_mean(name, sorted(known))


def _is_check(error: Exception) -> bool:
    """Return True for an error of one of flowyml's own checks, whose traceback has only the catching frame."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is None


def _variant_of(given: ParallelExecutor, workers: int | None, backend: Any) -> ParallelExecutor:
    """Return an executor with other workers or another backend, and the same options otherwise.

    Options of worker processes are kept only for them. A number of workers that may be the default of one backend is
    not passed to another: a hundred coroutines, but not a hundred processes.
    """
    kind: Any = backend or given.backend
    if workers is None and (kind == given.backend or given.max_workers != checked_workers(None, given.backend)):
        workers = given.max_workers
    names = (name for name in OPTIONS if kind == "process" or name not in OF_PROCESSES)
    options: dict[str, Any] = {name: getattr(given, name) for name in names}
    return ParallelExecutor(workers, kind, **options)


def _message(error: BaseException) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _is_being_imported(module: str) -> bool:
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _check_workers(options: argparse.Namespace) -> None:
    check_workers(options.workers)
    if options.workers is not None and options.backend == "local":
        raise UsageError("--backend local runs one step at a time, without workers")


def check_workers(workers: int | None) -> None:
    """Check a number of workers.

    Raises:
        UsageError: If it is invalid.
    """
    try:
        checked_workers(workers, "process")
    except ValueError as error:
        message = str(error).partition(";")[0].replace("max_workers", "--workers")
        raise UsageError(message) from None
