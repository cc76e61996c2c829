"""The scheduler from Python: mapped nodes, whose lengths a run may tell, that may have failed items, that end alone."""

from __future__ import annotations

import pytest
from scheduler_driver import (
    CACHED,
    CANCELLED,
    FAILED,
    READY,
    RUNNING,
    SKIPPED,
    SUCCESS,
    TIMED_OUT,
    UNKNOWN,
    UPSTREAM_FAILED,
    WAITING,
    claim,
    due,
    finish,
    graph,
)

from flowyml._core import Scheduler


class TestLengthsKnownAtRunTime:
    def test_a_node_is_expanded_with_all_that_follow_it(self):
        scheduler = Scheduler(graph("a>b b~c c>d", {"b": UNKNOWN}))
        assert due(scheduler) == []
        finish(scheduler, claim(scheduler))
        assert due(scheduler) == [1]
        scheduler.expand(1, 2, 0.0)
        assert [scheduler.count(node) for node in range(4)] == [1, 2, 2, 1]
        assert claim(scheduler).runs == [(2, 2, 1, 0)]
        assert [scheduler.locate(item) for item in range(scheduler.item_count)] == [
            (0, 0),
            (3, 0),
            (1, 0),
            (1, 1),
            (2, 0),
            (2, 1),
        ]

    def test_no_items_are_complete_at_once(self):
        scheduler = Scheduler(graph("a>b", {"a": UNKNOWN}))
        assert due(scheduler) == [0]
        scheduler.expand(0, 0, 0.0)
        assert (scheduler.node_state(0), claim(scheduler).items()) == (SUCCESS, [0])

    def test_a_node_whose_dependency_failed_has_no_items_but_a_state(self):
        scheduler = Scheduler(graph("a>b b~c c>d", {"b": UNKNOWN}))
        finish(scheduler, claim(scheduler), bytes([FAILED]))
        assert scheduler.finished
        assert [scheduler.node_state(node) for node in range(4)] == [FAILED] + [UPSTREAM_FAILED] * 3

    @pytest.mark.parametrize("state", [FAILED, TIMED_OUT, SKIPPED, CANCELLED])
    def test_a_length_can_be_refused(self, state):
        scheduler = Scheduler(graph("a~b a>c b>d", {"a": UNKNOWN}))
        assert due(scheduler) == [0]
        scheduler.refuse(0, state, 1.0)
        inherited = UPSTREAM_FAILED if state in (FAILED, TIMED_OUT) else state
        assert [scheduler.node_state(node) for node in range(4)] == [state] + [inherited] * 3
        assert scheduler.finished

    @pytest.mark.parametrize("state", [WAITING, RUNNING, SUCCESS, CACHED, UPSTREAM_FAILED, 10])
    def test_a_length_is_not_refused_with_a_value(self, state):
        scheduler = Scheduler(graph("a", {"a": UNKNOWN}))
        with pytest.raises(ValueError, match=f"{state} is no end without a value"):
            scheduler.refuse(0, state, 1.0)
        scheduler.expand(0, 1, 1.0)
        with pytest.raises(ValueError, match="node 0 is not waiting for its length"):
            scheduler.refuse(0, FAILED, 1.0)


class TestTolerance:
    """A node that tolerates failed items is a success for those who need all of it."""

    def test_failures_up_to_the_limit_do_not_count(self):
        scheduler = Scheduler(graph("a>b", {"a": 3}))
        scheduler.tolerate(0, 2)
        finish(scheduler, claim(scheduler), bytes([FAILED, SUCCESS, TIMED_OUT]))
        assert scheduler.states() == bytes([FAILED, SUCCESS, TIMED_OUT, READY])
        assert scheduler.node_state(0) == SUCCESS

    def test_one_more_fails_the_node_at_once(self):
        scheduler = Scheduler(graph("a>b", {"a": 4}))
        scheduler.tolerate(0, 1)
        batch = claim(scheduler)
        scheduler.complete(batch, 0, 0.0, [1.0, 2.0], bytes([FAILED, FAILED]))
        assert scheduler.state(4) == UPSTREAM_FAILED
        scheduler.complete(batch, 2, 2.0, [3.0, 4.0])
        assert scheduler.node_state(0) == FAILED

    def test_an_element_is_still_needed(self):
        scheduler = Scheduler(graph("a~b b>c", {"a": 2, "b": 2}))
        for node in (0, 1):
            scheduler.tolerate(node, 1)
        finish(scheduler, claim(scheduler), bytes([FAILED, SUCCESS]))
        assert scheduler.states()[2:4] == bytes([UPSTREAM_FAILED, READY])
        finish(scheduler, claim(scheduler))
        assert (scheduler.node_state(1), scheduler.state(4)) == (SUCCESS, READY)

    def test_a_node_of_one_item_tolerates_too_though_others_need_its_element(self):
        scheduler = Scheduler(graph("a~b a>c"))
        batch = claim(scheduler)
        scheduler.tolerate(0, 1)
        assert batch.runs == [(0, 1, 0, None)]
        finish(scheduler, batch, bytes([FAILED]))
        assert scheduler.states() == bytes([FAILED, UPSTREAM_FAILED, READY])

    def test_nothing_to_go_on_with_is_a_failure(self):
        scheduler = Scheduler(graph("a>b b>c", {"b": 2}))
        scheduler.tolerate(1, 2)
        finish(scheduler, claim(scheduler), bytes([FAILED]))
        assert scheduler.states() == bytes([FAILED] + [UPSTREAM_FAILED] * 3)

    def test_it_can_be_said_before_the_length_is_known(self):
        scheduler = Scheduler(graph("a>b", {"a": UNKNOWN}))
        scheduler.tolerate(0, 1)
        scheduler.expand(0, 2, 0.0)
        finish(scheduler, claim(scheduler), bytes([FAILED, SUCCESS]))
        assert (scheduler.node_state(0), scheduler.state(0)) == (SUCCESS, READY)

    def test_it_cannot_be_said_after_the_failure(self):
        scheduler = Scheduler(graph("a b", {"b": 2}))
        finish(scheduler, claim(scheduler), bytes([FAILED, SUCCESS, FAILED]))
        for node in (0, 1):
            with pytest.raises(ValueError, match=f"node {node} has failed already"):
                scheduler.tolerate(node, 1)


class TestCancellingOneNode:
    def test_what_runs_ends_as_reported_and_the_rest_is_cancelled(self):
        scheduler = Scheduler(graph("a>b c", {"a": 4}))
        batch = claim(scheduler, 2)
        scheduler.cancel_node(0, 9.0)
        assert scheduler.states() == bytes([RUNNING, RUNNING, CANCELLED, CANCELLED, WAITING, READY])
        assert list(memoryview(scheduler.ends()).cast("d"))[2:4] == [9.0, 9.0]
        scheduler.complete(batch, 0, 0.0, [1.0])
        scheduler.retry(batch, 1, 5.0, 1.0)
        assert scheduler.states() == bytes([SUCCESS, CANCELLED, CANCELLED, CANCELLED, CANCELLED, READY])

    def test_a_failure_goes_before_the_cancellation(self):
        scheduler = Scheduler(graph("a>b", {"a": 2}))
        batch = claim(scheduler, 1)
        scheduler.cancel_node(0, 9.0)
        finish(scheduler, batch, bytes([FAILED]))
        assert (scheduler.node_state(0), scheduler.state(2)) == (FAILED, UPSTREAM_FAILED)

    def test_nobody_is_asked_for_its_length_any_more(self):
        scheduler = Scheduler(graph("a b", {"a": UNKNOWN, "b": UNKNOWN}))
        scheduler.cancel_node(0, 1.0)
        assert due(scheduler) == [1]
        assert scheduler.node_state(0) == CANCELLED
