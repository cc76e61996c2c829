"""The dispatch loop: one thread in the driver owns all transport to the worker processes.

```
            ┌── fill: workers get batches, see `giving.py`
  run() ──▶ │── wait: for sockets, the guardian, output pipes, see `lines.py`
            ├── handle: results ─▶ run.complete   output ─▶ sys.stdout   deaths ─▶ blame, give back, replace
            └── look, when a step may be over its time: the guardian kills its worker
```

When a worker dies, whole frames that it has sent still count; then the step it claimed last is the one to blame, unless
its result is in, and everything else that was posted to it becomes ready again without having spent an attempt.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flowyml.errors import ExecutorError
from flowyml.executors.process.driver.assignment import PATIENCE, BatchAssigner, take_from
from flowyml.executors.process.driver.connections import WorkerConnections
from flowyml.executors.process.driver.interpreter_exit import wait_if_ending
from flowyml.executors.process.driver.limit_monitor import watches
from flowyml.executors.process.driver.output import keep
from flowyml.executors.process.driver.result_decoder import ResultDecoder, WorkerLossHandler, no_start
from flowyml.executors.process.driver.worker_handle import KillDecision
from flowyml.executors.process.pool.worker_process import SpawnFailed, SupervisorLost, WorkerExited
from flowyml.executors.process.protocol import wire
from flowyml.executors.process.protocol.log_records import handle_record

if TYPE_CHECKING:
    from flowyml.executors.process.driver.backend import WorkerTeam
    from flowyml.executors.process.driver.limit_monitor import LimitMonitor
    from flowyml.executors.process.driver.worker_handle import WorkerHandle
    from flowyml.runtime.run import Run

_LONGEST_WAIT = 1.0
# How long a result may lie in shared memory, behind which its worker is in a long step, if it is to be written down.
_GLANCE = 0.01
# Portions read from one worker before the others are looked at.
_MOST_READS = 8

clock = time.monotonic


class Dispatcher:
    """One run on a team of worker processes."""

    def __init__(self, team: WorkerTeam, run: Run) -> None:
        self._team = team
        self._run = run
        self._lines = WorkerConnections()
        self._giving = BatchAssigner(team, run, self._lines)
        self._outcomes = ResultDecoder(run, team.lending)
        self._watches = watches(team, run)
        self._deaths = WorkerLossHandler(run, self._outcomes)
        self._stopped = False

    def run(self) -> None:
        """Run all steps."""
        try:
            self._team.start(self._run)
            self._giving.begin()
            while not self._run.finished:
                self._giving.fill()
                self._lines.listen(self._team.pool.fileno())
                self._giving.show_output()
                self._run.deliver_events()
                self._wait()
            self._end()
        except KeyboardInterrupt:
            self._hear_out()
            raise
        finally:
            self._lines.close()

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
        self._giving.end()

    def stop(self) -> None:
        """Begin nothing new: whatever is not begun is cancelled."""
        self._stopped = True
        self._run.cancel()
        for member in self._team.members:
            take_from(self._run, member, keep=0)

    # -- hearing from workers

    def _wait(self) -> None:
        """Wait for something to happen and handle it."""
        if self._run.finished:
            return
        brief = self._giving.is_brief
        timeout = 0.0 if self._ask_to_be_woken(brief=brief) else PATIENCE if brief else self._timeout()
        if self._run.finished:
            return
        if timeout and self._run.check_progress():
            return
        with self._run.interrupts.may_raise():
            heard = self._lines.hear(timeout)
        wait_if_ending()
        for member in self._team.members:
            member.results.awake()
        for fd in heard:
            if (speaker := self._lines.at(fd)) is not None:
                self._on_socket(speaker)
            elif not self._lines.read_pipe(fd):
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
        each = not brief and self._giving.is_keen
        for member in self._team.members:
            member.results.want(each)
        finished, taken = self._outcomes.finished, self._outcomes.taken
        self._take_results()
        return self._outcomes.finished != finished or (each and self._outcomes.taken != taken)

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
        longest = self._run.poll_interval(_LONGEST_WAIT)
        if self._run.reports_early and any(member.open > 1 for member in self._team.members):
            longest = min(longest, _GLANCE)
        longest = min(longest, max(0.0, min(wakeups) - clock())) if wakeups else longest
        return PATIENCE if self._giving.is_waiting else longest

    def _on_socket(self, member: WorkerHandle) -> None:
        self._lines.send_rest(member)
        self._read_frames(member)
        if member.receiver.ended and not member.failed:
            member.failed = True
            self._lines.hang_up(member)
            if member.retired is None:
                self._team.pool.kill(member.worker)

    def _read_frames(self, member: WorkerHandle) -> bool:
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

    def _handle_frame(self, member: WorkerHandle, kind: int, body: Any, segments: list[bytes]) -> None:
        run = self._run
        if kind == wire.RESULT:
            result = wire.ResultBody._make(body)
            member.arrived.append(result._replace(value=wire.restore(result.value, segments)) if segments else result)
        elif kind == wire.LOG:
            handle_record(wire.restore(body, segments), keep=lambda slot, text: keep(run, member, slot, text))
        elif kind == wire.USAGE:
            slot, cpu, memory = body
            is_open = bool(member.postings) and member.is_posted(slot)  # else it is of an earlier run
            item = member.item_at(slot) if is_open else None
            if item is not None:
                run.usage.note(item, cpu, memory, run.item_index.item_count)
        elif kind == wire.READY:
            member.ready = True
        elif kind == wire.INITIALIZED:
            member.initialized = body
        elif kind == wire.NO_START:
            number, error = body
            if number == self._team.runs and not run.finished:  # else it tries again when it is set up for a run
                raise no_start(error)

    def _handle_frames(self, member: WorkerHandle, committed: int) -> None:
        for frame in member.receiver.frames():
            self._handle_frame(member, *frame)
        before, torn = self._outcomes.taken, member.torn
        failed = self._outcomes.commit(member, committed, self._giving.sizer)
        if member.torn and not torn:
            take_from(self._run, member, keep=0)  # so that nothing begins that runs again elsewhere
            self._team.pool.kill(member.worker)
        if self._outcomes.taken != before:
            self._deaths.note_result()
            if failed and self._run.fail_fast and not self._stopped:
                self.stop()

    def _on_guardian(self) -> None:
        for event in self._team.pool.read_events():
            if isinstance(event, SupervisorLost):
                raise ExecutorError(event.reason)
            if isinstance(event, SpawnFailed):
                self._do_without(self._team.member_of(event.worker), event.error)
            if isinstance(event, WorkerExited):
                self._bury(self._team.member_of(event.worker))

    def _do_without(self, member: WorkerHandle | None, error: OSError) -> None:
        """Go on with the other workers when one could not be started.

        Raises:
            ExecutorError: If there is none.
        """
        if member is None:
            return
        member.verdict = KillDecision(None, None)
        self._team.note_refusal(error)
        self._bury(member)

    # -- limits

    def _look(self, watch: LimitMonitor) -> None:
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

    def _bury(self, member: WorkerHandle | None) -> None:
        """Settle what a dead worker leaves: results it has sent, the step to blame, the steps to give back."""
        if member is None:
            return
        while member.receiver.read():
            pass
        self._handle_frames(member, member.results.committed())
        member.read_pipes(last=True)  # as long as it is known whose it is
        if self._deaths.settle(member) and self._run.fail_fast and not self._stopped:
            self.stop()
        if member.retired is None:  # else another has its number
            self._team.lending.bury(member.number)
        self._lines.remove(member)
        self._team.dismiss(member)
