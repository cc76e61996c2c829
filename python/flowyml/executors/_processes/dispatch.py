"""The dispatch loop: one thread in the driver owns all transport to the worker processes.

```
            ┌── fill: idle workers get batches, then everybody a second one (prefetch); nothing ready: take back
  run() ──▶ │── wait: epoll on sockets, output pipes, the guardian
            ├── handle: results ─▶ run.complete   output ─▶ sys.stdout   deaths ─▶ blame, give back, replace
            └── look, when a step may be over its time: the guardian kills its worker
```

When a worker dies, whole frames that it has sent still count; then the step it claimed last is the one to blame, unless
its result is in, and everything else that was posted to it becomes ready again without having spent an attempt.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError, WorkerLostError
from flowyml.executors._processes import wire
from flowyml.executors._processes.calls import CallWriter
from flowyml.executors._processes.ending import wait_if_ending
from flowyml.executors._processes.logs import handle_record
from flowyml.executors._processes.member import Member, Posting, Verdict
from flowyml.executors._processes.outcomes import Outcomes
from flowyml.executors._processes.pool import Exited, GuardianLost, Refused
from flowyml.executors._processes.watches import watches
from flowyml.executors.batching import BatchSizer

if TYPE_CHECKING:
    from flowyml.executors._processes.team import ProcessTeam
    from flowyml.executors._processes.watches import Watch
    from flowyml.executors._processes.wire import Body
    from flowyml.run import Run

# Some milliseconds of work hide the cost of a message; more would only delay what could go elsewhere.
_TARGET = 0.004
_MOST = 4096
# One batch running and one on its way, so that a worker never waits for the driver.
_DEPTH = 2
# Steps behind one that runs longer than this are taken back for a worker that has nothing to do.
_PATIENCE = 0.001
_LONGEST_WAIT = 1.0
# Portions read from one worker before the others are looked at.
_MOST_READS = 8
# Workers that die one after the other without having begun a step: something is wrong with starting, not with a step.
_MOST_FALSE_STARTS = 3
# Steps that are blamed for such deaths before the run is given up.
_MOST_BLAMED = 3

clock = time.monotonic


class Dispatch:
    """One run on a team of worker processes."""

    def __init__(self, team: ProcessTeam, run: Run) -> None:
        """Prepare the functions and the loop; no step starts."""
        self._team = team
        self._run = run
        self._writer = CallWriter(run, team.lending)
        self._outcomes = Outcomes(run, team.lending)
        self._sizer = BatchSizer(_TARGET, _MOST)
        self._poll = select.epoll()
        self._sockets: dict[int, Member] = {}
        self._pipes: dict[int, Member] = {}
        self._watches = watches(team, run)
        self._false_starts = 0
        self._stopped = self._prepared = False
        self._setup = team.setup(self._writer, run)

    def run(self) -> None:
        """Run all steps."""
        try:
            self._begin()
            while not self._run.finished:
                self._fill()
                self._run.tell()
                self._wait()
            self._end()
        except KeyboardInterrupt:
            self._hear_out()
            raise
        finally:
            self._poll.close()

    def _hear_out(self) -> None:
        """What is finished counts: take the results that were on their way."""
        self._run.cancel()
        for member in self._team.members:
            self._read_frames(member)
        self._end()

    def _end(self) -> None:
        """Show the last output, and let go of the run: workers stay, perhaps for long."""
        self._team.renew()
        for member in self._team.members:
            member.read_pipes(last=True)
            member.open_pipes(lambda _: None)

    # -- giving out work

    def _begin(self) -> None:
        self._team.start(self._run)
        self._poll.register(self._team.pool.fileno(), select.EPOLLIN)
        for member in self._team.members:
            self._register(member)

    def _fill(self) -> None:
        """Give everybody one batch before anybody gets a second."""
        scheduler = self._run.scheduler
        scheduler.advance(clock())
        self._hire()
        for depth in range(1, (1 if self._run.one_by_one else _DEPTH) + 1):
            for member in self._team.members:
                if not scheduler.ready:
                    break
                if len(member.postings) < depth and self._team.has_use_for(member):
                    self._assign(member)
        if not scheduler.ready:
            self._take_back()

    def _hire(self) -> None:
        """Start as many workers as there are steps for, at most the team's size."""
        run, team = self._run, self._team
        wanted = min(team.size, run.scheduler.ready + run.scheduler.running)
        team.renew()
        while not team.crowded and sum(member.retired is None for member in team.members) < wanted:
            if not self._prepared:
                self._prepared = True
                team.prepare(run)
            member = team.hire()
            if member is not None:
                self._register(member)

    def _register(self, member: Member) -> None:
        run, team = self._run, self._team

        def label(slot: int) -> str | None:
            item = member.item_at(slot) if len(team.members) > 1 else None
            return None if item is None else run.item_name(item)

        member.open_pipes(label, lambda slot, text: self._keep(member, slot, text))
        member.shared.clear()
        member.further = 0
        self._sockets[member.worker.socket.fileno()] = member
        self._poll.register(member.worker.socket, select.EPOLLIN)
        for pipe in (member.worker.stdout, member.worker.stderr):
            self._pipes[pipe] = member
            self._poll.register(pipe, select.EPOLLIN)
        self._send(member, self._setup.frames_for(member))

    def _assign(self, member: Member) -> bool:
        """Claim a batch for a worker, post it, send it."""
        run = self._run
        limit = self._sizer.limit(run.scheduler.ready, self._team.size)
        batch = run.claim(member.number, min(limit, self._team.room(member)), clock())
        if batch is None:
            return False
        slot = member.worker.claims.post(len(batch))
        if slot is None:
            run.scheduler.give_back(batch, 0, len(batch))
            return False
        message = self._writer.write(batch)
        for payload, count in self._writer.further[member.further :]:
            self._send(member, wire.frame(wire.FUNCTIONS, [(0,), count], [payload.data]))
        member.further = len(self._writer.further)
        member.postings.append(Posting(batch, slot, message.refused, message.stored))
        member.assigned += len(batch)
        for number in message.shared - member.shared:
            self._send(member, wire.frame(wire.SHARED, number, [self._writer.shared[number]]))
        member.shared |= message.shared
        eager = (wire.MEASURED if self._sizer.is_long else 1) if len(batch) == 1 else 0
        self._send(member, wire.frame(wire.CALLS, [slot, eager, message.groups], message.segments))
        return True

    def _take_back(self) -> None:
        """Give steps that wait behind a long one to workers that have nothing to do."""
        now = clock()
        for member in self._team.members:
            if member.postings or not self._team.has_use_for(member):
                continue
            busiest = max(self._team.members, key=lambda each: each.spare(now, _PATIENCE))
            spare = busiest.spare(now, _PATIENCE)
            if not spare:
                return
            self._take_from(busiest, keep=busiest.waiting - -(-spare // 2))
            self._assign(member)

    def _take_from(self, member: Member, *, keep: int) -> None:
        """Return posted steps to the scheduler, the last ones first."""
        first, count = member.worker.claims.take_back(keep)
        end = first + count
        for posting in list(member.postings):
            start, stop = max(first, posting.first), min(end, posting.first + posting.count)
            if start < stop:
                posting.count = start - posting.first
                member.assigned -= stop - start
                self._run.scheduler.give_back(posting.batch, posting.count, stop - start)
                if posting.done == posting.count:
                    member.finish(posting)

    def stop(self) -> None:
        """Begin nothing new: whatever is not begun is cancelled."""
        self._stopped = True
        self._run.cancel()
        for member in self._team.members:
            self._take_from(member, keep=0)

    def _send(self, member: Member, buffers: list[bytes]) -> None:
        waited = bool(member.outbox)
        member.outbox.send(buffers)
        if bool(member.outbox) != waited:
            self._watch(member)

    def _watch(self, member: Member) -> None:
        """Ask to be told when the socket takes more, while something waits."""
        events = select.EPOLLIN | (select.EPOLLOUT if member.outbox else 0)
        self._poll.modify(member.worker.socket, events)

    # -- hearing from workers

    def _wait(self) -> None:
        """Wait for something to happen and handle it."""
        if self._run.finished:
            return
        with self._run.interrupts.may_raise():
            events = self._poll.poll(self._timeout())
        wait_if_ending()
        for fd, _ in events:
            if fd in self._sockets:
                self._on_socket(self._sockets[fd])
            elif fd in self._pipes:
                self._on_pipe(fd)
            else:
                self._on_guardian()
        for watch in self._watches:
            if clock() >= watch.next:
                self._look(watch)

    def _timeout(self) -> float:
        """Look again when a delay is over, or soon if somebody idles while somebody else may be stuck."""
        wakeups = [watch.next for watch in self._watches]
        if (wakeup := self._run.scheduler.next_wakeup()) is not None:
            wakeups.append(wakeup)
        longest = min(_LONGEST_WAIT, max(0.0, min(wakeups) - clock())) if wakeups else _LONGEST_WAIT
        members = self._team.members
        idle = any(not member.postings and self._team.has_use_for(member) for member in members)
        return _PATIENCE if idle and any(member.waiting > 1 or member.stuck for member in members) else longest

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

    def _read_frames(self, member: Member) -> None:
        """Take what a worker has sent; not without end, others may have sent something too."""
        full, reads = True, 0
        while full and reads < _MOST_READS:
            full = member.receiver.read() == wire.RECEIVE
            reads += 1
            self._handle_frames(member)

    def _handle_frames(self, member: Member) -> None:
        results: list[tuple[Body, list[bytes]]] = []
        for kind, body, segments in member.receiver.frames():
            if kind == wire.RESULT:
                results.append((body, segments))
            elif kind == wire.LOG:
                handle_record(wire.restore(body, segments), keep=lambda slot, text: self._keep(member, slot, text))
            elif kind == wire.USAGE:
                slot, cpu, memory = body
                item = member.item_at(slot)
                if item is not None:
                    self._run.usage.note(item, cpu, memory, self._run.layout.item_count)
            else:
                member.ready = True
        if results:
            self._false_starts = 0
            failed = self._outcomes.commit(member, results, self._sizer)
            if failed and self._run.fail_fast and not self._stopped:
                self.stop()

    def _keep(self, member: Member, slot: int, text: str) -> None:
        """Keep what the step in a slot has written."""
        item = member.item_at(slot)
        if item is not None:
            self._run.usage.keep(item, text)

    def _on_pipe(self, pipe: int) -> None:
        if not self._pipes[pipe].read_pipe(pipe):
            self._poll.unregister(pipe)
            del self._pipes[pipe]

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
                self._take_from(member, keep=0)
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
        self._handle_frames(member)
        self._blame(member)
        member.read_pipes(last=True)
        self._forget_socket(member)
        if member.retired is None:  # else another has its number
            self._team.lending.bury(member.number)
        for pipe in (member.worker.stdout, member.worker.stderr):
            if self._pipes.pop(pipe, None):
                self._poll.unregister(pipe)
        self._team.dismiss(member)

    def _blame(self, member: Member) -> None:
        guilty = member.worker.claims.last_claimed() if member.begun else None
        if guilty is None and member.postings and member.verdict is None:
            guilty = self._count_false_start(member)
        failed = False
        for posting in list(member.postings):
            if guilty is not None and posting.first <= guilty < posting.first + posting.count:
                error = self._reason(member, guilty, posting.items[posting.done])
                failed = self._outcomes.fail(posting, error, member.began)
            left = posting.count - posting.done
            if left:
                self._run.scheduler.give_back(posting.batch, posting.done, left)
        member.postings.clear()
        if failed and self._run.fail_fast and not self._stopped:
            self.stop()

    def _reason(self, member: Member, guilty: int, item: int) -> BaseException:
        """Say why the step in a slot took its worker along."""
        verdict = member.verdict
        if verdict is not None and verdict.slot == guilty and verdict.reason is not None:
            return verdict.reason
        return WorkerLostError(self._run.item_name(item), member.worker.exitcode)

    def _count_false_start(self, member: Member) -> int | None:
        """Return the slot to blame when workers die again and again before they begin a step.

        Something that comes before a step may be its own: an argument that takes all memory, a module that crashes when
        it is imported. So the step that was next is blamed at every third death; and nobody any more when that does
        not help either.
        """
        self._false_starts += 1
        if self._false_starts >= _MOST_FALSE_STARTS * (_MOST_BLAMED + 1) or not member.ready:
            self._check_starts(member)
        first = member.postings[0]
        return first.first + first.done if member.ready and self._false_starts % _MOST_FALSE_STARTS == 0 else None

    def _check_starts(self, member: Member) -> None:
        """Give the run up if workers do not even start.

        Raises:
            ExecutorError: They died one after the other.
        """
        if self._false_starts >= _MOST_FALSE_STARTS:
            how = "before they began a step" if member.ready else "when they started"
            lost = WorkerLostError(self._run.item_name(member.postings[0].items[0]), member.worker.exitcode)
            raise ExecutorError(
                f"{self._false_starts} worker processes died one after the other {how}; the last step was: {lost}"
            )

    def _forget_socket(self, member: Member) -> None:
        fd = member.worker.socket.fileno()
        if self._sockets.pop(fd, None):
            self._poll.unregister(fd)
