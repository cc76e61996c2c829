"""`memory_limit`: the step that takes its worker above the limit fails by name, and costs nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest
from step_states import states

from flowyml import MemoryLimitError, ParallelExecutor, Pipeline, retry
from flowyml.executors.process.driver import backend

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = "200MiB"
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_preloaded() -> Iterator[None]:
    """What this process has imported for other tests (pandas) would be imported by workers, too, and count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "PRELOAD_CANDIDATES", ())
        yield


@pytest.fixture(scope="module", params=[1, 2])
def limited(request: pytest.FixtureRequest) -> Iterator[ParallelExecutor]:
    """Process executors with a limit above what a worker needs for itself."""
    with ParallelExecutor(request.param, memory_limit=LIMIT) as executor:
        yield executor


def take(mib: int, seconds: float = 0.0) -> int:
    held = bytearray(mib * MIB)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    time.sleep(seconds)
    return mib


def grow(mib: int) -> None:
    """Take more and more, a little at a time."""
    held = []
    while True:
        held.append(b"x" * (mib * MIB))
        time.sleep(0.01)


def test_the_step_that_passes_it_fails_by_name(limited: ParallelExecutor) -> None:
    pipeline = Pipeline("p").add_step(grow, params={"mib": 4}).add_step(lambda grow: grow, name="reads")
    pipeline.add_step(take, "small", {"mib": 20, "seconds": 0.2})
    result = pipeline.run(executor=limited)
    assert states(result) == {"grow": "failed", "reads": "upstream_failed", "small": "success"}
    error = result.step_results["grow"].exception
    assert isinstance(error, MemoryLimitError)
    assert isinstance(error, MemoryError)
    assert (error.step_name, error.limit) == ("grow", 200 * MIB)
    assert 200 * MIB < error.used < 2_000 * MIB
    assert "step 'grow' took its worker process to" in str(error)
    assert str(error).endswith("of memory, above the memory_limit of 200.0 MiB")


def test_all_others_of_its_batch_run_once(limited: ParallelExecutor) -> None:
    def work(i: int) -> int:
        if i in {500, 1_700}:
            grow(8)
        return i

    result = Pipeline("p").map(work, range(2_000), name="m").run(executor=limited)
    assert [each.step_name for each in result.failed] == ["m[500]", "m[1700]"]
    assert all(isinstance(each.exception, MemoryLimitError) for each in result.failed)
    assert {each.attempts for each in result.step_results["m"].items} == {1}


def test_a_step_that_takes_much_at_once_is_blamed(limited: ParallelExecutor) -> None:
    """It stands above the limit before anybody has looked, and stays there."""
    pipeline = Pipeline("p").map(take, range(5), name="quick")
    pipeline.add_step(take, "much", {"mib": 400, "seconds": 60}, after="quick").add_step(take, "next", {"mib": 1})
    result = pipeline.run(executor=limited)
    assert states(result) == {"quick": "success", "much": "failed", "next": "success"}


def test_it_spends_an_attempt(limited: ParallelExecutor) -> None:
    pipeline = Pipeline("p").add_step(grow, params={"mib": 8}, retry=retry(2, on=MemoryError))
    assert pipeline.run(executor=limited).step_results["grow"].attempts == 2


def test_nobody_pays_for_what_steps_before_left_behind() -> None:
    """A worker in which quick steps pile something up is replaced between two of them."""

    def leak(i: int) -> int:
        sys.modules[f"leak{i}"] = b"x" * (2 * MIB)  # type: ignore[assignment]
        time.sleep(0.002)
        return i

    def long(seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    pipeline = Pipeline("p").map(leak, range(250), name="leak").add_step(long, params={"seconds": 0.3}, after="leak")
    with ParallelExecutor(1, memory_limit=LIMIT) as executor:
        result = pipeline.run(executor=executor)
    assert states(result) == {"leak": "success", "long": "success"}


def test_what_it_has_started_counts() -> None:
    def starts() -> None:
        program = "held = b'x' * (400 << 20); import time; time.sleep(60)"
        subprocess.run([sys.executable, "-c", program], check=False)

    with ParallelExecutor(1, memory_limit=LIMIT) as executor:
        result = Pipeline("p").add_step(starts).run(executor=executor)
    assert isinstance(result.step_results["starts"].exception, MemoryLimitError)


def test_what_forked_processes_share_counts_once() -> None:
    def forks() -> int:
        held = b"x" * (100 * MIB)
        children = []
        for _ in range(4):
            child = os.fork()
            if not child:
                time.sleep(0.5)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        return len(held)

    with ParallelExecutor(1, memory_limit=LIMIT) as executor:
        assert Pipeline("p").add_step(forks).run(executor=executor)["forks"] == 100 * MIB


def test_it_is_measured() -> None:
    """Measured in a process of its own, since what this one has started counts with it and comes and goes."""
    script = f"""
    import mmap, os
    from flowyml.executors.process.driver.limit_monitor import used
    before = used(os.getpid(), 1 << 40)
    held = mmap.mmap(-1, 64 * {MIB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # malloc may have some left
    for _ in range(64):  # a piece at a time: what the allocator keeps of it would count, too
        held.write(b"x" * {MIB})
    assert len(held) * 0.9 < used(os.getpid(), 1 << 40) - before < len(held) * 1.1
    assert used(1 << 30, 1) == 0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
