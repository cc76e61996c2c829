"""Pipeline: the class to which steps are added and from which runs are started.

```
Pipeline ──▶ PipelineBuilder (authoring/builder.py): add_step, map, ... ──▶ StepTable
         ──▶ Preparation (authoring/preparation.py): build, dag, explain ──▶ Plan
         ──▶ launch.py: run, run_async, rerun, dry_run ──▶ Run, PipelineResult
```

The methods here check where they were called from and delegate.
"""

from __future__ import annotations

import copy
import sys
import warnings
from typing import TYPE_CHECKING, Any

from flowyml import launch
from flowyml.authoring.builder import NOT_GIVEN, PipelineBuilder
from flowyml.authoring.preparation import Preparation
from flowyml.authoring.validation import (
    as_context,
    checked_cache_store,
    checked_executor,
    checked_journals,
    checked_mode,
)
from flowyml.diagnostics.text import pluralize, unknown_keyword_message
from flowyml.diagnostics.tracebacks import hide_internal_frames, hides_internal_frames, warn_out_of_scope
from flowyml.launch import RunOptions
from flowyml.planning.step_spec import SourceLocation
from flowyml.planning.sub_pipelines import SubPipeline, sub_pipeline
from flowyml.steps.control_flow import ControlFlow
from flowyml.steps.options import given_options
from flowyml.steps.outcomes import PipelineBase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import date
    from os import PathLike
    from typing import Literal, Never, Self, Unpack

    from flowyml.executors.executor import Executor
    from flowyml.graph.dag import DAG
    from flowyml.graph.explain import Explanation
    from flowyml.hooks import Hooks
    from flowyml.launch import RunKeywords
    from flowyml.planning.map_inputs import Lists
    from flowyml.planning.step_spec import StepColumns
    from flowyml.progress import Progress
    from flowyml.results.result import PipelineResult
    from flowyml.steps.context import Context
    from flowyml.steps.control_flow import If, Switch
    from flowyml.steps.declarations import Named, NameHandle, Reads
    from flowyml.steps.options import StepKeywords
    from flowyml.steps.step import Step
    from flowyml.store.cache_store import CacheStore

_PIPELINE_KEYWORDS = (
    *("name", "context", "executor", "validate_types", "auto_discover"),
    *("enable_cache", "cache_dir", "enable_checkpointing", "checkpoint_dir", "durability"),
)
_ADD_STEP_KEYWORDS = ("name", "params", "inputs", "outputs", "after")
_MAP_KEYWORDS = ("items", "over", "combine", *_ADD_STEP_KEYWORDS)
_SUB_PIPELINE_KEYWORDS = ("inputs", "outputs", "name", "input_mapping", "output_mapping", "after")


class Pipeline(PipelineBase):
    """A graph of steps: add them in any order, then run.

    Args:
        name: Name of the pipeline, for messages and results.
        context: Named values that any step may take by parameter name.
        executor: The default executor of its runs; a `LocalExecutor` if none is given here or to `run`.
        validate_types: Compare type hints before anything runs: return types with the parameters that they fill, values
            with parameters. `True` or "error": a mismatch is a `PipelineValidationError`; "warn": one `UserWarning`.
            Off by default.
        auto_discover: If no step is added, take all steps that `@step` has made for this pipeline
            (`@step(pipeline=name)`) or for any, in the order in which they were defined.
        enable_cache: Whether steps with `cache=` are cached; `False` turns caching off for all of them.
        cache_dir: Where cached values are stored: a directory, or a `CacheStore`; ".flowyml/cache" in the working
            directory by default, created when the first value is stored.
        enable_checkpointing: Keep a journal of each run, so that the next `run()` continues one that was killed or has
            failed: finished steps do not run again. Off by default.
        checkpoint_dir: Where journals are stored; ".flowyml/checkpoints" in the working directory by default.
        durability: "batch": a finished step survives the death of the process after 20 ms on worker processes, within
            50 ms in this process, and a power cut 50 ms later. "always": each batch is synced to the disk.

    Raises:
        TypeError: For a wrong argument. Keywords of the 2.2.1 documentation that are out of scope (`stack`, `project`,
            ...) are accepted with one `UserWarning`.
        ImportError: For `validate_types=` if beartype is not installed (the extra `types`).

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

    @hides_internal_frames
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
        warn_out_of_scope("Pipeline()", unknown, _PIPELINE_KEYWORDS)
        preparation: dict[str, Any] = {
            "types": checked_mode(validate_types),
            "cache": checked_cache_store(cache_dir, enabled=enable_cache),
            "journals": checked_journals(enable_checkpointing, checkpoint_dir, durability),
        }
        self._builder = PipelineBuilder(name, discovers=auto_discover)
        self._preparation = Preparation(name, as_context(context), self._builder, **preparation)
        self._hooks: Hooks | None = None
        self.executor = checked_executor(executor)

    @classmethod
    @hides_internal_frames
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
        """Make a pipeline of steps under their own names; the keywords are those of `Pipeline`.

        >>> Pipeline.from_steps(min, max, name="two").name
        'two'
        """
        warn_out_of_scope("from_steps()", unknown, _PIPELINE_KEYWORDS)
        frame = sys._getframe(2)  # noqa: SLF001  1 is the decorator
        options: dict[str, Any] = {"enable_cache": enable_cache, "cache_dir": cache_dir, "durability": durability}
        options |= {"enable_checkpointing": enable_checkpointing, "checkpoint_dir": checkpoint_dir}
        pipeline = cls(name, context, executor, validate_types=validate_types, **options)
        return pipeline._add_all(steps, SourceLocation(frame.f_code, frame.f_lasti))

    @property
    def name(self) -> str:
        """Name of the pipeline, for messages and results."""
        return self._preparation.name

    @name.setter
    def name(self, name: str) -> None:
        self._preparation.name = name

    @property
    def context(self) -> Context:
        """Named values that any step may take by parameter name."""
        return self._preparation.context

    @context.setter
    def context(self, context: Context) -> None:
        self._preparation.context = context

    @property
    def hooks(self) -> Hooks:
        """Functions that are called on events of this pipeline's runs: `@pipeline.hooks.on_step_end`; see `Hooks`."""
        if self._hooks is None:
            from flowyml.hooks import Hooks

            self._hooks = Hooks()
        return self._hooks

    def add_step(
        self,
        step: Step[..., Any] | Callable[..., Any] | If | Switch | SubPipeline,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        inputs: Reads | None = None,
        outputs: str | Sequence[str] | None = None,
        after: Named | Sequence[Named] | None = None,
        **options: Unpack[StepKeywords],
    ) -> Self:
        """Add a step; one function may be added any number of times under different names.

        Args:
            step: A step or anything callable.
            name: Its name in this pipeline; the step's own by default.
            params: Values of parameters by name, which precede every other source. Copied, shallowly.
            inputs: Assets to read, instead of the step's own declaration (see `Step`).
            outputs: Assets to produce, instead of the step's own declaration.
            after: Names of steps that must be finished first, although no data is passed.
            **options: Options of `step` (`retry=`, `timeout=`, ...), which replace the step's own. Keywords of 2.2.1
                that are out of scope get one warning.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: For a wrong argument.
            ValueError: If the name is taken; both places are named.
        """
        try:
            given = given_options("add_step()", options, _ADD_STEP_KEYWORDS) if options else NOT_GIVEN
            frame = sys._getframe(1)  # noqa: SLF001  the line is part of the messages
            builder = self._builder
            if after is None and not given and builder.append_same(step, name, params, inputs, frame, outputs=outputs):
                return self
            place = SourceLocation(frame.f_code, frame.f_lasti)
            declared: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "after": after}
            if isinstance(step, (ControlFlow, SubPipeline)):
                return self._add_part(step, place, name, params=params, **declared, **given)
            builder.add(step, name, params, place, **declared, options=given)
        except BaseException as error:  # the decorator's call costs a fifth of a microsecond
            hide_internal_frames(error)
            raise
        return self

    @hides_internal_frames
    def map(
        self,
        step: Step[..., Any] | Callable[..., Any],
        items: Iterable[Any] | None = None,
        *,
        over: Lists | None = None,
        combine: Literal["zip", "product"] = "zip",
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        inputs: Reads | None = None,
        outputs: str | Sequence[str] | None = None,
        after: Named | Sequence[Named] | None = None,
        **options: Unpack[StepKeywords],
    ) -> Self:
        """Add one step that runs once for each item: a fan-out of any size as one node of the graph.

        Args:
            step: A step or anything callable; each item goes to its first parameter that `params` and named inputs
                leave free.
            items: The items: any iterable, read at once. A list is copied (shallowly), a `range` is kept as it is.
            over: Instead of items, the name of what holds them: an asset whose value is a list that only the run knows,
                a mapped step (item i starts when item i there is finished), a glob, a name of `run(inputs=)`. Or
                several of them, whose values fill one parameter each: the one of that name, else the next free one; or
                a mapping by parameter, in which a list of values may replace a name.
            combine: How several sources are combined: "zip", lists of one length side by side; or "product", all
                combinations in the order of `itertools.product`.
            name: As for `add_step`, like the other arguments.
            params: Values of the other parameters, the same for all items.
            inputs: Assets to read, the same for all items.
            outputs: The name of the one asset: the list of results in item order.
            after: Names of steps that must be finished first.
            **options: Options of `step`, applied to each item, which replace the step's own.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: For a wrong argument.
            ValueError: If the name is taken.

        >>> from flowyml import Pipeline
        >>> list(Pipeline("lengths").map(len, ["a", "bc", ""]).run()["len"])
        [1, 2, 0]
        >>> pipeline = Pipeline("words").add_step(str.split, "words", {"self": "to be or"})
        >>> pipeline = pipeline.map(len, over="words", name="lengths").map(hex, over="lengths", name="hexed")
        >>> list(pipeline.run()["hexed"])
        ['0x2', '0x2', '0x2']
        """
        frame = sys._getframe(2)  # noqa: SLF001  1 is the decorator
        place = SourceLocation(frame.f_code, frame.f_lasti)
        given = given_options("map()", options, _MAP_KEYWORDS)
        declared: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "after": after}
        self._builder.add_map(step, name, params, place, (items, over, combine), **declared, options=given)
        return self

    @hides_internal_frames
    def add_control_flow(self, control: If | Switch) -> Self:
        """Add a decision and its branches: nodes of the graph, after all steps added so far (or its `after=`).

        Args:
            control: An `If` or a `Switch`; see there. `add_step` and `add_steps` take them, too.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: If it is neither.
            ValueError: If it has no branches, or a branch has the name of another step.
        """
        frame = sys._getframe(2)  # noqa: SLF001  1 is the decorator
        if not isinstance(control, ControlFlow):
            raise TypeError(f"add_control_flow() takes an If or a Switch, got {type(control).__name__} {control!r:.60}")
        return self._add_part(control, SourceLocation(frame.f_code, frame.f_lasti))

    @hides_internal_frames
    def add_sub_pipeline(
        self,
        pipeline: Pipeline,
        inputs: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        outputs: str | Sequence[str] | Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        input_mapping: Mapping[str, str] | None = None,
        output_mapping: Mapping[str, str] | None = None,
        after: Named | Sequence[Named] | None = None,
        **unknown: object,
    ) -> Self:
        """Add the steps of another pipeline, as they are now, behind a prefix: step `load` of `etl` is `etl.load`.

        Its steps still read each other's assets by their own names, and its own context precedes the one of this
        pipeline. `run(inputs=)` and `run(context=)` also apply to them.

        Args:
            pipeline: The pipeline; steps that are added to it later are not added here.
            inputs: What it takes from this pipeline: names that are the same on both sides, or a mapping from its own
                name to the asset here (or to a glob, or to several assets, which make a list). By default every name
                that it neither produces nor has in its own context is looked up here.
            outputs: Its assets that can be read here by their own names, or a mapping from its own name to the name
                here. All its assets can be read behind the prefix: `etl.clean`.
            name: The prefix; the pipeline's name by default.
            input_mapping: Like `inputs` as a mapping, in the other direction: from the asset here to its own name.
            output_mapping: Like `outputs` as a mapping.
            after: Steps here that must be finished before its first steps start.
            **unknown: Misspelled keywords are a `TypeError` with the nearest known one.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: For a wrong argument.
            ValueError: If a name is taken, or the pipeline is this one.

        >>> from flowyml import Pipeline
        >>> def clean(raw):
        ...     return sorted(raw)
        >>> etl = Pipeline("etl").add_step(clean)
        >>> whole = Pipeline("whole").add_step(list, name="load", params={"iterable": "hello"})
        >>> whole = whole.add_sub_pipeline(etl, {"raw": "load"}, ["clean"]).add_step("".join, "word", inputs=["clean"])
        >>> whole.run()["word"]
        'ehllo'
        """
        if unknown:
            raise TypeError(unknown_keyword_message("add_sub_pipeline()", unknown, _SUB_PIPELINE_KEYWORDS))
        frame = sys._getframe(2)  # noqa: SLF001  1 is the decorator
        part = sub_pipeline(
            pipeline,
            inputs,
            outputs,
            name=name,
            input_mapping=input_mapping,
            output_mapping=output_mapping,
            after=after,
        )
        return self._add_part(part, SourceLocation(frame.f_code, frame.f_lasti))

    @hides_internal_frames
    def add_steps(
        self, steps: Iterable[Step[..., Any] | Callable[..., Any] | If | Switch | SubPipeline], *more: Never
    ) -> Self:
        """Add several steps under their own names.

        Args:
            steps: Steps or functions.
            *more: Nothing; steps one by one are refused with the way to go.

        Returns:
            The pipeline itself.

        >>> from flowyml import Pipeline
        >>> len(Pipeline("two").add_steps([min, max]))
        2
        """
        frame = sys._getframe(2)  # noqa: SLF001  1 is the decorator
        if more:
            raise TypeError("add_steps() takes several steps, in one list: add_steps([load, clean, ...])")
        return self._add_all(steps, SourceLocation(frame.f_code, frame.f_lasti))

    @property
    def steps(self) -> list[Step[..., Any]]:
        """The steps in add order; a step that was added twice is listed twice."""
        return [spec.step for spec in self._builder.table.specs]

    @hides_internal_frames
    def __getitem__(self, name: str) -> NameHandle:
        """Return the name of a step or asset that was added, checked; it can be used wherever a step names one.

        Raises:
            KeyError: If there is neither, with near matches.
        """
        return self._builder.table.handle(name)

    def __contains__(self, name: object) -> bool:
        """Return True if a step or asset of that name was added."""
        return isinstance(name, str) and self._builder.table.find(name) is not None

    __iter__ = None  # it has names, but is no collection of them

    def __len__(self) -> int:
        """Return the number of steps; a mapped step is one."""
        return len(self._builder.table.specs)

    @hides_internal_frames
    def build(self, inputs: Mapping[str, Any] | None = None, context: Mapping[str, Any] | None = None) -> None:
        """Check the pipeline's structure without running it.

        Args:
            inputs: Values that `run(inputs=)` will get, where steps declare them as inputs.
            context: Values that `run(context=)` will get.

        Raises:
            PipelineValidationError: With everything that is wrong. Missing parameters are left to `run()`, which knows
                all values; if something else is wrong they are listed with it.
        """
        self._preparation.build(inputs, context)

    @property
    def dag(self) -> DAG:
        """The graph as an object: views, queries and pictures; also of a pipeline that is not valid.

        It shows the steps that have been added so far. Inputs that no step produces count as inputs of the run.
        """
        return self._preparation.dag()

    @hides_internal_frames
    def visualize(self, format: Literal["text", "mermaid", "dot", "svg"] = "text") -> str:  # noqa: A002
        """Return the graph as text; see `DAG.visualize`.

        Args:
            format: "text" for people, "mermaid" for Markdown, "dot" for graphviz, "svg" for browsers.

        Raises:
            ValueError: For another format.

        >>> from flowyml import Pipeline
        >>> print(Pipeline("p").map(len, ["a", "b"], name="sizes").add_step(sum, inputs=["sizes"]).visualize())
        Pipeline DAG: p
        <BLANKLINE>
        Step Execution Order:
          1. sizes (2 items of len)
          2. sum (depends on: sizes)
        """
        return self.dag.visualize(format)

    @hides_internal_frames
    def explain(self, name: str, *, cache: bool = False) -> Explanation:
        """Explain where each argument of a step would come from, its dependencies and its dependents.

        The pipeline need not be valid. Values of `run(inputs=)` and `run(context=)` are not known yet, so parameters
        that only they can fill are reported as missing. For a cached step the explanation says whether its value is
        stored and, if not, what has changed; the same for results of an unfinished run that would be continued.

        Args:
            name: A step, or an asset, which stands for its step.
            cache: Also list what the key of its cached value covers and what it does not, for a step without `cache=`,
                too.

        Raises:
            KeyError: If there is neither, with near matches.

        >>> from flowyml import Pipeline
        >>> pipeline = Pipeline("p").add_step(dict, name="raw").add_step(lambda raw, n=3: raw, name="clean")
        >>> for argument in pipeline.explain("clean").arguments:
        ...     print(f"{argument.parameter}: {argument.source}")
        raw: output of step 'raw' (implicit: it has the parameter's name)
        n: default 3
        """
        return self._preparation.explain(name, cache=cache)

    def to_definition(self) -> dict[str, Any]:
        """Return a description of the graph that JSON can hold: steps, functions with their source, options, edges.

        Values (params, context, items) are not in it.

        >>> from flowyml import Pipeline
        >>> Pipeline("p").add_step(len, name="size", inputs=["rows"]).to_definition()["dag"]["nodes"]
        [{'name': 'size', 'inputs': ['rows'], 'outputs': ['size']}]
        """
        from flowyml.authoring.definition import definition_of

        return definition_of(self.dag)

    def cache_stats(self) -> dict[str, Any]:
        """Return what is stored, and how often values were found in runs of this pipeline; see `CacheStore.stats`."""
        cache = self._preparation.cache
        return {} if cache is None else cache.stats()

    @hides_internal_frames
    def invalidate_cache(self, step: str | None = None, before: str | date | None = None) -> int:
        """Remove cached values of this pipeline's steps; the next run calls them again.

        Args:
            step: Of this step only.
            before: What was stored before a day or time only: a `date`, a `datetime`, or as ISO text.

        Returns:
            How many values were removed.

        Raises:
            KeyError: If there is no step of that name, with near matches.
        """
        return self._preparation.invalidate_cache(step, before)

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
                step is in the state `given` and has no dependencies; its dependents get the value. The steps that it
                depends on still run, unless `targets` leave them out.
            context: Context values for this run only; they precede the pipeline's own.
            executor: The executor of this run, instead of the pipeline's.
            fail_fast: Start nothing new after the first failure; steps that have not started are cancelled.
            raise_on_failure: Raise a `StepError` when the run has ended and a step failed.
            keep: "all" values stay readable; "leaves": the values that other steps read are released after their last
                reader; or the names of those to keep in addition to the leaves.
            run_id: Name of the run; a random one by default.
            resume: With `enable_checkpointing`: which unfinished run to continue. By default the last one of this
                pipeline, if it has finished a part of this run; "last": that one in any case; the id of a run; `False`:
                none, this is a new run.
            seed: Makes `random`, numpy's global generator and `get_context().rng` reproducible: each step, and each
                item of a mapped step, begins with states that follow from this number and its name. On threads, steps
                that run at the same time share the global generators: there only `get_context().rng` is reproducible.
            targets: Run only these and the steps that they need: steps, sub-pipelines or assets by name, globs,
                "tag:nightly" or "tag:team=ml". The result has no other steps, and these need not be valid.
            progress: Show the progress on stderr: a bar in a notebook and on a terminal (by rich if it is installed), a
                line at intervals elsewhere. Or a function that is called with a `Progress` a few times a second, in
                another thread. Off by default.
            debug: Log the source of each step's arguments before anything runs, one line a step, on the logger
                `flowyml`. If steps share their arguments (not on worker processes), also name those that change them.
            dry_run: Check everything and print what would run, what is cached and what an unfinished run has finished
                already, and run nothing: all steps of the result are waiting, its state is "dry_run".
            **unknown: Keywords of 2.2.1 that are out of scope get one warning, all others an error with the nearest
                known one.

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
        options = RunOptions(
            inputs=inputs,
            given=given,
            context=context,
            executor=executor,
            fail_fast=fail_fast,
            raise_on_failure=raise_on_failure,
            keep=keep,
            run_id=run_id,
            resume=resume,
            seed=seed,
            targets=targets,
            progress=progress,
            debug=debug,
            dry_run=dry_run,
        )
        return launch.run(self, options, unknown)

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
            given: See `run`.
            context: See `run`.
            executor: See `run`.
            targets: See `run`.

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
        """Continue an unfinished run, as `run(resume=run_id)` does, with its seed.

        Args:
            run_id: The run.
            from_step: This step or sub-pipeline runs again, with all its dependents, even those that have finished.
            inputs: As for `run`, like the other arguments.
            given: Values of steps that do not run.
            context: Context values for this run only.
            executor: Where it runs.
            raise_on_failure: Raise a `StepError` when the run has ended and a step failed.

        Raises:
            ValueError: If there is no such step, or no such run that is unfinished, or the pipeline keeps no journal.
        """
        options = RunOptions(inputs, given, context, executor, raise_on_failure=raise_on_failure)
        return launch.rerun(self, options._replace(resume=run_id, from_step=from_step))

    @hides_internal_frames
    async def run_async(
        self,
        inputs: Mapping[str, Any] | None = None,
        **options: Unpack[RunKeywords],
    ) -> PipelineResult:
        """Run all steps in a helper thread while the event loop continues: in a notebook, in a web server.

        Cancelling the task that awaits it cancels the run, as Ctrl-C does: nothing new starts and worker processes are
        killed; a step in this process is abandoned after a second, since a thread cannot be stopped.

        Args:
            inputs: As for `run`.
            **options: The other arguments of `run`.

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
        return await launch.run_async(self, inputs, options)

    def _add_part(self, part: ControlFlow | SubPipeline, place: SourceLocation, name: Any = None, **given: Any) -> Self:
        """Add a decision or a sub-pipeline; warn of what the sub-pipeline has that only its own runs use."""
        inner: Any = part.pipeline if isinstance(part, SubPipeline) else None
        if inner is self:
            raise ValueError(f"pipeline {self.name!r} cannot be a sub-pipeline of itself")
        self._builder.add_part(part, place, name, **given)
        unused = _only_of_its_own_runs(inner, self) if isinstance(inner, Pipeline) else []
        if unused:
            only = f"{', '.join(unused)} of pipeline {inner.name!r} count only where it is run itself"
            message = f"{only}; where it is part of pipeline {self.name!r} give them to that"
            warnings.warn_explicit(message, UserWarning, place.code.co_filename, place.line)
        return self

    def _add_all(self, steps: Iterable[Any], place: SourceLocation) -> Self:
        if callable(steps) or not hasattr(steps, "__iter__"):
            raise TypeError(f"add_steps() takes several steps, in a list; got {steps!r:.60}")
        for step in steps:
            if isinstance(step, (ControlFlow, SubPipeline)):
                self._add_part(step, place)
            else:
                self._builder.add(step, None, None, place)
        return self

    @property
    def _types(self) -> Literal["warn", "error"] | None:
        return self._preparation.types

    def _inner_columns(self) -> StepColumns:
        """Return the steps for a pipeline that contains this one; see `HasColumns`."""
        return self._preparation.inner_columns()

    def __copy__(self) -> Self:
        """Return a pipeline with the same steps, options and hooks; what is added to one is not in the other."""
        other = object.__new__(type(self))
        preparation = self._preparation.copy()
        vars(other).update(vars(self), _preparation=preparation, _builder=preparation.builder)
        other._hooks = copy.copy(self._hooks)
        return other

    def __deepcopy__(self, _: object) -> Self:
        """Return the same as `copy.copy`: steps do not change."""
        return self.__copy__()

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Return a drawing of the graph for a notebook."""
        return self.dag._repr_mimebundle_()

    def __repr__(self) -> str:
        """Return name and size."""
        return f"<Pipeline {self.name!r} of {pluralize(len(self), 'step')}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name alone: a global of a script travels with its functions, its steps do not."""
        return _named_only, (self.name,)


def _named_only(name: str) -> Pipeline:
    """Return an unpickled pipeline, which must not look like one without steps."""
    pipeline = Pipeline(name)
    pipeline._builder.has_steps = False  # noqa: SLF001  of this class
    return pipeline


def _only_of_its_own_runs(inner: Pipeline, outer: Pipeline) -> list[str]:
    """Return the options of a pipeline that have no effect as part of another one."""
    own, other = inner._preparation, outer._preparation  # noqa: SLF001  of this class
    stores = [None if each.cache is None else each.cache.cache_dir for each in (own, other)]
    is_cached = None not in stores and any(spec.options.caching for spec in set(own.builder.table.specs))
    has_effect = {
        "hooks": inner.hooks.any,
        "enable_checkpointing": own.journals.kept and not other.journals.kept,
        "cache_dir": is_cached and stores[0] != stores[1],
    }
    return [name for name, is_set in has_effect.items() if is_set]
