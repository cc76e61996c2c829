"""Launch: from the arguments of `Pipeline.run` to a run and its result.

```
run, run_async, rerun, dry_run ──▶ RunOptions ──▶ Preparation: plan ──▶ Run ──▶ execute ──▶ PipelineResult
```

If the command `flowyml run` executes the script that calls one of these, the command takes over the call
(`run_interceptor.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml import run_interceptor
from flowyml._containers import NamedTuple
from flowyml.authoring.validation import (
    absolute,
    checked_executor,
    checked_flags,
    checked_progress,
    checked_resume,
    checked_seed,
    checked_values,
)
from flowyml.diagnostics.text import join_names
from flowyml.diagnostics.tracebacks import hides_internal_frames, warn_caller, warn_out_of_scope
from flowyml.executors.local_executor import LocalExecutor
from flowyml.import_guard import refuse_if_loading
from flowyml.steps.current_step import current_provider
from flowyml.steps.declarations import checked_text, step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Literal, TypedDict

    from flowyml.authoring.preparation import Preparation
    from flowyml.executors.executor import Executor
    from flowyml.pipeline import Pipeline
    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.plan import Plan
    from flowyml.progress import Progress
    from flowyml.results.result import PipelineResult
    from flowyml.runtime.mutation_check import MutationCheck
    from flowyml.runtime.run import Run
    from flowyml.steps.declarations import Named

    ProgressObserver = Literal[True] | Callable[[Progress], object] | None

    class RunKeywords(TypedDict, total=False):
        """The keywords of `Pipeline.run`, which describes them."""

        given: Mapping[str, Any] | None
        context: Mapping[str, Any] | None
        executor: Executor | None
        fail_fast: bool
        raise_on_failure: bool
        keep: str | Sequence[str]
        run_id: str | None
        resume: str | bool | None
        seed: int | None
        targets: Named | Iterable[Named] | None
        progress: bool | Callable[[Progress], object] | None
        debug: bool
        dry_run: bool


class RunOptions(NamedTuple):
    """The arguments of a run as they are given; `Pipeline.run` describes them.

    Attributes:
        from_step: This step and all that depend on it run again, whatever an earlier attempt has finished.
    """

    inputs: Mapping[str, Any] | None = None
    given: Mapping[str, Any] | None = None
    context: Mapping[str, Any] | None = None
    executor: Executor | None = None
    fail_fast: bool = False
    raise_on_failure: bool = False
    keep: str | Sequence[str] = "all"
    run_id: str | None = None
    resume: str | bool | None = None
    seed: int | None = None
    targets: Named | Iterable[Named] | None = None
    progress: bool | Callable[[Progress], object] | None = None
    debug: bool = False
    dry_run: bool = False
    from_step: Named | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `Pipeline.run`."""
        return dict(zip(RUN_KEYWORDS, self, strict=False))


RUN_KEYWORDS = RunOptions._fields[:-1]
_RERUN_KEYWORDS = ("from_step", "inputs", "given", "context", "executor", "raise_on_failure")


def run(pipeline: Pipeline, options: RunOptions, unknown: Mapping[str, object]) -> PipelineResult:
    """Run a pipeline; see `Pipeline.run`."""
    if run_interceptor.current is not None and not _is_in_run():
        return run_interceptor.current.run(pipeline, {**options.arguments(), **unknown})
    warn_out_of_scope("run()", unknown, RUN_KEYWORDS)
    return _run(pipeline, options)


async def run_async(
    pipeline: Pipeline, inputs: Mapping[str, Any] | None, keywords: Mapping[str, Any]
) -> PipelineResult:
    """Run a pipeline in a helper thread; see `Pipeline.run_async`."""
    unknown = {name: value for name, value in keywords.items() if name not in RUN_KEYWORDS}
    options = RunOptions(inputs, **{name: value for name, value in keywords.items() if name not in unknown})
    if run_interceptor.current is not None and not _is_in_run():
        return await run_interceptor.current.run_async(pipeline, {**options.arguments(), **unknown})
    from flowyml.runtime.async_run import in_thread

    warn_out_of_scope("run_async()", unknown, RUN_KEYWORDS)
    observer, executor = _checked(pipeline, options)
    run, scope = _make_run(pipeline, options, executor)
    if options.dry_run:
        return _dry_run(pipeline, run, scope, options, executor)
    result = await in_thread(lambda: _execute(run, executor, observer), run.interrupts.request)
    return _finish(result, options)


@hides_internal_frames
def rerun(pipeline: Pipeline, options: RunOptions) -> PipelineResult:
    """Continue the run that `options.resume` names, with its seed; see `Pipeline.rerun`."""
    if run_interceptor.current is not None and not _is_in_run():
        arguments = {name: getattr(options, name) for name in _RERUN_KEYWORDS}
        return run_interceptor.current.rerun(pipeline, {"run_id": options.resume, **arguments})
    run_id = checked_text("run_id", options.resume)
    preparation = _preparation_of(pipeline)
    if options.seed is None and preparation.journals.kept:
        options = options._replace(seed=preparation.resumable_runs().seed_of(run_id))
    return _run(pipeline, options._replace(resume=run_id))


def run_plain(
    pipeline: Pipeline,
    executor: Executor,
    *,
    fail_fast: bool,
    observer: ProgressObserver = None,
    max_batch_size: int | None = None,
) -> PipelineResult:
    """Run a pipeline without inputs for `map_task` or `parallel_map`, which report failures themselves."""
    from flowyml.runtime.run import Run

    refuse_if_loading()
    preparation = _preparation_of(pipeline)
    plan = preparation.plan(preparation.scope({}, {}, complete=True))
    options: dict[str, Any] = {"order": executor.order, "capacity": executor.capacity, "max_batch_size": max_batch_size}
    return _execute(Run(plan, fail_fast=fail_fast, **options), executor, observer, quiet=True)


def _is_in_run() -> bool:
    return run_interceptor.is_active(in_step=current_provider() is not None)


def _preparation_of(pipeline: Pipeline) -> Preparation:
    return pipeline._preparation  # noqa: SLF001  this module runs what it has prepared


def _run(pipeline: Pipeline, options: RunOptions) -> PipelineResult:
    observer, executor = _checked(pipeline, options)
    run, scope = _make_run(pipeline, options, executor)
    if options.dry_run:
        return _dry_run(pipeline, run, scope, options, executor)
    return _finish(_execute(run, executor, observer), options)


def _checked(pipeline: Pipeline, options: RunOptions) -> tuple[ProgressObserver, Executor]:
    """Check flags and progress; return who observes the run and where it is executed."""
    flags = ("fail_fast", "raise_on_failure", "debug", "dry_run")
    checked_flags(**{name: getattr(options, name) for name in flags})
    observer = checked_progress(options.progress)
    return observer, checked_executor(options.executor) or pipeline.executor or LocalExecutor()


def _make_run(pipeline: Pipeline, options: RunOptions, executor: Executor) -> tuple[Run, Scope]:
    """Check the other arguments, make the plan and the run, and attach hooks, cache and journal."""
    from flowyml.runtime.run import Run

    refuse_if_loading()
    preparation = _preparation_of(pipeline)
    journals = preparation.journals
    run_id = None if options.run_id is None else checked_text("run_id", options.run_id)
    resume = checked_resume(options.resume, run_id, enabled=journals.kept)
    plan, scope = _make_plan(preparation, options)
    watch = _debug(plan, scope, executor) if options.debug else None
    run = Run(
        plan,
        order=executor.order,
        keep=options.keep,
        fail_fast=options.fail_fast,
        run_id=run_id,
        seed=checked_seed(options.seed),
        capacity=executor.capacity,
        graph=executor.prioritized_graph(plan),
        watch=watch,
    )
    run.checkpoint_dir = absolute(journals.folder)
    if options.from_step is not None:
        run.forced_steps = plan.with_dependents(step_of(options.from_step))
    if options.dry_run:
        return run, scope
    if journals.kept or (preparation.cache is not None and plan.has_caching):
        from flowyml.caching.lookup import attach

        if executor.keeps_values_serialized:
            run.keep_values_serialized()
        attempts = preparation.resumable_runs() if journals.kept else None
        attach(run, preparation.cache, scope.context, attempts, run_id=run_id, resume=resume)
    run.attach_hooks(pipeline, pipeline._hooks)  # noqa: SLF001  `None` if there are none
    return run, scope


def _make_plan(preparation: Preparation, options: RunOptions) -> tuple[Plan, Scope]:
    inputs = checked_values("run(inputs=)", options.inputs)
    context = checked_values("run(context=)", options.context)
    given = checked_values("run(given=)", options.given)
    scope = preparation.scope(inputs, context, complete=True)
    plan = preparation.plan(scope, targets=options.targets, given=given)
    preparation.warn_notes(plan)
    if options.targets is None and not given:
        preparation.warn_unused(plan, inputs, context)
    elif unused := [name for name in given if plan.find(name) is None and name not in plan.numbers]:
        warn_caller(f"run(given=) gives {join_names(unused)}, which no step of targets= needs")
    if plan.is_dynamic:
        preparation.check_new_types(plan, scope)
    return plan, scope


def _debug(plan: Plan, scope: Scope, executor: Executor) -> MutationCheck | None:
    """Log where arguments come from; return what detects steps that change arguments, if steps share them."""
    from flowyml.graph.explain import log_sources

    log_sources(plan, scope)
    if executor.keeps_values_serialized:
        return None
    from flowyml.runtime.mutation_check import MutationCheck

    return MutationCheck()


def _dry_run(pipeline: Pipeline, run: Run, scope: Scope, options: RunOptions, executor: Executor) -> PipelineResult:
    """Print what would run, what is cached and what an unfinished run has finished already."""
    from flowyml.graph.dag import dry_run_text

    preparation = _preparation_of(pipeline)
    cached = resumed = None
    if preparation.cache is not None and run.plan.has_caching:
        from flowyml.caching.preview import CachePreview

        cached = CachePreview(run.plan, preparation.cache, scope, run.seed).describe()
    if preparation.journals.kept:
        from flowyml.caching.preview import preview_resume

        attempts, forced = preparation.resumable_runs(), run.forced_steps
        resumed = preview_resume(run.plan, attempts, seed=run.seed, resume=options.resume, forced=forced)
    print(dry_run_text(run.plan, scope, type(executor).__name__, cached, resumed))  # noqa: T201  it is what was asked for
    return run.dry_run_result()


def _execute(run: Run, executor: Executor, observer: ProgressObserver, *, quiet: bool = False) -> PipelineResult:
    from flowyml.runtime.execute import execute

    if not observer:
        return execute(run, executor, quiet=quiet)
    from flowyml.progress import shown

    with shown(run, observer):
        return execute(run, executor, quiet=quiet)


def _finish(result: PipelineResult, options: RunOptions) -> PipelineResult:
    if options.raise_on_failure:
        result.raise_for_failure()
    return result
