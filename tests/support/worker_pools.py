"""Tools of the tests of guardian and pool: a stand-in worker, scripts that play the driver, the process table.

Processes of a test are found by a mark in their environment, whatever their parent has become.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flowyml.executors.process.pool.worker_process import WorkerExited, WorkerStarted
from flowyml.executors.process.supervisor.process_tree import process_table, read_environment, read_proc
from flowyml.executors.process.supervisor.spawning import TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowyml.executors.process.pool.worker_pool import WorkerPool
    from flowyml.executors.process.pool.worker_process import Event, WorkerProcess

MARK = "FLOWYML_TEST_MARK"
_UNLOCKED = "t" in sys.abiflags
forked = pytest.mark.skipif(_UNLOCKED, reason="without a global lock workers are exec'ed, not forked")
gives_back = pytest.mark.skipif(_UNLOCKED, reason="without a global lock the allocator keeps what is freed")
LIMIT = 20.0
"""Seconds after which something that must happen is taken to have failed to happen."""

PROGRAM = """
import os, signal, subprocess, sys, time
root = sys.argv[1]
root in sys.path or sys.path.insert(0, root)
from flowyml.executors.process.worker.bootstrap import attach
line = attach()
def tell(value): line.socket.sendall(repr(value).encode() + b"\\n")
while text := line.socket.recv(1 << 16):
    exec(text)
"""
"""A worker that runs the text it is sent, with `tell` to answer."""

SLEEPER = "import time; time.sleep(1000)"
"""A worker that starts fast and does nothing."""

HELPERS = {
    "child": "subprocess.Popen(['sleep', '1000'])",
    "own session": "subprocess.Popen(['sleep', '1000'], start_new_session=True)",
    "double fork": """
if (pid := os.fork()):
    os.waitpid(pid, 0)
else:
    subprocess.Popen(['sleep', '1000'], start_new_session=True)
    os._exit(0)
""",
    "fork only": "if not os.fork(): os.setsid(); os.fork(); time.sleep(1000)",
}
"""Ways of a step to leave something behind."""


def under_load(seconds: float) -> float:
    """Return what a time limit comes to while more wants to run than there are CPUs: as many times as long."""
    minute, _, _, now, _ = Path("/proc/loadavg").read_text().split()
    wanting = max(float(minute), float(now.partition("/")[0]) - 1)  # without who asks
    return seconds * max(1.0, wanting / (os.cpu_count() or 1))


def eventually(condition: Callable[[], object], limit: float = LIMIT) -> bool:
    """Look until `condition` holds; false if it does not within `limit` seconds of a machine that has time for it."""
    begin = time.monotonic()
    while not condition():
        passed = time.monotonic() - begin
        if passed > limit and passed > under_load(limit):
            return False
        select.select([], [], [], 0.005)
    return True


def is_asleep(pid: int) -> bool:
    """Tell whether the main thread of a process waits in the kernel: there Ctrl-C wakes it.

    Python sees only at certain points that it has come, and none need lie between a line that is written and a sleep.
    """
    return read_proc(pid, "stat").rpartition(b")")[2].split()[:1] == [b"S"]


def is_running(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    state = read_proc(pid, "stat").rpartition(b")")[2].split()
    return bool(state) and state[0] not in {b"Z", b"X"}


def children(pid: int) -> set[int]:
    """Return the children of a process, zombies too."""
    return {child for child, (parent, _) in process_table().items() if parent == pid}


def templates(pid: int | None) -> set[int]:
    """Return the template processes of a guardian."""
    return {child for child in children(pid or 0) if any(map(_marks_template, read_environment(child)))}


def _marks_template(entry: bytes) -> bool:
    return entry.startswith(TAG.encode()) and entry.endswith(b":forksrvr")


def helpers(pool: WorkerPool) -> set[int]:
    """Return the processes of a pool that are no workers."""
    return {pool.supervisor_pid or 0} | templates(pool.supervisor_pid)


def marked(mark: str) -> set[int]:
    """Return the processes that carry a mark; zombies carry nothing."""
    entry = f"{MARK}={mark}".encode()
    return {pid for pid in process_table() if entry in read_environment(pid)} - {os.getpid()}


def open_fds(pid: int | str = "self") -> int:
    """Return how many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def wait_for(fd: int | WorkerPool | WorkerProcess, limit: float = LIMIT) -> None:
    """Wait until something can be read."""
    fd = getattr(fd, "socket", fd)
    assert select.select([fd], [], [], limit)[0], "nothing came"


def next_events(pool: WorkerPool) -> list[Event]:
    """Return the next events, at least one."""
    wait_for(pool)
    return pool.read_events()


def wait_until(pool: WorkerPool, worker: WorkerProcess, kind: type[WorkerStarted | WorkerExited]) -> None:
    """Read events until one of this kind is about this worker."""
    while not any(isinstance(event, kind) and event.worker is worker for event in next_events(pool)):
        pass


def started(pool: WorkerPool) -> WorkerProcess:
    """Return a worker that has a process."""
    worker = pool.spawn_worker()
    wait_until(pool, worker, WorkerStarted)
    return worker


def run(worker: WorkerProcess, text: str) -> None:
    """Have a worker run some lines."""
    worker.socket.sendall(text.encode())


def ask(worker: WorkerProcess, text: str) -> str:
    """Have a worker run some lines, and return what it tells."""
    run(worker, text)
    wait_for(worker)
    return worker.socket.recv(1 << 16).decode().strip()


def read_all(fd: int) -> bytes:
    """Read a pipe to its end."""
    parts = []
    while True:
        wait_for(fd)
        part = os.read(fd, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)


@contextmanager
def driver(script: str, mark: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script that plays the driver; it is killed at the end."""
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", script, *arguments]
    environment = {**os.environ, MARK: mark, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def clear(mark: str) -> None:
    """Kill what a failed test left."""
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)
