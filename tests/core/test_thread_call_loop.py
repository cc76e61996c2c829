"""What one thread has claimed: steps are begun in order, taken back from the end, and reported once."""

from __future__ import annotations

import threading
from array import array
from types import SimpleNamespace
from typing import Any

import pytest

from flowyml._core import Graph, Scheduler, ThreadCallLoop

NONE = array("I")


class Special:
    """A value that the loop does not decide about."""


SPECIAL = Special, frozenset([zip])
"""What is refused: values of a class and its subclasses, and of types that are exactly these."""


def scheduler_of(count: int) -> Scheduler:
    return Scheduler(Graph(range(count), None, NONE, NONE))


def begun(count: int, **options: Any) -> tuple[ThreadCallLoop, Scheduler]:
    """A turn that has claimed all of so many steps."""
    scheduler, turn = scheduler_of(count), ThreadCallLoop(**options)
    turn.begin(scheduler.claim(0, count, 1.0), 1.0)
    return turn, scheduler


def steps_of(function: Any, rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Steps that all take their row."""
    template = SimpleNamespace(direct=True, single=False, has_single_param=False, function=function, parts=None)
    return ([template] * len(rows), rows, {}, {}, None, False)


def test_steps_are_begun_in_order_and_taken_back_from_the_end():
    turn, _ = begun(5)
    assert (next(turn), turn.left) == (0, 4)
    _, position, taken = turn.take_back(2)
    assert (position, taken, list(turn), turn.left) == (3, 2, [1, 2], 0)
    assert turn.take_back(1) is None


def test_what_has_ended_is_reported_once():
    turn, _ = begun(4)
    for end in (2.0, 3.0):
        next(turn)
        turn.ends.append(end)
    _, position, start, ends = turn.report()
    assert (position, start, list(ends)) == (0, 1.0, [2.0, 3.0])
    assert turn.report() is None
    next(turn)
    turn.ends.append(4.0)
    _, position, start, ends = turn.report()
    assert (position, start, list(ends)) == (2, 3.0, [4.0])


def test_what_has_ended_a_moment_ago_is_not_reported_yet():
    turn, _ = begun(2)
    next(turn)
    turn.ends.append(2.0)
    assert turn.report(1.5) is None
    assert turn.report(2.0) is not None


def test_a_cleared_turn_begins_nothing_now_or_later():
    turn, _ = begun(2)
    turn.clear()
    assert list(turn) == []
    other = scheduler_of(2)
    turn.begin(other.claim(0, 2, 1.0), 1.0)
    assert list(turn) == []


def test_each_step_has_a_number_of_its_own():
    turn, _ = begun(2)
    numbers = []
    for _ in turn:
        numbers.append(turn.at()[1:])
        turn.ends.append(2.0)
    assert turn.at() is None
    turn.begin(scheduler_of(1).claim(0, 1, 1.0), 1.0)
    assert [*numbers, turn.at()[1:]] == [(0, 0), (1, 1), (0, 2)]


def test_a_turn_goes_on_until_nothing_is_ready():
    scheduler, turn, values = scheduler_of(1000), ThreadCallLoop(target=1.0, most=64, workers=2), [None] * 1000
    turn.begin(scheduler.claim(0, 1, 1.0), 1.0)
    turn.call(steps_of(abs, [(-i,) for i in range(1000)]), values, None, None, 1.0, *SPECIAL, scheduler=scheduler)
    assert scheduler.finished
    assert values == list(range(1000))
    assert turn.report() is None


def test_without_a_scheduler_it_ends_with_its_batch():
    turn, scheduler = begun(3)
    values: list[Any] = [None] * 3
    turn.call(steps_of(abs, [(-1,), (2,), (3,)]), values, None, None, 1.0, *SPECIAL)
    assert (values, scheduler.finished, len(turn.report()[3])) == ([1, 2, 3], False, 3)


@pytest.mark.parametrize("stop", [False, True])
def test_a_step_that_raises_is_told_and_left_to_the_caller(stop):
    scheduler, turn, values, told = scheduler_of(4), ThreadCallLoop(most=4), [None] * 4, []
    turn.begin(scheduler.claim(0, 3, 1.0), 1.0)

    def half(i):
        return 1 / i

    rows = [(1,), (0,), (4,), (5,)]
    turn.call(
        steps_of(half, rows),
        values,
        lambda *what: told.append(what),
        None,
        1.0,
        *SPECIAL,
        stop=stop,
        scheduler=scheduler,
    )
    ((position, item, error),) = told
    assert (position, item, type(error)) == (1, 1, ZeroDivisionError)
    assert error.__traceback__.tb_frame.f_code is half.__code__
    assert values == [1.0, None, None if stop else 0.25, None]
    assert turn.left == (1 if stop else 0)
    assert len(turn.report()[3]) == (2 if stop else 3)


def test_what_is_raised_while_it_is_told_ends_the_loop():
    turn, _ = begun(2)

    def failed(position: int, item: int, error: BaseException) -> None:
        raise error

    with pytest.raises(ZeroDivisionError):
        turn.call(steps_of(divmod, [(1, 0), (1, 1)]), [None, None], failed, None, 1.0, *SPECIAL)
    assert (len(turn.ends), turn.left) == (0, 1)


class MoreSpecial(Special):
    """Refused as its base is."""


class Zipped(zip):
    """Not refused: no type that is refused is exactly this one."""


@pytest.mark.parametrize("kind", [Special, MoreSpecial, zip])
def test_a_value_that_is_refused_is_left_to_the_caller(kind: type) -> None:
    scheduler, turn, values = scheduler_of(3), ThreadCallLoop(most=1), [None] * 3
    turn.begin(scheduler.claim(0, 1, 1.0), 1.0)
    told: list[Any] = []

    def refused(*what: Any) -> str:
        told.append(what)
        return "refused"

    turn.call(steps_of(kind, [(), (), ()]), values, None, refused, 1.0, *SPECIAL, scheduler=scheduler)
    ((position, item, value),) = told
    assert (position, item, type(value)) == (0, 0, kind)
    assert values == ["refused", None, None]
    assert len(turn.report()[3]) == 1


def test_a_value_is_looked_at_whatever_the_one_before_it_was() -> None:
    scheduler, turn, values, told = scheduler_of(5), ThreadCallLoop(), [None] * 5, []
    turn.begin(scheduler.claim(0, 5, 1.0), 1.0)
    returned = [Zipped(), zip(), 1, zip(), Zipped()]
    steps = steps_of(returned.__getitem__, [(i,) for i in range(5)])
    turn.call(steps, values, None, lambda position, *_: told.append(position), 1.0, *SPECIAL)
    assert told == [1, 3]
    assert [type(value) for value in values] == [Zipped, type(None), int, type(None), Zipped]


@pytest.mark.parametrize(("value", "count"), [(1, 3), ([1], 1)])
def test_a_value_that_can_change_ends_the_call_and_is_not_refused(value: object, count: int) -> None:
    scheduler, turn, values = scheduler_of(3), ThreadCallLoop(most=1), [None] * 3
    turn.begin(scheduler.claim(0, 1, 1.0), 1.0)
    steps = steps_of(lambda: value, [(), (), ()])
    turn.call(steps, values, None, None, 1.0, *SPECIAL, atoms=frozenset([int]), scheduler=scheduler)
    assert values == [value] * count + [None] * (3 - count)


def test_a_lone_parameter_is_the_argument_itself():
    """Also where it stands beside the value of another step."""
    pair = (1, 2)
    for template in (
        SimpleNamespace(direct=True, single=False, has_single_param=True, function=len, parts=None),
        SimpleNamespace(direct=False, single=False, has_single_param=True, function=len, parts=((0, 0),)),
    ):
        turn, _ = begun(1)
        values = [None]
        turn.call(([template], [pair], {}, {}, None, False), values, None, None, 1.0, *SPECIAL)
        assert values == [2]


def test_a_closed_scheduler_takes_nothing_from_turns():
    """So what a thread does that was left behind does not change what came of the run."""
    scheduler, turn = scheduler_of(2), ThreadCallLoop(most=1)
    turn.begin(scheduler.claim(0, 1, 1.0), 1.0)
    scheduler.close()
    before = scheduler.states(), scheduler.ends()
    turn.call(steps_of(abs, [(-1,), (-2,)]), [None, None], None, None, 1.0, *SPECIAL, scheduler=scheduler)
    assert (scheduler.states(), scheduler.ends(), scheduler.ready) == (*before, 1)


def test_two_turns_share_what_there_is_and_call_each_step_once():
    count, calls, lock = 20_000, [], threading.Lock()
    scheduler, values = scheduler_of(count), [None] * count

    def work(worker: int) -> None:
        turn = ThreadCallLoop(target=0.0005, most=256, workers=2)
        while not scheduler.finished:
            batch = scheduler.claim(worker, 1, 1.0, 0.01)
            if batch is not None:
                turn.begin(batch, 1.0)
                turn.call(steps, values, None, None, 1.0, *SPECIAL, scheduler=scheduler)
                rest = turn.report()
                if rest is not None:
                    scheduler.complete(*rest)

    def note(i: int) -> int:
        with lock:
            calls.append(i)
        return i

    steps = steps_of(note, [(i,) for i in range(count)])
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(calls) == values == list(range(count))


def test_values_that_are_held_come_with_the_report():
    turn, _ = begun(3, holds=True)
    values: list[Any] = [None] * 3
    turn.call(steps_of(abs, [(-1,), (2,), (3,)]), values, None, None, 1.0, *SPECIAL)
    assert values == [None] * 3
    turn.report(most=2, into=values)
    assert values == [1, 2, None]
    turn.report(into=values)
    assert values == [1, 2, 3]


def test_held_values_are_there_for_the_next_batch():
    names = range(2)
    scheduler = Scheduler(Graph(names, None, array("I", [1]), array("I", [0])))
    turn, values = ThreadCallLoop(holds=True), [None] * 2
    template = SimpleNamespace(direct=False, single=False, has_single_param=False, function=abs, parts=((2, 0),))
    first = SimpleNamespace(direct=True, single=False, has_single_param=False, function=abs, parts=None)
    turn.begin(scheduler.claim(0, 1, 1.0), 1.0)
    turn.call(
        ([first, template], [(-7,), ()], {1: (0,)}, {}, None, False),
        values,
        None,
        None,
        1.0,
        *SPECIAL,
        scheduler=scheduler,
    )
    assert (values, scheduler.finished) == ([7, 7], True)


def test_only_the_step_that_runs_can_be_what_a_thread_is_given_up_for():
    turn, _ = begun(3, holds=True)
    assert turn.running()[1:] == (0, 0, 1.0)
    next(turn)
    assert turn.take_back(3)[1:] == (1, 2)
    turn.ends.append(2.0)
    assert turn.running() is None
    assert not turn.abandon(0)
    assert not turn.abandon(1)


def test_nothing_is_reported_of_a_thread_that_was_given_up():
    scheduler, turn, values = scheduler_of(2), ThreadCallLoop(holds=True), [None] * 2

    def give_up(i: int) -> int:
        assert turn.abandon(turn.running()[2])
        return i

    turn.begin(scheduler.claim(0, 1, 1.0), 1.0)
    turn.call(steps_of(give_up, [(1,), (2,)]), values, None, None, 1.0, *SPECIAL, scheduler=scheduler)
    assert (values, scheduler.running, scheduler.ready) == ([None] * 2, 1, 1)


def test_what_a_turn_reports_is_noted_in_order_and_ends_its_call_when_it_is_much():
    scheduler, turn, values = scheduler_of(10), ThreadCallLoop(most=2), [None] * 10
    scheduler.note(4, 100.0, 100.0)
    turn.begin(scheduler.claim(0, 2, 1.0), 1.0)
    turn.call(steps_of(abs, [(i,) for i in range(10)]), values, None, None, 1.0, *SPECIAL, scheduler=scheduler)
    assert values == [0, 1, 2, 3, *[None] * 6]
    assert scheduler.take_noted() == [0, 1, 2, 3]
    assert scheduler.take_noted() == []


@pytest.mark.parametrize(("window", "tiny"), [(0.0, 100.0), (100.0, 0.0)])
def test_notes_do_not_wait_long_and_no_longer_than_a_step_that_takes_long(window, tiny):
    scheduler, turn, values = scheduler_of(3), ThreadCallLoop(most=1), [None] * 3
    scheduler.note(100, window, tiny)
    turn.begin(scheduler.claim(0, 1, 1.0), 1.0)
    turn.call(steps_of(abs, [(i,) for i in range(3)]), values, None, None, 1.0, *SPECIAL, scheduler=scheduler)
    assert (values, scheduler.take_noted()) == ([0, None, None], [0])


def test_slices_of_ends_are_those_of_a_list() -> None:
    turn, _ = begun(5)
    times = [2.0, 3.0, 5.0, 8.0, 13.0]
    for time in times:
        turn.ends.append(time)
    bounds = [None, *range(-7, 8)]
    for part in (slice(a, b, c) for a in bounds for b in bounds for c in (None, -3, -2, -1, 1, 2, 3)):
        assert list(turn.ends[part]) == times[part], part
    with pytest.raises(ValueError, match="zero"):
        turn.ends[::0]
    for index in range(-5, 5):
        assert turn.ends[index] == times[index]


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -float("inf")])
def test_times_that_are_not_finite_are_refused(time: float) -> None:
    turn, scheduler = begun(2)
    batch = scheduler_of(2).claim(0, 2, 1.0)
    with pytest.raises(ValueError, match="finite"):
        turn.ends.append(time)
    with pytest.raises(ValueError, match="finite"):
        turn.begin(batch, time)
    with pytest.raises(ValueError, match="finite"):
        turn.call(steps_of(abs, [(1,)]), [], None, None, time, *SPECIAL)
    with pytest.raises(ValueError, match="finite"):
        ThreadCallLoop(target=time)
    for complete in (
        lambda it: scheduler.complete(it, 0, time, [2.0]),
        lambda it: scheduler.complete(it, 0, 1.0, [time]),
    ):
        with pytest.raises(ValueError, match="finite"):
            complete(scheduler.claim(0, 1, 1.0) or batch)
    with pytest.raises(ValueError, match="must be a time"):
        turn.report(float("nan"))
    assert turn.left == 2
    assert turn.report() is None
