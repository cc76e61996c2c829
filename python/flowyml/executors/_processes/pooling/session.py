"""One life of a pool: from the start of its guardian to its end.

It knows the workers by the numbers that the guardian reports; see `pool.py` for who asks and what becomes of them.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError
from flowyml.executors._processes.crossing.claims import ClaimMemory
from flowyml.executors._processes.descriptors import Descriptor, reason_of
from flowyml.executors._processes.guarding import guardian, process_table
from flowyml.executors._processes.guarding.starts import TAG
from flowyml.executors._processes.pooling.environment import (
    may_fork,
    template_commands,
    worker_command,
    worker_environment,
    write_recipe,
)
from flowyml.executors._processes.pooling.link import GuardianLink
from flowyml.executors._processes.pooling.workers import Exited, GuardianLost, Refused, Started, Worker

if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Callable, Sequence

    from flowyml.executors._processes.pooling.workers import Event

else:
    import _signal as signal  # as in `link.py`

# In the place of a worker's number, and as long: a worker overwrites it with its own.
_TEMPLATE = "template"


class Session:
    """One life of a pool: from the start of its guardian to its end."""

    def __init__(self, max_workers: int, preload: Sequence[str], familiar: Callable[[], Sequence[str]]) -> None:
        self._forks = may_fork()
        self.owner = os.getpid()
        try:
            self.claims = ClaimMemory()  # first: where there is no memory for it no guardian is left behind
            self.link = GuardianLink()
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            raise ExecutorError(f"the guardian process did not start: {reason_of(error)}") from error
        self.tag = os.urandom(8).hex()
        self.is_lost = False
        self._loss = ""
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
        if self.is_lost:
            raise ExecutorError(self._loss)
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
        import socket

        index, claims, results = self.claims.take()
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        (stdout, to_stdout), (stderr, to_stderr) = _pipe(), _pipe()
        worker = Worker(self._next_id, index, (claims, results), ours, (stdout, stderr))
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
        self._loss = self.link.obituary()
        kill_tagged(self.tag)
        self.is_lost = True
        self._end(0)
        return GuardianLost(self._loss)

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
    """Kill the processes that carry a pool's tag; for what outlives a lost guardian (workers die by themselves).

    Resource trackers are left alone: they end once all others have.
    """
    marker = f"{TAG}={tag}:".encode()
    for pid in process_table.process_table():
        is_ours = any(entry.startswith(marker) for entry in process_table.read_environment(pid))
        if is_ours and not process_table.is_tracker(pid):
            process_table.send_signal(os.kill, pid, signal.SIGKILL)
