"""The driver's connection to its supervisor: starts it, sends commands, receives reports, and notices when it dies.

It knows workers by their ids only. Commands and reports are small records over a `SOCK_SEQPACKET` socket, with
descriptors if needed. The driver never blocks, except on a full socket: the supervisor always reads, so that this ends
by itself, or after `SEND_TIMEOUT_SECONDS` with the supervisor given up.

The supervisor is started before other modules are imported: `socket` and `subprocess` with their dependencies take 8
ms, during which it can already start. It closes inherited descriptors itself: the kernel closes those of Python, but
perhaps not those of a library.
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
from flowyml.executors.process.pool.command_line import check_platform, supervisor_command, supervisor_environment
from flowyml.executors.process.supervisor.spawning import FIRST_FREE_FD, spawn
from flowyml.executors.process.supervisor.supervisor import COMMAND, END, REPORT

if TYPE_CHECKING:
    import signal
    import socket as _socket
    from collections.abc import Iterator, Mapping, Sequence
else:
    import _signal as signal  # see `supervisor/spawning.py`
    import _socket

# A process cannot be waited for together with a clock.
POLL_SECONDS = 0.005


class ChildProcess:
    """A child process in a session of its own, without `subprocess`.

    Args:
        command: The program, by its path, and its arguments.
        environment: Its variables.
        moves: The descriptors that it gets, and their new numbers; see `spawning.spawn`.

    Raises:
        OSError: It could not be started.

    Attributes:
        exitcode: How it exited, negative for a signal; `None` while that is not known.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], moves: dict[int, int]) -> None:
        variables = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
        self.exitcode: int | None = None
        self.pid = spawn(list(map(os.fsencode, command)), variables, moves)

    def poll(self) -> int | None:
        """Return the exit code, or `None` while it runs."""
        return self._look(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it exits, and return the exit code. Raises TimeoutError."""
        if timeout is None:
            return self._look(0) or 0
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() >= end:
                raise TimeoutError
            select.select([], [], [], POLL_SECONDS)
        return code

    def kill(self) -> None:
        """Kill it, unless it is known to have exited: its pid may have been reused."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Leave it alone from now on: in a forked process it is not a child."""
        self.exitcode = 0

    def _look(self, how: int) -> int | None:
        if self.exitcode is None:
            try:
                pid, status = os.waitpid(self.pid, how)
            except ChildProcessError:  # other code has waited for all children, or ignores SIGCHLD
                self.exitcode = 0
            else:
                self.exitcode = os.waitstatus_to_exitcode(status) if pid else None
        return self.exitcode


SEND_TIMEOUT_SECONDS = 10.0
"""How long a supervisor may take to accept a command."""
END_TIMEOUT_SECONDS = 5.0
"""How long, after the grace of the workers, a supervisor may take to exit."""
# The descriptor of the supervisor's socket.
_CONTROL = 3


class SupervisorClient:
    """A running supervisor.

    Raises:
        ExecutorError: This platform cannot have one, or it did not start.
    """

    def __init__(self) -> None:
        check_platform()
        self._errors = FileDescriptor(os.memfd_create("flowyml-supervisor-errors"))
        ours, theirs = map(FileDescriptor, _pair())
        try:
            with closing(theirs):
                self._process = self._start(theirs.fd)
        except OSError as error:
            ours.close()
            self._errors.close()
            raise ExecutorError(f"the supervisor process did not start: {reason_of(error)}") from error
        import socket

        ours.fd, number = -1, ours.fd
        self.control = socket.socket(fileno=number)
        self.control.settimeout(0)

    def _start(self, control: int) -> ChildProcess:
        # If the driver has closed its first three descriptors, these may be among them.
        null = FileDescriptor(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        with closing(null), contextlib.ExitStack() as stack:
            ends = [stack.enter_context(closing(_above(fd))) for fd in (null.fd, self._errors.fd, control)]
            moves = dict(zip([end.fd for end in ends], (1, 2, _CONTROL), strict=True))
            return ChildProcess(supervisor_command(_CONTROL), supervisor_environment(), moves)

    @property
    def pid(self) -> int:
        """The pid of the supervisor."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Return True if it runs."""
        return self._process.poll() is None

    def send(self, verb: bytes, worker: int = 0, number: float = 0.0, fds: Sequence[int] = ()) -> None:
        """Send a command. Raises ExecutorError."""
        message = COMMAND.pack(verb, worker, number)
        try:
            while not self._try_send(message, fds):
                self._wait(select.POLLOUT, SEND_TIMEOUT_SECONDS)
        except (ConnectionError, TimeoutError) as error:
            raise ExecutorError(self.exit_reason()) from error

    def _try_send(self, message: bytes, fds: Sequence[int]) -> bool:
        try:
            if fds:
                import socket

                socket.send_fds(self.control, [message], fds)
            else:  # imports nothing: at interpreter exit nothing can be imported any more
                self.control.send(message)
        except BlockingIOError:
            return False
        return True

    def receive(self) -> Iterator[tuple[bytes, int, int, int] | None]:
        """Yield the available reports: kind, worker, pid, status; then `None` if the supervisor is lost."""
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

    def exit_reason(self) -> str:
        """Make sure that it is dead, and return a message that says how it died."""
        try:
            how = describe_exit(self._process.wait(1.0))
        except TimeoutError:
            self._process.kill()
            how = f"it did not answer, and was {describe_exit(self._process.wait())}"
        words = self.stderr_text()
        if os.strerror(errno.EMFILE) in words.rpartition("\n")[2]:  # it could not even start
            return f"a worker process could not be started: {limit_reached()}"
        return f"the supervisor of the worker processes is lost: {how}" + (
            f"; its output was:\n{words}" if words else ""
        )

    def stderr_text(self) -> str:
        """Return what the supervisor and the fork server have written to stderr."""
        return os.pread(self._errors.fd, 1 << 16, 0).decode(errors="replace").strip()

    def end(self, grace: float) -> None:
        """Make it exit after at most `grace` seconds for its workers, wait for that, and close the connection.

        Whatever happens here, no process is left: workers die with their supervisor.
        """
        try:
            self.send(END, number=grace)
            while list(self.receive())[-1:] != [None]:
                self._wait(select.POLLIN, grace + END_TIMEOUT_SECONDS)
        except (ExecutorError, TimeoutError):
            pass
        finally:
            self._process.kill()
            self._process.wait()
            self._close()

    def abandon(self) -> None:
        """Close the descriptors in a forked child, and leave the parent's supervisor alone."""
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
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return ours.detach(), theirs.detach()


def _above(fd: int) -> FileDescriptor:
    """Duplicate a descriptor above those that a new process is given."""
    try:
        return FileDescriptor(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD))
    except OSError as error:
        if error.errno == errno.EINVAL:  # the limit of open files is below that number
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error
        raise
