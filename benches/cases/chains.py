"""Chains: one of 100,000 hops, a thousand of a thousand side by side, and one of steps of a millisecond.

A step of a chain adds one to what the step before it has returned. The baselines are the loop that does the same, and
the local executor, which never has to hand anything over. What is added up is the run alone: defining is `steps.py`'s.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import flowyml
from cases.contract import Bar, Case, Group
from cases.pair import Pair
from cases.steps import BACKENDS, executor_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figures

LONG, SIDE, MS = "one chain", "a thousand chains", "one chain of 1 ms steps"
FULL, QUICK = 1, 0
# Chains and the hops of each, by size.
SHAPES = {LONG: {FULL: (1, 100_000), QUICK: (1, 200)}, SIDE: {FULL: (1_000, 1_000), QUICK: (10, 10)}}
MS_HOPS = {FULL: 500, QUICK: 5}
WAIT = 0.001


def increment(x: int) -> int:
    """Return the next number."""
    return x + 1


def slow_increment(x: int) -> int:
    """Return the next number after a millisecond of work."""
    until = time.perf_counter() + WAIT
    while time.perf_counter() < until:
        pass
    return x + 1


class Loop(Case):
    """The calls, one after the other."""

    shape: ClassVar[str]

    def start(self) -> None:
        self.chains, self.hops = SHAPES[self.shape][self.size] if self.shape in SHAPES else (1, MS_HOPS[self.size])
        self.units = self.chains * self.hops
        self.function = slow_increment if self.shape == MS else increment

    def run(self) -> None:
        function, hops = self.function, range(self.hops)
        self.ends = []
        for _ in range(self.chains):
            x = 0
            for _ in hops:
                x = function(x)
            self.ends.append(x)

    def check(self) -> None:
        assert self.ends == [self.hops] * self.chains


class Chains(Loop):
    """The same as a pipeline on warm workers; only the values at the ends are kept."""

    phases = ("define", "run", "collect")
    backend: ClassVar[str]

    def start(self) -> None:
        super().start()
        self.executor: Any = executor_of(self.backend)
        flowyml.Pipeline("warm").map(increment, range(100)).run(executor=self.executor)

    def define(self) -> None:
        self.pipeline = flowyml.Pipeline("chains")
        add, function, chains = self.pipeline.add_step, self.function, range(self.chains)
        for chain in chains:
            add(function, name=f"{chain}.0", params={"x": 0})
        for hop in range(1, self.hops):
            for chain in chains:
                add(function, name=f"{chain}.{hop}", inputs={"x": f"{chain}.{hop - 1}"})

    def run(self) -> None:
        self.result = self.pipeline.run(executor=self.executor)

    def collect(self) -> None:
        self.ends = [self.result[f"{chain}.{self.hops - 1}"] for chain in range(self.chains)]

    def stop(self) -> None:
        self.executor.shutdown()


def _name(shape: str, backend: str) -> str:
    return f"{shape}, flowyml {backend}"


def _cases() -> dict[str, type[Case]]:
    cases: dict[str, type[Case]] = {}
    for shape in (LONG, SIDE, MS):
        cases[f"{shape}, bare loop"] = type("Loop", (Loop,), {"shape": shape})
        for backend in BACKENDS:
            cases[_name(shape, backend)] = type("Chains", (Chains,), {"shape": shape, "backend": backend})
    return cases


def _hop(shape: str, backend: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.cost("chains", _name(shape, backend), FULL, ("run",))


def _beside_local(backend: str) -> Callable[[Figures], float | None]:
    pair = Pair(_name(MS, backend), _name(MS, "local"), ("run",))
    return lambda figures: figures.ratio("chains", pair, FULL)


def _pairs() -> tuple[Pair, ...]:
    return tuple(
        Pair(_name(shape, backend), f"{shape}, {baseline}", ("run",), "run")
        for shape in (LONG, SIDE, MS)
        for backend in BACKENDS
        for baseline in ("bare loop", *(("flowyml local",) if backend != "local" else ()))
    )


GROUP = Group(
    title="Chains",
    unit=("us per hop", 1e6),
    cases=_cases(),
    sizes={FULL: 3},
    quick={QUICK: 1},
    pairs=_pairs(),
    bars=(
        *(
            Bar(f"{shape}, run, {backend}", most, _hop(shape, backend), "us per hop")
            for shape in (LONG, SIDE)
            for backend, most in (("thread", 2.0), ("process", 4.0))
        ),
        *(
            Bar(f"{MS}, {backend}, compared with local", 1.2, _beside_local(backend), "x")
            for backend in ("thread", "process")
        ),
    ),
)
