"""The time and memory limits of a run's steps, which the dispatcher enforces by checking its workers.

*Time.* The claim words of a worker say which step it began last, and when. So a limit costs a step nothing: the workers
are checked when the first of them may be over its time, and not before.

```
check ──▶ not over: check again then, or when a step that begins now may be
      └─▶ over: take the results in the socket, take back what is not begun; still over ──▶ kill
```

After that the worker can begin nothing: the step in which it is killed is the one whose time is over. If its result
arrives in the last moment, the result counts.

*Memory.* What counts is private memory: the anonymous memory of a worker and of the processes it has started, without
mapped files and shared memory. All workers are checked twenty times a second.

```
within the limit ──▶ note which step began last
above it ──▶ take back what is not begun
             ├─ no step runs: replace the worker, blame no step; without a first step it started in vain
             ├─ the step ran when the memory was last within the limit, or is the only one since: blame it
             └─ several steps since: an earlier one may have left it behind; blame the step only if it takes more
```
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
    from flowyml.executors.process.driver.backend import ProcessBackend
    from flowyml.executors.process.driver.worker_handle import WorkerHandle
    from flowyml.runtime.run import Run
    from flowyml.steps.timeout import TimeLimits


# Checking more often gains nothing.
MIN_CHECK_SECONDS = 0.01
# A result that is being sent when the time is over counts, unless nothing of it has arrived for so long.
RECEIVE_STALL_SECONDS = 0.25

clock = time.monotonic


class DeadlineMonitor:
    """Enforces the time limits of a run's steps."""

    def __init__(self, limits: TimeLimits) -> None:
        self._limits = limits
        self._shortest = limits.shortest
        self._next = clock() + limits.shortest

    @property
    def next(self) -> float:
        """When to check next; sooner if steps with a shorter limit were added during the run."""
        if self._limits.shortest < self._shortest:
            self._shortest = self._limits.shortest
            self._next = min(self._next, clock() + self._shortest)
        return self._next

    def begin_check(self) -> None:
        """Begin a check; no step that begins from now on can be over its time before the next one."""
        self._next = clock() + max(MIN_CHECK_SECONDS, self._limits.shortest)

    def is_over_limit(self, worker: WorkerHandle) -> bool:
        """Return True if the step of a worker is over its time; otherwise note when it may be."""
        return self.verdict(worker) is not None

    def verdict(self, worker: WorkerHandle) -> KillDecision | None:
        """Return what to do with a worker whose step is over its time."""
        running = worker.running()
        if running is None:
            return None
        slot, item, began = running
        limit, now = self._limits.of(item), clock()
        due = now + MIN_CHECK_SECONDS if _is_sending(worker, now) and began + limit <= now else began + limit
        if due <= now:
            return KillDecision(slot, StepExpired(limit))
        self._next = min(self._next, max(due, now + MIN_CHECK_SECONDS))
        return None


def _is_sending(worker: WorkerHandle, now: float) -> bool:
    """Return True if a worker is sending a result: its step has ended, however long a large value takes."""
    receiver = worker.receiver
    return receiver.pending == wire.RESULT and now - receiver.last_read < RECEIVE_STALL_SECONDS


MEMORY_CHECK_SECONDS = 0.05
# How much a step that found the memory above the limit may add, and how much there may be in all; shares of the limit.
MAX_GROWTH_SHARE = 1 / 16
MAX_TOTAL_SHARE = 1.25


class MemoryMonitor:
    """Enforces the memory limit of a backend's workers.

    Raises:
        ExecutorError: This system does not report how much memory a process uses.
    """

    def __init__(self, run: Run, limit: int) -> None:
        if not anonymous(os.getpid()):
            raise ExecutorError("memory_limit needs /proc/PID/statm, which cannot be read here")
        self._run = run
        self._limit = limit
        self.next = 0.0

    def begin_check(self) -> None:
        """Begin a check."""
        self.next = clock() + MEMORY_CHECK_SECONDS

    def is_over_limit(self, worker: WorkerHandle) -> bool:
        """Return True if a worker is over the limit; otherwise note its last step."""
        if worker.process.pid is None or worker.verdict is not None:
            return False
        worker.over_memory_limit = used(worker.process.pid, self._limit) > self._limit
        if not worker.over_memory_limit:
            worker.last_slot_within_limit, worker.first_over_limit = worker.process.claims.last_claimed(), None
        return worker.over_memory_limit

    def verdict(self, worker: WorkerHandle) -> KillDecision | None:
        """Return what to do with a worker that is over the limit and cannot begin another step."""
        size = used(worker.process.pid or 0, self._limit)
        running = worker.running()
        if size <= self._limit or (running is None and worker.has_started):
            return None
        if running is None:
            return KillDecision(None, None if worker.has_worked else too_large(self._limit, size))
        slot, item, _ = running
        guilty = KillDecision(slot, MemoryLimitError(self._run.item_name(item), self._limit, size))
        if worker.slot_before(slot) <= (-1 if worker.last_slot_within_limit is None else worker.last_slot_within_limit):
            return guilty
        if worker.first_over_limit is None or worker.first_over_limit[0] != slot:
            worker.first_over_limit = slot, size
        _, size_at_start = worker.first_over_limit
        most = min(size_at_start + MAX_GROWTH_SHARE * self._limit, MAX_TOTAL_SHARE * self._limit)
        return guilty if size > most else None


def used(pid: int, limit: int) -> int:
    """Return the bytes of private memory of a process and its descendants.

    Pages that forked processes share count several times at first; only if the sum is above the limit they are divided.
    """
    family = [pid]
    for each in family:
        family += _children(each)
    size = sum(map(anonymous, family))
    return sum(map(_proportional, family)) if size > limit and len(family) > 1 else size


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):  # it has exited
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  twenty times a second
        return [int(child) for each in threads for child in _read(f"/proc/{pid}/task/{each}/children").split()]
    return []


def _proportional(pid: int) -> int:
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
        """Enforces one kind of limit."""

        @property
        def next(self) -> float:
            """When to check next."""

        def begin_check(self) -> None:
            """Begin a check of all workers."""

        def is_over_limit(self, worker: WorkerHandle) -> bool:
            """Return True if a worker may have to be killed; its steps that have not begun are taken back then."""

        def verdict(self, worker: WorkerHandle) -> KillDecision | None:
            """Return whether and why to kill it, now that it cannot begin another step."""


def limit_monitors(backend: ProcessBackend, run: Run) -> list[LimitMonitor]:
    """Return the monitors for the limits of a run, and the stall detector."""
    found: list[LimitMonitor] = [StallDetector(backend, run)]
    if run.time_limits is not None:
        found.append(DeadlineMonitor(run.time_limits))
    if backend.memory_limit is not None:
        found.append(MemoryMonitor(run, backend.memory_limit))
    return found
