"""The figures as text: a table of costs and one of ratios for each group and size, and the bars."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from cases import catalogue
from cases.pair import PROCESS
from figures import cost
from harness import CALM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cases.contract import Bar, Group
    from figures import Figures, Measurement

_MEGABYTE = 1e6


def report(figures: Figures) -> str:
    """Return everything as text."""
    return "\n".join([*_groups(figures), *bars(figures), *disturbances(figures)])


def _groups(figures: Figures) -> Iterator[str]:
    for name, size in figures.rounds:
        group = catalogue.group(name)
        rounds = max(map(len, figures.rounds[name, size].values()))
        yield f"{group.title}, size {size:,}: {group.unit[0]}, median of {rounds} round(s)"
        yield from costs(figures, name, size)
        yield ""
        yield from ratios(figures, name, size)


def costs(figures: Figures, name: str, size: int) -> Iterator[str]:
    """Go through the lines of the table of costs."""
    group, measured = catalogue.group(name), figures.rounds[name, size]
    phases = list(dict.fromkeys(each for case in group.cases.values() if not case.command for each in case.phases))
    head = ["", *phases, "all", "least", "CPU", "peak MB", "with workers", "process s", "others"]
    rows = [_row(group, case, measured[case], size, phases) for case in group.cases if case in measured]
    yield from table([head, *rows])
    smaller = {case: each[0]["units"] for case, each in measured.items() if _is_smaller(each[0], size)}
    yield from (f"  * {case}: measured at {units:,}" for case, units in smaller.items())


def _row(group: Group, case: str, rounds: list[Measurement], size: int, phases: Sequence[str]) -> list[str]:
    scale = group.unit[1]
    star = " *" if _is_smaller(rounds[0], size) else ""
    middle = [_middle(rounds, [phase], scale) if phase in rounds[0]["phases"] else "" for phase in phases]
    alone = list(rounds[0]["phases"]) == [PROCESS]
    every = [number(scale * cost(each)) for each in rounds]
    return [
        case + star,
        *middle,
        _middle(rounds, (), scale),
        number(min(scale * cost(each) for each in rounds)) if every else "",
        "" if alone else number(median(scale * cost(each, (), "cpu") for each in rounds)),
        *("" if alone else f"{median(each[peak] for each in rounds) / _MEGABYTE:,.0f}" for peak in _PEAKS),
        _middle(rounds, [PROCESS], 1.0),
        number(median(each["others"] for each in rounds)),
    ]


_PEAKS = ("peak", "peak_with_workers")


def _middle(rounds: list[Measurement], phases: Sequence[str], scale: float) -> str:
    return number(median(scale * cost(each, phases) for each in rounds))


def _is_smaller(measurement: Measurement, size: int) -> bool:
    """Tell whether a case did less than it was asked for, as one does that would take minutes."""
    return 1 < measurement["units"] < size


def ratios(figures: Figures, name: str, size: int) -> Iterator[str]:
    """Go through the lines of the table of ratios: a line for a case and its baseline, a column for each sum."""
    pairs = catalogue.group(name).pairs
    lines: dict[tuple[str, str | None], dict[str, str]] = {}
    for pair in pairs:
        found = figures.ratios(name, pair, size)
        if found:
            text = f"{number(found.median)}x ({number(found.low)} to {number(found.high)})"
            lines.setdefault((pair.case, figures.fastest(name, pair, size)), {})[pair.label] = text
    labels = dict.fromkeys(pair.label for pair in pairs)
    if lines:
        head = ["ratio: median of the rounds (middle half)", "", *labels]
        rows = [[case, f"/ {by}", *(texts.get(label, "") for label in labels)] for (case, by), texts in lines.items()]
        yield from table([head, *rows])
        yield ""


def bars(figures: Figures) -> Iterator[str]:
    """Go through the lines that tell which bars are met."""
    rows = [_bar(figures, bar) for name in figures.groups() for bar in catalogue.group(name).bars]
    yield from table([["bar", "at most", "measured", ""], *rows])


def disturbances(figures: Figures) -> Iterator[str]:
    """Say so where others worked at the same time: such figures prove nothing."""
    others = [each["others"] for cases in figures.rounds.values() for rounds in cases.values() for each in rounds]
    disturbed = sum(each > CALM for each in others)
    if disturbed:
        yield f"  NOT CALM: during {disturbed} of {len(others)} measurements others used more than {CALM} CPUs;"
        yield "  then cases with more processes get more of the machine (see harness.py). --tries=3 measures again."


def _bar(figures: Figures, bar: Bar) -> list[str]:
    measured = reading(figures, bar)
    text = "" if measured is None else f"{number(measured)} {bar.unit}"
    return [bar.text, f"{number(bar.most)} {bar.unit}", text, verdict(measured, bar)]


def reading(figures: Figures, bar: Bar) -> float | None:
    """Return the figure of a bar, `None` where it was not measured."""
    try:
        return bar.read(figures)
    except LookupError:
        return None


def verdict(measured: float | None, bar: Bar) -> str:
    """Return what a figure means for its bar."""
    if measured is None:
        return "not measured"
    return "met" if measured <= bar.most else "MISSED"


def number(value: float) -> str:
    """Return a number with three digits that matter.

    >>> number(0.01234), number(1.5), number(12.345), number(1234.5)
    ('0.0123', '1.50', '12.3', '1,234')
    """
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}" if abs(value) < 10 and abs(value) >= 0.1 else f"{value:.3g}"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Go through the lines of a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True))]
        yield "  ".join(["", *cells]).rstrip()
