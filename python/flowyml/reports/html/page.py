"""The HTML page of a run: one file without scripts, network access or step values, only names, times and errors.

```
ReportData (counts, timeline, graph, rows) ──page()──▶ lines of HTML
    gantt.py    lanes of bars       markup.py  escaped tables       style.css  light, dark, print
```

The page is a dozen short functions, so a template engine would not make it shorter, only harder to install.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import pluralize, truncate
from flowyml.reports.html.gantt import COLOURS, gantt, lanes
from flowyml.reports.html.markup import bar, facts, note, number, seconds, state, table, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from flowyml.reports.html.gantt import Lane
    from flowyml.reports.html.markup import Cell
    from flowyml.reports.timeline import Timeline

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MAX_FUNCTIONS = 200
_MAX_OPEN_ROWS = 40  # a longer table of steps starts folded
_MAX_NAME_LENGTH = 200


class FunctionRow(NamedTuple):
    """The steps of one function, with the number of calls in each state and their times in seconds."""

    label: str
    calls: int
    states: Mapping[str, int]
    ran: int
    total: float
    longest: float


class FailureRow(NamedTuple):
    """A call that failed, with the exception in one line and as text with its traceback."""

    name: str
    state: str
    line: str
    text: str
    attempts: int


class StepRow(NamedTuple):
    """A step; times are seconds, and NaN if it never ran.

    Attributes:
        items: Number of items of a mapped step; `None` for other steps.
        note: The error, or a remark on the fallback.
    """

    name: str
    state: str
    items: int | None
    start: float
    took: float
    attempts: int
    note: str


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that the page shows.

    Attributes:
        graph: The graph as SVG, or as preformatted text if it is large.
        kinds: The steps by function.
        kind_of: For each step its position in `kinds`.
        failures: The first failures, of `failed` in all.
        slowest: The longest calls, as positions in the timeline.
        rows: The first steps.
    """

    pipeline: str
    run_id: str
    state: str
    began: datetime
    duration: float
    resumed: str | None
    counts: Mapping[str, int]
    steps: int
    timeline: Timeline
    graph: str
    kinds: Sequence[FunctionRow]
    kind_of: Sequence[int]
    failures: Sequence[FailureRow]
    failed: int
    slowest: Sequence[int]
    rows: Sequence[StepRow]
    version: str


def page(known: ReportData) -> Iterator[str]:
    """Yield the lines of the page."""
    span = max(known.duration, 0.0)
    rows = lanes(known.timeline, span)
    yield from _head(known)
    yield from facts(_numbers(known, rows))
    if known.resumed:
        yield f"<p>Resumed: {escape(known.resumed)}</p>"
    yield from _failures(known)
    yield f'<h2>Graph</h2><div class="graph" tabindex="0">{known.graph}</div>'

    if rows:
        yield "<h2>Timeline</h2>"
        yield from gantt(rows, span, known.timeline, known.kind_of)
        yield from _legend(known)
    yield from _kinds(known)
    yield from _slowest(known)
    yield from _rows(known)
    yield f"<footer>flowyml {escape(known.version)}. Values of steps are not in this file.</footer></body></html>"


def _head(known: ReportData) -> Iterator[str]:
    name, when = escape(_name(known.pipeline)), known.began.strftime("%Y-%m-%d %H:%M:%S %Z").strip()
    yield '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{name}: {escape(known.state)}</title><style>{_style()}</style></head><body>"
    word = escape(known.state)
    yield f'<header><h1>{name}</h1><span class="badge {word}">{escape(known.state.replace("_", " "))}</span></header>'
    yield f'<p class="faint">run <code>{escape(_name(known.run_id))}</code>, {escape(when)}</p>'


def _numbers(known: ReportData, rows: Sequence[Lane]) -> Iterator[tuple[str, str]]:
    yield "duration", seconds(known.duration)
    calls = len(known.timeline)
    yield "steps", f"{known.steps:,}"
    if calls != known.steps:
        yield "calls, items counted", f"{calls:,}"
    for word, count in known.counts.items():
        if word != "success" or count != calls:
            yield word.replace("_", " "), f"{count:,}"
    busy = sum(lane.busy for lane in rows)
    if rows and known.duration > 0:
        yield "workers", f"{len(rows):,}"
        yield "time in steps", seconds(busy)
        yield "running at once, on average", f"{busy / known.duration:.2f}"
        yield "parallel efficiency", f"{100 * busy / known.duration / len(rows):.0f} %"


def _failures(known: ReportData) -> Iterator[str]:
    if not known.failed:
        return
    yield f"<h2>{pluralize(known.failed, 'failure')}</h2>"
    for place, failure in enumerate(known.failures):
        tries = f" after {failure.attempts} attempts" if failure.attempts > 1 else ""
        yield (
            f'<details{" open" if not place else ""}><summary><b class="{escape(failure.state)}">'
            f"{escape(_name(failure.name))}</b> {escape(failure.state.replace('_', ' '))}{tries}: "
            f"{escape(truncate(failure.line))}</summary><pre>{escape(failure.text)}</pre></details>"
        )
    if known.failed > len(known.failures):
        yield f'<p class="faint">and {known.failed - len(known.failures):,} more</p>'


def _legend(known: ReportData) -> Iterator[str]:
    shown = [
        f'<span><i class="k{place}"></i>{escape(_name(kind.label))}</span>'
        for place, kind in enumerate(known.kinds[:COLOURS])
    ]
    more = len(known.kinds) - COLOURS
    if more > 0:
        shown.append(f"<span>and {pluralize(more, 'more function')} in the same colours</span>")
    yield f'<div class="legend">{"".join(shown)}</div>'


def _kinds(known: ReportData) -> Iterator[str]:
    if not known.kinds:
        return
    yield "<h2>Functions</h2>"
    whole = sum(kind.total for kind in known.kinds) or 1.0
    rows = (_kind_row(kind, kind.total / whole) for kind in known.kinds[:_MAX_FUNCTIONS])
    yield from table(["function", ">calls", "states", ">in all", "", ">mean", ">longest"], rows)
    if len(known.kinds) > _MAX_FUNCTIONS:
        yield f'<p class="faint">and {pluralize(len(known.kinds) - _MAX_FUNCTIONS, "more function")}</p>'


def _kind_row(kind: FunctionRow, share: float) -> list[Cell]:
    states = ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in kind.states.items())
    times = [seconds(kind.total / kind.ran), seconds(kind.longest)] if kind.ran else ["", ""]
    return [
        text(_name(kind.label)),
        number(f"{kind.calls:,}"),
        text(states),
        number(seconds(kind.total) if kind.ran else ""),
        bar(share),
        *map(number, times),
    ]


def _slowest(known: ReportData) -> Iterator[str]:
    if len(known.slowest) < 2:  # noqa: PLR2004  one call is not the slowest of anything
        return
    line = known.timeline
    longest = max((line.ends[at] - line.starts[at] for at in known.slowest), default=0.0) or 1.0
    yield "<h2>Slowest</h2>"
    rows = (
        [
            text(_name(call.name)),
            state(str(call.state)),
            number(seconds(call.end - call.start)),
            bar((call.end - call.start) / longest),
            number(seconds(call.start)),
            number(call.worker),
            number(call.attempts),
        ]
        for call in map(line.__getitem__, known.slowest)
    )
    yield from table(["call", "state", ">took", "", ">began after", ">worker", ">attempts"], rows)


def _rows(known: ReportData) -> Iterator[str]:
    if not known.rows:
        return
    yield "<h2>Steps</h2>"
    if len(known.rows) > _MAX_OPEN_ROWS:
        yield f"<details><summary>{pluralize(len(known.rows), 'step')}, in add order</summary>"
    rows = (
        [
            text(_name(row.name)),
            state(row.state),
            number("" if row.items is None else f"{row.items:,}"),
            number(seconds(row.start)),
            number(seconds(row.took)),
            number(row.attempts or ""),
            note(truncate(row.note)),
        ]
        for row in known.rows
    )
    yield from table(["step", "state", ">items", ">began after", ">took", ">attempts", ""], rows)
    if len(known.rows) > _MAX_OPEN_ROWS:
        yield "</details>"
    if known.steps > len(known.rows):
        yield f'<p class="faint">and {pluralize(known.steps - len(known.rows), "more step")}</p>'


def _style() -> str:
    return resources.files("flowyml.reports.html").joinpath("style.css").read_text(encoding="utf-8")


def _name(name: str) -> str:
    return truncate(name, _MAX_NAME_LENGTH)
