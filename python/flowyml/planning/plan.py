"""Plan: a pipeline, bound and validated, ready to run.

```
names, specs, rows, reads (what was added) ──▶ Plan: templates, references ──▶ _core.Graph (validated, immutable)
```

A plan numbers the steps in add order; the core sees numbers only, and names come back in messages. Everything that is
wrong with a pipeline is found here, in one pass and one error, before anything runs. A plan holds no value of a run,
and does not change afterwards, unless steps come during its run (see `runtime/dynamic_steps.py`).
"""

from __future__ import annotations

import os
from array import array
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from flowyml._extension import Graph
from flowyml.diagnostics.text import did_you_mean, is_misspelling
from flowyml.errors import GraphError
from flowyml.planning.assets import AssetTable
from flowyml.planning.binding import VERIFY, bind
from flowyml.planning.dependencies import DependencyBuilder, counts_of
from flowyml.planning.item_index import UNKNOWN, ItemIndex
from flowyml.planning.name_resolution import Scope
from flowyml.planning.namespaces import enter, unused_inputs
from flowyml.planning.problems import (
    MISSING_PARAMETERS,
    RESOURCE_LIMIT,
    RUN_INPUT_AND_GIVEN,
    UNUSED_RUN_INPUT,
    Problem,
    Problems,
)
from flowyml.planning.step_spec import listed_names
from flowyml.steps.conditions import GuardedFunction
from flowyml.steps.dynamic import CollectOutputs
from flowyml.store.value_store import nodes_of, split_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flowyml.planning.dependencies import EdgeList
    from flowyml.planning.globs import Found
    from flowyml.planning.namespaces import Namespace
    from flowyml.planning.step_spec import StepColumns, StepSpec


# Comparing the names of so many steps in pairs takes some milliseconds.
_MOST_COMPARED = 200


class Plan:
    """A bound and validated pipeline.

    Args:
        name: The pipeline's name.
        columns: What was added to it; they must not change any more.
        scope: Values of the run's inputs and the contexts.
        strict: Raise the problems; otherwise only keep them in `problems`.

    Raises:
        PipelineValidationError: With everything that is wrong.

    Attributes:
        names: Step names in add order.
        numbers: Their numbers.
        own_numbers: The same, of a plan that grows.
        specs: How each step was added.
        rows: The values of each step's `params`, as in `Columns`; `row` gives those of one step.
        reads: The declared inputs of each step, where they differ from step to step.
        namespaces: The sub-pipelines.
        item_index: Which items each step has.
        assets: Which step produces what.
        templates: How each step calls its function.
        references: What the arguments of the steps that read assets refer to.
        graph: The validated graph.
        invalid_edges: The edges of a graph that is not valid, which `graph` then does not have.
        problems: What is wrong.
        undefined: Declared inputs that nothing gives, and the steps that declare them.
        specs_with_options: The specs whose steps have options, by id.
        check_new_types: Adds what is wrong with the types of steps that come during the run to some problems.
        inserted_assets: What the steps see that came during the run, by the sub-pipeline that they are.
        inserted_dependencies: Whom steps wait for since then.
        kept_alive: What has held specs and templates; some know these by their ids, so they have to live.
        scope: Values of the run's inputs and the contexts, where steps may come.
        used: Names of run inputs and context values that some step takes.
        notes: Specs, and what is valid about their steps and may be meant otherwise.
        defaulted: Forms, and the parameters of their steps that keep their defaults.
        is_dynamic: Whether some step may return further steps; see `runtime/dynamic_steps.py`.
        has_timeouts: Whether some step has a time limit of its own.
        linked: The mapped steps whose items wait for items of other steps, with those steps.
    """

    def __init__(self, name: str, columns: StepColumns, scope: Scope, *, strict: bool = True) -> None:
        self.name = name
        self.numbers: Mapping[str, int]
        self.numbers, self.specs, self.rows, self.reads, self.namespaces = columns
        self.names = listed_names(self.numbers)
        mapped = _mapped(self.specs)
        self.assets = AssetTable(self.numbers, self.specs, ItemIndex(len(self.specs), None, mapped))
        clashes = [*self.assets.problems(), *enter(self.assets, self.namespaces)]
        self._counts = counts_of(self.specs, self.assets, scope) if mapped else None
        self.item_index = self.assets.item_index = ItemIndex(len(self.specs), self._counts, mapped)
        self.problems = Problems(self.names, self.specs, clashes)
        self.invalid_edges: EdgeList | None = None
        builder = DependencyBuilder(0, self.assets, scope, self.problems)
        builder.connect(columns, self.item_index.waiting)
        self.templates, self.references = builder.templates, builder.references
        self.used, self.undefined, self.notes = builder.used, builder.undefined, builder.notes.values()
        self.defaulted = builder.defaulted.values()
        self.specs_with_options, self.has_timeouts = builder.specs_with_options, builder.has_timeouts
        self.linked = builder.linked
        self._stands_alone = not (mapped or self.namespaces or builder.has_missing or scope.inputs or scope.context)
        self.is_dynamic = any(spec.options.dynamic for spec in self.specs_with_options.values())
        self.check_new_types: Callable[[Plan, ItemIndex, range, Problems], None] | None = None
        self.inserted_assets: dict[Namespace, AssetTable] = {}
        self.inserted_dependencies: dict[int, list[int]] = {}
        self.kept_alive: list[object] = []
        if self.is_dynamic:
            self.scope, self.names = scope, list(self.names)
        for problem in self.unused_run_inputs(scope.inputs):
            self.problems.add(problem)
        if not self.given_steps():  # else sub-pipelines may be given what these would read
            self.problems.add_unused_inputs(unused_inputs(self.assets, self.namespaces))
        if builder.has_missing and not scope.complete:
            whole = Scope(scope.inputs, scope.context, complete=True, overlay=scope.overlay)
            self.problems.add_rest = partial(self._add_missing, whole)
        if os.environ.get(VERIFY):
            from flowyml.planning.verification import verify

            verify(columns, builder)
        self.graph = self._build_graph(builder, strict=strict)

    def given_steps(self) -> list[int]:
        """Return the steps whose values the caller of the run gives."""
        if not any(spec.options.given for spec in self.specs_with_options.values()):
            return []
        return [node for node, spec in enumerate(self.specs) if spec.options.given]

    def is_reusable_for(self, columns: StepColumns, scope: Scope) -> bool:
        """Return True if another plan of these columns would be the same: nothing that it is made of can have changed.

        That is certain if the columns hold all values that steps get, and no step is mapped.
        """
        alone = self._stands_alone and not (self.is_dynamic or columns.namespaces or scope.inputs or scope.context)
        return alone and self.specs is columns.specs and self.rows is columns.rows and self.reads is columns.reads

    def unused_run_inputs(self, inputs: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the run inputs whose names are assets and that reach no step: their values would be ignored."""
        for name in inputs:
            found = None if name in self.used else self.assets.find(name)
            if found is not None and not self.specs[found[0]].options.given:
                step, place = self.names[found[0]], self.specs[found[0]].place
                yield Problem(UNUSED_RUN_INPUT, name=name, step=step, place=place)
            elif found is not None:
                yield Problem(RUN_INPUT_AND_GIVEN, name=name)

    def make_extendable(self) -> None:
        """Copy the columns, which the pipeline shares: steps will be added to these."""
        self.numbers = self.own_numbers = dict(zip(self.names, count(), strict=False))
        self.specs, self.rows, self.reads = list(self.specs), list(self.rows), list(self.reads)

    def find(self, asset: str) -> Found | None:
        """Return the producer of an asset, also of one that was added during the run."""
        found = self.assets.find(asset)
        for assets in self.inserted_assets.values() if found is None else ():
            found = found or assets.find(asset)
        return found

    def dependencies_of(self, node: int) -> list[int]:
        """Return the steps that a step waits for."""
        before = self.graph.dependencies(node) if node < self.item_index.nodes else []
        return before + self.inserted_dependencies.get(node, [])

    def with_dependents(self, name: Any) -> frozenset[int]:
        """Return a step, or the steps of a sub-pipeline, and all that depends on them.

        Raises:
            ValueError: If there is none of that name, with near matches.
        """
        steps = self.assets.steps(name) if isinstance(name, str) else None
        if steps is None:
            raise ValueError(f"from_step names no step or sub-pipeline: {name!r:.60}{self._instead(str(name))}")
        found, waiting = set(steps), list(steps)
        while waiting:
            new = [each for each in self.graph.dependents(waiting.pop()) if each not in found]
            found.update(new)
            waiting += new
        return frozenset(found)

    def _instead(self, name: str) -> str:
        """Return a hint for a name that is no step: a near match, or the dynamic step that would add it."""
        dynamic = (self.names[node] for node in self.dynamic_steps())
        step = next((each for each in dynamic if name.startswith(f"{each}.")), None)
        if step is None:
            return did_you_mean(name, [*self.names, *(each.name for each in self.namespaces)])
        return f"; what comes from dynamic step {step!r} runs again only with all of it: from_step={step!r}"

    def in_order(self) -> Sequence[int]:
        """Return the steps in add order, those that came during the run behind the step that they came from."""
        if not self.inserted_assets:
            return range(len(self.names))
        behind = {self.numbers[each.name]: each.steps for each in self.inserted_assets}
        order: list[int] = []
        stack = list(range(self.item_index.nodes))[::-1]
        while stack:
            node = stack.pop()
            order.append(node)
            stack += behind.get(node, ())[::-1]
        return order

    def row(self, node: int) -> tuple[Any, ...]:
        """Return the values of a step's `params`, in the order of its spec's keys."""
        return self.specs[node].unpack_row(self.rows[node])

    def split(self, returned: Any, node: int) -> Any:
        """Return a step's return value taken apart into its outputs, if it declares several; see `split_outputs`."""
        template = self.templates[node]
        if template is None or not template.several:
            return returned
        return split_outputs(returned, self.specs[node].several, self.names[node])

    def item_name(self, node: int, index: int | None = None) -> str:
        """Return the name of a step, or of one item of a mapped step."""
        return self.names[node] if index is None else f"{self.names[node]}[{index}]"

    def function_of(self, node: int) -> Callable[..., Any]:
        """Return the function of a step, with its conditions around it if it has any."""
        template = self.templates[node]
        wrapped = template is not None and isinstance(template.function, (GuardedFunction, CollectOutputs))
        return template.function if wrapped else self.specs[node].step.func  # type: ignore[union-attr]

    def dynamic_steps(self) -> list[int]:
        """Return the dynamic steps that are known before a run."""
        planned = range(self.item_index.nodes) if self.is_dynamic else ()
        return [node for node in planned if self.specs[node].options.dynamic]

    def is_expanded(self, node: int) -> bool:
        """Return True if a step has returned a pipeline whose steps now run in its place."""
        template = self.templates[node]
        return template is not None and isinstance(template.function, CollectOutputs)

    def length_of(self, node: int) -> int | None:
        """Return how many items a mapped step has, or `UNKNOWN`; `None` for an ordinary step."""
        if not self.item_index.is_mapped(node):
            return None
        return UNKNOWN if node in self.item_index.waiting else len(self.item_index.items_of(node))

    @property
    def has_caching(self) -> bool:
        """Whether some step is to be cached."""
        return any(spec.options.caching for spec in self.specs_with_options.values())

    def misspelled_defaults(self) -> Iterator[tuple[StepSpec, str]]:
        """Yield parameters that keep their defaults although an asset that no step reads has nearly their name.

        Hand-written pipelines have such mistakes; large pipelines are not searched.
        """
        if not self.defaulted or self.is_dynamic or len(self.names) > _MOST_COMPARED:
            return
        read = self.read_nodes()
        unread = [node for node, spec in enumerate(self.specs) if node not in read and spec.within is None]
        assets = {asset: self.specs[node] for node in unread for asset in self.assets_of(node)}
        for spec, names in self.defaulted:
            for name in names:
                near = next(
                    (asset for asset in assets if assets[asset] is not spec and is_misspelling(name, asset)), None
                )
                if near is not None:
                    yield spec, f"keeps the default of {name!r}, and no step reads {near!r}; did you mean {near!r}?"

    def read_nodes(self) -> set[int]:
        """Return the steps whose values other steps read."""
        return {node for references in self.references.values() for node in nodes_of(references, self.item_index)}

    def assets_of(self, node: int) -> tuple[str, ...]:
        """Return the assets that a step produces; one that a sub-pipeline exports by that name."""
        assets, exported = self.specs[node].outputs or (self.names[node],), self.assets.exported
        return tuple(exported[each][-1] if each in exported else each for each in assets) if exported else assets

    def all_assets(self) -> Iterator[str]:
        """Go through all assets in add order."""
        for node in range(len(self.specs)):
            yield from self.assets_of(node)

    def refuse(self, unmet: Iterable[tuple[int, str]]) -> None:
        """Raise the problems of steps with resources and limits, if there are any.

        Args:
            unmet: Steps, and what is wrong with them.

        Raises:
            PipelineValidationError: With all problems.
        """
        for node, message in unmet:
            self.problems.add_of_step(node, [Problem(RESOURCE_LIMIT, message=message)])
        self.problems.raise_all(self.name)

    def _add_missing(self, scope: Scope) -> None:
        """Add parameters without a value, which a run might still give, to the other problems."""
        firsts = {spec: node for node, spec in reversed(list(enumerate(self.specs)))}
        missing: dict[StepSpec, list[Problem]] = {}
        for spec, node in firsts.items():
            problems = bind(spec, self.assets, scope, self.reads[node], without=node).problems
            missing[spec] = [each for each in problems if each.kind is MISSING_PARAMETERS]
        for node, spec in enumerate(self.specs):
            self.problems.add_of_step(node, missing[spec])

    def _build_graph(self, builder: DependencyBuilder, *, strict: bool) -> Graph:
        edges, joins = builder.edges, builder.joins(self.specs)
        try:
            graph = Graph(self.names, self._counts, edges.dependents, edges.dependencies, edges.kinds(), joins)
        except GraphError as error:
            self.problems.add_graph(error.problems)
            self.invalid_edges = edges
            graph = Graph(self.names, self._counts, array("I"), array("I"), None)
        if strict:
            self.problems.raise_all(self.name)
        return graph


def _mapped(specs: Sequence[StepSpec]) -> frozenset[int]:
    if all(spec.map_input is None for spec in set(specs)):
        return frozenset()
    return frozenset(node for node, spec in enumerate(specs) if spec.map_input is not None)
