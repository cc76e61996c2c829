"""What one thread has claimed: steps wait, run and end here, and a step that takes too long is given up here.

```
begin(batch) ──▶ turn: left ──the thread takes them in order──▶ running ──▶ ends ──deliver()──▶ run
                          └──▶ take_back(): back to the scheduler  └──▶ expire(): timed out, the thread given up
```

The thread itself needs no lock for a step: that a step has ended shows in the number of `turn.ends`, and when it began
in the end of the one before. All others look from outside, under the lock. Where steps have time limits, the turn
*holds* values until they are reported, so that a thread that was given up writes into nothing but what nobody reads.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from flowyml._endings import ask_to_end
from flowyml._extension import Turn
from flowyml.executors._inline import Report, call_steps, clock
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
        turn: What counts the steps; by default one that takes one batch after the other. With limits it holds values.

    Attributes:
        abandoned: The thread was given up; nothing of it reaches the run any more.
        turn: The steps.
        failures: `(position in the batch, item, exception)` of those that raised.
    """

    __slots__ = (
        *("_kept", "_limits", "_lock", "_thread"),
        *("abandoned", "at", "failures", "turn"),
    )

    def __init__(self, limits: Limits | None = None, turn: Turn | None = None) -> None:
        self._lock = threading.Lock()
        self._limits = limits
        self._thread = 0
        self._kept: Batch | None = None  # its tokens are kept until this thread ends its step
        self.abandoned = False
        self.turn = Turn(holds=limits is not None) if turn is None else turn
        self.at = self.turn.at
        self.failures: Failures = []

    def begin(self, batch: Batch, count: int | None = None) -> None:
        """Take over a batch, or the first `count` items of it."""
        with self._lock:
            self.failures = []
            self.turn.begin(batch, clock(), count)

    def call(self, run: Run, *, goes_on: bool = True) -> None:
        """Call the steps in this thread, until nothing is left here.

        Where a report means nothing but itself, batch after batch, until nothing is ready; `deliver` then has the rest.

        Args:
            run: The run.
            goes_on: This thread may call whatever is ready.
        """
        self._thread = threading.get_ident()
        try:
            call_steps(run, self.turn, self.failures, run.scheduler if goes_on and run.is_plain else None)
        finally:
            if self._limits is not None:
                self._return_tokens(run)

    def _return_tokens(self, run: Run) -> None:
        """Return what a step that was given up has taken, now that it has ended."""
        with self._lock:
            kept, self._kept = self._kept, None
            if kept is not None:
                run.scheduler.return_tokens(kept)

    def deliver(self, run: Run, *, patience: float = 0.0) -> tuple[int, bool]:
        """Report to the run what is done and was not reported; return how many steps that were, and if one failed.

        Args:
            run: The run.
            patience: Do nothing while the worker has ended a step more recently than this.
        """
        with self._lock:
            if self.abandoned:
                return 0, False
            before = clock() - patience if patience else math.inf
            found = self.turn.report(before, into=run.values.raw)
            return (0, False) if found is None else self._deliver(run, *found)

    def _deliver(self, run: Run, batch: Batch, position: int, start: float, ends: Ends) -> tuple[int, bool]:
        end = position + len(ends)
        failures = [(at - position, item, error) for at, item, error in self.failures if position <= at < end]
        failed = run.complete(batch, position, Report(start, ends, failures))
        return len(ends), failed > 0

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
            return self._due(self.turn.running())

    def _due(self, running: tuple[Batch, int, int, float] | None) -> float:
        if running is None or self._limits is None:
            return math.inf
        batch, position, _, start = running
        return start + self._limits.of(batch.item(position))

    def expire(self, run: Run) -> bool:
        """Report the step that runs as timed out if it is over its time, and give the thread up; tell whether it was.

        Costs next to nothing if it is not. Else what is not begun goes back to the scheduler: then the thread can begin
        nothing of this batch, and if it is in the same step after that, the step is what is over its time.
        """
        with self._lock:
            running = self.turn.running()
            if self.abandoned or self._limits is None or running is None or clock() < self._due(running):
                return False
            self._take_back(run, everything=True)
            batch, position, number, start = running
            if not self.turn.abandon(number):
                return False
            done = self.turn.report(most=position, into=run.values.raw)
            if done is not None:
                self._deliver(run, *done)
            self.abandoned = True
            item = batch.item(position)
            run.scheduler.keep_tokens(batch)
            self._kept = batch
            run.complete(batch, position, Report(start, [clock()], [(0, item, Expired(self._limits.of(item)))]))
        if not ask_to_end(self._thread):
            self._limits.warn_left_behind(run.item_name(item), self._limits.of(item))
        return True

    def leave(self) -> None:
        """Give the thread up, whatever it is in: the run is over, and nothing of it reaches the run any more."""
        with self._lock:
            self.abandoned = True
            self.turn.abandon()


def look_in(due: float, limits: Limits) -> float:
    """Return in how many seconds to look again, where a step is over its time at `due`, or others have yet to begin."""
    return max(_SHORTEST_LOOK, min(due - clock(), limits.shortest))
