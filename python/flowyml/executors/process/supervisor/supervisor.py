"""The supervisor: a small process that owns all processes of one worker pool.

It starts workers (see `spawning.py`), kills them with all processes they have started, reaps them, reports how they
exited, and kills what is left when the driver has exited. It imports neither user code nor the rest of flowyml, so no
user code can break it. It is single-threaded and has its own session, so no signal of the driver's terminal reaches it.

```text
       commands: prepare, spawn (+ fds), kill, end        posix_spawn, SIGSTOP, SIGKILL, waitid
  driver ───────────────────────────────────▶ supervisor ─────────────────────────────────────▶ workers
         ◀───────────────────────────────────            ◀─────────────── orphans are adopted ─   └─ descendants
            reports: started, exited, refused
```

* *The driver has exited* when its pidfd or the end of the control socket says so. Both are needed: a child that the
  driver forked keeps the socket open, and a driver that has closed its pool still runs.
* *Kill* stops the worker's tree until it no longer grows, then kills all of it, so that no forking helper escapes.
* *When a worker dies by itself*, its process group is killed before its pid is freed, then the orphans that are known
  as its own by their session or by the tag in their environment. A process that has erased both lives until `end`,
  which kills every adopted process.
* *Resource trackers* (of multiprocessing and loky) are killed a second later: once all other processes are dead they
  unlink their semaphores, shared memory and directories, and exit.

Only `poll` blocks: a driver that does not read costs memory, never a worker's life.
"""

from __future__ import annotations

import os
import select
import struct
import sys
from time import monotonic

from . import spawning
from .process_tree import carries, descendants, is_tracker, kill_all, process_table, send_signal
from .spawning import ForkServer, SpawnRequest, close_all, move_up, receive

TYPE_CHECKING = False  # type checkers know the name; `typing` is slow to import
if TYPE_CHECKING:
    import signal
    import socket
else:
    import _signal as signal  # see `spawning.py`
    import _socket as socket

COMMAND = struct.Struct("<cQd")
"""Verb, worker id, number (the grace of END in seconds)."""
PREPARE, SPAWN, KILL, END = b"p", b"s", b"k", b"e"

REPORT = struct.Struct("<cQqq")
"""Kind, worker id, pid, status (exit code, negative for a signal; errno if REFUSED); UNFIT: a fork server exited."""
STARTED, EXITED, REFUSED, UNFIT = b"S", b"X", b"R", b"U"

KILL_TIMEOUT_SECONDS = 2.0
"""After this time processes that do not die (uninterruptible I/O) are left alone."""
TRACKER_GRACE_SECONDS = 1.0
"""How long resource trackers may take to unlink the resources of killed processes."""
PARENT_POLL_SECONDS = 0.25
"""How often the parent's pid is checked if pidfds are not allowed."""
MAX_FORK_SERVER_LOSSES = 3
"""Fork servers that may be lost after they were ready; then workers are exec'ed."""
PR_SET_CHILD_SUBREAPER = 36
_ALL = 1 << 30


def main() -> None:
    """Serve the driver whose socket and pid are on the command line, until it has exited and all processes are dead."""
    os.closerange(int(sys.argv[1]) + 1, _ALL)  # the driver's libraries may have left descriptors inheritable
    control = socket.socket(fileno=int(sys.argv[1]))
    supervisor = Supervisor(control, int(sys.argv[2]))
    try:
        supervisor.serve()
    finally:
        supervisor.kill_everything()


class Supervisor:
    """The state of the process: the live workers, the reports that were not sent, and when to exit.

    Args:
        control: The `SOCK_SEQPACKET` socket to the driver.
        driver: The driver's pid.
    """

    def __init__(self, control: socket.socket, driver: int) -> None:
        self.pid = os.getpid()
        self.driver = driver
        self.pids: dict[int, int] = {}
        self.tags: dict[int, bytes] = {}
        self.ids: dict[int, int] = {}
        self.fork_server: ForkServer | None = None
        self.losses = 0
        self.trackers: dict[int, float] = {}  # by pid, when they are killed
        self.outbox: list[bytes] = []
        self.deadline: float | None = None
        self.control = move_up(control)
        self.control.settimeout(0)
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
        """Work until the driver has exited, or has sent `end` and the workers had their grace period.

        It becomes a subreaper after the first command, which starts the fork server: that takes as long as all imports
        here, and less than the new interpreter needs before it can have a child.
        """
        self._read_command()
        become_subreaper()
        while not self._is_over():
            ready = {fd for fd, _ in self.poll.poll(self._timeout())}
            if self.driver_fd in ready or os.getppid() != self.driver:
                self.deadline = monotonic()
            elif ready:
                self._handle(ready)
            if self.fork_server is not None and monotonic() >= self.fork_server.deadline():
                self._on_fork_server_lost(self.fork_server)
            if self.trackers:
                self._kill_late_trackers()

    def _is_over(self) -> bool:
        if self.deadline is None:
            return False
        return monotonic() >= self.deadline or not (self.pids or (self.fork_server and self.fork_server.requests))

    def _timeout(self) -> float | None:
        """Return the milliseconds until the next deadline."""
        moments = [*([self.deadline] if self.deadline is not None else []), *self.trackers.values()]
        if self.fork_server is not None and self.fork_server.requests:
            moments.append(self.fork_server.deadline())
        if self.driver_fd is None:
            moments.append(monotonic() + PARENT_POLL_SECONDS)
        return max(0.0, min(moments) - monotonic()) * 1000 + 1 if moments else None

    def _handle(self, ready: set[int]) -> None:
        if self.wakeup.fileno() in ready:
            self._read_signals()
        if self.fork_server is not None and self.fork_server.fileno() in ready:
            self._read_fork_server()
        if self.control.fileno() in ready:
            self._read_command()
            self._flush_reports()

    def _read_signals(self) -> None:
        received = self.wakeup.recv(4096)
        if any(number != signal.SIGCHLD for number in received):
            self.deadline = monotonic()
        self.reap()

    def _read_command(self) -> None:
        try:
            message, fds = receive(self.control, COMMAND.size)
        except BlockingIOError:
            return
        except ConnectionError:
            message, fds = b"", []
        self._execute(message, fds)

    def _execute(self, message: bytes, fds: list[int]) -> None:
        verb, worker, number = COMMAND.unpack(message) if message else (END, 0, 0.0)
        if verb == SPAWN:
            self.spawn(worker, fds)
        elif verb == PREPARE:
            self.prepare(fds)
        elif verb == KILL:
            self.kill(worker)
        else:
            self.deadline = monotonic() + number
            self._stop_idle_fork_server()

    # -- starting

    def spawn(self, worker: int, fds: list[int]) -> None:
        """Start a worker with the descriptors of the command, forked if possible; report its pid or error."""
        try:
            request = SpawnRequest(fds)
        except OSError as error:
            self._report(REFUSED, worker, 0, error.errno or 0)
            return
        if self.fork_server is None or not self.fork_server.request_worker(worker, request):
            self._exec(worker, request)

    def _exec(self, worker: int, request: SpawnRequest) -> None:
        try:
            pid = request.spawn_worker()
        except OSError as error:
            request.close()
            self._report(REFUSED, worker, 0, error.errno or 0)
        else:
            self._note_start(worker, pid, request)

    def _note_start(self, worker: int, pid: int, request: SpawnRequest) -> None:
        request.close()
        self.pids[worker], self.tags[worker], self.ids[pid] = pid, request.tag, worker
        self._report(STARTED, worker, pid, 0)
        if request.kill_at_birth:
            self.kill(worker)

    def prepare(self, fds: list[int]) -> None:
        """Start a fork server from its recipe, in the place of the last one; without one workers are exec'ed."""
        if self.fork_server is not None:
            self._stop_fork_server(self.fork_server)
        try:
            self._use_fork_server(ForkServer(*spawning.read_recipe(fds[0])))
        except (OSError, IndexError):  # no process, or no descriptor, is left
            return
        finally:
            close_all(fds)

    def _use_fork_server(self, fork_server: ForkServer | None) -> None:
        self.fork_server = fork_server
        if fork_server is not None:
            self.poll.register(fork_server, select.POLLIN)

    def _read_fork_server(self) -> None:
        fork_server = self.fork_server
        if fork_server is None:
            return
        try:
            self._take_reports(fork_server)
        except EOFError:
            self._on_fork_server_lost(fork_server)

    def _take_reports(self, fork_server: ForkServer) -> None:
        for kind, worker, number in fork_server.reports():
            if kind == spawning.READY:
                fork_server.ready = True
            elif kind == spawning.EXPECTED:
                fork_server.expected[number] = worker
            else:
                fork_server.expected.pop(number, None)
                request = fork_server.requests.pop(worker)
                if kind == spawning.BORN:
                    self._note_start(worker, number, request)
                else:
                    self._exec(worker, request)

    def _stop_fork_server(self, fork_server: ForkServer) -> None:
        """Kill a fork server; exec the workers that it has not delivered."""
        self.fork_server = None
        self.poll.unregister(fork_server)
        fork_server.kill()
        try:
            self._take_reports(fork_server)
        except EOFError:
            fork_server.socket.close()
        for worker, request in fork_server.requests.items():
            self._exec(worker, request)

    def _on_fork_server_lost(self, fork_server: ForkServer) -> None:
        self._stop_fork_server(fork_server)
        self.losses += fork_server.ready
        if not fork_server.ready:
            self._report(UNFIT, 0, fork_server.pid, 0)
        if self.losses <= MAX_FORK_SERVER_LOSSES and self.deadline is None:
            try:
                self._use_fork_server(fork_server.successor())
            except OSError:
                return

    def _stop_idle_fork_server(self) -> None:
        if self.fork_server is not None and not self.fork_server.requests:
            self._stop_fork_server(self.fork_server)

    # -- ending

    def kill(self, worker: int) -> None:
        """Kill a worker with all processes it has started; its exit is reported like any other."""
        pid = self.pids.get(worker)
        if pid is not None:
            self._spare_trackers(kill_all(lambda: self._processes_of(worker, pid), spare_trackers=True))
        elif self.fork_server is not None and worker in self.fork_server.requests:
            self.fork_server.requests[worker].kill_at_birth = True

    def reap(self) -> None:
        """Reap all children that have exited, workers and adopted processes."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while info := wait(options):
            if info.si_pid not in self.ids:
                self._read_fork_server()  # it may be a worker that was just born
            if info.si_pid in self.ids:
                self._reap_worker(self.ids[info.si_pid], info)
            else:
                self._on_unknown_exit(info.si_pid)
                os.waitpid(info.si_pid, 0)

    def _on_unknown_exit(self, pid: int) -> None:
        """Handle the exit of a child that is no worker: the fork server, or one that was to become a worker."""
        self.trackers.pop(pid, None)
        fork_server = self.fork_server
        if fork_server is not None and pid == fork_server.pid:
            self._on_fork_server_lost(fork_server)
        elif fork_server is not None and (worker := fork_server.expected.pop(pid, None)) in fork_server.requests:
            self._exec(worker, fork_server.requests.pop(worker))

    def _reap_worker(self, worker: int, info: os.waitid_result) -> None:
        """Kill what a dead worker left behind while its pid is not reused, then reap and report it."""
        pid = info.si_pid
        left = self._processes_of(worker, pid) - {pid}
        if not any(map(is_tracker, left)):
            send_signal(os.killpg, pid, signal.SIGKILL)
        if left:
            self._spare_trackers(kill_all(lambda: self._processes_of(worker, pid) - {pid}, spare_trackers=True))
        os.waitpid(pid, 0)
        del self.ids[pid], self.pids[worker], self.tags[worker]
        self._report(EXITED, worker, pid, info.si_status if info.si_code == os.CLD_EXITED else -info.si_status)

    def _processes_of(self, worker: int, pid: int) -> set[int]:
        """Return a worker, its descendants, its session, and the orphans that carry its tag."""
        table = process_table()
        tag = self.tags[worker]
        roots = {
            other
            for other, (parent, session) in table.items()
            if session == pid or (parent == self.pid and other not in self.ids and carries(other, tag))
        }
        return descendants(table, roots | {pid})

    def _spare_trackers(self, trackers: set[int]) -> None:
        for pid in trackers:
            self.trackers.setdefault(pid, monotonic() + TRACKER_GRACE_SECONDS)

    def _kill_late_trackers(self) -> None:
        """Kill the trackers whose grace period is over, unless the pid was reused for another process."""
        late = {pid for pid, until in self.trackers.items() if monotonic() >= until}
        for pid in late:
            del self.trackers[pid]
        late = {pid for pid in late if is_tracker(pid)}
        if late:
            kill_all(lambda: descendants(process_table(), late))

    def kill_everything(self) -> None:
        """Kill and reap every descendant, trackers a moment later; give up on processes that cannot die."""
        now = monotonic()
        limit, tidy = now + KILL_TIMEOUT_SECONDS, now + TRACKER_GRACE_SECONDS
        while monotonic() < limit:
            kill_all(lambda: descendants(process_table(), {self.pid}) - {self.pid}, spare_trackers=monotonic() < tidy)
            while wait(os.WEXITED | os.WNOHANG):
                pass
            if not has_children():
                return
            select.select([self.wakeup], [], [], 0.01)

    def _report(self, kind: bytes, worker: int, pid: int, status: int) -> None:
        self.outbox.append(REPORT.pack(kind, worker, pid, status))
        self._flush_reports()

    def _flush_reports(self) -> None:
        try:
            while self.outbox:
                self.control.send(self.outbox[0])
                del self.outbox[0]
        except BlockingIOError:
            pass
        except ConnectionError:
            self.outbox.clear()  # the end of the file follows
        self.poll.modify(self.control, select.POLLIN | (select.POLLOUT if self.outbox else 0))


def wait(options: int) -> os.waitid_result | None:
    """Wait for any child; return `None` if there is none, or none in that state."""
    try:
        return os.waitid(os.P_ALL, 0, options)
    except ChildProcessError:
        return None


def has_children() -> bool:
    """Return True if any child is left, dead or alive."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor that becomes readable when the process exits; `None` if a sandbox forbids it."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def become_subreaper() -> None:
    """Adopt orphaned descendants; without ctypes, processes that leave their family escape."""
    try:
        import ctypes
    except ImportError:
        return
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wake_on_signals() -> socket.socket:
    """Turn signals into bytes on a socket; all but SIGCHLD make the supervisor exit."""
    reader, writer = socket.socketpair()
    for side in (reader, writer):
        side.settimeout(0)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reader
