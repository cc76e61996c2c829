"""Timeline: when each call of a run began and ended, where, and how often it was tried, in flat arrays.

```
scheduler's arrays (seconds of a clock) ──timeline()──▶ Timeline (seconds since the run began, NaN for what never ran)
                                                            ├──▶ dataframe   trace   html
```

One entry a call: an ordinary step has one, a mapped step one for each item. The arrays are buffers, so
`numpy.asarray(timeline.starts)` copies nothing. An entry becomes an object when somebody looks at it. The module knows
neither runs nor pipelines.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any, overload

from flowyml._containers import NamedTuple
from flowyml.state import CACHED, STATES, StepState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime


class TimelineEntry(NamedTuple):
    """One entry of a timeline.

    Attributes:
        name: Name of the step; of an item, "name[index]".
        state: How it ended.
        start: When its last attempt began, in seconds since the run began; NaN if it never ran.
        end: When it ended, likewise.
        worker: Number of the worker; `None` if it never ran.
        attempts: How often it was started.
    """

    name: str
    state: StepState
    start: float
    end: float
    worker: int | None
    attempts: int


@dataclass(frozen=True, eq=False, slots=True)
class Timeline(Sequence[TimelineEntry]):
    """When each call of a run ran: a sequence of `TimelineEntry`, each made on access. See `PipelineResult.timeline`.

    Attributes:
        began: When the run began (UTC): the zero of all times.
        duration: How many seconds the run took.
        starts: When the last attempt of each call began, in seconds; NaN if it never ran. A buffer of doubles.
        ends: When it ended, likewise.
        workers: Number of its worker, a buffer of unsigned 16-bit numbers; without meaning where it never ran.
        attempts: How often it was started, one byte each; 255 for more.
        states: Its state, one byte each: a place in `STATES`, which is the order of `StepState`.
        names: Names of the steps.
        step_of: The step of each call, as a place in `names`.
        firsts: The first call of each step.
        mapped: Which steps are mapped ones.
    """

    began: datetime
    duration: float
    starts: Sequence[float]
    ends: Sequence[float]
    workers: Sequence[int]
    attempts: bytes
    states: bytes
    names: Sequence[str]
    step_of: Sequence[int]
    firsts: Sequence[int]
    mapped: Collection[int]

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self.states)

    @overload
    def __getitem__(self, index: int) -> TimelineEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[TimelineEntry]: ...
    def __getitem__(self, index: int | slice) -> TimelineEntry | list[TimelineEntry]:
        """Return one call, or a list of them."""
        if isinstance(index, slice):
            return [self._call(at) for at in range(*index.indices(len(self)))]
        return self._call(range(len(self))[index])

    def __iter__(self) -> Iterator[TimelineEntry]:
        """Go through the calls."""
        return map(self._call, range(len(self)))

    def __repr__(self) -> str:
        """Show how much there is."""
        ran = sum(1 for _ in self.ran())
        return f"<Timeline: {len(self):,} calls, {ran:,} of them ran, in {self.duration:.3f} s>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with plain arrays."""
        starts, ends, workers = array("d", self.starts), array("d", self.ends), array("H", self.workers)
        rest = self.attempts, self.states, list(self.names), list(self.step_of), list(self.firsts), set(self.mapped)
        return Timeline, (self.began, self.duration, starts, ends, workers, *rest)

    def _call(self, at: int) -> TimelineEntry:
        ran = bool(self.attempts[at])
        start, end = self.starts[at], self.ends[at]
        worker = self.workers[at] if ran else None
        return TimelineEntry(self.name(at), STATES[self.states[at]], start, end, worker, self.attempts[at])

    def name(self, at: int) -> str:
        """Return the name of a call: the step's, with the index in a mapped step."""
        step = self.step_of[at]
        return f"{self.names[step]}[{at - self.firsts[step]}]" if step in self.mapped else self.names[step]

    def item(self, at: int) -> int | None:
        """Return which item of a mapped step a call is; `None` for other steps."""
        step = self.step_of[at]
        return at - self.firsts[step] if step in self.mapped else None

    def ran(self) -> Iterator[int]:
        """Go through the calls that ran, by place; what came from the cache did not."""
        attempts, states = self.attempts, self.states
        if CACHED not in states:
            return compress(range(len(states)), attempts)
        return (at for at in range(len(states)) if attempts[at] and states[at] != CACHED)


def relative(seconds: Sequence[float], began: float, attempts: bytes) -> memoryview:
    """Return times of a clock as seconds since the run began, and NaN for calls that never ran.

    >>> list(relative([12.0, 0.0], 10.0, bytes([1, 0])))
    [2.0, nan]
    """
    values = array("d", [each - began for each in seconds])
    at = attempts.find(0)
    while at >= 0:
        values[at] = math.nan
        at = attempts.find(0, at + 1)
    return memoryview(values).toreadonly()
