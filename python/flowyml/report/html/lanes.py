"""A lane of bars for each worker: what it ran from when to when, with as many bars as a page can hold.

A call that is wide enough on the page is a bar of its own. Narrower ones that follow each other without a visible gap
become one bar, which says how many it stands for; so a million calls are some thousand bars, and nothing that can be
seen is lost. One pass over the calls of each worker in the order in which they began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml.state import FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowyml.report.timeline import Timeline

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
