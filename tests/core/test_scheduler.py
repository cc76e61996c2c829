"""The scheduler from Python: reports, refusals, threads that wait, signals."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from array import array

import pytest
from scheduler_driver import (
    CACHED,
    CANCELLED,
    FAILED,
    GIVEN,
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
    run,
)

from flowyml._core import Batch, Graph, Scheduler


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
        finish(scheduler, claim(scheduler), bytes([SUCCESS, SKIPPED, SUCCESS, SUCCESS]))
        assert scheduler.states()[4:] == bytes([READY, SKIPPED])

    def test_a_node_is_given_before_anything_is_claimed(self):
        """Its dependents become ready, also item by item, and nothing of it is handed out."""
        scheduler = Scheduler(graph("a>b c~d", {"c": 2, "d": 2}))
        scheduler.give(0)
        scheduler.give(2)
        assert scheduler.states() == bytes([GIVEN, READY, GIVEN, GIVEN, READY, READY])
        assert scheduler.attempts() == bytes(6)
        assert claim(scheduler).items() == [1, 4, 5]
        assert scheduler.counts()["given"] == 3
        assert [scheduler.node_state(node) for node in (0, 2)] == [GIVEN, GIVEN]

    def test_a_node_that_waits_or_has_begun_is_not_given(self):
        scheduler = Scheduler(graph("a>b"))
        with pytest.raises(ValueError, match="node 1 is not ready: it waits or has begun"):
            scheduler.give(1)
        claim(scheduler)
        with pytest.raises(ValueError, match="node 0 is not ready: it waits or has begun"):
            scheduler.give(0)

    def test_a_given_value_is_released_after_its_last_reader(self):
        scheduler = Scheduler(graph("a>b"), keep=bytes([0, 1]))
        scheduler.give(0)
        assert list(scheduler.take_released()) == []
        finish(scheduler, claim(scheduler))
        assert list(scheduler.take_released()) == [0]

    def test_a_node_without_items_is_given(self):
        scheduler = Scheduler(graph("a>b", {"a": 0}))
        scheduler.give(0)
        assert (scheduler.node_state(0), scheduler.states()) == (GIVEN, bytes([READY]))

    def test_a_join_does_not_run_on_a_part_of_a_list(self):
        """A node with a failed or skipped item has no value."""
        for ends, state in (([SUCCESS, FAILED], UPSTREAM_FAILED), ([SUCCESS, SKIPPED], SKIPPED)):
            scheduler = Scheduler(graph("a>b", {"a": 2}, joins="b"))
            finish(scheduler, claim(scheduler), bytes(ends))
            assert scheduler.states()[2:] == bytes([state])

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
        assert due(scheduler) == []
        assert [scheduler.node_state(node) for node in range(2)] == [CANCELLED, CANCELLED]

    def test_a_length_that_comes_too_late_gives_cancelled_items(self):
        scheduler = Scheduler(graph("a~b", {"a": UNKNOWN}))
        assert due(scheduler) == [0]
        scheduler.cancel(1.0)
        scheduler.expand(0, 2, 2.0)
        assert scheduler.states() == bytes([CANCELLED] * 4)
        assert scheduler.finished


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
