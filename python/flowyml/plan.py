"""Plan: a pipeline, wired and validated, ready to run.

```
names, forms, rows (what was added) ──▶ Plan: templates, references ──▶ _core.Graph (validated, immutable)
```

A plan numbers the steps in add order; the core sees numbers only, and names come back in messages. Everything that is
wrong with a pipeline is found here, in one pass and one error, before anything runs. A plan does not change afterwards
and holds no value of a run.
"""

from __future__ import annotations

from array import array
from itertools import accumulate, chain, repeat
from typing import TYPE_CHECKING, Any

from flowyml._core import Graph
from flowyml.errors import CycleError, GraphError, PipelineValidationError
from flowyml.wiring import Assets, Form, Scope, Template, Wired, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flowyml.store.values import Reference

_MOST_LIKE_IT = 3


class Plan:
    """A wired and validated pipeline.

    Args:
        name: The pipeline's name.
        names: Step names with their numbers, in add order.
        forms: The form of each step.
        rows: The values of each step's `params`.
        scope: Values of the run's inputs and the contexts.

    Raises:
        PipelineValidationError: With everything that is wrong.

    Attributes:
        templates: How each step calls its function.
        references: What the arguments of the steps that read assets refer to.
        graph: The validated graph.
        firsts: First item of each step; a step has one item, a mapped step as many as it was given.
        used: Names of run inputs and context values that some step takes.
    """

    def __init__(
        self,
        name: str,
        names: Mapping[str, int],
        forms: Sequence[Form],
        rows: Sequence[tuple[Any, ...]],
        scope: Scope,
    ) -> None:
        """Wire all steps, build the graph, and raise what is wrong."""
        self.name = name
        self.names = list(names)
        self.numbers = names
        self.forms = forms
        self.rows = rows
        self.counts = _counts(forms)
        self.firsts = _firsts(self.counts, len(forms))
        self.assets = Assets(names, forms)
        self.assets.firsts = self.firsts
        self.templates: list[Template | None] = []
        self.references: dict[int, tuple[Reference, ...]] = {}
        self.used: set[str] = set()
        self._dependents, self._dependencies = array("I"), array("I")
        self._problems = _Problems(self.names, forms, self.assets.problems)
        self._wire(scope)
        self.graph = self._build_graph()

    @property
    def item_count(self) -> int:
        """How many items there are in all."""
        return self.graph.item_count

    def node_of(self) -> Sequence[int]:
        """Return the step of each item."""
        if self.counts is None:
            return range(len(self.forms))
        return array("I", chain.from_iterable(map(repeat, range(len(self.counts)), self.counts)))

    def item_name(self, node: int, index: int | None = None) -> str:
        """Return the name of a step, or of one item of a mapped step."""
        return self.names[node] if index is None else f"{self.names[node]}[{index}]"

    def assets_of(self, node: int) -> tuple[str, ...]:
        """Return the assets that a step produces."""
        return self.forms[node].outputs or (self.names[node],)

    def all_assets(self) -> Iterator[str]:
        """Go through all assets in add order."""
        for node in range(len(self.forms)):
            yield from self.assets_of(node)

    def _wire(self, scope: Scope) -> None:
        done: dict[int, Wired] = {}
        append = self.templates.append
        for node, form in enumerate(self.forms):
            wired = done.get(id(form))
            if wired is None:
                wired = done[id(form)] = wire(form, self.assets, scope, self._itself(form, node))
                self.used |= wired.used
            if node in wired.own_risk:
                wired = wire(form, self.assets, scope, node)
            append(wired.template)
            if wired.problems:
                self._problems.add(node, wired.problems)
            elif wired.producers:
                self._connect(node, wired)

    def _itself(self, form: Form, node: int) -> int | None:
        """Return the step itself where only one step has this form, so that it is wired once."""
        return node if form.inputs is not None else None

    def _connect(self, node: int, wired: Wired) -> None:
        self.references[node] = wired.references
        self._dependencies.extend(wired.producers)
        self._dependents.extend([node] * len(wired.producers))

    def _build_graph(self) -> Graph:
        try:
            graph = Graph(self.names, self.counts, self._dependents, self._dependencies, None)
        except GraphError as error:
            self._problems.add_graph(error.problems)
            graph = None
        finally:
            del self._dependents, self._dependencies
        self._problems.raise_all(self.name)
        assert graph is not None  # noqa: S101  raise_all has raised
        return graph


def _counts(forms: Sequence[Form]) -> array[int] | None:
    """Return how many items each step has; `None` if all have one."""
    if all(form.items is None for form in set(forms)):
        return None
    return array("I", [1 if form.items is None else len(form.items) for form in forms])


def _firsts(counts: array[int] | None, nodes: int) -> Sequence[int]:
    if counts is None:
        return range(nodes)
    return array("I", [0, *accumulate(counts)])


class _Problems:
    """Everything that is wrong with a pipeline, in words."""

    def __init__(self, names: Sequence[str], forms: Sequence[Form], first: list[str]) -> None:
        self.names, self.forms = names, forms
        self.sentences = list(first)
        self.cycles: list[list[str]] = []
        self._seen: dict[tuple[int, str], int] = {}

    def add(self, node: int, problems: list[str]) -> None:
        """Enter a step's problems; steps that were added in the same way share a line."""
        for problem in problems:
            key = (id(self.forms[node]), problem)
            if key not in self._seen:
                self._seen[key] = len(self.sentences)
                self.sentences.append(f"Node {self.names[node]!r} {_as_clause(problem)} ({self.forms[node].place})")
            elif not self.sentences[self._seen[key]].endswith("like it"):
                self.sentences[self._seen[key]] += ", and others like it"

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
        places = ", ".join(f"{self.names[node]!r} ({self.forms[node].place})" for node in path[:-1][:_MOST_LIKE_IT])
        self.sentences.append(f"Pipeline contains cycles! {' → '.join(names)}: {places}")

    def raise_all(self, pipeline: str) -> None:
        """Raise everything in one error, if there is anything."""
        if not self.sentences:
            return
        if len(self.cycles) == len(self.sentences):
            raise CycleError(self.sentences, pipeline, self.cycles[0])
        raise PipelineValidationError(self.sentences, pipeline)


def _as_clause(problem: str) -> str:
    return problem if problem.startswith("requires") else f"is not wired: {problem}"
