"""Pipeline: where steps are added and a run begins.

```
Authoring ◀── Planning ◀── Pipeline
 add_step      build        run
 map ...       dag ...      run_async ...
```

A pipeline is written, planned and run, and each class knows the ones to its left: `authoring/adding.py` keeps what it
was told in columns, `authoring/preparing.py` makes plans and runs of them, and this module, the door that users come in
by, executes the runs.
"""

from __future__ import annotations

import copy
import sys
import warnings
from types import FunctionType
from typing import TYPE_CHECKING, Any

from flowyml import commands
from flowyml._loading import refuse_if_loading
from flowyml.authoring.adding import Authoring
from flowyml.authoring.arguments import (
    as_context,
    checked_cache_store,
    checked_executor,
    checked_journals,
    checked_mode,
    checked_progress,
    warn_out_of_scope,
)
from flowyml.authoring.preparing import Planning
from flowyml.executors.local import LocalExecutor
from flowyml.hooks import Hooks
from flowyml.messages.frames import own_frames_hidden
from flowyml.messages.words import counted
from flowyml.planning.forms import Place
from flowyml.planning.sub_pipelines import SubPipeline
from flowyml.running.execution import execute
from flowyml.running.run import Run
from flowyml.steps.declarations import checked_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from os import PathLike
    from typing import Literal, Self

    from flowyml.executors.contract import Executor
    from flowyml.progress import Progress
    from flowyml.results.result import PipelineResult
    from flowyml.steps.contexts import Context
    from flowyml.steps.control import Branching, If, Switch
    from flowyml.steps.declarations import Named
    from flowyml.steps.step import Step
    from flowyml.store.cache import CacheStore

    Watching = Literal[True] | Callable[[Progress], object] | None

_PIPELINE_KEYWORDS = (
    *("name", "context", "executor", "validate_types", "auto_discover"),
    *("enable_cache", "cache_dir", "enable_checkpointing", "checkpoint_dir", "durability"),
)
_RUN_KEYWORDS = (
    *("inputs", "context", "executor", "fail_fast", "raise_on_failure", "keep"),
    *("run_id", "resume", "seed", "targets", "progress", "debug", "dry_run"),
)


class Pipeline(Planning):
    """A graph of steps: add them in any order, then run.

    Args:
        name: Name of the pipeline, for messages and results.
        context: Named values that any step may take by parameter name.
        executor: Where it runs by default; a `LocalExecutor` if none is given here or to `run`.
        validate_types: Compare type hints before anything runs: what a step returns with what the next one takes,
            values with parameters. `True` or "error": what does not fit is a `PipelineValidationError`; "warn": one
            `UserWarning`. Off by default.
        auto_discover: If no step is added, take all that `@step` has made for this pipeline (`@step(pipeline=name)`) or
            for any, in the order in which they were defined.
        enable_cache: Whether steps with `cache=` are cached; `False` turns them all off.
        cache_dir: Where their values are: a folder, or a `CacheStore`; ".flowyml/cache" in the working directory by
            default, made when the first value is stored.
        enable_checkpointing: Keep a journal of each run, so that one that was killed or has failed is continued by the
            next `run()`: what is finished is not run again. Off by default.
        checkpoint_dir: Where journals are; ".flowyml/checkpoints" in the working directory by default.
        durability: "batch": what is finished survives the process after 20 ms, and a power cut after 50. "always": each
            batch waits for the disk.

    Raises:
        TypeError: For a wrong argument. Keywords of the 2.2.1 documentation that are out of scope (`stack`, `project`,
            ...) are accepted with one `UserWarning`.

    >>> from flowyml import Pipeline, step
    >>> @step
    ... def square(x):
    ...     return x * x
    >>> pipeline = Pipeline("squares")
    >>> for i in range(3):
    ...     pipeline = pipeline.add_step(square, name=f"square_{i}", params={"x": i})
    >>> dict(pipeline.run().outputs)
    {'square_0': 0, 'square_1': 1, 'square_2': 4}
    """

    def __init__(
        self,
        name: str,
        context: Context | Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        *,
        validate_types: bool | Literal["warn", "error"] | None = None,
        auto_discover: bool = False,
        enable_cache: bool = True,
        cache_dir: str | PathLike[str] | CacheStore | None = None,
        enable_checkpointing: bool = False,
        checkpoint_dir: str | PathLike[str] | None = None,
        durability: Literal["batch", "always"] = "batch",
        **unknown: object,
    ) -> None:
        """Begin an empty pipeline."""
        with own_frames_hidden:
            warn_out_of_scope("Pipeline()", unknown, _PIPELINE_KEYWORDS)
            super().__init__(
                name,
                as_context(context),
                discovers=auto_discover,
                types=checked_mode(validate_types),
                cache=checked_cache_store(cache_dir, enabled=enable_cache),
                journals=checked_journals(enable_checkpointing, checkpoint_dir, durability),
            )
            self.executor: Executor | None = checked_executor(executor)
            self._hooks: Hooks | None = None

    @property
    def hooks(self) -> Hooks:
        """Functions that are told how runs of this pipeline go: `@pipeline.hooks.on_step_end`; see `Hooks`."""
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks

    @classmethod
    def from_steps(
        cls,
        *steps: Step[..., Any] | Callable[..., Any] | If | Switch | SubPipeline,
        name: str = "pipeline",
        context: Context | Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        validate_types: bool | Literal["warn", "error"] | None = None,
        enable_cache: bool = True,
        cache_dir: str | PathLike[str] | CacheStore | None = None,
        enable_checkpointing: bool = False,
        checkpoint_dir: str | PathLike[str] | None = None,
        durability: Literal["batch", "always"] = "batch",
        **unknown: object,
    ) -> Pipeline:
        """Make a pipeline of steps under their own names.

        Args:
            *steps: Steps or functions.
            name: As for `Pipeline`, like the other arguments.
            context: Named values.
            executor: Where it runs by default.
            validate_types: Whether type hints are compared.
            enable_cache: Whether steps with `cache=` are cached.
            cache_dir: Where their values are.
            enable_checkpointing: Whether runs keep a journal.
            checkpoint_dir: Where journals are.
            durability: When they are on the disk.
            **unknown: As for `Pipeline`.

        >>> Pipeline.from_steps(min, max, name="two").name
        'two'
        """
        with own_frames_hidden:
            warn_out_of_scope("from_steps()", unknown, _PIPELINE_KEYWORDS)
            frame = sys._getframe(1)  # noqa: SLF001
            options: dict[str, Any] = {"enable_cache": enable_cache, "cache_dir": cache_dir, "durability": durability}
            options |= {"enable_checkpointing": enable_checkpointing, "checkpoint_dir": checkpoint_dir}
            pipeline = cls(name, context, executor, validate_types=validate_types, **options)
            return pipeline._add_all(steps, Place(frame.f_code, frame.f_lasti))

    def _add_part(self, part: Branching | SubPipeline, place: Place, *rest: Any) -> Self:
        """Add it, and say what of a sub-pipeline counts only where it is run itself."""
        super()._add_part(part, place, *rest)
        inner = part.pipeline if isinstance(part, SubPipeline) else None
        unused = _only_of_its_own_runs(inner, self) if isinstance(inner, Pipeline) else []
        if inner is not None and unused:
            only = f"{', '.join(unused)} of pipeline {inner.name!r} count only where it is run itself"
            message = f"{only}; where it is part of pipeline {self.name!r} give them to that"
            warnings.warn_explicit(message, UserWarning, place.code.co_filename, place.line)
        return self

    def __repr__(self) -> str:
        """Show name and size."""
        return f"<Pipeline {self.name!r} of {counted(len(self), 'step')}>"

    def __copy__(self) -> Self:
        """Return a pipeline with the same steps, options and hooks; what is added to one is not in the other."""
        other = super().__copy__()
        other._hooks = copy.copy(self._hooks)  # noqa: SLF001  it is one of these
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name alone: a global of a script travels with its functions, its steps do not."""
        return _named_only, (self.name,)

    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
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
            inputs: Values by parameter or asset name, for this run.
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
            PipelineValidationError: If the pipeline is not valid; nothing has run.
            SerializationError: If a function of a step does not pickle, with process workers; nothing has run.
            StepError: With `raise_on_failure`.
            RunInterrupted: After Ctrl-C, with the partial result.
        """
        if commands.current is not None:  # the command `flowyml run` has executed the script that calls this
            return commands.current.run(self, commands.given(locals()))
        with own_frames_hidden:
            warn_out_of_scope("run()", unknown, _RUN_KEYWORDS)
            watched = checked_progress(progress)
            executor = checked_executor(executor) or self.executor or LocalExecutor()
            options: dict[str, Any] = {"keep": keep, "fail_fast": fail_fast, "seed": seed}
            options |= {"run_id": run_id, "resume": resume}
            run, scope = self._prepared(
                inputs, context, executor, targets=targets, debug=debug, only_look=dry_run, **options
            )
            if dry_run:
                from flowyml.views.dag import rehearsal

                told = self._foreseen(run.plan, scope, run.seed), self._resumable(run.plan, run.seed, resume)
                print(rehearsal(run.plan, scope, type(executor).__name__, *told))  # noqa: T201  it is what was asked for
                return run.rehearsed()
            run.listen(self, self.hooks)
            result = _executed(run, executor, watched)
            if raise_on_failure:
                result.raise_for_failure()
            return result

    def dry_run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        targets: Named | Iterable[Named] | None = None,
    ) -> PipelineResult:
        """Check everything and print what would run, and run nothing: `run(dry_run=True)`.

        Args:
            inputs: As for `run`, like the other arguments.
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
        return self.run(inputs, context=context, executor=executor, targets=targets, dry_run=True)

    def rerun(
        self,
        run_id: str,
        from_step: Named | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        raise_on_failure: bool = False,
    ) -> PipelineResult:
        """Continue an unfinished run, as `run(resume=run_id)` does; from a step on, if one is named.

        Args:
            run_id: The run.
            from_step: This step or sub-pipeline runs again with all that depends on it, whatever of that has finished.
            inputs: As for `run`, like the other arguments.
            context: Context values for this run only.
            executor: Where it runs.
            raise_on_failure: Raise a `StepError` when the run has ended and a step failed.

        Raises:
            ValueError: If there is no such step, or no such run that is unfinished, or the pipeline keeps no journal.
        """
        with own_frames_hidden:
            executor = checked_executor(executor) or self.executor or LocalExecutor()
            named: dict[str, Any] = {"run_id": None, "resume": checked_text("run_id", run_id), "anew": from_step}
            run, _ = self._prepared(inputs, context, executor, seed=None, targets=None, debug=False, **named)
            run.listen(self, self.hooks)
            result = _executed(run, executor, checked_progress(None))
            if raise_on_failure:
                result.raise_for_failure()
            return result

    async def run_async(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
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
        **unknown: object,
    ) -> PipelineResult:
        """Run all steps in a helper thread while the event loop goes on: in a notebook, in a web server.

        Cancelling the task that awaits it cancels the run, as Ctrl-C does: nothing new starts, worker processes are
        ended; a step that runs in this process is left behind after a second, since no thread can be stopped.

        Args:
            inputs: As for `run`, like all the other arguments.
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
        if commands.current is not None:
            return await commands.current.run_async(self, commands.given(locals()))
        with own_frames_hidden:
            from flowyml.running.awaitable import in_thread

            watched = checked_progress(progress)
            warn_out_of_scope("run_async()", unknown, _RUN_KEYWORDS[:-1])
            executor = checked_executor(executor) or self.executor or LocalExecutor()
            run, _ = self._prepared(
                inputs,
                context,
                executor,
                keep=keep,
                fail_fast=fail_fast,
                run_id=run_id,
                resume=resume,
                seed=seed,
                targets=targets,
                debug=debug,
            )
            run.listen(self, self.hooks)
            result = await in_thread(lambda: _executed(run, executor, watched), run.interrupts.request)
            if raise_on_failure:
                result.raise_for_failure()
            return result

    def run_quietly(
        self, executor: Executor, *, fail_fast: bool, progress: Watching = None, at_once: int | None = None
    ) -> PipelineResult:
        """Run without inputs, and leave it to the caller to tell what failed."""
        refuse_if_loading()
        plan = self._planned(self._scope({}, {}, complete=True), stacklevel=4)
        run = Run(plan, order=executor.order, capacity=executor.capacity, fail_fast=fail_fast, at_once=at_once)
        return _executed(run, executor, progress, quiet=True)


def _of_pipeline(*kinds: type) -> None:
    """Let Python's own errors about arguments name methods by the class that users know."""
    for name, method in [pair for kind in kinds for pair in vars(kind).items()]:
        for each in (method, getattr(method, "__wrapped__", None)):
            if isinstance(each, FunctionType):
                each.__module__, each.__qualname__ = __name__, f"Pipeline.{name}"


_of_pipeline(Authoring, Planning)


def _executed(run: Run, executor: Executor, progress: Watching, *, quiet: bool = False) -> PipelineResult:
    """Execute a run, and show how far it is if somebody wants to know."""
    if not progress:
        return execute(run, executor, quiet=quiet)
    from flowyml.progress import shown

    with shown(run, progress):
        return execute(run, executor, quiet=quiet)


def _named_only(name: str) -> Pipeline:
    """Return what arrives of a pipeline that was pickled: it must not look like one without steps."""
    pipeline = Pipeline(name)
    pipeline._named_only = True  # noqa: SLF001  of this class
    return pipeline


def _only_of_its_own_runs(inner: Pipeline, around: Pipeline) -> list[str]:
    """Return what a pipeline asks for that the one which it becomes part of has not."""
    stores = [None if each._cache is None else each._cache.cache_dir for each in (inner, around)]  # noqa: SLF001
    cached = None not in stores and any(form.options.caching for form in set(inner._added.forms))  # noqa: SLF001
    asked = {
        "hooks": inner.hooks.any,
        "enable_checkpointing": inner._journals.kept and not around._journals.kept,  # noqa: SLF001
        "cache_dir": cached and stores[0] != stores[1],
    }
    return [name for name, is_asked in asked.items() if is_asked]
