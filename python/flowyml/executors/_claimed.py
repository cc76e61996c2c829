"""What one thread has claimed: steps wait, run and end here, and a step that takes too long is given up here.

```
begin(batch) ──▶ turn: left ──the thread takes them in order──▶ running ──▶ ends ──deliver()──▶ run
                          └──▶ take_back(): back to the scheduler  └──▶ expire(): timed out, the thread given up
```

The thread itself needs no lock for a step: that a step has ended shows in the number of `turn.ends`, and when it began
in the end of the one before. All others look from outside, under the lock. Where steps have time limits, values
are *held* here until they are delivered, so that a thread that was given up writes into nothing but what nobody reads.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

from flowyml._endings import ask_to_end
from flowyml._extension import Turn
from flowyml.executors._inline import Report, call_items, call_steps, clock
from flowyml.steps.timeouts import Expired

if TYPE_CHECKING:
    from flowyml._core import Batch, Ends
    from flowyml.executors._inline import Failures
    from flowyml.running.run import Run
    from flowyml.steps.timeouts import Limits

# Looking more often than this gains nothing: a limit is kept to some tens of milliseconds.
_SHORTEST_LOOK = 0.01


class Claimed:
    """Steps of one batch in the hands of one thread.

    Args:
        limits: The time limits of the run's steps, if there are any.
        turn: What counts the steps; by default one that takes one batch after the other.

    Attributes:
        abandoned: The thread was given up; nothing of it reaches the run any more.
        turn: The steps.
        failures: `(position in the batch, item, exception)` of those that raised.
    """

    __slots__ = (
        *("_batch", "_held", "_items", "_keeps", "_limits", "_lock", "_thread"),
        *("abandoned", "at", "failures", "turn"),
    )

    def __init__(self, limits: Limits | None = None, turn: Turn | None = None) -> None:
        """Start with nothing."""
        self._lock = threading.Lock()
        self._limits = limits
        self._thread = 0
        self._keeps = False
        self._batch: Batch | None = None  # this and its items only where there are limits
        self._items: list[int] = []
        self._held: dict[int, Any] | None = None if limits is None else {}
        self.abandoned = False
        self.turn = Turn() if turn is None else turn
        self.at = self.turn.at
        self.failures: Failures = []

    def begin(self, batch: Batch, count: int | None = None) -> None:
        """Take over a batch, or the first `count` items of it."""
        with self._lock:
            self.failures = []
            if self._limits is not None:
                self._batch, self._items = batch, batch.items()
            self.turn.begin(batch, clock(), count)

    def call(self, run: Run) -> None:
        """Call the steps in this thread, until nothing is left here.

        Where a report means nothing but itself, batch after batch, until nothing is ready; `deliver` then has the rest.
        """
        if self._held is None:
            call_steps(run, self.turn, self.failures, run.scheduler if run.is_plain else None)
            return
        self._thread = threading.get_ident()
        try:
            call_items(run, self.turn, self.failures, self._held)
        finally:
            self._return_tokens(run)

    def _return_tokens(self, run: Run) -> None:
        """What a step that was given up has taken of the run's limits comes back now that it has ended."""
        with self._lock:
            if self._keeps and self._batch is not None:
                run.scheduler.return_tokens(self._batch)

    def deliver(self, run: Run, *, patience: float = 0.0) -> tuple[int, bool]:
        """Report to the run what is done and was not reported; return how many steps that were, and if one failed.

        Args:
            run: The run.
            patience: Do nothing while the worker has ended a step more recently than this.
        """
        with self._lock:
            if self.abandoned:
                return 0, False
            found = self.turn.report(clock() - patience) if patience else self.turn.report()
            return (0, False) if found is None else self._deliver(run, *found)

    def _deliver(self, run: Run, batch: Batch, position: int, start: float, ends: Ends) -> tuple[int, bool]:
        end = position + len(ends)
        if self._held is not None:
            self._hand_over(run, self._items[position:end], self._held)
        failures = [(at - position, item, error) for at, item, error in self.failures if position <= at < end]
        failed = run.complete(batch, position, Report(start, ends, failures))
        return len(ends), failed > 0

    @staticmethod
    def _hand_over(run: Run, items: list[int], held: dict[int, Any]) -> None:
        raw = run.values.raw
        for item in items:
            raw[item] = held.pop(item)

    def take_back(self, run: Run, *, everything: bool = False) -> bool:
        """Give half (or all) of what is not begun back to the scheduler; tell whether there was something."""
        with self._lock:
            return self._take_back(run, everything=everything)

    def _take_back(self, run: Run, *, everything: bool) -> bool:
        left = self.turn.left
        taken = self.turn.take_back(left if everything else -(-left // 2)) if left else None
        if taken is not None:
            run.scheduler.give_back(*taken)
        return taken is not None

    # -- time limits

    def due(self) -> float:
        """Return when the step that runs is over its time; `inf` if none runs, or if it has no limit."""
        with self._lock:
            return self._due()

    def _due(self) -> float:
        turn = self.turn
        ends = turn.ends
        position = len(ends)
        if self._limits is None or position >= turn.end:
            return math.inf
        start = ends[position - 1] if position else turn.start
        return start + self._limits.of(self._items[position])

    def expire(self, run: Run) -> bool:
        """Report the step that runs as timed out if it is over its time, and give the thread up; tell whether it was.

        Costs next to nothing if it is not. Else what has ended before is reported, and what is not begun goes back to
        the scheduler: then the thread can begin nothing any more, and what it is in is what is looked at.
        """
        with self._lock:
            if self.abandoned or self._limits is None or clock() < self._due():
                return False
            self._take_back(run, everything=True)
            at, now = self.turn.at(), clock()
            if at is None or now < self._due():
                return False
            batch, position, _ = at
            done = self.turn.report(most=position)
            if done is not None:
                self._deliver(run, *done)
            self.abandoned = True
            self._keeps = batch.limited
            if self._keeps:
                run.scheduler.keep_tokens(batch)
            item, ends = self._items[position], self.turn.ends
            start = ends[position - 1] if position else self.turn.start
            run.complete(batch, position, Report(start, [now], [(0, item, Expired(self._limits.of(item)))]))
        if not ask_to_end(self._thread):
            self._limits.warn_left_behind(run.item_name(item), self._limits.of(item))
        return True

    def leave(self) -> None:
        """Give the thread up, whatever it is in: nothing of it reaches the run any more."""
        with self._lock:
            self.abandoned = True


def look_in(due: float, limits: Limits) -> float:
    """Return in how many seconds to look again, where a step is over its time at `due`, or others have yet to begin."""
    return max(_SHORTEST_LOOK, min(due - clock(), limits.shortest))
