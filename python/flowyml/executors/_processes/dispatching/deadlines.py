"""Which worker is in a step that is over its time, and when to look next.

The claim words tell the step that a worker began last, and when. So a step that has a limit costs nothing by itself:
the dispatch loop looks at all workers when the first of them may be over its time, and not before.

```
look ──▶ not over: look again then, or when a step that begins now may be
     └─▶ over: results in the socket are taken first, all that is not begun is taken back; still over ──▶ kill
```

After that the worker can begin nothing any more: whatever it is killed in is the step whose time was over, unless its
result arrives in the last moment, which then counts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flowyml.executors._processes.crossing import wire
from flowyml.executors._processes.dispatching.member import Verdict
from flowyml.steps.timeouts import Expired

if TYPE_CHECKING:
    from flowyml.executors._processes.dispatching.member import Member
    from flowyml.steps.timeouts import Limits

# Looking more often than this gains nothing.
_SHORTEST_LOOK = 0.01
# A result that is on its way when the time is over counts; one of which nothing comes any more for so long does not.
_STALLED = 0.25

clock = time.monotonic


class Deadlines:
    """The time limits of a run's steps, as its dispatch loop keeps them.

    Args:
        limits: The limits.

    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._shortest = limits.shortest
        self._next = clock() + limits.shortest

    @property
    def next(self) -> float:
        """When to look: sooner, if steps with a shorter limit have come during the run."""
        if self._limits.shortest < self._shortest:
            self._shortest = self._limits.shortest
            self._next = min(self._next, clock() + self._shortest)
        return self._next

    def begin_look(self) -> None:
        """Look at all workers now: no step that begins from now on is over its time before the next look."""
        self._next = clock() + max(_SHORTEST_LOOK, self._limits.shortest)

    def suspects(self, member: Member) -> bool:
        """Tell whether the step that a worker is in is over its time; else note when that may be."""
        return self.verdict(member) is not None

    def verdict(self, member: Member) -> Verdict | None:
        """Say what becomes of a worker whose step is over its time."""
        running = member.running()
        if running is None:
            return None
        slot, item, began = running
        limit, now = self._limits.of(item), clock()
        due = now + _SHORTEST_LOOK if _is_sending(member, now) and began + limit <= now else began + limit
        if due <= now:
            return Verdict(slot, Expired(limit))
        self._next = min(self._next, max(due, now + _SHORTEST_LOOK))
        return None


def _is_sending(member: Member, now: float) -> bool:
    """Tell whether a worker is sending a result: then its step has ended, however long a large value takes."""
    receiver = member.receiver
    return receiver.pending == wire.RESULT and now - receiver.last_read < _STALLED
