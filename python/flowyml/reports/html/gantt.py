"""The timeline of the page: one lane of bars for each worker over a common time axis, as HTML.

Positions are percentages of the width, so the picture fits any window without a script. A call that is wide enough to
be seen has a bar of its own; narrower ones that follow each other without a visible gap share a bar, which shows how
many calls it represents. A million calls become some thousand bars in one pass over the calls of each worker.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import pluralize
from flowyml.reports.html.markup import seconds
from flowyml.state import FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowyml.reports.timeline import Timeline


COLOURS = 10
_TICKS = 6
_SLOTS = 300
_MIN_LABEL_PERCENT = 3.0  # of the width: a name is readable
_MIN_EDGE_PERCENT = 0.5  # of the width: a bar gets an edge
_MAX_LABEL_LENGTH = 40


def gantt(rows: Sequence[Lane], span: float, timeline: Timeline, kinds: Sequence[int]) -> Iterator[str]:
    """Yield the lines of the timeline.

    Args:
        rows: The lanes.
        span: Seconds that the axis covers.
        timeline: Source of names and states.
        kinds: For each step the index of its colour.
    """
    yield from _axis(span)
    for lane in rows[:MAX_LANES]:
        share = f"{100 * lane.busy / span:.0f} %" if span > 0 else ""
        title = f"worker {lane.worker}: {pluralize(lane.calls, 'call')}, busy for {seconds(lane.busy)}"
        yield (
            f'<div class="lane" title="{escape(title)}"><b><em>worker </em>{lane.worker}</b><div class="track">'
            f"{''.join(_bar(bar, span, timeline, kinds) for bar in lane.bars)}</div><span>{share}</span></div>"
        )
    if len(rows) > MAX_LANES:
        yield f'<p class="faint">and {pluralize(len(rows) - MAX_LANES, "more worker")}</p>'
    yield from _load(rows, span)


def _bar(bar: Bar, span: float, timeline: Timeline, kinds: Sequence[int]) -> str:
    step = timeline.step_of[bar.first]
    name = timeline.name(bar.first)
    took = seconds(bar.end - bar.start)
    title = f"{name}: {took}"
    if bar.calls > 1:
        failed = f", {bar.failed:,} failed" if bar.failed else ""
        title = f"{pluralize(bar.calls, 'call')} from {name} on: {took}{failed}"
    elif bar.failed:
        title += ", failed"
    left, width = _share(bar.start, span), _share(bar.end - bar.start, span)
    kind = f"k{kinds[step] % COLOURS}{' w' if width >= _MIN_EDGE_PERCENT else ''}{' x' if bar.failed else ''}"
    label = (
        escape(name if len(name) <= _MAX_LABEL_LENGTH else f"{name[: _MAX_LABEL_LENGTH - 1]}…")
        if _shows(bar, width)
        else ""
    )
    return f'<i class="{kind}" style="left:{left:.3f}%;width:{width:.3f}%" title="{escape(title)}">{label}</i>'


def _shows(bar: Bar, width: float) -> bool:
    return bar.calls == 1 and width >= _MIN_LABEL_PERCENT


def _share(value: float, span: float) -> float:
    return max(0.0, min(100.0, 100 * value / span)) if span > 0 else 0.0


def _axis(span: float) -> Iterator[str]:
    if span <= 0:
        return
    step = _round_step(span / _TICKS)
    ticks = (step * k for k in range(int(span / step) + 1))
    marks = "".join(f'<i style="left:{_share(tick, span):.2f}%">{_tick(tick)}</i>' for tick in ticks)
    yield f'<div class="lane axis"><b></b><div class="track">{marks}</div><span>busy</span></div>'


def _tick(value: float) -> str:
    return "0" if not value else seconds(value).replace(".00 ", " ").replace(".0 ", " ")


def _round_step(least: float) -> float:
    """Return the next of 1, 2, 5, 10, ... that is not below.

    >>> _round_step(0.3), _round_step(7.0)
    (0.5, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _load(rows: Sequence[Lane], span: float) -> Iterator[str]:
    if not rows or span <= 0:
        return
    busy = running(rows, span, _SLOTS)
    most = max(len(rows), 1)
    points = "".join(
        f"L{k},{40 - 38 * min(count, most) / most:.1f}L{k + 1},{40 - 38 * min(count, most) / most:.1f}"
        for k, count in enumerate(busy)
    )
    title = f"busy workers, {most} at most"
    yield (
        f'<div class="lane" title="{title}"><b>busy<em> workers</em></b>'
        f'<svg class="load" viewBox="0 0 {_SLOTS} 40" preserveAspectRatio="none" role="img" aria-label="{title}">'
        f'<path d="M0,40{points}L{_SLOTS},40Z"/></svg><span>{most}</span></div>'
    )


MAX_BARS = 8_000
MAX_LANES = 64
# Resolution in pixels; a page with many lanes gets less of it, so that all lanes together stay below MAX_BARS.
_MAX_PIXELS, _MIN_PIXELS = 1_600, 100
# Width in pixels from which a call has its own bar, and the maximum width of a shared bar.
_OWN_BAR_PIXELS, _MAX_SHARED_PIXELS = 2.0, 4.0


class Bar(NamedTuple):
    """A time span in seconds in which a worker was busy.

    Attributes:
        first: Position of its first call in the timeline.
        calls: Number of calls that it represents.
        busy: Seconds spent in calls.
    """

    start: float
    end: float
    first: int
    calls: int = 1
    failed: int = 0
    busy: float = 0.0


class Lane(NamedTuple):
    """The calls of one worker, and the seconds that it spent in them."""

    worker: int
    calls: int
    busy: float
    bars: list[Bar]


def lanes(timeline: Timeline, span: float) -> list[Lane]:
    """Return a lane for each worker that ran a call, by worker id.

    Args:
        timeline: Times and workers of all calls.
        span: Seconds that the axis covers.
    """
    workers, starts = timeline.workers, timeline.starts
    by_worker: dict[int, list[int]] = {}
    for at in timeline.ran():
        by_worker.setdefault(workers[at], []).append(at)
    few = sum(map(len, by_worker.values())) <= MAX_BARS // 2
    pixels = max(_MIN_PIXELS, min(_MAX_PIXELS, MAX_BARS // max(1, min(len(by_worker), MAX_LANES))))
    pixel = 0.0 if few else span / pixels
    rows: list[Lane] = []
    for worker, calls in sorted(by_worker.items()):
        calls.sort(key=starts.__getitem__)
        bars = list(_bars(timeline, calls, pixel)) if len(rows) < MAX_LANES else []
        busy = sum(timeline.ends[at] - starts[at] for at in calls)
        rows.append(Lane(worker, len(calls), busy, bars))
    return rows


def _bars(timeline: Timeline, calls: Sequence[int], pixel: float) -> Iterator[Bar]:
    starts, ends, states = timeline.starts, timeline.ends, timeline.states
    alone, together = _OWN_BAR_PIXELS * pixel, _MAX_SHARED_PIXELS * pixel
    first, begin, until, count, failed, busy = -1, 0.0, 0.0, 0, 0, 0.0
    for at in calls:
        start, end = starts[at], ends[at]
        if count and start - until < pixel and end - start < alone and until - begin < together:
            count += 1
            failed += states[at] in FAILURES
            busy += end - start
            until = max(end, until)
            continue
        if count:
            yield Bar(begin, until, first, count, failed, busy)
        first, begin, until, count, failed, busy = at, start, end, 1, int(states[at] in FAILURES), end - start
    if count:
        yield Bar(begin, until, first, count, failed, busy)


def running(rows: Sequence[Lane], span: float, slots: int) -> list[float]:
    """Return the average number of busy workers in each of `slots` equal parts of the time.

    >>> running([Lane(0, 1, 1.0, [Bar(0.0, 1.0, 0, busy=1.0)])], 2.0, 4)
    [1.0, 1.0, 0.0, 0.0]
    """
    width = span / slots if span > 0 else 1.0
    sums = [0.0] * slots
    for bar in (bar for lane in rows for bar in lane.bars):
        share = bar.busy / (bar.end - bar.start) if bar.end > bar.start else 0.0
        first, last = _slot(bar.start, width, slots), _slot(bar.end, width, slots)
        for slot in range(first, last + 1):
            inside = min(bar.end, (slot + 1) * width) - max(bar.start, slot * width)
            sums[slot] += max(0.0, inside) * min(1.0, share)
    return [total / width for total in sums]


def _slot(seconds: float, width: float, slots: int) -> int:
    return max(0, min(slots - 1, int(seconds / width)))
