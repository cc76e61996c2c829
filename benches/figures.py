"""What was measured, by group, case and size: medians, ratios and differences.

Ratios and differences are taken within a round and then the median of those: a machine that slows down for a minute
slows down both sides. Where the baseline is the fastest of several, the other rounds say which one that is: chosen by
the round in which it is compared it would have the luck of several tries, against one. A figure that was not measured
is `None`.
"""

from __future__ import annotations

from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, NamedTuple

from cases.pair import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cases.pair import Pair

Measurement = dict[str, Any]


class Ratio(NamedTuple):
    """Ratios of the rounds: the one in the middle, and between which two the middle half of them lies."""

    median: float
    low: float
    high: float


class Figures:
    """All measurements.

    Args:
        measurements: The jobs with their figures, in any order.
        scale: Tells how many of the unit in which a group's costs are told are a second.
    """

    def __init__(
        self, measurements: Iterable[tuple[dict[str, Any], Measurement]], scale: Callable[[str], float]
    ) -> None:
        self._scale = scale
        self.rounds: dict[tuple[str, int], dict[str, list[Measurement]]] = {}
        for job, figures in sorted(measurements, key=lambda each: each[0]["round"]):
            self.rounds.setdefault((job["group"], job["size"]), {}).setdefault(job["case"], []).append(figures)

    def of(self, group: str, case: str, size: int) -> list[Measurement]:
        """Return the rounds of a case."""
        return self.rounds.get((group, size), {}).get(case, [])

    def groups(self) -> list[str]:
        """Return the groups that were measured."""
        return list(dict.fromkeys(name for name, _ in self.rounds))

    def peak(self, group: str, case: str, size: int, phase: str | None = None) -> float | None:
        """Return the most memory that a case has had up to the end of a phase, workers included; of all by default."""
        found = self.of(group, case, size)
        each = [(figures if phase is None else figures["phases"][phase])["peak_with_workers"] for figures in found]
        return median(each) if each else None

    def costs(self, group: str, case: str, size: int, phases: Sequence[str] = ()) -> list[float]:
        """Return what some phases took in each round, in the group's unit; all phases if none is named."""
        scale = self._scale(group)
        return [scale * cost(each, phases) for each in self.of(group, case, size)]

    def cost(self, group: str, case: str, size: int, phases: Sequence[str] = ()) -> float | None:
        """Return the median of `costs`."""
        return median(self.costs(group, case, size, phases) or [float("nan")]) if self.of(group, case, size) else None

    def told(self, group: str, case: str, size: int) -> str:
        """Return what a case that is a command has printed.

        Raises:
            LookupError: If it was not measured.
        """
        return str(self.of(group, case, size)[0]["told"])

    def ratio(self, group: str, pair: Pair, size: int) -> float | None:
        """Return the median ratio of a case and its (fastest) baseline."""
        found = self.ratios(group, pair, size)
        return found.median if found else None

    def ratios(self, group: str, pair: Pair, size: int) -> Ratio | None:
        """Return the ratios of a case and its (fastest) baseline, round by round."""
        ours = self.costs(group, pair.case, size, pair.phases)
        theirs = [self.costs(group, case, size, pair.phases) for case in self._named(group, pair, size)]
        each = [our / _at(theirs, k) for k, our in enumerate(ours) if any(len(costs) > k for costs in theirs)]
        return _middle(each) if each else None

    def growth(self, group: str, case: str, small: int, large: int) -> float | None:
        """Return how many times as much a unit costs at a large size as at a small one, all phases, round by round."""
        pairs = zip(self.costs(group, case, small), self.costs(group, case, large), strict=False)
        each = [after / before for before, after in pairs]
        return median(each) if each else None

    def fastest(self, group: str, pair: Pair, size: int) -> str | None:
        """Return the fastest of the cases that a pair names as its baseline."""
        named = self._named(group, pair, size)
        return min(named, key=lambda case: median(self.costs(group, case, size, pair.phases)), default=None)

    def _named(self, group: str, pair: Pair, size: int) -> list[str]:
        """Return the cases that a pair names as its baseline."""
        exact = [case for case in self.rounds.get((group, size), {}) if case == pair.baseline]
        return exact or list(self._starting(group, pair.baseline, size))

    def difference(self, group: str, case: str, baseline: str, size: int, phase: str) -> float | None:
        """Return how much longer a phase took than that of the baseline."""
        pairs = zip(self.costs(group, case, size, [phase]), self.costs(group, baseline, size, [phase]), strict=False)
        each = [ours - theirs for ours, theirs in pairs]
        return median(each) if each else None

    def _starting(self, group: str, name: str, size: int) -> Iterator[str]:
        return (case for case in self.rounds.get((group, size), {}) if case.startswith(name))


def _at(cases: list[list[float]], k: int) -> float:
    """Return what the case costs in round k that is the fastest by all other rounds, where there are some.

    >>> _at([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], 0)
    2.0
    """
    there = [costs for costs in cases if len(costs) > k]
    return min(there, key=lambda costs: median(costs[:k] + costs[k + 1 :] or costs))[k]


def _middle(ratios: list[float]) -> Ratio:
    if len(ratios) == 1:
        return Ratio(*ratios, *ratios, *ratios)
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return Ratio(middle, low, high)


def cost(measurement: Measurement, phases: Sequence[str] = (), kind: str = "wall") -> float:
    """Return the seconds a unit that some phases took; what a case has no phase for costs nothing."""
    taken = measurement["phases"]
    chosen = phases or [name for name in taken if name != PROCESS] or [PROCESS]
    # The process as a whole is never divided: it contains more than what the units are of.
    return sum(
        taken[name].get(kind, 0.0) / (1 if name == PROCESS else measurement["units"])
        for name in chosen
        if name in taken
    )
