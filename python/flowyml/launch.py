"""Runnable: a pipeline that runs, here and now, or in a helper thread while an event loop goes on.

```
arguments of run() ──▶ Planning: a Run that is ready ──▶ execute, with whoever watches ──▶ PipelineResult
```

Each way to run checks what it was given, has the run prepared, tells the hooks of it and executes it. Where the command
`flowyml run` has executed the script that calls this, the command decides what becomes of the call.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

from flowyml import run_interceptor
from flowyml.authoring.preparation import Preparation
from flowyml.authoring.validation import checked_executor, checked_flags, checked_progress
from flowyml.diagnostics.tracebacks import hides_internal_frames, warn_out_of_scope
from flowyml.executors.local_executor import LocalExecutor
from flowyml.import_guard import refuse_if_loading
from flowyml.steps.current_step import current_teller
from flowyml.steps.declarations import checked_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Literal, Self

    from flowyml.executors.executor import Executor
    from flowyml.hooks import Hooks
    from flowyml.pipeline import Pipeline
    from flowyml.progress import Progress
    from flowyml.results.result import PipelineResult
    from flowyml.runtime.run import Run
    from flowyml.steps.declarations import Named

    Watching = Literal[True] | Callable[[Progress], object] | None

_RUN_KEYWORDS = (
    *("inputs", "given", "context", "executor", "fail_fast", "raise_on_failure", "keep"),
    *("run_id", "resume", "seed", "targets", "progress", "debug", "dry_run"),
)


class Launcher(Preparation):
    """A pipeline as far as it runs.

    Attributes:
        executor: Where it runs by default; a `LocalExecutor` if there is none.
    """

    executor: Executor | None = None
    _hooks: Hooks | None = None

    @property
    def _pipeline(self) -> Pipeline:
        """This, as the class that it is always one of: what others are told of is a `Pipeline`."""
        return cast("Pipeline", self)

    @property
    def hooks(self) -> Hooks:
        """Functions that are told how runs of this pipeline go: `@pipeline.hooks.on_step_end`; see `Hooks`."""
        if self._hooks is None:
            from flowyml.hooks import Hooks

            self._hooks = Hooks()
        return self._hooks

    def __copy__(self) -> Self:
        """Return a pipeline with the same steps, options and hooks; what is added to one is not in the other."""
        other = super().__copy__()
        other._hooks = copy.copy(self._hooks)  # noqa: SLF001  it is one of these
        return other

    @hides_internal_frames
    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        given: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        fail_fast: bool = False,
        raise_on_failure: bool = False,
        keep: str | Sequence[str] = "all",
        run_id: str | None = None,
        resume: str | bool | None = None,
        seed: int | None = None,
        targets: Named | Iterable[Named] | None = None,
        progress: bool | Callable[[Progress], object] | None = None,
        debug: bool = False,
        dry_run: bool = False,
        **unknown: object,
    ) -> PipelineResult:
        """Run all steps and return the result, whether steps failed or not.

        Args:
            inputs: Values for this run, by name of a parameter or of an asset that no step produces.
            given: Values of steps that do not run, by name of the step (its whole return value; of a mapped step the
                list of the values of all its items) or of its assets (all of them, if it has several outputs). Such a
                step is in the state `given`, waits for nothing, and the steps that need it get the value. The steps
                that it needs still run, unless `targets` leave them out.
            context: Context values for this run only; they go before the pipeline's own.
            executor: Where it runs, instead of the pipeline's executor.
            fail_fast: Start nothing new after the first failure; what is left is cancelled.
            raise_on_failure: Raise a `StepError` when the run has ended and a step failed.
            keep: "all" values stay readable; "leaves": values that other steps read go after their last reader; or the
                names of those to keep beside the leaves.
            run_id: Name of the run; a random one by default.
            resume: With `enable_checkpointing`: which unfinished run to continue. By default the last one of this
                pipeline, if it has finished something that is part of this run; "last": that one in any case; the id of
                a run; `False`: none, this is a new run.
            seed: Makes `random`, numpy's global generator and `get_context().rng` reproducible: each step, and each
                item of a mapped step, begins with states that follow from this number and its name. On threads, steps
                that run at the same time share the global generators: there only `get_context().rng` is reproducible.
            targets: Run only these and what they need: steps, sub-pipelines or assets by name, globs, "tag:nightly" or
                "tag:team=ml". The result holds no other steps; what is left out need not be valid.
            progress: Show how far the run is, on stderr: a bar in a notebook and on a terminal (with rich where that is
                installed, else one line), a line now and then elsewhere. Or a function that is called with a `Progress`
                a few times a second, in another thread. Off by default.
            debug: Log where the arguments of each step come from, before anything runs: one line a step, on the logger
                `flowyml`. Where steps share their arguments (not on worker processes), name those that change them.
            dry_run: Check everything and print what would run, what is cached and what an unfinished run has finished
                already, and run nothing: all steps of the result are waiting, its state is "dry_run".
            **unknown: Nothing else is known; keywords of 2.2.1 that are out of scope get one warning.

        Returns:
            The result: each step with its state, value or error.

        Raises:
            TypeError: For an argument of another kind.
            PipelineValidationError: If the pipeline is not valid; nothing has run.
            SerializationError: If a function does not pickle, or a value of `params`, `inputs`, `given` or a context,
                with process workers; nothing has run.
            StepError: With `raise_on_failure`.
            RunInterrupted: After Ctrl-C, with the partial result.
        """
        if (
            run_interceptor.current is not None and not _is_inside()
        ):  # `flowyml run` has executed the script that calls this
            return run_interceptor.current.run(self._pipeline, run_interceptor.bound_arguments(locals()))
        warn_out_of_scope("run()", unknown, _RUN_KEYWORDS)
        checked_flags(fail_fast=fail_fast, raise_on_failure=raise_on_failure, debug=debug, dry_run=dry_run)
        watched = checked_progress(progress)
        executor = self._chosen(executor)
        options: dict[str, Any] = {"keep": keep, "fail_fast": fail_fast, "seed": seed, "run_id": run_id}
        options |= {"resume": resume, "targets": targets, "debug": debug, "given": given}
        run, told = self._begun(inputs, context, executor, only_look=dry_run, **options)
        if told is not None:
            return told
        result = _executed(run, executor, watched)
        if raise_on_failure:
            result.raise_for_failure()
        return result

    @hides_internal_frames
    def dry_run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        given: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        targets: Named | Iterable[Named] | None = None,
    ) -> PipelineResult:
        """Check everything and print what would run, and run nothing: `run(dry_run=True)`.

        Args:
            inputs: As for `run`, like the other arguments.
            given: Values of steps that would not run.
            context: Context values for this run only.
            executor: Where it would run.
            targets: Which part of the pipeline would run.

        >>> Pipeline("p").add_step(dict, name="raw").dry_run().state
        Pipeline DAG: p
        <BLANKLINE>
        Step Execution Order:
          1. raw
        <BLANKLINE>
        Dry run: 1 step (1 call) would run on LocalExecutor; nothing was run.
        'dry_run'
        """
        return self.run(inputs, given=given, context=context, executor=executor, targets=targets, dry_run=True)

    @hides_internal_frames
    def rerun(
        self,
        run_id: str,
        from_step: Named | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        given: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        raise_on_failure: bool = False,
    ) -> PipelineResult:
        """Continue an unfinished run, as `run(resume=run_id)` does, with its seed; from a step on, if one is named.

        Args:
            run_id: The run.
            from_step: This step or sub-pipeline runs again with all that depends on it, whatever of that has finished.
            inputs: As for `run`, like the other arguments.
            given: Values of steps that do not run.
            context: Context values for this run only.
            executor: Where it runs.
            raise_on_failure: Raise a `StepError` when the run has ended and a step failed.

        Raises:
            ValueError: If there is no such step, or no such run that is unfinished, or the pipeline keeps no journal.
        """
        if run_interceptor.current is not None and not _is_inside():
            return run_interceptor.current.rerun(self._pipeline, run_interceptor.bound_arguments(locals()))
        named: dict[str, Any] = {"inputs": inputs, "given": given, "context": context, "executor": executor}
        return self.run_again(run_id, from_step, raise_on_failure=raise_on_failure, **named)

    @hides_internal_frames
    def run_again(
        self,
        resume: str,
        from_step: Named | None,
        inputs: Mapping[str, Any] | None = None,
        *,
        given: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        seed: int | None = None,
        progress: bool | Callable[[Progress], object] | None = None,
        raise_on_failure: bool = False,
        dry_run: bool = False,
        **options: Any,
    ) -> PipelineResult:
        """Do what `rerun` does, with what else `run` takes: the command may say it."""
        watched = checked_progress(progress)
        executor = self._chosen(executor)
        resume = checked_text("run_id", resume)
        options = {"run_id": None, "targets": None, "debug": False, "given": given, **options, "anew": from_step}
        options["seed"] = self._seed_of(resume) if seed is None else seed
        run, told = self._begun(inputs, context, executor, resume=resume, only_look=dry_run, **options)
        if told is not None:
            return told
        result = _executed(run, executor, watched)
        if raise_on_failure:
            result.raise_for_failure()
        return result

    @hides_internal_frames
    async def run_async(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        given: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        fail_fast: bool = False,
        raise_on_failure: bool = False,
        keep: str | Sequence[str] = "all",
        run_id: str | None = None,
        resume: str | bool | None = None,
        seed: int | None = None,
        targets: Named | Iterable[Named] | None = None,
        progress: bool | Callable[[Progress], object] | None = None,
        debug: bool = False,
        dry_run: bool = False,
        **unknown: object,
    ) -> PipelineResult:
        """Run all steps in a helper thread while the event loop goes on: in a notebook, in a web server.

        Cancelling the task that awaits it cancels the run, as Ctrl-C does: nothing new starts, worker processes are
        ended; a step that runs in this process is left behind after a second, since no thread can be stopped.

        Args:
            inputs: As for `run`, like all the other arguments.
            given: Values of steps that do not run.
            context: Context values for this run only.
            executor: Where it runs.
            fail_fast: Start nothing new after the first failure.
            raise_on_failure: Raise a `StepError` when the run has ended and a step failed.
            keep: Which values stay.
            run_id: Name of the run.
            resume: Which unfinished run to continue.
            seed: Makes random numbers reproducible.
            targets: Which part of the pipeline runs.
            progress: Whether to show how far it is.
            debug: Log where each argument comes from.
            dry_run: Check everything, print what would run and run nothing.
            **unknown: As for `run`.

        Returns:
            The result, as `run` does.

        Raises:
            PipelineValidationError: If the pipeline is not valid; nothing has run.
            StepError: With `raise_on_failure`.

        >>> import asyncio
        >>> from flowyml import Pipeline
        >>> async def main():
        ...     return await Pipeline("one").add_step(max, params={"a": 1, "b": 2}).run_async()
        >>> asyncio.run(main())["max"]
        2
        """
        if run_interceptor.current is not None and not _is_inside():
            return await run_interceptor.current.run_async(self._pipeline, run_interceptor.bound_arguments(locals()))
        from flowyml.runtime.async_run import in_thread

        watched = checked_progress(progress)
        warn_out_of_scope("run_async()", unknown, _RUN_KEYWORDS)
        checked_flags(fail_fast=fail_fast, raise_on_failure=raise_on_failure, debug=debug, dry_run=dry_run)
        executor = self._chosen(executor)
        options: dict[str, Any] = {"keep": keep, "fail_fast": fail_fast, "seed": seed, "run_id": run_id}
        options |= {"resume": resume, "targets": targets, "debug": debug, "given": given}
        run, told = self._begun(inputs, context, executor, only_look=dry_run, **options)
        if told is not None:
            return told
        result = await in_thread(lambda: _executed(run, executor, watched), run.interrupts.request)
        if raise_on_failure:
            result.raise_for_failure()
        return result

    def _chosen(self, executor: Any) -> Executor:
        """Return where a run is executed: where its caller says, or the pipeline."""
        return checked_executor(executor) or self.executor or LocalExecutor()

    def _begun(
        self, inputs: Any, context: Any, executor: Executor, *, resume: Any, only_look: bool = False, **options: Any
    ) -> tuple[Run, PipelineResult | None]:
        """Return a run that is ready, and, where it is only looked at, its result, once that is printed."""
        run, scope = self._prepared(inputs, context, executor, resume=resume, only_look=only_look, **options)
        if not only_look:
            run.attach_hooks(self._pipeline, self._hooks)
            return run, None
        from flowyml.graph.dag import rehearsal

        more = self._foreseen(run.plan, scope, run.seed), self._resumable(run, resume)
        print(rehearsal(run.plan, scope, type(executor).__name__, *more))  # noqa: T201  it is what was asked for
        return run, run.dry_run_result()

    def run_quietly(
        self, executor: Executor, *, fail_fast: bool, progress: Watching = None, at_once: int | None = None
    ) -> PipelineResult:
        """Run without inputs, and leave it to the caller to tell what failed."""
        from flowyml.runtime.run import Run

        refuse_if_loading()
        plan = self._planned(self._scope({}, {}, complete=True))
        run = Run(plan, order=executor.order, capacity=executor.capacity, fail_fast=fail_fast, max_batch_size=at_once)
        return _executed(run, executor, progress, quiet=True)


def _is_inside() -> bool:
    """Tell whether this is inside of a run that the command lets run."""
    return run_interceptor.is_active(in_step=current_teller() is not None)


def _executed(run: Run, executor: Executor, progress: Watching, *, quiet: bool = False) -> PipelineResult:
    """Execute a run, and show how far it is if somebody wants to know."""
    from flowyml.runtime.execute import execute

    if not progress:
        return execute(run, executor, quiet=quiet)
    from flowyml.progress import shown

    with shown(run, progress):
        return execute(run, executor, quiet=quiet)
