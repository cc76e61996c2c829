"""The thread backend: daemon threads that pull from the scheduler themselves.

```
Team (kept warm by the executor): threads ──claim──▶ scheduler ──▶ call steps ──complete──▶ scheduler
                                     ▲                               │
                                     └── an idle worker takes back what a busy one has claimed and not begun
```

No queue and no future per step: a worker claims a batch, calls its steps and reports them. A worker that finds nothing
ready looks whether another sits in a long step: what that one has done already is reported, and half of what it has
claimed behind the long one goes back to the scheduler.
Idle threads are joined at shutdown. Daemon threads, since a step that never ends must not keep the interpreter alive;
they end with their executor, which they do not hold.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

from flowyml.executors import _cpus
from flowyml.executors._inline import Current, Report, call_items, clock
from flowyml.executors.batching import BatchSizer
from flowyml.step_context import telling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml._core import Batch
    from flowyml.run import Run

# Half a millisecond of work in a batch makes the cost of claiming (about a microsecond) vanish.
_TARGET = 0.0005
_MOST = 1024
# How often an idle worker looks for steps to take back.
_LOOK_AROUND = 0.02
# What stands before a step that runs longer than this is reported without waiting for it.
_PATIENCE = 0.005
# The caller's thread waits in slices, so that Ctrl-C is seen.
_SLICE = 0.1


# The executors that this thread works for, the innermost first; coroutines and their threads work for them, too.
owners: ContextVar[tuple[object, ...]] = ContextVar("flowyml_owners", default=())


def works_for(executor: object) -> bool:
    """Tell whether the calling thread is in a step of an executor: it must not wait for that executor's workers."""
    return any(owner is executor for owner in owners.get())


class Claimed:
    """What one worker has claimed: it takes steps from the left, others take back from the right what is not begun."""

    __slots__ = ("_lock", "_reported", "batch", "end", "report", "waiting")

    def __init__(self) -> None:
        """Start with nothing."""
        self._lock = threading.Lock()
        self._reported = 0
        self.batch: Batch | None = None
        self.waiting: deque[int] = deque()
        self.end = 0
        self.report = Report()

    def begin(self, batch: Batch) -> None:
        """Take over a batch."""
        with self._lock:
            self.batch, self.waiting, self.end = batch, deque(batch.items()), len(batch)
            self.report, self._reported = Report(), 0

    def deliver(self, run: Run, *, patience: float = 0.0) -> tuple[int, bool]:
        """Report to the run what is done and was not reported; return how many steps that were, and if one failed.

        Args:
            run: The run.
            patience: Do nothing while the worker has ended a step more recently than this.
        """
        with self._lock:
            if self.batch is None or len(self.report.ends) == self._reported:
                return 0, False
            if patience and clock() - self.report.ends[-1] < patience:
                return 0, False
            part = self.report.part(self._reported)
            position, self._reported = self._reported, self._reported + len(part.ends)
            failed = run.complete(self.batch, position, part)
            return len(part.ends), failed > 0

    def __iter__(self) -> Iterator[int]:
        """Take the items one by one, until nothing is left here."""
        take = self.waiting.popleft
        try:
            while True:
                yield take()
        except IndexError:
            return

    def take_back(self, run: Run, *, everything: bool = False) -> bool:
        """Give half (or all) of what is not begun back to the scheduler; tell whether there was something."""
        with self._lock:
            wanted = len(self.waiting) if everything else -(-len(self.waiting) // 2)
            taken = 0
            while taken < wanted and self.waiting:
                try:
                    self.waiting.pop()
                except IndexError:
                    break
                taken += 1
            if taken and self.batch is not None:
                self.end -= taken
                run.scheduler.give_back(self.batch, self.end, taken)
            return taken > 0


class ThreadRun:
    """One run on threads: what its workers share.

    Args:
        run: The run.
        workers: How many threads work on it.
        owners: The executors that wait for it: the one it runs on, and those that the thread that began it works for.
    """

    def __init__(self, run: Run, workers: int, owners: tuple[object, ...]) -> None:
        """Prepare the shares of the workers."""
        self.run = run
        self.workers = workers
        self.owners = owners
        self.claims = [Claimed() for _ in range(workers)]
        self.sizer = BatchSizer(_TARGET, _MOST)
        self.trouble: BaseException | None = None
        self._stopped = False
        self._left = threading.Semaphore(0)

    def work(self, worker: int) -> None:
        """Be a worker until the run is finished."""
        try:
            with telling(Current(self.run, self.claims[worker])):
                while not (self._stopped or self.run.finished):
                    self._one_batch(worker)
        except BaseException as error:  # noqa: BLE001  an error of ours must reach the caller
            self.trouble = self.trouble or error
            self.run.cancel()
        finally:
            self._left.release()

    def wait(self) -> None:
        """Wait in the caller's thread until all is done and every worker has left."""
        with self.run.interrupts.may_raise():
            while not self.run.scheduler.wait(self.run.patience(_SLICE)):
                self.run.interrupts.check()
                if self.trouble is not None:
                    raise self.trouble
                self.run.tell()
            for _ in range(self.workers):
                while not self._left.acquire(timeout=_SLICE):
                    pass
        if self.trouble is not None:
            raise self.trouble

    def stop(self) -> None:
        """Let no worker begin another step; what is done counts."""
        self._stopped = True
        self.run.cancel()
        for claimed in self.claims:
            claimed.take_back(self.run, everything=True)
            claimed.deliver(self.run)

    def _one_batch(self, worker: int) -> None:
        run, claimed = self.run, self.claims[worker]
        limit = self.sizer.limit(run.scheduler.ready, self.workers)
        batch = run.claim(worker, limit, clock(), 0.0)
        if batch is None:
            batch = None if self._look_around(worker) else run.claim(worker, 1, clock(), _LOOK_AROUND)
        if batch is None:
            return
        claimed.begin(batch)
        if self._stopped:
            claimed.take_back(run, everything=True)
        report = claimed.report
        call_items(run, claimed, report)
        if report.ends:
            self.sizer.observe(len(report.ends), report.ends[-1] - report.start)
            self._deliver(claimed)

    def _deliver(self, claimed: Claimed, *, patience: float = 0.0) -> int:
        count, failed = claimed.deliver(self.run, patience=patience)
        if failed and self.run.fail_fast:
            self.stop()
        return count

    def _look_around(self, worker: int) -> bool:
        """Report for those that are in a long step, and take back from the worker that holds the most."""
        mine = self.claims[worker]
        delivered = sum(self._deliver(each, patience=_PATIENCE) for each in self.claims if each is not mine)
        busiest = max(self.claims, key=lambda claimed: len(claimed.waiting))
        taken = busiest is not mine and busiest.take_back(self.run)
        return bool(delivered or taken)


Inbox: TypeAlias = "queue.SimpleQueue[tuple[ThreadRun, int] | None]"


class Team:
    """Threads that stay warm between runs.

    Args:
        size: How many.
        owner: The executor whose workers they are; see `works_for`.
    """

    def __init__(self, size: int, owner: object) -> None:
        """Start no thread yet."""
        self.size = size
        self._owner = weakref.ref(owner)
        self._inboxes: list[Inbox] = []
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, _send_away, self._inboxes)

    def execute(self, run: Run) -> None:
        """Run all steps of a run."""
        workers = run.useful(self.size)
        shared = ThreadRun(run, workers, (self._owner(), *owners.get()))
        while len(self._threads) < workers:
            self._start_thread()
        for worker in range(workers):
            self._inboxes[worker].put((shared, worker))
        try:
            shared.wait()
        except BaseException:
            shared.stop()
            self.abandon()
            raise

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

    def _start_thread(self) -> None:
        inbox: Inbox = queue.SimpleQueue()
        name = f"flowyml-worker-{len(self._threads)}"
        thread = threading.Thread(target=_serve, args=(inbox, self.size), name=name, daemon=True)
        thread.start()
        self._inboxes.append(inbox)
        self._threads.append(thread)


def _send_away(inboxes: list[Inbox]) -> None:
    """Tell threads to end."""
    while inboxes:
        inboxes.pop().put(None)


def _serve(inbox: Inbox, size: int) -> None:
    _cpus.thread_share.cpus = _cpus.share_of(size)
    while (work := inbox.get()) is not None:
        shared, worker = work
        owners.set(shared.owners)
        shared.work(worker)
        owners.set(())
        del shared, work
