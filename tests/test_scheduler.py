"""The scheduler from Python: reports, refusals, threads that wait, signals."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from array import array
from typing import Any

import pytest

from flowyml._core import Batch, Graph, Scheduler
from flowyml.errors import GraphError

WAITING, READY, RUNNING, SUCCESS, CACHED, FAILED, TIMED_OUT, SKIPPED, UPSTREAM_FAILED, CANCELLED = range(10)
UNKNOWN = 2**32 - 1


def graph(text: str, counts: dict[str, int] | None = None, joins: str = "") -> Graph:
    """Read `"a>b b~c"`: b waits for all of a, each item of c for the same item of b. Nodes are in order of name."""
    edges = [word for word in text.split() if len(word) > 1]
    names = sorted(set(text) - set(" >~"))
    ids = {name: at for at, name in enumerate(names)}
    return Graph(
        names,
        array("I", [(counts or {}).get(name, 1) for name in names]),
        array("I", [ids[edge[2]] for edge in edges]),
        array("I", [ids[edge[0]] for edge in edges]),
        bytes(edge[1] == "~" for edge in edges),
        bytes(name in joins for name in names) if joins else None,
    )


def claim(scheduler: Scheduler, limit: int = 100, now: float = 0.0) -> Batch:
    batch = scheduler.claim(0, limit, now)
    assert batch is not None
    return batch


def finish(scheduler: Scheduler, batch: Batch, outcomes: bytes | None = None) -> None:
    scheduler.complete(batch, 0, 0.0, [1.0] * len(batch), outcomes)


def run(scheduler: Scheduler) -> list[list[int]]:
    """Run everything, one batch after the other."""
    batches = []
    while (batch := scheduler.claim(0, 100, 0.0)) is not None:
        batches.append(batch.items())
        finish(scheduler, batch)
    return batches


class TestClaims:
    def test_the_longest_path_goes_first(self):
        assert run(Scheduler(graph("a>d b c>e e>f"))) == [[2, 0, 1], [4, 3], [5]]

    def test_the_order_can_be_that_of_adding(self):
        assert claim(Scheduler(graph("a>d b c>e e>f"), order="add")).items() == [0, 1, 2]

    def test_a_batch_is_made_of_runs(self):
        scheduler = Scheduler(graph("a b c d", {"b": 3}))
        batch = claim(scheduler)
        assert batch.runs == [(0, 1, 0, None), (1, 3, 1, 0), (4, 2, 2, None)]
        assert (batch.worker, len(batch), batch.items()) == (0, 6, [0, 1, 2, 3, 4, 5])

    def test_a_limit_cuts_a_mapped_node(self):
        scheduler = Scheduler(graph("a", {"a": 5}))
        assert [claim(scheduler, 2).runs for _ in range(3)] == [[(0, 2, 0, 0)], [(2, 2, 0, 2)], [(4, 1, 0, 4)]]
        assert scheduler.claim(0, 2, 0.0) is None

    def test_elementwise_items_do_not_wait_for_others(self):
        scheduler = Scheduler(graph("a~b", {"a": 3, "b": 3}))
        batch = claim(scheduler)
        scheduler.complete(batch, 1, 0.0, [1.0])
        assert claim(scheduler).runs == [(4, 1, 1, 1)]

    def test_items_given_back_come_first_and_have_spent_no_attempt(self):
        scheduler = Scheduler(graph("a", {"a": 6}))
        batch = claim(scheduler, 4)
        scheduler.give_back(batch, 1, 2)
        assert claim(scheduler, 3).items() == [1, 2, 4]
        assert scheduler.attempts() == bytes([1, 1, 1, 1, 1, 0])


class TestReports:
    def test_items_run_one_after_the_other(self):
        scheduler = Scheduler(graph("a", {"a": 3}))
        batch = scheduler.claim(7, 3, 10.0)
        assert batch is not None
        assert list(memoryview(scheduler.starts()).cast("d")) == [10.0] * 3
        scheduler.complete(batch, 0, 11.0, array("d", [12.0, 14.0, 15.0]))
        assert list(memoryview(scheduler.starts()).cast("d")) == [11.0, 12.0, 14.0]
        assert list(memoryview(scheduler.ends()).cast("d")) == [12.0, 14.0, 15.0]
        assert list(memoryview(scheduler.workers()).cast("H")) == [7] * 3
        assert scheduler.states() == bytes([SUCCESS] * 3)

    def test_any_sequence_of_floats_is_ends(self):
        for ends in ([1.0], (1.0,), array("d", [1.0]), [1]):
            scheduler = Scheduler(graph("a"))
            scheduler.complete(claim(scheduler), 0, 0.0, ends)
            assert scheduler.finished

    def test_no_ends_are_no_report(self):
        scheduler = Scheduler(graph("a"))
        batch = claim(scheduler)
        for ends in ([], (), array("d")):
            scheduler.complete(batch, 0, 0.0, ends)
        assert scheduler.running == 1

    def test_a_failure_costs_its_dependents_alone(self):
        scheduler = Scheduler(graph("a>b b>c d>e"))
        batch = claim(scheduler)
        finish(scheduler, batch, bytes([FAILED, SUCCESS]))
        assert scheduler.states() == bytes([FAILED, UPSTREAM_FAILED, UPSTREAM_FAILED, SUCCESS, READY])
        assert scheduler.counts()["upstream_failed"] == 2
        assert scheduler.unfinished == 1

    @pytest.mark.parametrize("first", [0, 1])
    def test_a_failure_wins_over_a_skip_whichever_came_first(self, first):
        scheduler = Scheduler(graph("a>c b>c"))
        batch = claim(scheduler)
        outcomes = [SKIPPED, FAILED]
        for position in (first, 1 - first):
            scheduler.complete(batch, position, 0.0, [1.0], bytes([outcomes[position]]))
        assert scheduler.state(2) == UPSTREAM_FAILED

    @pytest.mark.parametrize("outcome", [SKIPPED, FAILED, TIMED_OUT])
    def test_a_join_waits_for_all_and_needs_any(self, outcome):
        scheduler = Scheduler(graph("a>c b>c", joins="c"))
        batch = claim(scheduler)
        scheduler.complete(batch, 0, 0.0, [1.0], bytes([outcome]))
        assert scheduler.state(2) == WAITING
        scheduler.complete(batch, 1, 1.0, [2.0])
        assert scheduler.state(2) == READY

    def test_a_join_of_nothing_ends_like_the_worst(self):
        for outcomes, state in (([SKIPPED, SKIPPED], SKIPPED), ([SKIPPED, FAILED], UPSTREAM_FAILED)):
            scheduler = Scheduler(graph("a>c b>c", joins="c"))
            finish(scheduler, claim(scheduler), bytes(outcomes))
            assert scheduler.state(2) == state

    def test_an_item_of_a_join_needs_its_own_elements(self):
        scheduler = Scheduler(graph("a~c b>c", {"a": 2, "b": 2, "c": 2}, joins="c"))
        finish(scheduler, claim(scheduler), bytes([SUCCESS, SKIPPED, SUCCESS, FAILED]))
        assert scheduler.states()[4:] == bytes([READY, SKIPPED])

    def test_an_item_that_fails_costs_its_element_and_all_who_need_the_whole(self):
        scheduler = Scheduler(graph("a~b b>c", {"a": 2, "b": 2}))
        finish(scheduler, claim(scheduler), bytes([TIMED_OUT, CACHED]))
        assert scheduler.states() == bytes([TIMED_OUT, CACHED, UPSTREAM_FAILED, READY, UPSTREAM_FAILED])
        assert [scheduler.node_state(node) for node in range(3)] == [TIMED_OUT, READY, UPSTREAM_FAILED]

    @pytest.mark.parametrize("outcome", [WAITING, READY, RUNNING, UPSTREAM_FAILED, 10, 255])
    def test_other_states_are_no_outcomes(self, outcome):
        scheduler = Scheduler(graph("a"))
        batch = claim(scheduler)
        with pytest.raises(ValueError, match=f"{outcome} is no outcome of a run"):
            scheduler.complete(batch, 0, 0.0, [1.0], bytes([outcome]))
        assert scheduler.state(0) == RUNNING


class TestRefusals:
    """A report that is not legal raises `ValueError` and changes nothing."""

    def reports(self, scheduler: Scheduler, batch: Batch):
        return [
            lambda: scheduler.complete(batch, 0, 0.0, [1.0]),
            lambda: scheduler.retry(batch, 0, 1.0, 0.0),
            lambda: scheduler.give_back(batch, 0, 1),
        ]

    def refuse(self, scheduler: Scheduler, batch: Batch, match: str) -> None:
        before = (scheduler.states(), scheduler.attempts(), scheduler.counts(), scheduler.ends())
        for report in self.reports(scheduler, batch):
            with pytest.raises(ValueError, match=match):
                report()
        assert (scheduler.states(), scheduler.attempts(), scheduler.counts(), scheduler.ends()) == before

    def test_of_what_was_reported(self):
        scheduler = Scheduler(graph("a>b"))
        batch = claim(scheduler)
        finish(scheduler, batch)
        self.refuse(scheduler, batch, "position 0 .* was reported before")

    def test_of_a_claim_that_is_over_though_the_item_runs_again(self):
        scheduler = Scheduler(graph("a"))
        old = claim(scheduler)
        scheduler.give_back(old, 0, 1)
        claim(scheduler)
        self.refuse(scheduler, old, "reported before")

    def test_of_another_scheduler(self):
        one, other = Scheduler(graph("a")), Scheduler(graph("a"))
        claim(one)
        self.refuse(one, claim(other), "another scheduler")

    def test_past_the_end(self):
        scheduler = Scheduler(graph("a b"))
        batch = claim(scheduler)
        with pytest.raises(ValueError, match="3 items from position 0 reach past the end of a batch of 2"):
            scheduler.complete(batch, 0, 0.0, [1.0] * 3)
        with pytest.raises(ValueError, match="past the end"):
            scheduler.give_back(batch, 2**32 - 1, 2)

    def test_with_an_outcome_too_many(self):
        scheduler = Scheduler(graph("a"))
        with pytest.raises(ValueError, match="one outcome for each of 1 end times, got 2"):
            scheduler.complete(claim(scheduler), 0, 0.0, [1.0], bytes([SUCCESS, SUCCESS]))

    def test_of_times_that_are_none(self):
        scheduler = Scheduler(graph("a"))
        batch = claim(scheduler)
        for call in (
            lambda: scheduler.claim(0, 1, float("nan")),
            lambda: scheduler.claim(0, 1, 0.0, float("nan")),
            lambda: scheduler.claim(0, 1, 0.0, -1.0),
            lambda: scheduler.retry(batch, 0, float("inf"), 0.0),
            lambda: scheduler.set_deadline(0, float("nan")),
            lambda: scheduler.wait(-0.5),
        ):
            with pytest.raises(ValueError, match="expected"):
                call()

    def test_of_wrong_arguments(self):
        scheduler = Scheduler(graph("a"))
        for call, error in (
            (lambda: scheduler.claim(0, 0, 0.0), ValueError),
            (lambda: scheduler.claim(65536, 1, 0.0), OverflowError),
            (lambda: scheduler.claim(0, -1, 0.0), OverflowError),
            (lambda: Scheduler(graph("a"), order="random"), ValueError),
            (lambda: Scheduler(graph("a"), keep=b""), ValueError),
            (lambda: scheduler.state(1), IndexError),
            (lambda: scheduler.locate(1), IndexError),
            (lambda: scheduler.node_state(1), IndexError),
            (lambda: scheduler.set_deadline(0, 1.0), ValueError),
            (lambda: scheduler.expand(0, 1, 0.0), ValueError),
            (lambda: scheduler.refuse(0, FAILED, 0.0), ValueError),
            (lambda: scheduler.tolerate(1, 1), IndexError),
            (lambda: scheduler.tolerate(0, -1), OverflowError),
            (lambda: scheduler.cancel_node(1, 0.0), IndexError),
            (lambda: scheduler.cancel_node(0, float("nan")), ValueError),
        ):
            with pytest.raises(error):
                call()


class TestTime:
    def test_a_retry_is_ready_after_its_delay(self):
        scheduler = Scheduler(graph("a"))
        scheduler.retry(claim(scheduler), 0, 5.0, 1.0)
        assert (scheduler.state(0), scheduler.next_wakeup()) == (WAITING, 5.0)
        assert scheduler.claim(0, 1, 4.9) is None
        finish(scheduler, claim(scheduler, now=5.0))
        assert scheduler.attempts() == b"\2"

    def test_a_deadline_is_reported_once_and_ends_with_the_item(self):
        scheduler = Scheduler(graph("a b"))
        batch = claim(scheduler)
        scheduler.set_deadline(0, 3.0)
        scheduler.set_deadline(1, 2.0)
        scheduler.complete(batch, 1, 0.0, [1.0])
        assert (scheduler.next_wakeup(), scheduler.expired(2.5)) == (3.0, [])
        assert (scheduler.expired(3.0), scheduler.expired(9.0)) == ([0], [])


class TestCancel:
    def test_what_runs_ends_as_reported_and_the_rest_is_cancelled(self):
        scheduler = Scheduler(graph("a b c>d"))
        batch = claim(scheduler, 2)
        scheduler.cancel(9.0)
        assert scheduler.states() == bytes([RUNNING, CANCELLED, RUNNING, CANCELLED])
        assert not scheduler.finished
        scheduler.complete(batch, 0, 0.0, [1.0])
        scheduler.give_back(batch, 1, 1)
        assert scheduler.states() == bytes([CANCELLED, CANCELLED, SUCCESS, CANCELLED])
        assert scheduler.finished
        assert scheduler.cancelled

    def test_nobody_is_asked_for_a_length_any_more(self):
        scheduler = Scheduler(graph("a>b", {"a": UNKNOWN}))
        scheduler.cancel(1.0)
        assert scheduler.take_expandable() == []
        assert [scheduler.node_state(node) for node in range(2)] == [CANCELLED, CANCELLED]

    def test_a_length_that_comes_too_late_gives_cancelled_items(self):
        scheduler = Scheduler(graph("a~b", {"a": UNKNOWN}))
        assert scheduler.take_expandable() == [0]
        scheduler.cancel(1.0)
        scheduler.expand(0, 2, 2.0)
        assert scheduler.states() == bytes([CANCELLED] * 4)
        assert scheduler.finished


class TestLengthsKnownAtRunTime:
    def test_a_node_is_expanded_with_all_that_follow_it(self):
        scheduler = Scheduler(graph("a>b b~c c>d", {"b": UNKNOWN}))
        assert scheduler.take_expandable() == []
        finish(scheduler, claim(scheduler))
        assert (scheduler.take_expandable(), scheduler.take_expandable()) == ([1], [])
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
        assert scheduler.take_expandable() == [0]
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
        assert scheduler.take_expandable() == [0]
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
        assert scheduler.take_expandable() == [1]
        assert scheduler.node_state(0) == CANCELLED


class TestLimits:
    """Batches of a class share tokens."""

    def limited(self, text: str, demands: str, limits: list[int], *classes: list[tuple[int, int]]) -> Scheduler:
        nodes = graph(text, {"m": 4})
        return Scheduler(
            nodes, order="add", limits=array("I", limits), demands=array("I", map(int, demands)), classes=[[], *classes]
        )

    def test_as_many_batches_run_as_there_are_tokens(self):
        scheduler = self.limited("a b c", "111", [2], [(0, 1)])
        batches = [claim(scheduler, 1) for _ in range(2)]
        assert scheduler.claim(0, 1, 0.0) is None
        assert (scheduler.ready, scheduler.parked, scheduler.counts()["ready"]) == (0, 1, 1)
        finish(scheduler, batches[1])
        assert (scheduler.ready, scheduler.parked) == (1, 0)
        assert claim(scheduler, 1).items() == [2]

    def test_a_batch_takes_tokens_once_and_until_nothing_of_it_runs(self):
        scheduler = self.limited("m n", "11", [1], [(0, 1)])
        batch = claim(scheduler, 3)
        assert batch.limited
        scheduler.complete(batch, 0, 0.0, [1.0])
        scheduler.retry(batch, 1, 1.0, 1.0)
        assert (scheduler.ready, scheduler.parked) == (0, 3)
        scheduler.give_back(batch, 2, 1)
        assert (scheduler.ready, scheduler.parked) == (4, 0)

    def test_a_batch_is_of_one_class_and_others_pass_what_is_parked(self):
        scheduler = self.limited("a b c d", "0110", [1], [(0, 1)])
        assert [claim(scheduler).items() for _ in range(3)] == [[0], [1, 2], [3]]
        scheduler = self.limited("a b c d", "1010", [1], [(0, 1)])
        assert [claim(scheduler, 1).items() for _ in range(3)] == [[0], [1], [3]]

    def test_all_or_nothing(self):
        scheduler = self.limited("a b", "12", [1, 1], [(0, 1), (1, 1)], [(1, 1), (0, 1)])
        batch = claim(scheduler)
        assert (batch.items(), scheduler.ready, scheduler.parked) == ([0], 0, 1)
        finish(scheduler, batch)
        assert claim(scheduler).items() == [1]

    def test_tokens_of_what_was_given_up_stay_out(self):
        scheduler = self.limited("a b", "11", [1], [(0, 1)])
        batch = claim(scheduler, 1)
        scheduler.keep_tokens(batch)
        finish(scheduler, batch, bytes([TIMED_OUT]))
        assert (scheduler.ready, scheduler.parked) == (0, 1)
        scheduler.return_tokens(batch)
        assert (scheduler.ready, scheduler.parked) == (1, 0)
        for call in (scheduler.keep_tokens, scheduler.return_tokens):
            with pytest.raises(ValueError, match="holds no tokens"):
                call(batch)

    def test_tokens_are_nothing_to_a_batch_without(self):
        scheduler = Scheduler(graph("a"))
        batch = claim(scheduler)
        scheduler.keep_tokens(batch)
        scheduler.return_tokens(batch)
        assert not batch.limited

    def test_a_cancelled_run_leaves_nothing_parked(self):
        scheduler = self.limited("a b", "11", [1], [(0, 1)])
        batch = claim(scheduler, 1)
        scheduler.cancel(1.0)
        assert scheduler.parked == 0
        scheduler.give_back(batch, 0, 1)
        assert scheduler.finished

    @pytest.mark.parametrize(
        ("demands", "limits", "classes", "message"),
        [
            ("01", [2], [[], [(0, 3)]], "node 1 needs 3 of limit 0, which has 2 in all: it could never run"),
            ("01", [2], [[], [(0, 2), (0, 1)]], "node 1 needs 3 of limit 0"),
            ("02", [2], [[], []], "node 1 is of class 2, which is not there"),
            ("01", [2], [[], [(1, 1)]], "class 1 needs limit 1, which is not there"),
            ("01", [2], [[(0, 1)], []], "class 0 is that of nodes that need nothing"),
            ("0", [2], [[]], "expected one class for each of 2 nodes, got 1"),
        ],
    )
    def test_demands_that_cannot_be_met_are_found_at_once(self, demands, limits, classes, message):
        with pytest.raises(ValueError, match=message):
            Scheduler(graph("a b"), limits=array("I", limits), demands=array("I", map(int, demands)), classes=classes)

    def test_threads_never_take_more_than_there_is(self):
        scheduler = self.limited("m n o p q", "12012", [2, 1], [(0, 1)], [(0, 2), (1, 1)])
        lock, held, most = threading.Lock(), [0], [0]

        def work(worker: int) -> None:
            while (batch := scheduler.claim(worker, 2, 0.0, 60.0)) is not None:
                tokens = [0, 1, 2][[1, 2, 0, 1, 2][scheduler.locate(batch.items()[0])[0]]]
                with lock:
                    held[0] += tokens
                    most[0] = max(most[0], held[0])
                time.sleep(0.001)
                with lock:
                    held[0] -= tokens
                finish(scheduler, batch)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        assert scheduler.wait(60.0)
        for thread in threads:
            thread.join(30)
        assert most[0] == 2


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
        assert scheduler.take_expandable() == [1, 2]
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


class TestRelease:
    def test_a_value_goes_after_its_last_consumer(self):
        scheduler = Scheduler(graph("a>b a>c b>d c>d"), keep=bytes([0, 1, 0, 0]))
        finish(scheduler, claim(scheduler))
        assert scheduler.take_released() == []
        finish(scheduler, claim(scheduler))
        assert scheduler.take_released() == [0]
        finish(scheduler, claim(scheduler))
        assert scheduler.take_released() == [2]

    def test_without_a_mask_nothing_goes(self):
        scheduler = Scheduler(graph("a>b"))
        run(scheduler)
        assert scheduler.take_released() == []


class TestThreads:
    def test_a_thread_that_waits_gets_what_becomes_ready(self):
        scheduler = Scheduler(graph("a>b"))
        batch = claim(scheduler)
        got: list[Batch | None] = []
        waiter = threading.Thread(target=lambda: got.append(scheduler.claim(1, 1, 0.0, 60.0)))
        waiter.start()
        finish(scheduler, batch)
        waiter.join(30)
        assert [batch and batch.items() for batch in got] == [[1]]

    def test_threads_that_wait_are_let_go_at_the_end(self):
        scheduler = Scheduler(graph("a"))
        batch = claim(scheduler)
        got: list[object] = []
        claimers = [
            threading.Thread(target=lambda: got.append(scheduler.claim(1, 1, 0.0, float("inf")))) for _ in range(3)
        ]
        watcher = threading.Thread(target=lambda: got.append(scheduler.wait(float("inf"))))
        for thread in (*claimers, watcher):
            thread.start()
        finish(scheduler, batch)
        for thread in (*claimers, watcher):
            thread.join(30)
        assert sorted(got, key=str) == [None, None, None, True]

    def test_a_thread_that_waits_wakes_when_a_delay_is_over(self):
        scheduler = Scheduler(graph("a"))
        scheduler.retry(claim(scheduler), 0, 0.05, 0.0)
        batch = scheduler.claim(0, 1, 0.0, 60.0)
        assert batch is not None
        assert memoryview(scheduler.starts()).cast("d")[0] >= 0.05

    def test_a_wait_ends_in_time(self):
        scheduler = Scheduler(graph("a"))
        claim(scheduler)
        began = time.perf_counter()
        assert scheduler.claim(1, 1, 0.0, 0.05) is None
        assert not scheduler.wait(0.05)
        assert 0.1 <= time.perf_counter() - began < 10

    def test_many_threads_run_every_item_once(self):
        scheduler = Scheduler(graph("a~b b>c", {"a": 5000, "b": 5000}))
        seen: list[int] = []

        def work(worker: int) -> None:
            while (batch := scheduler.claim(worker, 7, 0.0, 60.0)) is not None:
                seen.extend(batch.items())
                finish(scheduler, batch)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
        for thread in threads:
            thread.start()
        assert scheduler.wait(60.0)
        for thread in threads:
            thread.join(30)
        assert sorted(seen) == list(range(10_001))
        assert set(scheduler.attempts()) == {1}

    @pytest.mark.skipif(sys.platform == "win32", reason="signals are sent by kill")
    @pytest.mark.parametrize("call", ["wait(60.0)", "claim(1, 1, 0.0, 60.0)"])
    def test_ctrl_c_ends_a_wait(self, call):
        script = f"""
            import os, signal, threading
            from array import array
            from flowyml._core import Graph, Scheduler
            scheduler = Scheduler(Graph(["a"], None, array("I"), array("I")))
            scheduler.claim(0, 1, 0.0)
            try:
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                scheduler.{call}
            except KeyboardInterrupt:
                print("interrupted")
        """
        began = time.perf_counter()
        command = [sys.executable, "-c", textwrap.dedent(script)]
        assert subprocess.run(command, capture_output=True, text=True, timeout=50).stdout == "interrupted\n"
        assert time.perf_counter() - began < 30


def test_a_million_steps_run_in_batches():
    million = 1_000_000
    scheduler = Scheduler(Graph(["x"] * million, None, array("I"), array("I")))
    ends = [1.0] * 1000
    while (batch := scheduler.claim(0, 1000, 0.0)) is not None:
        scheduler.complete(batch, 0, 0.0, ends)
    assert scheduler.counts()["success"] == million
