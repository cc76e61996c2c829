"""parallel_map: results in input order, errors as they were raised, any iterable, nested without a deadlock."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import flowyml.executors.threads
import flowyml.utils.parallel
from flowyml import ParallelExecutor, Pipeline, parallel_map, step
from flowyml.errors import RemoteTraceback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BACKENDS = ["thread", "process"]


@step
def square(value: int) -> int:
    return value * value


def fail_on_two(value: int) -> int:
    if value == 2:
        raise KeyError(value)
    return value


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [0, 1, 2, 5_000])
def test_results_are_in_input_order(backend: str, count: int) -> None:
    assert parallel_map(square, range(count), max_workers=2, backend=backend) == [k * k for k in range(count)]


def test_results_are_in_input_order_whatever_ends_first() -> None:
    last_is_done = threading.Event()

    def wait_or_tell(value: int) -> int:
        assert last_is_done.wait(10) if value == 0 else last_is_done.set() is None
        return value

    assert parallel_map(wait_or_tell, [0, 1], max_workers=2) == [0, 1]


def test_the_result_is_a_list() -> None:
    assert type(parallel_map(square, (1, 2))) is list


ITERABLES: dict[str, Callable[[], Any]] = {
    "list": lambda: ["a", "b"],
    "generator": lambda: (each for each in "ab"),
    "iterator": lambda: iter(("a", "b")),
    "dict": lambda: {"a": 1, "b": 2},
    "string": lambda: "ab",
    "old sequence": lambda: OldSequence(),  # noqa: PLW0108  defined below
}


class OldSequence:
    """A sequence by subscript alone."""

    def __getitem__(self, index: int) -> str:
        return "ab"[index]


@pytest.mark.parametrize("kind", ITERABLES)
def test_items_come_from_any_iterable(kind: str) -> None:
    assert parallel_map(str.upper, ITERABLES[kind]()) == ["A", "B"]


def test_an_iterable_is_read_once() -> None:
    read = []

    def items() -> Iterator[int]:
        for k in range(3):
            read.append(k)
            yield k

    parallel_map(square, items())
    assert read == [0, 1, 2]


def test_both_paths_and_the_alias_of_max_workers_work() -> None:
    assert flowyml.utils.parallel.parallel_map(square, [3], num_workers=1) == [9]


def test_threads_are_the_default() -> None:
    assert parallel_map(lambda _: threading.current_thread().name, [0])[0].startswith("flowyml-worker-")


def test_max_workers_run_at_the_same_time() -> None:
    barrier = threading.Barrier(4)
    assert sorted(parallel_map(lambda _: barrier.wait(10), range(4), max_workers=4)) == [0, 1, 2, 3]


def test_coroutine_functions_are_run() -> None:
    async def soon(value: int) -> int:
        return value + 1

    assert parallel_map(soon, [1, 2]) == [2, 3]


# ---- errors --------------------------------------------------------------------------------------------------------


def test_on_threads_the_very_exception_is_raised() -> None:
    error = KeyError("the very one")

    def fail(_: int) -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        parallel_map(fail, [1])
    assert caught.value is error


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_note_tells_which_item_it_was(backend: str) -> None:
    with pytest.raises(KeyError) as caught:
        parallel_map(fail_on_two, [0, 1, 0, 2], max_workers=2, backend=backend)
    assert caught.value.__notes__ == ["raised for item 3 of parallel_map()"]


def test_an_exception_that_is_raised_again_has_one_note() -> None:
    error = KeyError("the very one")

    def fail(_: int) -> None:
        raise error

    for _ in range(3):
        with pytest.raises(KeyError):
            parallel_map(fail, [1])
    assert error.__notes__ == ["raised for item 0 of parallel_map()"]


def test_an_exception_that_takes_no_note_is_raised_all_the_same() -> None:
    class Bare(Exception):  # noqa: N818
        def add_note(self, _: str) -> None:
            raise RuntimeError

    def fail(_: int) -> None:
        raise Bare

    with pytest.raises(Bare):
        parallel_map(fail, [1])


def test_returned_exceptions_have_no_note() -> None:
    (error,) = parallel_map(fail_on_two, [2], on_error="return")
    assert not hasattr(error, "__notes__")


def test_from_processes_the_exception_has_the_remote_traceback_as_cause() -> None:
    with pytest.raises(KeyError, match="2") as caught:
        parallel_map(fail_on_two, range(4), max_workers=2, backend="process")
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in fail_on_two" in str(caught.value.__cause__)


def test_after_an_error_nothing_new_starts() -> None:
    started = []

    def fail(value: int) -> None:
        started.append(value)
        raise ValueError(value)

    with pytest.raises(ValueError, match="0"):
        parallel_map(fail, range(10_000), max_workers=1)
    assert started == [0]


def test_the_first_error_in_time_is_raised() -> None:
    later = threading.Event()

    def fail(value: int) -> None:
        try:
            if value == 0:
                assert later.wait(10)
            raise ValueError(value)
        finally:
            later.set()

    with pytest.raises(ValueError, match="1"):
        parallel_map(fail, [0, 1], max_workers=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_can_stand_in_the_place_of_results(backend: str) -> None:
    results = parallel_map(fail_on_two, range(5), max_workers=2, backend=backend, on_error="return")
    assert [each for each in results if not isinstance(each, Exception)] == [0, 1, 3, 4]
    assert isinstance(results[2], KeyError)


def test_with_errors_returned_all_items_run() -> None:
    results = parallel_map(lambda value: 1 / value, [0] * 3_000 + [1], max_workers=2, on_error="return")
    assert len(results) == 3_001
    assert results[-1] == 1.0
    assert all(isinstance(each, ZeroDivisionError) for each in results[:-1])


def test_a_returned_exception_is_a_result() -> None:
    (result,) = parallel_map(lambda _: ValueError("a value"), [0])
    assert result.args == ("a value",)


def test_a_failure_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyError):
        parallel_map(fail_on_two, [2])
    assert caplog.records == []


# ---- nesting -------------------------------------------------------------------------------------------------------


def nested(depth: int) -> int:
    """Return how many calls a tree of parallel_maps makes."""
    return 1 + (sum(parallel_map(nested, [depth - 1] * 2, max_workers=2)) if depth else 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nesting_does_not_deadlock(backend: str) -> None:
    assert parallel_map(nested, [2, 2, 2], max_workers=2, backend=backend) == [7, 7, 7]


def test_processes_in_processes_do_not_deadlock() -> None:
    def inner(value: int) -> list[int]:
        return parallel_map(square, [value, value], max_workers=1, backend="process")

    assert parallel_map(inner, [2, 3], max_workers=2, backend="process") == [[4, 4], [9, 9]]


def test_inside_a_step_the_default_is_the_workers_share() -> None:
    with ParallelExecutor(1_000, backend="thread") as executor:
        pipeline = Pipeline("share").add_step(lambda: ParallelExecutor().max_workers, "share")
        assert pipeline.run(executor=executor)["share"] == 1


def test_inside_a_step_an_explicit_number_wins() -> None:
    with ParallelExecutor(1_000, backend="thread") as executor:
        pipeline = Pipeline("share").add_step(lambda: ParallelExecutor(5).max_workers, "share")
        assert pipeline.run(executor=executor)["share"] == 5


def test_threads_are_gone_afterwards() -> None:
    before = set(threading.enumerate())
    parallel_map(square, range(100), max_workers=8)
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize("backend", ["thread", "process", "async"])
@pytest.mark.parametrize("chunksize", [1, 7, "auto"])
def test_a_chunk_is_the_most_that_a_worker_takes_at_once(backend: Any, chunksize: Any) -> None:
    assert parallel_map(abs, range(-50, 50), 2, backend, chunksize=chunksize) == list(map(abs, range(-50, 50)))


def test_no_worker_takes_more_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def turn(**limits: Any) -> Any:
        asked.append(limits["most"])
        return made(**limits)

    made = flowyml.executors.threads.ThreadCallLoop
    monkeypatch.setattr(flowyml.executors.threads, "ThreadCallLoop", turn)
    parallel_map(abs, range(10), 2, chunksize=3)
    assert set(asked) == {3}
