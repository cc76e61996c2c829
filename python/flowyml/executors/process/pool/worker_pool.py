"""One life of a pool: from the start of its guardian to its end.

It knows the workers by the numbers that the guardian reports; see `pool.py` for who asks and what becomes of them.

The driver's side of the worker processes: start one, kill one, hear how each ended.

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

import errno
import logging
import os
import weakref
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError
from flowyml.executors.process.file_descriptors import FileDescriptor, reason_of
from flowyml.executors.process.pool.command_line import (
    WORKER,
    may_fork,
    template_commands,
    worker_command,
    worker_environment,
    write_recipe,
)
from flowyml.executors.process.pool.supervisor_client import SupervisorClient
from flowyml.executors.process.pool.worker_process import (
    SpawnFailed,
    SupervisorLost,
    WorkerExited,
    WorkerProcess,
    WorkerStarted,
)
from flowyml.executors.process.protocol.claim_memory import ClaimMemory
from flowyml.executors.process.supervisor import process_tree, supervisor
from flowyml.executors.process.supervisor.spawning import TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowyml.executors.process.pool.worker_process import Event


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
        self._session: PoolSession | None = None
        self._finalizer: weakref.finalize[..., WorkerPool] | None = None
        _pools.add(self)

    @property
    def workers(self) -> list[WorkerProcess]:
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

    def _start(self, familiar: Callable[[], Sequence[str]] = tuple) -> PoolSession:
        if self._session is not None and not self._session.is_alive():
            self.shutdown(0)
        if self._session is None:
            self._session = PoolSession(self.max_workers, self._preload, familiar)
            self._finalizer = weakref.finalize(self, PoolSession.close, self._session, GRACE)
        return self._session

    def prepare(self, familiar: Sequence[str]) -> None:
        """Have workers that start from now on find these modules too; see `start`."""
        if self._session is not None:
            self._session.prepare(self.max_workers, familiar)

    def spawn_worker(self, *, anew: bool = True) -> WorkerProcess:
        """Ask for a worker; usable at once, it reads its socket when it is up.

        Args:
            anew: Start another guardian if the last one is lost. Not in the middle of a run: its other workers are
                lost, too, and nobody would hear of it.

        Raises:
            ExecutorError: The guardian is lost, does not start here, or there are too many workers.
        """
        session = self._start() if anew or self._session is None else self._session
        return session.spawn_worker(self._program, self.max_workers)

    def kill(self, worker: WorkerProcess) -> None:
        """Kill a worker with everything it started; `WorkerExited` follows. One that has ended is left alone."""
        if self._session is not None and not worker.ended:
            self._session.kill(worker)

    def read_events(self) -> list[Event]:
        """Return what happened since the last call; does not block."""
        return self._session.read_events() if self._session else []

    def release(self, worker: WorkerProcess) -> None:
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

    def _forget(self) -> PoolSession | None:
        session, self._session = self._session, None
        if self._finalizer is not None:
            self._finalizer.detach()
        return session


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _abandon_all() -> None:
    for pool in list(_pools):
        pool._abandon()  # noqa: SLF001  the module's own


os.register_at_fork(after_in_child=_abandon_all)


if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Callable, Sequence

    from flowyml.executors.process.pool.worker_process import Event

else:
    import _signal as signal  # as in `link.py`

# In the place of a worker's number, and as long: a worker overwrites it with its own.
_TEMPLATE = "template"


class PoolSession:
    """One life of a pool: from the start of its guardian to its end."""

    def __init__(self, max_workers: int, preload: Sequence[str], familiar: Callable[[], Sequence[str]]) -> None:
        self._forks = may_fork()
        self.owner = os.getpid()
        try:
            self.claims = ClaimMemory()  # first: where there is no memory for it no guardian is left behind
            self.link = SupervisorClient()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            raise ExecutorError(f"the guardian process did not start: {reason_of(error)}") from error
        self.tag = os.urandom(8).hex()
        self.is_lost = False
        self._loss = ""
        self.workers: dict[int, WorkerProcess] = {}
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
            self.link.send(supervisor.PREPARE, fds=[recipe.fd])

    def spawn_worker(self, program: str, max_workers: int) -> WorkerProcess:
        """Ask the supervisor for a worker process and return it, started or not."""
        if self.is_lost:
            raise ExecutorError(self._loss)
        worker, theirs = self._new_worker()
        try:
            recipe = self._recipe(worker, program, max_workers)
            socket_, stdout, stderr = theirs
            fds = [socket_.fileno(), stdout.fd, stderr.fd, self.claims.fd, recipe.fd]
            self.link.send(supervisor.SPAWN, worker.id, fds=fds)
        except BaseException:
            worker.close()
            self.claims.give_back(worker.index)
            raise
        finally:
            for end in theirs:
                end.close()
        self.workers[worker.id] = worker
        return worker

    def _new_worker(self) -> tuple[WorkerProcess, tuple[socket.socket, FileDescriptor, FileDescriptor]]:
        """Make a worker, and the descriptors of its process."""
        import socket

        index, claims, results = self.claims.take()
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        (stdout, to_stdout), (stderr, to_stderr) = _pipe(), _pipe()
        worker = WorkerProcess(self._next_id, index, (claims, results), ours, (stdout, stderr))
        self._next_id += 1
        return worker, (theirs, to_stdout, to_stderr)

    def _recipe(self, worker: WorkerProcess, program: str, max_workers: int) -> FileDescriptor:
        """Return what to start."""
        command = worker_command(program, worker.id, worker.index, self.link.pid, worker.token)
        return write_recipe([command], worker_environment(max_workers, f"{self.tag}:{worker.id:08}"))

    def is_alive(self) -> bool:
        """Return True if the supervisor runs."""
        return not self.is_lost and self.link.is_alive()

    def kill(self, worker: WorkerProcess) -> None:
        """Have a worker killed; a lost guardian is an event, not an error of this call."""
        if not self.is_lost:
            with suppress(ExecutorError):
                self.link.send(supervisor.KILL, worker.id)

    def read_events(self) -> list[Event]:
        """Return the events that the supervisor has reported since the last call."""
        if self.is_lost:
            return []
        return [event for report in self.link.receive() if (event := self._note(report)) is not None]

    def _note(self, report: tuple[bytes, int, int, int] | None) -> Event | None:
        """Bring a report into the state of its worker."""
        if report is None:
            return self._note_loss()
        kind, number, pid, status = report
        if kind == supervisor.UNFIT:
            self._note_unfit()
            return None
        worker = self.workers.get(number)
        if worker is None:  # asked for by a call that was interrupted; its socket is closed
            return None
        if kind == supervisor.STARTED:
            worker.pid = pid
            return WorkerStarted(worker)
        worker.ended = True
        if kind == supervisor.REFUSED:
            return SpawnFailed(worker, OSError(status, os.strerror(status)))
        worker.exitcode = status
        return WorkerExited(worker)

    def _note_unfit(self) -> None:
        """Tell the user that the modules that are preloaded are not, and why."""
        if self._preload:
            words = self.link.words().splitlines()
            names = ", ".join(self._preload)
            reason = words[-1] if words else "the process that was to import them ended"
            logging.getLogger("flowyml").warning("preload: workers start without %s: %s", names, reason)
            self._preload = ()

    def _note_loss(self) -> Event:
        self._loss = self.link.obituary()
        kill_tagged(self.tag)
        self.is_lost = True
        self._end(0)
        return SupervisorLost(self._loss)

    def _end(self, grace: float) -> None:
        """End the guardian, and with it all workers."""
        self.link.end(grace)
        self.claims.close()
        for worker in self.workers.values():
            worker.ended = True

    def release(self, worker: WorkerProcess) -> None:
        """Close the connections to a worker process that has exited."""
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
        """Close all connections without a message to the supervisor, as in a forked child."""
        self._close_workers()
        if not self.is_lost:
            self.link.abandon()
            self.claims.close()

    def _close_workers(self) -> None:
        for worker in self.workers.values():
            worker.close()


def _pipe() -> tuple[FileDescriptor, FileDescriptor]:
    """Make a pipe whose reading end does not block."""
    reader, writer = map(FileDescriptor, os.pipe())
    os.set_blocking(reader.fd, False)
    return reader, writer


def kill_tagged(tag: str) -> None:
    """Kill the processes that carry a pool's tag; for what outlives a lost guardian (workers die by themselves).

    Resource trackers are left alone: they end once all others have.
    """
    marker = f"{TAG}={tag}:".encode()
    for pid in process_tree.process_table():
        is_ours = any(entry.startswith(marker) for entry in process_tree.read_environment(pid))
        if is_ours and not process_tree.is_tracker(pid):
            process_tree.send_signal(os.kill, pid, signal.SIGKILL)
