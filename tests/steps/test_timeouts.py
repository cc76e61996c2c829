"""A step that takes longer than its `timeout` has ended as timed out, on every executor, and costs nobody else.

Steps that are to be over their time would take a minute; what is to be in time has a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import math
import os
import pickle
import re
import signal
import threading
import time
from array import array
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pipelines import planned
from step_states import states
from worker_pools import under_load

from flowyml import (
    LocalExecutor,
    ParallelExecutor,
    Pipeline,
    RunInterrupted,
    Step,
    StepError,
    StepNotRunError,
    StepTimeoutError,
    get_context,
    parallel_map,
    retry,
    step,
)
from flowyml._core import Scheduler
from flowyml.runtime.execute import execute
from flowyml.runtime.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20
"""Seconds that a test waits for what must happen at once."""
SHORT = 0.2
LONG = 60

IN_THREADS = {
    "local": LocalExecutor,
    "thread": lambda: ParallelExecutor(2, "thread"),
    "async": lambda: ParallelExecutor(2, "async"),
}


@pytest.fixture(params=IN_THREADS)
def threaded(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Those executors that run steps in threads of this process."""
    with IN_THREADS[request.param]() as executor:
        yield executor


def sleep(seconds: float = LONG) -> float:
    time.sleep(seconds)
    return seconds


def count(folder: str, name: str = "tries") -> int:
    """Note an attempt in a file, and return how many there were."""
    path = Path(folder, name)
    with path.open("a") as file:
        file.write("x")
    return path.stat().st_size


def hang_at_first(folder: str, times: int) -> int:
    """Be over the time for the first few attempts."""
    tries = count(folder)
    if tries <= times:
        time.sleep(LONG)
    return tries


def eventually(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


# ---- one step ------------------------------------------------------------------------------------------------------


def test_a_step_over_its_time_is_timed_out_by_name(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(sleep, "slow", timeout=SHORT).add_step(lambda slow: slow, "reads")
    pipeline.add_step(sleep, "quick", {"seconds": 0}, timeout=LONG)
    result = pipeline.run(executor=executor)
    assert states(result) == {"slow": "timed_out", "reads": "upstream_failed", "quick": "success"}
    assert not result.success
    slow = result.step_results["slow"]
    assert isinstance(slow.exception, StepTimeoutError)
    assert (slow.exception.step_name, slow.exception.timeout) == ("slow", SHORT)
    assert slow.error_line == "StepTimeoutError: step 'slow' took longer than its timeout of 0.2 s"
    assert SHORT <= slow.duration_seconds < PATIENCE
    assert [each.step_name for each in result.failed] == ["slow"]
    with pytest.raises(StepNotRunError, match="slow has no value: step 'slow' timed out: StepTimeoutError"):
        result["slow"]
    with pytest.raises(StepError, match="step 'slow' timed_out: StepTimeoutError"):
        result.raise_for_failure()


def test_the_error_is_pythons_own_kind_and_travels() -> None:
    error = pickle.loads(pickle.dumps(StepTimeoutError("a", 2.0)))
    assert isinstance(error, TimeoutError)
    assert (str(error), error.args) == ("step 'a' took longer than its timeout of 2 s", ("a", 2.0))


def test_steps_in_time_are_successes(executor: Any) -> None:
    result = Pipeline("in time").map(abs, range(2_000), name="m", timeout=LONG).run(executor=executor)
    assert list(result["m"]) == list(range(2_000))


def test_exceptions_and_values_are_as_without(executor: Any) -> None:
    pipeline = Pipeline("as without").map(lambda i: 1 / i, [2, 0, 4], name="m", timeout=LONG)
    pipeline.add_step(lambda: (1, 2), "two", outputs=["a", "b"], timeout=LONG)
    result = pipeline.run(executor=executor)
    assert [str(item.state) for item in result.step_results["m"].items] == ["success", "failed", "success"]
    assert isinstance(result.step_results["m"].items[1].exception, ZeroDivisionError)
    assert (result["m"][0], result["a"], result["b"]) == (0.5, 1, 2)


def test_a_timeout_that_a_step_raises_by_itself_is_a_failure(executor: Any) -> None:
    def raises() -> None:
        raise StepTimeoutError("other", 1.0)

    assert states(Pipeline("p").add_step(raises, timeout=LONG).run(executor=executor)) == {"raises": "failed"}


def test_conditions_count(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(abs, "a", {"x": 1}, timeout=SHORT, condition=lambda x: time.sleep(LONG))
    pipeline.add_step(abs, "b", {"x": 1}, timeout=LONG, condition=lambda x: x > 1)
    assert states(pipeline.run(executor=executor)) == {"a": "timed_out", "b": "skipped"}


# ---- many ----------------------------------------------------------------------------------------------------------


def test_exactly_the_guilty_ones_in_batches_of_small_steps(executor: Any, tmp_path: Path) -> None:
    guilty = {0, 700, 701, 1_999}

    def item(i: int, folder: str) -> int:
        if i in guilty:
            time.sleep(LONG)
        if i % 100 == 1:
            count(folder, str(i))
        return i

    params = {"folder": str(tmp_path)}
    result = (
        Pipeline("m").map(item, range(2_000), name="m", params=params, timeout=under_load(SHORT)).run(executor=executor)
    )
    assert [each.step_name for each in result.failed] == [f"m[{i}]" for i in sorted(guilty)]
    assert {str(each.state) for each in result.failed} == {"timed_out"}
    assert [result["m"][i] for i in range(2_000) if i not in guilty] == [i for i in range(2_000) if i not in guilty]
    assert {each.attempts for each in result.step_results["m"].items} == {1}
    wanted = {str(i): 1 for i in range(1, 2_000, 100) if i not in guilty}
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == wanted


def test_items_have_their_own_time(executor: Any) -> None:
    """Together they take longer than the limit of one."""
    result = Pipeline("m").map(sleep, [0.05] * 40, name="m", timeout=1.0).run(executor=executor)
    assert result.success


def test_steps_with_and_without_a_limit_in_one_pipeline(executor: Any) -> None:
    pipeline = Pipeline("mixed")
    for i in range(30):
        limit = SHORT if i % 3 == 0 else None if i % 3 == 1 else LONG
        pipeline.add_step(sleep, f"s{i}", {"seconds": LONG if i in {6, 21} else i / 1_000}, timeout=limit)
    result = pipeline.run(executor=executor)
    assert [each.step_name for each in result.failed] == ["s6", "s21"]
    assert [result[f"s{i}"] for i in range(30) if i not in {6, 21}] == [i / 1000 for i in range(30) if i not in {6, 21}]


def test_fail_fast_ends_the_run(executor: Any) -> None:
    pipeline = Pipeline("fast").add_step(sleep, "slow", timeout=SHORT)
    pipeline.map(sleep, [0.05] * 1_000, name="many", timeout=LONG)
    began = time.monotonic()
    result = pipeline.run(executor=executor, fail_fast=True)
    assert time.monotonic() - began < PATIENCE
    assert states(result) == {"slow": "timed_out", "many": "cancelled"}


# ---- attempts ------------------------------------------------------------------------------------------------------


def test_each_timeout_spends_an_attempt(executor: Any, tmp_path: Path) -> None:
    params = {"folder": str(tmp_path), "times": 9}
    result = Pipeline("p").add_step(hang_at_first, "s", params, timeout=SHORT, retry=2).run(executor=executor)
    assert (tmp_path / "tries").stat().st_size == 3
    assert (states(result), result.step_results["s"].attempts) == ({"s": "timed_out"}, 3)


def test_the_next_attempt_may_succeed(executor: Any, tmp_path: Path) -> None:
    params = {"folder": str(tmp_path), "times": 1}
    result = Pipeline("p").add_step(hang_at_first, "s", params, timeout=SHORT, retry=2).run(executor=executor)
    assert (result["s"], result.step_results["s"].attempts) == (2, 2)


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [
        (retry(2, on=[StepTimeoutError]), 2),
        (retry(2, on=TimeoutError), 2),
        (retry(2, on=[ValueError]), 1),
        (retry(2, not_on=[StepTimeoutError]), 1),
    ],
)
def test_policies_see_the_error(executor: Any, tmp_path: Path, policy: Any, attempts: int) -> None:
    params = {"folder": str(tmp_path), "times": 9}
    result = Pipeline("p").add_step(hang_at_first, "s", params, timeout=SHORT, retry=policy).run(executor=executor)
    assert (states(result)["s"], result.step_results["s"].attempts) == ("timed_out", attempts)
    assert (tmp_path / "tries").stat().st_size == attempts


def test_a_fallback_stands_in(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(sleep, "slow", timeout=SHORT, fallback=lambda seconds=0: "instead")
    result = pipeline.add_step(lambda slow: slow, "reads").run(executor=executor)
    assert (result["reads"], str(result.step_results["slow"].state)) == ("instead", "success")


def test_a_fallback_has_its_own_time(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(sleep, "slow", timeout=SHORT, fallback=lambda seconds=0: time.sleep(LONG))
    assert states(pipeline.run(executor=executor)) == {"slow": "timed_out"}


def test_what_is_cached_is_what_was_in_time(executor: Any, tmp_path: Path) -> None:
    pipeline = Pipeline("p", cache_dir=str(tmp_path))
    pipeline.map(sleep, [0.01, LONG, 0.02], name="m", timeout=SHORT, cache=True)
    first, second = pipeline.run(executor=executor), pipeline.run(executor=executor)
    assert [str(item.state) for item in first.step_results["m"].items] == ["success", "timed_out", "success"]
    assert [str(item.state) for item in second.step_results["m"].items] == ["cached", "timed_out", "cached"]


# ---- where a limit comes from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["thread", "process", "async"])
def test_the_executors_limit_is_for_steps_without_their_own(backend: Any) -> None:
    pipeline = Pipeline("p").add_step(sleep, "default")
    pipeline.add_step(sleep, "own", {"seconds": 3 * SHORT}, timeout=LONG)
    pipeline.add_step(sleep, "none", {"seconds": 3 * SHORT}, timeout=math.inf)
    with ParallelExecutor(3, backend, timeout=SHORT) as executor:
        result = pipeline.run(executor=executor)
    assert states(result) == {"default": "timed_out", "own": "success", "none": "success"}


def test_the_last_word_is_add_steps() -> None:
    limited = step(timeout=LONG)(sleep)
    assert limited.timeout == LONG
    result = Pipeline("p").add_step(limited, "a", timeout=SHORT).add_step(limited, "b", {"seconds": 0}).run()
    assert states(result) == {"a": "timed_out", "b": "success"}


def test_a_timedelta_is_fine() -> None:
    assert Step(sleep, timeout=dt.timedelta(minutes=2)).timeout == 120.0
    executor = pickle.loads(pickle.dumps(ParallelExecutor(2, timeout=dt.timedelta(seconds=2))))
    assert repr(executor) == "ParallelExecutor(max_workers=2, backend='process', timeout=2.0)"


@pytest.mark.parametrize("backend", ["thread", "process", "async"])
def test_parallel_map_has_a_limit_for_each_item(backend: Any) -> None:
    got = parallel_map(sleep, [0, LONG, 0.01], backend=backend, timeout=SHORT, on_error="return")
    assert (got[0], got[2]) == (0, 0.01)
    assert isinstance(got[1], StepTimeoutError)
    with pytest.raises(StepTimeoutError, match=r"took longer than its timeout of 0\.2 s") as caught:
        parallel_map(sleep, [0, LONG], backend=backend, timeout=SHORT)
    assert caught.value.__notes__ == ["raised for item 1 of parallel_map()"]


def test_a_run_inside_a_step_has_the_limits_of_its_executor(executor: Any) -> None:
    def nested() -> dict[str, str]:
        with ParallelExecutor(1, "thread", timeout=SHORT) as inner:
            return states(Pipeline("inner").add_step(sleep).run(executor=inner))

    assert Pipeline("p").add_step(nested).run(executor=executor)["nested"] == {"sleep": "timed_out"}


# ---- threads: given up ---------------------------------------------------------------------------------------------


def test_what_an_abandoned_thread_returns_reaches_nothing(threaded: Any) -> None:
    """Its step was tried again meanwhile: the value is that of the second attempt, and stays so."""
    over, ended, tries = threading.Event(), threading.Event(), []

    def late() -> str:
        tries.append(1)
        if len(tries) > 1:
            return "second"
        over.wait(PATIENCE)
        ended.set()
        return "first"

    pipeline = Pipeline("late").add_step(late, timeout=SHORT, retry=1)
    pipeline.add_step(lambda late: over.set() or (ended.wait(PATIENCE) and time.sleep(0.05)), "reads", after=["late"])
    result = pipeline.run(executor=threaded)
    assert (result["late"], result.step_results["late"].attempts, tries) == ("second", 2, [1, 1])


def test_what_an_abandoned_thread_raises_reaches_nothing(threaded: Any) -> None:
    over, ended = threading.Event(), threading.Event()

    def late() -> None:
        over.wait(PATIENCE)
        ended.set()
        raise ValueError

    result = Pipeline("late").add_step(late, timeout=SHORT).run(executor=threaded)
    over.set()
    assert ended.wait(PATIENCE)
    assert isinstance(result.step_results["late"].exception, StepTimeoutError)
    assert Pipeline("next").add_step(abs, params={"x": -1}).run(executor=threaded)["abs"] == 1


def test_one_worker_goes_on_with_another_thread() -> None:
    over, before = threading.Event(), set(threading.enumerate())
    with ParallelExecutor(1, "thread") as executor:
        pipeline = Pipeline("p").map(lambda i: over.wait(PATIENCE) if i < 3 else i, range(9), name="m", timeout=SHORT)
        result = pipeline.run(executor=executor)
        assert [each.step_name for each in result.failed] == ["m[0]", "m[1]", "m[2]"]
        assert [result["m"][i] for i in range(3, 9)] == list(range(3, 9))
        over.set()
        assert "flowyml-worker-0" in {thread.name for thread in set(threading.enumerate()) - before}
    assert eventually(lambda: not set(threading.enumerate()) - before)


def test_a_warning_is_logged_once_a_run(threaded: Any, caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()
    pipeline = Pipeline("warn").map(lambda _: over.wait(PATIENCE), range(3), name="m", timeout=SHORT)
    wanted = r"step 'm\[[012]\]' is over its timeout of 0\.2 s; a thread cannot be stopped"
    for _ in range(2):
        pipeline.run(executor=threaded)
    over.set()
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [bool(re.match(wanted, record.getMessage())) for record in told] == [True, True]


def test_no_warning_for_processes(caplog: pytest.LogCaptureFixture) -> None:
    with ParallelExecutor(1) as executor:
        Pipeline("p").add_step(sleep, timeout=SHORT).run(executor=executor)
    assert [record for record in caplog.records if record.levelno == logging.WARNING] == []


def with_one_token(pipeline: Pipeline, executor: Any) -> Run:
    """Return a run of which all steps need the same token."""
    run = Run(planned(pipeline), order=executor.order)
    count = run.plan.graph.node_count
    classes: list[list[tuple[int, int]]] = [[], [(0, 1)]]
    run.scheduler = Scheduler(run.plan.graph, limits=array("I", [1]), demands=array("I", [1] * count), classes=classes)
    run.claim = run.scheduler.claim
    return run


@pytest.mark.parametrize("coroutine", [False, True])
def test_an_abandoned_step_keeps_its_tokens_until_it_ends(threaded: Any, *, coroutine: bool) -> None:
    over, seen = threading.Event(), []

    def first() -> None:
        over.wait(PATIENCE)
        time.sleep(0.1)
        seen.append("first has ended")

    async def first_of_a_loop() -> None:
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        seen.append("first has ended")

    pipeline = Pipeline("p").add_step(first_of_a_loop if coroutine else first, "first", timeout=SHORT)
    pipeline.add_step(lambda: seen.append("second begins"), "second", timeout=LONG)
    threading.Timer(4 * SHORT, over.set).start()
    result = execute(with_one_token(pipeline, threaded), threaded)
    assert states(result) == {"first": "timed_out", "second": "success"}
    assert seen == ["first has ended", "second begins"]


def test_a_run_inside_an_abandoned_thread_is_asked_to_end(threaded: Any) -> None:
    """Its thread goes on as after Ctrl-C, instead of running steps whose values nobody will see."""
    begun, ended = [], threading.Event()

    def inner(i: int) -> None:
        begun.append(i)
        time.sleep(0.05)

    def outer() -> None:
        try:
            Pipeline("inner").map(inner, range(1_000), name="m").run()
        finally:
            ended.set()

    result = Pipeline("outer").add_step(outer, timeout=SHORT).run(executor=threaded)
    assert states(result) == {"outer": "timed_out"}
    assert ended.wait(PATIENCE)
    assert len(begun) < 100


def test_a_coroutine_is_cancelled(threaded: Any) -> None:
    heard = threading.Event()

    async def waits() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            heard.set()
            raise

    pipeline = Pipeline("p").add_step(waits, timeout=SHORT, retry=1)
    result = pipeline.run(executor=threaded)
    assert (states(result), result.step_results["waits"].attempts) == ({"waits": "timed_out"}, 2)
    assert heard.wait(PATIENCE)


def test_a_coroutine_that_swallows_it_is_left_behind(threaded: Any) -> None:
    over, ended = threading.Event(), threading.Event()

    async def stubborn() -> str:
        while not over.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        ended.set()
        return "late"

    pipeline = Pipeline("p").add_step(stubborn, timeout=SHORT).add_step(lambda: 1, "other")
    result = pipeline.run(executor=threaded)
    assert states(result) == {"stubborn": "timed_out", "other": "success"}
    assert Pipeline("next").add_step(abs, params={"x": -1}).run(executor=threaded)["abs"] == 1
    over.set()
    assert ended.wait(PATIENCE)
    assert states(result)["stubborn"] == "timed_out"


def test_a_loop_ends_although_a_coroutine_in_it_does_not() -> None:
    over = threading.Event()

    async def stubborn() -> None:
        while not over.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    began = time.monotonic()
    with ParallelExecutor(2, "async") as executor:
        Pipeline("p").add_step(stubborn, timeout=SHORT).run(executor=executor)
    assert time.monotonic() - began < PATIENCE
    over.set()


# ---- local: a helper thread ----------------------------------------------------------------------------------------


def test_only_steps_with_a_limit_leave_the_callers_thread() -> None:
    pipeline = Pipeline("p").add_step(lambda: threading.current_thread().name, "helper", timeout=LONG)
    pipeline.add_step(threading.get_ident, "here").add_step(lambda: threading.current_thread().daemon, "d", timeout=1)
    before = set(threading.enumerate())  # those that earlier tests left may end meanwhile
    result = pipeline.run()
    assert (result["helper"], result["here"], result["d"]) == ("flowyml-local", threading.get_ident(), True)
    assert set(threading.enumerate()) <= before


def test_the_local_executor_keeps_add_order() -> None:
    order: list[int] = []
    pipeline = Pipeline("order")
    for i in range(200):
        pipeline.add_step(order.append, f"s{i}", {"object": i}, timeout=LONG if i // 7 % 2 else None)
    assert pipeline.run().success
    assert order == list(range(200))


def test_a_helper_thread_sees_context_variables_and_the_step() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    variable.set("caller's")

    def look() -> tuple[str, str, int]:
        here = get_context()
        value = variable.get()
        variable.set("helper's")
        return value, here.step_name, here.attempt

    result = Pipeline("p").map(lambda _: look(), range(2), name="m", timeout=LONG).run()
    assert [value[1:] for value in result["m"]] == [("m[0]", 1), ("m[1]", 1)]
    assert (result["m"][0][0], variable.get()) == ("caller's", "caller's")


def test_random_numbers_follow_from_the_seed(executor: Any) -> None:
    def draw(_: int) -> float:
        return get_context().rng.random()

    limited = Pipeline("p").map(draw, range(5), name="m", timeout=LONG).run(seed=3, executor=executor)
    assert list(limited["m"]) == list(Pipeline("p").map(draw, range(5), name="m").run(seed=3)["m"])


def test_values_go_after_their_last_reader(executor: Any) -> None:
    pipeline = Pipeline("keep").add_step(abs, "a", {"x": -1}, timeout=LONG)
    pipeline.add_step(lambda a: a + 1, "b", timeout=LONG)
    result = pipeline.run(executor=executor, keep="leaves")
    assert (result["b"], result.success) == (2, True)
    with pytest.raises(StepNotRunError, match="dropped"):
        result["a"]


# ---- Ctrl-C --------------------------------------------------------------------------------------------------------


def test_an_interrupt_ends_the_run_while_a_limited_step_runs(fresh_executor: Any) -> None:
    def interrupt(driver: int) -> None:
        os.kill(driver, signal.SIGINT)
        time.sleep(LONG)

    pipeline = Pipeline("p").map(abs, [1, 2, 3], name="done", timeout=LONG)
    pipeline.add_step(interrupt, params={"driver": os.getpid()}, after=["done"], timeout=LONG)
    pipeline.add_step(lambda interrupt: 1, "never", timeout=LONG)
    began = time.monotonic()
    with pytest.raises(RunInterrupted) as caught:
        pipeline.run(executor=fresh_executor)
    assert time.monotonic() - began < PATIENCE
    result = caught.value.result
    assert result is not None
    assert states(result) == {"done": "success", "interrupt": "cancelled", "never": "cancelled"}
    assert list(result["done"]) == [1, 2, 3]
    assert Pipeline("next").add_step(abs, params={"x": -1}, timeout=LONG).run(executor=fresh_executor)["abs"] == 1


def test_an_interrupt_after_a_timeout_ends_the_run(fresh_executor: Any) -> None:
    pipeline = Pipeline("p").add_step(sleep, timeout=SHORT, retry=1_000)
    threading.Timer(3 * SHORT, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(RunInterrupted) as caught:
        pipeline.run(executor=fresh_executor)
    result = caught.value.result
    assert result is not None
    assert states(result) == {"sleep": "cancelled"}
