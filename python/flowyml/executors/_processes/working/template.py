"""What runs in the template process: import what every worker imports, then fork a worker on each request.

A worker that is forked is to be told from an exec'ed one by nothing but its speed: it has a session of its own, only
the descriptors that were sent for it, the environment and the command line of its recipe (its tag also where the kernel
shows it), a fresh `__main__`, random generators of its own, and the guardian as its parent; then it runs the same
program. `starts.py` has the protocol, and tells why nothing is lost or doubled.

The template is single-threaded: a thread that something started on the way (`sitecustomize`, a `.pth` file) is not
there in a forked process, and may hold a lock for ever. So it looks before it forks, and ends if it is not alone:
workers are exec'ed then.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml.executors._processes.guarding import starts
from flowyml.executors._processes.guarding.process_table import read_proc
from flowyml.executors._processes.guarding.starts import (
    BIRTH,
    BORN,
    EXPECTED,
    FAILED,
    READY,
    TAG,
    WORKER_CLAIMS,
    WORKER_SOCKET,
)
from flowyml.executors._processes.working import lifeline, preloading, traces, worker
from flowyml.running import seeding

if TYPE_CHECKING:
    import socket
else:
    import _socket as socket  # see `starts.py`

__all__ = ["main", "worker"]  # imported so that workers have it

_GLANCE = 0.00005
# Milliseconds without a request after which there is time for what the first workers did not wait for.
_PAUSE = 50
# Fields of `stat`, from the state on: threads, and where in memory the environment is that a process started with.
_THREADS, _ENV_START = 17, 47


class Birth(NamedTuple):
    """What a worker was forked for: its id, what was sent for it, and the process between it and the template."""

    worker: int
    fds: list[int]
    between: int


def main() -> None:
    """Serve the guardian whose pid stands on the command line; in a forked worker: run its program."""
    guardian = int(sys.argv[2])
    lifeline.die_with(guardian)
    control = starts.move_up(socket.socket(fileno=WORKER_SOCKET))
    place = _place_of_tag()
    traces.watch()
    if (reason := preloading.preload(*sys.argv[3:])) is not None:
        sys.stderr.write(reason + "\n")  # while `control` is open: the guardian kills whoever closes it
        sys.exit(1)
    gc.freeze()  # what is here stays: no pass of a collector writes into pages that are shared
    control.send(BIRTH.pack(READY, 0, 0))
    birth = serve(control)
    if birth is not None:
        program = _become_worker(control, birth, guardian, place)
        exec(program, sys.modules["__main__"].__dict__)  # noqa: S102  as the command line of an exec'ed worker says


def serve(control: socket.socket) -> Birth | None:
    """Fork workers until the guardian is gone; returns in each of them with what it is for."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    has_all = False
    while True:
        if not has_all and not poll.poll(_PAUSE):
            preloading.import_rest()
            gc.freeze()
            has_all = True
        message, fds = starts.receive(control, starts.REQUEST.size)
        if not message or not _is_alone():
            return None
        (number,) = starts.REQUEST.unpack(message)
        if len(fds) != starts.SPAWN_FDS:  # the table of open files is full
            control.send(BIRTH.pack(FAILED, number, errno.EMFILE))
        elif (between := _fork(control, number)) is not None:
            return Birth(number, fds, between)
        starts.close_all(fds)


def _fork(control: socket.socket, number: int) -> int | None:
    """Fork a worker; return, in it alone, the process between."""
    try:
        child = os.fork()
    except OSError as error:
        control.send(BIRTH.pack(FAILED, number, error.errno or 0))
        return None
    if child == 0:
        between = os.getpid()
        return between if _is_worker(control, number) else None
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):  # nobody knows whether there is a worker: with this process gone, there will be none
        sys.exit(1)
    if code := os.waitstatus_to_exitcode(status):
        control.send(BIRTH.pack(FAILED, number, code))
    return None


def _is_worker(control: socket.socket, number: int) -> bool:
    """Fork once more: the process between says whom to expect and ends, what is left is the worker."""
    try:
        child = os.fork()
    except OSError as error:
        os._exit(error.errno or 1)
    if child == 0:
        return True
    with contextlib.suppress(OSError):  # the guardian has given up this template; so will the worker see
        control.send(BIRTH.pack(EXPECTED, number, child))
    os._exit(0)


def _become_worker(control: socket.socket, birth: Birth, guardian: int, place: int | None) -> str:
    """Make this process what an exec'ed worker is when its program begins; return the program."""
    os.setsid()
    while os.getppid() == birth.between:
        time.sleep(_GLANCE)
    socket_, stdout, stderr, claims, recipe = birth.fds
    (command,), environment = starts.read_recipe(recipe)
    for source, target in ((stdout, 1), (stderr, 2), (socket_, WORKER_SOCKET), (claims, WORKER_CLAIMS)):
        os.dup2(source, target)
    if os.getppid() != guardian or not _report(control, birth.worker):
        os._exit(1)
    control.close()
    starts.close_all(birth.fds)
    os.closerange(WORKER_CLAIMS + 1, starts.FIRST_FREE_FD)
    _take_environment(environment, place)
    _reseed()
    gc.enable()
    program, *arguments = map(os.fsdecode, command[-starts.ARGUMENTS - 1 :])
    sys.argv[:] = ["-c", *arguments]
    sys.modules["__main__"] = ModuleType("__main__")
    return program


def _report(control: socket.socket, number: int) -> bool:
    """Report the birth; tell whether the guardian still wants to hear of it."""
    try:
        control.send(BIRTH.pack(BORN, number, os.getpid()))
    except OSError:
        return False
    return True


def _take_environment(environment: dict[bytes, bytes], place: int | None) -> None:
    """Take over the environment of the recipe."""
    traces.set_environment(environment)
    if place is not None:
        _show_tag(environment[TAG.encode()], place)


def _place_of_tag() -> int | None:
    """Return where in this process's memory the kernel finds the tag; `None` where that cannot be known."""
    start, found = _field(_ENV_START), read_proc("self", "environ").find(b"\0%s=" % TAG.encode())
    return start + found + len(TAG) + 2 if start and found >= 0 else None


def _show_tag(tag: bytes, place: int) -> None:
    """Write the tag where others see it in `/proc`: it marks what a step forks, even if that leaves its family."""
    try:
        memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            if len(os.pread(memory, len(tag) + 1, place).rstrip(b"\0")) == len(tag):
                os.pwrite(memory, tag, place)
    finally:
        os.close(memory)


def _reseed() -> None:
    """Give generators that were seeded before the fork numbers of their own."""
    seeding.end()
    if (seed := getattr(sys.modules.get("torch"), "seed", None)) is not None:
        seed()


def _is_alone() -> bool:
    """Tell whether this process has no thread but this one, as far as may be known."""
    return _field(_THREADS) <= 1 or not preloading.has_other_threads()


def _field(number: int) -> int:
    """Return a field of this process's `stat`; 0 where that cannot be read."""
    fields = read_proc("self", "stat").rpartition(b")")[2].split()
    return int(fields[number]) if fields else 0
