"""Drawn runs full of faults give exactly what was computed beside them: nothing lost, nothing doubled, nothing left."""

from __future__ import annotations

import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import chaos
import pytest
import worker_pools
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml import LocalExecutor, ParallelExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml import Executor

ENOUGH = examples(120, 300)


@pytest.fixture(params=[1, 2, 8])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ParallelExecutor]:
    """Process workers that must leave nothing behind; 8 of them are more than most machines have CPUs for a test."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(worker_pools.MARK, mark)
    with ParallelExecutor(request.param) as executor:
        yield executor
    gone = worker_pools.eventually(lambda: not worker_pools.marked(mark), 2.0)
    worker_pools.clear(mark)
    assert gone, "processes were left behind"


def test_processes(workers: ParallelExecutor, tmp_path: Path) -> None:
    """Crashes, failures and bad manners of every kind, in batches."""
    steps = chaos.draw(1, ENOUGH, rate=0.1, faults=list(chaos.FAULTS), habits=list(chaos.HABITS))
    tally = chaos.run(steps, workers, tmp_path)
    assert not tally.trouble, tally


IN_THIS_PROCESS = {
    "local": LocalExecutor,
    "thread": lambda: ParallelExecutor(3, backend="thread"),
    "async": lambda: ParallelExecutor(3, backend="async"),
}


@pytest.fixture(scope="module", params=IN_THIS_PROCESS)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """The executors that share this process with the steps: they get no step that kills it."""
    with IN_THIS_PROCESS[request.param]() as executor:
        yield executor


@given(seed=st.integers(0, 1 << 30), count=st.integers(1, 40), rate=st.sampled_from([0.0, 0.1, 0.5]))
@settings(max_examples=examples(30, 50))
def test_in_this_process(executor: Executor, seed: int, count: int, rate: float) -> None:
    """Failures of every kind, on small graphs of every shape."""
    steps = chaos.draw(seed, count, rate=rate, faults=list(chaos.RAISED), habits=["nothing"])
    with TemporaryDirectory() as folder:
        tally = chaos.run(steps, executor, Path(folder))
    assert not tally.trouble, tally
