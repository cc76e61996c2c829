"""The thread backend: daemon threads that claim from the scheduler themselves.

```
ThreadBackend (kept warm by the executor): threads ──claim──▶ scheduler ──▶ call steps ──complete──▶ scheduler
                                             ▲                               │
                                             └── an idle thread steals items that a busy one has claimed and not begun
```

No queue and no future per step: a thread claims a batch, calls its steps and reports them. A thread that finds nothing
ready checks if another one is in a long step: the steps that have ended there are reported, and half of the items
claimed behind the long step go back to the scheduler. The thread that waits for the run keeps the time limits of
steps: a thread whose step exceeds its limit is abandoned and replaced.

Idle threads are joined at shutdown. They are daemon threads, since a step that never ends must not keep the interpreter
alive; they end with their executor, which they do not hold.
"""

from __future__ import annotations

import queue
import threading
import weakref
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, TypeAlias

from flowyml._extension import ThreadCallLoop
from flowyml.diagnostics.tracebacks import hide_internal_frames, user_code_boundary
from flowyml.executors import cpus
from flowyml.executors.in_process import (
    MIN_REPORT_AGE_SECONDS,
    REPORT_INTERVAL_SECONDS,
    CurrentStep,
    ThreadBatch,
    clock,
    look_in,
)
from flowyml.executors.initializer import initializer_failed
from flowyml.steps.current_step import step_context_provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.runtime.run import Run

# Half a millisecond of work in a batch makes the cost of claiming (about a microsecond) vanish.
_TARGET_SECONDS = 0.0005
_MAX_BATCH = 1024
# How often an idle worker looks for steps to take back.
_STEAL_INTERVAL_SECONDS = 0.02
# What stands before a step that runs longer than this is reported without waiting for it.
_MIN_STEP_AGE_SECONDS = 0.005
# The caller's thread waits in slices, so that Ctrl-C is seen.
_WAIT_SECONDS = 0.1


# The executors that this thread works for, the innermost first; coroutines and their threads work for them, too.
owners: ContextVar[tuple[object, ...]] = ContextVar("flowyml_owners", default=())


def works_for(executor: object) -> bool:
    """Return True if the calling thread is in a step of an executor: it must not wait for that executor's workers."""
    return any(owner is executor for owner in owners.get())


class ThreadRun:
    """One run on threads: what its workers share.

    Args:
        run: The run.
        workers: How many threads work on it.
        owners: The executors that wait for it: the one it runs on, and those that the thread that began it works for.
        late: Whether threads may be kept from coming by an initializer: who has not come then is not waited for.
    """

    def __init__(self, run: Run, workers: int, owners: tuple[object, ...], *, late: bool) -> None:
        self.run = run
        self.workers = workers
        self.owners = owners
        self.limits = run.time_limits
        self.claims = [self._claimed() for _ in range(workers)]
        self.trouble: BaseException | None = None
        self._stopped = False
        self._left = threading.Semaphore(0)
        self._gate = threading.Lock()
        self._may_join_late = late
        self._closed = False  # no thread that is late may come in any more
        self._active_threads = 0 if late else workers  # threads to wait for: those given up are replaced, or were late

    def _claimed(self) -> ThreadBatch:
        most, holds = min(_MAX_BATCH, self.run.max_batch_size), self.limits is not None
        return ThreadBatch(
            self.limits, ThreadCallLoop(target=_TARGET_SECONDS, most=most, workers=self.workers, holds=holds)
        )

    @user_code_boundary
    def prepare(self, initializer: Callable[[], object]) -> bool:
        """Call the initializer in a thread; return True if the thread may be a worker."""
        try:
            initializer()
        except BaseException as error:  # noqa: BLE001  whatever it raises ends the run
            self._give_up(error)
            return False
        return True

    def _give_up(self, error: BaseException) -> None:
        """End the run because an initializer raised, unless the run is over: then the next one tries again."""
        if self._closed or self.run.finished:
            return
        try:
            hide_internal_frames(error)
            self.trouble = self.trouble or initializer_failed(error)
        finally:  # whatever comes of step_context_provider it
            if self.trouble is None:
                self.trouble = error
            self.run.cancel()

    def work(self, worker: int) -> None:
        """Be a worker until the run is finished, or until this thread is given up; not if the run is over."""
        if not self._enter():
            return
        claimed = self.claims[worker]
        try:
            with step_context_provider(CurrentStep(self.run, claimed)):
                while not (self._stopped or claimed.abandoned or self.run.finished):
                    self._one_batch(worker, claimed)
        except BaseException as error:  # noqa: BLE001  an error of ours must reach the caller
            if not claimed.abandoned:
                self.trouble = self.trouble or error
                self.run.cancel()
        finally:
            if not claimed.abandoned:
                self._left.release()

    def _enter(self) -> bool:
        """Join the run, which then waits for this thread; return False if the run is over."""
        with self._gate:
            comes = not (self._may_join_late and self._closed)
            self._active_threads += self._may_join_late and comes
            return comes

    def _close(self) -> int:
        """Let no thread join any more; return how many have to be waited for."""
        with self._gate:
            self._closed = True
            return self._active_threads

    def wait(self, replace: Callable[[ThreadRun, int], None]) -> None:
        """Wait in the caller's thread until all is done and every worker has left, but for those that came late.

        Args:
            replace: Puts another thread in the place of a worker that was given up.
        """
        while not self._pause(self._look(replace)):
            if self.trouble is not None:
                raise self.trouble
        with self.run.interrupts.may_raise():
            for _ in range(self._close()):
                while not self._left.acquire(timeout=_WAIT_SECONDS):
                    pass
        if self.trouble is not None:
            raise self.trouble

    def _pause(self, seconds: float) -> bool:
        """Wait, and deliver events; return True if the run is finished."""
        with self.run.interrupts.may_raise():
            finished = self.run.scheduler.wait(seconds)
            if not finished:
                self.run.deliver_events()
                self.run.check_progress()
            return finished

    def _look(self, replace: Callable[[ThreadRun, int], None]) -> float:
        """Give up the threads whose step is over its time; return how long to wait before the next look."""
        longest = self.run.poll_interval(_WAIT_SECONDS)
        if self.run.reports_early:
            longest = min(longest, REPORT_INTERVAL_SECONDS)
            for claimed in self.claims:
                self._deliver(claimed, patience=MIN_REPORT_AGE_SECONDS)
            self.run.flush_journal()
        if self.limits is None:
            return longest
        for worker, claimed in enumerate(self.claims):
            if claimed.expire(self.run):
                self.claims[worker] = self._claimed()
                with self._gate:
                    self._active_threads -= self._may_join_late
                replace(self, worker)
                if self.run.fail_fast and self.run.scheduler.cancelled:
                    self.stop()
        return min(longest, look_in(min(claimed.due() for claimed in self.claims), self.limits))

    def stop(self) -> None:
        """Let no worker begin another step; ended steps are reported."""
        self._stopped = True
        self.run.cancel()
        for claimed in self.claims:
            claimed.take_back(self.run, everything=True)
            claimed.deliver(self.run)

    def leave(self) -> None:
        """Stop, and let nothing that is still running reach the run."""
        self._close()
        self.stop()
        for claimed in self.claims:
            claimed.leave()

    def _one_batch(self, worker: int, claimed: ThreadBatch) -> None:
        run = self.run
        limit = claimed.turn.limit(run.scheduler.ready)
        batch = run.claim(worker, limit, clock(), 0.0)
        if batch is None:
            batch = None if self._look_around(claimed) else run.claim(worker, 1, clock(), _STEAL_INTERVAL_SECONDS)
        if batch is None:
            return
        claimed.begin(batch)
        if self._stopped:
            claimed.take_back(run, everything=True)
        claimed.call(run)
        if claimed.turn.left:  # one has failed: before the next begins, the run is to decide
            claimed.take_back(run, everything=True)
        if not claimed.abandoned:
            self._deliver(claimed)
            run.flush_journal()

    def _deliver(self, claimed: ThreadBatch, *, patience: float = 0.0) -> int:
        count, failed = claimed.deliver(self.run, patience=patience)
        if failed and self.run.fail_fast:
            self.stop()
        return count

    def _look_around(self, mine: ThreadBatch) -> bool:
        """Report for those that are in a long step, and take back from the worker that holds the most."""
        delivered = sum(self._deliver(each, patience=_MIN_STEP_AGE_SECONDS) for each in self.claims if each is not mine)
        busiest = max(self.claims, key=lambda claimed: claimed.turn.left)
        taken = busiest is not mine and busiest.take_back(self.run)
        return bool(delivered or taken)


Inbox: TypeAlias = "queue.SimpleQueue[tuple[ThreadRun, int] | None]"


class ThreadBackend:
    """Threads that stay warm between runs.

    Args:
        size: How many.
        owner: The executor whose workers they are; see `works_for`.
        initializer: Called in each before its first step.
    """

    def __init__(self, size: int, owner: object, initializer: Callable[[], object] | None = None) -> None:
        self.size = size
        self._initializer = initializer
        self._owner = weakref.ref(owner)
        self._inboxes: list[Inbox] = []
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, _send_away, self._inboxes)

    def execute(self, run: Run) -> None:
        """Run all steps of a run."""
        workers = run.max_useful_workers(self.size)
        run.share_devices()
        run.steps  # noqa: B018  made here: without a global lock, objects that an idle thread made would hold the run
        late = self._initializer is not None
        shared = ThreadRun(run, workers, (self._owner(), *owners.get()), late=late)
        while len(self._threads) < workers:
            self._start_thread(len(self._threads))
        for worker in range(workers):
            self._inboxes[worker].put((shared, worker))
        try:
            shared.wait(self._replace)
        except BaseException:
            shared.leave()
            self.abandon()
            raise

    def _replace(self, shared: ThreadRun, worker: int) -> None:
        """Start another thread for a worker that was given up; the old one ends after the step that it is in."""
        self._inboxes[worker].put(None)
        self._start_thread(worker)
        self._inboxes[worker].put((shared, worker))

    def abandon(self) -> None:
        """Forget the threads: they end after the step that they are in, if it ends."""
        _send_away(self._inboxes)
        self._threads = []

    def shutdown(self) -> None:
        """End the threads and wait for them."""
        threads = self._threads
        self.abandon()
        for thread in threads:
            thread.join()

    def _start_thread(self, worker: int) -> None:
        inbox: Inbox = queue.SimpleQueue()
        name = f"flowyml-worker-{worker}"
        thread = threading.Thread(target=_serve, args=(inbox, self.size, self._initializer), name=name, daemon=True)
        Context().run(thread.start)  # it serves later runs, too: where threads inherit a context, not the caller's
        self._inboxes[worker : worker + 1] = [inbox]
        self._threads[worker : worker + 1] = [thread]


def _send_away(inboxes: list[Inbox]) -> None:
    """Tell threads to end."""
    while inboxes:
        inboxes.pop().put(None)


def _serve(inbox: Inbox, size: int, initializer: Callable[[], object] | None) -> None:
    cpus.thread_share.cpus = cpus.share_of(size)
    while (work := inbox.get()) is not None:
        shared, worker = work
        owners.set(shared.owners)
        if initializer is None or shared.prepare(initializer):
            initializer = None  # called once
            shared.work(worker)
        owners.set(())
        del shared, work
