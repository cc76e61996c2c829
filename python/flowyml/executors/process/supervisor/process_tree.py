"""The process table: who descends from whom, who carries a tag, and how to end a tree that does not want to end.

Read from `/proc`; where that is missing or hidden nobody is found. The guardian runs this as a module beside it,
without the rest of flowyml, so it imports next to nothing.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False  # as type checkers know it, without the cost of `typing`
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # what lies beneath, without its enums; see `starts.py`

MOST_ROUNDS = 100
"""Looks at a tree that keeps growing because it may not be stopped (it has become another user's); two are usual."""
TRACKER = b".resource_tracker import main"
"""The beginning of the program of a resource tracker, after the name of its package."""
EXEC_LOOKS = 10
"""Looks, a millisecond apart, at a process that has no environment yet."""


def process_table() -> dict[int, tuple[int, int]]:
    """Read all processes: pid to (parent, session)."""
    table = {}
    for name in list_proc():
        if name.isdigit() and (stat := read_proc(name, "stat")):
            # After the name, which may hold anything: state, parent, group, session.
            _, parent, _, session = stat.rpartition(b")")[2].split(maxsplit=4)[:4]
            table[int(name)] = int(parent), int(session)
    return table


def list_proc() -> list[str]:
    """List the processes; nothing where /proc is not there."""
    try:
        return os.listdir("/proc")  # noqa: PTH208  as in read_proc
    except OSError:
        return []


def anonymous(pid: int) -> int:
    """Return the bytes of a process's resident memory that are neither of files nor shared by name; 0 if it is gone."""
    fields = read_proc(pid, "statm").split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") if fields else 0


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


def kill_all(find: Callable[[], set[int]], *, spare_trackers: bool = False) -> set[int]:
    """Stop what `find` finds until it finds nothing new, then kill all of it.

    Args:
        find: Returns the pids of the processes that exist now.
        spare_trackers: Do not kill resource trackers, which end once all others have ended.

    Returns:
        The trackers that were left alone.
    """
    stopped: set[int] = set()
    trackers: set[int] = set()
    for _ in range(MOST_ROUNDS):
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
    """Return True for a resource tracker, of multiprocessing or of loky.

    It unlinks the semaphores, shared memory and directories that its processes left, once all of them have ended.
    """
    return TRACKER in _read_of_program(pid, "cmdline")


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
    """Read what a process was started with."""
    environment = _read_of_program(pid, "environ")
    return environment.split(b"\0") if environment else []


def _read_of_program(pid: int, name: str) -> bytes:
    """Read a file of /proc that exec fills; during the exec it is empty, so read it again."""
    for _ in range(EXEC_LOOKS):
        if data := read_proc(pid, name):
            return data
        if not runs_program(pid):
            break
        select.select([], [], [], 0.001)
    return b""


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
