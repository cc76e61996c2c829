"""The fork server: imports what every worker imports, then forks a worker on each request.

A forked worker differs from an exec'ed one in nothing but its speed: it has a session of its own, only the descriptors
that were sent for it, the environment and command line of its recipe (its tag also where the kernel shows it), a fresh
`__main__`, reseeded random generators, and the supervisor as its parent. `supervisor/spawning.py` has the protocol.

*Threads.* A thread that `sitecustomize` or a `.pth` file has started does not exist in a forked process, and may hold a
lock. So the fork server checks before each fork, and exits if it has several threads: workers are exec'ed then.

*Preloaded modules.* With pandas preloaded a worker starts in milliseconds instead of half a second, and shares its
pages. If an import leaves a thread or a descriptor, the process is not fit to fork, and one without these modules
replaces it.

* Named by the user: `ParallelExecutor(preload=["torch"])`.
* Candidates: numpy, pandas, scipy and scikit-learn, if the driver has imported them. They take long, and are known to
  work in children of the process that imported them. Others may read something at import that differs in a worker, or
  must be patched first (gevent). User modules are only imported if they are named, since they may be edited at any
  time.

```text
 driver  preload_candidates() ──▶ "pandas=/.../pandas/__init__.py" ──command line──▶ fork server  preload(words)
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
from flowyml.executors.process.worker import bootstrap, process_state, worker_loop
from flowyml.runtime import random_seeds

if TYPE_CHECKING:
    import socket
else:
    import _socket as socket  # see `spawning.py`

SEPARATOR = "="
"""Separates a module from the file of its package."""
BY_VALUE = "(by value)"
"""Stands for the modules that load functions sent by value."""

_FORK_SAFE_THREADS = frozenset(["", "jemalloc_bg_thd"])
"""Threads that a fork may lose. jemalloc, which pandas imports with pyarrow, starts its own again."""

# Modules that a worker does not need before its first step, if ever.
LATE_IMPORTS = (
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
        path: The driver's `sys.path`, joined.
        words: Names; those of candidates with the file, which must be the same here; or `BY_VALUE`.

    Returns:
        Why this process must not be forked; `None` if it may be.
    """
    if BY_VALUE in words:
        import_late()
    names = [word for word in words if word != BY_VALUE]
    return _preload(path, names) if names else None


def import_late() -> None:
    """Import modules of this package that workers may need later."""
    for name in LATE_IMPORTS:
        import_module(name)


def _preload(path: str, words: list[str]) -> str | None:
    from flowyml.import_guard import loading

    own_path, before = sys.path[:], _descriptors()
    sys.path[:] = path.split(os.pathsep)
    for word in words:
        name, _, file = word.partition(SEPARATOR)
        try:
            with loading():  # refuses a module that runs a pipeline at import
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
    from importlib.util import find_spec

    spec = find_spec(name.partition(".")[0])
    return spec is not None and spec.origin == file


def _descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  pathlib takes milliseconds to import
        try:
            found.add(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")  # noqa: PTH115
        except OSError:  # the descriptor of the listing itself
            continue
    return found


def _has_threads() -> bool:
    """Return True if there are threads that a fork would lose; those of OpenBLAS end by themselves before a fork."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads, which is the question
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return has_other_threads()


def has_other_threads() -> bool:
    """Return True if there are threads besides the main thread that a fork must not lose."""
    tasks = (task for task in os.listdir("/proc/self/task") if task != str(os.getpid()))  # noqa: PTH208
    return any(_thread_name(task) not in _FORK_SAFE_THREADS for task in tasks)


def _thread_name(task: str) -> str:
    try:
        with open(f"/proc/self/task/{task}/comm") as file:  # noqa: PTH123
            return file.read().rstrip("\n")
    except OSError:
        return ""


__all__ = ["main", "worker_loop"]  # imported so that workers have it

REPARENT_POLL_SECONDS = 0.00005
# After so long without a request there is time for the late imports.
IDLE_MILLISECONDS = 50
# Fields of `stat`, from the state on: number of threads, and address of the initial environment.
_THREADS, _ENV_START = 17, 47


class ForkedWorker(NamedTuple):
    """A forked worker: its id, the descriptors that were sent for it, and its parent, the intermediate process."""

    worker: int
    fds: list[int]
    intermediate: int


def main() -> None:
    """Serve the supervisor whose pid is on the command line; in a forked worker, run its program."""
    supervisor = int(sys.argv[2])
    bootstrap.die_with_parent(supervisor)
    control = spawning.move_up(socket.socket(fileno=spawning.WORKER_SOCKET))
    tag_address = _tag_address()
    process_state.watch()
    if (reason := preload(*sys.argv[3:])) is not None:
        sys.stderr.write(reason + "\n")  # while `control` is open: the supervisor kills a process that closes it
        sys.exit(1)
    gc.freeze()  # so that the garbage collector does not write to shared pages
    control.send(spawning.BIRTH.pack(spawning.READY, 0, 0))
    forked = serve(control)
    if forked is not None:
        program = _become_worker(control, forked, supervisor, tag_address)
        exec(program, sys.modules["__main__"].__dict__)  # noqa: S102  as the command line of an exec'ed worker says


def serve(control: socket.socket) -> ForkedWorker | None:
    """Fork workers until the supervisor is gone; returns in each of them."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    has_all = False
    while True:
        if not has_all and not poll.poll(IDLE_MILLISECONDS):
            import_late()
            gc.freeze()
            has_all = True
        message, fds = spawning.receive(control, spawning.REQUEST.size)
        if not message or not _is_alone():
            return None
        (number,) = spawning.REQUEST.unpack(message)
        if len(fds) != spawning.SPAWN_FDS:  # the table of open files is full
            control.send(spawning.BIRTH.pack(spawning.FAILED, number, errno.EMFILE))
        elif (intermediate := _fork(control, number)) is not None:
            return ForkedWorker(number, fds, intermediate)
        spawning.close_all(fds)


def _fork(control: socket.socket, number: int) -> int | None:
    """Fork a worker; return the intermediate process, in the worker alone."""
    try:
        child = os.fork()
    except OSError as error:
        control.send(spawning.BIRTH.pack(spawning.FAILED, number, error.errno or 0))
        return None
    if child == 0:
        intermediate = os.getpid()
        return intermediate if _is_worker(control, number) else None
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):  # unknown whether there is a worker; there is none once this process has exited
        sys.exit(1)
    if code := os.waitstatus_to_exitcode(status):
        control.send(spawning.BIRTH.pack(spawning.FAILED, number, code))
    return None


def _is_worker(control: socket.socket, number: int) -> bool:
    """Fork again: the intermediate process reports the pid and exits; return True in the worker."""
    try:
        child = os.fork()
    except OSError as error:
        os._exit(error.errno or 1)
    if child == 0:
        return True
    with contextlib.suppress(OSError):  # the supervisor has given up this fork server, as the worker will notice
        control.send(spawning.BIRTH.pack(spawning.EXPECTED, number, child))
    os._exit(0)


def _become_worker(control: socket.socket, forked: ForkedWorker, supervisor: int, tag_address: int | None) -> str:
    """Make this process equal to an exec'ed worker; return its program."""
    os.setsid()
    while os.getppid() == forked.intermediate:
        time.sleep(REPARENT_POLL_SECONDS)
    socket_, stdout, stderr, claims, recipe = forked.fds
    (command,), environment = spawning.read_recipe(recipe)
    moves = ((stdout, 1), (stderr, 2), (socket_, spawning.WORKER_SOCKET), (claims, spawning.WORKER_CLAIMS))
    for source, target in moves:
        os.dup2(source, target)
    if os.getppid() != supervisor or not _report(control, forked.worker):
        os._exit(1)
    control.close()
    spawning.close_all(forked.fds)
    os.closerange(spawning.WORKER_CLAIMS + 1, spawning.FIRST_FREE_FD)
    _take_environment(environment, tag_address)
    _reseed()
    gc.enable()
    program, *arguments = map(os.fsdecode, command[-spawning.ARGUMENTS - 1 :])
    sys.argv[:] = ["-c", *arguments]
    sys.modules["__main__"] = ModuleType("__main__")
    return program


def _report(control: socket.socket, number: int) -> bool:
    try:
        control.send(spawning.BIRTH.pack(spawning.BORN, number, os.getpid()))
    except OSError:
        return False
    return True


def _take_environment(environment: dict[bytes, bytes], tag_address: int | None) -> None:
    process_state.set_environment(environment)
    if tag_address is not None:
        _show_tag(environment[spawning.TAG.encode()], tag_address)


def _tag_address() -> int | None:
    """Return the address of the tag in the memory that the kernel shows; `None` if it is not known."""
    start, found = _field(_ENV_START), read_proc("self", "environ").find(b"\0%s=" % spawning.TAG.encode())
    return start + found + len(spawning.TAG) + 2 if start and found >= 0 else None


def _show_tag(tag: bytes, tag_address: int) -> None:
    """Write the tag where `/proc` shows it: it marks processes that a step forks, even if they leave its family."""
    try:
        memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            if len(os.pread(memory, len(tag) + 1, tag_address).rstrip(b"\0")) == len(tag):
                os.pwrite(memory, tag, tag_address)
    finally:
        os.close(memory)


def _reseed() -> None:
    """Reseed random generators that were seeded before the fork."""
    random_seeds.end()
    if (seed := getattr(sys.modules.get("torch"), "seed", None)) is not None:
        seed()


def _is_alone() -> bool:
    return _field(_THREADS) <= 1 or not has_other_threads()


def _field(number: int) -> int:
    fields = read_proc("self", "stat").rpartition(b")")[2].split()
    return int(fields[number]) if fields else 0
