"""What the tests of the processes share."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import plumbing
import pytest

from flowyml.executors._processes.environment import START_VARIABLE, STARTS
from flowyml.executors._processes.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A mark that all processes of this test carry; at the end of the test none may be left."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(plumbing.MARK, mark)
    yield mark
    gone = plumbing.eventually(lambda: not plumbing.marked(mark), 2.0)
    plumbing.clear(mark)
    assert gone, "processes were left"


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How workers start, each way in turn."""
    monkeypatch.setenv(START_VARIABLE, request.param)
    return str(request.param)


@pytest.fixture
def pool(mark: str, start: str) -> Iterator[WorkerPool]:
    """A pool of stand-in workers, forked and exec'ed in turn."""
    pool = WorkerPool(2, program=plumbing.PROGRAM)
    yield pool
    pool.shutdown(0)
