"""An executor through its life: ended and used again, robbed of its helpers, shared, forked."""

from __future__ import annotations

import logging
import operator
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from worker_pools import driver, eventually, is_running, marked, under_load

from flowyml import ExecutorError, ParallelExecutor, Pipeline

if TYPE_CHECKING:
    from pathlib import Path


def use(executor: ParallelExecutor, count: int = 20) -> set[Any]:
    """Run some steps; return the processes that they ran in."""
    pipeline = Pipeline("use").map(abs, range(count), name="abs").map(lambda _: os.getpid(), range(count), name="pid")
    result = pipeline.run(executor=executor)
    assert list(result["abs"]) == [*range(count)]
    return set(result["pid"])


def guardian(executor: ParallelExecutor) -> int:
    return executor._team.pool.supervisor_pid


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_shutdown_and_again(mark: str, backend: str) -> None:
    executor = ParallelExecutor(2, backend)
    executor.shutdown()
    for _ in range(3):
        use(executor)
        executor.shutdown()
        assert not marked(mark)
        executor.shutdown()
    with executor:
        use(executor)
    with executor:
        use(executor)
    assert not marked(mark)


def test_a_result_outlives_its_executor() -> None:
    with ParallelExecutor(2) as executor:
        result = Pipeline("kept").map(bytes, [1 << 20] * 5, name="b").run(executor=executor)
    assert [len(each) for each in result["b"]] == [1 << 20] * 5


def test_idle_workers_that_are_killed(mark: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Replaced in silence, whichever it hits; also just before the shutdown."""
    with ParallelExecutor(2) as executor:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP):
            workers = use(executor)
            for pid in workers:
                os.kill(pid, number)
            assert not use(executor) & workers
        for pid in use(executor):
            os.kill(pid, signal.SIGKILL)
    assert not marked(mark)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("workers_too", [False, True])
def test_the_guardian_is_killed_between_runs(mark: str, workers_too: bool) -> None:
    """The next run finds it gone, its workers still dying or dead."""
    with ParallelExecutor(2) as executor:
        workers, owner = use(executor), guardian(executor)
        os.kill(owner, signal.SIGKILL)
        assert eventually(lambda: not is_running(owner), 1.0)
        assert not workers_too or eventually(lambda: not any(map(is_running, workers)), 1.0)
        assert not use(executor) & workers
        os.kill(guardian(executor), signal.SIGKILL)
    assert eventually(lambda: not marked(mark), 1.0)


@pytest.mark.parametrize("helper", [False, True])
def test_the_guardian_is_killed_in_the_middle(mark: str, tmp_path: Path, helper: bool) -> None:
    """One clear error, nothing left, and the next run works."""

    def kills(me: int, helper: bool) -> None:
        if helper:
            import subprocess

            subprocess.Popen(["sleep", "1000"], start_new_session=True)
        os.kill(me, signal.SIGKILL)
        time.sleep(60)

    with ParallelExecutor(2) as executor:
        use(executor)
        params = {"me": guardian(executor), "helper": helper}
        pipeline = Pipeline("p").map(abs, range(50), name="abs").add_step(kills, params=params)
        with pytest.raises(ExecutorError, match=r"the supervisor of the worker processes is lost: killed by SIGKILL"):
            pipeline.run(executor=executor)
        assert eventually(lambda: not marked(mark), 1.0)
        use(executor)


def test_the_guardian_is_stopped(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does nothing any more; runs go on, and the end kills it, after a while that is shorter here."""
    monkeypatch.setattr("flowyml.executors.process.pool.supervisor_client.END_TIMEOUT_SECONDS", 0.5)
    executor = ParallelExecutor(2)
    use(executor)
    os.kill(guardian(executor), signal.SIGSTOP)
    use(executor)
    begin = time.monotonic()
    executor.shutdown()
    assert time.monotonic() - begin < under_load(3)
    assert eventually(lambda: not marked(mark), 1.0)


def test_two_executors_at_once(mark: str) -> None:
    """Each has workers and a guardian of its own; one's end is not the other's."""
    with ParallelExecutor(2) as first, ParallelExecutor(1) as second, ParallelExecutor(2, "thread") as third:
        mine, yours = use(first), use(second)
        assert not mine & yours
        threads = [threading.Thread(target=use, args=(each, 500)) for each in (first, second, third)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        first.shutdown()
        assert use(second) == yours
        use(third)
    assert not marked(mark)


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_one_executor_from_several_threads(backend: str) -> None:
    """One run at a time; the others wait their turn."""
    running, most, results = [], [], []

    def count(_: int) -> int:
        return 1

    with ParallelExecutor(2, backend) as executor:

        def run(k: int) -> None:
            for _ in range(5):
                result = Pipeline(f"p{k}").map(count, range(50), name="c").run(executor=executor)
                results.append(sum(result["c"]))

        team = executor._team = executor._new_backend()
        execute = team.execute

        def watched(run: Any) -> None:
            running.append(run)
            most.append(len(running))
            execute(run)
            running.remove(run)

        team.execute = watched
        threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert results == [50] * 20
    assert set(most) == {1}


def test_shutdown_waits_for_a_run_in_another_thread(tmp_path: Path) -> None:
    over = tmp_path / "over"
    executor = ParallelExecutor(1)
    results = []

    def waits(over: Path) -> bool:
        return eventually(over.exists)

    def run() -> None:
        results.append(Pipeline("p").add_step(waits, params={"over": over}).run(executor=executor)["waits"])

    thread = threading.Thread(target=run)
    thread.start()
    assert eventually(lambda: not executor._turn.acquire(blocking=False) or executor._turn.release())
    ending = threading.Thread(target=executor.shutdown)
    ending.start()
    over.touch()
    ending.join(20)
    thread.join(20)
    assert results == [True]
    assert executor._team is None


# ---- forks of the driver -------------------------------------------------------------------------------------------

FORK = """
import multiprocessing, os, sys, threading, time
from flowyml import *
def pid(_): return os.getpid()
def use(executor):
    result = Pipeline("use").map(pid, range(20)).map(abs, range(-20, 0), name="abs").run(executor=executor)
    assert list(result["abs"]) == [*range(20, 0, -1)]
    return set(result["pid"])
executor = ParallelExecutor(2, sys.argv[1])
mine = use(executor)
def child():
    yours = use(executor)
    assert not yours & mine
    print("child", flush=True)
"""

FORKS = {
    "os.fork": """
if not (forked := os.fork()):
    child()
    sys.exit(0)
assert os.waitpid(forked, 0)[1] == 0
""",
    "os.fork and _exit": """
if not (forked := os.fork()):
    child()
    os._exit(0)
assert os.waitpid(forked, 0)[1] == 0
""",
    "multiprocessing": """
process = multiprocessing.get_context("fork").Process(target=child)
process.start(); process.join()
assert process.exitcode == 0
""",
    "a pool": """
def with_pool(_): child()
with multiprocessing.get_context("fork").Pool(1) as pool:
    pool.map(with_pool, [1])
""",
    "in the middle of a run": """
def slow(): time.sleep(0.3)
thread = threading.Thread(target=lambda: Pipeline("p").add_step(slow).run(executor=executor).raise_for_failure())
thread.start()
while executor._turn.acquire(blocking=False):
    executor._turn.release()
process = multiprocessing.get_context("fork").Process(target=child)
process.start(); process.join()
assert process.exitcode == 0
thread.join()
""",
}


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("how", FORKS)
def test_a_forked_child_has_its_own_and_the_parents_live_on(mark: str, how: str, backend: str) -> None:
    script = FORK + FORKS[how] + "\nassert use(executor) == mine\nprint('parent', flush=True)"
    if backend == "thread":
        script = script.replace("    assert not yours & mine\n", "")
    with driver(script, mark, backend) as process:
        out, errors = process.communicate(timeout=30)
        assert (out, errors, process.returncode) == ("child\nparent\n", "", 0)
        assert eventually(lambda: not marked(mark), 1.0)


@pytest.mark.parametrize("backend", ["process", "thread"])
def test_a_run_inside_the_wait_of_a_run_is_inline(backend: str) -> None:
    """What the waiting thread runs meanwhile (here: a logging handler, a stream) may run a pipeline on the executor."""
    inner: list[list[int]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if threading.current_thread() is threading.main_thread():
                result = Pipeline("inner").map(operator.neg, range(3_000), name="m").run(executor=executor)
                inner.append(list(result["m"]))

    def work(i: int) -> list[int]:
        if i % 500 == 7:
            logging.getLogger("inner").warning("now")
        return [i]

    handler = Handler()
    logger = logging.getLogger("inner")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with ParallelExecutor(2, backend) as executor:
            result = Pipeline("outer").map(work, range(2_000), name="w").run(executor=executor)
            again = Pipeline("again").map(operator.neg, range(10), name="m").run(executor=executor)
    finally:
        logger.removeHandler(handler)
    assert list(result["w"]) == [[i] for i in range(2_000)]
    assert list(again["m"]) == [-i for i in range(10)]
    assert all(values == [-i for i in range(3_000)] for values in inner)
    assert backend == "thread" or len(inner) == 4


def test_an_error_of_the_run_itself_is_no_torn_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its class: it reaches the caller, who would wait for ever if a worker were blamed."""

    def refuse(*_: object) -> int:
        raise ValueError("at is inf")

    monkeypatch.setattr("flowyml.runtime.run.Run.complete", refuse)
    with ParallelExecutor(1) as executor, pytest.raises(ValueError, match="at is inf"):
        Pipeline("p").add_step(abs, params={"x": -1}).run(executor=executor)
