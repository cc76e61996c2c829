"""Pipeline: where steps are added and a run begins.

A pipeline keeps what it was told in columns (`_added.py`): a name, a `Form` (shared by all steps that were added in the
same way) and a tuple of parameter values for each step. Wiring and validation are the plan's, running is the run's and
the executor's.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowyml._added import NO_VALUES, NOTHING, Added, check_mapped
from flowyml._arguments import (
    absolute,
    as_context,
    checked_cache_store,
    checked_durability,
    checked_executor,
    checked_flag,
    checked_folder,
    checked_mode,
    checked_params,
    checked_resume,
    checked_seed,
    checked_values,
    shape_of,
    warn_out_of_scope,
)
from flowyml._frames import hide_own_frames, leaves_no_frames, own_frames_hidden
from flowyml._loading import refuse_if_loading
from flowyml._pipelines import AnyPipeline
from flowyml._words import counted, nearest, unknown_keywords
from flowyml.control import Branching
from flowyml.declarations import checked_text
from flowyml.errors import FlowymlError
from flowyml.execution import execute
from flowyml.executors.local import LocalExecutor
from flowyml.forms import Place
from flowyml.hooks import Hooks
from flowyml.options import OPTION_NAMES
from flowyml.over import checked_over
from flowyml.plan import Plan
from flowyml.run import Run
from flowyml.scope import Scope
from flowyml.step_context import CHECKPOINTS
from flowyml.sub_pipelines import SubPipeline, sub_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import date, timedelta
    from os import PathLike
    from typing import Literal

    from flowyml.breakers import CircuitBreaker
    from flowyml.contexts import Context
    from flowyml.control import If, Switch
    from flowyml.dag import DAG
    from flowyml.declarations import Named, Reads
    from flowyml.definition import StepGroup
    from flowyml.executors.contract import Executor
    from flowyml.explain import Explanation
    from flowyml.forms import Columns
    from flowyml.handles import Handle
    from flowyml.over import Lists
    from flowyml.resources import Resources
    from flowyml.result import PipelineResult
    from flowyml.retries import RetryConfig
    from flowyml.steps import Step
    from flowyml.store.cache import CacheStore
    from flowyml.tags import Tags

_STEP_KEYWORDS = ("name", "params", "inputs", "outputs", "after", *OPTION_NAMES)
_SUB_PIPELINE_KEYWORDS = ("inputs", "outputs", "name", "input_mapping", "output_mapping", "after")
_PIPELINE_KEYWORDS = (
    *("name", "context", "executor", "validate_types", "auto_discover"),
    *("enable_cache", "cache_dir", "enable_checkpointing", "checkpoint_dir", "durability"),
)
_RUN_KEYWORDS = (
    *("inputs", "context", "executor", "fail_fast", "raise_on_failure", "keep"),
    *("run_id", "resume", "seed", "targets", "debug", "dry_run"),
)


class Pipeline(AnyPipeline):
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
        durability: "batch": what is finished survives the process at once, and a power cut after 50 ms. "always": each
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
        super().__init__()
        warn_out_of_scope("Pipeline()", unknown, _PIPELINE_KEYWORDS)
        self.name: str = checked_text("a pipeline's name", name)
        self.context: Context = as_context(context)
        self.executor: Executor | None = checked_executor(executor)
        self._types = checked_mode(validate_types)
        self._discovers = auto_discover
        self._cache = checked_cache_store(cache_dir, enabled=enable_cache)
        self._keeps_journal = checked_flag("enable_checkpointing", enable_checkpointing)
        self._checkpoint_dir = checked_folder("checkpoint_dir", checkpoint_dir, CHECKPOINTS)
        self._durable = checked_durability(durability)
        self._added = Added(self.name)
        self._warned: set[str] = set()
        self._hooks: Hooks | None = None
        self._named_only = False
        self._seen: tuple[int, DAG] | None = None

    # -- authoring

    @property
    def hooks(self) -> Hooks:
        """Functions that are told how runs of this pipeline go: `@pipeline.hooks.on_step_end`; see `Hooks`."""
        if self._hooks is None:
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
        retry: int | RetryConfig | None = None,
        condition: Callable[..., Any] | None = None,
        skip_if: Callable[..., Any] | None = None,
        run_if: Literal["all", "any"] | None = None,
        timeout: float | timedelta | None = None,
        fallback: Callable[..., Any] | None = None,
        fallback_on: Iterable[type[BaseException]] | type[BaseException] | None = None,
        on_failure: Callable[..., Any] | None = None,
        circuit_breaker: CircuitBreaker | None = None,
        tags: Tags | None = None,
        cache: bool | str | Callable[..., str] | None = None,
        cache_ttl: float | timedelta | None = None,
        resources: Resources | None = None,
        **unknown: object,
    ) -> Pipeline:
        """Add a step; one function may be added any number of times under different names.

        Args:
            step: A step or anything callable.
            name: Its name in this pipeline; the step's own by default.
            params: Values of parameters by name; they go before every other source. Copied, shallowly.
            inputs: Assets to read, instead of the step's own declaration (see `Step`).
            outputs: Assets to produce, instead of the step's own declaration.
            after: Names of steps that must be finished first, without data.
            retry: Further attempts after a failure, instead of the step's own (see `Step`).
            condition: What must hold for it to run, instead of the step's own.
            skip_if: What must not hold for it to run, instead of the step's own.
            run_if: Which of its dependencies it needs, instead of the step's own.
            timeout: How many seconds it may take, instead of the step's own (see `Step`).
            fallback: What stands in for it when it has failed for good, instead of the step's own.
            fallback_on: For which exceptions, instead of the step's own.
            on_failure: What is told of its failure, instead of the step's own.
            circuit_breaker: What refuses it while it keeps failing, instead of the step's own.
            tags: Words that it can be chosen by, instead of the step's own.
            cache: Whether its value is stored, and what its key is made of, instead of the step's own (see `Step`).
            cache_ttl: How many seconds a stored value may be used, instead of the step's own.
            resources: What it takes of an executor's resources, instead of the step's own.
            **unknown: Nothing else is known; a misspelled keyword gets an error with the nearest one.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: For a wrong argument.
            ValueError: If the name is taken; both places are named.
        """
        try:
            if unknown:
                raise TypeError(unknown_keywords("add_step()", unknown, _STEP_KEYWORDS))  # noqa: TRY301  no frame of it
            frame = sys._getframe(1)  # noqa: SLF001  the place is part of the messages
            keys = row = reads = shape = NOTHING
            if params is not None:
                params = params if type(params) is dict else checked_params(params, step)
                keys, row = tuple(params), tuple(params.values())
            behind = timeout, fallback, fallback_on, on_failure, circuit_breaker, tags, cache, cache_ttl, resources
            options = retry, condition, skip_if, run_if, *behind
            alike = outputs is None and after is None and options == NO_VALUES
            if inputs is not None:
                shaped = shape_of(inputs, self._added.known_step(step)) if alike else None
                shape, reads = shaped or (NOTHING, NOTHING)
                alike = shaped is not None
            key = (id(step), keys, id(frame.f_code), frame.f_lasti, shape)
            form = self._added.alike.get(key) if alike else None
            if form is None and isinstance(step, (Branching, SubPipeline)):
                given = {"params": params, "inputs": inputs, "outputs": outputs, "after": after}
                return self._add_part(step, Place(frame.f_code, frame.f_lasti), name, given, options)
            if form is None:
                place = Place(frame.f_code, frame.f_lasti)
                form = self._added.form(
                    step, params, place, inputs=inputs, outputs=outputs, after=after, options=options
                )
                if form.over is not None:
                    row, reads = tuple([params[key] for key in form.keys] if params else ()), NOTHING
                elif alike:
                    self._added.alike[key] = form
            self._added.append(form, name, row, reads)
        except BaseException as error:  # `with own_frames_hidden` costs a little where nothing is raised
            hide_own_frames(error)
            raise
        return self

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
        retry: int | RetryConfig | None = None,
        condition: Callable[..., Any] | None = None,
        skip_if: Callable[..., Any] | None = None,
        run_if: Literal["all", "any"] | None = None,
        timeout: float | timedelta | None = None,
        fallback: Callable[..., Any] | None = None,
        fallback_on: Iterable[type[BaseException]] | type[BaseException] | None = None,
        on_failure: Callable[..., Any] | None = None,
        circuit_breaker: CircuitBreaker | None = None,
        tags: Tags | None = None,
        cache: bool | str | Callable[..., str] | None = None,
        cache_ttl: float | timedelta | None = None,
        resources: Resources | None = None,
        **unknown: object,
    ) -> Pipeline:
        """Add one step that runs once for each item: a fan-out of any size as one node of the graph.

        Args:
            step: A step or anything callable; each item goes to its first parameter that `params` and named inputs
                leave free.
            items: The items: any iterable, read at once. A list is copied (shallowly), a `range` is kept as it is.
            over: Instead of items the name of what holds them: an asset whose value is a list that only the run
                knows, a mapped step (item i starts when item i there is finished), a glob, a name of `run(inputs=)`.
                Or several of them, whose values go to one parameter each: the one of that name, else the next one that
                is free; or by parameter, where a list of values may stand in place of a name.
            combine: What an item is where there are several: "zip", the values side by side, of lists of one length;
                or "product", all combinations in the order of `itertools.product`.
            name: As for `add_step`, like the other arguments.
            params: Values of the other parameters, the same for all items.
            inputs: Assets to read, the same for all items.
            outputs: The name of the one asset: the list of results in item order.
            after: Names of steps that must be finished first.
            retry: Further attempts for an item that failed.
            condition: What must hold for an item to run.
            skip_if: What must not hold for an item to run.
            run_if: Which of its dependencies an item needs.
            timeout: How many seconds an item may take.
            fallback: What stands in for an item that has failed for good.
            fallback_on: For which exceptions.
            on_failure: What is told of the failure of an item.
            circuit_breaker: What refuses items while they keep failing.
            tags: Words that the step can be chosen by.
            cache: Whether the value of each item is stored, and what its key is made of.
            cache_ttl: How many seconds a stored value may be used.
            resources: What an item takes of an executor's resources.
            **unknown: Nothing else is known.

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
        with own_frames_hidden:
            if unknown:
                raise TypeError(unknown_keywords("map()", unknown, ("items", "over", "combine", *_STEP_KEYWORDS)))
            frame = sys._getframe(1)  # noqa: SLF001
            place = Place(frame.f_code, frame.f_lasti)
            behind = timeout, fallback, fallback_on, on_failure, circuit_breaker, tags, cache, cache_ttl, resources
            options = retry, condition, skip_if, run_if, *behind
            given: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "after": after, "options": options}
            form = self._added.form(step, params, place, **given, mapped=True)
            check_mapped(form)
            form.over = checked_over(items, over, combine, form.step.name)._replace(terms=form.step.terms)
            self._added.append(form, name, tuple((params or {}).values()))
        return self

    def add_control_flow(self, control: If | Switch) -> Pipeline:
        """Add a decision and its branches: nodes of the graph, after all steps added so far (or its `after=`).

        Args:
            control: An `If` or a `Switch`; see there. `add_step` and `add_steps` take them, too.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: If it is neither.
            ValueError: If it has no branches, or a branch has the name of another step.
        """
        with own_frames_hidden:
            frame = sys._getframe(1)  # noqa: SLF001
            if not isinstance(control, Branching):
                raise TypeError(
                    f"add_control_flow() takes an If or a Switch, got {type(control).__name__} {control!r:.60}"
                )
            return self._add_part(control, Place(frame.f_code, frame.f_lasti))

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
    ) -> Pipeline:
        """Add the steps of another pipeline, as they are now, behind a prefix: step `load` of `etl` is `etl.load`.

        Inside, nothing changes: its steps read each other's assets by their own names, and take values from its own
        context before the one of this pipeline. `run(inputs=)` and `run(context=)` reach them as they reach others.

        Args:
            pipeline: The pipeline. What is added to it later does not show here.
            inputs: What it takes from this pipeline: names that are the same on both sides, or by its own name the
                asset here (or a glob, or a list of assets, which give a list). By default whatever it neither produces
                nor has in its own context is looked for here by the same name.
            outputs: Those of its assets that are to be had here by their own names, or by its own name the name here.
                All its assets are to be had behind the prefix: `etl.clean`.
            name: The prefix; the pipeline's name by default.
            input_mapping: Like `inputs` as a mapping, the other way round: by the asset here, its own name.
            output_mapping: Like `outputs` as a mapping.
            after: Steps here that must be finished before its first steps start.
            **unknown: Nothing else is known.

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
        with own_frames_hidden:
            if unknown:
                raise TypeError(unknown_keywords("add_sub_pipeline()", unknown, _SUB_PIPELINE_KEYWORDS))
            frame = sys._getframe(1)  # noqa: SLF001
            part = sub_pipeline(
                pipeline,
                inputs,
                outputs,
                name=name,
                input_mapping=input_mapping,
                output_mapping=output_mapping,
                after=after,
            )
            return self._add_part(part, Place(frame.f_code, frame.f_lasti))

    def add_steps(self, steps: Iterable[Step[..., Any] | Callable[..., Any] | If | Switch | SubPipeline]) -> Pipeline:
        """Add several steps under their own names.

        Args:
            steps: Steps or functions.

        Returns:
            The pipeline itself.

        >>> len(Pipeline("two").add_steps([min, max]))
        2
        """
        with own_frames_hidden:
            frame = sys._getframe(1)  # noqa: SLF001
            return self._add_all(steps, Place(frame.f_code, frame.f_lasti))

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

    # -- the graph

    @property
    def dag(self) -> DAG:
        """The graph as an object: views, queries and pictures; also of a pipeline that is not valid.

        It shows the steps that have been added so far. Inputs that no step produces count as inputs of the run.
        """
        if self._seen is None or self._seen[0] != len(self):
            from flowyml.dag import DAG

            scope = Scope({}, self.context, complete=False)
            self._seen = len(self), DAG(self._planned(scope, strict=False), scope)
        return self._seen[1]

    @leaves_no_frames
    def visualize(self, format: Literal["text", "mermaid", "dot", "svg"] = "text") -> str:  # noqa: A002
        """Return the graph as text; see `DAG.visualize`.

        Args:
            format: "text" for people, "mermaid" for Markdown, "dot" for graphviz, "svg" for browsers.

        Raises:
            ValueError: For another format.

        >>> print(Pipeline("p").map(len, ["a", "b"], name="sizes").add_step(sum, inputs=["sizes"]).visualize())
        Pipeline DAG: p
        <BLANKLINE>
        Step Execution Order:
          1. sizes (2 items of len)
          2. sum (depends on: sizes)
        """
        return self.dag.visualize(format)

    @leaves_no_frames
    def explain(self, name: str) -> Explanation:
        """Say where each argument of a step would come from, what it waits for and what waits for it.

        Also of a pipeline that is not valid. Values of `run(inputs=)` and `run(context=)` are not known yet; what only
        they can give is said to be missing. Of a step that is to be cached it says whether its value is there, and what
        has changed if it is not.

        Args:
            name: A step, or an asset, which stands for its step.

        Raises:
            KeyError: If there is neither, with near matches.

        >>> pipeline = Pipeline("p").add_step(dict, name="raw").add_step(lambda raw, n=3: raw, name="clean")
        >>> for argument in pipeline.explain("clean").arguments:
        ...     print(f"{argument.parameter}: {argument.source}")
        raw: output of step 'raw' (implicit: it has the parameter's name)
        n: default 3
        """
        explanation = self.dag.explain(name)
        scope = self._scope({}, {}, complete=False)
        plan = self._planned(scope, strict=False)
        if self._cache is None or not plan.has_caching or plan.problems.sentences:
            return explanation
        from flowyml.foresight import Foresight

        node = plan.numbers[explanation.step_name]
        return replace(explanation, cache=Foresight(plan, self._cache, scope).of(node))

    def to_definition(self) -> dict[str, Any]:
        """Return a description of the graph that JSON can hold: steps, functions with their source, options, edges.

        Values (params, context, items) are not in it.

        >>> Pipeline("p").add_step(len, name="size", inputs=["rows"]).to_definition()["dag"]["nodes"]
        [{'name': 'size', 'inputs': ['rows'], 'outputs': ['size']}]
        """
        from flowyml.definition import definition_of

        return definition_of(self.dag)

    @property
    def step_groups(self) -> list[StepGroup]:
        """The steps by `@step(execution_group=)`, in the order in which they run; steps without are in none."""
        from flowyml.definition import groups_of

        return groups_of(self.dag)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Show a notebook the picture of the graph."""
        return self.dag._repr_mimebundle_()

    @property
    def steps(self) -> list[Step[..., Any]]:
        """The steps in add order; a step that was added twice stands there twice."""
        return [form.step for form in self._added.forms]

    @leaves_no_frames
    def __getitem__(self, name: str) -> Handle:
        """Return the name of a step or asset that was added, checked; it stands wherever a step names one.

        Raises:
            KeyError: If there is neither, with near matches.
        """
        return self._added.handle(name)

    def __contains__(self, name: object) -> bool:
        """Tell whether a step or asset of that name was added."""
        return isinstance(name, str) and self._added.find(name) is not None

    __iter__ = None  # it has names, but is no collection of them

    def __len__(self) -> int:
        """Return the number of steps; a mapped step is one."""
        return len(self._added.forms)

    def __repr__(self) -> str:
        """Show name and size."""
        return f"<Pipeline {self.name!r} of {counted(len(self), 'step')}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name alone: a global of a script travels with its functions, its steps do not."""
        return _named_only, (self.name,)

    # -- building and running

    def build(self, inputs: Mapping[str, Any] | None = None, context: Mapping[str, Any] | None = None) -> None:
        """Check the pipeline's structure without running it.

        Args:
            inputs: Values that `run(inputs=)` will get, where steps declare them as inputs.
            context: Values that `run(context=)` will get.

        Raises:
            PipelineValidationError: With everything that is wrong. Missing parameters are left to `run()`, which knows
                all values.
        """
        with own_frames_hidden:
            values, overlay = checked_values("build(inputs=)", inputs), checked_values("build(context=)", context)
            self._planned(self._scope(values, overlay, complete=False), stacklevel=4)

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
            debug: Log where the arguments of each step come from, before anything runs: one line a step, on the logger
                `flowyml`.
            dry_run: Check everything and print what would run and what is cached, and run nothing: all steps of the
                result are waiting, its state is "dry_run".
            **unknown: Nothing else is known; keywords of 2.2.1 that are out of scope get one warning.

        Returns:
            The result: each step with its state, value or error.

        Raises:
            PipelineValidationError: If the pipeline is not valid; nothing has run.
            SerializationError: If a function of a step does not pickle, with process workers; nothing has run.
            StepError: With `raise_on_failure`.
            RunInterrupted: After Ctrl-C, with the partial result.
        """
        with own_frames_hidden:
            warn_out_of_scope("run()", unknown, _RUN_KEYWORDS)
            executor = checked_executor(executor) or self.executor or LocalExecutor()
            options: dict[str, Any] = {"keep": keep, "fail_fast": fail_fast, "seed": seed}
            options |= {"run_id": run_id, "resume": resume}
            run, scope = self._prepared(
                inputs, context, executor, targets=targets, debug=debug, only_look=dry_run, **options
            )
            if dry_run:
                from flowyml.dag import rehearsal

                cached = self._foreseen(run.plan, scope, run.seed)
                print(rehearsal(run.plan, scope, type(executor).__name__, cached))  # noqa: T201  it is what was asked for
                return run.rehearsed()
            result = execute(run, executor)
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
        with own_frames_hidden:
            from flowyml._awaitable import in_thread

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
            result = await in_thread(lambda: execute(run, executor), run.interrupts.request)
            if raise_on_failure:
                result.raise_for_failure()
            return result

    def _prepared(
        self,
        inputs: Any,
        context: Any,
        executor: Executor,
        *,
        run_id: Any,
        resume: Any,
        seed: Any,
        targets: Any,
        debug: bool,
        only_look: bool = False,
        **options: Any,
    ) -> tuple[Run, Scope]:
        """Check the arguments of a run and make it; called by what the user calls."""
        refuse_if_loading()
        run_id = None if run_id is None else checked_text("run_id", run_id)
        resume = checked_resume(resume, run_id, enabled=self._keeps_journal)
        values, overlay = checked_values("run(inputs=)", inputs), checked_values("run(context=)", context)
        scope = self._scope(values, overlay, complete=True)
        plan = self._planned(scope, targets=targets)
        if targets is None:
            self._warn_unused(plan, values, overlay)
        if debug:
            from flowyml.explain import log_sources

            log_sources(plan, scope)
        options |= {"order": executor.order, "capacity": executor.capacity}
        run = Run(plan, run_id=run_id, seed=checked_seed(seed), **options)
        run.checkpoint_dir = absolute(self._checkpoint_dir)
        if not only_look and (self._keeps_journal or (self._cache is not None and plan.has_caching)):
            self._remember(run, scope, executor, run_id, resume)
        run.listen(self, self.hooks)
        return run, scope

    def _remember(self, run: Run, scope: Scope, executor: Executor, run_id: str | None, resume: Any) -> None:
        """Let a run ask the cache and the journal of an earlier attempt, and tell them what has run."""
        from flowyml.memories import attach

        if executor.keeps_encoded:
            run.keep_encoded()
        attempts = None
        if self._keeps_journal:
            from flowyml.attempts import Attempts

            attempts = Attempts(self._checkpoint_dir, self.name, always=self._durable)
        attach(run, self._cache, scope.context, attempts, run_id=run_id, resume=resume)

    def _foreseen(self, plan: Plan, scope: Scope, seed: int | None) -> str | None:
        """Say what a run would take from the cache."""
        if self._cache is None or not plan.has_caching:
            return None
        from flowyml.foresight import Foresight

        return Foresight(plan, self._cache, scope, seed).told()

    # -- cached values

    def cache_stats(self) -> dict[str, Any]:
        """Return what is stored, and how often values were found in runs of this pipeline; see `CacheStore.stats`."""
        return {} if self._cache is None else self._cache.stats()

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
        if self._cache is None:
            return 0
        names = self._added.numbers
        if step is not None and step not in names:
            raise KeyError(f"pipeline {self.name!r} has no step {step!r}{nearest(step, names)}")
        return self._cache.invalidate_steps(names if step is None else [step], before=before)

    def run_quietly(self, executor: Executor, *, fail_fast: bool) -> PipelineResult:
        """Run without inputs, and leave it to the caller to tell what failed."""
        refuse_if_loading()
        plan = self._planned(self._scope({}, {}, complete=True), stacklevel=4)
        run = Run(plan, order=executor.order, capacity=executor.capacity, fail_fast=fail_fast)
        return execute(run, executor, quiet=True)

    def _scope(self, inputs: Mapping[str, Any], context: Mapping[str, Any], *, complete: bool) -> Scope:
        return Scope(inputs, self.context.inherit(**context), complete, context.keys())

    def _planned(self, scope: Scope, *, targets: Any = None, strict: bool = True, stacklevel: int = 5) -> Plan:
        columns = self._columns()
        if targets is not None:
            from flowyml.targets import narrowed

            columns = narrowed(Plan(self.name, columns, scope, strict=False), targets, scope)
        if self._types is None:
            return Plan(self.name, columns, scope, strict=strict)
        from flowyml.type_checks import checked_plan

        return checked_plan(self.name, columns, scope, self._types, strict=strict, stacklevel=stacklevel)

    def _columns(self) -> Columns:
        if self._named_only:
            raise FlowymlError(
                f"pipeline {self.name!r} came to a worker by its name alone, without its steps; "
                "build it inside the step that runs it"
            )
        if self._discovers and not len(self):
            self._added.discover()
        return self._added.lend()

    def _warn_unused(self, plan: Plan, inputs: Mapping[str, Any], overlay: Mapping[str, Any]) -> None:
        """Warn of names that no step takes: of all given for this run, of pipelines' where they are misspelled."""
        given = {**dict.fromkeys(overlay, "run(context=)"), **dict.fromkeys(inputs, "run(inputs=)")}
        inner = {name: each for each in plan.namespaces for name in each.context}
        known = {**inner, **self.context, **given}
        unused = [name for name in known if name not in plan.used and name not in self._warned]
        if not unused or plan.is_dynamic:  # steps that come during the run may take them
            return
        forms = set(self._added.forms)
        if any("context" in form.parameters for form in forms):
            unused = [name for name in unused if name in inputs]
        parameters = {name for form in forms for name in form.parameters}
        for name in unused:
            near = "" if name in parameters else nearest(name, parameters - plan.used)
            if near or name in given:
                self._warned.add(name)
                where = f"step of pipeline {self.name!r}"
                reason = f"is used by no {where}{near}"
                if name in parameters or plan.assets.find(name) is not None:
                    reason = f"reaches no {where}: params, inputs and outputs of steps come first"
                source = given.get(name, "Pipeline(context=)")
                if name not in given and name not in self.context:
                    source = f"the context of sub-pipeline {inner[name].name!r}"
                message = f"{name!r} of {source} {reason}"
                warnings.warn(message, UserWarning, stacklevel=4)

    # -- adding

    def _add_part(self, part: Branching | SubPipeline, place: Place, *rest: Any) -> Pipeline:
        if isinstance(part, SubPipeline) and part.pipeline is self:
            raise ValueError(f"pipeline {self.name!r} cannot be a sub-pipeline of itself")
        self._seen = None  # a pipeline without steps does not change the number of steps
        self._added.part(part, place, *rest)
        return self

    def _add_all(self, steps: Iterable[Any], place: Place) -> Pipeline:
        if callable(steps) or not hasattr(steps, "__iter__"):
            raise TypeError(f"add_steps() takes several steps, in a list; got {steps!r:.60}")
        for step in steps:
            if isinstance(step, (Branching, SubPipeline)):
                self._add_part(step, place)
            else:
                self._added.append(self._added.form(step, None, place), None, NOTHING)
        return self


def _named_only(name: str) -> Pipeline:
    """Return what arrives of a pipeline that was pickled: it must not look like one without steps."""
    pipeline = Pipeline(name)
    pipeline._named_only = True  # noqa: SLF001  of this class
    return pipeline
