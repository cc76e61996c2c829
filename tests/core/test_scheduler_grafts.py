"""The scheduler from Python: nodes that a running item brings."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from scheduler_driver import (
    CANCELLED,
    FAILED,
    READY,
    RUNNING,
    SKIPPED,
    SUCCESS,
    UNKNOWN,
    UPSTREAM_FAILED,
    WAITING,
    claim,
    due,
    finish,
    graph,
    run,
)

from flowyml._core import Batch, Scheduler
from flowyml.errors import GraphError


class TestGraft:
    """Nodes that come while the graph runs."""

    def graft(self, scheduler: Scheduler, batch: Batch, text: str, awaited: str = "", **options: Any) -> int:
        """Graft upon the first item of a batch; read `"x>y"` like `graph`, with digits for nodes that are there."""
        counts = options.pop("counts", {})
        edges = [word for word in text.split() if len(word) > 1]
        names = sorted(set(text) - set(" >~0123456789"))
        first = scheduler.node_count
        ids = {name: first + at for at, name in enumerate(names)} | {str(at): at for at in range(first)}
        return scheduler.graft(
            batch,
            0,
            1.0,
            array("I", [counts.get(name, 1) for name in names]),
            array("I", [ids[edge[2]] for edge in edges]),
            array("I", [ids[edge[0]] for edge in edges]),
            bytes(edge[1] == "~" for edge in edges),
            awaited=array("I", [ids[name] for name in awaited]),
            **options,
        )

    def test_the_item_runs_once_more_after_what_it_awaits(self):
        scheduler = Scheduler(graph("a>b"))
        assert self.graft(scheduler, claim(scheduler), "x>y z", "y") == 2
        assert (scheduler.state(0), scheduler.node_count, scheduler.item_count) == (WAITING, 5, 5)
        assert run(scheduler) == [[2, 4], [3], [0], [1]]
        assert scheduler.attempts() == bytes([1] * 5)
        assert scheduler.finished

    def test_ordinary_nodes_stay_ordinary(self):
        scheduler = Scheduler(graph("a", {"a": 1}))
        self.graft(scheduler, claim(scheduler), "x y z", "xyz", counts={"y": 2})
        assert claim(scheduler).runs == [(1, 1, 1, None), (2, 2, 2, 0), (4, 1, 3, None)]
        assert [scheduler.locate(item) for item in range(5)] == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]
        assert [(scheduler.first_item(node), scheduler.count(node)) for node in (1, 2, 3)] == [(1, 1), (2, 2), (4, 1)]

    def test_an_item_that_awaits_nothing_is_ready_at_once(self):
        scheduler = Scheduler(graph("a"))
        assert self.graft(scheduler, claim(scheduler), "") == 1
        assert run(scheduler) == [[0]]

    def test_a_failure_of_what_it_awaits_is_upstream_of_it(self):
        scheduler = Scheduler(graph("a>b"))
        self.graft(scheduler, claim(scheduler), "x y", "x")
        finish(scheduler, claim(scheduler), bytes([FAILED, SUCCESS]))
        assert scheduler.states() == bytes([UPSTREAM_FAILED, UPSTREAM_FAILED, FAILED, SUCCESS])

    @pytest.mark.parametrize("outcome", [FAILED, SKIPPED])
    def test_a_join_needs_all_that_it_awaits(self, outcome):
        scheduler = Scheduler(graph("a>c b>c", joins="c"))
        finish(scheduler, claim(scheduler), bytes([outcome, SUCCESS]))
        self.graft(scheduler, claim(scheduler), "x y", "xy")
        finish(scheduler, claim(scheduler), bytes([SUCCESS, outcome]))
        assert scheduler.state(2) == (UPSTREAM_FAILED if outcome == FAILED else SKIPPED)

    def test_what_is_awaited_is_as_urgent_as_who_awaits_it(self):
        scheduler = Scheduler(graph("a>b b>c d>e f"))
        batch = claim(scheduler, 1)
        self.graft(scheduler, batch, "x y", "y")
        assert [claim(scheduler, 1).items() for _ in range(4)] == [[7], [3], [5], [6]]

    def test_in_add_order_new_nodes_are_last(self):
        scheduler = Scheduler(graph("a>b c"), order="add")
        self.graft(scheduler, claim(scheduler, 1), "x", "x")
        assert run(scheduler) == [[2, 3], [0], [1]]

    def test_new_nodes_depend_on_what_is_there(self):
        scheduler = Scheduler(graph("a b c"))
        batch = claim(scheduler, 1)
        done = claim(scheduler, 1)
        finish(scheduler, done, bytes([FAILED]))
        self.graft(scheduler, batch, "1>x 2>y", "y")
        assert scheduler.states() == bytes([WAITING, FAILED, READY, UPSTREAM_FAILED, WAITING])
        assert (scheduler.dependencies(4), scheduler.dependents(2), scheduler.dependencies(0)) == ([2], [4], [4])

    def test_lengths_known_at_run_time(self):
        scheduler = Scheduler(graph("a b", {"b": UNKNOWN}))
        batch = claim(scheduler)
        self.graft(scheduler, batch, "x 1~y", "xy", counts={"x": UNKNOWN})
        assert due(scheduler) == [1, 2]
        assert [scheduler.group(node) for node in range(4)] == [[], [1, 3], [2], []]
        scheduler.expand(1, 2, 1.0)
        scheduler.expand(2, 1, 1.0)
        assert [scheduler.count(node) for node in range(4)] == [1, 2, 1, 2]
        assert claim(scheduler).items() == [5, 1, 2]

    def test_a_new_node_can_be_grafted_upon(self):
        scheduler = Scheduler(graph("a"))
        self.graft(scheduler, claim(scheduler), "x", "x")
        self.graft(scheduler, claim(scheduler), "y", "y")
        self.graft(scheduler, claim(scheduler), "z", "z")
        assert run(scheduler) == [[3], [2], [1], [0]]

    def test_an_item_can_be_grafted_upon_again(self):
        scheduler = Scheduler(graph("a"))
        for item in (1, 2):
            self.graft(scheduler, claim(scheduler), "x", "x")
            finish(scheduler, claim(scheduler))
            assert scheduler.state(item) == SUCCESS
        assert run(scheduler) == [[0]]
        assert scheduler.dependencies(0) == [1, 2]

    def test_a_cancelled_run_cancels_what_comes(self):
        scheduler = Scheduler(graph("a"))
        batch = claim(scheduler)
        scheduler.cancel(1.0)
        self.graft(scheduler, batch, "x>y z", "y", counts={"z": UNKNOWN})
        assert scheduler.states() == bytes([CANCELLED] * 3)
        assert scheduler.node_state(3) == CANCELLED
        assert scheduler.finished

    def test_values_are_released_as_the_mask_of_the_graft_says(self):
        scheduler = Scheduler(graph("a"), keep=bytes([0]))
        self.graft(scheduler, claim(scheduler), "x>z y>z", "z", keep=bytes([0, 1, 0]))
        finish(scheduler, claim(scheduler))
        assert scheduler.take_released() == []
        finish(scheduler, claim(scheduler))
        assert scheduler.take_released() == [1]
        finish(scheduler, claim(scheduler))
        assert scheduler.take_released() == [3]

    def test_nothing_depends_on_values_that_are_gone(self):
        scheduler = Scheduler(graph("a>b c"), keep=bytes([0, 0, 0]))
        for batch in (claim(scheduler, 1), claim(scheduler, 1)):
            last = batch
            if batch.items() != [2]:
                finish(scheduler, batch)
        finish(scheduler, claim(scheduler, 1))
        with pytest.raises(ValueError, match="a value of node 0 was released"):
            self.graft(scheduler, last, "0>x", "x")

    def test_limits_come_with_the_graft(self):
        scheduler = Scheduler(graph("a"))
        options: dict[str, Any] = {"limits": array("I", [1]), "demands": array("I", [1, 1]), "classes": [[], [(0, 1)]]}
        self.graft(scheduler, claim(scheduler), "x y", "xy", **options)
        batch = claim(scheduler, 1)
        assert (batch.limited, scheduler.ready, scheduler.parked) == (True, 0, 1)
        finish(scheduler, batch)
        assert claim(scheduler).items() == [2]

    @pytest.mark.parametrize(
        ("text", "awaited", "counts", "problems"),
        [
            ("x>y y>x", "", {}, [("cycle", [3, 4, 3])]),
            ("x>x", "", {}, [("self", 3)]),
            ("0>x", "x", {}, [("cycle", [0, 3, 0])]),
            ("2>x x>y", "y", {}, [("cycle", [0, 1, 2, 3, 4, 0])]),
            ("x>2", "x", {}, [("range", 2)]),
            ("x", "0", {}, [("range", 0)]),
            ("x~y", "", {"x": 2, "y": 3}, [("length", 4, 3)]),
            ("x y", "", {"x": UNKNOWN - 1, "y": 1}, [("size",)]),
            ("x~y", "", {"x": 3_000_000_000, "y": UNKNOWN}, [("size",)]),
        ],
    )
    def test_nodes_that_do_not_fit_change_nothing(self, text, awaited, counts, problems):
        scheduler = Scheduler(graph("a>b b>c"))
        batch = claim(scheduler)
        with pytest.raises(GraphError) as caught:
            self.graft(scheduler, batch, text, awaited, counts=counts)
        assert caught.value.problems == problems
        assert (scheduler.node_count, scheduler.states()) == (3, bytes([RUNNING, WAITING, WAITING]))
        assert scheduler.dependents(0) == [1]

    def test_only_the_one_item_of_a_node_that_runs(self):
        scheduler = Scheduler(graph("a b", {"b": 2}))
        batch = claim(scheduler)
        none = array("I")
        with pytest.raises(ValueError, match="node 1 has not exactly one item"):
            scheduler.graft(batch, 1, 1.0, none, none, none)
        finish(scheduler, batch)
        with pytest.raises(ValueError, match="reported before"):
            scheduler.graft(batch, 0, 1.0, none, none, none)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"joins": b""}, "joins has 0 entries, counts has 1"),
            ({"elementwise": b"\1"}, "elementwise has 1 entries, dependents has 0"),
            ({"keep": b""}, "expected one byte for each of 1 nodes, got 0"),
            ({"demands": array("I", [1])}, "node 1 is of class 1, which is not there"),
            ({"demands": array("I")}, "expected one class for each of 1 nodes, got 0"),
        ],
    )
    def test_arrays_that_belong_together_are_equally_long(self, options, message):
        scheduler = Scheduler(graph("a"))
        batch = claim(scheduler)
        with pytest.raises(ValueError, match=message):
            scheduler.graft(batch, 0, 1.0, array("I", [1]), array("I"), array("I"), **options)
        assert (scheduler.node_count, scheduler.running) == (1, 1)

    def test_a_chain_of_ten_thousand_grafts(self):
        scheduler = Scheduler(graph("a"))
        one = array("I", [1])
        none = array("I")
        for node in range(1, 10_000):
            batch = claim(scheduler)
            assert scheduler.graft(batch, 0, 0.0, one, none, none, awaited=array("I", [node])) == node
        assert run(scheduler) == [[node] for node in reversed(range(10_000))]
