"""The graph from Python: compared with `graphlib`, every problem as data, a million nodes."""

from __future__ import annotations

import graphlib
import itertools
import time
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowyml._core import Graph
from flowyml.errors import FlowymlError, GraphError

UNKNOWN = 2**32 - 1
MILLION = 1_000_000


def ids(*values: int) -> array[int]:
    return array("I", values)


def make(
    nodes: int, *edges: tuple[int, int], counts: array[int] | None = None, elementwise: bytes | None = None
) -> Graph:
    """Make a graph of (dependent, dependency) pairs."""
    dependents, dependencies = ids(*(a for a, _ in edges)), ids(*(b for _, b in edges))
    return Graph([str(node) for node in range(nodes)], counts, dependents, dependencies, elementwise)


def problems(nodes: int, *edges: tuple[int, int], **others: object) -> list[tuple[object, ...]]:
    with pytest.raises(GraphError) as caught:
        make(nodes, *edges, **others)
    return caught.value.problems


graphs = st.integers(1, 8).flatmap(
    lambda nodes: st.tuples(
        st.just(nodes),
        st.lists(st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1)), max_size=14),
    )
)


@given(graphs)
def test_it_accepts_what_graphlib_accepts(graph):
    nodes, edges = graph
    sorter = graphlib.TopologicalSorter({node: [] for node in range(nodes)})
    for node, dependency in edges:
        sorter.add(node, dependency)
    try:
        sorter.prepare()
    except graphlib.CycleError:
        found = problems(nodes, *edges)
        assert {problem[0] for problem in found} <= {"cycle", "self"}
        assert found
    else:
        assert make(nodes, *edges).node_count == nodes


@given(graphs)
def test_the_order_is_one_that_graphlib_allows(graph):
    nodes, pairs = graph
    edges = [(max(pair), min(pair)) for pair in pairs if pair[0] != pair[1]]
    sorter = graphlib.TopologicalSorter({node: [] for node in range(nodes)})
    for node, dependency in edges:
        sorter.add(node, dependency)
    sorter.prepare()
    ready = set(sorter.get_ready())
    for node in make(nodes, *edges).order():
        assert node in ready
        sorter.done(node)
        ready.update(sorter.get_ready())
    assert not sorter.is_active()


@given(graphs)
def test_a_cycle_is_a_path_from_its_lowest_node(graph):
    nodes, edges = graph
    try:
        make(nodes, *edges)
    except GraphError as error:
        for path in (problem[1] for problem in error.problems if problem[0] == "cycle"):
            assert path[0] == path[-1] == min(path)
            assert all((after, before) in edges for before, after in itertools.pairwise(path))


def test_neighbours_counts_and_weights():
    graph = make(4, (1, 0), (2, 0), (3, 2), (3, 1), counts=ids(1, 5, 1, 1))
    assert (graph.node_count, graph.item_count, graph.edge_count) == (4, 8, 4)
    assert (graph.dependencies(3), graph.dependents(0)) == ([2, 1], [1, 2])
    assert [graph.first_item(node) for node in range(4)] == [0, 1, 6, 7]
    assert [graph.count(node) for node in range(4)] == [1, 5, 1, 1]
    assert [graph.weight(node) for node in range(4)] == [3, 2, 2, 1]
    assert graph.order() == ids(0, 1, 2, 3)


def test_everything_wrong_comes_at_once():
    found = problems(4, (0, 0), (1, 2), (2, 1), (3, 9))
    assert found == [("self", 0), ("range", 9), ("cycle", [1, 2, 1])]


def test_elementwise_edges_join_equal_lengths():
    assert problems(2, (1, 0), counts=ids(3, 4), elementwise=b"\1") == [("length", 1, 0)]
    graph = make(2, (1, 0), counts=ids(UNKNOWN, 1), elementwise=b"\1")
    assert (graph.count(1), graph.item_count) == (UNKNOWN, 0)


def test_too_many_items_are_a_problem():
    assert problems(2, counts=ids(UNKNOWN - 1, 2)) == [("size",)]
    # One is as long as the other, which says so only once lengths are settled.
    assert problems(2, (1, 0), counts=ids(3_000_000_000, UNKNOWN), elementwise=b"\1") == [("size",)]


def test_names_are_looked_up_once():
    graph = Graph.from_names({"a": [], "b": ["a"], "c": {"a", "b"}})
    assert graph.order() == ids(0, 1, 2)
    assert Graph.from_names((name, iter(names)) for name, names in [("a", ""), ("b", "aa")]).edge_count == 1


def test_names_that_are_wrong_come_at_once():
    with pytest.raises(GraphError) as caught:
        Graph.from_names([("a", ["b"]), ("b", ["a"]), ("c", ["x"]), ("a", ())])
    assert caught.value.problems == [("duplicate", "a", 0, 3), ("unknown", 2, "x"), ("cycle", [0, 1, 0])]


def test_a_string_is_no_list_of_names():
    with pytest.raises(TypeError, match="the one string 'ab'"):
        Graph.from_names({"a": "ab"})


def test_the_error_is_one_of_ours_and_a_value_error():
    assert issubclass(GraphError, FlowymlError)
    assert issubclass(GraphError, ValueError)


@pytest.mark.parametrize(
    ("counts", "dependents", "dependencies", "elementwise"),
    [
        (ids(1), ids(), ids(), None),
        (None, ids(0), ids(), None),
        (None, ids(1), ids(0), b"\1\1"),
    ],
)
def test_arrays_that_belong_together_are_equally_long(counts, dependents, dependencies, elementwise):
    with pytest.raises(ValueError, match="expected as many"):
        Graph(["a", "b"], counts, dependents, dependencies, elementwise)


@pytest.mark.parametrize("wrong", [[0], array("d", [0.0]), "a", array("Q", [0]), memoryview(array("I", [0, 0]))[::2]])
def test_edges_are_32_bit_arrays(wrong):
    try:
        Graph(["a", "b"], None, wrong, ids(1))
    except (TypeError, BufferError):
        return
    assert isinstance(wrong, memoryview)


def test_nodes_that_are_not_there_are_index_errors():
    graph = make(2)
    for ask in (graph.dependencies, graph.dependents, graph.first_item, graph.count, graph.weight):
        with pytest.raises(IndexError, match="there is no node 2: expected less than 2"):
            ask(2)
        with pytest.raises(OverflowError):
            ask(-1)


def test_a_chain_of_a_million_nodes_is_checked_and_ordered_in_a_moment():
    names = ["x"] * MILLION
    began = time.perf_counter()
    graph = Graph(names, None, array("I", range(1, MILLION)), array("I", range(MILLION - 1)))
    assert graph.order() == array("I", range(MILLION))
    assert graph.weight(0) == MILLION
    assert time.perf_counter() - began < 30


def test_a_cycle_of_a_million_nodes_is_found_without_recursion():
    dependents, dependencies = array("I", range(MILLION)), array("I", [MILLION - 1, *range(MILLION - 1)])
    with pytest.raises(GraphError) as caught:
        Graph(["x"] * MILLION, None, dependents, dependencies)
    [(kind, path)] = caught.value.problems
    assert (kind, len(path)) == ("cycle", MILLION + 1)
