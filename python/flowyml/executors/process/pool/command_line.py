"""Command lines and environment variables of the supervisor, the fork server and the workers.

The supervisor gets as little as possible: no `site`, no user path, no `PYTHON*` variables, so that nothing of the user
can fail or take time there. A worker gets the driver's interpreter flags and environment, with the threads of numeric
libraries capped: `max_workers` processes with a thread per core each would compete for the cores.
"""

from __future__ import annotations

import contextlib
import functools
import marshal
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError
from flowyml.executors.cpus import SHARE_VARIABLE, share_of
from flowyml.executors.process.file_descriptors import FileDescriptor
from flowyml.executors.process.supervisor.spawning import GIVEN_HASH_SEED, HASH_SEED, START_VARIABLE, TAG

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

OPENMP = "OMP_NUM_THREADS"
FOLLOWS_OPENMP = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Libraries that use OMP_NUM_THREADS if their own variable is not set."""
ALONE = ("VECLIB_MAXIMUM_THREADS",)

SUPERVISOR = "import sys; sys.path.append(sys.argv[3]); from supervisor.supervisor import main; main()"
"""Imported by its directory: importing the package would import more than the supervisor may hold."""

_FLOWYML = "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
_WORKING = _FLOWYML + "from flowyml.executors.process.worker"
WORKER = _WORKING + ".worker_loop import main; main()"
FORK_SERVER = "import gc; gc.disable(); " + _WORKING + ".fork_server import main; main()"

STARTS = ("fork", "exec")


def check_platform() -> None:
    """Refuse to start processes if that cannot work. Raises ExecutorError."""
    if sys.platform != "linux":
        raise ExecutorError(f"process workers need Linux, this is {sys.platform}; use backend='thread'")
    if not sys.executable:
        raise ExecutorError(
            "process workers need to know the interpreter, sys.executable is empty; use backend='thread'"
        )
    if getattr(sys, "frozen", False):
        raise ExecutorError(
            "this is a frozen application: starting sys.executable would start the application again, not a worker; "
            "use backend='thread'"
        )


def may_fork() -> bool:
    """Return True if a fork server forks the workers: Python has its global lock, and the user has not chosen "exec".

    Without the lock it is not settled which state of the interpreter survives a fork.

    Raises:
        ExecutorError: The variable has another value.
    """
    chosen = os.environ.get(START_VARIABLE) or STARTS[0]
    if chosen not in STARTS:
        raise ExecutorError(f"{START_VARIABLE} must be {' or '.join(map(repr, STARTS))}, it is {chosen!r}")
    return chosen == "fork" and "t" not in sys.abiflags


def supervisor_command(control: int) -> list[str]:
    """Return the command line of a supervisor that serves this process over descriptor `control`, its last one."""
    directory = str(Path(__file__).resolve().parent.parent)
    # The supervisor never writes bytecode; this process has compiled it, or must not.
    flags = ["-S", "-s", "-P", "-B", *(["-X", f"pycache_prefix={sys.pycache_prefix}"] if sys.pycache_prefix else [])]
    return [executable(), *flags, "-c", SUPERVISOR, str(control), str(os.getpid()), directory]


def supervisor_environment() -> dict[str, str]:
    """Return the driver's environment without variables that configure Python, except the path of its library."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON") or key == "PYTHONHOME"}


def worker_command(program: str, *arguments: object) -> list[bytes]:
    """Return the command line of a worker: a program, the directory of this package, and further arguments."""
    root = Path(sys.modules["flowyml"].__file__ or "").resolve().parent.parent
    import subprocess  # takes milliseconds, in which the supervisor starts

    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    command = [executable(), *flags, "-P", "-c", program, root, *arguments]
    return [os.fsencode(str(argument)) for argument in command]


def fork_server_commands(supervisor: int, preload: Sequence[str], candidates: Sequence[str]) -> list[list[bytes]]:
    """Return the command lines of a fork server, the preferred one first, then those that import less.

    Args:
        supervisor: The pid of the supervisor.
        preload: Modules that the user has named.
        candidates: See `preload_candidates` in `driver/backend.py`.
    """
    path = os.pathsep.join(_absolute(sys.path))
    choices = dict.fromkeys([(*preload, *candidates), tuple(candidates), ()])
    return [worker_command(FORK_SERVER, supervisor, *((path, *choice) if choice else ())) for choice in choices]


def _absolute(entries: Iterable[str]) -> Iterator[str]:
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            yield os.path.abspath(entry)  # noqa: PTH100  entries may be no folders


def write_recipe(commands: list[list[bytes]], environment: dict[bytes, bytes]) -> FileDescriptor:
    """Write command lines and environment to a memfd (see `spawning.Recipe`): they may be larger than a message."""
    recipe = FileDescriptor(os.memfd_create("flowyml-recipe"))
    with open(recipe.fd, "wb", closefd=False) as file:
        file.write(marshal.dumps((commands, environment)))
    return recipe


def worker_environment(max_workers: int, tag: str) -> dict[bytes, bytes]:
    """Return the driver's current environment, with the worker's share of the CPUs and its tag."""
    share = share_of(max_workers)
    added = {**thread_caps(share, os.environ), SHARE_VARIABLE: str(share), TAG: tag, **_hash_seed(os.environ)}
    return {**os.environb, **{os.fsencode(key): os.fsencode(value) for key, value in added.items()}}


def _hash_seed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that give all workers one seed of `hash()`; none if the user has set one.

    The seed of this process cannot be read, so a random one is used. Steps see the user's value: see
    `bootstrap.attach`.
    """
    given = environment.get(HASH_SEED, "")
    return {} if given.isdecimal() else {HASH_SEED: _drawn_hash_seed(), GIVEN_HASH_SEED: given}


@functools.cache
def _drawn_hash_seed() -> str:
    return str(int.from_bytes(os.urandom(4), "little") or 1)  # 0 would disable it


def thread_caps(share: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that limit numeric libraries to `share` threads, except those that the user has set.

    >>> thread_caps(2, {"OMP_NUM_THREADS": "4"})
    {'VECLIB_MAXIMUM_THREADS': '2'}
    """
    names = ALONE if OPENMP in environment else (OPENMP, *FOLLOWS_OPENMP, *ALONE)
    return {name: str(share) for name in names if name not in environment}


def executable() -> str:
    """Return the absolute path of the interpreter, which survives a change of the working directory."""
    return os.path.abspath(sys.executable)  # noqa: PTH100  `resolve` would leave the virtual environment
