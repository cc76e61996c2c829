"""Which worker uses more memory than it may, and which step is the one that took it.

What counts is what a worker has for itself: its anonymous memory and that of the processes it has started; mapped files
and shared memory do not. The dispatch loop looks at all workers twenty times a second.

```
within the limit ──▶ note which step was begun last
above it ──▶ what is not begun is taken back
             ├─ no step runs: the worker is replaced, nobody is to blame; one that never began a step started in vain
             ├─ the step ran when the memory was last within the limit, or is the only one since: its fault
             └─ several steps since: one before may have left it behind; it is a fault only if the step takes more still
```

Which worker is in a step that is over its time, and when to look next.

The claim words tell the step that a worker began last, and when. So a step that has a limit costs nothing by itself:
the dispatch loop looks at all workers when the first of them may be over its time, and not before.

```
look ──▶ not over: look again then, or when a step that begins now may be
     └─▶ over: results in the socket are taken first, all that is not begun is taken back; still over ──▶ kill
```

After that the worker can begin nothing any more: whatever it is killed in is the step whose time was over, unless its
result arrives in the last moment, which then counts.

The limits of a run's steps that the dispatch loop keeps by looking at its workers, each at its own time.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError, MemoryLimitError
from flowyml.executors.initializer import too_large
from flowyml.executors.process.driver.stall_detector import StallDetector
from flowyml.executors.process.driver.worker_handle import KillDecision
from flowyml.executors.process.protocol import wire
from flowyml.executors.process.supervisor.process_tree import anonymous
from flowyml.steps.timeout import StepExpired

if TYPE_CHECKING:
    from flowyml.executors.process.driver.backend import WorkerTeam
    from flowyml.executors.process.driver.worker_handle import WorkerHandle
    from flowyml.runtime.run import Run
    from flowyml.steps.timeout import TimeLimits


# Looking more often than this gains nothing.
_SHORTEST_LOOK = 0.01
# A result that is on its way when the time is over counts; one of which nothing comes any more for so long does not.
_STALLED = 0.25

clock = time.monotonic


class DeadlineMonitor:
    """The time limits of a run's steps, as its dispatch loop keeps them.

    Args:
        limits: The limits.

    """

    def __init__(self, limits: TimeLimits) -> None:
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

    def suspects(self, member: WorkerHandle) -> bool:
        """Tell whether the step that a worker is in is over its time; else note when that may be."""
        return self.verdict(member) is not None

    def verdict(self, member: WorkerHandle) -> KillDecision | None:
        """Say what becomes of a worker whose step is over its time."""
        running = member.running()
        if running is None:
            return None
        slot, item, began = running
        limit, now = self._limits.of(item), clock()
        due = now + _SHORTEST_LOOK if _is_sending(member, now) and began + limit <= now else began + limit
        if due <= now:
            return KillDecision(slot, StepExpired(limit))
        self._next = min(self._next, max(due, now + _SHORTEST_LOOK))
        return None


def _is_sending(member: WorkerHandle, now: float) -> bool:
    """Tell whether a worker is sending a result: then its step has ended, however long a large value takes."""
    receiver = member.receiver
    return receiver.pending == wire.RESULT and now - receiver.last_read < _STALLED


_INTERVAL = 0.05
# What a step may take beyond what it found above the limit, as a share of the limit; and how much it may be in all.
_MORE = 1 / 16
_MOST = 1.25


class MemoryMonitor:
    """The memory limit of a team's workers, as the dispatch loop keeps it.

    Args:
        run: The run, for names.
        limit: Bytes that a worker may have.

    Attributes:
        next: When to look.
    """

    def __init__(self, run: Run, limit: int) -> None:
        """Look at once.

        Raises:
            ExecutorError: If this system does not tell how much memory a process has.
        """
        if not anonymous(os.getpid()):
            raise ExecutorError("memory_limit needs /proc/PID/statm, which cannot be read here")
        self._run = run
        self._limit = limit
        self.next = 0.0

    def begin_look(self) -> None:
        """Look at all workers now."""
        self.next = clock() + _INTERVAL

    def suspects(self, member: WorkerHandle) -> bool:
        """Tell whether a worker has more than it may; note it if not."""
        if member.worker.pid is None or member.verdict is not None:
            return False
        member.full = used(member.worker.pid, self._limit) > self._limit
        if not member.full:
            member.calm, member.found = member.worker.claims.last_claimed(), None
        return member.full

    def verdict(self, member: WorkerHandle) -> KillDecision | None:
        """Say what becomes of a worker that has more than it may, and that can begin nothing any more."""
        size = used(member.worker.pid or 0, self._limit)
        running = member.running()
        if size <= self._limit or (running is None and member.begun):
            return None
        if running is None:
            return KillDecision(None, None if member.has_worked else too_large(self._limit, size))
        slot, item, _ = running
        guilty = KillDecision(slot, MemoryLimitError(self._run.item_name(item), self._limit, size))
        if member.slot_before(slot) <= (-1 if member.calm is None else member.calm):
            return guilty
        if member.found is None or member.found[0] != slot:
            member.found = slot, size
        return guilty if size > min(member.found[1] + _MORE * self._limit, _MOST * self._limit) else None


def used(pid: int, limit: int) -> int:
    """Return the bytes that a process and those it has started have for themselves.

    What forked processes share counts several times at first; only where the sum is above the limit it is worth a
    closer look.
    """
    family = [pid]
    for each in family:
        family += _children(each)
    size = sum(map(anonymous, family))
    return sum(map(_proportional, family)) if size > limit and len(family) > 1 else size


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):  # it is gone
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  twenty times a second
        return [int(child) for each in threads for child in _read(f"/proc/{pid}/task/{each}/children").split()]
    return []


def _proportional(pid: int) -> int:
    """Return the same, with what several processes share divided among them."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        name, _, rest = line.partition(":")
        if name == "Pss_Anon":
            return int(rest.split()[0]) * 1024
    return anonymous(pid)


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


if TYPE_CHECKING:
    from typing import Protocol

    class LimitMonitor(Protocol):
        """Keeps one kind of limit."""

        @property
        def next(self) -> float:
            """When to look."""

        def begin_look(self) -> None:
            """Look at all workers now."""

        def suspects(self, member: WorkerHandle) -> bool:
            """Tell whether a worker may have to be killed; what it has not begun is taken back then."""

        def verdict(self, member: WorkerHandle) -> KillDecision | None:
            """Say what becomes of it, now that it can begin nothing any more."""


def watches(team: WorkerTeam, run: Run) -> list[LimitMonitor]:
    """Return what keeps the limits that there are, and what notices that the run stands still."""
    found: list[LimitMonitor] = [StallDetector(team, run)]
    if run.time_limits is not None:
        found.append(DeadlineMonitor(run.time_limits))
    if team.memory_limit is not None:
        found.append(MemoryMonitor(run, team.memory_limit))
    return found
