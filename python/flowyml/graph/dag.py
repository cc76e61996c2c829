"""DAG: the graph of a pipeline as an object with queries and pictures.

```
Pipeline ──build without raising──▶ Plan ──▶ _core.Graph ◀── DAG: views by name, queries, pictures
```

Everything is a read-only view: nodes and names of neighbours are created on access, so a million steps do not become a
million objects. An invalid pipeline has a DAG too, although its plan has no core graph: `validate` returns its
problems, and names that no step produces count as inputs of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flowyml.diagnostics.text import did_you_mean, join_names, pluralize
from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.graph import renderer
from flowyml.graph.explain import ArgumentTrace, Explanation, options_of
from flowyml.graph.model import picture_of
from flowyml.graph.ordering import add_order
from flowyml.planning.item_index import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet
    from typing import Literal, Protocol

    import networkx as nx

    from flowyml.caching.preview import ResumePreview
    from flowyml.graph.model import GraphModel
    from flowyml.planning.dependencies import EdgeList
    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.plan import Plan
    from flowyml.steps.step import Step

    class EdgeSource(Protocol):
        """Edges by node id."""

        def dependencies(self, node: int, /) -> list[int]: ...  # noqa: D102
        def dependents(self, node: int, /) -> list[int]: ...  # noqa: D102


T = TypeVar("T")


def edges_of(plan: Plan) -> EdgeSource:
    """Return the edges of a plan, valid or not."""
    return plan.graph if plan.invalid_edges is None else _InvalidGraphEdges(plan.invalid_edges)


class _InvalidGraphEdges:
    def __init__(self, edges: EdgeList) -> None:
        self._before: dict[int, dict[int, None]] = {}
        self._after: dict[int, dict[int, None]] = {}
        for node, before in zip(edges.dependents, edges.dependencies, strict=True):
            self._before.setdefault(node, {})[before] = None
            self._after.setdefault(before, {})[node] = None

    def dependencies(self, node: int) -> list[int]:
        return list(self._before.get(node, ()))

    def dependents(self, node: int) -> list[int]:
        return list(self._after.get(node, ()))


class LazyMapping(Mapping[str, T], Generic[T]):
    """A mapping by name whose values are created on access."""

    __slots__ = ("_make", "_plan")

    def __init__(self, plan: Plan, make: Callable[[Any], T]) -> None:
        self._plan = plan
        self._make = make

    def __repr__(self) -> str:
        return f"<{pluralize(len(self), 'name')}: {join_names(self)}>"


class StepMapping(LazyMapping[T]):
    """A lazy mapping by step name."""

    __slots__ = ()

    @hides_internal_frames
    def __getitem__(self, name: str) -> T:
        return self._make(node_of(self._plan, name))

    def __contains__(self, name: object) -> bool:
        return name in self._plan.numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan.names)

    def __len__(self) -> int:
        return len(self._plan.names)


class AssetProducers(Mapping[str, str]):
    """The step that produces each asset."""

    __slots__ = ("_plan",)

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @hides_internal_frames
    def __getitem__(self, asset: str) -> str:
        producer = self._plan.assets.find(asset)
        if producer is None:
            raise KeyError(f"no step produces {asset!r}{did_you_mean(str(asset), self)}")
        return self._plan.names[producer[0]]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._plan.all_assets()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<producers of {pluralize(len(self), 'asset')}>"


class AssetConsumers(LazyMapping["AbstractSet[str]"]):
    """The steps that read each asset."""

    __slots__ = ()

    @hides_internal_frames
    def __getitem__(self, asset: str) -> AbstractSet[str]:
        if asset not in self:
            raise KeyError(f"no step produces or reads {asset!r}{did_you_mean(str(asset), self)}")
        return self._make(asset)

    def __contains__(self, asset: object) -> bool:
        return isinstance(asset, str) and (self._plan.assets.find(asset) is not None or asset in self._plan.undefined)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._plan.all_assets(), *self._plan.undefined]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def node_of(plan: Plan, name: object) -> int:
    """Return the node of a step.

    Raises:
        KeyError: If there is no such step, with near matches.
    """
    node = plan.numbers.get(name) if isinstance(name, str) else None
    if node is None:
        raise KeyError(f"no step {name!r} in pipeline {plan.name!r}{did_you_mean(str(name), plan.names)}")
    return node


# A notebook shows a picture of at most this many boxes, and beyond that this many lines of text.
_MAX_BOXES = 150
_MAX_LINES = 200


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a graph; equal to any node of the same name.

    Attributes:
        name: Name of the step in the pipeline.
        step: The step.
        inputs: Assets that it reads, declared or not.
        outputs: Assets that it produces.
        params: Names of the parameters given by `params`.
        mapped: True for a mapped step.
        items: Number of items of a mapped step; `None` if it is known only at run time.
        tags: Its tags, each with its value or "".
    """

    name: str
    step: Step[..., Any] = field(compare=False)
    inputs: list[str] = field(compare=False)
    outputs: list[str] = field(compare=False)
    params: list[str] = field(compare=False)
    mapped: bool = field(compare=False)
    items: int | None = field(compare=False)
    tags: dict[str, Any] = field(compare=False)


class DAG:
    """The graph of a pipeline: read-only views, queries and pictures. It is read from `Pipeline.dag`.

    Args:
        plan: The plan, valid or not.
        scope: The known context values.

    Attributes:
        name: Name of the pipeline.
        nodes: Nodes by step name, in add order.
        edges: For each step the names of its dependencies, in add order; compares equal to a set.
        reverse_edges: For each step the names of its dependents.
        asset_producers: For each asset the name of the step that produces it.
        asset_consumers: For each asset, and each declared input that no step produces, the names of the steps that
            read it.

    >>> from flowyml import Pipeline
    >>> dag = Pipeline("p").add_step(dict, name="raw").add_step(len, inputs=["raw"]).dag
    >>> dag.edges["len"] == {"raw"}, [node.name for node in dag.topological_sort()]
    (True, ['raw', 'len'])
    """

    def __init__(self, plan: Plan, scope: Scope) -> None:
        self._plan, self._scope = plan, scope
        self._edges = edges_of(plan)
        self.name: str = plan.name
        self.nodes: Mapping[str, Node] = StepMapping(plan, self._node)
        self.edges: Mapping[str, AbstractSet[str]] = StepMapping(plan, self._before)
        self.reverse_edges: Mapping[str, AbstractSet[str]] = StepMapping(plan, self._after)
        self.asset_producers: Mapping[str, str] = AssetProducers(plan)
        self.asset_consumers: Mapping[str, AbstractSet[str]] = AssetConsumers(plan, self._consumers)

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._plan.names)

    def __repr__(self) -> str:
        """Show name and size."""
        return f"<DAG {self.name!r} of {pluralize(len(self), 'step')}>"

    # -- queries

    def topological_sort(self) -> list[Node]:
        """Return the nodes with dependencies first, and steps that were added first as early as possible.

        This is the order in which `LocalExecutor` runs them.

        Raises:
            CycleError: If the graph has a cycle.
        """
        return [self._node(node) for node in self._order()]

    def get_dependencies(self, name: str) -> AbstractSet[str]:
        """Return the direct dependencies of a step.

        Raises:
            KeyError: If there is no such step, with near matches; the same applies to the methods below.
        """
        return self.edges[name]

    def get_dependents(self, name: str) -> AbstractSet[str]:
        """Return the direct dependents of a step."""
        return self.reverse_edges[name]

    def get_all_dependencies(self, name: str) -> AbstractSet[str]:
        """Return all direct and indirect dependencies of a step, in add order."""
        return self._reached(name, self._edges.dependencies)

    def get_all_dependents(self, name: str) -> AbstractSet[str]:
        """Return all direct and indirect dependents of a step, in add order."""
        return self._reached(name, self._edges.dependents)

    def validate(self) -> tuple[list[str], list[str]]:
        """Return errors and warnings as sentences; raises nothing.

        Errors are those that `Pipeline.build` raises. Warnings are parameters that only `run` can fill, and unread
        outputs of a step with several.
        """
        return self._plan.problems.sentences(), [*self._needs(), *self._dead()]

    @hides_internal_frames
    def explain(self, name: str) -> Explanation:
        """Return the source of each argument of a step; see `Pipeline.explain`."""
        plan, node = self._plan, self._explained(name)
        traced, spec = ArgumentTrace(plan, node, self._scope), plan.specs[node]
        return Explanation(
            step_name=plan.names[node],
            label=f"{spec.step.name or spec.step.func!r}, added at {spec.place}",
            arguments=tuple(traced.arguments),
            dependencies=tuple(self._before(node)),
            dependents=tuple(self._after(node)),
            options=options_of(plan, node),
            problems=(*traced.problems, *plan.problems.cycles_of(plan.names[node])),
            missing=tuple(traced.missing),
            mapped=plan.item_index.is_mapped(node),
            items=_known(plan.length_of(node)),
        )

    # -- pictures

    @hides_internal_frames
    def visualize(self, format: Literal["text", "mermaid", "dot", "svg"] = "text") -> str:  # noqa: A002
        """Return the graph as a string in one of four formats.

        Args:
            format: "text" for people, "mermaid" for Markdown, "dot" for graphviz, "svg" for browsers (which needs
                no graphviz). More than 20 steps of one function with the same dependencies share a line or box.

        Raises:
            ValueError: If the format is unknown.

        >>> from flowyml import Pipeline
        >>> print(Pipeline("p").add_step(dict, name="raw").add_step(len, inputs=["raw"]).dag.visualize())
        Pipeline DAG: p
        <BLANKLINE>
        Step Execution Order:
          1. raw
          2. len (depends on: raw)
        """
        return renderer(format)(self._picture)

    def to_networkx(self) -> nx.DiGraph[str]:
        """Return the graph as a `networkx.DiGraph` with edges from a step to its dependents.

        Nodes have the attributes `step`, `inputs`, `outputs`, `params`, `mapped` and `items`.

        Raises:
            ImportError: If networkx is not installed.
        """
        try:
            import networkx as nx
        except ImportError as error:
            raise ImportError("to_networkx() needs networkx: pip install networkx") from error
        graph: nx.DiGraph[str] = nx.DiGraph(name=self.name)
        for name, node in self.nodes.items():
            graph.add_node(
                name,
                **{
                    attribute.name: getattr(node, attribute.name)
                    for attribute in fields(node)
                    if attribute.name != "name"
                },
            )
        graph.add_edges_from((before, name) for name, others in self.edges.items() for before in others)
        return graph

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Show the picture in a notebook, with text as the alternative; of a large graph only text."""
        lines = self.visualize().split("\n")
        more = [f"  ... and {len(lines) - _MAX_LINES:,} more lines"] if len(lines) > _MAX_LINES else []
        bundle = {"text/plain": "\n".join([*lines[:_MAX_LINES], *more])}
        if 0 < len(self._picture.boxes) <= _MAX_BOXES:
            bundle["image/svg+xml"] = self.visualize("svg")
        return bundle

    # -- by node id

    @cached_property
    def _picture(self) -> GraphModel:
        return picture_of(self._plan, self._all_dependencies())

    def _all_dependencies(self) -> list[list[int]]:
        return list(map(self._edges.dependencies, range(len(self))))

    def _order(self) -> list[int]:
        order = add_order(self._all_dependencies())
        if len(order) < len(self):
            raise self._plan.problems.cycle_error(self.name)
        return order

    def _node(self, node: int) -> Node:
        plan = self._plan
        spec = plan.specs[node]
        return Node(
            name=plan.names[node],
            step=spec.step,
            inputs=ArgumentTrace(plan, node, self._scope).assets,
            outputs=list(plan.assets_of(node)),
            params=list(spec.keys),
            mapped=plan.item_index.is_mapped(node),
            items=_known(plan.length_of(node)),
            tags=dict(spec.options.tags or {}),
        )

    def _before(self, node: int) -> AbstractSet[str]:
        return self._named(sorted(self._edges.dependencies(node)))

    def _after(self, node: int) -> AbstractSet[str]:
        return self._named(self._edges.dependents(node))

    def _consumers(self, asset: str) -> AbstractSet[str]:
        """Return the steps that read an asset; not all dependents of its step do."""
        plan, producer = self._plan, self._plan.assets.find(asset)
        nodes = set(plan.undefined.get(asset, ()))
        if producer is not None:
            asset = plan.assets_of(producer[0])[producer[1] or 0]  # its listed name; it may have others
            after = self._edges.dependents(producer[0])
            nodes.update(node for node in after if asset in ArgumentTrace(plan, node, self._scope).assets)
        return self._named(sorted(nodes))

    def _reached(self, name: str, step: Callable[[int], list[int]]) -> AbstractSet[str]:
        start = node_of(self._plan, name)
        seen, waiting = {start}, [start]
        while waiting:
            new = [node for node in step(waiting.pop()) if node not in seen]
            seen.update(new)
            waiting += dict.fromkeys(new)
        return self._named(sorted(seen - {start}))

    def _named(self, nodes: Iterable[int]) -> AbstractSet[str]:
        return dict.fromkeys(self._plan.names[node] for node in nodes).keys()

    def _explained(self, name: str) -> int:
        producer = None if name in self._plan.numbers else self._plan.assets.find(name)
        return node_of(self._plan, name) if producer is None else producer[0]

    # -- warnings

    def _needs(self) -> Iterator[str]:
        """Yield the parameters that only `run` can fill, once for steps that were added alike."""
        plan = self._plan
        firsts: dict[int, list[int]] = {}
        for node, spec in enumerate(plan.specs):
            firsts.setdefault(id(spec), [node, -1])[1] += 1
        for node, others in firsts.values():
            missing = ArgumentTrace(plan, node, self._scope).missing
            if missing:
                more = f" (and {others:,} like it)" if others else ""
                named = ", ".join(map(repr, missing))
                yield f"Node {plan.names[node]!r}{more} needs {named} from run(inputs=) or a context"

    def _dead(self) -> Iterator[str]:
        """Yield the outputs that no step reads although other outputs of their step are read."""
        for node, spec in enumerate(self._plan.specs):
            if len(spec.outputs) > 1 and self._edges.dependents(node):
                for asset in spec.outputs:
                    if not self._consumers(asset):
                        yield f"Dead output: asset {asset!r} of node {self._plan.names[node]!r} is read by no step"


def dry_run_text(plan: Plan, scope: Scope, executor: str, cached: str | None, resumed: ResumePreview | None) -> str:
    """Return the text of a dry run: the steps that would run in order, and those that would not."""
    given = plan.given_steps()
    calls = plan.item_index.item_count - sum(len(plan.item_index.items_of(node)) for node in given)
    steps, at_least = len(plan.names) - len(given), bool(plan.item_index.waiting)
    if resumed is not None:
        steps, calls, at_least = resumed.steps, resumed.calls, resumed.at_least
    how_many = f"{pluralize(steps, 'step')} ({'at least ' * at_least}{pluralize(calls, 'call')})"
    headline = f"Dry run: {how_many} would run on {executor}; nothing was run."
    named = f"Given: {join_names([plan.names[node] for node in given])}." if given else None
    more = named, cached, resumed and resumed.text
    return "\n".join(filter(None, (f"{DAG(plan, scope).visualize()}\n\n{headline}", *more)))


def _known(length: int | None) -> int | None:
    return None if length == UNKNOWN else length
