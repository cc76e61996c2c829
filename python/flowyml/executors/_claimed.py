"""What one thread has claimed: steps wait, run and end here, and a step that takes too long is given up here.

```
begin(batch) ──▶ waiting ──the thread takes them from the left──▶ running ──▶ report ──deliver()──▶ run
                    └──▶ take_back(): back to the scheduler          └──▶ expire(): timed out, the thread given up
```

The thread itself needs no lock for a step: that a step has ended shows in the length of `report.ends`, and when it
began in the end of the one before. All others look from outside, under the lock. Where steps have time limits, values
are *held* here until they are delivered, so that a thread that was given up writes into nothing but what nobody reads.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from flowyml._endings import ask_to_end
from flowyml.executors._inline import Report, call_items, clock
from flowyml.timeouts import Expired

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml._core import Batch
    from flowyml.run import Run
    from flowyml.timeouts import Limits

# Looking more often than this gains nothing: a limit is kept to some tens of milliseconds.
_SHORTEST_LOOK = 0.01


class Claimed:
    """Steps of one batch in the hands of one thread.

    Args:
        limits: The time limits of the run's steps, if there are any.

    Attributes:
        abandoned: The thread was given up; nothing of it reaches the run any more.
    """

    __slots__ = (
        *("_held", "_items", "_keeps", "_limits", "_lock", "_reported", "_thread"),
        *("abandoned", "batch", "end", "report", "waiting"),
    )

    def __init__(self, limits: Limits | None = None) -> None:
        """Start with nothing."""
        self._lock = threading.Lock()
        self._limits = limits
        self._reported = 0
        self._thread = 0
        self._keeps = False
        self._items: list[int] = []
        self._held: dict[int, Any] | None = None if limits is None else {}
        self.abandoned = False
        self.batch: Batch | None = None
        self.waiting: deque[int] = deque()
        self.end = 0
        self.report = Report()

    def begin(self, batch: Batch, items: list[int] | None = None) -> None:
        """Take over a batch, or the first items of it."""
        with self._lock:
            self._items = batch.items() if items is None else items
            self.batch, self.waiting, self.end = batch, deque(self._items), len(self._items)
            self.report, self._reported = Report(), 0

    def call(self, run: Run) -> None:
        """Call the steps in this thread, until nothing is left here."""
        self._thread = threading.get_ident()
        try:
            call_items(run, self._until_one_fails() if run.fail_fast else self, self.report, self._held)
        finally:
            self._return_tokens(run)

    def _return_tokens(self, run: Run) -> None:
        """What a step that was given up has taken of the run's limits comes back now that it has ended."""
        with self._lock:
            if self._keeps and self.batch is not None:
                run.scheduler.return_tokens(self.batch)

    def deliver(self, run: Run, *, patience: float = 0.0) -> tuple[int, bool]:
        """Report to the run what is done and was not reported; return how many steps that were, and if one failed.

        Args:
            run: The run.
            patience: Do nothing while the worker has ended a step more recently than this.
        """
        with self._lock:
            if self.abandoned or self.batch is None or len(self.report.ends) == self._reported:
                return 0, False
            if patience and clock() - self.report.ends[-1] < patience:
                return 0, False
            return self._deliver(run, self.report.part(self._reported))

    def _deliver(self, run: Run, part: Report) -> tuple[int, bool]:
        position, self._reported = self._reported, self._reported + len(part.ends)
        if self._held is not None:
            self._hand_over(run, self._items[position : self._reported], self._held)
        failed = run.complete(self.batch, position, part)  # type: ignore[arg-type]
        return len(part.ends), failed > 0

    @staticmethod
    def _hand_over(run: Run, items: list[int], held: dict[int, Any]) -> None:
        raw = run.values.raw
        for item in items:
            raw[item] = held.pop(item)

    def __iter__(self) -> Iterator[int]:
        """Take the items one by one, until nothing is left here."""
        take = self.waiting.popleft
        try:
            while True:
                yield take()
        except IndexError:
            return

    def _until_one_fails(self) -> Iterator[int]:
        """Take the items one by one, and none behind one that has raised."""
        for item in self:
            yield item
            if self.report.failures:
                return

    def take_back(self, run: Run, *, everything: bool = False) -> bool:
        """Give half (or all) of what is not begun back to the scheduler; tell whether there was something."""
        with self._lock:
            return self._take_back(run, len(self.waiting) if everything else -(-len(self.waiting) // 2))

    def _take_back(self, run: Run, wanted: int) -> bool:
        taken = 0
        while taken < wanted and self.waiting:
            try:
                self.waiting.pop()
            except IndexError:
                break
            taken += 1
        if taken and self.batch is not None:
            self.end -= taken
            run.scheduler.give_back(self.batch, self.end, taken)
        return taken > 0

    # -- time limits

    def due(self) -> float:
        """Return when the step that runs is over its time; `inf` if none runs, or if it has no limit."""
        with self._lock:
            return self._due()

    def _due(self) -> float:
        position, report = len(self.report.ends), self.report
        if self._limits is None or self.batch is None or position >= self.end:
            return math.inf
        start = report.ends[position - 1] if position else report.start
        return start + self._limits.of(self._items[position])

    def expire(self, run: Run) -> bool:
        """Report the step that runs as timed out if it is over its time, and give the thread up; tell whether it was.

        Costs next to nothing if it is not. Else what has ended before is reported, and what is not begun goes back to
        the scheduler: then the thread can begin nothing any more, and what it is in is what is looked at.
        """
        with self._lock:
            if self.abandoned or self.batch is None or self._limits is None or clock() < self._due():
                return False
            self._take_back(run, len(self.waiting))
            position, now = len(self.report.ends), clock()
            if now < self._due():
                return False
            self._deliver(run, self.report.part(self._reported, position))
            self.abandoned = True
            self._keeps = self.batch.limited
            if self._keeps:
                run.scheduler.keep_tokens(self.batch)
            item = self._items[position]
            run.complete(self.batch, position, _expired(item, self._limits.of(item), self.report, position, now))
        if not ask_to_end(self._thread):
            self._limits.warn_left_behind(run.item_name(item), self._limits.of(item))
        return True

    def leave(self) -> None:
        """Give the thread up, whatever it is in: nothing of it reaches the run any more."""
        with self._lock:
            self.abandoned = True


def _expired(item: int, limit: float, report: Report, position: int, now: float) -> Report:
    """Return the report on a step that was over its time."""
    expired = Report()
    expired.start = report.ends[position - 1] if position else report.start
    expired.ends.append(now)
    expired.failures.append((0, item, Expired(limit)))
    return expired


def look_in(due: float, limits: Limits) -> float:
    """Return in how many seconds to look again, where a step is over its time at `due`, or others have yet to begin."""
    return max(_SHORTEST_LOOK, min(due - clock(), limits.shortest))
