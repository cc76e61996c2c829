"""The worker processes of one executor, kept warm between runs.

The team knows who its members are and who may be one; who gets which steps it leaves to the dispatch loop.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
import time
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError
from flowyml.executors._processes.crossing import wire
from flowyml.executors._processes.crossing.frame import capture
from flowyml.executors._processes.crossing.importable import changed_modules, user_modules
from flowyml.executors._processes.descriptors import raise_limit, reason_of
from flowyml.executors._processes.dispatching.ending import watch
from flowyml.executors._processes.dispatching.familiar import familiar, first_imports
from flowyml.executors._processes.dispatching.lending import Lending
from flowyml.executors._processes.dispatching.member import Member
from flowyml.executors._processes.dispatching.setting_up import Setup
from flowyml.executors._processes.pooling.pool import GRACE
from flowyml.messages.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.executors._processes.crossing.importable import Fingerprint
    from flowyml.executors._processes.dispatching.calls import CallWriter
    from flowyml.executors._processes.pooling.pool import WorkerPool
    from flowyml.executors._processes.pooling.workers import Worker
    from flowyml.running.run import Run

_log = logging.getLogger("flowyml")
clock = time.monotonic


class ProcessTeam:
    """Worker processes under one guardian.

    Args:
        pool: Where its workers come from; how many at most, it knows.
        max_tasks: After how many steps a worker is replaced; `None` for never.
        memory_limit: Bytes that a worker may have for itself; `None` for any number.
        memory_budget: Bytes that large values may have in memory together; `None` for any number.
        initializer: Called in each worker before its first step.

    Attributes:
        several: Whether there were several workers at once in this run.
    """

    def __init__(
        self,
        pool: WorkerPool,
        *,
        max_tasks: int | None = None,
        memory_limit: int | None = None,
        memory_budget: int | None = None,
        initializer: Callable[[], object] | None = None,
    ) -> None:
        self.initializer = initializer
        self.size = pool.max_workers
        self.max_tasks = max_tasks
        self.memory_limit = memory_limit
        self.pool = pool
        self.lending = Lending(memory_budget)
        self.members: list[Member] = []
        self.several = False
        self.runs = 0  # how many have begun
        self.crowded = False  # no more files may be open, so no more workers
        self._refusals, self._can_raise = 0, False
        self._retires = False  # some worker was told to end
        self._start_variables: dict[str, str] | None = None
        self._modules: dict[str, Fingerprint] = {}

    def setup(self, writer: CallWriter, run: Run) -> Setup:
        """Look at the driver as it is now; what only a new process can see means new workers."""
        frame, modules, loading = capture(), user_modules(), 0.0 if run.limits is None else wire.LOADING
        if changed_modules(self._modules, modules) or self._start_variables not in (None, frame.start):
            self.shutdown()
        self._start_variables, self._modules = frame.start, modules
        about = (run.run_id, run.plan.name, run.seed, loading, run.checkpoint_dir)
        self.runs += 1
        return Setup(frame, writer, about, self.lending, (self.runs, self.memory_limit))

    def begin_processes(self, run: Run) -> None:
        """Start the guardian, unless it lives, and what imports for the first workers."""
        with run.interrupts.held_back():
            self.pool.start(lambda: first_imports(run))

    def start(self, run: Run) -> None:
        """Start the guardian, and clear away what died since the last run."""
        if self.pool.guardian_pid is None:  # it was looked after, and has been ended since
            self.begin_processes(run)
        self.crowded, self._refusals, self._can_raise = False, 0, False
        watch()
        self.pool.read_events()
        for member in [each for each in self.members if each.worker.ended or each.worker not in self.pool.workers]:
            self.dismiss(member)
        for member in self.members:
            if member.results.waiting and not member.torn:  # a stray result since the last run: of no step of this one
                member.torn = True
                self.pool.kill(member.worker)
        self.several = len(self.members) > 1

    def prepare(self) -> None:
        """Have workers that start now forked with the large packages that were imported since the last run."""
        self.pool.prepare(familiar())

    def hire(self) -> Member | None:
        """Start another worker; `None` where no more files may be open: then those that are there do the work.

        Raises:
            ExecutorError: If there is none.
        """
        taken = {member.number for member in self.members if member.retired is None}
        number = next(k for k in range(self.size + 1) if k not in taken)
        try:
            member = Member(self._spawn(), number, initialized=self.initializer is None)
        except OSError as error:
            self.note_crowd(error)
            return None
        self.members.append(member)
        self.several = self.several or len(self.members) > 1
        return member

    def _spawn(self) -> Worker:
        try:
            return self.pool.spawn_worker(anew=False)
        except OSError as error:
            if error.errno != errno.EMFILE or not raise_limit():
                raise
        return self.pool.spawn_worker(anew=False)

    def note_refusal(self, error: OSError) -> None:
        """Take in that the guardian could not start a worker; where its limit of open files can be raised, others can.

        Raises:
            ExecutorError: If there is none.
        """
        guardian, self._refusals = self.pool.guardian_pid, self._refusals + 1
        if error.errno == errno.EMFILE and guardian is not None:
            self._can_raise = raise_limit(guardian) or self._can_raise
        if not self._can_raise or self._refusals > self.size:
            self.note_crowd(error)

    def note_crowd(self, error: OSError) -> None:
        """Take in that this run can have no more workers, and say so.

        Raises:
            ExecutorError: If it has none.
        """
        reason = reason_of(error)
        count = sum(member.serves for member in self.members)
        if not count:
            raise ExecutorError(f"a worker process could not be started: {reason}") from error
        if not self.crowded:
            self.crowded = True
            many = f"{counted(count, 'worker')} instead of {self.size}"
            _log.warning("%s: the run goes on with %s", reason, many)

    def room(self, member: Member) -> int:
        """Return how many more steps a worker may be given in its life."""
        return sys.maxsize if self.max_tasks is None else self.max_tasks - member.assigned

    def has_use_for(self, member: Member) -> bool:
        """Tell whether a worker can be given steps."""
        return member.serves and self.room(member) > 0

    def renew(self) -> None:
        """Let workers end that have done their share: by themselves, so that what is registered with `atexit` runs."""
        if self.max_tasks is None and not self._retires:
            return
        for member in self.members:
            if member.retired is not None:
                if clock() > member.retired + GRACE:
                    self.pool.kill(member.worker)
            elif not member.postings and self.room(member) <= 0:
                self.retire(member)

    def retire(self, member: Member) -> None:
        """Let a worker that has nothing to do end; until it has, it is a member that serves no more."""
        self._retires = True
        member.retired = clock()
        with contextlib.suppress(OSError):  # it has ended already
            member.worker.socket.shutdown(socket.SHUT_WR)

    @property
    def is_complete(self) -> bool:
        """Whether there may be no more workers."""
        return self.crowded or sum(member.retired is None for member in self.members) >= self.size

    def dismiss(self, member: Member) -> None:
        """Let go of a worker that has ended."""
        self.members.remove(member)
        self._retires = any(each.retired is not None for each in self.members)
        if member.worker.ended:
            self.pool.release(member.worker)

    def member_of(self, worker: Worker) -> Member | None:
        """Return the member of a worker."""
        return next((member for member in self.members if member.worker is worker), None)

    def shutdown(self, grace: float | None = None) -> None:
        """End all workers and the guardian; those that come after them see the driver as it is then."""
        members, self.members = self.members, []
        self._start_variables, self._modules = None, {}
        if grace is None:
            self.pool.shutdown()
        else:
            self.pool.shutdown(grace)
        del members  # what they look at stays until they are gone
        self.lending.bury_all()
