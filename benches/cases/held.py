"""Memory that large values hold: a chain-and-reduce that lets go of them, and a run that keeps more than its budget.

100 GB go through a hundred chains of a hundred arrays of 10 MB with `keep="leaves"`; 20 GB stay with `keep="all"` and a
budget of 2 GB, the rest of them on disk. What counts is what all processes have for themselves and what is shared
memory, looked at twenty times a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from processes import Peak

import flowyml
from cases.contract import WORKERS, Bar, Case, Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figures

CHAINS, SPILL = "chains of arrays, leaves kept", "arrays beyond a budget"
FULL, QUICK = 100, 2
ELEMENTS = 1_250_000
BUDGET = 2_000_000_000
GIGABYTE = 1e9


def first(i: int) -> np.ndarray:
    """Return 10 MB."""
    return np.full(ELEMENTS, float(i))


def following(a: np.ndarray) -> np.ndarray:
    """Return another 10 MB."""
    return a + 1


def end(a: np.ndarray) -> float:
    """Return a number."""
    return float(a[0])


class Chains(Case):
    """As many chains as the size says, of as many arrays each, and a sum over their ends."""

    def start(self) -> None:
        self.units = self.size * self.size
        self.executor: Any = flowyml.ParallelExecutor(WORKERS, "process")
        flowyml.Pipeline("warm").map(first, range(2 * WORKERS)).run(executor=self.executor)
        self.pipeline = flowyml.Pipeline("chains")
        for chain in range(self.size):
            self.pipeline.add_step(first, name=f"{chain}.0", params={"i": chain})
            for hop in range(1, self.size):
                self.pipeline.add_step(following, name=f"{chain}.{hop}", inputs={"a": f"{chain}.{hop - 1}"})
            self.pipeline.add_step(end, name=f"end_{chain}", inputs={"a": f"{chain}.{self.size - 1}"})
        self.pipeline.add_step(sum, name="sum", inputs=["end_*"])

    def run(self) -> None:
        with Peak() as peak:
            self.result = self.pipeline.run(executor=self.executor, keep="leaves")
        self.further["held"] = peak.most

    def check(self) -> None:
        assert self.result["sum"] == sum(range(self.size)) + self.size * (self.size - 1)

    def stop(self) -> None:
        self.executor.shutdown()


class Spill(Case):
    """Twenty arrays for each one of the size, all kept."""

    def start(self) -> None:
        self.units = 20 * self.size
        budget = BUDGET * self.size // FULL
        self.executor: Any = flowyml.ParallelExecutor(WORKERS, "process", memory_budget=budget)
        flowyml.Pipeline("warm").map(first, range(2 * WORKERS)).run(executor=self.executor)
        self.pipeline = flowyml.Pipeline("spill").map(first, range(self.units), name="made")
        self.pipeline.map(end, over="made")

    def run(self) -> None:
        with Peak() as peak:
            self.result = self.pipeline.run(executor=self.executor)
        self.further["held"] = peak.most

    def check(self) -> None:
        assert list(self.result["end"]) == list(range(self.units))

    def stop(self) -> None:
        self.executor.shutdown()


def _held(case: str) -> Callable[[Figures], float | None]:
    def read(figures: Figures) -> float | None:
        found = [each["further"]["held"] / GIGABYTE for each in figures.of("held", case, FULL)]
        return max(found) if found else None

    return read


GROUP = Group(
    title="Memory that large values hold",
    unit=("ms per array", 1e3),
    cases={CHAINS: Chains, SPILL: Spill},
    sizes={FULL: 1},
    quick={QUICK: 1},
    bars=(
        Bar("10,000 x 10 MB in chains, leaves kept, memory of all processes", 2.0, _held(CHAINS), "GB"),
        Bar("2,000 x 10 MB kept beyond a budget of 2 GB, memory of all processes", 2.5, _held(SPILL), "GB"),
    ),
)
