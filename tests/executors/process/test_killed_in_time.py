"""Time limits on process workers are hard: whatever a step does, its worker goes with all it has started, in time.

Nobody else is touched: what was posted to the worker behind the step runs elsewhere, once, without a spent attempt.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import stuck_steps
import worker_pools
from run_notes import executions, noted

from flowyml import ParallelExecutor, Pipeline, StepTimeoutError, WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

LATE = 0.5
"""Seconds after its deadline by which a step must have ended."""
SHORT = 0.3
LONG = 60


@pytest.fixture(scope="module", params=[1, 2, 8])
def processes(request: pytest.FixtureRequest) -> Iterator[ParallelExecutor]:
    """Process executors of several sizes."""
    with ParallelExecutor(request.param) as executor:
        yield executor


# ---- the guilty -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", stuck_steps.WAYS, ids=lambda each: each.__name__)
def test_a_step_that_cannot_be_asked_is_ended_in_time(mark: str, how: Any) -> None:
    with ParallelExecutor(1) as executor:
        pipeline = Pipeline("stuck").add_step(how, "stuck", timeout=SHORT).add_step(lambda: 1, "other")
        result = pipeline.run(executor=executor)
        assert isinstance(result.step_results["stuck"].exception, StepTimeoutError)
        assert SHORT <= result.step_results["stuck"].duration_seconds < SHORT + worker_pools.under_load(LATE)
        assert result["other"] == 1
    assert mark


@pytest.mark.parametrize("kind", worker_pools.HELPERS)
def test_what_it_has_started_goes_with_it(mark: str, kind: str) -> None:
    """Children, helpers in a session of their own, and double forks."""

    def starts(text: str) -> None:
        exec(text)
        time.sleep(LONG)

    with ParallelExecutor(1) as executor:
        Pipeline("warm").add_step(abs, params={"x": 1}).run(executor=executor)
        before = worker_pools.marked(mark)
        pipeline = Pipeline("helpers").add_step(
            starts, params={"text": HELPERS + worker_pools.HELPERS[kind]}, timeout=SHORT
        )
        result = pipeline.run(executor=executor)
        assert isinstance(result.step_results["starts"].exception, StepTimeoutError)
        assert len(worker_pools.marked(mark)) <= len(before)


HELPERS = "import os, subprocess, time\n"


# ---- innocents -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guilty", [[0], [999], [4_999], [17, 18, 3_000, 3_001]])
def test_blame_is_exact_in_large_batches(processes: ParallelExecutor, tmp_path: Path, guilty: list[int]) -> None:
    def work(i: int, folder: str) -> int:
        if i in guilty:
            time.sleep(LONG)
        return noted(folder, i) if i % 50 == 0 else i

    pipeline = Pipeline("batches").map(work, range(5_000), name="w", params={"folder": str(tmp_path)}, timeout=SHORT)
    result = pipeline.run(executor=processes)
    assert [each.step_name for each in result.failed] == [f"w[{i}]" for i in guilty]
    assert all(isinstance(each.exception, StepTimeoutError) for each in result.failed)
    assert all(result["w"][i] == i for i in range(5_000) if i not in guilty)
    assert {each.attempts for each in result.step_results["w"].items} == {1}
    assert executions(tmp_path) == [i for i in range(0, 5_000, 50) if i not in guilty]


def test_all_workers_at_once(mark: str, tmp_path: Path) -> None:
    """Each guilty step is named and ended in time, the rest completes without a spent attempt."""

    def work(i: int, folder: str) -> int:
        if i < 4:
            Path(folder, f"here{i}").touch()
            while len(list(Path(folder).glob("here*"))) < 4:
                time.sleep(0.001)
            time.sleep(LONG)
        return noted(folder, i)

    with ParallelExecutor(4) as executor:
        Pipeline("warm").map(abs, range(4), name="abs").run(executor=executor)
        pipeline = Pipeline("all").map(work, range(500), name="w", params={"folder": str(tmp_path)}, timeout=2.0)
        result = pipeline.run(executor=executor)
    assert [each.step_name for each in result.failed] == ["w[0]", "w[1]", "w[2]", "w[3]"]
    assert all(isinstance(each.exception, StepTimeoutError) for each in result.failed)
    assert all(each.duration_seconds < 2.0 + worker_pools.under_load(LATE) for each in result.failed)
    assert {each.attempts for each in result.step_results["w"].items} == {1}
    assert executions(tmp_path) == list(range(4, 500))
    assert mark


def test_a_crash_is_a_crash_also_with_a_limit(processes: ParallelExecutor) -> None:
    result = Pipeline("p").add_step(os._exit, "dies", {"status": 3}, timeout=LONG).run(executor=processes)
    assert isinstance(result.step_results["dies"].exception, WorkerLostError)
    assert str(result.step_results["dies"].state) == "failed"


def test_random_steps_around_the_limit_are_counted_once(processes: ParallelExecutor, tmp_path: Path) -> None:
    """Whatever the race between result and kill: a step is a success with its value or timed out, never both."""

    def work(i: int, folder: str) -> int:
        noted(folder, i)
        time.sleep(0.1 + (i % 7 - 3) * 0.004)
        return i

    count = 7 * processes.max_workers
    pipeline = Pipeline("races").map(work, range(count), name="w", params={"folder": str(tmp_path)}, timeout=0.1)
    result = pipeline.run(executor=processes)
    for i, item in enumerate(result.step_results["w"].items):
        assert str(item.state) in {"success", "timed_out"}
        assert not item.success or result["w"][i] == i
    assert executions(tmp_path) == list(range(count))


# ---- what counts ---------------------------------------------------------------------------------------------------


class Slow(logging.Handler):
    """Blocks the driver: the dispatch loop hands records over."""

    def emit(self, _: logging.LogRecord) -> None:
        time.sleep(1.5)


@pytest.fixture
def slow_driver() -> Iterator[None]:
    handler, logger = Slow(), logging.getLogger("slow")
    logger.addHandler(handler)
    logger.propagate = False
    yield
    logger.removeHandler(handler)
    logger.propagate = True


@pytest.mark.parametrize("size", [1, 20_000_000])
@pytest.mark.usefixtures("slow_driver")
def test_a_result_that_waits_for_the_driver_counts(size: int) -> None:
    """The step was in time: that the driver looks late, or that a large result is still on its way, is no fault."""

    def blocks() -> None:
        time.sleep(0.1)
        logging.getLogger("slow").warning("now")

    def returns(size: int) -> bytes:
        time.sleep(0.2)
        return bytes(size)

    with ParallelExecutor(2) as executor:
        Pipeline("warm").map(time.sleep, [0.1, 0.1], name="warm").run(executor=executor)
        pipeline = Pipeline("waits").add_step(returns, params={"size": size}, timeout=1.0).add_step(blocks)
        result = pipeline.run(executor=executor)
    assert result.success
    assert len(result["returns"]) == size


def test_the_import_of_its_module_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "takes_long.py").write_text("import time\ntime.sleep(1.0)\ndef work(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import takes_long

    with ParallelExecutor(1) as executor:
        result = Pipeline("p").add_step(takes_long.work, params={"x": 1}, timeout=0.5).run(executor=executor)
    assert result["work"] == 1


def test_the_loading_of_arguments_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh worker may be the first to import what they need; the step itself has its whole time afterwards."""
    slow = "import os, time\nif int(os.environ['DRIVER']) != os.getpid():\n    time.sleep(1.0)\n"
    (tmp_path / "imported_late.py").write_text(slow + "class Table:\n    size = 3\n")
    monkeypatch.setenv("DRIVER", str(os.getpid()))
    monkeypatch.syspath_prepend(tmp_path)
    import imported_late

    def size(table: Any, seconds: float) -> int:
        time.sleep(seconds)
        return table.size

    pipeline = Pipeline("p").add_step(size, "late", {"table": imported_late.Table(), "seconds": 0.4}, timeout=0.8)
    pipeline.add_step(size, "over", {"table": imported_late.Table(), "seconds": LONG}, timeout=0.8)
    with ParallelExecutor(1) as executor:
        result = pipeline.run(executor=executor)
    assert (result["late"], str(result.step_results["over"].state)) == (3, "timed_out")
    assert result.step_results["late"].duration_seconds > 1.0
    assert result.step_results["over"].duration_seconds < 0.8 + worker_pools.under_load(LATE)


def test_time_before_its_turn_does_not_count() -> None:
    """Steps are posted to a worker ahead of time, behind others."""
    with ParallelExecutor(1) as executor:
        result = Pipeline("p").map(time.sleep, [0.2] * 6, name="m", timeout=0.5).run(executor=executor)
    assert result.success


# ---- afterwards ----------------------------------------------------------------------------------------------------


def test_the_executor_goes_on_and_leaks_nothing(mark: str) -> None:
    with ParallelExecutor(2) as executor:

        def held() -> tuple[int, int]:
            """Descriptors and threads, with two workers there."""
            assert list(Pipeline("all").map(abs, range(9), name="m").run(executor=executor)["m"]) == list(range(9))
            return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208

        def time_out() -> list[str]:
            result = Pipeline("p").map(time.sleep, [0, LONG, 0, LONG], name="m", timeout=0.1).run(executor=executor)
            return [str(item.state) for item in result.step_results["m"].items]

        time_out()
        before = held()
        for _ in range(3):
            assert time_out() == ["success", "timed_out"] * 2
        # Fewer are fine: what earlier tests left may have ended meanwhile.
        assert all(now <= then for now, then in zip(held(), before, strict=True))
    assert mark
