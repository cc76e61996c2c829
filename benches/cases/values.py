"""Large values: 200 steps that each make an array of 16 MB, each read by two others, beside the thread backend.

Threads hand arrays on as they are; processes write each once and map it for each reader. All values stay, 3.2 GB, as
they do where nobody says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import flowyml
from cases.contract import WORKERS, Bar, Case, Group
from cases.pair import Pair

if TYPE_CHECKING:
    from figures import Figures

THREADS, PROCESSES = "arrays, threads", "arrays, processes"
FULL, QUICK = 200, 4
ELEMENTS = 2_000_000


def make(i: int) -> np.ndarray:
    """Return 16 MB."""
    return np.full(ELEMENTS, float(i))


def total(a: np.ndarray) -> float:
    """Read all of an array."""
    return float(a.sum())


def largest(a: np.ndarray) -> float:
    """Read all of an array."""
    return float(a.max())


class Arrays(Case):
    """As many arrays as the size says, each read twice."""

    backend: ClassVar[str]

    def start(self) -> None:
        self.executor: Any = flowyml.ParallelExecutor(WORKERS, self.backend)  # type: ignore[arg-type]
        flowyml.Pipeline("warm").map(make, range(2 * WORKERS)).run(executor=self.executor)
        self.pipeline = flowyml.Pipeline("arrays")
        for i in range(self.size):
            self.pipeline.add_step(make, name=f"made_{i}", params={"i": i})
            self.pipeline.add_step(total, name=f"total_{i}", inputs={"a": f"made_{i}"})
            self.pipeline.add_step(largest, name=f"largest_{i}", inputs={"a": f"made_{i}"})

    def run(self) -> None:
        self.result = self.pipeline.run(executor=self.executor)

    def check(self) -> None:
        for i in range(self.size):
            assert self.result[f"total_{i}"] == i * ELEMENTS
            assert self.result[f"largest_{i}"] == i
        assert self.result[f"made_{self.size - 1}"][-1] == self.size - 1

    def stop(self) -> None:
        self.executor.shutdown()


def _case(backend: str) -> type[Case]:
    return type("Arrays", (Arrays,), {"backend": backend})


def _beside_threads(figures: Figures) -> float | None:
    return figures.ratio("values", Pair(PROCESSES, THREADS, ("run",)), FULL)


def _growth(figures: Figures) -> float | None:
    """Megabytes that a run adds to the driver."""
    found = figures.of("values", PROCESSES, FULL)
    each = [(figure["phases"]["run"]["rss"] - figure["start"]["rss"]) / 1e6 for figure in found]
    return max(each) if each else None


GROUP = Group(
    title="Large values",
    unit=("ms per array", 1e3),
    cases={THREADS: _case("thread"), PROCESSES: _case("process")},
    sizes={FULL: 3},
    quick={QUICK: 1},
    pairs=(Pair(PROCESSES, THREADS, ("run",), "run"),),
    bars=(
        Bar("200 x 16 MB, each read twice, processes, compared with threads", 1.3, _beside_threads, "x"),
        Bar("the same, growth of the driver", 50, _growth, "MB"),
    ),
)
