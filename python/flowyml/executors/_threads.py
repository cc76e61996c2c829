"""The thread backend: daemon threads that pull from the scheduler themselves.

```
Team (kept warm by the executor): threads ──claim──▶ scheduler ──▶ call steps ──complete──▶ scheduler
                                     ▲                               │
                                     └── an idle worker takes back what a busy one has claimed and not begun
```

No queue and no future per step: a worker claims a batch, calls its steps and reports them. A worker that finds nothing
ready looks whether another sits on claimed steps behind a long one and gives half of them back to the scheduler.
Idle threads are joined at shutdown. Daemon threads, since a step that never ends must not keep the interpreter alive.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING

from flowyml.executors import _cpus
from flowyml.executors._inline import Report, call_items, clock
from flowyml.executors.batching import BatchSizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml._core import Batch
    from flowyml.run import Run

# Half a millisecond of work in a batch makes the cost of claiming (about a microsecond) vanish.
_TARGET = 0.0005
_MOST = 1024
# How often an idle worker looks for steps to take back.
_LOOK_AROUND = 0.02
# The caller's thread waits in slices, so that Ctrl-C is seen.
_SLICE = 0.1


class Claimed:
    """What one worker has claimed and not begun: it takes from the left, others take back from the right."""

    __slots__ = ("_lock", "batch", "end", "waiting")

    def __init__(self) -> None:
        """Start with nothing."""
        self._lock = threading.Lock()
        self.batch: Batch | None = None
        self.waiting: deque[int] = deque()
        self.end = 0

    def begin(self, batch: Batch) -> None:
        """Take over a batch."""
        with self._lock:
            self.batch, self.waiting, self.end = batch, deque(batch.items()), len(batch)

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
    """One run on threads: what its workers share."""

    def __init__(self, run: Run, workers: int) -> None:
        """Prepare the shares of the workers."""
        self.run = run
        self.workers = workers
        self.claims = [Claimed() for _ in range(workers)]
        self.sizer = BatchSizer(_TARGET, _MOST)
        self.trouble: BaseException | None = None
        self._left = threading.Semaphore(0)

    def work(self, worker: int) -> None:
        """Be a worker until the run is finished."""
        try:
            while not self.run.finished:
                self._one_batch(worker)
        except BaseException as error:  # noqa: BLE001  an error of ours must reach the caller
            self.trouble = self.trouble or error
            self.run.cancel()
        finally:
            self._left.release()

    def wait(self) -> None:
        """Wait in the caller's thread until all is done and every worker has left."""
        with self.run.interrupts.may_raise():
            while not self.run.scheduler.wait(_SLICE):
                if self.trouble is not None:
                    raise self.trouble
            for _ in range(self.workers):
                while not self._left.acquire(timeout=_SLICE):
                    pass
        if self.trouble is not None:
            raise self.trouble

    def stop(self) -> None:
        """Let no worker begin another step."""
        self.run.cancel()
        for claimed in self.claims:
            claimed.take_back(self.run, everything=True)

    def _one_batch(self, worker: int) -> None:
        run, claimed = self.run, self.claims[worker]
        limit = self.sizer.limit(run.scheduler.ready, self.workers)
        batch = run.claim(worker, limit, clock(), 0.0)
        if batch is None:
            batch = None if self._look_around(worker) else run.claim(worker, 1, clock(), _LOOK_AROUND)
        if batch is None:
            return
        claimed.begin(batch)
        report = Report()
        call_items(run, claimed, report)
        if report.ends:
            self.sizer.observe(len(report.ends), report.ends[-1] - report.start)
            run.complete(batch, 0, report)
            if report.failures and run.fail_fast:
                self.stop()

    def _look_around(self, worker: int) -> bool:
        """Take back from the worker that holds the most."""
        busiest = max(self.claims, key=lambda claimed: len(claimed.waiting))
        return busiest is not self.claims[worker] and busiest.take_back(self.run)


class Team:
    """Threads that stay warm between runs.

    Args:
        size: How many.
        owner: The executor whose workers they are; a run that a step starts on it runs inline.
    """

    def __init__(self, size: int, owner: object) -> None:
        """Start no thread yet."""
        self.size = size
        self._owner = owner
        self._inboxes: list[queue.SimpleQueue[tuple[ThreadRun, int] | None]] = []
        self._threads: list[threading.Thread] = []

    def execute(self, run: Run) -> None:
        """Run all steps of a run."""
        workers = max(1, min(self.size, run.plan.item_count))
        shared = ThreadRun(run, workers)
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
        for inbox in self._inboxes:
            inbox.put(None)
        self._inboxes, self._threads = [], []

    def shutdown(self) -> None:
        """End the threads and wait for them."""
        threads = self._threads
        self.abandon()
        for thread in threads:
            thread.join()

    def _start_thread(self) -> None:
        inbox: queue.SimpleQueue[tuple[ThreadRun, int] | None] = queue.SimpleQueue()
        name = f"flowyml-worker-{len(self._threads)}"
        thread = threading.Thread(target=_serve, args=(inbox, self._owner, self.size), name=name, daemon=True)
        thread.start()
        self._inboxes.append(inbox)
        self._threads.append(thread)


_current = threading.local()


def owner_of_this_thread() -> object | None:
    """Return the executor whose worker the calling thread is."""
    return getattr(_current, "owner", None)


def _serve(inbox: queue.SimpleQueue[tuple[ThreadRun, int] | None], owner: object, size: int) -> None:
    _current.owner = owner
    _cpus.thread_share.cpus = _cpus.share_of(size)
    while (work := inbox.get()) is not None:
        shared, worker = work
        shared.work(worker)
        del shared, work
