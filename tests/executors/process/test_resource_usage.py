"""What steps have used and written stands in their results, measured where they ran."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest
from worker_pools import gives_back

from flowyml import ParallelExecutor, Pipeline
from flowyml.results import resource_usage
from flowyml.results.resource_usage import ResourceUsage

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


@pytest.fixture(scope="module")
def one() -> Iterator[ParallelExecutor]:
    """One worker, so that each step runs where the one before it ran."""
    with ParallelExecutor(1) as executor:
        yield executor


def wait(seconds: float) -> None:
    time.sleep(seconds)


def take(size: int) -> int:
    return len(bytearray(b"x") * size)


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@gives_back
def test_the_memory_of_a_step_is_its_own(one: ParallelExecutor) -> None:
    """A step that takes much does not show in the one behind it."""
    pipeline = Pipeline("memory").add_step(take, "much", {"size": 200 * MIB})
    pipeline.add_step(take, "little", {"size": 20 * MIB}, after=["much"])
    steps = pipeline.run(executor=one).step_results
    much, little = steps["much"].max_rss, steps["little"].max_rss
    assert much is not None
    assert little is not None
    assert 150 * MIB < much - little < 220 * MIB


def test_cpu_seconds_are_those_of_work(one: ParallelExecutor) -> None:
    pipeline = Pipeline("cpu").add_step(burn, params={"seconds": 0.1})
    steps = pipeline.add_step(wait, params={"seconds": 0.1}, after=["burn"]).run(executor=one).step_results
    assert 0.1 <= (steps["burn"].cpu_seconds or 0) < 0.2
    assert 0 <= (steps["wait"].cpu_seconds or 0) < 0.05
    assert steps["wait"].to_dict()["cpu_seconds"] == steps["wait"].cpu_seconds


def test_each_step_of_a_chain_is_measured(one: ParallelExecutor) -> None:
    """Also those that travel together, and what each of them writes is its own."""

    def hop(n: int) -> int:
        burn(0.003)
        print("hop", n)
        return n + 1

    pipeline = Pipeline("chain").add_step(hop, "hop_0", {"n": 0})
    for i in range(1, 40):
        pipeline.add_step(hop, f"hop_{i}", inputs={"n": f"hop_{i - 1}"})
    steps = pipeline.run(executor=one).step_results
    assert [steps[f"hop_{i}"].logs for i in range(40)] == [f"hop {i}\n" for i in range(40)]
    assert all(0.003 <= (step.cpu_seconds or 0) < 0.03 for step in steps.values())


def test_small_steps_are_not_measured(one: ParallelExecutor) -> None:
    result = Pipeline("small").map(abs, range(5_000), name="abs").run(executor=one).step_results["abs"]
    assert sum(item.cpu_seconds is not None for item in result.items) < 5
    assert result.logs == ""


def test_what_is_printed_and_logged_stands_with_its_step(one: ParallelExecutor) -> None:
    """Of items in batches, too, and of all attempts of a step that failed."""

    def talk(k: int) -> None:
        print("out", k)
        sys.stderr.write(f"err {k}\n")
        logging.getLogger("talk").warning("log %d", k)

    def fails() -> None:
        print("try")
        raise OSError

    pipeline = Pipeline("talk").map(talk, range(300)).add_step(fails, retry=1).add_step(abs, params={"x": 1})
    steps = pipeline.run(executor=one).step_results
    for k, item in enumerate(steps["talk"].items):
        assert sorted((item.logs or "").splitlines()) == [f"WARNING:talk:log {k}", f"err {k}", f"out {k}"]
    assert (steps["fails"].logs, steps["abs"].logs) == ("try\ntry\n", "")


def test_the_last_words_of_a_worker_are_those_of_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    """Also of steps that were delivered and whose output nobody had read yet."""

    def talk(k: int) -> None:
        print("out", k)
        if k % 100 == 90:
            os._exit(1)

    with ParallelExecutor(2) as executor:
        items = Pipeline("talk").map(talk, range(400)).run(executor=executor).step_results["talk"].items
    assert [item.logs for item in items] == [f"out {k}\n" for k in range(400)]
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(f"[talk[{k}]] out {k}" for k in range(400))


@pytest.mark.parametrize("backend", ["thread", "async"])
def test_what_cannot_be_known_is_none(backend: str) -> None:
    with ParallelExecutor(1, backend=backend) as executor:
        step = Pipeline("none").add_step(abs, params={"x": 1}).run(executor=executor).step_results["abs"]
    assert (step.cpu_seconds, step.max_rss, step.logs) == (None, None, None)


def test_a_run_keeps_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_usage, "MAX_KEPT", 1000)
    kept = ResourceUsage(captures=True)
    for item in range(100):
        kept.keep(item, "x" * 100)
    assert len(kept.logs(range(100)) or "") == 1000


def write_and_burn(i: int) -> int:
    """Write around Python's streams, which only marks that came before tell whose it is."""
    os.write(1 + i % 2, b"%d\n" % i)
    burn(0.0015)
    return i


def test_what_hundreds_of_short_steps_write_is_told_apart_and_each_is_measured() -> None:
    """Pipes are not read at each mark, and workers have several steps in line."""
    with ParallelExecutor(2) as executor:
        steps = Pipeline("many").map(write_and_burn, range(300)).run(executor=executor).step_results["write_and_burn"]
    assert [item.logs for item in steps.items] == [f"{i}\n" for i in range(300)]
    assert sum(item.cpu_seconds is not None for item in steps.items) > 250
