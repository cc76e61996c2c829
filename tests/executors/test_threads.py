"""The thread backend: its workers, what they share with each other, who may run on them and when they end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from worker_pools import eventually

from flowyml import LocalExecutor, ParallelExecutor, Pipeline, RunInterrupted, parallel_map
from flowyml.executors.threads import ThreadBackend, ThreadRun

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20  # seconds that a test waits for what must happen at once


def same(value: Any) -> Any:
    return value


def on_thread() -> str:
    return threading.current_thread().name


@pytest.fixture
def threads() -> Iterator[ParallelExecutor]:
    with ParallelExecutor(2, backend="thread") as executor:
        yield executor


# ---- workers -------------------------------------------------------------------------------------------------------


def test_steps_run_on_named_daemon_threads(threads: ParallelExecutor) -> None:
    pipeline = Pipeline("p").add_step(lambda: threading.current_thread().daemon, "daemon").add_step(on_thread)
    result = pipeline.run(executor=threads)
    assert result["daemon"]
    assert result["on_thread"].startswith("flowyml-worker-")


def test_two_workers_run_two_steps_at_the_same_time(threads: ParallelExecutor) -> None:
    barrier = threading.Barrier(2)
    pipeline = Pipeline("p").map(lambda _: barrier.wait(PATIENCE), range(2), name="meet")
    assert sorted(pipeline.run(executor=threads)["meet"]) == [0, 1]


def test_one_worker_runs_one_step_at_a_time() -> None:
    running, most = [0], [0]

    def count(_: int) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        running[0] -= 1

    with ParallelExecutor(1, backend="thread") as executor:
        Pipeline("p").map(count, range(2_000), name="count").run(executor=executor, raise_on_failure=True)
    assert most == [1]


def test_threads_stay_between_runs(threads: ParallelExecutor) -> None:
    barrier = threading.Barrier(2)

    def met(_: int) -> int:
        barrier.wait(PATIENCE)
        return threading.get_ident()

    pipeline = Pipeline("p").map(met, range(2), name="met")
    assert set(pipeline.run(executor=threads)["met"]) == set(pipeline.run(executor=threads)["met"])


def test_what_a_step_leaves_in_its_thread_stays_there(threads: ParallelExecutor) -> None:
    local = threading.local()

    def visits(_: int) -> int:
        local.visits = getattr(local, "visits", 0) + 1
        return local.visits

    pipeline = Pipeline("p").map(visits, range(500), name="visits")
    seen = Counter(pipeline.run(executor=threads)["visits"])
    assert seen[1] <= 2
    assert sum(seen.values()) == 500
    assert not hasattr(local, "visits")


def test_no_more_threads_than_steps() -> None:
    before = set(threading.enumerate())
    with ParallelExecutor(50, backend="thread") as executor:
        Pipeline("p").add_step(on_thread).run(executor=executor)
        assert len(set(threading.enumerate()) - before) == 1


# ---- sharing work --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapped", [True, False])
def test_many_small_steps_run_exactly_once_each(mapped: bool) -> None:
    ran: list[int] = []

    def note(value: int) -> None:
        ran.append(value)

    pipeline = Pipeline("p")
    if mapped:
        pipeline.map(note, range(50_000), name="m")
    else:
        for k in range(50_000):
            pipeline.add_step(note, f"s{k}", {"value": k})
    with ParallelExecutor(4, backend="thread") as executor:
        assert pipeline.run(executor=executor).success
    assert sorted(ran) == list(range(50_000))


@pytest.mark.parametrize("asked", [{}, {"keep": "leaves"}, {"progress": lambda progress: None}])
def test_small_steps_come_in_batches_whoever_wants_to_know(threads: ParallelExecutor, monkeypatch, asked: Any) -> None:
    """One by one they cost thirty times as much."""
    turns = []
    plain = ThreadRun._one_batch
    monkeypatch.setattr(ThreadRun, "_one_batch", lambda *given: (turns.append(given[1]), plain(*given)))
    assert Pipeline("small").map(abs, range(20_000), name="abs").run(executor=threads, **asked).success
    assert len(turns) < 2_000


def test_steps_behind_a_long_one_are_taken_back_by_an_idle_worker(threads: ParallelExecutor) -> None:
    """The long step waits for all others, some of which its own worker has claimed together with it."""
    others, all_done = 4_000, threading.Event()
    done: list[int] = []

    def quick(value: int) -> None:
        done.append(value)
        if len(done) == others:
            all_done.set()

    def slow(value: int) -> bool:
        return all_done.wait(PATIENCE) if value == others // 2 else quick(value) is None

    result = Pipeline("p").map(slow, range(others + 1), name="slow").run(executor=threads)
    assert all(result["slow"])


def test_what_a_worker_finished_before_a_long_step_lets_dependents_run(threads: ParallelExecutor) -> None:
    """A result does not wait in its worker for the end of the batch that it was claimed with."""
    dependent_ran = threading.Event()
    pipeline = Pipeline("p")
    for k in range(3_000):
        pipeline.add_step(same, f"warm_{k}", {"value": k})
    pipeline.add_step(same, "first", {"value": 1})
    pipeline.add_step(lambda: dependent_ran.wait(PATIENCE), "long")
    pipeline.add_step(lambda first: dependent_ran.set(), "dependent")
    assert pipeline.run(executor=threads)["long"]


def test_a_chain_and_a_fan_out_run_side_by_side(threads: ParallelExecutor) -> None:
    pipeline = Pipeline("p").add_step(same, "c0", {"value": 0})
    for k in range(1, 500):
        pipeline.add_step(lambda before: before + 1, f"c{k}", inputs=[f"c{k - 1}"])
    result = pipeline.map(same, range(5_000), name="wide").run(executor=threads)
    assert (result["c499"], sum(result["wide"])) == (499, sum(range(5_000)))


# ---- exceptions ----------------------------------------------------------------------------------------------------


class OwnBase(BaseException):
    """An exception that is no `Exception`."""


KINDS = [ValueError("x"), KeyError(1), SystemExit(1), KeyboardInterrupt(), GeneratorExit(), StopIteration(), OwnBase()]


@pytest.mark.parametrize("error", [*KINDS, ExceptionGroup("several", [ValueError()]), MemoryError()], ids=repr)
def test_an_exception_of_any_kind_is_the_very_object_in_the_result(threads: ParallelExecutor, error: Any) -> None:
    def fail() -> None:
        raise error

    result = Pipeline("p").add_step(fail).add_step(same, params={"value": 1}).run(executor=threads)
    assert result.step_results["fail"].exception is error
    assert result["same"] == 1


@pytest.mark.usefixtures("uncollected")
def test_a_deep_recursion_fails_its_step_alone(threads: ParallelExecutor) -> None:
    def deeper() -> int:
        return deeper() + 1

    result = Pipeline("p").add_step(deeper).add_step(on_thread).run(executor=threads)
    assert isinstance(result.step_results["deeper"].exception, RecursionError)
    assert result.step_results["on_thread"].success


# ---- runs in runs, runs at once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_on_the_very_same_executor_runs_inline(workers: int) -> None:
    with ParallelExecutor(workers, backend="thread") as executor:

        def outer(value: int) -> tuple[str, str, int]:
            inner = Pipeline("inner").add_step(on_thread).add_step(same, params={"value": value})
            result = inner.run(executor=executor)
            return on_thread(), result["on_thread"], result["same"]

        for value, (own, inner, got) in enumerate(
            Pipeline("outer").map(outer, range(20), name="o").run(executor=executor)["o"]
        ):
            assert (own, got) == (inner, value)


def test_executors_that_run_on_each_other_do_not_deadlock() -> None:
    with ParallelExecutor(1, backend="thread") as one, ParallelExecutor(1, backend="thread") as two:

        def on(executor: ParallelExecutor, func: Any) -> Any:
            return Pipeline("p").add_step(func, "it").run(executor=executor, raise_on_failure=True)["it"]

        got = parallel_map(lambda _: on(one, lambda: on(two, lambda: on(one, lambda: "done"))), [0], max_workers=1)
    assert got == ["done"]


def test_two_threads_take_turns_on_one_executor(threads: ParallelExecutor) -> None:
    inside, most, lock = [0], [0], threading.Lock()
    steps = 400

    def note(which: int) -> int:
        with lock:
            owners.add(which)
        return which

    owners: set[int] = set()

    def run(which: int) -> list[int]:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        pipeline = Pipeline(f"p{which}").map(note, [which] * steps, name="note")
        return list(pipeline.run(executor=threads)["note"])

    assert parallel_map(run, range(4), max_workers=4) == [[which] * steps for which in range(4)]
    assert owners == set(range(4))


def test_a_run_waits_for_the_one_before_it(threads: ParallelExecutor) -> None:
    entered, release, order = threading.Event(), threading.Event(), []

    def first() -> None:
        entered.set()
        assert release.wait(PATIENCE)
        order.append("first")

    other = threading.Thread(target=lambda: Pipeline("one").add_step(first).run(executor=threads))
    other.start()
    assert entered.wait(PATIENCE)
    second = threading.Thread(
        target=lambda: Pipeline("two").add_step(lambda: order.append("second"), "second").run(executor=threads)
    )
    second.start()
    assert order == []
    release.set()
    for thread in (other, second):
        thread.join(PATIENCE)
    assert order == ["first", "second"]


def test_fail_fast_lets_running_steps_end(threads: ParallelExecutor) -> None:
    running, failed = threading.Event(), threading.Event()

    def slow() -> str:
        running.set()
        assert failed.wait(PATIENCE)
        return "ended"

    def fail() -> None:
        assert running.wait(PATIENCE)
        failed.set()
        raise ValueError

    pipeline = Pipeline("p").add_step(slow).add_step(fail)
    for k in range(100):
        pipeline.add_step(same, f"later_{k}", {"value": k}, after=["fail"])
    result = pipeline.run(executor=threads, fail_fast=True)
    states = Counter(str(each.state) for each in result.step_results.values())
    assert (result["slow"], states["failed"], states["success"]) == ("ended", 1, 1)


# ---- the end -------------------------------------------------------------------------------------------------------


def test_shutdown_ends_the_threads() -> None:
    before = set(threading.enumerate())
    executor = ParallelExecutor(3, backend="thread")
    Pipeline("p").map(same, range(100), name="m").run(executor=executor)
    assert set(threading.enumerate()) - before
    executor.shutdown()
    assert not set(threading.enumerate()) - before


def test_shutdown_may_be_called_any_time() -> None:
    executor = ParallelExecutor(2, backend="thread")
    executor.shutdown()
    executor.shutdown()


def test_a_step_may_shut_its_own_executor_down_at_the_end_of_the_run() -> None:
    before = set(threading.enumerate())
    executor = ParallelExecutor(1, backend="thread")

    def close() -> str:
        with executor:
            return "closed"

    pipeline = Pipeline("p").add_step(close).add_step(on_thread)
    assert [pipeline.run(executor=executor)["close"] for _ in range(2)] == ["closed", "closed"]
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize(("backend", "coroutine"), [("thread", False), ("async", False), ("async", True)])
def test_a_step_that_was_given_up_shuts_down_at_once_and_not_after_the_next_run(backend: Any, coroutine: bool) -> None:
    before, gate, ended = set(threading.enumerate()), threading.Event(), threading.Event()

    def late() -> None:
        assert gate.wait(PATIENCE)
        executor.shutdown()
        ended.set()

    async def late_in_the_loop() -> None:
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        late()

    with ParallelExecutor(2, backend) as executor:
        Pipeline("p").add_step(late_in_the_loop if coroutine else late, timeout=0.1).run(executor=executor)
        gate.set()
        assert ended.wait(PATIENCE)
        assert executor._team is None
        Pipeline("next").add_step(on_thread).run(executor=executor)
        assert executor._team is not None
    assert eventually(lambda: not set(threading.enumerate()) - before)


def test_a_shutdown_that_is_interrupted_leaves_the_executor_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends, and with it the workers, since a step asked for it; then comes Ctrl-C."""

    def interrupted(_: ThreadBackend) -> None:
        raise KeyboardInterrupt

    with ParallelExecutor(1, backend="thread") as executor:
        pipeline = Pipeline("p").add_step(executor.shutdown, "closes")
        with monkeypatch.context() as patched:
            patched.setattr(ThreadBackend, "shutdown", interrupted)
            with pytest.raises(RunInterrupted):
                pipeline.run(executor=executor)
        other = threading.Thread(target=lambda: Pipeline("q").add_step(on_thread).run(executor=executor), daemon=True)
        other.start()
        other.join(PATIENCE)
        assert not other.is_alive()


def test_an_executor_starts_anew_after_shutdown(threads: ParallelExecutor) -> None:
    pipeline = Pipeline("p").add_step(on_thread)
    pipeline.run(executor=threads)
    threads.shutdown()
    assert pipeline.run(executor=threads).success


def test_threads_end_with_their_executor() -> None:
    before = set(threading.enumerate())
    executor = ParallelExecutor(2, backend="thread")
    Pipeline("p").map(same, range(10), name="m").run(executor=executor)
    mine = set(threading.enumerate()) - before
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    for thread in mine:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_an_idle_pool_keeps_no_values_alive(threads: ParallelExecutor) -> None:
    class Value:
        """Something that can be watched."""

    result = Pipeline("p").add_step(Value).run(executor=threads)
    watched = weakref.ref(result["Value"])
    del result
    deadline = time.monotonic() + PATIENCE
    while gc.collect() >= 0 and watched() is not None and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert watched() is None


# ---- the local executor --------------------------------------------------------------------------------------------


def test_local_steps_run_in_the_calling_thread() -> None:
    assert Pipeline("p").add_step(threading.get_ident, "it").run()["it"] == threading.get_ident()


@pytest.mark.parametrize(
    ("graph", "wanted"),
    [
        ("a b c d", "abcd"),
        ("a b:a c d", "abcd"),
        ("b:a a c d", "abcd"),
        ("a b c:a d:b", "abcd"),
        ("x:c a b c d", "abcxd"),
        ("a b:a c:b d", "abcd"),
        ("d:ab a b c", "abdc"),
    ],
)
def test_local_steps_run_in_add_order_among_what_is_ready(graph: str, wanted: str) -> None:
    ran: list[str] = []
    pipeline = Pipeline("p")
    for each in graph.split():
        name, _, needed = each.partition(":")
        pipeline.add_step(ran.append, name, {"object": name}, after=list(needed))
    pipeline.run(executor=LocalExecutor())
    assert "".join(ran) == wanted


def test_a_local_map_runs_before_what_is_added_after_it() -> None:
    ran: list[Any] = []
    pipeline = Pipeline("p").map(ran.append, [1, 2, 3], name="m")
    pipeline.add_step(lambda: ran.append("after"), "reads", after=["m"])
    pipeline.add_step(lambda: ran.append("last"), "last").run(executor=LocalExecutor())
    assert ran == [1, 2, 3, "after", "last"]


def test_fail_fast_begins_nothing_behind_a_failure_in_a_batch(threads: ParallelExecutor) -> None:
    """Small steps go in batches; what is behind the one that fails is not begun, nor what others have in hand."""
    begun = []

    def late(i: int) -> int:
        if i < 3_000:
            return i
        begun.append(i)
        if i == 3_000:
            raise ValueError(i)
        time.sleep(0.05)
        return i

    Pipeline("late").map(late, range(3_200), name="late").run(executor=threads, fail_fast=True)
    assert len(begun) <= 1 + 2 * threads.max_workers
