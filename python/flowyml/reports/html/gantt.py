"""A lane of bars for each worker: what it ran from when to when, with as many bars as a page can hold.

A call that is wide enough on the page is a bar of its own. Narrower ones that follow each other without a visible gap
become one bar, which says how many it stands for; so a million calls are some thousand bars, and nothing that can be
seen is lost. One pass over the calls of each worker in the order in which they began.

The picture of who ran what when: a lane of bars for each worker over one axis of time, as HTML.

Places are shares of the width, so that the picture fits any window without a script.
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
_WIDE_ENOUGH = 3.0  # per cent of the width in which a name can be read
_PARTED = 0.5  # per cent of the width from which on a bar has an edge of its own
_LONGEST = 40


def gantt(made: Sequence[Lane], span: float, timeline: Timeline, kinds: Sequence[int]) -> Iterator[str]:
    """Go through the lines of the picture.

    Args:
        made: The lanes.
        span: How many seconds the picture shows.
        timeline: Where names and states come from.
        kinds: For each step the number of its colour.
    """
    yield from _axis(span)
    for lane in made[:MOST_LANES]:
        share = f"{100 * lane.busy / span:.0f} %" if span > 0 else ""
        told = f"worker {lane.worker}: {pluralize(lane.calls, 'call')}, busy for {seconds(lane.busy)}"
        yield (
            f'<div class="lane" title="{escape(told)}"><b><em>worker </em>{lane.worker}</b><div class="track">'
            f"{''.join(_bar(bar, span, timeline, kinds) for bar in lane.bars)}</div><span>{share}</span></div>"
        )
    if len(made) > MOST_LANES:
        yield f'<p class="faint">and {pluralize(len(made) - MOST_LANES, "more worker")}</p>'
    yield from _load(made, span)


def _bar(bar: Bar, span: float, timeline: Timeline, kinds: Sequence[int]) -> str:
    step = timeline.step_of[bar.first]
    name = timeline.name(bar.first)
    took = seconds(bar.end - bar.start)
    told = f"{name}: {took}"
    if bar.calls > 1:
        failed = f", {bar.failed:,} failed" if bar.failed else ""
        told = f"{pluralize(bar.calls, 'call')} from {name} on: {took}{failed}"
    elif bar.failed:
        told += ", failed"
    left, width = _share(bar.start, span), _share(bar.end - bar.start, span)
    kind = f"k{kinds[step] % COLOURS}{' w' if width >= _PARTED else ''}{' x' if bar.failed else ''}"
    label = escape(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…") if _shows(bar, width) else ""
    return f'<i class="{kind}" style="left:{left:.3f}%;width:{width:.3f}%" title="{escape(told)}">{label}</i>'


def _shows(bar: Bar, width: float) -> bool:
    return bar.calls == 1 and width >= _WIDE_ENOUGH


def _share(value: float, span: float) -> float:
    return max(0.0, min(100.0, 100 * value / span)) if span > 0 else 0.0


def _axis(span: float) -> Iterator[str]:
    """Go through the lines of the axis: round numbers of seconds."""
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
    return next(power * each for each in (1, 2, 5, 10) if power * each >= least * (1 - 1e-9))


def _load(made: Sequence[Lane], span: float) -> Iterator[str]:
    """Draw how many workers were busy, over the same axis."""
    if not made or span <= 0:
        return
    busy = running(made, span, _SLOTS)
    most = max(len(made), 1)
    points = "".join(
        f"L{k},{40 - 38 * min(each, most) / most:.1f}L{k + 1},{40 - 38 * min(each, most) / most:.1f}"
        for k, each in enumerate(busy)
    )
    told = f"busy workers, {most} at the most"
    yield (
        f'<div class="lane" title="{told}"><b>busy<em> workers</em></b>'
        f'<svg class="load" viewBox="0 0 {_SLOTS} 40" preserveAspectRatio="none" role="img" aria-label="{told}">'
        f'<path d="M0,40{points}L{_SLOTS},40Z"/></svg><span>{most}</span></div>'
    )


MOST_BARS = 8_000
MOST_LANES = 64
# A page is hardly wider than so many pixels; fewer of them where there are many lanes.
_WIDEST, _NARROWEST = 1_600, 100
# A call of so many pixels stands alone; bars of several grow up to this.
_ALONE, _TOGETHER = 2.0, 4.0


class Bar(NamedTuple):
    """A stretch of time in which a worker was busy.

    Attributes:
        start: When it began, in seconds.
        end: When it ended.
        first: The first call in it, by place.
        calls: How many calls it stands for.
        failed: How many of them failed.
        busy: How many seconds of it were spent in calls.
    """

    start: float
    end: float
    first: int
    calls: int = 1
    failed: int = 0
    busy: float = 0.0


class Lane(NamedTuple):
    """What one worker ran.

    Attributes:
        worker: Its number.
        calls: How many calls.
        busy: How many seconds it spent in them.
        bars: When.
    """

    worker: int
    calls: int
    busy: float
    bars: list[Bar]


def lanes(timeline: Timeline, span: float) -> list[Lane]:
    """Return a lane for each worker that ran something, the first workers first.

    Args:
        timeline: When what ran.
        span: How many seconds the page shows.
    """
    workers, starts = timeline.workers, timeline.starts
    by_worker: dict[int, list[int]] = {}
    for at in timeline.ran():
        by_worker.setdefault(workers[at], []).append(at)
    few = sum(map(len, by_worker.values())) <= MOST_BARS // 2
    pixels = max(_NARROWEST, min(_WIDEST, MOST_BARS // max(1, min(len(by_worker), MOST_LANES))))
    pixel = 0.0 if few else span / pixels
    made: list[Lane] = []
    for worker, calls in sorted(by_worker.items()):
        calls.sort(key=starts.__getitem__)
        bars = list(_bars(timeline, calls, pixel)) if len(made) < MOST_LANES else []
        busy = sum(timeline.ends[at] - starts[at] for at in calls)
        made.append(Lane(worker, len(calls), busy, bars))
    return made


def _bars(timeline: Timeline, calls: Sequence[int], pixel: float) -> Iterator[Bar]:
    """Go through the bars of calls that follow each other: what is too narrow to be seen joins the bar before it."""
    starts, ends, states = timeline.starts, timeline.ends, timeline.states
    alone, together = _ALONE * pixel, _TOGETHER * pixel
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


def running(made: Sequence[Lane], span: float, slots: int) -> list[float]:
    """Return how many workers were busy on average in each of so many equal parts of the time.

    >>> running([Lane(0, 1, 1.0, [Bar(0.0, 1.0, 0, busy=1.0)])], 2.0, 4)
    [1.0, 1.0, 0.0, 0.0]
    """
    width = span / slots if span > 0 else 1.0
    sums = [0.0] * slots
    for bar in (bar for lane in made for bar in lane.bars):
        share = bar.busy / (bar.end - bar.start) if bar.end > bar.start else 0.0
        first, last = _slot(bar.start, width, slots), _slot(bar.end, width, slots)
        for slot in range(first, last + 1):
            inside = min(bar.end, (slot + 1) * width) - max(bar.start, slot * width)
            sums[slot] += max(0.0, inside) * min(1.0, share)
    return [each / width for each in sums]


def _slot(seconds: float, width: float, slots: int) -> int:
    return max(0, min(slots - 1, int(seconds / width)))
