"""How far a run is: read from the counters of its scheduler, at any time, from any thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml.state import RUNNING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowyml.running.run import Run

# The states of more calls than this are not looked through for those that are running.
_MOST_LOOKED_AT = 2_000_000
# ... and of those that are claimed, some thousands in a batch, no more than these.
_MOST_CLAIMED = 20_000
MOST_NAMED = 3


class Progress(NamedTuple):
    """How far a run is; items of mapped steps count one by one.

    Attributes:
        pipeline: Name of the pipeline.
        total: How many calls there are, as far as that is known.
        done: How many have ended, in whatever state.
        running: How many workers are at one.
        failed: How many failed or were timed out.
        counts: How many are in each state, by its name.
        seconds: How long the run has been going on.
        current: Names of some of the calls that are running.
        open: Whether there may be more calls: the length of some mapped step is not known yet.

    >>> Progress("p", 4, 1, 1, 0, {}, 2.0, ("load",), open=False).remaining
    6.0
    """

    pipeline: str
    total: int
    done: int
    running: int
    failed: int
    counts: Mapping[str, int]
    seconds: float
    current: tuple[str, ...]
    open: bool

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        return self.done / self.total if self.total else 0.0

    def done_of(self, parts: int) -> int:
        """Return how many of so many equal parts are done: all of them only if nothing is left.

        >>> Progress("p", 500, 499, 1, 0, {}, 2.0, ("load",), open=False).done_of(100)
        99
        """
        whole = bool(self.total) and self.done >= self.total
        parts_done = parts * self.done // self.total if self.total else 0
        return parts - 1 if whole and self.open else parts_done

    @property
    def remaining(self) -> float | None:
        """How many seconds are left if it goes on as it did; `None` if there is nothing to tell it from."""
        free = sum(self.counts.get(state, 0) for state in ("cached", "given", "skipped"))
        worked = self.done - free
        if worked <= 0 or self.open:
            return None
        return self.seconds * (self.total - self.done) / worked


def sampled(run: Run) -> Progress:
    """Look how far a run is."""
    scheduler = run.scheduler
    counts = scheduler.counts()
    total, unfinished = sum(counts.values()), scheduler.unfinished
    current = _current(run) if counts["running"] and total <= _MOST_LOOKED_AT else []
    return Progress(
        pipeline=run.plan.name,
        total=total,
        done=max(0, total - unfinished),
        running=len(current),
        failed=counts["failed"] + counts["timed_out"],
        counts=counts,
        seconds=time.monotonic() - run.started,
        current=tuple(run.item_name(item) for item in current[:MOST_NAMED]),
        open=bool(run.layout.waiting),
    )


def _current(run: Run) -> list[int]:
    """Return for each worker the first call that it has claimed and not ended: the one that it is at."""
    states, workers = run.scheduler.states(), memoryview(run.scheduler.workers()).cast("H")
    first: dict[int, int] = {}
    item, left = states.find(RUNNING), _MOST_CLAIMED
    while item >= 0 and left:
        first.setdefault(workers[item], item)
        item, left = states.find(RUNNING, item + 1), left - 1
    return list(first.values())
