"""Which worker gets how many of a run's ready steps, and how they go to it.

```
fill: workers that have nothing get a batch, then everybody a second one (prefetch); nothing ready: take back
assign: claim ─▶ post under slot numbers ─▶ what is new to the worker, and the CALLS frame
```

What takes devices is given out by `placing.py`. The module does not know what comes back.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flowyml.executors._processes.crossing import wire
from flowyml.executors._processes.dispatching.batching import BatchSizer
from flowyml.executors._processes.dispatching.calls import CallWriter
from flowyml.executors._processes.dispatching.chains import allow_chains, sendable
from flowyml.executors._processes.dispatching.member import Posting
from flowyml.executors._processes.dispatching.showing import show
from flowyml.executors._processes.dispatching.taking_back import PATIENCE, most_spare, take_half

if TYPE_CHECKING:
    from flowyml.executors._processes.dispatching.lines import Lines
    from flowyml.executors._processes.dispatching.member import Member
    from flowyml.executors._processes.dispatching.placing import Placing
    from flowyml.executors._processes.dispatching.team import ProcessTeam
    from flowyml.running.run import Run

# Each batch wakes the driver, which takes a core from a worker where all are busy: 0.2 ms with cold caches. What waits
# in a batch is taken back when somebody has nothing to do. Where other steps wait for results batches are shorter.
_TARGET, _TARGET_OF_LOOSE = 0.016, 0.05
_MOST = 4096
# One batch running and one on its way, so that a worker never waits for the driver.
_DEPTH = 2

clock = time.monotonic


class Giving:
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

    def __init__(self, team: ProcessTeam, run: Run, lines: Lines) -> None:
        self._team = team
        self._run = run
        self._lines = lines
        self._writer = CallWriter(run, team.lending, team.initializer)
        self._setup = team.setup(self._writer, run)
        self._chains = allow_chains(run)
        # Whether the end of one step may let another begin that is not in its batch.
        edges, devices = run.plan.graph.edge_count, run.devices.names
        self._releases = bool(run.one_by_one or run.plan.is_dynamic or edges or devices)
        target, most = _TARGET if self._releases else _TARGET_OF_LOOSE, min(_MOST, run.at_once)
        self.sizer = BatchSizer(target, most, loose=not self._releases)
        self._placing: Placing | None = None
        self._prepared = False
        # Workers that have just got their first steps, and those that got theirs before.
        self._new: list[Member] = []
        self._used: list[Member] = []

    def begin(self) -> None:
        """Take in the workers that are there."""
        for member in self._team.members:
            self._register(member)

    def fill(self) -> None:
        """Give everybody one batch before anybody gets a second."""
        scheduler = self._run.scheduler
        scheduler.advance(clock())
        if self._run.devices.names:
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
        return 1 if self._run.one_by_one else _DEPTH

    def _place(self) -> None:
        """Give out the steps of a run in which some take devices."""
        if self._placing is None:
            from flowyml.executors._processes.dispatching.placing import Placing

            self._placing = Placing(self._team, self._run, self._assign, self._hire_one)
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

    def _hire_one(self) -> Member | None:
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

    def _register(self, member: Member) -> None:
        self._setup.register(member)
        self._lines.add(member)

    def _assign(self, member: Member, least: int = 1) -> bool:
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
        member.postings.append(Posting(batch, count, slot, message.refused, message.stored))
        member.assigned, member.posted = member.assigned + count, now
        eager = wire.MEASURED if self.sizer.is_long else int(count == 1)
        devices = [] if self._placing is None or not batch.devices else [member.devices]
        frames += wire.frame(wire.CALLS, [slot, eager, message.groups, *devices], message.segments)
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

    def _takes_next(self, member: Member) -> bool:
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
            show(self._run, self._team, member)
        self._used += self._new
        self._new.clear()

    def end(self) -> None:
        """Let go of the run: what workers write from now on is nobody's."""
        for member in (*self._used, *self._new):
            member.open_pipes(lambda _: None)
