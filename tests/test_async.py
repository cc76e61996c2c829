"""Event loops around a run: `run_async` can be awaited, `run` works inside a running loop, on every executor."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flowyml import ParallelExecutor, Pipeline, PipelineValidationError, StepError, get_context, step

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
