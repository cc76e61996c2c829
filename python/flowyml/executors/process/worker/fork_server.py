"""What runs in the template process: import what every worker imports, then fork a worker on each request.

A worker that is forked is to be told from an exec'ed one by nothing but its speed: it has a session of its own, only
the descriptors that were sent for it, the environment and the command line of its recipe (its tag also where the kernel
shows it), a fresh `__main__`, random generators of its own, and the guardian as its parent; then it runs the same
program. `starts.py` has the protocol, and tells why nothing is lost or doubled.

The template is single-threaded: a thread that something started on the way (`sitecustomize`, a `.pth` file) is not
there in a forked process, and may hold a lock for ever. So it looks before it forks, and ends if it is not alone:
workers are exec'ed then.

What a template imports for its workers beside flowyml, and whether it may still be forked then.

A worker that pandas has been imported for starts in milliseconds instead of half a second, and shares its pages. But a
process may only be forked if nothing in it is lost by that: threads are (with whatever they hold), and a descriptor
would be shared by all workers. So modules are imported and nothing else, and after that the template looks at itself:
with a new thread or descriptor it is given up, and a bare one takes its place.

* *By name*: `ParallelExecutor(preload=["torch"])`, for the user to decide.
* *Familiar ones*: numpy, pandas, scipy and scikit-learn, where the driver has imported them (workers would import them
  at once, each on its own). These, because it is known of them that they can be imported in one process and used in its
  children, and because they are what takes long. Others are left to the user: a library may read something when it is
  imported that is different in a worker, or want to be patched before (as gevent does).

User modules are never imported here unless they are named: they may be edited at any time, and may do anything.

```text
 driver  familiar.py ──▶ "pandas=/.../pandas/__init__.py" ──command line──▶ template  preload(words)
```
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import sys
import time
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml.executors.process.supervisor import spawning
from flowyml.executors.process.supervisor.process_tree import read_proc
from flowyml.executors.process.supervisor.spawning import (
    BIRTH,
    BORN,
    EXPECTED,
    FAILED,
    READY,
    TAG,
    WORKER_CLAIMS,
    WORKER_SOCKET,
)
from flowyml.executors.process.worker import bootstrap, process_state, worker_loop
from flowyml.runtime import random_seeds

SEPARATOR = "="
"""Stands between a module and the file of its package."""
BY_VALUE = "(by value)"
"""Stands for all that makes functions which come by value."""

_FORK_SAFE_THREADS = frozenset(["", "jemalloc_bg_thd"])
"""Threads that a fork may lose. jemalloc, which pyarrow brings and pandas imports with it, starts its own again."""

# Of this package, and of what it stands on: what a worker does not need before its first step, if ever.
_REST = (
    "flowyml.executors.process.protocol.main_module",
    "flowyml.executors.process.protocol.exceptions",
    "flowyml.executors.process.protocol.pickler",
    "flowyml.steps.context",
    "inspect",
    "random",
)


def preload(path: str = "", *words: str) -> str | None:
    """Import modules.

    Args:
        path: The driver's `sys.path`, as one text.
        words: Names; those of `familiar` with a file, which are left out where they are not found there; or `BY_VALUE`.

    Returns:
        Why this process must not be forked now; `None` if it may be.
    """
    if BY_VALUE in words:
        import_rest()
    names = [word for word in words if word != BY_VALUE]
    return _preload(path, names) if names else None


def import_rest() -> None:
    """Import what else of this package workers may need."""
    for name in _REST:
        import_module(name)


def _preload(path: str, words: list[str]) -> str | None:
    from flowyml.import_guard import loading

    own_path, before = sys.path[:], _descriptors()
    sys.path[:] = path.split(os.pathsep)
    for word in words:
        name, _, file = word.partition(SEPARATOR)
        try:
            with loading():  # a module that runs a pipeline when it is imported is refused by name
                if not file or _is_found(name, file):
                    import_module(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001  a module may raise anything
            if not file:
                return f"{name} cannot be imported: {type(error).__name__}: {error}"
    sys.path[:] = own_path
    if new := _descriptors() - before:
        return f"they leave descriptors open: {', '.join(sorted(new))}"
    return "they leave threads running" if _has_threads() else None


def _is_found(name: str, file: str) -> bool:
    """Tell whether this process finds a module's package where the driver has it from."""
    from importlib.util import find_spec

    spec = find_spec(name.partition(".")[0])
    return spec is not None and spec.origin == file


def _descriptors() -> set[str]:
    """Return the open descriptors, each with what it is."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  pathlib takes milliseconds to import
        try:
            found.add(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")  # noqa: PTH115
        except OSError:  # that of the listing itself
            continue
    return found


def _has_threads() -> bool:
    """Tell whether there are threads that a fork would lose: those of OpenBLAS end by themselves before one."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads: that is what is to be found out
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return has_other_threads()


def has_other_threads() -> bool:
    """Return True if there are threads next to the main thread that a fork must not lose."""
    tasks = (task for task in os.listdir("/proc/self/task") if task != str(os.getpid()))  # noqa: PTH208
    return any(_thread_name(task) not in _FORK_SAFE_THREADS for task in tasks)


def _thread_name(task: str) -> str:
    """Return the name of a thread; an empty string if the thread has ended."""
    try:
        with open(f"/proc/self/task/{task}/comm") as file:  # noqa: PTH123
            return file.read().rstrip("\n")
    except OSError:
        return ""


if TYPE_CHECKING:
    import socket
else:
    import _socket as socket  # see `starts.py`

__all__ = ["main", "worker_loop"]  # imported so that workers have it

_GLANCE = 0.00005
# Milliseconds without a request after which there is time for what the first workers did not wait for.
_PAUSE = 50
# Fields of `stat`, from the state on: threads, and where in memory the environment is that a process started with.
_THREADS, _ENV_START = 17, 47


class ForkedWorker(NamedTuple):
    """What a worker was forked for: its id, what was sent for it, and the process between it and the template."""

    worker: int
    fds: list[int]
    between: int


def main() -> None:
    """Serve the guardian whose pid stands on the command line; in a forked worker: run its program."""
    guardian = int(sys.argv[2])
    bootstrap.die_with(guardian)
    control = spawning.move_up(socket.socket(fileno=WORKER_SOCKET))
    place = _place_of_tag()
    process_state.watch()
    if (reason := preload(*sys.argv[3:])) is not None:
        sys.stderr.write(reason + "\n")  # while `control` is open: the guardian kills whoever closes it
        sys.exit(1)
    gc.freeze()  # what is here stays: no pass of a collector writes into pages that are shared
    control.send(BIRTH.pack(READY, 0, 0))
    birth = serve(control)
    if birth is not None:
        program = _become_worker(control, birth, guardian, place)
        exec(program, sys.modules["__main__"].__dict__)  # noqa: S102  as the command line of an exec'ed worker says


def serve(control: socket.socket) -> ForkedWorker | None:
    """Fork workers until the guardian is gone; returns in each of them with what it is for."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    has_all = False
    while True:
        if not has_all and not poll.poll(_PAUSE):
            import_rest()
            gc.freeze()
            has_all = True
        message, fds = spawning.receive(control, spawning.REQUEST.size)
        if not message or not _is_alone():
            return None
        (number,) = spawning.REQUEST.unpack(message)
        if len(fds) != spawning.SPAWN_FDS:  # the table of open files is full
            control.send(BIRTH.pack(FAILED, number, errno.EMFILE))
        elif (between := _fork(control, number)) is not None:
            return ForkedWorker(number, fds, between)
        spawning.close_all(fds)


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


def _become_worker(control: socket.socket, birth: ForkedWorker, guardian: int, place: int | None) -> str:
    """Make this process what an exec'ed worker is when its program begins; return the program."""
    os.setsid()
    while os.getppid() == birth.between:
        time.sleep(_GLANCE)
    socket_, stdout, stderr, claims, recipe = birth.fds
    (command,), environment = spawning.read_recipe(recipe)
    for source, target in ((stdout, 1), (stderr, 2), (socket_, WORKER_SOCKET), (claims, WORKER_CLAIMS)):
        os.dup2(source, target)
    if os.getppid() != guardian or not _report(control, birth.worker):
        os._exit(1)
    control.close()
    spawning.close_all(birth.fds)
    os.closerange(WORKER_CLAIMS + 1, spawning.FIRST_FREE_FD)
    _take_environment(environment, place)
    _reseed()
    gc.enable()
    program, *arguments = map(os.fsdecode, command[-spawning.ARGUMENTS - 1 :])
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
    process_state.set_environment(environment)
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
    random_seeds.end()
    if (seed := getattr(sys.modules.get("torch"), "seed", None)) is not None:
        seed()


def _is_alone() -> bool:
    """Tell whether this process has no thread but this one, as far as may be known."""
    return _field(_THREADS) <= 1 or not has_other_threads()


def _field(number: int) -> int:
    """Return a field of this process's `stat`; 0 where that cannot be read."""
    fields = read_proc("self", "stat").rpartition(b")")[2].split()
    return int(fields[number]) if fields else 0
