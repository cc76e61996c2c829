"""Starting workers: forked by a fork server, or exec'ed.

A *fork server* is a process that has imported what every worker imports, and forks workers on request. The supervisor
execs it once, with the flags and the environment of a worker; it never runs a step. A forked worker starts in a few
milliseconds and shares the pages of the imported modules. Exec is the portable way, and the fallback without a fork
server.

```text
            request: worker id + descriptors              fork                    fork
  supervisor ────────────────────────────▶ fork server ─────────▶ intermediate ──────▶ worker
     ▲  EXPECTED: its pid ◀───────────────────────────────────────── exits               │ adopted by the supervisor
     └─ BORN: its pid, before it does anything else ◀────────────────────────────────────┘ session, descriptors, program
```

Why no worker is lost or started twice:

* The intermediate process exits at once, so the worker becomes a child of the supervisor, which reaps it. It dies with
  the supervisor, as an exec'ed worker does, not with the fork server.
* The worker reports its birth over the fork server's socket, and continues only if the report was accepted. A
  supervisor that has given up a fork server reads the reports that were sent before; no report can be sent afterwards.
* The birth is read before the exit: when the supervisor reaps an unknown child, it reads the fork server's socket
  first. A worker that died before its report (EXPECTED has its pid) was not born; its request is served by exec.

If a fork server is lost, its pending requests are served by exec and another one is started, unless it was never ready
or has been lost too often. The driver itself is never forked: it has threads that hold locks, open files and unflushed
streams, and a worker would carry its memory.

The supervisor imports this module without the rest of flowyml, and C modules only: `socket` and `signal` bring enums,
selectors and collections, which delay the first worker by 13 ms.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import struct
from time import monotonic

TYPE_CHECKING = False  # type checkers know the name; `typing` is slow to import
if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Iterator
else:
    import _signal as signal
    import _socket as socket

SPAWN_FDS = 5
"""The worker's socket, stdout, stderr, claim words, and a memfd with its recipe."""
WORKER_SOCKET, WORKER_CLAIMS = 3, 4
"""The descriptors of a worker's socket and claim words; a fork server has the supervisor's socket as the first."""
FIRST_FREE_FD = 10
"""The descriptors of supervisor and fork server are above those of a worker."""
TAG = "FLOWYML_WORKER"
"""The variable that marks a worker and the processes it starts."""
HASH_SEED, GIVEN_HASH_SEED = "PYTHONHASHSEED", "FLOWYML_GIVEN_HASH_SEED"
"""The variable with the seed of `hash()` in all workers, and the user's value of it, which a worker restores."""
START_VARIABLE = "FLOWYML_WORKER_START"
"""The variable that chooses how workers start: "fork" or "exec"."""
ARGUMENTS = 5
"""The number of arguments after the program on the command line of a worker."""

REQUEST = struct.Struct("<Q")
"""Supervisor to fork server: a worker's id, with its descriptors."""
BIRTH = struct.Struct("<cQq")
"""Fork server to supervisor: kind, worker id, and a number: a pid, or an errno with FAILED."""
READY, EXPECTED, BORN, FAILED = b"r", b"e", b"b", b"f"

FORK_TIMEOUT_SECONDS = 60.0
"""How long a fork server may take for a request; the first one waits for its imports."""

DESCRIPTOR = struct.Struct("i")

Recipe = tuple[list[list[bytes]], dict[bytes, bytes]]
"""Command lines, in the order in which to try them, and the environment."""


class SpawnRequest:
    """A request for a worker.

    Args:
        fds: The descriptors that came with the command; the request closes them.

    Attributes:
        tag: The entry of its environment that marks it.
        since: When it was requested.
        kill_at_birth: Whether it is to be killed as soon as it has started.

    Raises:
        OSError: Descriptors are missing because the table of open files is full.
    """

    def __init__(self, fds: list[int]) -> None:
        self.fds = fds
        self.since = monotonic()
        self.kill_at_birth = False
        if len(fds) != SPAWN_FDS:
            self.close()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        (self._command,), self._environment = read_recipe(fds[-1])
        self.tag = b"%s=%s" % (TAG.encode(), self._environment[TAG.encode()])

    def spawn_worker(self) -> int:
        """Exec the worker and return its pid. Raises OSError."""
        socket_, stdout, stderr, claims, _ = self.fds
        moves = {stdout: 1, stderr: 2, socket_: WORKER_SOCKET, claims: WORKER_CLAIMS}
        return spawn(self._command, self._environment, moves)

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []


class ForkServer:
    """A fork server, as the supervisor sees it.

    Args:
        commands: Its command line, then those to try if it turns out to be unfit.
        environment: Its environment.

    Attributes:
        ready: Whether it has finished its imports.
        requests: The pending requests, by worker id.
        expected: The worker ids of pids that were forked and have not reported yet.

    Raises:
        OSError: It could not be started.
    """

    def __init__(self, commands: list[list[bytes]], environment: dict[bytes, bytes]) -> None:
        self._commands = commands
        self._environment = environment
        self.ready = False
        self.requests: dict[int, SpawnRequest] = {}
        self.expected: dict[int, int] = {}
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(0)
        try:
            self.pid = spawn(commands[0], environment, {theirs.fileno(): WORKER_SOCKET})
        finally:
            theirs.close()

    def fileno(self) -> int:
        """Return the descriptor to poll for reports."""
        return self.socket.fileno()

    def request_worker(self, worker: int, request: SpawnRequest) -> bool:
        """Request a worker; return False if the request was not accepted."""
        try:
            send(self.socket, REQUEST.pack(worker), request.fds)
        except OSError:  # it has exited, does not read, or too many descriptors are in flight
            return False
        self.requests[worker] = request
        return True

    def reports(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield the available reports of the fork server and of workers being born. Raises EOFError."""
        while True:
            try:
                message = self.socket.recv(BIRTH.size)
            except BlockingIOError:
                return
            except ConnectionError:
                message = b""
            if not message:
                raise EOFError
            yield BIRTH.unpack(message)

    def deadline(self) -> float:
        """Return when the oldest request times out; `inf` if there is none."""
        return min([request.since for request in self.requests.values()], default=float("inf")) + FORK_TIMEOUT_SECONDS

    def successor(self) -> ForkServer | None:
        """Start the next fork server in the place of a lost one; return `None` if there is none to try.

        Raises:
            OSError: It could not be started.
        """
        commands = self._commands if self.ready else self._commands[1:]
        return ForkServer(commands, self._environment) if commands else None

    def kill(self) -> None:
        """Kill it; reports that were sent can still be read, and none can be sent."""
        self.socket.shutdown(socket.SHUT_RD)
        os.kill(self.pid, signal.SIGKILL)


def read_recipe(fd: int) -> Recipe:
    """Read command lines and environment from a memfd: they may be larger than a message."""
    recipe: Recipe = marshal.loads(os.pread(fd, os.fstat(fd).st_size, 0))  # noqa: S302  the driver's
    return recipe


def spawn(command: list[bytes], environment: dict[bytes, bytes], moves: dict[int, int]) -> int:
    """Start a process in its own session, with these descriptors moved and an empty standard input. Raises OSError."""
    return os.posix_spawn(
        command[0],
        command,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            *((os.POSIX_SPAWN_DUP2, source, target) for source, target in moves.items()),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # the interpreter ignores them; child processes must not
    )


def send(control: socket.socket, message: bytes, fds: list[int]) -> None:
    """Send a command with descriptors. Raises OSError."""
    packed = b"".join(map(DESCRIPTOR.pack, fds))
    control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])


def receive(control: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive a command and its descriptors, which no worker may inherit (`socket.recv_fds` drops that flag)."""
    room = socket.CMSG_SPACE(SPAWN_FDS * DESCRIPTOR.size)
    message, ancillary, _, _ = control.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    return message, [
        fd
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in DESCRIPTOR.iter_unpack(data[: len(data) // DESCRIPTOR.size * DESCRIPTOR.size])
    ]


def move_up(control: socket.socket) -> socket.socket:
    """Occupy the descriptors that workers are given, so that none of this process is among them."""
    moved = socket.socket(fileno=fcntl.fcntl(control, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD))
    control.close()
    while (fd := os.open(os.devnull, os.O_RDWR)) < FIRST_FREE_FD:
        pass
    os.close(fd)
    return moved


def close_all(fds: list[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
