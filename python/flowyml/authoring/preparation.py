"""Preparation: the plans of a pipeline, and what is looked at of them.

```
StepTable ──▶ StepColumns ──targets, given values──▶ Plan ──▶ DAG: views, drawings, explanations
                                                      └─▶ Run (`launch.py`)
```

Nothing runs here. Binding and validation belong to the plan, views to the DAG.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowyml.authoring.validation import checked_values
from flowyml.diagnostics.text import did_you_mean
from flowyml.diagnostics.tracebacks import warn_caller
from flowyml.steps.context import Context
from flowyml.steps.declarations import checked_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date
    from typing import Literal

    from flowyml.authoring.builder import PipelineBuilder
    from flowyml.authoring.validation import JournalConfig
    from flowyml.caching.resumable_runs import ResumableRuns
    from flowyml.graph.dag import DAG
    from flowyml.graph.explain import Explanation
    from flowyml.planning.item_index import ItemIndex
    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.plan import Plan
    from flowyml.planning.problems import Problems
    from flowyml.planning.step_spec import StepColumns
    from flowyml.store.cache_store import CacheStore


class Preparation:
    """Plans the steps of one pipeline.

    Args:
        name: Name of the pipeline.
        context: Named values that any step may take.
        builder: Has the steps.
        types: What to do if type hints do not fit; `None`: they are not compared.
        cache: Where values are stored; `None`: nowhere.
        journals: Whether and where runs keep a journal.
    """

    def __init__(
        self,
        name: str,
        context: Context,
        builder: PipelineBuilder,
        *,
        types: Literal["warn", "error"] | None,
        cache: CacheStore | None,
        journals: JournalConfig,
    ) -> None:
        # Everything that `run` needs is imported now, when no step waits for it.
        import flowyml.planning.name_resolution
        import flowyml.runtime.execute
        import flowyml.runtime.run  # noqa: F401

        self.name: str = checked_text("a pipeline's name", name)
        self.context, self.builder = context, builder
        self.types, self.cache, self.journals = types, cache, journals
        self._warned: set[str] = set()
        self._dag: tuple[tuple[int, int], DAG] | None = None
        self._built: Plan | None = None  # the plan of `build()`, for the run that follows

    def copy(self) -> Preparation:
        """Return the same for a copy of the pipeline."""
        options: dict[str, Any] = {"types": self.types, "cache": self.cache, "journals": self.journals}
        return Preparation(self.name, Context(**self.context), self.builder.copy(), **options)

    def inner_columns(self) -> StepColumns:
        """Return the columns for a pipeline that contains this one; without a cache of its own nothing is cached."""
        columns = self.builder.columns()
        return columns if self.cache is not None else columns.uncached()

    def build(self, inputs: Mapping[str, Any] | None, context: Mapping[str, Any] | None) -> None:
        """Check the structure; see `Pipeline.build`."""
        values, overlay = checked_values("build(inputs=)", inputs), checked_values("build(context=)", context)
        self._built = None
        self._built = self.plan(self.scope(values, overlay, complete=False))

    def dag(self) -> DAG:
        """Return the graph of the steps that have been added so far."""
        size = self.builder.table.size
        if self._dag is None or self._dag[0] != size:
            from flowyml.graph.dag import DAG
            from flowyml.planning.name_resolution import Scope

            scope = Scope({}, self.context, complete=False)
            self._dag = size, DAG(self.plan(scope, strict=False), scope)
        return self._dag[1]

    def explain(self, name: str, *, cache: bool) -> Explanation:
        """Explain a step; see `Pipeline.explain`."""
        explanation = self.dag().explain(name)
        scope = self.scope({}, {}, complete=False)
        plan = self.plan(scope, strict=False)
        if plan.problems:
            return explanation
        node = plan.numbers[explanation.step_name]
        if self.cache is not None and plan.has_caching:
            from flowyml.caching.preview import CachePreview

            explanation = replace(explanation, cache=CachePreview(plan, self.cache, scope).describe_step(node))
        if cache:
            explanation = self._with_key(explanation, plan, node)
        if self.journals.kept:
            from flowyml.caching.preview import preview_resumed_step

            explanation = replace(explanation, resume=preview_resumed_step(plan, self.resumable_runs(), node, scope))
        return explanation

    def _with_key(self, explanation: Explanation, plan: Plan, node: int) -> Explanation:
        """Add what the cache key of a step covers, and why the step would not be cached."""
        from flowyml.caching.coverage import Coverage

        coverage = Coverage(plan, node, explanation.arguments)
        if plan.specs[node].options.caching is None:
            reason: str | None = "it is not cached: it has no cache="
        elif self.cache is None:
            reason = "it is not cached: the pipeline has enable_cache=False"
        else:
            reason = explanation.cache
        if coverage.reason is not None:
            reason = f"it cannot be cached: {coverage.reason}"
        return replace(explanation, cache=reason, key=coverage.parts, not_in_key=tuple(coverage.gaps))

    def invalidate_cache(self, step: str | None, before: str | date | None) -> int:
        """Remove cached values; see `Pipeline.invalidate_cache`."""
        if self.cache is None:
            return 0
        names = self.builder.table.numbers
        if step is not None and step not in names:
            raise KeyError(f"pipeline {self.name!r} has no step {step!r}{did_you_mean(step, names)}")
        return self.cache.invalidate_steps(names if step is None else [step], before=before)

    def resumable_runs(self) -> ResumableRuns:
        """Return the unfinished runs of this pipeline."""
        from flowyml.caching.resumable_runs import ResumableRuns

        return ResumableRuns(self.journals.folder, self.name, always=self.journals.durable)

    def scope(self, inputs: Mapping[str, Any], context: Mapping[str, Any], *, complete: bool) -> Scope:
        """Return the named values of a run; `complete` if no others are to come."""
        from flowyml.planning.name_resolution import Scope

        return Scope(inputs, self.context.inherit(**context), complete, context.keys())

    def plan(
        self, scope: Scope, *, targets: Any = None, given: Mapping[str, Any] | None = None, strict: bool = True
    ) -> Plan:
        """Return a plan of the steps.

        Args:
            scope: The named values.
            targets: The part of the pipeline; see `targets.py`.
            given: Values of steps; see `given_values.py`.
            strict: Whether an invalid plan raises.

        Raises:
            PipelineValidationError: If it is not valid.
        """
        from flowyml.planning.plan import Plan

        columns = self.builder.columns()
        if given:
            from flowyml.authoring.given_values import given_values, with_given

            columns = with_given(columns, given_values(Plan(self.name, columns, scope, strict=False), given))
        if targets is not None:
            from flowyml.authoring.targets import narrowed

            columns = narrowed(Plan(self.name, columns, scope, strict=False), targets, scope)
        if self.types is None and all(part.types is None for part in columns.namespaces):
            built = None
            if strict:
                built, self._built = self._built, None  # each run has a plan of its own
            if built is not None and built.is_reusable_for(columns, scope):
                return built
            return Plan(self.name, columns, scope, strict=strict)
        from flowyml.planning.type_checks import checked_plan

        return checked_plan(self.name, columns, scope, self.types, strict=strict)

    def check_new_types(self, plan: Plan, scope: Scope) -> None:
        """Let the plan check the types of steps that are added during the run, if `validate_types` asks for it."""
        from flowyml.planning.namespaces import types_mode

        def look(plan: Plan, item_index: ItemIndex, steps: range, problems: Problems) -> None:
            if all(types_mode(plan.specs[node].within, mode) is None for node in steps):
                return
            from flowyml.planning.type_checks import check_new_steps

            check_new_steps(plan, scope, item_index, steps, mode, problems=problems)

        mode = self.types
        plan.check_new_types = look

    def warn_notes(self, plan: Plan) -> None:
        """Warn once of declarations that may be mistakes."""
        notes = [*((spec, note) for spec, notes in plan.notes for note in notes), *plan.misspelled_defaults()]
        for spec, note in notes:
            message = f"step {spec.step.name!r} of pipeline {self.name!r} {note} ({spec.place})"
            if message not in self._warned:
                warn_caller(message)
                self._warned.add(message)

    def warn_unused(self, plan: Plan, inputs: Mapping[str, Any], overlay: Mapping[str, Any]) -> None:
        """Warn of values that no step takes: all values of this run, and values of pipelines that look misspelled."""
        if not (inputs or overlay or self.context or plan.namespaces):
            return
        given = {**dict.fromkeys(overlay, "run(context=)"), **dict.fromkeys(inputs, "run(inputs=)")}
        inner = {name: part for part in plan.namespaces for name in part.context}
        known = {**inner, **self.context, **given}
        unused = [name for name in known if name not in plan.used and name not in self._warned]
        if not unused or plan.is_dynamic:  # steps that come during the run may take them
            return
        specs = set(self.builder.table.specs)
        if any("context" in spec.parameters for spec in specs):
            unused = [name for name in unused if name in inputs]
        parameters = {name for spec in specs for name in spec.parameters}
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
