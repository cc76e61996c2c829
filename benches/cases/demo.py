"""Real work: the pipeline of `examples/flights.py` beside the same job written by hand with `ProcessPoolExecutor`.

The size is the number of months. `cold` makes the executor and runs, `warm` runs again, `close` ends the workers: cold
and close together are what a script pays. By hand, workers are forked from a process that has pandas loaded already;
flowyml's workers are new interpreters that import it.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cases import flights_by_hand
from cases.contract import WORKERS, Bar, Case, Group
from cases.pair import PROCESS, Pair

if TYPE_CHECKING:
    from figures import Figures

EXAMPLES = Path(__file__).parents[2] / "examples"
YEAR = 12
FLIGHTS = 336_776
OURS, BY_HAND = "flowyml, processes", "ProcessPoolExecutor by hand"
SCRIPT = ("cold", "close")


class Flights(Case):
    """The demo's pipeline on process workers."""

    phases = ("cold", "warm", "close")

    def start(self) -> None:
        sys.path.insert(0, str(EXAMPLES))
        self.flights: Any = import_module("flights")
        self.files = sorted(self.data.glob("month_*.csv"))
        self.resamples = 1000 if self.size == YEAR else 20
        self.units = 1

    def cold(self) -> None:
        from flowyml import ParallelExecutor

        self.executor: Any = ParallelExecutor(max_workers=WORKERS, backend="process")
        self.first = self.year()

    def warm(self) -> None:
        self.again = self.year()

    def close(self) -> None:
        self.executor.shutdown()

    def year(self) -> Any:
        pipeline = self.flights.flights_pipeline(self.files, self.resamples)
        return pipeline.run(executor=self.executor)["year"]

    def check(self) -> None:
        assert len(self.files) == self.size
        assert self.first.equals(self.again)
        assert self.size < YEAR or self.first["flights"].sum() == FLIGHTS


class FlightsByHand(Flights):
    """The same functions, a pool and a list."""

    def cold(self) -> None:
        self.executor = flights_by_hand.new_pool(WORKERS)
        self.first = self.year()

    def year(self) -> Any:
        return flights_by_hand.year(self.executor, self.files, self.resamples)


def write_months(folder: Path, months: int) -> None:
    """Write the CSV files, in a process of its own: pandas is no business of the harness."""
    program = "import sys, pathlib, flights; flights.write_months(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", program, str(folder), str(months)], cwd=EXAMPLES, check=True)


def _ratio(figures: Figures) -> float | None:
    return figures.ratio("demo", Pair(OURS, BY_HAND, SCRIPT), YEAR)


GROUP = Group(
    title="A year of flights",
    unit=("s", 1.0),
    cases={OURS: Flights, BY_HAND: FlightsByHand},
    sizes={YEAR: 9},
    quick={2: 1},
    pairs=(
        Pair(OURS, BY_HAND, SCRIPT, "cold + close"),
        Pair(OURS, BY_HAND, ("warm",), "warm"),
        Pair(OURS, BY_HAND, (PROCESS,), "whole process"),
    ),
    bars=(Bar("the demo, compared with a plain ProcessPoolExecutor, cold + close", 1.03, _ratio, "x"),),
    prepare=write_months,
)
