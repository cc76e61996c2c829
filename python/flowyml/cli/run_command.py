"""`flowyml run`: a pipeline is run in the way that the command line says, and what came of it is told.

```
file runs its pipeline itself   ──▶ Running.run ┐
file has one, and does not run it ──▶           ┴──▶ pipeline.run(**changed) ──▶ summary, report, trace, exit code
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
from flowyml.cli.loader import at_line, executed, found, line_of, target_of
from flowyml.cli.parser import assigned
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

_WRONG = (TypeError, ValueError, LookupError, ImportError)


def run(options: argparse.Namespace) -> int:
    """Run a pipeline, and return the exit code.

    Raises:
        UsageError: If the command line is wrong; nothing has run then, or it says what has.
    """
    target = target_of(options.pipeline)
    running = CliRun(options, target)
    try:
        names = executed(target, options.rest, running)
        pipeline = None if running.ran else running.meant(names)
        if pipeline is not None:
            at_line(line_of(pipeline, target, names), names, partial(running.run_it, pipeline, {}))
    except Exit as ended:
        return ended.code or running.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except UserError as raised:
        if raised.error is not running.wrong:
            raise
        raise UsageError(_words(raised.error) + running.hint) from raised.error
    except Exception as error:
        if error is not running.wrong:
            raise
        raise UsageError(_words(error) + running.hint) from error
    return running.code


class CliRun:
    """The command above the runs of a script.

    Args:
        options: What the command line says.
        target: Which pipeline is meant.

    Attributes:
        ran: Whether a pipeline that is meant has run.
        code: The exit code, as far as it is known.
        wrong: What was raised because the command line, or the pipeline, is wrong: nothing has run.
        hint: What may have been meant instead.
    """

    def __init__(self, options: argparse.Namespace, target: PipelineRef) -> None:
        self._options = options
        self._target = target
        self._context, self._inputs = assigned("-c", options.context), assigned("-i", options.inputs)
        self._told = RunOutput(options)
        if options.fresh and options.resume:
            raise UsageError("--fresh begins anew and --resume continues; give one of them")
        _check_workers(options)
        self._made: WeakKeyDictionary[ParallelExecutor, ParallelExecutor] = WeakKeyDictionary()
        self._plain: ParallelExecutor | None = None
        self.ran = False
        self._makes = False  # whether a function that was named is making a pipeline
        self._begun: list[Pipeline] = []  # what it has run
        self._others: list[str] = []
        self.code = SUCCESS
        self.wrong: Exception | None = None
        self.hint = ""
        self._refuse_unused()

    def is_meant(self, pipeline: Pipeline) -> bool:
        """Tell whether the command line is about this pipeline: the one that it names, or all of a file."""
        name = self._target.name
        if name is None or name == pipeline.name or self._makes:
            return True
        main = sys.modules.get("__main__")
        return getattr(main, name, None) is pipeline

    def meant(self, names: Mapping[str, Any]) -> Pipeline | None:
        """Return the pipeline that is meant, of a file that has not run it; `None` if the function that makes it has.

        Raises:
            UsageError: As `found` does; it says what the file has run itself.
        """
        self._makes = True
        try:
            with run_interceptor.install(self):
                pipeline = found(self._target, names)
        except UsageError as error:
            if self.ran:
                return None
            if not self._others:
                raise
            raise UsageError(f"{error}; the file itself has run {join_names(dict.fromkeys(self._others))}") from None
        return None if any(each is pipeline for each in self._begun) else pipeline

    def run(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
        """Run a pipeline of the script; its arguments hold where the command line says nothing."""
        self._refuse_in_module()
        if self.is_meant(pipeline):
            return self.run_it(pipeline, arguments)
        self._others.append(pipeline.name)
        with run_interceptor.passthrough():
            return pipeline.run(**arguments)

    def rerun(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
        """Continue a run, likewise: that of the command line, if it says which; with --fresh begin anew."""
        self._refuse_in_module()
        if not self.is_meant(pipeline):
            self._others.append(pipeline.name)
            with run_interceptor.passthrough():
                return pipeline.rerun(**arguments)
        arguments["resume"], from_step = arguments.pop("run_id"), arguments.pop("from_step")
        if self._options.fresh:
            return self.run_it(pipeline, arguments)
        return self.run_it(pipeline, {**arguments, "from_step": from_step}, again=True)

    def run_it(self, pipeline: Pipeline, arguments: dict[str, Any], *, again: bool = False) -> PipelineResult:
        """Run the pipeline that is meant; again, what an earlier run of it has begun."""
        changed = self._changed(pipeline, arguments)
        self._note_begin(pipeline)
        try:
            with run_interceptor.passthrough():
                result = rerun(pipeline, RunOptions(**changed)) if again else pipeline.run(**changed)
        except BaseException as error:
            self._note(pipeline, error)
            raise
        self._ended(result)
        return result

    async def run_async(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
        """Run a pipeline beside an event loop, likewise."""
        self._refuse_in_module()
        if not self.is_meant(pipeline):
            self._others.append(pipeline.name)
            with run_interceptor.passthrough():
                return await pipeline.run_async(**arguments)
        if self._options.dry_run:
            return self.run_it(pipeline, arguments)
        changed = self._changed(pipeline, arguments)
        self._note_begin(pipeline)
        try:
            with run_interceptor.passthrough():
                result = await pipeline.run_async(**changed)
        except BaseException as error:
            self._note(pipeline, error)
            raise
        self._ended(result)
        return result

    def _refuse_in_module(self) -> None:
        module = self._target.module
        if module and not self.ran and _is_being_imported(module):
            raise UsageError(
                f"module {module!r} runs a pipeline when it is imported, which workers would do again; put it under "
                f'if __name__ == "__main__", or give the file'
            )

    def _refuse_unused(self) -> None:
        """Let a value that no step takes be an error: it would be a warning, and a default for the right name."""
        names = "|".join(re.escape(repr(name)) for name in (*self._context, *self._inputs))
        if names:
            warnings.filterwarnings("error", rf"({names}) of run\((context|inputs)=\) ", UserWarning)

    def _changed(self, pipeline: Pipeline, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a run, with what the command line says in their place."""
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
        """Return where it runs, if the command line says so: like the executor that it has, with what was said."""
        workers, backend = self._options.workers, self._options.backend
        if workers is None and backend is None:
            return None
        if isinstance(given, ParallelExecutor):
            return self._instead_of(given, workers, backend)
        if backend == "local":
            return LocalExecutor()
        if self._plain is None:
            self._plain = ParallelExecutor(workers, backend or "process")
        return self._plain

    def _instead_of(self, given: ParallelExecutor, workers: int | None, backend: Any) -> Executor:
        """Return what stands for an executor of the script, in each run on that one: its workers stay warm."""
        if given.initializer is not None and backend in {"async", "local"}:
            raise UsageError(
                f"--backend {backend} calls no initializer, and the executor of the script has one, whose work its "
                f"steps may need; process and thread call it"
            )
        if backend == "local":
            return LocalExecutor()
        if given not in self._made:
            self._made[given] = _like(given, workers, backend)
        return self._made[given]

    def _ended(self, result: PipelineResult) -> None:
        """Tell what came of a run, and remember how the command is to end."""
        if result.state == "dry_run":  # of the command it is the end; one that the script asks for is its own
            if self._options.dry_run:
                raise Exit(SUCCESS)
            return
        if not result.success:
            self.code = FAILURE
        if not self._told.end(result):
            self.code = self.code or NOT_WRITTEN

    def _note_begin(self, pipeline: Pipeline) -> None:
        self.ran = True
        if self._makes:
            self._begun.append(pipeline)

    def _note(self, pipeline: Pipeline, error: BaseException) -> None:
        """Remember why a run did not come to its end."""
        if isinstance(error, RunInterrupted):
            self.code = INTERRUPTED
            if error.result is not None:
                self._told.end(error.result)
        elif isinstance(error, UserWarning):
            self.wrong = error
            self.hint = self._near(pipeline, str(error))
        elif isinstance(error, FlowymlError) or (isinstance(error, _WRONG) and _is_check(error)):
            self.wrong = error

    def _near(self, pipeline: Pipeline, told: str) -> str:
        """Return what may have been meant by a name that no step takes."""
        name = told.partition("' of run(")[0].removeprefix("'")
        known = {each for step in pipeline.steps for each in inspect.signature(step.func).parameters}
        return "" if "did you mean" in told else did_you_mean(name, sorted(known))


def _is_check(error: Exception) -> bool:
    """Tell whether an error is the answer of one of our checks: such a one has no frame but the one that caught it."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is None


def _like(given: ParallelExecutor, workers: int | None, backend: Any) -> ParallelExecutor:
    """Return an executor that is like another, but for what was said.

    What is about worker processes goes where they go. A number of workers that may be the default of one backend is not
    what another should have: a hundred coroutines, but not a hundred processes.
    """
    kind: Any = backend or given.backend
    if workers is None and (kind == given.backend or given.max_workers != checked_workers(None, given.backend)):
        workers = given.max_workers
    names = (name for name in OPTIONS if kind == "process" or name not in OF_PROCESSES)
    options: dict[str, Any] = {name: getattr(given, name) for name in names}
    return ParallelExecutor(workers, kind, **options)


def _words(error: BaseException) -> str:
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
        UsageError: If there can be no executor with so many.
    """
    try:
        checked_workers(workers, "process")
    except ValueError as error:
        told = str(error).partition(";")[0].replace("max_workers", "--workers")
        raise UsageError(told) from None
