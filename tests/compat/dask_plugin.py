"""A pytest plugin for dask's own tests: sets dask's scheduler, records each test's outcome and how many graphs it ran.

`dask_suite.py` starts the pytest that loads it and passes everything in environment variables: `COMPAT_SCHEDULER` names
the scheduler, `COMPAT_OUTCOMES` the JSON file that is written, `COMPAT_SELECTED` a file with the ids of the tests to
run, one a line (all that are collected if it is not set), `COMPAT_DONE` one with those that ran before: their
outcomes are in the JSON file.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.base
import dask.local
import dask.multiprocessing
import pytest
from dask_scheduler import Scheduler

from flowyml import LocalExecutor, ParallelExecutor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

WORKERS = 2


class DaskScheduler:
    """One of dask's own schedulers, which counts its graphs as `Scheduler` does."""

    def __init__(self, get: Callable[..., Any]) -> None:
        self.get = get
        self.graphs = 0

    def __call__(self, dsk: Mapping[Any, Any], keys: Any, **options: Any) -> Any:
        self.graphs += 1
        return self.get(dsk, keys, **options)


class WarmPool:
    """dask's scheduler for processes on a pool that stays: a pool for each of thousands of graphs takes hours."""

    pool: ProcessPoolExecutor | None = None

    def __call__(self, dsk: Mapping[Any, Any], keys: Any, **options: Any) -> Any:
        if self.pool is None:
            spawn, begin = multiprocessing.get_context("spawn"), dask.multiprocessing.initialize_worker_process
            self.pool = ProcessPoolExecutor(WORKERS, mp_context=spawn, initializer=begin)
        try:
            return dask.multiprocessing.get(dsk, keys, **{"pool": self.pool, **options})
        except BrokenExecutor:
            self.pool = None
            raise


SCHEDULERS: dict[str, Callable[[], Scheduler | DaskScheduler]] = {
    "dask-sync": lambda: DaskScheduler(dask.local.get_sync),
    "dask-processes": lambda: DaskScheduler(WarmPool()),
    "local": lambda: Scheduler(LocalExecutor()),
    "thread": lambda: Scheduler(ParallelExecutor(WORKERS, backend="thread")),
    "process": lambda: Scheduler(ParallelExecutor(WORKERS)),
}

OUTCOMES = Path(os.environ["COMPAT_OUTCOMES"])
# Seconds between two times that outcomes are written: the run may be stopped.
_INTERVAL = 10
outcomes: dict[str, tuple[str, int, str]] = {}
"""By test: its outcome, its graphs, and how it failed in a few words."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the scheduler dask's default, and what each of dask's names for schedulers stands for."""
    if OUTCOMES.exists():
        outcomes.update(json.loads(OUTCOMES.read_text()))
    config.compat = scheduler = SCHEDULERS[os.environ["COMPAT_SCHEDULER"]]()
    dask.config.set(scheduler=scheduler)
    dask.base.named_schedulers.update(dict.fromkeys(dask.base.named_schedulers, scheduler))
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not selected, or ran before."""
    chosen = {item.nodeid for item in items} - set(Path(os.environ["COMPAT_DONE"]).read_text().splitlines())
    if "COMPAT_SELECTED" in os.environ:
        chosen &= set(Path(os.environ["COMPAT_SELECTED"]).read_text().splitlines())
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in chosen])
    items[:] = [item for item in items if item.nodeid in chosen]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Count the graphs of a test."""
    before = item.config.compat.graphs
    try:
        return (yield)
    finally:
        item.user_properties.append(("graphs", item.config.compat.graphs - before))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record the outcome; with several test processes this is called in the first of them."""
    graphs = dict(report.user_properties).get("graphs", 0)
    if report.when == "call" or not report.passed:
        known = outcomes.get(report.nodeid)
        if report.when != "teardown" or known is None or known[0] == "passed":
            outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
            crash = getattr(report.longrepr, "reprcrash", None)
            words = crash.message if crash is not None else str(report.longrepr or "")
            outcomes[report.nodeid] = (outcome, graphs, words[:300] if report.failed else "")


class Writer:
    """Writes the outcomes, in the first process of a session."""

    def __init__(self) -> None:
        self.written = time.monotonic()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self) -> None:
        """Write them now and then."""
        if time.monotonic() - self.written > _INTERVAL:
            self.pytest_sessionfinish()

    def pytest_sessionfinish(self) -> None:
        """Write them, so that the file is whole whenever the process ends."""
        new = OUTCOMES.with_suffix(".new")
        new.write_text(json.dumps(outcomes, indent=0))
        new.replace(OUTCOMES)
        self.written = time.monotonic()
