"""The guardian: a small process that owns every process verb of one worker pool.

It starts workers (`starts.py` tells how), kills them with everything they started, reaps them, tells the driver how
they ended, and when the driver is gone it kills what is left. It never imports user code nor the rest of flowyml, so
nothing of the user's can break it; it is single-threaded and has its own session, so no signal meant for the driver's
terminal reaches it.

```text
         commands: prepare, spawn (+ fds), kill, end      posix_spawn, SIGSTOP, SIGKILL, waitid
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
* *Resource trackers* (of multiprocessing and loky) are killed a second later: once all other processes are dead they
  unlink the semaphores, shared memory and directories that these left, and end.

Nothing here blocks but `poll`: a driver that does not read costs memory, never a worker's life.
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

TYPE_CHECKING = False  # as type checkers know it, without the cost of `typing`
if TYPE_CHECKING:
    import signal
    import socket
else:
    import _signal as signal  # see `starts.py`
    import _socket as socket

COMMAND = struct.Struct("<cQd")
"""Verb, worker id, number (the grace of END in seconds)."""
PREPARE, SPAWN, KILL, END = b"p", b"s", b"k", b"e"

REPORT = struct.Struct("<cQqq")
"""Kind, worker id, pid, status (EXITED: exit code, negative for a signal; REFUSED: errno); UNFIT: a template's end."""
STARTED, EXITED, REFUSED, UNFIT = b"S", b"X", b"R", b"U"

END_LIMIT = 2.0
"""Seconds after which processes that do not die (uninterruptible I/O) are left alone."""
TIDY_LIMIT = 1.0
"""Seconds that resource trackers have to unlink the resources of the killed processes."""
PARENT_CHECK = 0.25
"""Seconds between looks at the parent's number where pidfds are not allowed."""
MOST_LOSSES = 3
"""Templates that may be lost after they were ready; then workers are exec'ed."""
PR_SET_CHILD_SUBREAPER = 36
_ALL = 1 << 30


def main() -> None:
    """Serve the driver whose socket and pid stand on the command line; return when it is gone and all is clean."""
    os.closerange(int(sys.argv[1]) + 1, _ALL)  # nothing of the driver's stays open here, whatever its libraries do
    control = socket.socket(fileno=int(sys.argv[1]))
    guardian = Supervisor(control, int(sys.argv[2]))
    try:
        guardian.serve()
    finally:
        guardian.kill_everything()


class Supervisor:
    """The state of the process: the workers alive, the reports not yet sent, and when to end.

    Args:
        control: The `SOCK_SEQPACKET` socket to the driver.
        driver: The driver's pid.
    """

    def __init__(self, control: socket.socket, driver: int) -> None:
        """Start to watch the driver."""
        self.pid = os.getpid()
        self.driver = driver
        self.pids: dict[int, int] = {}
        self.tags: dict[int, bytes] = {}
        self.ids: dict[int, int] = {}
        self.template: ForkServer | None = None
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
        """Work until the driver is gone, or has said `end` and the workers had their grace.

        Once the first command, which starts the template, has been heard, it becomes a subreaper: that takes as long as
        all imports here, and it will be one long before the interpreter that it started can have a child.
        """
        self._hear_driver()
        become_subreaper()
        while not self._is_over():
            ready = {fd for fd, _ in self.poll.poll(self._timeout())}
            if self.driver_fd in ready or os.getppid() != self.driver:
                self.deadline = monotonic()
            elif ready:
                self._handle(ready)
            if self.template is not None and monotonic() >= self.template.overdue():
                self._lose_template(self.template)
            if self.trackers:
                self._kill_late_trackers()

    def _is_over(self) -> bool:
        if self.deadline is None:
            return False
        return monotonic() >= self.deadline or not (self.pids or (self.template and self.template.requests))

    def _timeout(self) -> float | None:
        """Milliseconds until something must be looked at without an event."""
        moments = [*([self.deadline] if self.deadline is not None else []), *self.trackers.values()]
        if self.template is not None and self.template.requests:
            moments.append(self.template.overdue())
        if self.driver_fd is None:
            moments.append(monotonic() + PARENT_CHECK)
        return max(0.0, min(moments) - monotonic()) * 1000 + 1 if moments else None

    def _handle(self, ready: set[int]) -> None:
        if self.wakeup.fileno() in ready:
            self._hear_signals()
        if self.template is not None and self.template.fileno() in ready:
            self._hear_template()
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
            message, fds = receive(self.control, COMMAND.size)
        except BlockingIOError:
            return
        except ConnectionError:
            message, fds = b"", []
        self._obey(message, fds)

    def _obey(self, message: bytes, fds: list[int]) -> None:
        verb, worker, number = COMMAND.unpack(message) if message else (END, 0, 0.0)
        if verb == SPAWN:
            self.spawn(worker, fds)
        elif verb == PREPARE:
            self.prepare(fds)
        elif verb == KILL:
            self.kill(worker)
        else:
            self.deadline = monotonic() + number
            self._dismiss_template()

    # -- starting

    def spawn(self, worker: int, fds: list[int]) -> None:
        """Have a worker started from the descriptors that came with the command, by the template if there is one.

        Its pid is reported, or why there is none.
        """
        try:
            request = SpawnRequest(fds)
        except OSError as error:
            self._report(REFUSED, worker, 0, error.errno or 0)
            return
        if self.template is None or not self.template.ask(worker, request):
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
        if request.doomed:
            self.kill(worker)

    def prepare(self, fds: list[int]) -> None:
        """Start a template from its recipe, in the place of the one before; without one workers are exec'ed."""
        if self.template is not None:
            self._part_with(self.template)
        try:
            self._use_template(ForkServer(*spawning.read_recipe(fds[0])))
        except (OSError, IndexError):  # no process, or no descriptor, is left
            return
        finally:
            close_all(fds)

    def _use_template(self, template: ForkServer | None) -> None:
        self.template = template
        if template is not None:
            self.poll.register(template, select.POLLIN)

    def _hear_template(self) -> None:
        """Take what the template and workers being born have reported."""
        template = self.template
        if template is None:
            return
        try:
            self._take_reports(template)
        except EOFError:
            self._lose_template(template)

    def _take_reports(self, template: ForkServer) -> None:
        for kind, worker, number in template.reports():
            if kind == spawning.READY:
                template.ready = True
            elif kind == spawning.EXPECTED:
                template.expected[number] = worker
            else:
                template.expected.pop(number, None)
                request = template.requests.pop(worker)
                if kind == spawning.BORN:
                    self._note_start(worker, number, request)
                else:
                    self._exec(worker, request)

    def _part_with(self, template: ForkServer) -> None:
        """End a template: what it has not delivered is exec'ed."""
        self.template = None
        self.poll.unregister(template)
        template.give_up()
        try:
            self._take_reports(template)
        except EOFError:
            template.socket.close()
        for worker, request in template.requests.items():
            self._exec(worker, request)

    def _lose_template(self, template: ForkServer) -> None:
        """Do without a template that is gone or does not answer; perhaps another one does better."""
        self._part_with(template)
        self.losses += template.ready
        if not template.ready:
            self._report(UNFIT, 0, template.pid, 0)
        if self.losses <= MOST_LOSSES and self.deadline is None:
            try:
                self._use_template(template.successor())
            except OSError:
                return

    def _dismiss_template(self) -> None:
        """End a template that nobody waits for; nobody will ask it any more."""
        if self.template is not None and not self.template.requests:
            self._part_with(self.template)

    # -- ending

    def kill(self, worker: int) -> None:
        """Kill a worker with everything it started; its exit is reported like any other."""
        pid = self.pids.get(worker)
        if pid is not None:
            self._spare(kill_all(lambda: self._belongings(worker, pid), spare_trackers=True))
        elif self.template is not None and worker in self.template.requests:
            self.template.requests[worker].doomed = True

    def reap(self) -> None:
        """Reap all children that have ended, workers and adopted ones."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while info := wait(options):
            if info.si_pid not in self.ids:
                self._hear_template()  # it may be a worker that was born just now
            if info.si_pid in self.ids:
                self._bury(self.ids[info.si_pid], info)
            else:
                self._miss(info.si_pid)
                os.waitpid(info.si_pid, 0)

    def _miss(self, pid: int) -> None:
        """See whether a child that ended and was no worker was to become one, or is the template."""
        self.trackers.pop(pid, None)
        template = self.template
        if template is not None and pid == template.pid:
            self._lose_template(template)
        elif template is not None and (worker := template.expected.pop(pid, None)) in template.requests:
            self._exec(worker, template.requests.pop(worker))

    def _bury(self, worker: int, info: os.waitid_result) -> None:
        """Kill what a dead worker left behind while its number still names it, then reap and report it."""
        pid = info.si_pid
        left = self._belongings(worker, pid) - {pid}
        if not any(map(is_tracker, left)):
            send_signal(os.killpg, pid, signal.SIGKILL)
        if left:
            self._spare(kill_all(lambda: self._belongings(worker, pid) - {pid}, spare_trackers=True))
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

    def _spare(self, trackers: set[int]) -> None:
        """Let resource trackers live for `TIDY_LIMIT`."""
        for pid in trackers:
            self.trackers.setdefault(pid, monotonic() + TIDY_LIMIT)

    def _kill_late_trackers(self) -> None:
        """Kill the trackers whose time is over; a pid that was reused for another process is left alone."""
        late = {pid for pid, until in self.trackers.items() if monotonic() >= until}
        for pid in late:
            del self.trackers[pid]
        late = {pid for pid in late if is_tracker(pid)}
        if late:
            kill_all(lambda: descendants(process_table(), late))

    def kill_everything(self) -> None:
        """Kill and reap every descendant, trackers a moment later; give up after a while on those that cannot die."""
        now = monotonic()
        limit, tidy = now + END_LIMIT, now + TIDY_LIMIT
        while monotonic() < limit:
            kill_all(lambda: descendants(process_table(), {self.pid}) - {self.pid}, spare_trackers=monotonic() < tidy)
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
                del self.outbox[0]
        except BlockingIOError:
            pass
        except ConnectionError:
            self.outbox.clear()  # the end of the file is on its way
        self.poll.modify(self.control, select.POLLIN | (select.POLLOUT if self.outbox else 0))


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
