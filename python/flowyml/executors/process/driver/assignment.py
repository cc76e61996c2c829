"""Assigns the ready steps of a run to workers, and steals work back from busy ones.

```
assign_batches:  each idle worker gets a batch, then each worker a second one (prefetch)
                 if nothing is ready: steal_half of the steps that wait behind a long one
_assign:         claim ─▶ post under slot numbers ─▶ SETUP if the worker needs it, and CALLS
```

Slots are never reused, so a worker skips a slot whose step was taken back; see `rust/claims.rs`. Steps that use devices
are assigned by `device_assignment.py`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from flowyml.executors.process.driver.batching import BatchSizer, allow_chains, sendable
from flowyml.executors.process.driver.call_encoder import CallEncoder
from flowyml.executors.process.driver.output import show_worker_output
from flowyml.executors.process.driver.worker_handle import PostedBatch
from flowyml.executors.process.protocol import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowyml.executors.process.driver.backend import ProcessBackend
    from flowyml.executors.process.driver.connections import WorkerConnections
    from flowyml.executors.process.driver.device_assignment import DeviceAssigner
    from flowyml.executors.process.driver.worker_handle import WorkerHandle
    from flowyml.runtime.run import Run


# Each batch wakes the driver, which takes a core from a busy worker: 0.2 ms with cold caches. Idle workers steal what
# waits in a batch. Batches are shorter if other steps wait for results.
BATCH_SECONDS, INDEPENDENT_BATCH_SECONDS = 0.016, 0.05
MAX_BATCH = 4096
# One batch running and one prefetched, so that a worker never waits for the driver.
BATCHES_PER_WORKER = 2

clock = time.monotonic


class BatchAssigner:
    """Assigns the steps of one run to the workers of a backend.

    Raises:
        SerializationError: A function of the run cannot be pickled.

    Attributes:
        sizer: Determines the size of batches from measured step times.
    """

    def __init__(self, backend: ProcessBackend, run: Run, lines: WorkerConnections) -> None:
        self._backend = backend
        self._run = run
        self._connections = lines
        self._encoder = CallEncoder(run, backend.arenas, backend.initializer)
        self._setup = backend.setup(self._encoder, run)
        self._chains = allow_chains(run)
        # Whether the end of a step may make a step ready that is not in its batch.
        edges, devices = run.plan.graph.edge_count, run.device_names
        self._releases = bool(run.single_item_batches or run.plan.is_dynamic or edges or devices)
        target = BATCH_SECONDS if self._releases else INDEPENDENT_BATCH_SECONDS
        self.sizer = BatchSizer(target, min(MAX_BATCH, run.max_batch_size), independent=not self._releases)
        self._device_assigner: DeviceAssigner | None = None
        self._prepared = False
        # Workers that have just got their first steps of the run, and those that got them before.
        self._new: list[WorkerHandle] = []
        self._used: list[WorkerHandle] = []

    def begin(self) -> None:
        """Register the workers that are already running."""
        for worker in self._backend.workers:
            self._register(worker)

    def assign_batches(self) -> None:
        """Assign one batch to each worker before any worker gets a second one."""
        scheduler = self._run.scheduler
        scheduler.advance(clock())
        if self._run.device_names:
            self._assign_on_devices()
            return
        self._start_missing_workers(scheduler.ready)
        for depth in range(1, self._depth + 1):
            for worker in self._backend.workers:
                if not scheduler.ready:
                    break
                if len(worker.batches) < depth and self._backend.can_take_steps(worker):
                    self._assign(worker)
        if not scheduler.ready:
            self._steal_work()

    @property
    def _depth(self) -> int:
        """Batches per worker; a step that was added during the run may have changed it."""
        return 1 if self._run.single_item_batches else BATCHES_PER_WORKER

    def _assign_on_devices(self) -> None:
        if self._device_assigner is None:
            from flowyml.executors.process.driver.device_assignment import DeviceAssigner

            self._device_assigner = DeviceAssigner(self._backend, self._run, self._assign, self._start_worker)
        self._start_missing_workers(self._device_assigner.useful)
        self._device_assigner.assign_batches()
        self._steal_work()

    def _start_missing_workers(self, ready: int) -> None:
        """Start workers, also in the place of those that died, up to one per step and at most `max_workers`."""
        backend = self._backend
        backend.recycle_workers()
        if backend.is_complete:
            return
        busy = sum(posted.batch.heads for worker in backend.workers for posted in worker.batches)
        wanted = min(backend.size, ready + busy)
        while sum(worker.retired is None for worker in backend.workers) < wanted and self._start_worker():
            pass

    def _start_worker(self) -> WorkerHandle | None:
        if self._backend.is_complete:
            return None
        with self._run.interrupts.held_back():
            if not self._prepared:
                self._prepared = True
                self._backend.prepare()
            worker = self._backend.start_worker()
        if worker is not None:
            self._register(worker)
        return worker

    def _register(self, worker: WorkerHandle) -> None:
        self._setup.register(worker)
        self._connections.add(worker)

    def _assign(self, worker: WorkerHandle, least: int = 1) -> bool:
        """Claim at least `least` steps for a worker, post and send them; return False if there were none."""
        run = self._run
        room = self._backend.remaining_steps(worker)
        limit = min(room, max(least, self.sizer.limit(run.scheduler.ready, self._backend.size)))
        now = clock()
        if self._chains and run.claim == run.scheduler.claim:  # a step that was added may need a decision first
            batch = run.claim(worker.number, limit, now, most=min(room, self.sizer.grown))
        else:
            batch = run.claim(worker.number, limit, now)
        if batch is None:
            return False
        count = sendable(run, batch)
        slot = worker.process.claims.post(count)
        if slot is None or count < len(batch):
            kept = 0 if slot is None else count
            run.scheduler.give_back(batch, kept, len(batch) - kept)
        if slot is None:
            return False
        if self._setup.is_new_to(worker):
            self._new.append(worker)
        message = self._encoder.write(batch, count)
        frames = self._setup.frames_for(worker, message.shared)
        worker.batches.append(PostedBatch(batch, count, slot, message.refused, message.stored))
        worker.steps_assigned, worker.last_posted = worker.steps_assigned + count, now
        eager = wire.MEASURED if self.sizer.is_long else int(count == 1)
        devices = () if self._device_assigner is None or not batch.devices else worker.devices
        body = wire.CallsBody(slot, eager, message.groups, devices)
        frames += wire.frame(wire.CALLS, tuple(body), message.segments)
        self._connections.send(worker, frames)
        return True

    def _steal_work(self) -> None:
        """Reassign steps that wait behind a long step to idle workers."""
        now = clock()
        for worker in self._backend.workers:
            if worker.batches or not self._backend.can_take_steps(worker):
                continue
            busiest, spare = busiest_worker(self._backend.workers, self.sizer, now, even_next=self._takes_next(worker))
            if not spare and worker.initialized:
                return
            if not spare:  # another idle worker may take steps
                continue
            steal_half(self._run, busiest, spare)
            if self._device_assigner is None:
                self._assign(worker, least=1 if self.sizer.is_long else self._run.scheduler.ready)
            else:
                self._device_assigner.assign_batches()

    def _takes_next(self, worker: WorkerHandle) -> bool:
        """Return True if an idle worker may take the next step of one that is still in its initializer.

        Not if it needs the initializer, too, nor a step that uses devices: that would return to the other worker.
        """
        return worker.initialized and self._device_assigner is None

    @property
    def has_idle_worker(self) -> bool:
        """True if a worker is idle and may soon steal steps."""
        workers = self._backend.workers
        idle = [worker for worker in workers if not worker.batches and self._backend.can_take_steps(worker)]
        takes_next = any(map(self._takes_next, idle))
        return bool(idle) and any(
            worker.waiting > 1 or worker.has_blocked_work or (takes_next and worker.waiting and not worker.initialized)
            for worker in workers
        )

    @property
    def wants_early_wakeup(self) -> bool:
        """True if a worker is idle and a single result could make a step ready for it."""
        if not self._releases:
            return False
        workers = self._backend.workers
        idle = sum(len(worker.batches) >= self._depth for worker in workers) < self._backend.size
        batches = (posted.batch for worker in workers for posted in worker.batches)
        return idle and (not self._chains or any(batch.restless for batch in batches))

    @property
    def ends_soon(self) -> bool:
        """True if all posted steps end sooner than the driver could be woken by the first of them."""
        if not self._releases:
            return False
        busy, lately = [worker for worker in self._backend.workers if worker.batches], clock() - STEAL_DELAY_SECONDS
        return bool(busy) and all(each.last_posted > lately and self.sizer.end_soon(each.open) for each in busy)

    def show_output(self) -> None:
        """Attribute the output of new workers to their steps, once they have some."""
        for worker in self._new:
            show_worker_output(self._run, self._backend, worker)
        self._used += self._new
        self._new.clear()

    def end(self) -> None:
        """Stop attributing output to steps of the run."""
        for worker in (*self._used, *self._new):
            worker.open_pipes(lambda _: None)


STEAL_DELAY_SECONDS: Final = 0.001
"""Idle workers steal steps that wait behind a step that runs longer, or that take longer together."""


def busiest_worker(
    workers: Sequence[WorkerHandle], sizer: BatchSizer, now: float, *, even_next: bool
) -> tuple[WorkerHandle, int]:
    """Return the worker with the most steps that can be stolen, and how many; see `WorkerHandle.stealable`."""
    counts = [_stealable_now(worker, sizer, now, even_next=even_next) for worker in workers]
    most = max(counts)
    return workers[counts.index(most)], most


def _stealable_now(worker: WorkerHandle, sizer: BatchSizer, now: float, *, even_next: bool) -> int:
    spare = worker.stealable(even_next=even_next)
    if worker.has_started:
        stays = now - worker.began <= STEAL_DELAY_SECONDS and sizer.seconds(spare) <= STEAL_DELAY_SECONDS
    else:
        stays = now - worker.last_posted <= STEAL_DELAY_SECONDS and sizer.end_soon(spare)
    return 0 if stays else spare


def steal_half(run: Run, worker: WorkerHandle, spare: int) -> None:
    """Return half of a worker's stealable steps to the scheduler, rounded up to whole chains."""
    last = worker.batches[-1]
    end = last.first + last.count
    take_back(run, worker, keep=max(0, worker.waiting - (end - worker.chain_start(end - -(-spare // 2)))))


def take_back(run: Run, worker: WorkerHandle, *, keep: int) -> None:
    """Return all posted and unclaimed steps but `keep` to the scheduler, the last ones first."""
    first, count = worker.process.claims.take_back(keep)
    end = first + count
    for posted in list(worker.batches):
        start, stop = max(first, posted.first), min(end, posted.first + posted.count)
        if start < stop:
            posted.count = start - posted.first
            worker.steps_assigned -= stop - start
            kept = max(posted.count, posted.void)
            if kept < stop - posted.first:
                run.scheduler.give_back(posted.batch, kept, stop - posted.first - kept)
            if posted.done >= posted.count:
                worker.finish(posted)
