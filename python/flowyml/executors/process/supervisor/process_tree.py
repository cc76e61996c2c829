"""The process table: descendants, tags, and killing a tree of processes that resists.

Read from `/proc`; if that is missing or hidden, no process is found. The supervisor imports this module without the
rest of flowyml, so it imports C modules only.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False  # type checkers know the name; `typing` is slow to import
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # without its enums; see `spawning.py`

MAX_STOP_ROUNDS = 100
"""Rounds for a tree that grows because it cannot be stopped (it belongs to another user by now); two are usual."""
TRACKER = b".resource_tracker import main"
"""How the program of a resource tracker begins, after the name of its package."""
MAX_EXEC_READS = 10
"""Attempts, a millisecond apart, to read the environment of a process."""


def process_table() -> dict[int, tuple[int, int]]:
    """Return all processes: pid to (parent, session)."""
    table = {}
    for name in list_proc():
        if name.isdigit() and (stat := read_proc(name, "stat")):
            # After the name, which may hold anything: state, parent, group, session.
            _, parent, _, session = stat.rpartition(b")")[2].split(maxsplit=4)[:4]
            table[int(name)] = int(parent), int(session)
    return table


def list_proc() -> list[str]:
    """Return the names in /proc; none if it is missing."""
    try:
        return os.listdir("/proc")  # noqa: PTH208  as in read_proc
    except OSError:
        return []


def anonymous(pid: int) -> int:
    """Return the bytes of a process's resident anonymous memory; 0 if it has exited."""
    fields = read_proc(pid, "statm").split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def descendants(table: dict[int, tuple[int, int]], roots: set[int]) -> set[int]:
    """Return the roots and all their descendants."""
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


def kill_all(find: Callable[[], set[int]], *, spare_trackers: bool = False) -> set[int]:
    """Stop the processes that `find` returns until there are no new ones, then kill them all.

    Args:
        find: Returns the pids of the processes that exist now.
        spare_trackers: Do not kill resource trackers, which exit once all others have.

    Returns:
        The trackers that were spared.
    """
    stopped: set[int] = set()
    trackers: set[int] = set()
    for _ in range(MAX_STOP_ROUNDS):
        new = find() - stopped - trackers
        if not new:
            break
        for pid in sorted(new):
            if spare_trackers and is_tracker(pid):
                trackers.add(pid)
            else:
                send_signal(os.kill, pid, signal.SIGSTOP)
                stopped.add(pid)
    for pid in stopped:
        send_signal(os.kill, pid, signal.SIGKILL)
    return trackers


def is_tracker(pid: int) -> bool:
    """Return True for a resource tracker of multiprocessing or loky.

    It unlinks the semaphores, shared memory and directories of its processes once all of them have exited.
    """
    return TRACKER in _read_of_program(pid, "cmdline")


def send_signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    """Send a signal, unless the process has exited or belongs to another user by now."""
    try:  # noqa: SIM105  contextlib is not worth its import here
        send(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def carries(pid: int, tag: bytes) -> bool:
    """Return True if a process was started with `tag` in its environment."""
    return tag in read_environment(pid)


def read_environment(pid: int) -> list[bytes]:
    """Return the environment that a process was started with."""
    environment = _read_of_program(pid, "environ")
    return environment.split(b"\0") if environment else []


def _read_of_program(pid: int, name: str) -> bytes:
    """Read a file of /proc that is empty during an exec: repeat until it is not."""
    for _ in range(MAX_EXEC_READS):
        if data := read_proc(pid, name):
            return data
        if not runs_program(pid):
            break
        select.select([], [], [], 0.001)
    return b""


def runs_program(pid: int) -> bool:
    """Return True if a process runs a program, as far as permissions show; zombies and kernel threads do not."""
    try:
        os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115  as in read_proc
    except OSError:
        return False
    return True


def read_proc(pid: int | str, name: str) -> bytes:
    """Read a file of a process; empty if the process has exited or is hidden."""
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123  pathlib is slow to import
            return file.readall()
    except OSError:
        return b""
