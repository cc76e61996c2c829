"""What all tests share: the executors, and where the files beside the tests are.

A new executor joins every parametrised test by one line in `EXECUTORS`.
"""

from __future__ import annotations

import gc
import os
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import worker_pools
from example_counts import examples

import flowyml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

pytest_plugins = ["exclusive_tests"]

EXECUTORS: dict[str, Callable[[], Any]] = {
    "local": lambda: flowyml.LocalExecutor(),  # noqa: PLW0108  names are looked up when a test asks
    "thread": lambda: flowyml.ParallelExecutor(max_workers=2, backend="thread"),
    "process": lambda: flowyml.ParallelExecutor(max_workers=2, backend="process"),
    "async": lambda: flowyml.ParallelExecutor(max_workers=2, backend="async"),
}

# Every plan of the suite, also in what tests start, checks its fast paths; tests that measure plans turn it off.
os.environ.setdefault("FLOWYML_VERIFY_FAST_PATHS", "1")

# Time limits are pytest-timeout's. In CI every run draws the same examples.
DRAWN = {"max_examples": examples(30, 200), "derandomize": bool(os.environ.get("CI"))}
hypothesis.settings.register_profile("flowyml", deadline=None, **DRAWN)
hypothesis.settings.load_profile("flowyml")

# A shell without job control starts what runs in the background with Ctrl-C ignored; what tests start would be alike.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# So does nohup with the hang-up. Handled here, so that it ends no tests; what tests start has the default, as ever.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# Beside the tests stand examples/, README.md and pyproject.toml; in a checkout everything else, too.
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Every executor in turn, warm, shared by the tests of a module."""
    with EXECUTORS[request.param]() as warm:
        yield warm


@pytest.fixture(params=EXECUTORS)
def fresh_executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Every executor in turn, new for the test: for tests that break it, close it or count its workers."""
    with EXECUTORS[request.param]() as new:
        yield new


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for what steps write, beside the others of the test."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A mark that all processes of this test carry; at the end of the test none may be left."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(worker_pools.MARK, mark)
    yield mark
    gone = worker_pools.eventually(lambda: not worker_pools.marked(mark), 2.0)
    worker_pools.clear(mark)
    assert gone, "processes were left"


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No pass of the garbage collector: at the bottom of the stack hypothesis's callback of it would raise, too."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder above the tests, with examples/ and README.md, also where an installed wheel is tested."""
    return ROOT


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The checkout; skips where the tests run away from it."""
    if not (ROOT / "Makefile").exists():
        pytest.skip("the tests run away from the checkout")
    return ROOT
