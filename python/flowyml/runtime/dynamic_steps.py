"""Steps that a dynamic step returns as a pipeline become part of the run.

```
SubgraphReturned ──SubgraphInsertion──▶ PlanExtension: the plan gets the new steps; undo() removes them
                        ├──▶ layout, values, map inputs, functions of workers: room for them
                        └──▶ scheduler: they may run; the dynamic step waits for them and runs again
```

The new steps are a sub-pipeline with the name of their step. Names that it does not define are resolved around that
step, among the steps that existed before the run began or arrived in the same pipeline: other dynamic steps may or may
not have been expanded by then, and a run must not depend on that.

Any thread may insert; one at a time changes shared data. Room is made first: once the scheduler knows the new steps,
other threads may run them. If there is a problem, nothing has changed, and the dynamic step fails with the reason. The
plan belongs to the run.
"""

from __future__ import annotations

import math
import os
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import join_names
from flowyml.errors import GraphError, PipelineValidationError
from flowyml.planning.assets import AssetTable
from flowyml.planning.binding import VERIFY
from flowyml.planning.call_template import ASSET, CallTemplate
from flowyml.planning.dependencies import DependencyBuilder, counts_of
from flowyml.planning.item_index import UNKNOWN, ItemIndex
from flowyml.planning.namespaces import Namespace, NamespaceView, enter, inlined, inside, unused_inputs
from flowyml.planning.problems import RESOURCE_LIMIT, UNKNOWN_OUTPUT, Problem, Problems
from flowyml.runtime.features import attach_breakers
from flowyml.steps.dynamic import CollectOutputs, unmarked_dynamic_error
from flowyml.store.value_store import MISSING, nodes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flowyml._core import Batch
    from flowyml.planning.globs import Found
    from flowyml.planning.namespaces import Names
    from flowyml.planning.plan import Plan
    from flowyml.planning.step_spec import StepSpec
    from flowyml.planning.sub_pipelines import HasColumns
    from flowyml.runtime.expansion import MapExpansion
    from flowyml.runtime.run import Run
    from flowyml.store.value_store import Reference


# Exceptions of a pipeline's own code, which make the step fail.
_TROUBLE = (Exception, SystemExit, GeneratorExit)


class SubgraphInsertion:
    """Inserts steps into one run. It does not hold the run: a run with large values must not be in a cycle.

    Args:
        plan: The plan of the run, which no other run may use if it can grow.

    Attributes:
        listeners: Called with the numbers of the steps that are new or called in another way, before they may run;
            an exception is the dynamic step's failure. They are released at the end of the run.
    """

    def __init__(self, plan: Plan) -> None:
        self.listeners: list[Callable[[list[int]], None]] = []
        self._came: list[tuple[int, float]] = []  # the first step of each pipeline, and when it was returned
        if plan.is_dynamic:
            plan.make_extendable()

    def came_at(self, node: int) -> float:
        """Return when the dynamic step ended that brought a step (monotonic seconds); 0 if none did."""
        at = bisect_right(self._came, (node, math.inf))
        return self._came[at - 1][1] if at else 0.0

    def insert(
        self, run: Run, batch: Batch, position: int, item: int, pipeline: HasColumns, *, now: float
    ) -> BaseException | None:
        """Insert the pipeline that an item of a batch returned; return why the step fails, if it does."""
        node = run.node_of[item]
        if not run.plan.specs[node].options.dynamic:
            return unmarked_dynamic_error(run.item_name(item), pipeline)
        try:
            with _expansion_of(run).exclusive() as goes_on:
                if goes_on:
                    self._graft(run, batch, position, node, pipeline, now=now)
        except _TROUBLE as error:
            return error
        return None

    def _graft(self, run: Run, batch: Batch, position: int, node: int, pipeline: HasColumns, *, now: float) -> None:
        grown = PlanExtension(run.plan, run.item_index, node, pipeline)
        items = len(run.values.raw)
        try:
            _make_room(run, grown)
            for listener in self.listeners:
                listener([*grown.steps, node])
            _add_options(run, grown)
            self._came.append((grown.steps.start, now))
            _tell_scheduler(run, batch, position, grown, now)
        except BaseException:
            grown.undo()
            node_of: Any = run.node_of
            del run.values.raw[items:], node_of[items:]
            for each in grown.steps:
                run.map_inputs.pop(each, None)
            for extension in run.extensions:
                extension.on_steps_removed(grown.steps)
            run.refresh_extensions()
            self._came = [each for each in self._came if each[0] < grown.steps.start]
            raise


def _expansion_of(run: Run) -> MapExpansion:
    assert run.expansion is not None  # noqa: S101  a run with dynamic steps has one
    return run.expansion


def _add_options(run: Run, grown: PlanExtension) -> None:
    """Prepare retries, limits and extensions for the new steps."""
    run.plan.specs_with_options.update(grown.specs_with_options)
    options = [spec.options for spec in grown.specs_with_options.values()]
    for extension in run.extensions:
        extension.on_steps_added(grown.steps)
    if run.time_limits is not None:
        run.time_limits.extend(options)
    if any(each.circuit_breaker for each in options):
        attach_breakers(run)
    run.refresh_extensions()


def _make_room(run: Run, grown: PlanExtension) -> None:
    node_of: Any = run.node_of  # a list, where a run may grow
    for node, count in zip(grown.steps, grown.counts, strict=True):
        if count != UNKNOWN:
            node_of.extend([node] * count)
    run.values.raw.extend([MISSING] * (run.item_index.item_count - len(run.values.raw)))
    _expansion_of(run).add_steps(grown.steps, grown.groups())


def _tell_scheduler(run: Run, batch: Batch, position: int, grown: PlanExtension, now: float) -> None:
    edges = grown.edges
    keep = grown.keep_mask() if run.releases else None
    found: list[tuple[int, str]] = []
    new: Any = (grown.counts, edges.dependents, edges.dependencies, edges.kinds(), grown.joins, grown.awaited)
    resources = run.resource_limits
    assert resources is not None  # noqa: S101  a run with dynamic steps has them
    with resources.growing():
        limits = resources.limits_of(
            grown.specs, found, special=bool(grown.specs_with_options), first=grown.steps.start
        )
        grown.refuse((grown.steps[at], problem) for at, problem in found)
        try:
            run.scheduler.graft(batch, position, now, *new, keep=keep, **limits)
        except GraphError as error:
            grown.refuse_graph(error.problems)
        except ValueError as error:
            raise PipelineValidationError([_gone(run, grown)], grown.name) from error


def _gone(run: Run, grown: PlanExtension) -> str:
    """Return a message about values that the new steps read and that have been dropped."""
    read = [node for node in grown.reads() if node < grown.steps.start]
    dropped = [node for node in read if not run.values.dropped.isdisjoint(run.item_index.items_of(node))]
    names = join_names([run.plan.names[node] for node in dropped or read])
    return f"what {names} produced is gone: keep= let it go after its last reader; name it there, or read it before"


class PlanExtension:
    """New steps of a plan, for one step that returned them.

    Args:
        plan: The plan; it has them from now on.
        item_index: Which items each step has; it has those of the new steps, too.
        node: The dynamic step.
        pipeline: The pipeline that it returned.

    Raises:
        PipelineValidationError: With everything that is wrong with the pipeline; the plan is as it was.

    Attributes:
        name: The name of the dynamic step.
        steps: The numbers of the new steps.
        counts: How many items each has, or `UNKNOWN`.
        edges: Who of them waits for whom.
        awaited: Those of them that the dynamic step waits for.
        joins: For each of them 1 if it is a join; `None` if none is.
        special: Those of their forms whose steps have options, by id.
    """

    def __init__(self, plan: Plan, item_index: ItemIndex, node: int, pipeline: HasColumns) -> None:
        self._plan, self._item_index, self._node = plan, item_index, node
        self._before: Any = plan.templates[node], plan.references.get(node)
        self._exported: Iterable[str] = ()
        plan.kept_alive.append(self)
        first = len(plan.names)
        columns = pipeline._inner_columns()  # noqa: SLF001  the one who may see them
        self.steps = range(first, first + len(columns.specs))
        spec = plan.specs[node]
        self.name = plan.names[node]
        context = pipeline.context.to_dict()
        types = pipeline._types  # noqa: SLF001
        self._whole = Namespace(
            self.name, self.steps, spec.within, None, {}, (), context, spec.place, grafted=True, types=types
        )
        self._columns = inlined(columns, self._whole)
        self._check_names(pipeline.name)
        try:
            self._enter()
            self._wire(pipeline.name)
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        """Take the new steps out of the plan."""
        plan, first = self._plan, self.steps.start
        for name in plan.names[first:]:
            del plan.own_numbers[name]
        del plan.names[first:], plan.specs[first:], plan.rows[first:], plan.reads[first:], plan.templates[first:]
        for node in self.steps:
            plan.references.pop(node, None)
            plan.linked.pop(node, None)
        template, references = self._before
        plan.templates[self._node] = template
        plan.references.pop(self._node, None)
        if references is not None:
            plan.references[self._node] = references
        for asset in self._exported:
            plan.assets.exported.pop(asset, None)
        plan.inserted_assets.pop(self._whole, None)
        for node in (self._node, *self.steps):
            plan.inserted_dependencies.pop(node, None)
        self._item_index.cut(first)

    @property
    def specs(self) -> Sequence[StepSpec]:
        """How the new steps were added."""
        return self._columns.specs

    def refuse(self, found: Iterable[tuple[int, str]]) -> None:
        """Raise the problems of new steps other than those of their wiring, if there are any."""
        problems = Problems(self._plan.names, self._plan.specs)
        for node, message in found:
            problems.add_of_step(node, [Problem(RESOURCE_LIMIT, message=message)])
        problems.raise_all(self.name)

    def refuse_graph(self, found: list[tuple[Any, ...]]) -> None:
        """Raise the problems that the core has found in the graph."""
        problems = Problems(self._plan.names, self._plan.specs)
        problems.add_graph(found)
        problems.raise_all(self.name)

    def keep_mask(self) -> bytes:
        """Return for each new step 1 if nothing reads its value."""
        read = self.reads()
        return bytes(node not in read for node in self.steps)

    def reads(self) -> set[int]:
        """Return the steps whose values the new ones and the dynamic step read."""
        references = self._plan.references
        reading = (references[node] for node in (self._node, *self.steps) if node in references)
        return {node for each in reading for node in nodes_of(each, self._item_index)}

    def groups(self) -> dict[int, list[int]]:
        """Return for each new step whose length is not known the steps that get theirs together with it."""
        edges = self.edges
        followers: dict[int, list[int]] = {}
        for after, before, linked in zip(edges.dependents, edges.dependencies, edges.kinds() or (), strict=False):
            if linked:
                followers.setdefault(before, []).append(after)
        unknown = (node for node, count in zip(self.steps, self.counts, strict=True) if count == UNKNOWN)
        return {node: _reached(node, followers) for node in unknown}

    # -- the new steps

    def _check_names(self, pipeline: str) -> None:
        taken = [name for name in self._columns.names if name in self._plan.numbers]
        if taken:
            raise PipelineValidationError([f"there is a step {taken[0]!r} already; give one another name"], pipeline)

    def _enter(self) -> None:
        """Make room in the plan."""
        plan, new = self._plan, self._columns
        plan.own_numbers.update(new.names)
        plan.names.extend(new.names)
        plan.specs.extend(new.specs)
        plan.rows.extend(new.rows)
        plan.reads.extend(new.reads)

    def _wire(self, pipeline: str) -> None:
        plan, node, first, new = self._plan, self._node, self.steps.start, self._columns
        mapped = {node for node, spec in zip(self.steps, new.specs, strict=True) if spec.map_input is not None}
        assets = AssetTable(
            new.names, plan.specs, ItemIndex(len(plan.specs), None, {*self._item_index.mapped, *mapped}), first
        )
        around = seen_around(plan, self._whole.outer)
        assets.inner[self._whole] = own = NamespaceView(assets, around, self._whole)
        inner = new.namespaces[:-1]  # all but itself, whose name is that of a step
        problems = Problems(plan.names, plan.specs, [*assets.problems(), *enter(assets, inner)])
        self.counts = self._lengths(assets, mapped)
        waiting = {node for node, count in zip(self.steps, self.counts, strict=True) if count == UNKNOWN}
        self._item_index.add(self.counts, mapped)
        assets.item_index = self._item_index
        builder = DependencyBuilder(first, assets, plan.scope, problems)
        builder.connect(new, plan.item_index.waiting | waiting)
        problems.add_unused_inputs(unused_inputs(assets, inner))
        if os.environ.get(VERIFY):
            from flowyml.planning.verification import verify

            verify(new, builder)
        awaited = self._collected(assets, own, builder, problems)
        problems.raise_all(pipeline)
        plan.templates.extend(builder.templates)
        plan.references.update(builder.references)
        plan.linked.update(builder.linked)
        self._exported = assets.exported
        plan.assets.exported.update(assets.exported)
        plan.inserted_assets[self._whole] = assets
        waits = plan.inserted_dependencies
        waits[node] = sorted(awaited)
        for after, before in zip(builder.edges.dependents, builder.edges.dependencies, strict=True):
            waits.setdefault(after, []).append(before)
        self.edges, self.joins, self.specs_with_options = (
            builder.edges,
            builder.joins(new.specs),
            builder.specs_with_options,
        )
        self.awaited = array("I", sorted(awaited))
        if plan.check_new_types is not None:
            plan.check_new_types(plan, self._item_index, self.steps, problems)
            problems.raise_all(pipeline)

    def _lengths(self, assets: AssetTable, mapped: set[int]) -> array[int]:
        if not mapped:
            return array("I", [1]) * len(self.steps)
        known = {node: self._length(node) for node in self._item_index.mapped}
        # How many failures a map task survives is told with its length, so it must not be known before that.
        known.update((node, UNKNOWN) for node in mapped if _survives_failures(self._plan.specs[node]))
        return counts_of(self._plan.specs, assets, self._plan.scope, self.steps.start, known)

    def _length(self, node: int) -> int:
        """Return the length of a mapped step as it was known before the run, whatever is known by now."""
        planned = self._plan.item_index
        item_index = planned if node < planned.nodes else self._item_index
        return UNKNOWN if node in item_index.waiting else len(item_index.items_of(node))

    # -- the value of the dynamic step

    def _collected(
        self, assets: AssetTable, own: NamespaceView, builder: DependencyBuilder, problems: Problems
    ) -> set[int]:
        """Let the dynamic step read the values that it passes on; return the steps that it waits for."""
        plan, node = self._plan, self._node
        declared = plan.specs[node].parts
        if len(declared) == 1 and own.find(declared[0]) is None:
            declared = ()  # so it is what the value is called
        found = self._outputs(declared, own, problems) if declared else dict(self._last(own, builder))
        names = None if declared or len(found) == 1 else tuple(found)
        references: tuple[Reference, ...] = tuple(map(assets.reference, found.values()))
        sources = tuple((ASSET, which) for which in range(len(references)))
        several = len(declared) if len(declared) > 1 else 0
        plan.templates[node] = CallTemplate(CollectOutputs(names), sources, (), several, None, has_single_param=False)
        plan.references[node] = references
        return {each for each, _ in found.values()}

    def _outputs(self, declared: Sequence[str], own: NamespaceView, problems: Problems) -> dict[str, Found]:
        found = {name: own.find(name) for name in declared}
        name, spec = self.name, self._plan.specs[self._node]
        for output in (output for output, producer in found.items() if producer is None):
            hint = own.near(output, (asset for asset, _ in own.each()))
            problems.add(Problem(UNKNOWN_OUTPUT, name=name, asset=output, hint=hint, place=spec.place))
        return {output: producer for output, producer in found.items() if producer is not None}

    def _last(self, own: NamespaceView, builder: DependencyBuilder) -> Sequence[tuple[str, Found]]:
        """Return the assets of the steps that no other new step waits for, by their names inside."""
        waited_for = set(builder.edges.dependencies)
        names = {found: asset for asset, found in own.each() if found[0] not in waited_for}
        return [(asset, found) for found, asset in names.items()]  # of several names the exported one


def _survives_failures(spec: StepSpec) -> bool:
    terms = None if spec.map_input is None else spec.map_input.terms
    return terms is not None and terms.min_success_ratio < 1


def _reached(start: int, followers: dict[int, list[int]]) -> list[int]:
    seen = {start: None}
    stack = [start]
    while stack:
        new = [each for each in followers.get(stack.pop(), ()) if each not in seen]
        seen.update(dict.fromkeys(new))
        stack += new
    return sorted(seen)


def seen_around(plan: Plan, namespace: Namespace | None) -> Names:
    """Return the names that the steps of a sub-pipeline see, also of one that was inserted during the run."""
    whole = namespace
    while whole is not None and not whole.grafted:
        whole = whole.outer
    return inside(plan.assets if whole is None else plan.inserted_assets[whole], namespace)
