"""The scheduler from Python: limits of what runs together, values that nobody will read again."""

from __future__ import annotations

import threading
import time
from array import array

import pytest
from scheduler_driver import (
    TIMED_OUT,
    claim,
    finish,
    graph,
    run,
)

from flowyml._core import Scheduler


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
        scheduler = self.limited("a b", "12", [2, 1], [(0, 1), (1, 1)], [(1, 1), (0, 2)])
        batch = claim(scheduler)
        assert (batch.items(), scheduler.ready, scheduler.parked) == ([0], 0, 1)
        finish(scheduler, batch)
        assert claim(scheduler).items() == [1]

    def test_equal_needs_are_one_class(self):
        scheduler = self.limited("a b", "12", [1, 1], [(0, 1), (1, 1)], [(1, 1), (0, 1)])
        assert claim(scheduler).items() == [0, 1]

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
