"""The dispatch loop: one thread in the driver owns all transport to the worker processes.

```
            ┌── fill: idle workers get batches, then everybody a second one (prefetch); nothing ready: take back
  run() ──▶ │── wait: for sockets, the guardian, output pipes
            ├── handle: results ─▶ run.complete   output ─▶ sys.stdout   deaths ─▶ blame, give back, replace
            └── look, when a step may be over its time: the guardian kills its worker
```

When a worker dies, whole frames that it has sent still count; then the step it claimed last is the one to blame, unless
its result is in, and everything else that was posted to it becomes ready again without having spent an attempt.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError
from flowyml.executors._processes.crossing import wire
from flowyml.executors._processes.crossing.logs import handle_record
from flowyml.executors._processes.dispatching.batching import BatchSizer
from flowyml.executors._processes.dispatching.calls import CallWriter
from flowyml.executors._processes.dispatching.chains import allow_chains, sendable
from flowyml.executors._processes.dispatching.deaths import Deaths
from flowyml.executors._processes.dispatching.ending import wait_if_ending
from flowyml.executors._processes.dispatching.listening import Ears
from flowyml.executors._processes.dispatching.member import Member, Posting, Verdict
from flowyml.executors._processes.dispatching.outcomes import Outcomes
from flowyml.executors._processes.dispatching.taking_back import PATIENCE, most_spare, take_from, take_half
from flowyml.executors._processes.dispatching.watches import watches
from flowyml.executors._processes.pooling.workers import Exited, GuardianLost, Refused

if TYPE_CHECKING:
    from flowyml.executors._processes.dispatching.placing import Placing
    from flowyml.executors._processes.dispatching.team import ProcessTeam
    from flowyml.executors._processes.dispatching.watches import Watch
    from flowyml.running.run import Run

# Each batch wakes the driver, which takes a core from a worker where all are busy: 0.2 ms with cold caches. What waits
# in a batch is taken back when somebody has nothing to do. Where other steps wait for results batches are shorter.
_TARGET, _TARGET_OF_LOOSE = 0.016, 0.05
_MOST = 4096
# One batch running and one on its way, so that a worker never waits for the driver; of steps that come alone more, up
# to so many seconds of work, where nothing waits for their results.
_DEPTH, _DEEPEST, _DEEP = 2, 8, 0.02
_LONGEST_WAIT = 1.0
# How long a result may lie in shared memory, behind which its worker is in a long step, if it is to be written down.
_GLANCE = 0.01
# Portions read from one worker before the others are looked at.
_MOST_READS = 8

clock = time.monotonic


class Dispatch:
    """One run on a team of worker processes."""

    def __init__(self, team: ProcessTeam, run: Run) -> None:
        """Prepare the functions and the loop; no step starts."""
        self._team = team
        self._run = run
        self._writer = CallWriter(run, team.lending)
        self._outcomes = Outcomes(run, team.lending)
        self._ears = Ears()
        self._sockets: dict[int, Member] = {}
        self._pipes: dict[int, Member] = {}
        # Workers that nobody listens to yet, those that have just got their first steps, and those that got theirs.
        self._unheard: list[Member] = []
        self._new: list[Member] = []
        self._used: list[Member] = []
        self._watches = watches(team, run)
        self._deaths = Deaths(run, self._outcomes)
        self._stopped = self._prepared = False
        self._chains = allow_chains(run)
        # Whether the end of one step may let another begin that is not in its batch.
        edges, devices = run.plan.graph.edge_count, run.devices.names
        self._releases = bool(run.one_by_one or run.plan.is_dynamic or edges or devices)
        target, most = _TARGET if self._releases else _TARGET_OF_LOOSE, min(_MOST, run.at_once)
        self._sizer = BatchSizer(target, most, loose=not self._releases)
        self._placing: Placing | None = None
        self._setup = team.setup(self._writer, run)

    def run(self) -> None:
        """Run all steps."""
        try:
            self._begin()
            while not self._run.finished:
                self._fill()
                self._listen()
                self._run.tell()
                self._wait()
            self._end()
        except KeyboardInterrupt:
            self._hear_out()
            raise
        finally:
            self._ears.close()

    def _hear_out(self) -> None:
        """What is finished counts: take the results that were on their way."""
        self._run.cancel()
        self._end()

    def _end(self) -> None:
        """Show the last output, and let go of the run: workers stay, perhaps for long."""
        self._team.renew()
        for member in self._team.members:
            while self._read_frames(member):
                pass
            member.read_pipes(last=True)
        for member in self._used:
            member.open_pipes(lambda _: None)

    # -- giving out work

    def _begin(self) -> None:
        self._team.start(self._run)
        for member in self._team.members:
            self._register(member)

    def _fill(self) -> None:
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
        """How many batches a worker has at most."""
        if self._run.one_by_one:
            return 1
        return _DEPTH if self._releases else self._sizer.count(_DEEP, _DEPTH, _DEEPEST)

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
        if not self._prepared:
            self._prepared = True
            self._team.prepare(self._run)
        member = self._team.hire()
        if member is not None:
            self._register(member)
        return member

    def _register(self, member: Member) -> None:
        self._setup.register(member)
        self._unheard.append(member)

    def _listen(self) -> None:
        """Get ready to hear from workers, while those that have got their first steps are at them."""
        if not self._ears.hears:
            self._ears.add(self._team.pool.fileno())
        for member in self._unheard:
            self._sockets[member.worker.socket.fileno()] = member
            self._ears.add(member.worker.socket.fileno(), writable=bool(member.outbox))
            for pipe in (member.worker.stdout, member.worker.stderr):
                self._pipes[pipe] = member
                self._ears.add_pipe(pipe)
        self._unheard.clear()
        for member in self._new:
            self._open_pipes(member)
        self._used += self._new
        self._new.clear()

    def _open_pipes(self, member: Member) -> None:
        """Show what a worker writes as that of its steps; of one that gets none it is nobody's."""
        run, team = self._run, self._team

        def label(slot: int) -> str | None:
            item = member.item_at(slot) if len(team.members) > 1 else None
            return None if item is None else run.item_name(item)

        member.open_pipes(label, lambda slot, text: self._keep(member, slot, text))

    def _assign(self, member: Member, least: int = 1) -> bool:
        """Claim a batch for a worker, post it, send it; at least so many steps, if there are."""
        run = self._run
        room = self._team.room(member)
        limit = min(room, max(least, self._sizer.limit(run.scheduler.ready, self._team.size)))
        now = clock()
        if self._chains:
            batch = run.claim(member.number, limit, now, most=min(room, self._sizer.grown))
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
        eager = wire.MEASURED if self._sizer.is_long else int(count == 1)
        devices = [] if self._placing is None or not batch.devices else [member.devices]
        frames += wire.frame(wire.CALLS, [slot, eager, message.groups, *devices], message.segments)
        self._send(member, frames)
        return True

    def _take_back(self) -> None:
        """Give steps that wait behind a long one to workers that have nothing to do."""
        now = clock()
        for member in self._team.members:
            if member.postings or not self._team.has_use_for(member):
                continue
            busiest, spare = most_spare(self._team.members, self._sizer, now)
            if not spare:
                return
            take_half(self._run, busiest, spare)
            if self._placing is None:
                self._assign(member, least=1 if self._sizer.is_long else self._run.scheduler.ready)
            else:
                self._placing.fill()

    def stop(self) -> None:
        """Begin nothing new: whatever is not begun is cancelled."""
        self._stopped = True
        self._run.cancel()
        for member in self._team.members:
            take_from(self._run, member, keep=0)

    def _send(self, member: Member, buffers: list[bytes]) -> None:
        waited = bool(member.outbox)
        member.outbox.send(buffers)
        if bool(member.outbox) != waited:
            self._watch(member)

    def _watch(self, member: Member) -> None:
        """Ask to be told when the socket takes more, while something waits."""
        fd = member.worker.socket.fileno()
        if fd in self._sockets:
            self._ears.change(fd, writable=bool(member.outbox))

    # -- hearing from workers

    def _wait(self) -> None:
        """Wait for something to happen and handle it."""
        if self._run.finished:
            return
        brief = self._releases and self._are_brief()
        timeout = 0.0 if self._ask_to_be_woken(brief=brief) else PATIENCE if brief else self._timeout()
        if self._run.finished:
            return
        with self._run.interrupts.may_raise():
            heard = self._ears.hear(timeout)
        wait_if_ending()
        for member in self._team.members:
            member.results.awake()
        for fd in heard:
            if fd in self._sockets:
                self._on_socket(self._sockets[fd])
            elif fd in self._pipes:
                self._on_pipe(fd)
            else:
                self._on_guardian()
        self._take_results()
        for watch in self._watches:
            if clock() >= watch.next:
                self._look(watch)

    def _ask_to_be_woken(self, *, brief: bool) -> bool:
        """Say that the loop is about to sleep, then look once more: tell whether there is something to do meanwhile.

        Results wait in shared memory until workers have nothing left to do, unless somebody idles who may get something
        to do by a result, and that is not brief.
        """
        members = self._team.members
        each = self._releases and not brief and self._is_keen()
        for member in members:
            member.results.want(each)
        finished, taken = self._outcomes.finished, self._outcomes.taken
        self._take_results()
        return self._outcomes.finished != finished or (each and self._outcomes.taken != taken)

    def _is_keen(self) -> bool:
        """Tell whether somebody idles who may get something to do by a single result."""
        members, depth = self._team.members, min(self._depth, _DEPTH)
        idle = sum(len(member.postings) >= depth for member in members) < self._team.size
        posted = (posting.batch for member in members for posting in member.postings)
        return idle and (not self._chains or any(batch.restless for batch in posted))

    def _are_brief(self) -> bool:
        """Tell whether all that is posted is about to end: sooner than whoever is woken by the first of it could do."""
        busy, lately = [member for member in self._team.members if member.postings], clock() - PATIENCE
        return bool(busy) and all(each.posted > lately and self._sizer.are_brief(each.open) for each in busy)

    def _take_results(self) -> None:
        """Take what workers have put into shared memory since they were last looked at."""
        for member in self._team.members:
            if member.results.waiting and not member.torn:
                self._read_frames(member)

    def _timeout(self) -> float:
        """Look again when a delay is over, or soon if somebody idles while somebody else may be stuck."""
        wakeups = [watch.next for watch in self._watches]
        if (wakeup := self._run.scheduler.next_wakeup()) is not None:
            wakeups.append(wakeup)
        longest = self._run.patience(_LONGEST_WAIT)
        if self._run.prompt and any(member.open > 1 for member in self._team.members):
            longest = min(longest, _GLANCE)
        longest = min(longest, max(0.0, min(wakeups) - clock())) if wakeups else longest
        members = self._team.members
        idle = any(not member.postings and self._team.has_use_for(member) for member in members)
        return PATIENCE if idle and any(member.waiting > 1 or member.stuck for member in members) else longest

    def _on_socket(self, member: Member) -> None:
        if member.outbox:
            member.outbox.flush()
            self._watch(member)
        self._read_frames(member)
        if member.receiver.ended and not member.failed:
            member.failed = True
            self._forget_socket(member)
            if member.retired is None:
                self._team.pool.kill(member.worker)

    def _read_frames(self, member: Member) -> bool:
        """Take what a worker has sent; not without end, others may have sent something too: tell whether there is more.

        Where its shared memory ends is looked at first: so whatever a step has logged is handled before its result.
        """
        full, reads = True, 0
        while full and reads < _MOST_READS:
            committed = member.results.committed()
            full = member.receiver.read() == wire.RECEIVE
            reads += 1
            self._handle_frames(member, committed)
        return full

    def _handle_frames(self, member: Member, committed: int) -> None:
        for kind, body, segments in member.receiver.frames():
            if kind == wire.RESULT:
                member.arrived.append((body, segments))
            elif kind == wire.LOG:
                handle_record(wire.restore(body, segments), keep=lambda slot, text: self._keep(member, slot, text))
            elif kind == wire.USAGE:
                slot, cpu, memory = body
                item = member.item_at(slot)
                if item is not None:
                    self._run.usage.note(item, cpu, memory, self._run.layout.item_count)
            elif kind == wire.READY:
                member.ready = True
        before = self._outcomes.taken
        try:
            failed = self._outcomes.commit(member, committed, self._sizer)
        except ValueError:  # it has written where it must not: whatever it says is not to be believed
            member.torn, failed = True, False
            self._team.pool.kill(member.worker)
        if self._outcomes.taken != before:
            self._deaths.note_result()
            if failed and self._run.fail_fast and not self._stopped:
                self.stop()

    def _keep(self, member: Member, slot: int, text: str) -> None:
        """Keep what the step in a slot has written."""
        item = member.item_at(slot)
        if item is not None:
            self._run.usage.keep(item, text)

    def _on_pipe(self, pipe: int) -> None:
        member = self._pipes[pipe]
        if not member.read_pipe(pipe):
            self._ears.remove_pipe(pipe)
            del self._pipes[pipe]
        self._ears.talking |= member.talked

    def _on_guardian(self) -> None:
        for event in self._team.pool.read_events():
            if isinstance(event, GuardianLost):
                raise ExecutorError(event.reason)
            if isinstance(event, Refused):
                self._do_without(self._team.member_of(event.worker), event.error)
            if isinstance(event, Exited):
                self._bury(self._team.member_of(event.worker))

    def _do_without(self, member: Member | None, error: OSError) -> None:
        """Go on with the other workers when one could not be started.

        Raises:
            ExecutorError: If there is none.
        """
        if member is None:
            return
        member.verdict = Verdict(None, None)
        self._team.note_refusal(error)
        self._bury(member)

    # -- limits

    def _look(self, watch: Watch) -> None:
        """Have the workers killed that are in a step that is over its limit.

        First what they have sent is taken, and what they have not begun is taken back: either may show that the step
        has ended, and afterwards the worker can begin nothing else.
        """
        watch.begin_look()
        for member in self._team.members:
            if watch.suspects(member):
                self._read_frames(member)
                take_from(self._run, member, keep=0)
                member.verdict = watch.verdict(member)
                if member.verdict is not None:
                    self._team.pool.kill(member.worker)

    # -- deaths

    def _bury(self, member: Member | None) -> None:
        """Settle what a dead worker leaves: results it has sent, the step to blame, the steps to give back."""
        if member is None:
            return
        while member.receiver.read():
            pass
        self._handle_frames(member, member.results.committed())
        if self._deaths.settle(member) and self._run.fail_fast and not self._stopped:
            self.stop()
        member.read_pipes(last=True)
        self._forget_socket(member)
        if member.retired is None:  # else another has its number
            self._team.lending.bury(member.number)
        for pipe in (member.worker.stdout, member.worker.stderr):
            if self._pipes.pop(pipe, None):
                self._ears.remove_pipe(pipe)
        self._team.dismiss(member)

    def _forget_socket(self, member: Member) -> None:
        fd = member.worker.socket.fileno()
        if self._sockets.pop(fd, None):
            self._ears.remove(fd)
