"""Planning: from what was added to a plan, which is looked at, and from a plan to a run that is ready.

```
columns ──▶ Plan ──▶ DAG: views, pictures, explanations
              └──▶ Run, with the cache and the journal that it asks
```

Nothing runs here. Wiring and validation are the plan's, views the DAG's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowyml.authoring.builder import PipelineBuilder
from flowyml.authoring.validation import absolute, checked_resume, checked_seed, checked_values
from flowyml.diagnostics.text import did_you_mean, join_names
from flowyml.diagnostics.tracebacks import hides_internal_frames, warn_caller
from flowyml.import_guard import refuse_if_loading
from flowyml.steps.context import Context
from flowyml.steps.declarations import checked_text, step_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date
    from typing import Literal, Self

    from flowyml.authoring.validation import JournalConfig
    from flowyml.caching.preview import ResumePreview
    from flowyml.caching.resumable_runs import ResumableRuns
    from flowyml.executors.executor import Executor
    from flowyml.graph.dag import DAG
    from flowyml.graph.explain import Explanation
    from flowyml.planning.item_index import ItemIndex
    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.plan import Plan
    from flowyml.planning.problems import Problems
    from flowyml.planning.step_spec import StepColumns
    from flowyml.runtime.run import Run
    from flowyml.store.cache_store import CacheStore


class Preparation(PipelineBuilder):
    """A pipeline as far as it can be planned: built, looked at, made ready to run.

    Args:
        name: Name of the pipeline.
        context: Named values that any step may take.
        discovers: Whether it looks for its steps where none was added.
        types: What to do where types do not fit; `None`: they are not looked at.
        cache: Where values are stored; `None`: nowhere.
        journals: Whether and where runs keep a journal.
    """

    def __init__(
        self,
        name: str,
        context: Context,
        *,
        discovers: bool,
        types: Literal["warn", "error"] | None,
        cache: CacheStore | None,
        journals: JournalConfig,
    ) -> None:
        # All that `run` needs: now, while nobody waits for the first step.
        import flowyml.planning.name_resolution
        import flowyml.runtime.execute
        import flowyml.runtime.run  # noqa: F401

        super().__init__(name, context, discovers=discovers)
        self._types: Literal["warn", "error"] | None = types
        self._cache, self._journals = cache, journals
        self._warned: set[str] = set()
        self._seen: tuple[tuple[int, int], DAG] | None = None
        self._built: Plan | None = None  # what `build()` has made, for the run that follows

    def __copy__(self) -> Self:
        """Return a pipeline with the same steps and options."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), context=Context(**self.context), _added=self._added.copied())
        other._warned, other._seen, other._built = set(), None, None
        return other

    def __deepcopy__(self, _: object) -> Self:
        """Return the same as `copy.copy`: steps do not change."""
        return self.__copy__()

    def _inner_columns(self) -> StepColumns:
        """Return the columns for a pipeline that this one is part of: without a cache of its own, nothing is cached."""
        return self._columns() if self._cache is not None else self._columns().uncached()

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
        values, overlay = checked_values("build(inputs=)", inputs), checked_values("build(context=)", context)
        self._built = None
        self._built = self._planned(self._scope(values, overlay, complete=False))

    @property
    def dag(self) -> DAG:
        """The graph as an object: views, queries and pictures; also of a pipeline that is not valid.

        It shows the steps that have been added so far. Inputs that no step produces count as inputs of the run.
        """
        size = self._added.size
        if self._seen is None or self._seen[0] != size:
            from flowyml.graph.dag import DAG
            from flowyml.planning.name_resolution import Scope

            scope = Scope({}, self.context, complete=False)
            self._seen = size, DAG(self._planned(scope, strict=False), scope)
        return self._seen[1]

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
        """Say where each argument of a step would come from, what it waits for and what waits for it.

        Also of a pipeline that is not valid. Values of `run(inputs=)` and `run(context=)` are not known yet; what only
        they can give is said to be missing. Of a step that is to be cached it says whether its value is there, and what
        has changed if it is not; where an unfinished run would be continued, the same of what that one has finished.

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
        explanation = self.dag.explain(name)
        scope = self._scope({}, {}, complete=False)
        plan = self._planned(scope, strict=False)
        if plan.problems:
            return explanation
        node = plan.numbers[explanation.step_name]
        if self._cache is not None and plan.has_caching:
            from flowyml.caching.preview import CachePreview

            explanation = replace(explanation, cache=CachePreview(plan, self._cache, scope).of(node))
        if cache:
            explanation = self._with_key(explanation, plan, node)
        return replace(explanation, resume=self._resumable_step(plan, scope, node))

    def _with_key(self, explanation: Explanation, plan: Plan, node: int) -> Explanation:
        """Add what the key of a step covers, and why it would not be cached."""
        from flowyml.caching.coverage import Coverage

        coverage = Coverage(plan, node, explanation.arguments)
        if plan.forms[node].options.caching is None:
            reason: str | None = "it is not cached: it has no cache="
        elif self._cache is None:
            reason = "it is not cached: the pipeline has enable_cache=False"
        else:
            reason = explanation.cache
        if coverage.reason is not None:
            reason = f"it cannot be cached: {coverage.reason}"
        return replace(explanation, cache=reason, key=coverage.parts, not_in_key=tuple(coverage.gaps))

    def _resumable_step(self, plan: Plan, scope: Scope, node: int) -> str | None:
        """Say what a run would take over of one step; `None` where that is not known before `run` gives more."""
        if not self._journals.kept:
            return None
        from flowyml.caching.preview import prospect_of

        return prospect_of(plan, self._attempts(), node, scope)

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
        return {} if self._cache is None else self._cache.stats()

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
        if self._cache is None:
            return 0
        names = self._added.numbers
        if step is not None and step not in names:
            raise KeyError(f"pipeline {self.name!r} has no step {step!r}{did_you_mean(step, names)}")
        return self._cache.invalidate_steps(names if step is None else [step], before=before)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Show a notebook the picture of the graph."""
        return self.dag._repr_mimebundle_()

    def _scope(self, inputs: Mapping[str, Any], context: Mapping[str, Any], *, complete: bool) -> Scope:
        from flowyml.planning.name_resolution import Scope

        return Scope(inputs, self.context.inherit(**context), complete, context.keys())

    def _planned(
        self, scope: Scope, *, targets: Any = None, given: Mapping[str, Any] | None = None, strict: bool = True
    ) -> Plan:
        from flowyml.planning.plan import Plan

        columns = self._columns()
        if given:
            from flowyml.authoring.given_values import given_values, with_given

            columns = with_given(columns, given_values(Plan(self.name, columns, scope, strict=False), given))
        if targets is not None:
            from flowyml.authoring.targets import narrowed

            columns = narrowed(Plan(self.name, columns, scope, strict=False), targets, scope)
        if self._types is None and all(each.types is None for each in columns.namespaces):
            built = None
            if strict:
                built, self._built = self._built, None  # each run has a plan of its own
            if built is not None and built.is_that_of(columns, scope):
                return built
            return Plan(self.name, columns, scope, strict=strict)
        from flowyml.planning.type_checks import checked_plan

        return checked_plan(self.name, columns, scope, self._types, strict=strict)

    def _look_at_new_types(self, plan: Plan, scope: Scope) -> None:
        """Let the types of steps be looked at that come during the run, if their pipeline or this one asks for it."""
        from flowyml.planning.namespaces import types_mode

        def look(plan: Plan, layout: ItemIndex, steps: range, problems: Problems) -> None:
            if all(types_mode(plan.forms[node].within, mode) is None for node in steps):
                return
            from flowyml.planning.type_checks import check_new_steps

            check_new_steps(plan, scope, layout, steps, mode, problems=problems)

        mode = self._types
        plan.look_at_types = look

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
        given: Any = None,
        only_look: bool = False,
        anew: Any = None,
        **options: Any,
    ) -> tuple[Run, Scope]:
        """Check the arguments of a run and make it; called by what the user calls."""
        from flowyml.runtime.run import Run

        refuse_if_loading()
        run_id = None if run_id is None else checked_text("run_id", run_id)
        resume = checked_resume(resume, run_id, enabled=self._journals.kept)
        values, overlay = checked_values("run(inputs=)", inputs), checked_values("run(context=)", context)
        scope = self._scope(values, overlay, complete=True)
        values_given = checked_values("run(given=)", given)
        plan = self._planned(scope, targets=targets, given=values_given)
        self._warn_notes(plan)
        if targets is None and not values_given:
            self._warn_unused(plan, values, overlay)
        elif lost := [name for name in values_given if plan.find(name) is None and name not in plan.numbers]:
            warn_caller(f"run(given=) gives {join_names(lost)}, which no step of targets= needs")
        if plan.is_dynamic:
            self._look_at_new_types(plan, scope)
        if debug:
            from flowyml.graph.explain import log_sources

            log_sources(plan, scope)
            if not executor.keeps_values_serialized:
                from flowyml.runtime.mutation_check import MutationCheck

                options["watch"] = MutationCheck()
        options |= {"order": executor.order, "capacity": executor.capacity, "graph": executor.prioritized_graph(plan)}
        run = Run(plan, run_id=run_id, seed=checked_seed(seed), **options)
        run.checkpoint_dir = absolute(self._journals.folder)
        if anew is not None:
            run.forced_steps = plan.behind(step_of(anew))
        if not only_look and (self._journals.kept or (self._cache is not None and plan.has_caching)):
            self._remember(run, scope, executor, run_id, resume)
        return run, scope

    def _remember(self, run: Run, scope: Scope, executor: Executor, run_id: str | None, resume: Any) -> None:
        """Let a run ask the cache and the journal of an earlier attempt, and tell them what has run."""
        from flowyml.caching.lookup import attach

        if executor.keeps_values_serialized:
            run.keep_values_serialized()
        attempts = self._attempts() if self._journals.kept else None
        attach(run, self._cache, scope.context, attempts, run_id=run_id, resume=resume)

    def _seed_of(self, resume: str) -> int | None:
        """Return the seed of the run that is to be continued."""
        return self._attempts().seed_of(resume) if self._journals.kept else None

    def _attempts(self) -> ResumableRuns:
        from flowyml.caching.resumable_runs import ResumableRuns

        return ResumableRuns(self._journals.folder, self.name, always=self._journals.durable)

    def _foreseen(self, plan: Plan, scope: Scope, seed: int | None) -> str | None:
        """Say what a run would take from the cache."""
        if self._cache is None or not plan.has_caching:
            return None
        from flowyml.caching.preview import CachePreview

        return CachePreview(plan, self._cache, scope, seed).told()

    def _resumable(self, run: Run, resume: Any) -> ResumePreview | None:
        """Say what a run would take over from an earlier attempt, but for what is to run again, and what is left."""
        if not self._journals.kept:
            return None
        from flowyml.caching.preview import prospect

        return prospect(run.plan, self._attempts(), seed=run.seed, resume=resume, anew=run.forced_steps)

    def _warn_notes(self, plan: Plan) -> None:
        """Warn of what may be meant otherwise, once."""
        found = [*((form, note) for form, notes in plan.notes for note in notes), *plan.misspelled_defaults()]
        for form, note in found:
            message = f"step {form.step.name!r} of pipeline {self.name!r} {note} ({form.place})"
            if message not in self._warned:
                warn_caller(message)
                self._warned.add(message)

    def _warn_unused(self, plan: Plan, inputs: Mapping[str, Any], overlay: Mapping[str, Any]) -> None:
        """Warn of names that no step takes: of all given for this run, of pipelines' where they are misspelled."""
        if not (inputs or overlay or self.context or plan.namespaces):
            return
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
            near = "" if name in parameters else did_you_mean(name, parameters - plan.used)
            if near or name in given:
                where = f"step of pipeline {self.name!r}"
                reason = f"is used by no {where}{near}"
                if name in parameters or plan.assets.find(name) is not None:
                    reason = f"reaches no {where}: params, inputs and outputs of steps come first"
                source = given.get(name, "Pipeline(context=)")
                if name not in given and name not in self.context:
                    source = f"the context of sub-pipeline {inner[name].name!r}"
                warn_caller(f"{name!r} of {source} {reason}")
                self._warned.add(name)
