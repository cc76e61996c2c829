"""Timeline: start, end, worker and attempts of each call of a run, in flat arrays.

```
scheduler's arrays (seconds of a clock) ──timeline()──▶ Timeline (seconds since the start of the run, NaN: never ran)
                                                            ├──▶ dataframe   trace   html
```

A plain step has one entry, a mapped step one for each item. The arrays are buffers, so `numpy.asarray(timeline.starts)`
copies nothing. A `TimelineEntry` is created only on access. The module knows neither runs nor pipelines.
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
        state: The final state.
        start: Start of the last attempt, in seconds after the start of the run; NaN if it never ran.
        end: End of the last attempt, in the same unit.
        worker: Id of the worker; `None` if it never ran.
        attempts: Number of attempts.
    """

    name: str
    state: StepState
    start: float
    end: float
    worker: int | None
    attempts: int


@dataclass(frozen=True, eq=False, slots=True)
class Timeline(Sequence[TimelineEntry]):
    """The calls of a run: a sequence of `TimelineEntry`, each created on access. See `PipelineResult.timeline`.

    Attributes:
        began: Start of the run (UTC), the zero of all times.
        duration: Duration of the run in seconds.
        starts: Start of the last attempt of each call, in seconds; NaN if it never ran. A buffer of doubles.
        ends: End of the last attempt of each call, in the same form.
        workers: Worker id of each call, a buffer of unsigned 16-bit integers; undefined for calls that never ran.
        attempts: Number of attempts of each call, one byte each; 255 for more.
        states: State of each call, one byte each: an index into `STATES`, which has the order of `StepState`.
        names: Names of the steps.
        step_of: The step of each call, as an index into `names`.
        firsts: The first call of each step.
        mapped: The mapped steps.
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
        """Return one call, or a list of calls for a slice."""
        if isinstance(index, slice):
            return [self._call(at) for at in range(*index.indices(len(self)))]
        return self._call(range(len(self))[index])

    def __iter__(self) -> Iterator[TimelineEntry]:
        """Iterate over the calls."""
        return map(self._call, range(len(self)))

    def __repr__(self) -> str:
        """Show the number of calls."""
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
        """Return the name of a call: the step's, with the index for an item of a mapped step."""
        step = self.step_of[at]
        return f"{self.names[step]}[{at - self.firsts[step]}]" if step in self.mapped else self.names[step]

    def item(self, at: int) -> int | None:
        """Return the item index of a call; `None` for plain steps."""
        step = self.step_of[at]
        return at - self.firsts[step] if step in self.mapped else None

    def ran(self) -> Iterator[int]:
        """Iterate over the positions of the calls that ran; cached results did not."""
        attempts, states = self.attempts, self.states
        if CACHED not in states:
            return compress(range(len(states)), attempts)
        return (at for at in range(len(states)) if attempts[at] and states[at] != CACHED)


def relative(seconds: Sequence[float], began: float, attempts: bytes) -> memoryview:
    """Convert clock readings to seconds since the start of the run, NaN for calls that never ran.

    >>> list(relative([12.0, 0.0], 10.0, bytes([1, 0])))
    [2.0, nan]
    """
    values = array("d", [second - began for second in seconds])
    at = attempts.find(0)
    while at >= 0:
        values[at] = math.nan
        at = attempts.find(0, at + 1)
    return memoryview(values).toreadonly()
