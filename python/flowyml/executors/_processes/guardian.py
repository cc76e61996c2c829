"""The guardian: a small process that owns every process verb of one worker pool.

It spawns workers, kills them with everything they started, reaps them, tells the driver how they ended, and when the
driver is gone it kills what is left. It never imports user code nor the rest of flowyml, so nothing of the user's can
break it; it is single-threaded and has its own session, so no signal meant for the driver's terminal reaches it.

```text
            commands: spawn (+ fds), kill, end            posix_spawn, SIGSTOP, SIGKILL, waitid
  driver ───────────────────────────────────▶ guardian ─────────────────────────────────────────▶ workers
         ◀───────────────────────────────────          ◀───────────────── orphans are adopted ───     └─ their helpers
            reports: started, exited, refused
```

* *The driver is gone* when its pidfd fires or the control socket ends. Both are watched: a child that the driver forked
  keeps the socket open, a driver that let go of its pool without dying keeps its pidfd silent.
* *Kill* stops the worker's tree until it no longer grows, then kills all of it: a helper that keeps forking cannot slip
  through.
* *A worker that died by itself* takes its process group along before its own number is freed, then those orphans that
  are still known as its own: by their session, or by the tag in their environment. A helper that erased both lives
  until `end`, which kills every process that was adopted.

Nothing here blocks but `poll`: a driver that does not read costs memory, never a worker's life.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import select
import signal
import socket
import struct
import sys
from collections import deque
from time import monotonic

TYPE_CHECKING = False  # as type checkers know it, without the cost of `typing`
if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = struct.Struct("<cQd")
"""Verb, worker id, number (the grace of END in seconds)."""
SPAWN, KILL, END = b"s", b"k", b"e"

REPORT = struct.Struct("<cQqq")
"""Kind, worker id, pid, status (EXITED: exit code, negative for a signal; REFUSED: errno)."""
STARTED, EXITED, REFUSED = b"S", b"X", b"R"

DESCRIPTOR = struct.Struct("i")
SPAWN_FDS = 5
"""A spawn brings the worker's socket, stdout, stderr, claim words, and a memfd with its recipe."""
WORKER_SOCKET, WORKER_CLAIMS = 3, 4
"""Where a worker finds its socket and its claim words."""
FIRST_FREE_FD = 10
"""The guardian's own descriptors lie above those that a worker is given."""
TAG = "FLOWYML_WORKER"
"""The variable that marks a worker and what it starts."""
END_LIMIT = 2.0
"""Seconds after which processes that do not die (uninterruptible I/O) are left alone."""
MOST_ROUNDS = 100
"""Looks at a tree that keeps growing because it may not be stopped (it has become another user's); two are usual."""
EXEC_LOOKS = 10
"""Looks, a millisecond apart, at a process that has no environment yet."""
PARENT_CHECK = 0.25
"""Seconds between looks at the parent's number where pidfds are not allowed."""
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Serve the driver whose socket and pid stand on the command line; return when it is gone and all is clean."""
    control = socket.socket(fileno=int(sys.argv[1]))
    guardian = Guardian(control, int(sys.argv[2]))
    try:
        guardian.serve()
    finally:
        guardian.kill_everything()


class Guardian:
    """The state of the process: the workers alive, the reports not yet sent, and when to end.

    Args:
        control: The `SOCK_SEQPACKET` socket to the driver.
        driver: The driver's pid.
    """

    def __init__(self, control: socket.socket, driver: int) -> None:
        """Become a subreaper and start to watch the driver."""
        self.pid = os.getpid()
        self.driver = driver
        self.pids: dict[int, int] = {}
        self.tags: dict[int, bytes] = {}
        self.ids: dict[int, int] = {}
        self.outbox: deque[bytes] = deque()
        self.deadline: float | None = None
        self.control = move_up(control)
        become_subreaper()
        self.driver_fd = open_pidfd(driver)
        self.wakeup = wake_on_signals()
        self.poll = self._register()

    def _register(self) -> select.poll:
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.wakeup, select.POLLIN)
        if self.driver_fd is not None:
            poll.register(self.driver_fd, select.POLLIN)
        return poll

    def serve(self) -> None:
        """Work until the driver is gone, or has said `end` and the workers had their grace."""
        while not self._is_over():
            ready = {fd for fd, _ in self.poll.poll(self._timeout())}
            if self.driver_fd in ready or os.getppid() != self.driver:
                self.deadline = monotonic()
            elif ready:
                self._handle(ready)

    def _is_over(self) -> bool:
        return self.deadline is not None and (not self.pids or monotonic() >= self.deadline)

    def _timeout(self) -> float | None:
        """Milliseconds until something must be looked at without an event."""
        if self.deadline is not None:
            return max(0.0, self.deadline - monotonic()) * 1000 + 1
        return PARENT_CHECK * 1000 if self.driver_fd is None else None

    def _handle(self, ready: set[int]) -> None:
        if self.wakeup.fileno() in ready:
            self._hear_signals()
        if self.control.fileno() in ready:
            self._hear_driver()
            self._speak()

    def _hear_signals(self) -> None:
        received = self.wakeup.recv(4096)
        if any(number != signal.SIGCHLD for number in received):
            self.deadline = monotonic()
        self.reap()

    def _hear_driver(self) -> None:
        """Take one command; the end of the file is the end of the driver."""
        try:
            message, fds = receive(self.control)
        except BlockingIOError:
            return
        except ConnectionError:
            message, fds = b"", []
        try:
            self._obey(message, fds)
        finally:
            close_all(fds)

    def _obey(self, message: bytes, fds: list[int]) -> None:
        verb, worker, number = COMMAND.unpack(message) if message else (END, 0, 0.0)
        if verb == SPAWN:
            self.spawn(worker, fds)
        elif verb == KILL:
            self.kill(worker)
        else:
            self.deadline = monotonic() + number

    def spawn(self, worker: int, fds: list[int]) -> None:
        """Start a worker from the descriptors that came with the command; report its pid or why there is none."""
        try:
            pid, self.tags[worker] = spawn_worker(fds)
        except OSError as error:
            self._report(REFUSED, worker, 0, error.errno or 0)
            return
        self.pids[worker] = pid
        self.ids[pid] = worker
        self._report(STARTED, worker, pid, 0)

    def kill(self, worker: int) -> None:
        """Kill a worker with everything it started; its exit is reported like any other."""
        pid = self.pids.get(worker)
        if pid is not None:
            kill_all(lambda: self._belongings(worker, pid))

    def reap(self) -> None:
        """Reap all children that have ended, workers and adopted ones."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while info := wait(options):
            worker = self.ids.get(info.si_pid)
            if worker is None:
                os.waitpid(info.si_pid, 0)
            else:
                self._bury(worker, info)

    def _bury(self, worker: int, info: os.waitid_result) -> None:
        """Kill what a dead worker left behind while its number still names it, then reap and report it."""
        pid = info.si_pid
        send_signal(os.killpg, pid, signal.SIGKILL)
        kill_all(lambda: self._belongings(worker, pid) - {pid})
        os.waitpid(pid, 0)
        del self.ids[pid], self.pids[worker], self.tags[worker]
        self._report(EXITED, worker, pid, info.si_status if info.si_code == os.CLD_EXITED else -info.si_status)

    def _belongings(self, worker: int, pid: int) -> set[int]:
        """Find a worker, its descendants, its session, and the orphans that carry its tag."""
        table = process_table()
        tag = self.tags[worker]
        roots = {
            other
            for other, (parent, session) in table.items()
            if session == pid or (parent == self.pid and other not in self.ids and carries(other, tag))
        }
        return descendants(table, roots | {pid})

    def kill_everything(self) -> None:
        """Kill and reap every descendant; give up after a while on those that cannot die."""
        limit = monotonic() + END_LIMIT
        while monotonic() < limit:
            kill_all(lambda: descendants(process_table(), {self.pid}) - {self.pid})
            while wait(os.WEXITED | os.WNOHANG):
                pass
            if not has_children():
                return
            select.select([self.wakeup], [], [], 0.01)

    def _report(self, kind: bytes, worker: int, pid: int, status: int) -> None:
        self.outbox.append(REPORT.pack(kind, worker, pid, status))
        self._speak()

    def _speak(self) -> None:
        """Send what the driver takes now, the rest when it reads again."""
        try:
            while self.outbox:
                self.control.send(self.outbox[0])
                self.outbox.popleft()
        except BlockingIOError:
            pass
        except ConnectionError:
            self.outbox.clear()  # the end of the file is on its way
        self.poll.modify(self.control, select.POLLIN | (select.POLLOUT if self.outbox else 0))


def spawn_worker(fds: list[int]) -> tuple[int, bytes]:
    """Start a worker process: the one seam where another way of starting (a fork) would go.

    Args:
        fds: As sent with a spawn command.

    Returns:
        Its pid, and its tag as it stands in its environment.

    Raises:
        OSError: It could not be started; also if descriptors are missing because the table of open files is full.
    """
    if len(fds) != SPAWN_FDS:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    *own, recipe = fds
    arguments, environment = marshal.loads(os.pread(recipe, os.fstat(recipe).st_size, 0))  # noqa: S302  the driver's
    targets = (1, 2, WORKER_SOCKET, WORKER_CLAIMS)
    order = (own[1], own[2], own[0], own[3])
    pid = os.posix_spawn(
        arguments[0],
        arguments,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            *((os.POSIX_SPAWN_DUP2, source, target) for source, target in zip(order, targets, strict=True)),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # ignored by the interpreter; no business of what steps start
    )
    return pid, b"%s=%s" % (TAG.encode(), environment[TAG.encode()])


def process_table() -> dict[int, tuple[int, int]]:
    """Read all processes: pid to (parent, session)."""
    table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  as in read_proc
        if name.isdigit() and (stat := read_proc(name, "stat")):
            # After the name, which may hold anything: state, parent, group, session.
            _, parent, _, session = stat.rpartition(b")")[2].split(maxsplit=4)[:4]
            table[int(name)] = int(parent), int(session)
    return table


def descendants(table: dict[int, tuple[int, int]], roots: set[int]) -> set[int]:
    """Return the roots and everything below them."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    todo = [*roots]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, ())
    return found


def kill_all(find: Callable[[], set[int]]) -> None:
    """Stop what `find` finds until it finds nothing new, then kill all of it."""
    stopped: set[int] = set()
    for _ in range(MOST_ROUNDS):
        new = find() - stopped
        if not new:
            break
        for pid in sorted(new):
            send_signal(os.kill, pid, signal.SIGSTOP)
        stopped |= new
    for pid in stopped:
        send_signal(os.kill, pid, signal.SIGKILL)


def send_signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    """Send a signal; a process that is gone, or that belongs to another user by now, is not ours to kill."""
    try:  # noqa: SIM105  contextlib is not worth its import here
        send(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def carries(pid: int, tag: bytes) -> bool:
    """Tell whether a process was started with `tag` in its environment."""
    return tag in read_environment(pid)


def read_environment(pid: int) -> list[bytes]:
    """Read what a process was started with; one that is in the middle of an exec has nothing yet, so look again."""
    for _ in range(EXEC_LOOKS):
        if environment := read_proc(pid, "environ"):
            return environment.split(b"\0")
        if not runs_program(pid):
            break
        select.select([], [], [], 0.001)
    return []


def runs_program(pid: int) -> bool:
    """Tell whether a process runs a program, as far as we may know; zombies and threads of the kernel do not."""
    try:
        os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115  as in read_proc
    except OSError:
        return False
    return True


def read_proc(pid: int | str, name: str) -> bytes:
    """Read a file of a process; nothing if the process is gone or hidden."""
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123  pathlib takes longer to import than all else here
            return file.readall()
    except OSError:
        return b""


def wait(options: int) -> os.waitid_result | None:
    """Wait for any child; `None` if there is none, or none in that state."""
    try:
        return os.waitid(os.P_ALL, 0, options)
    except ChildProcessError:
        return None


def has_children() -> bool:
    """Tell whether any child is left, dead or alive."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def open_pidfd(pid: int) -> int | None:
    """Open a descriptor that becomes readable when the process ends; `None` where a sandbox forbids it."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def become_subreaper() -> None:
    """Adopt orphaned descendants; without ctypes helpers that leave their family escape."""
    try:
        import ctypes
    except ImportError:
        return
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wake_on_signals() -> socket.socket:
    """Turn signals into bytes on a socket; all but that of a child's end ask the guardian to end."""
    reader, writer = socket.socketpair()
    for side in (reader, writer):
        side.settimeout(0)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reader


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Receive a command and its descriptors, which no other worker may inherit (`socket.recv_fds` drops that flag)."""
    room = socket.CMSG_SPACE(SPAWN_FDS * DESCRIPTOR.size)
    message, ancillary, _, _ = control.recvmsg(COMMAND.size, room, socket.MSG_CMSG_CLOEXEC)
    return message, [
        fd
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in DESCRIPTOR.iter_unpack(data[: len(data) // DESCRIPTOR.size * DESCRIPTOR.size])
    ]


def move_up(control: socket.socket) -> socket.socket:
    """Fill the descriptors that workers are given, so that none of ours is among them."""
    with control:
        moved = socket.socket(fileno=fcntl.fcntl(control, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD))
    while (fd := os.open(os.devnull, os.O_RDWR)) < FIRST_FREE_FD:
        pass
    os.close(fd)
    moved.settimeout(0)
    return moved


def close_all(fds: list[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
