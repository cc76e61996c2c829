"""Event loops around a run: `run_async` can be awaited, `run` works inside a running loop, on every executor."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from pipelines import typed_keywords

from flowyml import (
    ExponentialBackoff,
    ParallelExecutor,
    Pipeline,
    PipelineValidationError,
    StepError,
    get_context,
    launch,
    parallel_map,
    retry,
    step,
)
from flowyml.launch import RunOptions
from flowyml.runtime.run import Run

asked: contextvars.ContextVar[str] = contextvars.ContextVar("asked", default="nobody")


@step
async def soon(value: int) -> int:
    await asyncio.sleep(0.001)
    return value + 1


def numbers(count: int = 5) -> Pipeline:
    return Pipeline("numbers").map(soon, range(count)).add_step(sum, inputs=["soon"])


def test_run_async_gives_the_result_of_run(executor: Any) -> None:
    result = asyncio.run(numbers().run_async(executor=executor, run_id="r"))
    assert (result.success, result["sum"], result.run_id) == (True, 15, "r")


def test_the_loop_goes_on_meanwhile(executor: Any, tmp_path: Path) -> None:
    """The step waits for a file that the loop writes."""

    def wait(path: str) -> str:
        while not Path(path).exists():
            time.sleep(0.001)
        return Path(path).read_text()

    async def main() -> Any:
        run = asyncio.create_task(
            Pipeline("w").add_step(wait, params={"path": str(tmp_path / "f")}).run_async(executor=executor)
        )
        await asyncio.sleep(0.05)
        (tmp_path / "g").write_text("from the loop")
        (tmp_path / "g").rename(tmp_path / "f")
        return await run

    assert asyncio.run(main())["wait"] == "from the loop"


def test_several_runs_at_once(executor: Any) -> None:
    async def main() -> Any:
        return await asyncio.gather(*(numbers(n).run_async(executor=executor) for n in range(1, 5)))

    assert [result["sum"] for result in asyncio.run(main())] == [1, 3, 6, 10]


def test_a_plain_run_inside_a_running_loop(executor: Any) -> None:
    async def main() -> Any:
        return numbers().run(executor=executor)["sum"]

    assert asyncio.run(main()) == 15


def test_what_is_wrong_is_raised_where_it_is_awaited(executor: Any) -> None:
    with pytest.raises(PipelineValidationError, match="Missing required parameters"):
        asyncio.run(Pipeline("p").add_step(soon).run_async(executor=executor))
    pipeline = Pipeline("p").add_step(soon, params={"value": None})
    assert not asyncio.run(pipeline.run_async(executor=executor)).success
    with pytest.raises(StepError, match="soon"):
        asyncio.run(pipeline.run_async(executor=executor, raise_on_failure=True))
    with pytest.raises(TypeError, match=r"run_async\(\) got an unknown keyword .*seed"):
        asyncio.run(pipeline.run_async(sed=1))


def test_cancelling_the_task_cancels_the_run(fresh_executor: Any, tmp_path: Path) -> None:
    """The first step is under way, the second never begins."""

    def mark(path: str, seconds: float) -> None:
        Path(path).touch()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)

    first, second = tmp_path / "first", tmp_path / "second"
    pipeline = Pipeline("c").add_step(mark, "a", {"path": str(first), "seconds": 0.5})
    pipeline.add_step(mark, "b", {"path": str(second), "seconds": 0}, after="a")

    async def main() -> float:
        task = asyncio.create_task(pipeline.run_async(executor=fresh_executor))
        while not first.exists():  # noqa: ASYNC110  another process writes the file
            await asyncio.sleep(0.005)
        task.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - started

    assert asyncio.run(main()) < 3
    assert Pipeline("next").add_step(max, params={"a": 1, "b": 2}).run(executor=fresh_executor)["max"] == 2
    assert not second.exists()


def test_cancelling_the_task_cuts_the_delay_of_a_retry_short(fresh_executor: Any) -> None:
    """The run has ended long before the delay has."""
    over = threading.Event()

    class Cancels(ExponentialBackoff):
        def delay(self, *_: Any) -> float:
            loop.call_soon_threadsafe(task.cancel)
            return 60.0

    pipeline = Pipeline("d").add_step(lambda: 1 / 0, name="fails", retry=retry(max_attempts=2, backoff=Cancels()))
    pipeline.hooks.on_pipeline_end(lambda *_: over.set())

    async def main() -> None:
        nonlocal loop, task
        loop = asyncio.get_running_loop()
        task = loop.create_task(pipeline.run_async(executor=fresh_executor))
        await asyncio.wait([task])

    loop: Any = None
    task: Any = None
    asyncio.run(main())
    assert task.cancelled()
    assert over.wait(20)


def test_a_cancelled_run_that_does_not_end_is_left_behind(tmp_path: Path) -> None:
    gate = threading.Event()
    pipeline = Pipeline("stuck").add_step(lambda: gate.wait(30), name="s")

    async def main() -> None:
        await asyncio.wait_for(pipeline.run_async(), 0.05)

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert time.monotonic() - started < 5
    gate.set()


def test_a_coroutine_step_may_await_a_run_on_its_own_executor() -> None:
    with ParallelExecutor(1, backend="thread") as executor:

        async def outer() -> Any:
            return (await numbers(3).run_async(executor=executor))["sum"], get_context().step_name

        assert Pipeline("outer").add_step(outer).run(executor=executor)["outer"] == (6, "outer")


def test_context_variables_of_the_task_are_seen_on_the_local_executor() -> None:
    async def main() -> Any:
        asked.set("me")
        return (await Pipeline("v").add_step(asked.get, "get").run_async())["get"]

    assert asyncio.run(main()) == "me"


# ---- backend="async" -----------------------------------------------------------------------------------------------


def loop_of(limit: int | None = None) -> ParallelExecutor:
    return ParallelExecutor(limit, backend="async")


class UnderWay:
    """Counts how many are inside at once."""

    now = most = 0

    async def __aenter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    async def __aexit__(self, *_: object) -> None:
        self.now -= 1


def test_steps_are_under_way_at_once_up_to_the_limit() -> None:
    async def fetch(_: int) -> str:
        async with under_way:
            await asyncio.sleep(0.01)
        return threading.current_thread().name

    under_way = UnderWay()
    with loop_of(7) as executor:
        result = Pipeline("limit").map(fetch, range(50)).run(executor=executor)
    assert (set(result["fetch"]), under_way.most) == ({"flowyml-loop"}, 7)


def test_ten_thousand_steps_that_sleep_take_as_long_as_the_limit_makes_them() -> None:
    async def nap(x: int) -> int:
        async with under_way:
            await asyncio.sleep(0.1)
        return x

    under_way = UnderWay()
    with loop_of(2500) as executor:
        started, used = time.monotonic(), time.process_time()
        result = Pipeline("naps").map(nap, range(10_000)).run(executor=executor)
        seconds, used = time.monotonic() - started, time.process_time() - used
    assert list(result["nap"]) == list(range(10_000))
    assert under_way.most == 2500
    assert seconds >= 0.4
    assert used < 5  # what is above the sleep is the loop's work


def test_the_default_limit_is_a_hundred() -> None:
    assert loop_of().max_workers == 100


def test_plain_functions_do_not_hold_up_the_loop() -> None:
    """The plain one blocks until the coroutine has run."""
    gate = threading.Event()

    async def opens() -> None:
        await asyncio.sleep(0)
        gate.set()

    with loop_of() as executor:
        pipeline = Pipeline("both").add_step(lambda: gate.wait(20), name="blocks").add_step(opens)
        assert pipeline.run(executor=executor)["blocks"] is True


def test_helper_threads_are_used_again_and_end_with_the_executor() -> None:
    """Also across runs, and each step sees the context variables of its own task only."""
    before = set(threading.enumerate())

    def which(x: int) -> tuple[int, str]:
        seen = asked.get()
        asked.set(f"step {x}")
        return threading.get_ident(), seen

    with loop_of(2) as executor:
        results = [Pipeline("p").map(which, range(50)).run(executor=executor)["which"] for _ in range(2)]
    found = [each for result in results for each in result]
    assert len({thread for thread, _ in found}) <= 3  # one may still be on its way back when the next step begins
    assert {seen for _, seen in found} == {"nobody"}
    assert set(threading.enumerate()) == before


def test_the_loop_stays_between_runs_and_ends_with_the_executor() -> None:
    left: list[Any] = []
    before = set(threading.enumerate())

    async def which() -> int:
        return id(asyncio.get_running_loop())

    async def leaves() -> None:
        async def stay() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                left.append("cancelled")
                raise

        left.append(asyncio.create_task(stay()))
        await asyncio.sleep(0)

    with loop_of() as executor:
        loops = {Pipeline("p").add_step(which).run(executor=executor)["which"] for _ in range(3)}
        Pipeline("q").add_step(leaves).run(executor=executor)
    assert len(loops) == 1
    assert left[1:] == ["cancelled"]
    assert set(threading.enumerate()) == before


def test_an_executor_whose_run_raised_is_freed_with_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: Any) -> None:
        raise KeyError("ours")

    def run() -> threading.Event:
        executor, freed = ParallelExecutor(backend="async"), threading.Event()
        weakref.finalize(executor, freed.set)
        with contextlib.suppress(KeyError):
            numbers().run(executor=executor)
        return freed

    monkeypatch.setattr(Run, "complete", raises)
    gc.disable()  # a cycle would keep it for as long as nothing is collected
    try:
        assert run().wait(10)
    finally:
        gc.enable()


def test_fail_fast_begins_nothing_new() -> None:
    begun = []

    async def fails(x: int) -> None:
        begun.append(x)
        await asyncio.sleep(0.001)
        raise ValueError(x)

    with loop_of(3) as executor:
        result = Pipeline("f").map(fails, range(100)).run(executor=executor, fail_fast=True)
    assert not result.success
    assert len(begun) <= 6


def test_a_retry_waits_without_a_slot() -> None:
    order: list[str] = []

    async def flaky() -> None:
        order.append("flaky")
        if order.count("flaky") == 1:
            raise OSError

    async def other() -> None:
        order.append("other")

    with loop_of(1) as executor:
        pipeline = Pipeline("r").add_step(flaky, retry=retry(max_attempts=2, backoff=0.1)).add_step(other)
        assert pipeline.run(executor=executor).success
    assert order == ["flaky", "other", "flaky"]


def test_a_step_that_cancels_itself_has_failed() -> None:
    async def quits() -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.sleep(1)

    with loop_of() as executor:
        result = Pipeline("c").add_step(quits).add_step(soon, params={"value": 1}).run(executor=executor)
    assert [str(each.state) for each in result.step_results.values()] == ["failed", "success"]


def cancel_others() -> None:
    """Cancel all that is in the loop but this."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


def test_steps_that_another_one_cancels_have_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coroutine, a plain function that goes on, and one that waits for a thread, all alike."""
    monkeypatch.setattr("flowyml.executors.event_loop._MAX_THREADS", 1)
    begun, gate = threading.Event(), threading.Event()

    def blocks(_: int) -> None:
        begun.set()
        gate.wait(20)

    async def cleans() -> None:
        while not begun.is_set():  # noqa: ASYNC110  a thread sets it
            await asyncio.sleep(0)
        cancel_others()

    with loop_of() as executor:
        pipeline = Pipeline("c").add_step(asyncio.sleep, "sleeps", {"delay": 60}).map(blocks, range(2)).add_step(cleans)
        result = pipeline.add_step(soon, params={"value": 1}, after=["cleans"]).run(executor=executor)
        gate.set()
    assert [each.step_name for each in result.failed] == ["sleeps", "blocks[0]", "blocks[1]"]
    assert {type(each.exception) for each in result.failed} == {asyncio.CancelledError}
    assert result["soon"] == 2


def test_a_step_that_is_cancelled_before_it_began_has_failed() -> None:
    async def cancels() -> None:
        cancel_others()

    with loop_of() as executor:
        result = Pipeline("c").add_step(cancels).add_step(soon, params={"value": 1}).run(executor=executor)
    assert [str(each.state) for each in result.step_results.values()] == ["success", "failed"]


@pytest.mark.parametrize("coroutine", [False, True])
def test_a_step_that_was_cancelled_is_tried_again(coroutine: bool) -> None:
    begun: list[str] = []
    gate = threading.Event()

    async def cleans() -> None:
        while not begun:  # noqa: ASYNC110  a thread adds to it
            await asyncio.sleep(0)
        cancel_others()

    def plain() -> str:
        begun.append("plain")
        return "again" if len(begun) > 1 else str(gate.wait(20))

    async def awaits() -> str:
        begun.append("awaits")
        await asyncio.sleep(60 if len(begun) == 1 else 0)
        return "again"

    with loop_of(2) as executor:
        pipeline = Pipeline("r").add_step(awaits if coroutine else plain, "it", retry=1).add_step(cleans)
        result = pipeline.run(executor=executor)
        gate.set()
    assert (result["it"], result.step_results["it"].attempts) == ("again", 2)


def test_conditions_and_several_outputs_of_coroutines() -> None:
    async def pair(x: int) -> tuple[int, int]:
        return x, -x

    with loop_of() as executor:
        pipeline = Pipeline("p").add_step(pair, "yes", {"x": 2}, outputs=["a", "b"], condition=lambda x: x > 1)
        pipeline.add_step(pair, "no", {"x": 1}, outputs=["c", "d"], condition=lambda x: x > 1)
        result = pipeline.run(executor=executor)
    assert dict(result.outputs) == {"a": 2, "b": -2}
    assert result.step_results["no"].skipped


def test_ctrl_c_cancels_what_is_under_way(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, signal, time
from flowyml import ParallelExecutor, Pipeline, RunInterrupted
async def quick(): return 1
async def long():
    try:
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        open({str(tmp_path / "cancelled")!r}, "w").close()
        raise
executor = ParallelExecutor(backend="async")
started = time.monotonic()
try:
    Pipeline("i").add_step(quick).add_step(long, after="quick").run(executor=executor)
except RunInterrupted as error:
    print({{name: str(each.state) for name, each in error.result.step_results.items()}})
assert time.monotonic() - started < 10
print(Pipeline("next").add_step(quick).run(executor=executor)["quick"])
"""
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["{'quick': 'success', 'long': 'cancelled'}", "1"]
    assert (tmp_path / "cancelled").exists()


def test_ctrl_c_leaves_a_blocking_step_behind() -> None:
    code = """
import os, signal, threading, time
from flowyml import ParallelExecutor, Pipeline, RunInterrupted
def blocks():
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    time.sleep(60)
started = time.monotonic()
try:
    Pipeline("i").add_step(blocks).run(executor=ParallelExecutor(backend="async"))
except RunInterrupted:
    print(time.monotonic() - started < 3)
"""
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_parallel_map_takes_coroutine_functions() -> None:
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    assert parallel_map(double, range(5), backend="async") == [0, 2, 4, 6, 8]


def test_run_async_takes_the_arguments_of_run() -> None:
    said = [*inspect.signature(Pipeline.run).parameters]
    assert said == ["self", *RunOptions._fields[:-1], "unknown"]
    assert typed_keywords(launch, "RunKeywords") == said[2:-1]
