"""What the tests of the processes share."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING

import pytest
import worker_pools

from flowyml.executors.process.pool.command_line import START_VARIABLE, STARTS
from flowyml.executors.process.pool.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How workers start, each way in turn."""
    monkeypatch.setenv(START_VARIABLE, request.param)
    return str(request.param)


@pytest.fixture
def pool(mark: str, start: str) -> Iterator[WorkerPool]:
    """A pool of stand-in workers, forked and exec'ed in turn."""
    pool = WorkerPool(2, program=worker_pools.PROGRAM)
    yield pool
    pool.shutdown(0)


@pytest.fixture
def by_hand() -> Iterator[Callable[..., types.ModuleType]]:
    """Modules made by hand, as notebooks and --import-mode=importlib make them: loaded, found by no finder."""
    made: list[str] = []

    def make(name: str, text: str, parents: tuple[str, ...] = ()) -> types.ModuleType:
        module = types.ModuleType(name)
        sys.modules[name] = module
        made.append(name)
        for parent in parents:
            sys.modules[parent] = types.ModuleType(parent)
            made.append(parent)
        exec(compile(text, f"<{name}>", "exec"), module.__dict__)
        return module

    yield make
    for name in made:
        sys.modules.pop(name, None)
