"""A step that goes on in its thread although its run has given it up keeps what it has taken, also from later runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import ParallelExecutor, Pipeline, RunInterrupted, dynamic, get_context
from flowyml.steps import devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20
"""Seconds that a test waits for what must happen at once."""
SHORT = 0.1


@pytest.fixture(autouse=True)
def _no_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in devices.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["thread", "async"])
def executor(request: pytest.FixtureRequest) -> Iterator[ParallelExecutor]:
    totals = {"api": 1, "gpu": 2}
    with ParallelExecutor(2, request.param, resources=totals, tag_limits={"db": 1}) as executor:
        yield executor


class Stubborn:
    """A step that does not end before it is told to, and what becomes of it."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.devices: tuple[str, ...] = ()

    def __call__(self) -> None:
        self.devices = get_context().devices
        self.begun.set()
        self.over.wait(PATIENCE)
        self.ended.set()

    async def in_a_loop(self) -> None:
        self.begun.set()
        while not self.over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        self.ended.set()


@pytest.fixture
def stubborn() -> Iterator[Stubborn]:
    stubborn = Stubborn()
    yield stubborn
    stubborn.over.set()


def give_up(stubborn: Callable[[], Any], executor: ParallelExecutor, **options: Any) -> None:
    """Run a step that is left behind."""
    result = Pipeline("first").add_step(stubborn, "stubborn", timeout=SHORT, **options).run(executor=executor)
    assert str(result.step_results["stubborn"].state) == "timed_out"


def ends_first(
    stubborn: Stubborn, pipeline: Pipeline, executor: ParallelExecutor, when: Callable[[float], Any] = bool
) -> bool:
    """Run the steps of a pipeline; tell whether those that are called "needs" began when the stubborn one had ended."""
    seen: list[bool] = []

    def free() -> None:
        when(PATIENCE)
        seen.append(stubborn.ended.is_set())
        stubborn.over.set()

    result = pipeline.add_step(free, resources={"cpu": 0.1}).run(executor=executor, raise_on_failure=True)
    assert seen == [False]  # what does not need it does not wait
    return bool(result["needs"])


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"resources": {"api": 1}}, {"resources": {"api": 0.5}}),
        ({"resources": {"gpu": 1.5}}, {"resources": {"gpu": 1}}),
        ({"tags": ["db"]}, {"tags": ["db"]}),
    ],
)
@pytest.mark.parametrize("coroutine", [False, True])
def test_what_it_holds_is_not_there_in_the_next_run(
    stubborn: Stubborn, executor: ParallelExecutor, options: Any, needs: Any, *, coroutine: bool
) -> None:
    give_up(stubborn.in_a_loop if coroutine else stubborn, executor, **options)
    pipeline = Pipeline("second").add_step(stubborn.ended.is_set, "needs", **needs)
    assert ends_first(stubborn, pipeline, executor)


def test_what_comes_during_the_run_waits_for_it_too(stubborn: Stubborn, executor: ParallelExecutor) -> None:
    give_up(stubborn, executor, resources={"api": 1, "gpu": 1.5})
    grown = threading.Event()

    @dynamic
    def needs() -> Pipeline:
        grown.set()
        made = Pipeline("made").add_step(stubborn.ended.is_set, "one", resources={"api": 1})
        return made.add_step(stubborn.ended.is_set, "two", resources={"gpu": 1}).add_step(
            lambda one, two: one and two, "both"
        )

    assert ends_first(stubborn, Pipeline("second").add_step(needs), executor, when=grown.wait)


def test_all_later_runs_do_without_it(stubborn: Stubborn, executor: ParallelExecutor) -> None:
    """Also once its workers were ended: it is still there."""
    give_up(stubborn, executor, resources={"gpu": 1})

    def device() -> tuple[str, ...]:
        return get_context().devices

    for _ in range(2):
        pipeline = Pipeline("next").map(lambda _: device(), range(4), name="m", resources={"gpu": 1})
        found = pipeline.run(executor=executor)["m"]
        assert set(found) == {("0",), ("1",)} - {stubborn.devices}
        executor.shutdown()
    stubborn.over.set()
    both = Pipeline("last").add_step(device, resources={"gpu": 2}).run(executor=executor)
    assert both["device"] == ("0", "1")


def test_a_step_that_ctrl_c_leaves_behind_keeps_it(stubborn: Stubborn, executor: ParallelExecutor) -> None:
    def interrupt() -> None:
        assert stubborn.begun.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGINT)
        stubborn.over.wait(PATIENCE)

    pipeline = Pipeline("first").add_step(stubborn, "stubborn", resources={"api": 1}).add_step(interrupt)
    with pytest.raises(RunInterrupted):
        pipeline.run(executor=executor)
    pipeline = Pipeline("second").add_step(stubborn.ended.is_set, "needs", resources={"api": 1})
    assert ends_first(stubborn, pipeline, executor)


def test_a_step_that_another_one_cancels_keeps_it(stubborn: Stubborn) -> None:
    """The task of a plain function ends when it is cancelled, its thread does not."""

    async def cancels() -> None:
        while not stubborn.begun.is_set():  # noqa: ASYNC110  a thread sets it
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    with ParallelExecutor(2, "async", resources={"api": 1}) as executor:
        pipeline = Pipeline("first").add_step(stubborn, "stubborn", resources={"api": 1}).add_step(cancels)
        assert [each.step_name for each in pipeline.run(executor=executor).failed] == ["stubborn"]
        pipeline = Pipeline("second").add_step(stubborn.ended.is_set, "needs", resources={"api": 1})
        assert ends_first(stubborn, pipeline, executor)


def test_what_one_run_limits_is_no_affair_of_the_next(stubborn: Stubborn, executor: ParallelExecutor) -> None:
    """How many items of a map task run at once: that of another pipeline is another one."""
    from flowyml import map_task

    def once(i: int) -> int:
        return stubborn() or i

    first = map_task(concurrency=1)(once)
    Pipeline("first").map(first, [1], name="m", timeout=SHORT).run(executor=executor)
    second = map_task(concurrency=1)(abs)
    assert Pipeline("second").map(second, [-1], name="m").run(executor=executor)["m"].results == [1]


def test_it_is_said_what_is_waited_for(
    stubborn: Stubborn, executor: ParallelExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a run, and only where the run needs some of it."""
    give_up(stubborn, executor, resources={"gpu": 1})
    caplog.clear()
    for needs in ({"gpu": 1}, {"api": 1}, None):
        Pipeline("next").add_step(abs, params={"x": 1}, resources=needs).run(executor=executor)
    told = [record.getMessage() for record in caplog.records if "still taken" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("pipeline 'next': some of what its executor has is still taken")
    assert "until they end: 'stubborn';" in told[0]


def test_what_it_runs_itself_takes_what_it_needs(stubborn: Stubborn, executor: ParallelExecutor) -> None:
    """It would wait for itself, and all others for it."""
    inner = Pipeline("inner").add_step(abs, "a", {"x": -1}, resources={"api": 1})

    def runs_another() -> None:
        stubborn()
        assert inner.run(executor=executor)["a"] == 1

    Pipeline("first").add_step(runs_another, resources={"api": 1}, timeout=SHORT).run(executor=executor)
    stubborn.over.set()
    assert Pipeline("second").add_step(abs, "a", {"x": -2}, resources={"api": 1}).run(executor=executor)["a"] == 2


def test_another_executor_has_all(stubborn: Stubborn, executor: ParallelExecutor) -> None:
    give_up(stubborn, executor, resources={"api": 1})
    with ParallelExecutor(1, executor.backend, resources={"api": 1}) as other:
        assert Pipeline("p").add_step(abs, params={"x": -1}, resources={"api": 1}).run(executor=other)["abs"] == 1


def test_an_interrupt_ends_the_wait(stubborn: Stubborn, executor: ParallelExecutor) -> None:
    give_up(stubborn, executor, resources={"api": 1})
    threading.Timer(SHORT, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(RunInterrupted):
        Pipeline("p").add_step(abs, params={"x": -1}, resources={"api": 1}).run(executor=executor)
