"""Threads of a free-threaded Python: 200 steps of pure Python, 20 ms each, on two threads beside the local executor.

A step is a loop of a fixed number of turns, as in `small.py`. Where Python has a global lock two threads take turns, so
that there is nothing to measure, and every case is skipped with a line. As baseline there is the thread pool of the
standard library, too. What steps cost there that do nothing is the group `steps`, on the same interpreter.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import flowyml
from cases.contract import Bar, Case, Group
from cases.pair import Pair
from cases.small import TURNS, spin

THREADS = 2
STEPS, MICROSECONDS = 200, 20_000
SPEEDUP = 1.8
"""At least so many times as fast as one thread."""
LOCAL, OURS, POOL = "flowyml local", "flowyml thread", "ThreadPoolExecutor map"


class Free(Case):
    """A mapped step on an executor."""

    needs_free_threads = True
    backend: ClassVar[str]

    def start(self) -> None:
        self.turns = [TURNS * MICROSECONDS] * self.size
        self.outputs: Any = []
        self.open()

    def open(self) -> None:
        local = self.backend == "local"
        self.executor: Any = flowyml.LocalExecutor() if local else flowyml.ParallelExecutor(THREADS, backend="thread")
        flowyml.Pipeline("warm").map(spin, [1] * 100).run(executor=self.executor)

    def run(self) -> None:
        self.outputs = list(flowyml.Pipeline("free").map(spin, self.turns).run(executor=self.executor)["spin"])

    def check(self) -> None:
        assert self.outputs == self.turns

    def stop(self) -> None:
        self.executor.shutdown()


class Pool(Free):
    """The thread pool of the standard library."""

    def open(self) -> None:
        self.executor = ThreadPoolExecutor(THREADS)
        list(self.executor.map(spin, [1] * 100))

    def run(self) -> None:
        self.outputs = list(self.executor.map(spin, self.turns))


GROUP = Group(
    title="20 ms of pure Python on two threads without a global lock",
    unit=("ms", 1e3),
    cases={
        LOCAL: type("Local", (Free,), {"backend": "local"}),
        OURS: type("Thread", (Free,), {"backend": "thread"}),
        POOL: type("Pool", (Pool,), {"backend": "thread"}),
    },
    sizes={STEPS: 5},
    quick={8: 1},
    pairs=(Pair(OURS, LOCAL, ("run",), "run"), Pair(OURS, POOL, ("run",), "run")),
    bars=(
        Bar(
            "two threads of a free-threaded Python, compared with the local executor",
            1 / SPEEDUP,
            lambda figures: figures.ratio("free", Pair(OURS, LOCAL, ("run",)), STEPS),
            "x",
        ),
    ),
)
