"""How many steps a worker takes at once: the size follows the time that steps have taken."""

from __future__ import annotations

from flowyml.executors.process.driver.batching import BatchSizer


def sizer(seconds: float, *, target: float = 0.01, reports: int = 5, independent: bool = True) -> BatchSizer:
    """Return one that has seen steps of so many seconds."""
    found = BatchSizer(target=target, most=1000, independent=independent)
    for _ in range(reports):
        found.observe(1, seconds)
    return found


def test_a_batch_holds_as_much_work_as_it_should() -> None:
    assert sizer(1e-4).limit(ready=100_000, workers=2) == 100


def test_batches_grow_in_leaps_since_the_first_steps_may_not_be_like_the_rest() -> None:
    assert [sizer(1e-6, reports=count).limit(ready=100_000, workers=2) for count in range(4)] == [1, 16, 256, 1000]


def test_long_steps_fill_a_batch_too() -> None:
    assert [sizer(seconds, target=0.05).limit(ready=1000, workers=2) for seconds in (0.005, 0.02, 5.0)] == [10, 2, 1]


def test_where_steps_wait_for_others_those_of_a_millisecond_go_one_by_one() -> None:
    each = [sizer(seconds, target=1.0, independent=False) for seconds in (0.001, 0.002, 5.0)]
    assert [sizer.limit(ready=100_000, workers=2) for sizer in each] == [1, 1, 1]


def test_a_chain_of_long_steps_goes_in_one_piece_as_far_as_it_fills_a_batch() -> None:
    assert [sizer(seconds, target=0.016, independent=False).grown for seconds in (0.002, 0.005, 5.0)] == [8, 3, 1]


def test_the_last_steps_are_shared() -> None:
    assert [sizer(1e-4).limit(ready, workers=2) for ready in (400, 100, 40, 20)] == [100, 25, 10, 5]


def test_a_share_is_worth_its_message() -> None:
    """Half a millisecond of work, if there is so much."""
    assert [sizer(2e-5).limit(ready, workers=2) for ready in (90, 30, 7)] == [25, 25, 7]


def test_where_steps_wait_for_others_a_share_is_worth_the_wake_ups() -> None:
    """A tenth of a millisecond of work, if there is so much: others may wait for each of them."""
    assert [sizer(2e-5, independent=False).limit(ready, workers=2) for ready in (80, 16, 7, 3)] == [10, 5, 5, 3]
    assert [sizer(2e-4, independent=False).limit(ready, workers=2) for ready in (80, 16, 7, 3)] == [10, 2, 1, 1]


def test_steps_are_brief_that_take_no_longer_together_than_a_message() -> None:
    assert [sizer(2e-5, independent=False).end_soon(count) for count in (1, 5, 6)] == [True, True, False]


def test_before_anything_is_known_one_step_goes() -> None:
    new = BatchSizer(target=0.01, most=1000)
    assert (new.limit(ready=100_000, workers=2), new.seconds(7)) == (1, 0.0)
    assert not new.end_soon(1)
