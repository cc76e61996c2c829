"""Notices that a run on worker processes makes no progress although steps are ready and a worker is free.

A long step is no reason: either its worker is busy and no other is free, or nothing is ready. If it lasts for
`PATIENCE_SECONDS`, one record in the log has the state of the run and of each worker, and the Python stack of each
worker; the run is not changed. That a run can never end (nothing is running, ready or delayed) is an error, see
`Run.check_progress`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from flowyml.diagnostics.text import pluralize
from flowyml.executors.process.protocol.stack_dump import stack_of

if TYPE_CHECKING:
    from flowyml.executors.process.driver.backend import WorkerTeam
    from flowyml.executors.process.driver.worker_handle import KillDecision, WorkerHandle
    from flowyml.runtime.run import Run

INTERVAL_SECONDS = 1.0
PATIENCE_SECONDS = 5.0

_log = logging.getLogger("flowyml")
clock = time.monotonic


class StallDetector:
    """Looks at one run once a second, as a watch that never has a worker killed.

    Args:
        team: The workers.
        run: The run.

    Attributes:
        next: When to look.
    """

    def __init__(self, team: WorkerTeam, run: Run) -> None:
        self._team = team
        self._run = run
        self._progress: tuple[int, int] | None = None
        self._since = clock()
        self._is_reported = False
        self.next = self._since + INTERVAL_SECONDS

    def begin_look(self) -> None:
        """Note whether the run makes progress, and log once that it has made none for long."""
        now = clock()
        self.next = now + INTERVAL_SECONDS
        progress = (self._ready(), self._run.scheduler.unfinished)
        if progress != self._progress or not progress[0] or not any(map(self._is_free, self._team.members)):
            self._progress, self._since = progress, now
        elif now - self._since >= PATIENCE_SECONDS and not self._is_reported:
            self._is_reported = True
            _log.warning("%s", "\n".join(self._report(now)))

    def suspects(self, _: WorkerHandle) -> bool:
        """Suspect no worker of having to be killed."""
        return False

    def verdict(self, _: WorkerHandle) -> KillDecision | None:
        """Have no worker killed."""
        return None

    def _is_free(self, member: WorkerHandle) -> bool:
        return member.ready and not member.postings and self._team.has_use_for(member)

    def _ready(self) -> int:
        """Return how many steps a free worker could be given; a device may have to be waited for while others work."""
        scheduler = self._run.scheduler
        if not self._run.device_names or not any(member.postings for member in self._team.members):
            return scheduler.ready
        return dict(scheduler.device_needs()).get(0, 0)

    def _report(self, now: float) -> list[str]:
        """Return the lines of the record: the run, then each worker with its stack, the innermost call first."""
        name, scheduler = self._run.plan.name, self._run.scheduler
        free = next(member.number for member in self._team.members if self._is_free(member))
        steps = ("ready", "parked", "running", "unfinished")
        lines = [
            f"the run of pipeline {name!r} stands still: steps are ready and worker {free} has nothing to do",
            f"  {', '.join(pluralize(getattr(scheduler, each), f'{each} step') for each in steps)}",
        ]
        for member in self._team.members:
            lines.append(f"  worker {member.number}, process {member.worker.pid}: {self._state(member, now)}")
            if member.worker.pid is not None:
                lines += [f"    {line}" for line in stack_of(member.worker.pid)]
        return lines

    def _state(self, member: WorkerHandle, now: float) -> str:
        running = member.running()
        step = f"in {self._run.item_name(running[1])!r} for {now - member.began:.1f} s" if running else "in no step"
        posted = ", ".join(f"{each.done} of {each.count}" for each in member.postings) or "none"
        return f"{step}, posted steps done: {posted}"
