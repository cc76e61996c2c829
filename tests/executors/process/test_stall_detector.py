"""The watchdog reports a run that makes no progress although steps are ready and a worker is free, and nothing else."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import ParallelExecutor, Pipeline
from flowyml.executors.process.driver import stall_detector
from flowyml.executors.process.driver.assignment import BatchAssigner
from flowyml.executors.process.protocol.stack_dump import stack_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20
"""Seconds after which a test goes on without the record."""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lasts for a third of a second has lasted."""
    monkeypatch.setattr(stall_detector, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(stall_detector, "STALL_SECONDS", 0.3)


class Mender(logging.Handler):
    """Keeps the records of the watchdog, and mends what is wrong at the first of them."""

    def __init__(self, mend: Callable[[], object]) -> None:
        super().__init__()
        self.mend = mend
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "is stalled" in record.getMessage():
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
    """An error of the loop itself: it is reported once, with the workers' stacks, and the run ends when it can."""
    broken = [True]
    assign = BatchAssigner._assign
    monkeypatch.setattr(
        BatchAssigner, "_assign", lambda self, member, **more: not broken and assign(self, member, **more)
    )
    with ParallelExecutor(2) as executor:
        broken.clear()
        pids = [member.process.pid for member in warmed(executor).workers]
        broken.append(True)
        with mending(lambda: threading.Timer(1.0, broken.clear).start()) as told:
            assert Pipeline("idle").add_step(abs, params={"x": -1}).run(executor=executor)["abs"] == 1
    (record,) = told
    first, second, *workers = record.splitlines()
    assert first == "the run of pipeline 'idle' is stalled: steps are ready and worker 0 is idle"
    assert second == "  1 ready step, 0 parked steps, 0 running steps, 1 unfinished step"
    for number, pid in enumerate(pids):
        place = workers.index(f"  worker {number}, process {pid}: in no step, posted steps done: none")
        assert workers[place + 1].startswith("    File ")


def test_what_makes_progress_is_not_reported() -> None:
    """Steps that each take less than the patience, and more of which are ready than there are workers."""
    with ParallelExecutor(2) as executor:
        warmed(executor)
        with mending() as told:
            result = Pipeline("many").map(time.sleep, [0.1] * 16, name="m").run(executor=executor)
    assert result.success
    assert told == []
