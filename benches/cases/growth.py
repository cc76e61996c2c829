"""Ten million items: what one costs beside one of ten thousand, and what memory they take.

The steps that are added one by one grow in `steps.py`, from ten thousand to a million; the bars for both stand here.
Memory is read at the peak of the run, before the user makes a list of the results; above the results means: above a
bare loop that appends as many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cases.contract import Bar, Case, Group
from cases.pair import Pair
from cases.steps import BACKENDS, MILLION, OURS, ours
from cases.steps_by_hand import Loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figures

SMALL, LARGE = 10_000, 10_000_000
BARE = "bare loop"


def growth(group: str, case: str, small: int, large: int) -> Callable[[Figures], float | None]:
    """How many times as much a step costs at a large size as at a small one, all phases."""
    return lambda figures: figures.growth(group, case, small, large)


def above(group: str, case: str, baseline: str, size: int) -> Callable[[Figures], float | None]:
    """How many bytes a step takes above the baseline, at the peak of the run."""

    def read(figures: Figures) -> float | None:
        ours, theirs = figures.peak(group, case, size, "run"), figures.peak(group, baseline, size, "run")
        return None if ours is None or theirs is None else (ours - theirs) / size

    return read


def _whole(case: str) -> Callable[[Figures], float | None]:
    """The whole process, in GB."""

    def read(figures: Figures) -> float | None:
        peak = figures.peak("growth", case, LARGE)
        return None if peak is None else peak / 1e9

    return read


def _bars() -> tuple[Bar, ...]:
    mapped = [ours(backend, "map") for backend in BACKENDS]
    added = [ours(backend, "add_step") for backend in BACKENDS]
    return (
        *(Bar(f"{case}, 10M, compared with 10,000", 1.2, growth("growth", case, SMALL, LARGE), "x") for case in mapped),
        *(Bar(f"{case}, 1M, compared with 10,000", 1.2, growth("steps", case, 10_000, MILLION), "x") for case in added),
        *(
            Bar(f"{case}, 10M, above the results", 60, above("growth", case, BARE, LARGE), "B per item")
            for case in mapped
        ),
        *(Bar(f"{case}, 10M, the whole process", 3, _whole(case), "GB") for case in mapped),
    )


CASES: dict[str, type[Case]] = {BARE: Loop, **{name: case for name, case in OURS.items() if name.endswith("map")}}
GROUP = Group(
    title="Ten million items",
    unit=("us per item", 1e6),
    cases=CASES,
    sizes={SMALL: 5, LARGE: 1},
    quick={1_000: 1},
    pairs=tuple(Pair(name, BARE, ("run",), "run") for name in CASES if name != BARE),
    bars=_bars(),
)
