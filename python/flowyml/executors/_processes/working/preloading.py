"""What a template imports for its workers beside flowyml, and whether it may still be forked then.

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

import os
import sys
from importlib import import_module

SEPARATOR = "="
"""Stands between a module and the file of its package."""
BY_VALUE = "(by value)"
"""Stands for all that makes functions which come by value."""

_FORK_SAFE_THREADS = frozenset(["", "jemalloc_bg_thd"])
"""Threads that a fork may lose. jemalloc, which pyarrow brings and pandas imports with it, starts its own again."""

# Of this package, and of what it stands on: what a worker does not need before its first step, if ever.
_REST = (
    "flowyml.executors._processes.crossing.namespaces",
    "flowyml.executors._processes.crossing.failure",
    "flowyml.executors._processes.crossing.pickler",
    "flowyml.steps.step_context",
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
    from flowyml._loading import loading

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
