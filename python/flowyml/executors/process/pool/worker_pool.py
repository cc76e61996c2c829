"""The worker processes of a driver: starts them, kills them, and reports how each exited.

A `WorkerPool` has one supervisor, started with the first worker, and one claim memory; both belong to a `PoolSession`,
from the start of the supervisor to its end. The pool knows nothing of steps and results: a `WorkerProcess` has a
socket, output pipes and claim words, which the dispatcher uses.

```text
  spawn_worker() ─▶ WorkerProcess: no pid ── Started ─▶ pid ── Exited ─▶ ended ── release() ─▶ closed, index free
                         └───────────────── Refused ───────────────────────▲
```

The dispatcher polls `fileno()` and calls `read_events()` if it is readable. A lost supervisor is the last event: the
workers die with it, and the next `spawn_worker()` starts another one. A pool belongs to the process that created it. In
a forked child it closes its descriptors and is as if it was never started.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import threading
import weakref
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError
from flowyml.executors.process.file_descriptors import FileDescriptor, reason_of
from flowyml.executors.process.pool.command_line import (
    WORKER,
    fork_server_commands,
    may_fork,
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
    import signal
    import socket
    from collections.abc import Callable, Sequence

    from flowyml.executors.process.pool.worker_process import Event
else:
    import _signal as signal  # as in `supervisor_client.py`


GRACE_SECONDS = 1.0
"""How long idle workers may take to exit by themselves, so that their `atexit` functions run."""


class WorkerPool:
    """Worker processes under one supervisor. Not thread-safe.

    Args:
        max_workers: The number of workers that share the CPUs.
        program: The Python program of a worker; its `sys.argv` is that of `bootstrap.attach`.
        preload: Modules that the user wants to be imported in every worker.
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
        """The workers that are not released, in the order in which they were started."""
        return [*self._session.workers.values()] if self._session else []

    @property
    def supervisor_pid(self) -> int | None:
        """The pid of the supervisor; `None` if there is none."""
        return self._session.client.pid if self._session and not self._session.is_lost else None

    def fileno(self) -> int:
        """Return the descriptor to poll for events; changes when the pool is started again. Raises ExecutorError."""
        if self._session is None or self._session.is_lost:
            raise ExecutorError("the worker pool is not started")
        return self._session.client.control.fileno()

    def start(self, preload_candidates: Callable[[], Sequence[str]] = tuple) -> None:
        """Start the supervisor if none runs; workers of a dead one are closed.

        Args:
            preload_candidates: Called once the supervisor is started; returns what workers will import anyway.
        """
        self._start(preload_candidates)

    def _start(self, preload_candidates: Callable[[], Sequence[str]] = tuple) -> PoolSession:
        if self._session is not None and not self._session.is_alive():
            self.shutdown(0)
        if self._session is None:
            self._session = PoolSession(self.max_workers, self._preload, preload_candidates)
            self._finalizer = weakref.finalize(self, PoolSession.close, self._session, GRACE_SECONDS)
            _InterpreterExit.watch()
        return self._session

    def prepare(self, preload_candidates: Sequence[str]) -> None:
        """Make the fork server import these modules, too; see `start`."""
        if self._session is not None:
            self._session.prepare(self.max_workers, preload_candidates)

    def spawn_worker(self, *, restart: bool = True) -> WorkerProcess:
        """Request a worker, which reads its socket once it runs. Raises ExecutorError.

        Args:
            restart: Start another supervisor if the last one is lost. Not during a run: its other workers are lost,
                too, and the run would not notice.
        """
        session = self._start() if restart or self._session is None else self._session
        return session.spawn_worker(self._program, self.max_workers)

    def kill(self, worker: WorkerProcess) -> None:
        """Kill a worker and all processes it has started; `WorkerExited` follows. Does nothing if it has exited."""
        if self._session is not None and not worker.ended:
            self._session.kill(worker)

    def read_events(self) -> list[Event]:
        """Return the events since the last call; does not block."""
        return self._session.read_events() if self._session else []

    def release(self, worker: WorkerProcess) -> None:
        """Close the descriptors of an exited worker and free its claim words, once its output was read.

        Raises:
            ValueError: It still runs.
        """
        if not worker.ended:
            raise ValueError(f"worker {worker.id} is still running")
        worker.close()
        if self._session is not None:
            self._session.release(worker)

    def shutdown(self, grace: float = GRACE_SECONDS) -> None:
        """End all workers and the supervisor, and wait for that; the pool may be started again.

        Args:
            grace: The seconds that workers have to exit after their socket was closed; 0 kills them at once.
        """
        if (session := self._forget()) is not None:
            session.close(grace)

    def _abandon(self) -> None:
        if (session := self._forget()) is not None:
            session.abandon()

    def _forget(self) -> PoolSession | None:
        session, self._session = self._session, None
        if self._finalizer is not None:
            self._finalizer.detach()
        return session


class _InterpreterExit:
    """Whether the interpreter exits; set before pools are closed."""

    is_watched = False
    has_begun = False

    @classmethod
    def watch(cls) -> None:
        """Register after the first pool has registered its finalizer, since `atexit` runs the last function first."""
        if not cls.is_watched:
            cls.is_watched = True
            atexit.register(cls._apply_report)

    @classmethod
    def _apply_report(cls) -> None:
        cls.has_begun = True


def block_at_interpreter_exit() -> None:
    """Block a daemon thread permanently once the interpreter exits.

    At exit the main thread closes the pools, and a dispatcher in a daemon thread would find its sockets closed. The
    interpreter is about to freeze such a thread anyway. Other threads end before pools are closed.
    """
    if _InterpreterExit.has_begun and threading.current_thread() is not threading.main_thread():
        threading.Event().wait()


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _abandon_all() -> None:
    for pool in list(_pools):
        pool._abandon()  # noqa: SLF001  the module's own


os.register_at_fork(after_in_child=_abandon_all)


# In the place of a worker's id in the tag, and as long: a forked worker overwrites it with its own.
FORK_SERVER_ID = "forksrvr"


class PoolSession:
    """One life of a pool: from the start of its supervisor to its end."""

    def __init__(
        self, max_workers: int, preload: Sequence[str], preload_candidates: Callable[[], Sequence[str]]
    ) -> None:
        self._forks = may_fork()
        self.owner = os.getpid()
        try:
            self.claims = ClaimMemory()  # first: without memory no supervisor is left behind
            self.client = SupervisorClient()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            raise ExecutorError(f"the supervisor process did not start: {reason_of(error)}") from error
        self.tag = os.urandom(8).hex()
        self.is_lost = False
        self._loss = ""
        self.workers: dict[int, WorkerProcess] = {}
        self._next_id = 0
        self._preload = preload
        self._preload_candidates: set[str] | None = None
        self.prepare(max_workers, preload_candidates() if self._forks else ())

    def prepare(self, max_workers: int, preload_candidates: Sequence[str]) -> None:
        """Start a fork server, unless there is one that has imported these modules.

        A lost supervisor, or that no more files may be open, is reported by the next `spawn_worker`.
        """
        if not self._forks or (
            self._preload_candidates is not None and self._preload_candidates.issuperset(preload_candidates)
        ):
            return
        self._preload_candidates = {*preload_candidates, *(self._preload_candidates or ())}
        commands = fork_server_commands(self.client.pid, self._preload, sorted(self._preload_candidates))
        environment = worker_environment(max_workers, f"{self.tag}:{FORK_SERVER_ID}")
        with suppress(ExecutorError, OSError), closing(write_recipe(commands, environment)) as recipe:
            self.client.send(supervisor.PREPARE, fds=[recipe.fd])

    def spawn_worker(self, program: str, max_workers: int) -> WorkerProcess:
        """Request a worker process from the supervisor."""
        if self.is_lost:
            raise ExecutorError(self._loss)
        worker, theirs = self._new_worker()
        try:
            recipe = self._recipe(worker, program, max_workers)
            socket_, stdout, stderr = theirs
            fds = [socket_.fileno(), stdout.fd, stderr.fd, self.claims.fd, recipe.fd]
            self.client.send(supervisor.SPAWN, worker.id, fds=fds)
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
        import socket

        index, claims, results = self.claims.take()
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        (stdout, to_stdout), (stderr, to_stderr) = _pipe(), _pipe()
        worker = WorkerProcess(self._next_id, index, (claims, results), ours, (stdout, stderr))
        self._next_id += 1
        return worker, (theirs, to_stdout, to_stderr)

    def _recipe(self, worker: WorkerProcess, program: str, max_workers: int) -> FileDescriptor:
        command = worker_command(program, worker.id, worker.index, self.client.pid, worker.token)
        return write_recipe([command], worker_environment(max_workers, f"{self.tag}:{worker.id:08}"))

    def is_alive(self) -> bool:
        """Return True if the supervisor runs."""
        return not self.is_lost and self.client.is_alive()

    def kill(self, worker: WorkerProcess) -> None:
        """Request that a worker is killed; a lost supervisor is an event, not an error of this call."""
        if not self.is_lost:
            with suppress(ExecutorError):
                self.client.send(supervisor.KILL, worker.id)

    def read_events(self) -> list[Event]:
        """Return the events that the supervisor has reported since the last call."""
        if self.is_lost:
            return []
        return [event for report in self.client.receive() if (event := self._apply_report(report)) is not None]

    def _apply_report(self, report: tuple[bytes, int, int, int] | None) -> Event | None:
        if report is None:
            return self._on_supervisor_lost()
        kind, number, pid, status = report
        if kind == supervisor.UNFIT:
            self._on_fork_server_unfit()
            return None
        worker = self.workers.get(number)
        if worker is None:  # its request was interrupted; its socket is closed
            return None
        if kind == supervisor.STARTED:
            worker.pid = pid
            return WorkerStarted(worker)
        worker.ended = True
        if kind == supervisor.REFUSED:
            return SpawnFailed(worker, OSError(status, os.strerror(status)))
        worker.exitcode = status
        return WorkerExited(worker)

    def _on_fork_server_unfit(self) -> None:
        """Warn that modules are not preloaded, and why."""
        if self._preload:
            words = self.client.stderr_text().splitlines()
            names = ", ".join(self._preload)
            reason = words[-1] if words else "the process that was to import them ended"
            logging.getLogger("flowyml").warning("preload: workers start without %s: %s", names, reason)
            self._preload = ()

    def _on_supervisor_lost(self) -> Event:
        self._loss = self.client.exit_reason()
        kill_tagged(self.tag)
        self.is_lost = True
        self._end(0)
        return SupervisorLost(self._loss)

    def _end(self, grace: float) -> None:
        self.client.end(grace)
        self.claims.close()
        for worker in self.workers.values():
            worker.ended = True

    def release(self, worker: WorkerProcess) -> None:
        """Free the claim words of a worker that has exited."""
        if self.workers.pop(worker.id, None) is not None:
            self.claims.give_back(worker.index)

    def close(self, grace: float) -> None:
        """End all processes; idle workers exit when their socket is closed."""
        if os.getpid() != self.owner:
            return
        self.read_events()
        self._close_workers()
        if not self.is_lost:
            self._end(grace)

    def abandon(self) -> None:
        """Close all descriptors in a forked child, without a message to the supervisor."""
        self._close_workers()
        if not self.is_lost:
            self.client.abandon()
            self.claims.close()

    def _close_workers(self) -> None:
        for worker in self.workers.values():
            worker.close()


def _pipe() -> tuple[FileDescriptor, FileDescriptor]:
    reader, writer = map(FileDescriptor, os.pipe())
    os.set_blocking(reader.fd, False)
    return reader, writer


def kill_tagged(tag: str) -> None:
    """Kill the processes with a pool's tag that are left after its supervisor died (workers die by themselves).

    Resource trackers are left alone: they exit once all others have.
    """
    marker = f"{TAG}={tag}:".encode()
    for pid in process_tree.process_table():
        is_ours = any(entry.startswith(marker) for entry in process_tree.read_environment(pid))
        if is_ours and not process_tree.is_tracker(pid):
            process_tree.send_signal(os.kill, pid, signal.SIGKILL)
