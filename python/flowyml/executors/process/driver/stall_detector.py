"""Logs a run on worker processes that makes no progress although steps are ready and a worker is free.

A long step is no stall: either no other worker is free, or nothing is ready. After `STALL_SECONDS` one record is logged
with the state of the run and the state and Python stack of each worker; the run is not changed. A run that can never
end (nothing is running, ready or delayed) is an error, see `Run.check_progress`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from flowyml.diagnostics.text import pluralize
from flowyml.executors.process.protocol.stack_dump import stack_of

if TYPE_CHECKING:
    from flowyml.executors.process.driver.backend import ProcessBackend
    from flowyml.executors.process.driver.worker_handle import KillDecision, WorkerHandle
    from flowyml.runtime.run import Run

CHECK_SECONDS = 1.0
STALL_SECONDS = 5.0

_log = logging.getLogger("flowyml")
clock = time.monotonic


class StallDetector:
    """Checks a run once a second, as a limit monitor that never kills a worker."""

    def __init__(self, backend: ProcessBackend, run: Run) -> None:
        self._backend = backend
        self._run = run
        self._progress: tuple[int, int] | None = None
        self._since = clock()
        self._is_reported = False
        self.next = self._since + CHECK_SECONDS

    def begin_check(self) -> None:
        """Note whether the run makes progress; log once if it has made none for long."""
        now = clock()
        self.next = now + CHECK_SECONDS
        progress = (self._ready(), self._run.scheduler.unfinished)
        if progress != self._progress or not progress[0] or not any(map(self._is_free, self._backend.workers)):
            self._progress, self._since = progress, now
        elif now - self._since >= STALL_SECONDS and not self._is_reported:
            self._is_reported = True
            _log.warning("%s", "\n".join(self._report(now)))

    def is_over_limit(self, _: WorkerHandle) -> bool:
        """Return False: no worker is to be killed."""
        return False

    def verdict(self, _: WorkerHandle) -> KillDecision | None:
        """Return None: no worker is to be killed."""
        return None

    def _is_free(self, worker: WorkerHandle) -> bool:
        return worker.ready and not worker.batches and self._backend.can_take_steps(worker)

    def _ready(self) -> int:
        """Return how many steps a free worker could start; steps that use devices may wait for a busy worker."""
        scheduler = self._run.scheduler
        if not self._run.device_names or not any(worker.batches for worker in self._backend.workers):
            return scheduler.ready
        return dict(scheduler.device_needs()).get(0, 0)

    def _report(self, now: float) -> list[str]:
        name, scheduler = self._run.plan.name, self._run.scheduler
        free = next(worker.number for worker in self._backend.workers if self._is_free(worker))
        steps = ("ready", "parked", "running", "unfinished")
        lines = [
            f"the run of pipeline {name!r} is stalled: steps are ready and worker {free} is idle",
            f"  {', '.join(pluralize(getattr(scheduler, each), f'{each} step') for each in steps)}",
        ]
        for worker in self._backend.workers:
            lines.append(f"  worker {worker.number}, process {worker.process.pid}: {self._state(worker, now)}")
            if worker.process.pid is not None:
                lines += [f"    {line}" for line in stack_of(worker.process.pid)]
        return lines

    def _state(self, worker: WorkerHandle, now: float) -> str:
        running = worker.running()
        step = f"in {self._run.item_name(running[1])!r} for {now - worker.began:.1f} s" if running else "in no step"
        posted = ", ".join(f"{each.done} of {each.count}" for each in worker.batches) or "none"
        return f"{step}, posted steps done: {posted}"
