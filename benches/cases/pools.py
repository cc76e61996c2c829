"""The process pools of the baselines, each of whose workers leads a session of its own, as flowyml's workers do.

Where Linux has autogroup scheduling (sched(7), on by default) it shares the CPUs between sessions first and between the
processes of a session second. Next to other work, workers with a session each get more of the CPUs than workers that
share one with the process that started them. So the workers of every pool here call `own_session` when they start.
Threads and bare loops run in the process that is measured, which leads a session, too (`harness.py`).
"""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING, Any

from cases.contract import WORKERS

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing.context import BaseContext
    from multiprocessing.pool import Pool


def own_session() -> None:
    """Make this process the leader of a new session, unless it leads one."""
    if os.getsid(0) != os.getpid():
        if os.getpgrp() == os.getpid():  # the leader of a process group cannot lead a session; ray's workers are such
            os.setpgid(0, os.getpgid(os.getppid()))
        os.setsid()


def fastest_context() -> BaseContext:
    """Return the way to start processes that costs least."""
    fork = "fork" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("fork" if fork else None)


def chunk_pool() -> Pool:
    """Return a `multiprocessing.Pool`."""
    return fastest_context().Pool(WORKERS, own_session)


def futures_pool(workers: int = WORKERS, context: Any = None) -> ProcessPoolExecutor:
    """Return a `ProcessPoolExecutor`."""
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(workers, mp_context=context or fastest_context(), initializer=own_session)
