"""The driver's end of a guardian: starts it, sends commands, receives reports, and knows when it is lost.

It knows nothing of workers but their numbers. Commands and reports are small records over a `SOCK_SEQPACKET` socket
(whole records, with descriptors where needed). The driver's side never blocks, save for a full socket: the guardian
always reads, so that one ends by itself, or after `SEND_LIMIT` with the guardian given up.

The guardian is started before anything is imported that is not needed for that: `socket` and `subprocess`, with all
that they bring, take 8 ms, in which it could have begun.

The guardian as a child process: started, looked at, waited for, with nothing imported for it.

`subprocess` takes milliseconds to import, in which the guardian could have begun. It closes what it may have inherited
itself (`supervisor/supervisor.py`): Python's own descriptors are closed by the kernel, a library's may not be.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import time
from contextlib import closing
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError, describe_exit
from flowyml.executors.process.file_descriptors import FileDescriptor, limit_reached, reason_of
from flowyml.executors.process.pool.command_line import check_platform, guardian_command, guardian_environment
from flowyml.executors.process.supervisor.spawning import FIRST_FREE_FD, spawn
from flowyml.executors.process.supervisor.supervisor import COMMAND, END, REPORT

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
else:
    import _signal as signal  # see `supervisor/spawning.py`

# Seconds between two looks: a process cannot be waited for together with a clock.
_GLANCE = 0.005


class ChildProcess:
    """A child process in a session of its own.

    Args:
        command: The program, by its path, and its arguments.
        environment: Its variables.
        moves: Which descriptors it is given, and as which numbers; see `starts.spawn`.

    Raises:
        OSError: It could not be started.

    Attributes:
        pid: Its pid.
        exitcode: How it ended, negative for a signal; `None` as long as that is not known.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], moves: dict[int, int]) -> None:
        variables = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
        self.exitcode: int | None = None
        self.pid = spawn(list(map(os.fsencode, command)), variables, moves)

    def poll(self) -> int | None:
        """Look whether it has ended: return how, or `None`."""
        return self._look(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return how it ended.

        Raises:
            TimeoutError: It has not ended after so many seconds.
        """
        if timeout is None:
            return self._look(0) or 0
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() >= end:
                raise TimeoutError
            select.select([], [], [], _GLANCE)
        return code

    def kill(self) -> None:
        """Kill it, unless it is known to have ended: its number may be another's then."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Leave it alone from now on: in a process that was forked it is another's child."""
        self.exitcode = 0

    def _look(self, how: int) -> int | None:
        if self.exitcode is None:
            try:
                pid, status = os.waitpid(self.pid, how)
            except ChildProcessError:  # somebody has waited for all children, or ignores SIGCHLD
                self.exitcode = 0
            else:
                self.exitcode = os.waitstatus_to_exitcode(status) if pid else None
        return self.exitcode


if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Iterator, Sequence
else:
    import _socket  # see above

SEND_LIMIT = 10.0
"""Seconds that a guardian may take to make room for a command."""
END_LIMIT = 5.0
"""Seconds, beyond the grace of the workers, that a guardian may take to end."""
# Where a guardian finds its socket.
_CONTROL = 3


class SupervisorClient:
    """A running guardian.

    Raises:
        ExecutorError: This platform cannot have one, or it did not start.
    """

    def __init__(self) -> None:
        check_platform()
        self._errors = FileDescriptor(os.memfd_create("flowyml-guardian-errors"))
        ours, theirs = map(FileDescriptor, _pair())
        try:
            with closing(theirs):
                self._process = self._start(theirs.fd)
        except OSError as error:
            ours.close()
            self._errors.close()
            raise ExecutorError(f"the guardian process did not start: {reason_of(error)}") from error
        import socket

        ours.fd, number = -1, ours.fd
        self.control = socket.socket(fileno=number)
        self.control.settimeout(0)

    def _start(self, control: int) -> ChildProcess:
        # In a driver without its first three descriptors these may be among them, which the guardian has itself.
        null = FileDescriptor(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        with closing(null), contextlib.ExitStack() as stack:
            ends = [stack.enter_context(closing(_above(fd))) for fd in (null.fd, self._errors.fd, control)]
            moves = dict(zip([end.fd for end in ends], (1, 2, _CONTROL), strict=True))
            return ChildProcess(guardian_command(_CONTROL), guardian_environment(), moves)

    @property
    def pid(self) -> int:
        """Its pid."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Tell whether it runs."""
        return self._process.poll() is None

    def send(self, verb: bytes, worker: int = 0, number: float = 0.0, fds: Sequence[int] = ()) -> None:
        """Send a command.

        Raises:
            ExecutorError: The guardian is lost.
        """
        message = COMMAND.pack(verb, worker, number)
        try:
            while not self._try_send(message, fds):
                self._wait(select.POLLOUT, SEND_LIMIT)
        except (ConnectionError, TimeoutError) as error:
            raise ExecutorError(self.obituary()) from error

    def _try_send(self, message: bytes, fds: Sequence[int]) -> bool:
        try:
            if fds:
                import socket

                socket.send_fds(self.control, [message], fds)
            else:  # which imports nothing: the end may come when nothing can be imported any more
                self.control.send(message)
        except BlockingIOError:
            return False
        return True

    def receive(self) -> Iterator[tuple[bytes, int, int, int] | None]:
        """Yield the reports that are there: kind, worker, pid, status; `None` at the end: the guardian is lost."""
        while True:
            try:
                message = self.control.recv(REPORT.size)
            except BlockingIOError:
                return
            except ConnectionError:
                message = b""
            yield REPORT.unpack(message) if message else None
            if not message:
                return

    def obituary(self) -> str:
        """Make sure that it is dead, and say how it died."""
        try:
            how = describe_exit(self._process.wait(1.0))
        except TimeoutError:
            self._process.kill()
            how = f"it does not answer, and was {describe_exit(self._process.wait())}"
        words = self.words()
        if os.strerror(errno.EMFILE) in words.rpartition("\n")[2]:  # it could not even begin
            return f"a worker process could not be started: {limit_reached()}"
        return f"the guardian of the worker processes is lost: {how}" + (f"; it said:\n{words}" if words else "")

    def words(self) -> str:
        """Return what it, and what imports for its workers, has said."""
        return os.pread(self._errors.fd, 1 << 16, 0).decode(errors="replace").strip()

    def end(self, grace: float) -> None:
        """Ask it to end after at most `grace` seconds for its workers, wait for that, and close.

        Whatever happens here, no process stays: workers die with their guardian.
        """
        try:
            self.send(END, number=grace)
            while list(self.receive())[-1:] != [None]:
                self._wait(select.POLLIN, grace + END_LIMIT)
        except (ExecutorError, TimeoutError):
            pass
        finally:
            self._process.kill()
            self._process.wait()
            self._close()

    def abandon(self) -> None:
        """Let go in a forked child: close the descriptors, leave the parent's guardian alone."""
        self._process.forget()
        self._close()

    def _wait(self, event: int, limit: float) -> None:
        poll = select.poll()
        poll.register(self.control, event)
        if not poll.poll(limit * 1000):
            raise TimeoutError

    def _close(self) -> None:
        self.control.close()
        self._errors.close()


def _pair() -> tuple[int, int]:
    """Return the descriptors of two sockets that are connected."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return ours.detach(), theirs.detach()


def _above(fd: int) -> FileDescriptor:
    """Return another descriptor of the same, above those that a new process is given."""
    try:
        return FileDescriptor(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD))
    except OSError as error:
        if error.errno == errno.EINVAL:  # the limit of open files lies below that number
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error
        raise
