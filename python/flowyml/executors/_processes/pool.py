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

import logging
import os
import signal
import socket
import weakref
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError
from flowyml.executors._processes import guardian, process_table
from flowyml.executors._processes.claims import ClaimMemory
from flowyml.executors._processes.descriptors import Descriptor
from flowyml.executors._processes.environment import (
    WORKER,
    may_fork,
    template_commands,
    worker_command,
    worker_environment,
    write_recipe,
)
from flowyml.executors._processes.link import GuardianLink
from flowyml.executors._processes.starts import TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowyml._core import ClaimWords, Results

GRACE = 1.0
"""Seconds that idle workers have to end by themselves, so that what they registered with `atexit` still runs."""

_TEMPLATE = "template"
# In the place of a worker's number, and as long: a worker overwrites it with its own.


@dataclass(eq=False, slots=True)
class Worker:
    """A worker process, from the moment it was asked for until it is released.

    Attributes:
        id: Number of the worker in its pool, never reused.
        index: Place of its claim words.
        claims: The driver's view of its claim words.
        results: The driver's view of its results.
        socket: The driver's end of its socket; does not block.
        pipes: Reading ends of the pipes that are its descriptors 1 and 2; do not block.
        token: Random text known to this worker alone, for marks in its output.
        pid: Its process, once it is known.
        exitcode: How it ended, negative for a signal; `None` while it runs, and where nobody knows.
        ended: The process is gone.
    """

    id: int
    index: int
    claims: ClaimWords
    results: Results
    socket: socket.socket
    pipes: tuple[Descriptor, Descriptor]
    token: str = field(default_factory=lambda: os.urandom(8).hex())
    pid: int | None = None
    exitcode: int | None = None
    ended: bool = False

    @property
    def stdout(self) -> int:
        """The pipe that is its descriptor 1; -1 once it is closed."""
        return self.pipes[0].fd

    @property
    def stderr(self) -> int:
        """The pipe that is its descriptor 2; -1 once it is closed."""
        return self.pipes[1].fd

    def close(self) -> None:
        """Close the driver's descriptors; more than once is fine."""
        self.socket.close()
        for pipe in self.pipes:
            pipe.close()


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has a process; its `pid` is known."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker's process is gone and reaped, with what it left behind; `exitcode` is set."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Refused:
    """A worker could not be started."""

    worker: Worker
    error: OSError


@dataclass(frozen=True, slots=True)
class GuardianLost:
    """The guardian died, and all workers with it; they are `ended` with an unknown exit code."""

    reason: str


Event = Started | Exited | Refused | GuardianLost


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
        self._session: _Session | None = None
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
            familiar: Asked when it is started: what workers will import anyway, as `preloading.familiar` tells it.
        """
        self._start(familiar)

    def _start(self, familiar: Callable[[], Sequence[str]] = tuple) -> _Session:
        if self._session is not None and not self._session.is_alive():
            self.shutdown(0)
        if self._session is None:
            self._session = _Session(self.max_workers, self._preload, familiar)
            self._finalizer = weakref.finalize(self, _Session.close, self._session, GRACE)
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

    def _forget(self) -> _Session | None:
        session, self._session = self._session, None
        if self._finalizer is not None:
            self._finalizer.detach()
        return session


class _Session:
    """One life of a pool: from the start of its guardian to its end."""

    def __init__(self, max_workers: int, preload: Sequence[str], familiar: Callable[[], Sequence[str]]) -> None:
        self._forks = may_fork()
        self.owner = os.getpid()
        self.claims = ClaimMemory()  # first: where there is no memory for it no guardian is left behind
        self.link = GuardianLink()
        self.tag = os.urandom(8).hex()
        self.is_lost = False
        self.workers: dict[int, Worker] = {}
        self._next_id = 0
        self._preload = preload
        self._familiar: set[str] | None = None
        self.prepare(max_workers, familiar() if self._forks else ())

    def prepare(self, max_workers: int, familiar: Sequence[str]) -> None:
        """Have a template started, which forks the workers, unless there is one that has these modules.

        A lost guardian, or that no more files may be open, is told by whoever asks for a worker.
        """
        if not self._forks or (self._familiar is not None and self._familiar.issuperset(familiar)):
            return
        self._familiar = {*familiar, *(self._familiar or ())}
        commands = template_commands(self.link.pid, self._preload, sorted(self._familiar))
        environment = worker_environment(max_workers, f"{self.tag}:{_TEMPLATE}")
        with suppress(ExecutorError, OSError), closing(write_recipe(commands, environment)) as recipe:
            self.link.send(guardian.PREPARE, fds=[recipe.fd])

    def spawn_worker(self, program: str, max_workers: int) -> Worker:
        worker, theirs = self._new_worker()
        try:
            recipe = self._recipe(worker, program, max_workers)
            socket_, stdout, stderr = theirs
            fds = [socket_.fileno(), stdout.fd, stderr.fd, self.claims.fd, recipe.fd]
            self.link.send(guardian.SPAWN, worker.id, fds=fds)
        except BaseException:
            worker.close()
            self.claims.give_back(worker.index)
            raise
        finally:
            for end in theirs:
                end.close()
        self.workers[worker.id] = worker
        return worker

    def _new_worker(self) -> tuple[Worker, tuple[socket.socket, Descriptor, Descriptor]]:
        """Make a worker, and the descriptors of its process."""
        index, claims, results = self.claims.take()
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        (stdout, to_stdout), (stderr, to_stderr) = _pipe(), _pipe()
        worker = Worker(self._next_id, index, claims, results, ours, (stdout, stderr))
        self._next_id += 1
        return worker, (theirs, to_stdout, to_stderr)

    def _recipe(self, worker: Worker, program: str, max_workers: int) -> Descriptor:
        """Return what to start."""
        command = worker_command(program, worker.id, worker.index, self.link.pid, worker.token)
        return write_recipe([command], worker_environment(max_workers, f"{self.tag}:{worker.id:08}"))

    def is_alive(self) -> bool:
        return not self.is_lost and self.link.is_alive()

    def kill(self, worker: Worker) -> None:
        """Have a worker killed; a lost guardian is an event, not an error of this call."""
        if not self.is_lost:
            with suppress(ExecutorError):
                self.link.send(guardian.KILL, worker.id)

    def read_events(self) -> list[Event]:
        if self.is_lost:
            return []
        return [event for report in self.link.receive() if (event := self._note(report)) is not None]

    def _note(self, report: tuple[bytes, int, int, int] | None) -> Event | None:
        """Bring a report into the state of its worker."""
        if report is None:
            return self._note_loss()
        kind, number, pid, status = report
        if kind == guardian.UNFIT:
            self._note_unfit()
            return None
        worker = self.workers.get(number)
        if worker is None:  # asked for by a call that was interrupted; its socket is closed
            return None
        if kind == guardian.STARTED:
            worker.pid = pid
            return Started(worker)
        worker.ended = True
        if kind == guardian.REFUSED:
            return Refused(worker, OSError(status, os.strerror(status)))
        worker.exitcode = status
        return Exited(worker)

    def _note_unfit(self) -> None:
        """Tell the user that the modules that are preloaded are not, and why."""
        if self._preload:
            words = self.link.words().splitlines()
            names = ", ".join(self._preload)
            reason = words[-1] if words else "the process that was to import them ended"
            logging.getLogger("flowyml").warning("preload: workers start without %s: %s", names, reason)
            self._preload = ()

    def _note_loss(self) -> Event:
        reason = self.link.obituary()
        kill_tagged(self.tag)
        self.is_lost = True
        self._end(0)
        return GuardianLost(reason)

    def _end(self, grace: float) -> None:
        """End the guardian, and with it all workers."""
        self.link.end(grace)
        self.claims.close()
        for worker in self.workers.values():
            worker.ended = True

    def release(self, worker: Worker) -> None:
        if self.workers.pop(worker.id, None) is not None:
            self.claims.give_back(worker.index)

    def close(self, grace: float) -> None:
        """End everything; closed sockets tell idle workers to end."""
        if os.getpid() != self.owner:
            return
        self.read_events()
        self._close_workers()
        if not self.is_lost:
            self._end(grace)

    def abandon(self) -> None:
        self._close_workers()
        if not self.is_lost:
            self.link.abandon()
            self.claims.close()

    def _close_workers(self) -> None:
        for worker in self.workers.values():
            worker.close()


def _pipe() -> tuple[Descriptor, Descriptor]:
    """Make a pipe whose reading end does not block."""
    reader, writer = map(Descriptor, os.pipe())
    os.set_blocking(reader.fd, False)
    return reader, writer


def kill_tagged(tag: str) -> None:
    """Kill the processes that carry a pool's tag; for what outlives a lost guardian (workers die by themselves)."""
    marker = f"{TAG}={tag}:".encode()
    for pid in process_table.process_table():
        if any(entry.startswith(marker) for entry in process_table.read_environment(pid)):
            process_table.send_signal(os.kill, pid, signal.SIGKILL)


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _abandon_all() -> None:
    for pool in list(_pools):
        pool._abandon()  # noqa: SLF001  the module's own


os.register_at_fork(after_in_child=_abandon_all)
