"""The watchdog says what a run waits for when something is wrong with it, and never that a step is long."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import ParallelExecutor, Pipeline, WorkerLostError
from flowyml.executors._processes.crossing.stacks import stack_of
from flowyml.executors._processes.dispatching import watchdog
from flowyml.executors._processes.dispatching.giving import Giving
from flowyml.running.expansion import Expansion
from flowyml.running.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20
"""Seconds after which a test goes on without the record."""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lasts for a third of a second has lasted."""
    monkeypatch.setattr(watchdog, "_INTERVAL", 0.05)
    for name in ("_BROKEN", "_NOT_BEGUN", "_NOT_UP"):
        monkeypatch.setattr(watchdog, name, 0.3)


class Mender(logging.Handler):
    """Keeps the records of the watchdog, and mends what is wrong at the first of them."""

    def __init__(self, mend: Callable[[], object]) -> None:
        super().__init__()
        self.mend = mend
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "stands still" in record.getMessage():
            self.told.append(record.getMessage())
            if len(self.told) == 1:
                self.mend()


@contextlib.contextmanager
def mending(mend: Callable[[], object] = lambda: None) -> Iterator[list[str]]:
    """Mend what is wrong when it is told, or at last when the test's patience is over."""
    handler, logger = Mender(mend), logging.getLogger("flowyml")
    last = threading.Timer(PATIENCE, mend)
    last.start()
    logger.addHandler(handler)
    try:
        yield handler.told
    finally:
        logger.removeHandler(handler)
        last.cancel()


def warmed(executor: ParallelExecutor) -> Any:
    """Return the team of an executor whose workers are up."""
    Pipeline("warm").map(abs, range(4), name="m").run(executor=executor)
    return executor._team


def test_a_long_step_is_nothing_wrong() -> None:
    """Nor are idle workers beside it, a retry that waits, and steps that wait behind it."""
    from flowyml import retry

    def long(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def fails() -> None:
        raise ValueError

    pipeline = Pipeline("long").add_step(long, params={"seconds": 1.0}).add_step(lambda long: long, name="waits")
    pipeline.add_step(fails, retry=retry(2, backoff=1.0))
    with ParallelExecutor(3) as executor:
        warmed(executor)
        with mending() as told:
            pipeline.run(executor=executor)
    assert told == []


def test_a_death_that_nobody_reports() -> None:
    """The guardian is stopped, so nobody says that a worker has ended."""

    def dies(guardian: int) -> None:
        os.kill(guardian, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGKILL)

    with ParallelExecutor(1) as executor:
        guardian = warmed(executor).pool.guardian_pid
        with mending(lambda: os.kill(guardian, signal.SIGCONT)) as told:
            result = Pipeline("dead").add_step(dies, params={"guardian": guardian}).run(executor=executor)
    assert isinstance(result.step_results["dies"].exception, WorkerLostError)
    assert [text.partition("\n")[0] for text in told] == [
        "the run of pipeline 'dead' stands still: worker 0 is dead and nobody says so"
    ]
    assert "in 'dies' for" in told[0]
    assert f"guardian: process {guardian}" in told[0]


def test_a_kill_that_does_not_happen() -> None:
    def stops(guardian: int) -> None:
        os.kill(guardian, signal.SIGSTOP)
        time.sleep(60)

    with ParallelExecutor(1) as executor:
        guardian = warmed(executor).pool.guardian_pid
        with mending(lambda: os.kill(guardian, signal.SIGCONT)) as told:
            pipeline = Pipeline("doomed").add_step(stops, params={"guardian": guardian}, timeout=0.2)
            result = pipeline.run(executor=executor)
    assert str(result.step_results["stops"].state) == "timed_out"
    assert "worker 0 was to be killed and has not ended" in told[0]


def test_a_worker_that_was_stopped_between_two_steps() -> None:
    pids: list[int] = []

    def leaves_a_stopper() -> int:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGSTOP)).start()
        return os.getpid()

    with ParallelExecutor(1) as executor:
        pids.append(Pipeline("a").add_step(leaves_a_stopper).run(executor=executor)["leaves_a_stopper"])
        time.sleep(0.3)
        with mending(lambda: os.kill(pids[0], signal.SIGCONT)) as told:
            assert Pipeline("b").add_step(abs, params={"x": -1}).run(executor=executor)["abs"] == 1
    assert "worker 0 was stopped by a signal; kill -CONT lets it go on" in told[0]
    assert f"process {pids[0]} (state T), in no step" in told[0]


def test_steps_that_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A length is due and never given, and the loop does not check for progress."""

    def nothing() -> list[int]:
        return []

    runs: list[Run] = []

    def loses(self: Run) -> bool:
        runs.append(self)
        return False

    monkeypatch.setattr(Run, "check_progress", loses)
    monkeypatch.setattr(Expansion, "_expand", lambda _self, _node: None)
    pipeline = Pipeline("lost").add_step(nothing).map(abs, over="nothing", name="waits")
    with ParallelExecutor(1) as executor:
        warmed(executor)
        with mending(lambda: runs.pop().cancel()) as told:
            pipeline.run(executor=executor)
    assert [text.partition("\n")[0] for text in told] == [
        "the run of pipeline 'lost' stands still: nothing is running or ready, and steps wait: 'waits'"
    ]


SLOW = {"in Python": "end = time.monotonic() + 1\nwhile time.monotonic() < end: pass", "in C": "time.sleep(1.0)"}


@pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW)
def test_a_worker_that_imports_for_long(slow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record names the step that needs the module, and the line at which the worker is; the import goes on."""
    (tmp_path / "slow_to_import.py").write_text(f"import time\n{slow}\ndef work(x):\n    return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_to_import", raising=False)
    import slow_to_import

    with ParallelExecutor(1) as executor:
        warmed(executor)
        with mending() as told:
            result = Pipeline("slow").add_step(slow_to_import.work, params={"x": 1}).run(executor=executor)
    assert result["work"] == 1
    assert "worker 0 is still at what 'work' needs: its module, or its arguments" in told[0]
    assert re.search(
        r"worker 0 is at \(most recent call first\):\n +File .*slow_to_import.py\", line [23] in <module>", told[0]
    )


# ---- where a worker is ---------------------------------------------------------------------------------------------

STUCK = {
    "python": "end = time.monotonic() + 0.8\nwhile time.monotonic() < end: pass",
    "sleeping": "time.sleep(0.8)",
    "one long call in C": "end = time.monotonic() + 0.8\nwhile time.monotonic() < end: pow(3, 10 ** 6)",
    "waiting": "import threading\nthreading.Lock().acquire() and threading.Event().wait(0.8)",
    "reading": "import threading\nr, w = os.pipe()\nthreading.Timer(0.8, os.write, (w, b'x')).start()\nos.read(r, 1)",
}


@pytest.mark.parametrize("text", STUCK.values(), ids=STUCK)
def test_a_worker_tells_where_it_is_and_its_step_goes_on(text: str, tmp_path: Path) -> None:
    def is_in_the_middle(text: str, folder: str) -> float:
        begun = time.monotonic()
        Path(folder, "here").symlink_to(str(os.getpid()))
        exec(compile(text, "<stuck>", "exec"))
        return time.monotonic() - begun

    with ParallelExecutor(1) as executor:
        warmed(executor)
        asked: list[list[str]] = []
        thread = threading.Thread(target=lambda: asked.extend(stack_of(pid_in(tmp_path)) for _ in range(5)))
        thread.start()
        pipeline = Pipeline("p").add_step(is_in_the_middle, params={"text": text, "folder": str(tmp_path)})
        result = pipeline.run(executor=executor, raise_on_failure=True)
        thread.join()
    assert result["is_in_the_middle"] > 0.7
    assert any(line.endswith("in is_in_the_middle") for stack in asked for line in stack), asked
    assert any('"<stuck>"' in line for stack in asked for line in stack), asked


def pid_in(folder: Path) -> int:
    """Wait for a step to tell its process."""
    while not (folder / "here").is_symlink():
        time.sleep(0.005)
    return int((folder / "here").readlink().name)


def test_a_step_that_has_put_something_else_in_its_place_is_left_alone(tmp_path: Path) -> None:
    """Neither its file nor its handler is ours; a signal that nobody handles would end it."""

    def takes(what: str, folder: str) -> str:
        if what == "file":
            os.closerange(4, 10)
            while os.open(folder + "/own", os.O_RDWR | os.O_CREAT) < 4:
                pass
        else:
            signal.signal(signal.SIGRTMAX - 5, signal.SIG_DFL)
        Path(folder, "here").symlink_to(str(os.getpid()))
        while not Path(folder, "asked").exists():
            time.sleep(0.005)
        return what

    for what in ("file", "handler"):
        folder = tmp_path / what
        folder.mkdir()
        with ParallelExecutor(1) as executor:
            asked: list[list[str]] = []
            thread = threading.Thread(
                target=lambda: (asked.append(stack_of(pid_in(folder))), (folder / "asked").touch())  # noqa: B023
            )
            thread.start()
            pipeline = Pipeline("p").add_step(takes, params={"what": what, "folder": str(folder)})
            assert pipeline.run(executor=executor, raise_on_failure=True)["takes"] == what
            thread.join()
        assert asked == [[]]
    assert (tmp_path / "file" / "own").read_bytes() == b""


def test_ready_steps_that_nobody_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the loop itself: it is told once, and the run goes on when it can."""
    broken = [True]
    assign = Giving._assign
    monkeypatch.setattr(Giving, "_assign", lambda self, member, **more: not broken and assign(self, member, **more))
    with ParallelExecutor(2) as executor:
        broken.clear()
        warmed(executor)
        broken.append(True)
        with mending(broken.clear) as told:
            assert Pipeline("idle").add_step(abs, params={"x": -1}).run(executor=executor)["abs"] == 1
    assert len(told) <= 2
    assert "steps are ready and worker 0 has nothing to do" in told[0]
    assert "1 ready step, 0 parked steps, 0 running steps, 1 unfinished step" in told[0]
