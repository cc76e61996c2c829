"""The core alone: a random graph built, validated and put in order, beside others that do the same.

Each node waits for two drawn ones before it. Everybody gets the edges in the form in which it takes them, made before
the clock starts: two flat arrays, a list of pairs, a mapping to tuples. `benches/core.rs` measures it without Python.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, ClassVar

from cases.contract import Bar, Case, Group
from cases.pair import Pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figures

MILLION, LARGE = 1_000_000, 10_000_000
OURS, RUSTWORKX, GRAPHLIB = "flowyml core", "rustworkx", "graphlib"


class Core(Case):
    """Our graph."""

    phases = ("build", "order")
    most: ClassVar[int] = LARGE

    def start(self) -> None:
        import numpy as np

        self.size = self.units = min(self.size, self.most)
        drawn = np.random.default_rng(7).random((self.size - 1, 2))
        later = np.repeat(np.arange(1, self.size, dtype=np.uint32), 2)
        before = (drawn * np.arange(1, self.size)[:, None]).astype(np.uint32).ravel()
        self.take(later, before)

    def take(self, later: Any, before: Any) -> None:
        """Put the edges into the form in which they are taken."""
        self.later, self.before = array("I", later.tobytes()), array("I", before.tobytes())

    def build(self) -> None:
        from flowyml._core import Graph

        self.graph: Any = Graph(range(self.size), None, self.later, self.before)

    def order(self) -> None:
        self.found: Any = self.graph.order()

    def check(self) -> None:
        import numpy as np

        place = np.empty(self.size, dtype=np.uint32)
        place[np.fromiter(self.found, dtype=np.uint32, count=self.size)] = np.arange(self.size, dtype=np.uint32)
        later, before = self.edges()
        assert (place[before] < place[later]).all()

    def edges(self) -> tuple[Any, Any]:
        """Return the edges as arrays of numpy."""
        import numpy as np

        return np.frombuffer(self.later, dtype=np.uint32), np.frombuffer(self.before, dtype=np.uint32)


class Rustworkx(Core):
    """`PyDiGraph` and `topological_sort`."""

    needs = ("rustworkx",)
    most = MILLION

    def take(self, later: Any, before: Any) -> None:
        super().take(later, before)
        self.pairs = list(zip(before.tolist(), later.tolist(), strict=True))
        self.nodes = range(self.size)

    def build(self) -> None:
        import rustworkx

        self.graph = rustworkx.PyDiGraph()
        self.graph.add_nodes_from(self.nodes)
        self.graph.add_edges_from_no_data(self.pairs)

    def order(self) -> None:
        import rustworkx

        self.found = rustworkx.topological_sort(self.graph)


class Graphlib(Core):
    """`graphlib.TopologicalSorter`."""

    most = MILLION

    def take(self, later: Any, before: Any) -> None:
        super().take(later, before)
        each = iter(before.tolist())
        self.mapping: dict[int, tuple[int, ...]] = {0: ()}
        self.mapping.update(enumerate(zip(each, each, strict=True), 1))

    def build(self) -> None:
        from graphlib import TopologicalSorter

        self.graph = TopologicalSorter(self.mapping)

    def order(self) -> None:
        self.found = list(self.graph.static_order())


def _beside(baseline: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.ratio("core", Pair(OURS, baseline), MILLION)


def _seconds(figures: Figures) -> float | None:
    each = figures.cost("core", OURS, LARGE)
    return None if each is None else each * LARGE / 1e6


def _bytes(figures: Figures) -> float | None:
    """How many bytes a node building takes at its peak, above what there was before."""
    found = figures.of("core", OURS, LARGE)
    return None if not found else (found[0]["phases"]["build"]["peak"] - found[0]["start"]["rss"]) / LARGE


GROUP = Group(
    title="The core alone",
    unit=("us per node", 1e6),
    cases={OURS: Core, RUSTWORKX: Rustworkx, GRAPHLIB: Graphlib},
    sizes={MILLION: 3, LARGE: 1},
    quick={1_000: 1},
    pairs=(Pair(OURS, RUSTWORKX), Pair(OURS, GRAPHLIB)),
    bars=(
        Bar("10M nodes, 20M edges: build, validate, order", 1.5, _seconds, "s"),
        Bar("10M nodes, 20M edges: memory to build", 60, _bytes, "B per node"),
        Bar("1M nodes, 2M edges, compared with rustworkx", 1 / 5, _beside(RUSTWORKX), "x"),
        Bar("1M nodes, 2M edges, compared with graphlib", 1 / 50, _beside(GRAPHLIB), "x"),
    ),
)
