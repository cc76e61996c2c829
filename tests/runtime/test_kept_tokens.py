"""A step that was given up and still runs keeps its tokens until its thread ends; the next run starts with all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import ParallelExecutor, Pipeline, RunInterrupted, dynamic, get_context
from flowyml.steps import resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20
"""Seconds that a test waits for what must happen at once."""
SHORT = 0.1


@pytest.fixture(autouse=True)
def _no_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in resources.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["thread", "async"])
def executor(request: pytest.FixtureRequest) -> Iterator[ParallelExecutor]:
    """Of one worker, which begins the steps that can begin in the order in which they were added."""
    totals = {"api": 1, "gpu": 2}
    with ParallelExecutor(1, request.param, resources=totals, tag_limits={"db": 1}) as executor:
        yield executor


class Stubborn:
    """A step that ends only when `over` is set."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.begun = threading.Event()
        self.ended = threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        self.over.wait(PATIENCE)
        self.ended.set()

    async def in_a_loop(self) -> None:
        self.begun.set()
        while not self.over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        self.ended.set()

    def free(self) -> bool:
        """Let it end; return whether it had ended before."""
        try:
            return self.ended.is_set()
        finally:
            self.over.set()


@pytest.fixture
def stubborn() -> Iterator[Stubborn]:
    stubborn = Stubborn()
    yield stubborn
    stubborn.over.set()


def give_up(stubborn: Callable[[], Any], **options: Any) -> Pipeline:
    """Return a pipeline with a step that is given up."""
    return Pipeline("p").add_step(stubborn, "stubborn", timeout=SHORT, **options)


def ended_before(pipeline: Pipeline, stubborn: Stubborn, executor: ParallelExecutor) -> list[bool]:
    """Run a pipeline; return whether the stubborn step had ended before "free" began, and before "needs" did."""
    result = pipeline.add_step(stubborn.free, resources={"cpu": 0.1}).run(executor=executor)
    assert [each.step_name for each in result.failed] == ["stubborn"]
    return [result["free"], result["needs"]]


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"resources": {"api": 1}}, {"resources": {"api": 0.5}}),
        ({"resources": {"gpu": 1.5}}, {"resources": {"gpu": 1}}),
        ({"tags": ["db"]}, {"tags": ["db"]}),
    ],
)
@pytest.mark.parametrize("coroutine", [False, True])
def test_a_step_that_needs_them_waits_and_others_do_not(
    stubborn: Stubborn, executor: ParallelExecutor, options: Any, needs: Any, *, coroutine: bool
) -> None:
    pipeline = give_up(stubborn.in_a_loop if coroutine else stubborn, **options)
    pipeline.add_step(stubborn.ended.is_set, "needs", **needs)
    assert ended_before(pipeline, stubborn, executor) == [False, True]


def test_steps_that_come_during_the_run_wait_too(stubborn: Stubborn, executor: ParallelExecutor) -> None:
    @dynamic
    def needs() -> Pipeline:
        made = Pipeline("made").add_step(stubborn.ended.is_set, "api", resources={"api": 1})
        made.add_step(stubborn.ended.is_set, "gpu", resources={"gpu": 1})
        made.add_step(stubborn.free).add_step(lambda api, gpu: api and gpu, "both")
        return made

    pipeline = give_up(stubborn, resources={"api": 1, "gpu": 1.5}).add_step(needs)
    assert pipeline.run(executor=executor)["needs"] == {"free": False, "both": True}


def test_a_step_that_another_one_cancels_keeps_them(stubborn: Stubborn) -> None:
    """The task of a plain function ends when it is cancelled, its thread does not."""

    async def cancels() -> None:
        while not stubborn.begun.is_set():  # noqa: ASYNC110  a thread sets it
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    with ParallelExecutor(2, "async", resources={"api": 1}) as executor:
        pipeline = Pipeline("p").add_step(stubborn, "stubborn", resources={"api": 1}).add_step(cancels)
        pipeline.add_step(stubborn.ended.is_set, "needs", after=["cancels"], resources={"api": 1})
        pipeline.add_step(lambda: None, "turn", after=["cancels"])
        assert ended_before(pipeline, stubborn, executor) == [False, True]


@pytest.mark.parametrize("coroutine", [False, True])
def test_the_next_run_starts_with_all(stubborn: Stubborn, executor: ParallelExecutor, *, coroutine: bool) -> None:
    """Also once the workers were ended; the step that still runs disturbs neither of the runs when it ends."""
    first = give_up(stubborn.in_a_loop if coroutine else stubborn, resources={"gpu": 1, "api": 1}, tags=["db"])
    assert [each.step_name for each in first.run(executor=executor).failed] == ["stubborn"]

    def held() -> tuple[str, ...]:
        return get_context().devices

    for _ in range(2):
        pipeline = Pipeline("next").add_step(held, resources={"gpu": 2, "api": 1}, tags=["db"])
        assert pipeline.run(executor=executor)["held"] == ("0", "1")
        executor.shutdown()
    assert not stubborn.ended.is_set()

    def ends() -> tuple[str, ...]:
        stubborn.over.set()
        assert stubborn.ended.wait(PATIENCE)
        return held()

    last = Pipeline("last").add_step(ends, resources={"gpu": 2}).add_step(held, resources={"gpu": 2}, after=["ends"])
    result = last.run(executor=executor, raise_on_failure=True)
    assert result["ends"] == result["held"] == ("0", "1")


def test_the_next_run_starts_with_all_after_an_interrupt(stubborn: Stubborn) -> None:
    def interrupt() -> None:
        assert stubborn.begun.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)
        stubborn.over.wait(PATIENCE)

    for backend in ("thread", "async"):
        with ParallelExecutor(2, backend, resources={"api": 1}) as executor:
            pipeline = Pipeline("first").add_step(stubborn, "stubborn", resources={"api": 1}).add_step(interrupt)
            with pytest.raises(RunInterrupted):
                pipeline.run(executor=executor)
            pipeline = Pipeline("second").add_step(abs, params={"x": -1}, resources={"api": 1})
            assert pipeline.run(executor=executor)["abs"] == 1


def test_a_run_inside_such_a_step_has_all(stubborn: Stubborn, executor: ParallelExecutor) -> None:
    inner = Pipeline("inner").add_step(abs, "a", {"x": -1}, resources={"api": 1})
    found: list[int] = []

    def runs_another() -> None:
        stubborn()
        found.append(inner.run(executor=executor)["a"])

    pipeline = Pipeline("first").add_step(runs_another, resources={"api": 1}, timeout=SHORT)
    pipeline.add_step(stubborn.over.set, "free").add_step(abs, "needs", {"x": -2}, resources={"api": 1})
    assert pipeline.run(executor=executor)["needs"] == 2
    assert found == [1]


def test_an_interrupt_ends_the_wait_for_them(stubborn: Stubborn, executor: ParallelExecutor) -> None:
    pipeline = give_up(stubborn, resources={"api": 1})
    pipeline.add_step(abs, params={"x": -1}, resources={"api": 1})
    pipeline.add_step(lambda: threading.Timer(SHORT, os.kill, (os.getpid(), signal.SIGINT)).start(), "free")
    with pytest.raises(RunInterrupted):
        pipeline.run(executor=executor)
    assert not stubborn.ended.is_set()
