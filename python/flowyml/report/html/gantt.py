"""The picture of who ran what when: a lane of bars for each worker over one axis of time, as HTML.

Places are shares of the width, so that the picture fits any window without a script.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from flowyml.messages.words import counted
from flowyml.report.html.lanes import MOST_LANES, running
from flowyml.report.html.tables import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowyml.report.html.lanes import Bar, Lane
    from flowyml.report.timeline import Timeline

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
        told = f"worker {lane.worker}: {counted(lane.calls, 'call')}, busy for {seconds(lane.busy)}"
        yield (
            f'<div class="lane" title="{escape(told)}"><b><em>worker </em>{lane.worker}</b><div class="track">'
            f"{''.join(_bar(bar, span, timeline, kinds) for bar in lane.bars)}</div><span>{share}</span></div>"
        )
    if len(made) > MOST_LANES:
        yield f'<p class="faint">and {counted(len(made) - MOST_LANES, "more worker")}</p>'
    yield from _load(made, span)


def _bar(bar: Bar, span: float, timeline: Timeline, kinds: Sequence[int]) -> str:
    step = timeline.step_of[bar.first]
    name = timeline.name(bar.first)
    took = seconds(bar.end - bar.start)
    told = f"{name}: {took}"
    if bar.calls > 1:
        failed = f", {bar.failed:,} failed" if bar.failed else ""
        told = f"{counted(bar.calls, 'call')} from {name} on: {took}{failed}"
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
