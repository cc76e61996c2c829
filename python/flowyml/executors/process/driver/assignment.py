"""Which worker gets how many of a run's ready steps, and how they go to it.

```
fill: workers that have nothing get a batch, then everybody a second one (prefetch); nothing ready: take back
assign: claim ─▶ post under slot numbers ─▶ what is new to the worker, and the CALLS frame
```

What takes devices is given out by `placing.py`. The module does not know what comes back.

Steps that were posted to a worker and that it has not begun, returned to the scheduler for others.

Slots are never used again, so a worker that comes to one that was taken back passes it over; see `rust/claims.rs`.
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

    from flowyml.executors.process.driver.backend import WorkerTeam
    from flowyml.executors.process.driver.connections import WorkerConnections
    from flowyml.executors.process.driver.device_assignment import DeviceAssigner
    from flowyml.executors.process.driver.worker_handle import WorkerHandle
    from flowyml.runtime.run import Run


# Each batch wakes the driver, which takes a core from a worker where all are busy: 0.2 ms with cold caches. What waits
# in a batch is taken back when somebody has nothing to do. Where other steps wait for results batches are shorter.
_TARGET, _TARGET_OF_LOOSE = 0.016, 0.05
_MOST = 4096
# One batch running and one on its way, so that a worker never waits for the driver.
_DEPTH = 2

clock = time.monotonic


class BatchAssigner:
    """Gives the steps of one run to the workers of a team.

    Args:
        team: The workers.
        run: The run.
        lines: The lines to them.

    Raises:
        SerializationError: If a function of the run does not pickle.

    Attributes:
        sizer: How many steps a batch has; gets told how long they took.
    """

    def __init__(self, team: WorkerTeam, run: Run, lines: WorkerConnections) -> None:
        self._team = team
        self._run = run
        self._lines = lines
        self._writer = CallEncoder(run, team.lending, team.initializer)
        self._setup = team.setup(self._writer, run)
        self._chains = allow_chains(run)
        # Whether the end of one step may let another begin that is not in its batch.
        edges, devices = run.plan.graph.edge_count, run.device_names
        self._releases = bool(run.single_item_batches or run.plan.is_dynamic or edges or devices)
        target, most = _TARGET if self._releases else _TARGET_OF_LOOSE, min(_MOST, run.max_batch_size)
        self.sizer = BatchSizer(target, most, loose=not self._releases)
        self._placing: DeviceAssigner | None = None
        self._prepared = False
        # Workers that have just got their first steps, and those that got theirs before.
        self._new: list[WorkerHandle] = []
        self._used: list[WorkerHandle] = []

    def begin(self) -> None:
        """Take in the workers that are there."""
        for member in self._team.members:
            self._register(member)

    def fill(self) -> None:
        """Give everybody one batch before anybody gets a second."""
        scheduler = self._run.scheduler
        scheduler.advance(clock())
        if self._run.device_names:
            self._place()
            return
        self._hire(scheduler.ready)
        for depth in range(1, self._depth + 1):
            for member in self._team.members:
                if not scheduler.ready:
                    break
                if len(member.postings) < depth and self._team.has_use_for(member):
                    self._assign(member)
        if not scheduler.ready:
            self._take_back()

    @property
    def _depth(self) -> int:
        """How many batches a worker has at most; a step that came during the run may have changed that."""
        return 1 if self._run.single_item_batches else _DEPTH

    def _place(self) -> None:
        """Give out the steps of a run in which some take devices."""
        if self._placing is None:
            from flowyml.executors.process.driver.device_assignment import DeviceAssigner

            self._placing = DeviceAssigner(self._team, self._run, self._assign, self._hire_one)
        self._hire(self._placing.useful)
        self._placing.fill()
        self._take_back()

    def _hire(self, ready: int) -> None:
        """Start as many workers as there are steps for, at most the team's size."""
        team = self._team
        team.renew()
        if team.is_complete:
            return
        busy = sum(posting.batch.heads for member in team.members for posting in member.postings)
        wanted = min(team.size, ready + busy)
        while sum(member.retired is None for member in team.members) < wanted and self._hire_one():
            pass

    def _hire_one(self) -> WorkerHandle | None:
        """Start another worker, if there may be one."""
        if self._team.is_complete:
            return None
        with self._run.interrupts.held_back():
            if not self._prepared:
                self._prepared = True
                self._team.prepare()
            member = self._team.hire()
        if member is not None:
            self._register(member)
        return member

    def _register(self, member: WorkerHandle) -> None:
        self._setup.register(member)
        self._lines.add(member)

    def _assign(self, member: WorkerHandle, least: int = 1) -> bool:
        """Claim a batch for a worker, post it, send it; at least so many steps, if there are."""
        run = self._run
        room = self._team.room(member)
        limit = min(room, max(least, self.sizer.limit(run.scheduler.ready, self._team.size)))
        now = clock()
        if self._chains and run.claim == run.scheduler.claim:  # a step that came may have to be asked about first
            batch = run.claim(member.number, limit, now, most=min(room, self.sizer.grown))
        else:
            batch = run.claim(member.number, limit, now)
        if batch is None:
            return False
        count = sendable(run, batch)
        slot = member.worker.claims.post(count)
        if slot is None or count < len(batch):
            kept = 0 if slot is None else count
            run.scheduler.give_back(batch, kept, len(batch) - kept)
        if slot is None:
            return False
        if self._setup.is_new_to(member):
            self._new.append(member)
        message = self._writer.write(batch, count)
        frames = self._setup.frames_for(member, message.shared)
        member.postings.append(PostedBatch(batch, count, slot, message.refused, message.stored))
        member.assigned, member.posted = member.assigned + count, now
        eager = wire.MEASURED if self.sizer.is_long else int(count == 1)
        devices = () if self._placing is None or not batch.devices else member.devices
        body = wire.CallsBody(slot, eager, message.groups, devices)
        frames += wire.frame(wire.CALLS, tuple(body), message.segments)
        self._lines.send(member, frames)
        return True

    def _take_back(self) -> None:
        """Give steps that wait behind a long one to workers that have nothing to do."""
        now = clock()
        for member in self._team.members:
            if member.postings or not self._team.has_use_for(member):
                continue
            busiest, spare = most_spare(self._team.members, self.sizer, now, even_next=self._takes_next(member))
            if not spare and member.initialized:
                return
            if not spare:  # perhaps for another
                continue
            take_half(self._run, busiest, spare)
            if self._placing is None:
                self._assign(member, least=1 if self.sizer.is_long else self._run.scheduler.ready)
            else:
                self._placing.fill()

    def _takes_next(self, member: WorkerHandle) -> bool:
        """Tell whether a worker may have what is next in one that is in its initializer: not one that needs it itself.

        What takes devices would go back to the worker that has them.
        """
        return member.initialized and self._placing is None

    @property
    def is_waiting(self) -> bool:
        """Whether somebody idles who may soon get what waits in another worker."""
        members = self._team.members
        idle = [member for member in members if not member.postings and self._team.has_use_for(member)]
        takes_next = any(map(self._takes_next, idle))
        return bool(idle) and any(
            member.waiting > 1 or member.stuck or (takes_next and member.waiting and not member.initialized)
            for member in members
        )

    @property
    def is_keen(self) -> bool:
        """Whether somebody idles who may get something to do by a single result."""
        if not self._releases:
            return False
        members = self._team.members
        idle = sum(len(member.postings) >= self._depth for member in members) < self._team.size
        posted = (posting.batch for member in members for posting in member.postings)
        return idle and (not self._chains or any(batch.restless for batch in posted))

    @property
    def is_brief(self) -> bool:
        """Whether all that is posted is about to end, sooner than whoever is woken by the first of it could do."""
        if not self._releases:
            return False
        busy, lately = [member for member in self._team.members if member.postings], clock() - PATIENCE
        return bool(busy) and all(each.posted > lately and self.sizer.are_brief(each.open) for each in busy)

    def show_output(self) -> None:
        """Show what workers write as that of their steps, once they have some; else it is nobody's."""
        for member in self._new:
            show_worker_output(self._run, self._team, member)
        self._used += self._new
        self._new.clear()

    def end(self) -> None:
        """Let go of the run: what workers write from now on is nobody's."""
        for member in (*self._used, *self._new):
            member.open_pipes(lambda _: None)


PATIENCE: Final = 0.001
"""Seconds: steps behind one that runs longer, or that take longer together, go to who has nothing to do."""


def most_spare(
    members: Sequence[WorkerHandle], sizer: BatchSizer, now: float, *, even_next: bool
) -> tuple[WorkerHandle, int]:
    """Return who has the most steps that another worker may have, and how many they are; see `WorkerHandle.spare`."""
    found = ((member, _spare(member, sizer, now, even_next=even_next)) for member in members)
    return max(found, key=lambda each: each[1])


def _spare(member: WorkerHandle, sizer: BatchSizer, now: float, *, even_next: bool) -> int:
    spare = member.spare(even_next=even_next)
    if member.begun:
        stays = now - member.began <= PATIENCE and sizer.seconds(spare) <= PATIENCE
    else:
        stays = now - member.posted <= PATIENCE and sizer.are_brief(spare)
    return 0 if stays else spare


def take_half(run: Run, member: WorkerHandle, spare: int) -> None:
    """Return half of so many posted steps to the scheduler, not without those that they are chained to."""
    last = member.postings[-1]
    end = last.first + last.count
    take_from(run, member, keep=max(0, member.waiting - (end - member.cut(end - -(-spare // 2)))))


def take_from(run: Run, member: WorkerHandle, *, keep: int) -> None:
    """Return posted steps to the scheduler, the last ones first."""
    first, count = member.worker.claims.take_back(keep)
    end = first + count
    for posting in list(member.postings):
        start, stop = max(first, posting.first), min(end, posting.first + posting.count)
        if start < stop:
            posting.count = start - posting.first
            member.assigned -= stop - start
            kept = max(posting.count, posting.void)
            if kept < stop - posting.first:
                run.scheduler.give_back(posting.batch, kept, stop - posting.first - kept)
            if posting.done >= posting.count:
                member.finish(posting)
