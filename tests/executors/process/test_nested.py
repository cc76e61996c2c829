"""What a step may start within its worker, and what stays the worker's own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from worker_pools import driver, eventually, marked, under_load

from flowyml import ParallelExecutor, Pipeline, parallel_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=["process", "thread"])
def two(request: pytest.FixtureRequest) -> Iterator[ParallelExecutor]:
    """Two warm workers of either kind."""
    with ParallelExecutor(2, request.param) as executor:
        yield executor


@pytest.fixture(scope="module")
def processes() -> Iterator[ParallelExecutor]:
    """Two warm worker processes."""
    with ParallelExecutor(2) as executor:
        yield executor


def ask(executor: ParallelExecutor, function: Callable[..., Any], **params: Any) -> Any:
    """Call a function in two workers, among other steps; return what it returned twice."""
    pipeline = Pipeline("ask").map(abs, range(20), name="before")
    for k in range(2):
        pipeline.add_step(function, name=f"ask{k}", params=params)
    result = pipeline.map(abs, range(20), name="after").run(executor=executor)
    result.raise_for_failure()
    assert result["ask0"] == result["ask1"]
    return result["ask0"]


def square(x: int) -> int:
    return x * x


SQUARES = [0, 1, 4, 9]


# ---- the standard library's own ------------------------------------------------------------------------------------


def in_pool() -> list[int]:
    with multiprocessing.Pool(2) as pool:
        return pool.map(square, range(4))


def in_local_pool() -> list[int]:
    """Functions that only exist in the worker."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(square, range(4))


def in_futures() -> list[int]:
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(square, range(4)))


def in_process() -> list[int]:
    queue: Any = multiprocessing.Queue()
    process = multiprocessing.Process(target=lambda: queue.put([square(x) for x in range(4)]))
    process.start()
    found = queue.get()
    process.join()
    assert process.exitcode == 0
    return found


def in_subprocess() -> list[int]:
    text = "print([x * x for x in range(4)])"
    return list(map(int, subprocess.check_output([sys.executable, "-c", text], text=True).strip("[]\n").split(",")))


def in_threads() -> list[int]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(square, range(4)))


def in_event_loop() -> list[int]:
    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(asyncio.to_thread(square, x) for x in range(4)))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize(
    "way", [in_pool, in_local_pool, in_futures, in_process, in_subprocess, in_threads, in_event_loop]
)
def test_other_ways_of_running_things(processes: ParallelExecutor, way: Callable[[], list[int]]) -> None:
    assert ask(processes, way) == SQUARES


@pytest.mark.parametrize("text", ["multiprocessing.Pool(2)", "ProcessPoolExecutor(2)"])
def test_pools_in_steps_of_a_script(mark: str, text: str) -> None:
    """The functions are those of `__main__`, which exists in the worker only."""
    script = f"""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from flowyml import *
class Row:
    def __init__(self, x): self.x = x
def square(x): return Row(x * x)
def step():
    with {text} as pool:
        return list(pool.map(square, range(4)))
with ParallelExecutor(2) as executor:
    result = Pipeline("p").add_step(step, name="a").add_step(step, name="b").run(executor=executor)
for name in "ab":
    assert [row.x for row in result[name]] == [0, 1, 4, 9] and isinstance(result[name][0], Row)
print("it holds")
"""
    with driver(script, mark) as process:
        out, errors = process.communicate(timeout=40)
        assert (out, process.returncode) == ("it holds\n", 0), errors


def test_a_child_that_a_step_forks_ends_as_any_child(processes: ParallelExecutor) -> None:
    """By returning, by an exception, by `sys.exit`: it never goes on with the steps of its parent."""

    def forks(how: str) -> int:
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(2)
        if how == "exit":
            sys.exit(7)
        if how == "raise":
            raise ValueError
        return 5

    assert [ask(processes, forks, how=how) for how in ("return", "exit", "raise")] == [0, 7, 1]


def test_what_a_forked_child_prints_is_the_steps(capfd: pytest.CaptureFixture[str]) -> None:
    def forks() -> None:
        print("parent")
        child = os.fork()
        if not child:
            print("child")
            print("unfinished", end="")
            return
        os.waitpid(child, 0)
        print(" parent")

    with ParallelExecutor(2) as executor:
        Pipeline("p").add_step(forks).map(abs, range(30), name="abs").run(executor=executor)
    assert capfd.readouterr().out.splitlines() == [
        "[forks] parent",
        "[forks] child",
        "[forks] unfinished parent",
    ]


def test_threads_left_behind(processes: ParallelExecutor) -> None:
    """They go on in their worker and do not keep it from ending."""

    def leaves() -> int:
        threading.Thread(target=time.sleep, args=(1000,)).start()
        return threading.active_count() > 1

    assert ask(processes, leaves) is True
    begin = time.monotonic()
    processes.shutdown()
    assert time.monotonic() - begin < under_load(3.0)


def test_signal_handlers_stay_in_the_worker(processes: ParallelExecutor) -> None:
    def changes() -> bool:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        return True

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert ask(processes, changes)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    begin = time.monotonic()
    processes.shutdown()
    assert time.monotonic() - begin < under_load(3.0)


# ---- our own -------------------------------------------------------------------------------------------------------

OWN: dict[str, Callable[[], list[int]]] = {
    "parallel_map on threads": lambda: parallel_map(square, range(4)),
    "parallel_map on many threads": lambda: parallel_map(square, range(4), 8),
    "parallel_map on processes": lambda: parallel_map(square, range(4), 2, "process"),
    "local run": lambda: list(Pipeline("n").map(square, range(4), name="s").run()["s"]),
    "thread run": lambda: list(Pipeline("n").map(square, range(4), name="s").run(executor=fresh(2, "thread"))["s"]),
    "process run": lambda: list(Pipeline("n").map(square, range(4), name="s").run(executor=fresh(2, "process"))["s"]),
    "default workers": lambda: list(Pipeline("n").map(square, range(4), name="s").run(executor=fresh(None))["s"]),
}


def fresh(workers: int | None, backend: Any = "process") -> ParallelExecutor:
    return ParallelExecutor(workers, backend)


@pytest.mark.parametrize("way", OWN)
def test_our_own_within_steps(two: ParallelExecutor, way: str) -> None:
    assert ask(two, OWN[way]) == SQUARES


def deep(level: int, backend: Any) -> int:
    """A run in a step in a run in a step ..."""
    if not level:
        return 1
    pipeline = Pipeline("deep")
    for k in range(2):
        pipeline.add_step(deep, name=f"deep{k}", params={"level": level - 1, "backend": backend})
    with ParallelExecutor(2, backend) as executor:
        result = pipeline.run(executor=executor)
    result.raise_for_failure()
    return result["deep0"] + result["deep1"]


@pytest.mark.parametrize(("backend", "level"), [("thread", 4), ("process", 2)])
def test_runs_in_steps_of_runs_in_steps(mark: str, backend: str, level: int) -> None:
    assert deep(level, backend) == 2**level
    assert eventually(lambda: not marked(mark), 1.0)


def test_a_run_on_the_very_executor_of_the_step() -> None:
    """It runs inline on threads: nobody waits for a worker that waits for it."""
    executor = ParallelExecutor(2, "thread")

    def inner(depth: int) -> int:
        if not depth:
            return 1
        assert threading.current_thread().name.startswith("flowyml-worker-")
        return over(depth - 1)

    def over(depth: int) -> int:
        pipeline = Pipeline("inner")
        for k in range(3):
            pipeline.add_step(inner, name=f"i{k}", params={"depth": depth})
        result = pipeline.run(executor=executor)
        return sum(result[f"i{k}"] for k in range(3))

    assert over(2) == 27
    executor.shutdown()


def test_a_run_on_the_executor_of_a_step_around_the_step() -> None:
    """Through other executors: the outer one waits for the inner one."""
    outer, inner = ParallelExecutor(1, "thread"), ParallelExecutor(1, "thread")

    def innermost() -> int:
        return Pipeline("c").add_step(square, params={"x": 3}).run(executor=outer)["square"]

    def middle() -> int:
        return Pipeline("b").add_step(innermost).run(executor=inner)["innermost"]

    with outer, inner:
        for _ in range(2):
            assert Pipeline("a").add_step(middle).run(executor=outer)["middle"] == 9


def test_an_executor_that_travels_in_params_arrives_unstarted(processes: ParallelExecutor) -> None:
    def uses(other: ParallelExecutor) -> list[int]:
        assert other._team is None
        with other:
            return list(Pipeline("n").map(square, range(4), name="s").run(executor=other)["s"])

    assert ask(processes, uses, other=processes) == SQUARES


# ---- async ---------------------------------------------------------------------------------------------------------


async def both(a: int, b: int) -> int:
    await asyncio.sleep(0.001)
    return a + b


async def raises() -> None:
    await asyncio.sleep(0)
    raise KeyError("mine")


def test_async_steps(executor: Any) -> None:
    pipeline = Pipeline("async").add_step(both, name="first", params={"a": 1, "b": 2})
    pipeline.add_step(both, name="second", params={"b": 3}, inputs={"a": "first"}).add_step(raises)
    result = pipeline.run(executor=executor)
    assert (result["first"], result["second"]) == (3, 6)
    assert isinstance(result.step_results["raises"].exception, KeyError)


def test_runs_within_a_running_loop(fresh_executor: Any) -> None:
    """As in a notebook, where the thread of the caller has one."""

    async def main() -> int:
        return Pipeline("loop").add_step(both, params={"a": 1, "b": 2}).run(executor=fresh_executor)["both"]

    assert asyncio.run(main()) == 3
    assert asyncio.run(_in_thread(fresh_executor)) == 3


async def _in_thread(executor: Any) -> int:
    pipeline = Pipeline("thread").add_step(both, params={"a": 1, "b": 2})
    result = await asyncio.to_thread(pipeline.run, executor=executor)
    return result["both"]


def test_files_of_a_step_are_its_own(processes: ParallelExecutor, tmp_path: Path) -> None:
    """A file that a step leaves open is not in the way of a later one."""

    def opens(folder: Path) -> int:
        files = [(folder / f"{os.getpid()}-{k}").open("w") for k in range(50)]
        opens.__dict__.setdefault("kept", []).extend(files)
        return len(files)

    assert ask(processes, opens, folder=tmp_path) == 50


def test_a_pipeline_that_travelled_says_so() -> None:
    """A global pipeline reaches a worker by name alone: running it there is an error, not an empty success."""
    inner = Pipeline("inner").add_step(max, params={"a": 1, "b": 2})

    def outer() -> int:
        return inner.run()["max"]  # type: ignore[no-any-return]

    with ParallelExecutor(1) as executor:
        result = Pipeline("outer").add_step(outer).run(executor=executor)
    assert "build it inside the step" in str(result.step_results["outer"].exception)
