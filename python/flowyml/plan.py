"""Plan: a pipeline, wired and validated, ready to run.

```
names, forms, rows, reads (what was added) ──▶ Plan: templates, references ──▶ _core.Graph (validated, immutable)
```

A plan numbers the steps in add order; the core sees numbers only, and names come back in messages. Everything that is
wrong with a pipeline is found here, in one pass and one error, before anything runs. A plan does not change afterwards
and holds no value of a run.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

from flowyml._core import Graph
from flowyml.conditions import Guarded
from flowyml.errors import CycleError, GraphError, PipelineValidationError
from flowyml.forms import Assets, Form
from flowyml.layout import UNKNOWN, Layout
from flowyml.lengths import counts_of, item_by_item
from flowyml.namespaces import enter, unneeded
from flowyml.options import NO_OPTIONS
from flowyml.store.values import nodes_of
from flowyml.wiring import Scope, Wired, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flowyml.namespaces import Namespace
    from flowyml.store.values import Reference
    from flowyml.templates import Template

# A cycle of more steps than this is told by the first few of them.
_LONG = 20
_SHOWN = 10


class Columns(NamedTuple):
    """What was added to a pipeline, in add order.

    Attributes:
        names: Step names with their numbers.
        forms: How each step was added.
        rows: The values of each step's `params`, in the order of its form's keys.
        reads: The declared inputs of each step, where they are plain names that differ from step to step.
        namespaces: The sub-pipelines, inner ones before those that they are in.
    """

    names: dict[str, int]
    forms: list[Form]
    rows: list[tuple[Any, ...]]
    reads: list[tuple[str, ...]]
    namespaces: Sequence[Namespace] = ()


class Plan:
    """A wired and validated pipeline.

    Args:
        name: The pipeline's name.
        columns: What was added to it; they must not change any more.
        scope: Values of the run's inputs and the contexts.
        strict: Raise what is wrong; otherwise keep it in `problems`, for those who only look.

    Raises:
        PipelineValidationError: With everything that is wrong.

    Attributes:
        names: Step names in add order.
        numbers: Their numbers.
        forms: How each step was added.
        rows: The values of each step's `params`.
        reads: The declared inputs of each step, where they differ from step to step.
        namespaces: The sub-pipelines.
        layout: Which items each step has.
        assets: Who produces what.
        templates: How each step calls its function.
        references: What the arguments of the steps that read assets refer to.
        graph: The validated graph.
        loose: The edges of a graph that is not valid, which `graph` then does not have.
        problems: What is wrong.
        undefined: Declared inputs that nothing gives, and the steps that declare them.
        special: The forms whose steps have options, by id.
        used: Names of run inputs and context values that some step takes.
        has_timeouts: Whether some step has a time limit of its own.
    """

    def __init__(self, name: str, columns: Columns, scope: Scope, *, strict: bool = True) -> None:
        """Wire all steps, build the graph, and raise what is wrong."""
        self.name = name
        self.numbers, self.forms, self.rows, self.reads, self.namespaces = columns
        self.names = list(self.numbers)
        mapped = _mapped(self.forms)
        self.assets = Assets(self.numbers, self.forms, Layout(len(self.forms), None, mapped))
        self.templates: list[Template | None] = []
        self.references: dict[int, tuple[Reference, ...]] = {}
        self.used: set[str] = set()
        self.special: dict[int, Form] = {}
        self._has_joins = self.has_timeouts = False
        self.undefined: dict[str, list[int]] = {}
        clashes = [*self.assets.problems(), *enter(self.assets, self.namespaces)]
        self._counts = counts_of(self.forms, self.assets, scope) if mapped else None
        self.layout = self.assets.layout = Layout(len(self.forms), self._counts, mapped)
        self.problems = Problems(self.names, self.forms, clashes)
        self.loose: Edges | None = None
        edges = Edges(array("I"), array("I"), bytearray())
        self._wire(scope, edges)
        self.problems.sentences += unneeded(self.assets, self.namespaces)
        self.graph = self._build_graph(edges, strict=strict)

    def item_name(self, node: int, index: int | None = None) -> str:
        """Return the name of a step, or of one item of a mapped step."""
        return self.names[node] if index is None else f"{self.names[node]}[{index}]"

    def function_of(self, node: int) -> Callable[..., Any]:
        """Return what is called for a step, as it was given: its function, behind its conditions if it has some."""
        template = self.templates[node]
        guarded = template is not None and isinstance(template.function, Guarded)
        return template.function if guarded else self.forms[node].step.func  # type: ignore[union-attr]

    def length_of(self, node: int) -> int | None:
        """Return how many items a mapped step has, or `UNKNOWN`; `None` for an ordinary step."""
        if not self.layout.is_mapped(node):
            return None
        return UNKNOWN if node in self.layout.waiting else len(self.layout.items_of(node))

    def read_nodes(self) -> set[int]:
        """Return the steps whose values other steps read."""
        return {node for references in self.references.values() for node in nodes_of(references, self.layout)}

    def assets_of(self, node: int) -> tuple[str, ...]:
        """Return the assets that a step produces; one that a sub-pipeline exports by that name."""
        assets, exported = self.forms[node].outputs or (self.names[node],), self.assets.exported
        return tuple(exported[each][-1] if each in exported else each for each in assets) if exported else assets

    def all_assets(self) -> Iterator[str]:
        """Go through all assets in add order."""
        for node in range(len(self.forms)):
            yield from self.assets_of(node)

    def _wire(self, scope: Scope, edges: Edges) -> None:
        done: dict[int, Wired] = {}
        append, reads = self.templates.append, self.reads
        mapped: dict[int, Wired] = {}
        for node, form in enumerate(self.forms):
            wired, own, alike = done.get(id(form)), reads[node], None
            if wired is None:
                wired = done[id(form)] = self._wired(form, scope, own)
            elif own:
                alike = wired.with_reads(own)
                if alike is None:
                    wired = self._wired(form, scope, own)
            if node in wired.own_risk:
                alike, wired = None, self._wired(form, scope, own, without=node)
            append(wired.template)
            if wired.problems:
                self.problems.add(node, wired.problems)
                for asset in wired.undefined:
                    self.undefined.setdefault(asset, []).append(node)
            if wired.producers or wired.followed:
                self.references[node], producers = alike or (wired.references, wired.producers)
                edges.add(node, producers)
            if form.over is not None:
                mapped[node] = wired
        self._follow(mapped, edges)

    def _follow(self, mapped: dict[int, Wired], edges: Edges) -> None:
        """Let mapped steps wait for those whose items theirs are made of: item by item where that can be."""
        linked = item_by_item(mapped, self.layout)
        for node, wired in mapped.items():
            edges.add(node, wired.followed, elementwise=node in linked)
            if wired.followed and node not in linked and self.forms[node].options.run_if == "any":
                self.problems.add(
                    node, ['runs over whole lists, which does not go with run_if="any": map item by item']
                )

    def _wired(self, form: Form, scope: Scope, own: tuple[str, ...], *, without: int | None = None) -> Wired:
        wired = wire(form, self.assets, scope, own, without=without)
        self._has_joins = self._has_joins or form.options.run_if == "any"
        self.has_timeouts = self.has_timeouts or form.options.timeout is not None
        if form.options is not NO_OPTIONS:
            self.special[id(form)] = form
        self.used |= wired.used
        return wired

    def _build_graph(self, edges: Edges, *, strict: bool) -> Graph:
        try:
            graph = Graph(self.names, self._counts, edges.dependents, edges.dependencies, edges.kinds(), self._joins())
        except GraphError as error:
            self.problems.add_graph(error.problems)
            self.loose = edges
            graph = Graph(self.names, self._counts, array("I"), array("I"), None)
        if strict:
            self.problems.raise_all(self.name)
        return graph

    def _joins(self) -> bytes | None:
        """Return for each step 1 if it is a join; `None` if none is."""
        return bytes(form.options.run_if == "any" for form in self.forms) if self._has_joins else None


class Edges(NamedTuple):
    """Who waits for whom; `elementwise` has a 1 for each that waits item by item, up to the last of those."""

    dependents: array[int]
    dependencies: array[int]
    elementwise: bytearray

    def kinds(self) -> bytes | None:
        """Return 1 for each edge that is elementwise, else 0; `None` if none is."""
        return bytes(self.elementwise.ljust(len(self.dependents), b"\0")) if self.elementwise else None

    def add(self, node: int, producers: list[int], *, elementwise: bool = False) -> None:
        """Let a step wait for its producers."""
        if elementwise:
            self.elementwise.extend(bytes(len(self.dependents) - len(self.elementwise)) + b"\1" * len(producers))
        if len(producers) == 1:
            self.dependents.append(node)
            self.dependencies.append(producers[0])
        else:
            self.dependents.extend([node] * len(producers))
            self.dependencies.extend(producers)


def _mapped(forms: Sequence[Form]) -> frozenset[int]:
    if all(form.over is None for form in set(forms)):
        return frozenset()
    return frozenset(node for node, form in enumerate(forms) if form.over is not None)


class Problems:
    """Everything that is wrong with a pipeline, in words."""

    def __init__(self, names: Sequence[str], forms: Sequence[Form], first: list[str]) -> None:
        self.names, self.forms = names, forms
        self.sentences = list(first)
        self.cycles: list[list[str]] = []
        # By form and problem: where its sentence is, and how many more steps it is about.
        self._alike: dict[tuple[int, str], list[int]] = {}

    def add(self, node: int, problems: list[str]) -> None:
        """Enter a step's problems; steps that were added in the same way share a line."""
        for problem in problems:
            key = (id(self.forms[node]), problem)
            if key in self._alike:
                self._alike[key][1] += 1
            else:
                self._alike[key] = [len(self.sentences), 0]
                self.sentences.append(f"Node {self.names[node]!r} {_as_clause(problem)} ({self.forms[node].place})")

    def add_graph(self, problems: list[tuple[Any, ...]]) -> None:
        """Put the core's findings into words."""
        for kind, *data in problems:
            if kind == "cycle":
                self._add_cycle(data[0])
            elif kind == "self":
                self._add_cycle([data[0], data[0]])
            else:
                self.sentences.append(f"the graph is not valid: {kind} {data}")

    def _add_cycle(self, path: list[int]) -> None:
        names = [self.names[node] for node in path]
        self.cycles.append(names)
        shown = names if len(names) <= _LONG else [*names[:_SHOWN], f"({len(names) - _SHOWN - 1} more)", names[-1]]
        places = ", ".join(f"{self.names[node]!r} ({self.forms[node].place})" for node in path[:-1][:_SHOWN])
        self.sentences.append(f"Pipeline contains cycles! {' → '.join(shown)}: {places}")

    def cycles_of(self, name: str) -> list[str]:
        """Say in which cycles a step is."""
        return [f"is in a cycle: {' → '.join(path)}" for path in self.cycles if name in path]

    def raise_all(self, pipeline: str) -> None:
        """Raise everything in one error, if there is anything."""
        if not self.sentences:
            return
        sentences = self.told()
        if len(self.cycles) == len(sentences):
            raise CycleError(sentences, pipeline, self.cycles[0])
        raise PipelineValidationError(sentences, pipeline)

    def told(self) -> list[str]:
        """Return all sentences, each with the number of steps that it is about beside the one it names."""
        sentences = list(self.sentences)
        for at, others in self._alike.values():
            if others:
                sentences[at] += f", and {others} other{'s' if others > 1 else ''} like it"
        return sentences


def _as_clause(problem: str) -> str:
    return problem if problem.startswith("requires") else f"is not wired: {problem}"
