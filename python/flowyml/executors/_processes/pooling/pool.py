"""The driver's side of the worker processes: start one, kill one, hear how each ended.

A `WorkerPool` has one guardian, started with the first worker, and one piece of claim memory. It moves no steps and
reads no results: a `Worker` carries its socket, its output pipes and its claim words, the dispatch loop does the rest.

```text
  spawn_worker() ─▶ Worker: pid unknown ── Started ─▶ pid known ── Exited ─▶ ended ── release() ─▶ closed, index free
                         └───────────────── Refused ──────────────────────────▲
```

`fileno()` belongs into the loop's selector; when it is readable, `read_events()` says what happened. A lost guardian is
the last event there is: the workers die with it, and the next `spawn_worker()` starts anew.

A pool belongs to the process that made it. In a forked child it closes what it inherited and is as if never started.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError
from flowyml.executors._processes.pooling.environment import WORKER
from flowyml.executors._processes.pooling.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowyml.executors._processes.pooling.workers import Event, Worker

GRACE = 1.0
"""Seconds that idle workers have to end by themselves, so that what they registered with `atexit` still runs."""


class WorkerPool:
    """Worker processes under one guardian. Not for several threads at once.

    Args:
        max_workers: Workers meant to run side by side; the cores are shared among so many.
        program: Python text that a worker runs; its `sys.argv` is as `lifeline.attach` expects it.
        preload: Modules that a user wants to be there in every worker, by name.
    """

    def __init__(self, max_workers: int, *, program: str = WORKER, preload: Sequence[str] = ()) -> None:
        self.max_workers = max_workers
        self._program = program
        self._preload = tuple(preload)
        self._session: Session | None = None
        self._finalizer: weakref.finalize[..., WorkerPool] | None = None
        _pools.add(self)

    @property
    def workers(self) -> list[Worker]:
        """The workers that are not released, in the order in which they were asked for."""
        return [*self._session.workers.values()] if self._session else []

    @property
    def guardian_pid(self) -> int | None:
        """Pid of the guardian; `None` when there is none."""
        return self._session.link.pid if self._session and not self._session.is_lost else None

    def fileno(self) -> int:
        """Return what to register in a selector; changes when the pool is started again.

        Raises:
            ExecutorError: The pool is not started, or its guardian is lost.
        """
        if self._session is None or self._session.is_lost:
            raise ExecutorError("the worker pool is not started")
        return self._session.link.control.fileno()

    def start(self, familiar: Callable[[], Sequence[str]] = tuple) -> None:
        """Start the guardian unless there is one that lives; workers of one that died are closed.

        Args:
            familiar: Asked when it is started: what workers will import anyway, see `familiar.py`.
        """
        self._start(familiar)

    def _start(self, familiar: Callable[[], Sequence[str]] = tuple) -> Session:
        if self._session is not None and not self._session.is_alive():
            self.shutdown(0)
        if self._session is None:
            self._session = Session(self.max_workers, self._preload, familiar)
            self._finalizer = weakref.finalize(self, Session.close, self._session, GRACE)
        return self._session

    def prepare(self, familiar: Sequence[str]) -> None:
        """Have workers that start from now on find these modules too; see `start`."""
        if self._session is not None:
            self._session.prepare(self.max_workers, familiar)

    def spawn_worker(self, *, anew: bool = True) -> Worker:
        """Ask for a worker; usable at once, it reads its socket when it is up.

        Args:
            anew: Start another guardian if the last one is lost. Not in the middle of a run: its other workers are
                lost, too, and nobody would hear of it.

        Raises:
            ExecutorError: The guardian is lost, does not start here, or there are too many workers.
        """
        session = self._start() if anew or self._session is None else self._session
        return session.spawn_worker(self._program, self.max_workers)

    def kill(self, worker: Worker) -> None:
        """Kill a worker with everything it started; `Exited` follows. One that has ended is left alone."""
        if self._session is not None and not worker.ended:
            self._session.kill(worker)

    def read_events(self) -> list[Event]:
        """Return what happened since the last call; does not block."""
        return self._session.read_events() if self._session else []

    def release(self, worker: Worker) -> None:
        """Close an ended worker's descriptors and free its claim words, when nothing is left to read from it.

        Raises:
            ValueError: It has not ended.
        """
        if not worker.ended:
            raise ValueError(f"worker {worker.id} is still running")
        worker.close()
        if self._session is not None:
            self._session.release(worker)

    def shutdown(self, grace: float = GRACE) -> None:
        """End all workers and the guardian, wait for that, and close; the pool may be started again.

        Args:
            grace: Seconds that workers have to end by themselves after their socket was closed; 0 kills at once.
        """
        if (session := self._forget()) is not None:
            session.close(grace)

    def _abandon(self) -> None:
        """Be as new in a forked child."""
        if (session := self._forget()) is not None:
            session.abandon()

    def _forget(self) -> Session | None:
        session, self._session = self._session, None
        if self._finalizer is not None:
            self._finalizer.detach()
        return session


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _abandon_all() -> None:
    for pool in list(_pools):
        pool._abandon()  # noqa: SLF001  the module's own


os.register_at_fork(after_in_child=_abandon_all)
