"""How the processes of a pool come to be: workers forked by a template process, or exec'ed; the guardian's side of it.

A *template* is a process that has imported what every worker imports, does nothing, and forks itself on request. It is
exec'ed by the guardian once, with the flags and the environment of a worker, and it never runs a step. A forked worker
is there in a few milliseconds and shares the pages of what was imported; exec'ed ones are the portable way, and what is
left when there is no template.

```text
            request: worker id + descriptors             fork              fork
  guardian ────────────────────────────────▶ template ─────────▶ between ──────▶ worker
     ▲  EXPECTED: its pid ◀─────────────────────────────────────── exits           │ adopted by the guardian
     └─ BORN: its pid, before it does anything else ◀──────────────────────────────┘ session, descriptors, program
```

Why it cannot lose or double a worker:

* The process between the two exits at once, so the worker is the guardian's own child: it is reaped with its exit
  status, and it dies with the guardian as an exec'ed one does, not with the template.
* The worker itself reports its birth over the template's socket, and goes on only if that was taken. A guardian that
  has given a template up reads what was sent before, and nothing can be sent after: what is not born never will be.
* Its end cannot be seen before its birth: whoever reaps an unknown child reads the template's socket first. One that
  died before it could report (EXPECTED tells its pid) was never born; its request is served by an exec.

A lost template costs nothing but time: requests that it held are served by exec, and another is started, unless it
never was ready or has been lost too often. The driver's own process is never forked: it has threads, locks that they
hold, open files and unflushed streams, and a worker would carry its memory.

The guardian runs this as a module beside it, without the rest of flowyml, so it imports next to nothing: modules in C
alone. `socket` and `signal` bring enums, selectors and collections, 13 ms before the first worker can begin to start.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import struct
from time import monotonic

TYPE_CHECKING = False  # as type checkers know it, without the cost of `typing`
if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Iterator
else:
    import _signal as signal
    import _socket as socket

SPAWN_FDS = 5
"""A spawn brings the worker's socket, stdout, stderr, claim words, and a memfd with its recipe."""
WORKER_SOCKET, WORKER_CLAIMS = 3, 4
"""Where a worker finds its socket and its claim words; a template has the guardian's socket in the first place."""
FIRST_FREE_FD = 10
"""The descriptors of guardian and template lie above those that a worker is given."""
TAG = "FLOWYML_WORKER"
"""The variable that marks a worker and what it starts."""
HASH_SEED, GIVEN_HASH_SEED = "PYTHONHASHSEED", "FLOWYML_GIVEN_HASH_SEED"
"""The variable with the seed of `hash()` in all workers, and the user's value of it, which a worker restores."""
START_VARIABLE = "FLOWYML_WORKER_START"
"""The variable that chooses how workers start: "fork" or "exec"."""
ARGUMENTS = 5
"""How many arguments follow the program on the command line of a worker."""

REQUEST = struct.Struct("<Q")
"""Guardian to template: a worker's id; the descriptors of its spawn come along."""
BIRTH = struct.Struct("<cQq")
"""Template to guardian: kind, worker id, and a number: a pid, or an errno with FAILED."""
READY, EXPECTED, BORN, FAILED = b"r", b"e", b"b", b"f"

PATIENCE = 60.0
"""Seconds that a template may take for a request; the first one waits for its imports."""

DESCRIPTOR = struct.Struct("i")

Recipe = tuple[list[list[bytes]], dict[bytes, bytes]]
"""Command lines, the first of which is to be tried first, and the environment."""


class SpawnRequest:
    """A worker that was asked for.

    Args:
        fds: As they came with the command; the request closes them.

    Attributes:
        tag: Its tag as it stands in its environment.
        since: When it was asked for.
        doomed: It is to be killed as soon as it is there.

    Raises:
        OSError: Descriptors are missing because the table of open files is full.
    """

    def __init__(self, fds: list[int]) -> None:
        self.fds = fds
        self.since = monotonic()
        self.doomed = False
        if len(fds) != SPAWN_FDS:
            self.close()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        (self._command,), self._environment = read_recipe(fds[-1])
        self.tag = b"%s=%s" % (TAG.encode(), self._environment[TAG.encode()])

    def spawn_worker(self) -> int:
        """Exec the worker; return its pid.

        Raises:
            OSError: It could not be started.
        """
        socket_, stdout, stderr, claims, _ = self.fds
        moves = {stdout: 1, stderr: 2, socket_: WORKER_SOCKET, claims: WORKER_CLAIMS}
        return spawn(self._command, self._environment, moves)

    def close(self) -> None:
        """Close what came with it."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []


class ForkServer:
    """A template process, as the guardian sees it.

    Args:
        commands: Its command line, and those of others that may do where this one turns out not to be fit.
        environment: Its environment.

    Attributes:
        pid: The process.
        ready: It has imported what it was to import.
        requests: What it was asked for and has not answered, by worker id.
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
        """Return what to poll for its reports."""
        return self.socket.fileno()

    def ask(self, worker: int, request: SpawnRequest) -> bool:
        """Ask for a worker; tell whether the request has been taken."""
        try:
            send(self.socket, REQUEST.pack(worker), request.fds)
        except OSError:  # it is gone, does not read, or too many descriptors are on their way
            return False
        self.requests[worker] = request
        return True

    def reports(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield the reports that are there, of it and of workers being born.

        Raises:
            EOFError: It has ended.
        """
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

    def overdue(self) -> float:
        """Return when the oldest request will have waited for too long; `inf` without one."""
        return min([request.since for request in self.requests.values()], default=float("inf")) + PATIENCE

    def successor(self) -> ForkServer | None:
        """Return another one, started in the place of this one that is lost; `None` if none is worth a try.

        Raises:
            OSError: It could not be started.
        """
        commands = self._commands if self.ready else self._commands[1:]
        return ForkServer(commands, self._environment) if commands else None

    def give_up(self) -> None:
        """Kill it; reports that were sent can still be read, and none can be sent any more."""
        self.socket.shutdown(socket.SHUT_RD)
        os.kill(self.pid, signal.SIGKILL)


def read_recipe(fd: int) -> Recipe:
    """Read command lines and environment from a memfd: an environment may be larger than a message."""
    recipe: Recipe = marshal.loads(os.pread(fd, os.fstat(fd).st_size, 0))  # noqa: S302  the driver's
    return recipe


def spawn(command: list[bytes], environment: dict[bytes, bytes], moves: dict[int, int]) -> int:
    """Start a process in its own session, with these descriptors put into these places and nothing to read.

    Raises:
        OSError: It could not be started.
    """
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
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # ignored by the interpreter; no business of what steps start
    )


def send(control: socket.socket, message: bytes, fds: list[int]) -> None:
    """Send a command with descriptors.

    Raises:
        OSError: The other side is gone or does not read, or too many descriptors are on their way.
    """
    packed = b"".join(map(DESCRIPTOR.pack, fds))
    control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])


def receive(control: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive a command and its descriptors, which no other worker may inherit (`socket.recv_fds` drops that flag)."""
    room = socket.CMSG_SPACE(SPAWN_FDS * DESCRIPTOR.size)
    message, ancillary, _, _ = control.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    return message, [
        fd
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in DESCRIPTOR.iter_unpack(data[: len(data) // DESCRIPTOR.size * DESCRIPTOR.size])
    ]


def move_up(control: socket.socket) -> socket.socket:
    """Fill the descriptors that workers are given, so that none of ours is among them."""
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
