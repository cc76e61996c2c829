"""`pipeline.dag`: views, queries and validation of the graph, checked against networkx."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowyml import CycleError, LocalExecutor, Pipeline, step


@step(outputs=["train", "test"])
def split(rows, fraction=0.5):
    return rows, fraction


@step
def mean(train):
    return train


def made(name: str, before: list[str], log: list[str] | None = None):
    """Return a function that takes any number of inputs, and notes when it runs."""

    def run(*_values):
        if log is not None:
            log.append(name)

    return run


def pipeline_of(text: str, log: list[str] | None = None) -> Pipeline:
    """Make a pipeline of "a b>a c>a,b": each name, and what it reads; steps may stand before what they read."""
    pipeline = Pipeline("drawn")
    for word in text.split():
        name, _, before = word.partition(">")
        names = before.split(",") if before else []
        pipeline.add_step(made(name, names, log), name=name, inputs=names or None)
    return pipeline


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[int, list[int]]]:
    """Draw acyclic graphs whose steps were added in any order, each with the numbers of what it reads."""
    count = draw(st.integers(1, 12))
    before = [sorted(draw(st.sets(st.integers(0, node - 1), max_size=4))) if node else [] for node in range(count)]
    added = draw(st.permutations(range(count)))
    return [(node, before[node]) for node in added]


def drawn(graph: list[tuple[int, list[int]]], log: list[str] | None = None) -> Pipeline:
    words = [f"s{node}>{','.join(f's{each}' for each in before)}" if before else f"s{node}" for node, before in graph]
    return pipeline_of(" ".join(words), log)


def reference(graph: list[tuple[int, list[int]]]) -> nx.DiGraph:
    made = nx.DiGraph()
    made.add_nodes_from(f"s{node}" for node, _ in graph)
    made.add_edges_from((f"s{each}", f"s{node}") for node, before in graph for each in before)
    return made


# -- views


def test_nodes_say_what_was_added():
    dag = Pipeline("p").add_steps([split, mean]).map(len, ["a", "bc"], name="sizes").dag
    node = dag.nodes["split"]
    assert (node.name, node.step, node.inputs, node.outputs, node.items) == (
        "split",
        split,
        [],
        ["train", "test"],
        None,
    )
    assert (dag.nodes["mean"].inputs, dag.nodes["mean"].outputs) == (["train"], ["mean"])
    assert (dag.nodes["sizes"].items, list(dag.nodes)) == (2, ["split", "mean", "sizes"])


def test_nodes_name_their_params():
    assert Pipeline("p").add_step(split, params={"rows": [1]}).dag.nodes["split"].params == ["rows"]


def test_nodes_are_equal_by_name():
    dag = Pipeline("p").add_step(mean).dag
    assert len({dag.nodes["mean"], dag.nodes["mean"]}) == 1


def test_edges_are_sets_in_add_order():
    dag = pipeline_of("c a b d>b,a,c").dag
    assert dag.edges["d"] == {"a", "b", "c"}
    assert list(dag.edges["d"]) == ["c", "a", "b"]
    assert (dag.reverse_edges["a"], dag.edges["a"]) == ({"d"}, set())


def test_after_is_an_edge_without_an_asset():
    dag = pipeline_of("a").add_step(made("b", []), name="b", after="a").dag
    assert (dag.edges["b"], dag.nodes["b"].inputs, dag.asset_consumers["a"]) == ({"a"}, [], set())


def test_assets_have_producers_and_consumers():
    dag = Pipeline("p").add_steps([split, mean]).dag
    assert dict(dag.asset_producers) == {"train": "split", "test": "split", "mean": "mean"}
    assert (dag.asset_consumers["train"], dag.asset_consumers["test"]) == ({"mean"}, set())


def test_a_glob_reads_all_that_fit():
    dag = pipeline_of("a_1 a_2 b c>a_*").dag
    assert (dag.nodes["c"].inputs, dag.asset_consumers["a_1"], dag.asset_consumers["b"]) == (
        ["a_1", "a_2"],
        {"c"},
        set(),
    )


def test_an_empty_map_is_told_from_its_neighbour():
    pipeline = Pipeline("p").map(len, [], name="empty").map(len, ["a"], name="full")
    dag = pipeline.add_step(sum, inputs=["empty"]).dag
    assert (dag.nodes["sum"].inputs, dag.nodes["empty"].items) == (["empty"], 0)


def test_views_are_read_only_and_show_themselves():
    dag = pipeline_of("a b>a").dag
    with pytest.raises(TypeError):
        dag.nodes["x"] = 1
    assert repr(dag.nodes) == "<2 names: 'a', 'b'>"
    assert "x" not in dag.nodes
    assert repr(dag) == "<DAG 'drawn' of 2 steps>"


def test_a_later_step_is_in_the_next_dag():
    pipeline = pipeline_of("a")
    first = pipeline.dag
    assert pipeline.dag is first
    pipeline.add_step(mean)
    assert (len(first), len(pipeline.dag), list(first.nodes)) == (1, 2, ["a"])


@pytest.mark.parametrize("view", ["nodes", "edges", "reverse_edges", "asset_producers", "asset_consumers"])
def test_an_unknown_name_gets_the_nearest(view):
    with pytest.raises(KeyError, match="did you mean 'preprocess'"):
        getattr(pipeline_of("load preprocess>load").dag, view)["preproces"]


def test_an_empty_pipeline_has_a_dag():
    dag = Pipeline("none").dag
    assert (len(dag), dag.topological_sort(), dag.validate(), dict(dag.nodes)) == (0, [], ([], []), {})


# -- queries


@given(graphs())
def test_queries_agree_with_networkx(graph):
    dag, other = drawn(graph).dag, reference(graph)
    for name in other:
        assert dag.get_dependencies(name) == set(other.predecessors(name))
        assert dag.get_dependents(name) == set(other.successors(name))
        assert dag.get_all_dependencies(name) == nx.ancestors(other, name)
        assert dag.get_all_dependents(name) == nx.descendants(other, name)


@given(graphs())
def test_the_order_is_that_of_networkx_by_add_order(graph):
    dag, other = drawn(graph).dag, reference(graph)
    place = {f"s{node}": position for position, (node, _) in enumerate(graph)}
    expected = list(nx.lexicographical_topological_sort(other, key=place.__getitem__))
    assert [node.name for node in dag.topological_sort()] == expected


def test_the_order_is_that_of_the_local_executor():
    log: list[str] = []
    pipeline = pipeline_of("d>b,c a c>a b>a e", log)
    pipeline.run(executor=LocalExecutor())
    assert log == [node.name for node in pipeline.dag.topological_sort()]


@given(graphs())
def test_to_networkx_is_the_same_graph(graph):
    made, other = drawn(graph).dag.to_networkx(), reference(graph)
    assert list(made) == list(other)
    assert set(made.edges) == set(other.edges)


def test_networkx_nodes_carry_what_nodes_say():
    graph = Pipeline("p").add_steps([split, mean]).dag.to_networkx()
    assert (graph.name, graph.nodes["split"]["outputs"], graph.nodes["mean"]["step"]) == ("p", ["train", "test"], mean)


def test_a_chain_of_many_is_no_recursion():
    pipeline = Pipeline("chain").add_step(made("s0", []), name="s0")
    link = made("link", [])
    for i in range(1, 20_000):
        pipeline.add_step(link, name=f"s{i}", inputs=[f"s{i - 1}"])
    dag = pipeline.dag
    assert len(dag.get_all_dependents("s0")) == len(dag.get_all_dependencies("s19999")) == 19_999


# -- what is not valid


def test_a_cycle_can_be_looked_at():
    dag = pipeline_of("a>c b>a c>b d>c e").dag
    assert (dag.edges["a"], dag.reverse_edges["c"]) == ({"c"}, {"a", "d"})
    assert dag.get_all_dependencies("d") == {"a", "b", "c"}
    with pytest.raises(CycleError, match="cycles") as caught:
        dag.topological_sort()
    assert caught.value.cycle == ["a", "b", "c", "a"]


def test_a_step_that_reads_itself_is_a_cycle():
    errors, _ = pipeline_of("a>a").dag.validate()
    assert [error.partition("!")[0] for error in errors] == ["Pipeline contains cycles"]


def test_validate_has_the_sentences_of_build():
    pipeline = pipeline_of("a>b b>a c>nowhere").add_step(mean, name="twice", outputs=["x"])
    pipeline.add_step(mean, name="again", outputs=["x"])
    errors, _ = pipeline.dag.validate()
    with pytest.raises(ValueError, match="cycles") as caught:
        pipeline.build()
    assert errors == caught.value.problems
    assert len(errors) == 5  # what the two producers lack comes along


def test_validate_warns_of_what_run_must_give():
    pipeline = Pipeline("p").add_step(split).add_step(mean)
    assert pipeline.dag.validate() == (
        [],
        [
            "Node 'split' needs 'rows' from run(inputs=) or a context",
            "Dead output: asset 'test' of node 'split' is read by no step",
        ],
    )


def test_alike_steps_share_a_warning():
    pipeline = Pipeline("p")
    for i in range(3):
        pipeline.add_step(mean, name=f"mean_{i}")
    assert pipeline.dag.validate()[1] == ["Node 'mean_0' (and 2 like it) needs 'train' from run(inputs=) or a context"]


def test_an_input_that_no_step_produces_counts_as_one_of_the_run():
    dag = pipeline_of("a>raw b>a").dag
    assert (dag.nodes["a"].inputs, dag.asset_consumers["raw"], dag.edges["a"]) == (["raw"], {"a"}, set())
    assert "raw" not in dag.asset_producers
    assert "requires undefined asset 'raw'" in dag.validate()[0][0]
