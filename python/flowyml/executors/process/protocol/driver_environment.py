"""The run frame: what a worker sees of the driver's process, as it is at `run()`.

    driver  capture() ──▶ RunFrame ──wire, when its digest is new to the worker──▶ apply(frame)
                                                     before every step             enter()
                                                     after functions were loaded   settle()

Working directory, `sys.path`, `sys.argv`, environment, warning filters, levels of loggers, recursion limit, umask and
the start method of `multiprocessing` where the user chose one. Variables that libraries read only when they start are
not part of it: a change of those (`DriverEnvironment.start`) means new workers. So a worker keeps the ones it was
started with, among them its thread caps, and its own tag.

The module knows nothing of steps or sockets. Capturing is on the way of every run: some ten microseconds, no locks.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import pickle
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from flowyml._containers import NamedTuple
from flowyml.executors.cpus import SHARE_VARIABLE
from flowyml.executors.process.supervisor.spawning import START_VARIABLE, TAG
from flowyml.hashing import blake2b
from flowyml.import_guard import loading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Level = tuple[int, bool]
"""Level and `disabled` of a logger."""

ROOT = ""
_PROTOCOL = 5
_MOST_FILTERS = 256
_STATUS_BYTES = 256  # the umask stands in the second line of the status

_OWN = (TAG, SHARE_VARIABLE)  # what the pool gives each worker

_START_PREFIXES = ("PYTHON", "LD_", "MALLOC_", "LC_")
_START_SUFFIXES = ("_NUM_THREADS", "_MAX_THREADS", "_MAXIMUM_THREADS")
_START_NAMES = frozenset(
    [
        "LANG",
        "LANGUAGE",
        "GLIBC_TUNABLES",
        START_VARIABLE,
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
    ]
)


class DriverEnvironment(NamedTuple):
    """What a worker is to see of the driver.

    Attributes:
        directory: Working directory, `None` where it is gone.
        path: `sys.path`, the empty entry made absolute if there is a working directory.
        argv: `sys.argv`.
        environment: The variables, without those of `start` and without a worker's own.
        filters: `warnings.filters`, each entry pickled; those that do not pickle are left out.
        levels: The root logger (`""`) and each logger that has a level or is disabled.
        disable: What `logging.disable` was given.
        recursion_limit: `sys.getrecursionlimit()`.
        umask: The mask, `None` where it cannot be read without changing it.
        start_method: Of `multiprocessing`, where it is not the platform's own.
        start: Variables that libraries read only when they start: another value means new workers.
        digest: Equal for equal frames, whatever `start` is.
    """

    directory: str | None
    path: tuple[str, ...]
    argv: tuple[str, ...]
    environment: dict[str, str]
    filters: tuple[bytes, ...]
    levels: dict[str, Level]
    disable: int
    recursion_limit: int
    umask: int | None
    start_method: str | None
    start: dict[str, str]
    digest: bytes


def capture() -> DriverEnvironment:
    """Look at this process as it is now.

    >>> capture() == capture(), capture().recursion_limit == sys.getrecursionlimit()
    (True, True)
    """
    environment, start = _environment()
    directory = _directory()
    seen = (
        directory,
        tuple([entry or directory or "" for entry in sys.path]),
        tuple(sys.argv),
        environment,
        _filters(),
        _levels(),
        logging.root.manager.disable,
        sys.getrecursionlimit(),
        _umask(),
        _start_method(),
    )
    last = _CaptureCache.frame
    if last is not None and last.start == start and last[: len(seen)] == seen:
        return last
    digest = blake2b(pickle.dumps(seen, _PROTOCOL), digest_size=16).digest()
    _CaptureCache.frame = DriverEnvironment(*seen, start=start, digest=digest)
    return _CaptureCache.frame


def _environment() -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables that steps see, and those that are read only at a start; nobody changes the two."""
    # As they are, and all at once where Python keeps them so: to go through them takes longer than to compare.
    raw = dict(getattr(os.environ, "_data", os.environ))
    if raw != _CaptureCache.raw:
        environment = dict(os.environ)
        start = start_variables(environment)
        for name in (*start, *_OWN):
            environment.pop(name, None)
        _CaptureCache.raw, _CaptureCache.environment = raw, (environment, start)
    return _CaptureCache.environment


def start_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that libraries read only when they start.

    >>> start_variables({"OMP_NUM_THREADS": "2", "HOME": "/root", "PYTHONHASHSEED": "0"})
    {'OMP_NUM_THREADS': '2', 'PYTHONHASHSEED': '0'}
    """
    return {name: value for name, value in environment.items() if _is_read_at_start(name)}


@functools.lru_cache(maxsize=4096)
def _is_read_at_start(name: str) -> bool:
    """Tell whether a change of a variable is seen only by a new process."""
    return name in _START_NAMES or name.startswith(_START_PREFIXES) or name.endswith(_START_SUFFIXES)


def _directory() -> str | None:
    """Return the working directory, if it is still there."""
    try:
        return os.getcwd()  # noqa: PTH109  on the way of every run
    except OSError:
        return None


class _CaptureCache:
    """What was captured last: it hardly ever changes, and is pickled once."""

    frame: DriverEnvironment | None = None
    raw: Mapping[Any, Any] | None = None
    environment: tuple[dict[str, str], dict[str, str]] = ({}, {})


class _WarningFilterCache:
    """The warning filters of the last capture, and their pickles: they hardly ever change."""

    entries: tuple[Any, ...] = ()
    pickles: tuple[bytes, ...] = ()


def _filters() -> tuple[bytes, ...]:
    """Return the warning filters, each pickled."""
    entries = tuple(_filters_here())
    if entries != _WarningFilterCache.entries:
        _WarningFilterCache.pickles = tuple(filter(None, map(_pickled, entries)))
        _WarningFilterCache.entries = entries
    return _WarningFilterCache.pickles


def _filters_here() -> Sequence[object]:
    """Return the filters of this context: `-X context_aware_warnings` and free-threaded builds give it its own."""
    here = getattr(warnings, "_get_filters", None)  # from Python 3.14 on
    return warnings.filters if here is None else here()


def _pickled(entry: object) -> bytes | None:
    """Pickle an entry, or leave it out."""
    try:
        return pickle.dumps(entry, _PROTOCOL)
    except Exception:  # noqa: BLE001  a category of somebody else: it may raise anything
        return None


def _levels() -> dict[str, Level]:
    """Return level and `disabled` of the loggers where either says something."""
    levels = {ROOT: (logging.root.level, logging.root.disabled)}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and (logger.level or logger.disabled):
            levels[name] = (logger.level, bool(logger.disabled))
    return levels


def _umask() -> int | None:
    """Read the umask; `os.umask` could only read it by changing it, under the eyes of other threads."""
    try:
        status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        _, found, rest = os.read(status, _STATUS_BYTES).partition(b"\nUmask:")
    finally:
        os.close(status)
    return int(rest.split(None, 1)[0], 8) if found else None


def _start_method() -> str | None:
    """Return the start method of `multiprocessing` where the user chose another than the platform's."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None or not hasattr(multiprocessing, "get_start_method"):  # another thread imports it
        return None
    method: str | None = multiprocessing.get_start_method(allow_none=True)
    return None if method == multiprocessing.get_all_start_methods()[0] else method


# ---- in the worker ----------------------------------------------------------------------------------------------


class _Applied:
    """What the frame of this worker is, and what of it must be put back by the next one."""

    frame: DriverEnvironment | None = None
    directory: int = -1  # a descriptor; -1 where there is none
    filters: ClassVar[dict[bytes, Any]] = {}  # those that were loaded, by their pickles


def apply(frame: DriverEnvironment) -> None:
    """Make this process look as the frame says.

    Args:
        frame: What the driver captured.
    """
    before, _Applied.frame = _Applied.frame, frame
    _apply_environment(frame.environment)
    if sys.path != list(frame.path):
        sys.path[:] = frame.path
    importlib.invalidate_caches()  # a module may have been written since
    sys.argv[:] = frame.argv
    _apply_recursion_limit(frame.recursion_limit)
    if frame.umask is not None:
        os.umask(frame.umask)
    if before is None or before.start_method != frame.start_method:
        _apply_start_method(frame.start_method)
    _open_directory(frame.directory)
    enter()
    _reset_levels(before)
    settle()


def enter() -> None:
    """Go to the run's working directory, whatever the last step did: called before every step.

    Raises:
        OSError: The directory cannot be entered.
    """
    if _Applied.frame is None or _Applied.frame.directory is None:
        return
    try:
        os.fchdir(_Applied.directory)
    except (OSError, ValueError):  # the step before closed what it did not open, or opening it failed then
        _open_directory(_Applied.frame.directory)
        os.fchdir(_Applied.directory)


def directory() -> int | None:
    """Return the descriptor of the run's working directory; `None` where there is none to go to."""
    return None if _Applied.frame is None or _Applied.frame.directory is None else _Applied.directory


def settle() -> None:
    """Set levels and filters once more: called after functions were loaded, because modules set their own on import."""
    frame = _Applied.frame
    if frame is None:
        return
    for name, (level, disabled) in frame.levels.items():
        logger = logging.getLogger(name or None)
        if (logger.level, logger.disabled) != (level, disabled):
            logger.setLevel(level)
            logger.disabled = disabled
    if logging.root.manager.disable != frame.disable:
        logging.disable(frame.disable)
    _apply_filters(frame.filters)


def _apply_environment(environment: dict[str, str]) -> None:
    """Add, change and remove variables; those of the worker's own start stay."""
    zone = os.environ.get("TZ")
    for name in list(os.environ):
        if name not in environment and name not in _OWN and not _is_read_at_start(name):
            del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    if os.environ.get("TZ") != zone:
        time.tzset()


def _apply_recursion_limit(limit: int) -> None:
    """Set the recursion limit, unless the worker stands deeper than that already."""
    try:
        sys.setrecursionlimit(limit)
    except RecursionError:
        return


def _apply_start_method(method: str | None) -> None:
    """Choose the user's start method, or go back to none chosen."""
    if method is None and "multiprocessing" not in sys.modules:
        return
    import multiprocessing

    multiprocessing.set_start_method(method, force=True)


def _open_directory(directory: str | None) -> None:
    """Hold on to the working directory: it may be renamed while the run lasts."""
    with contextlib.suppress(OSError):  # there is none, or a step closed it
        os.close(_Applied.directory)
    _Applied.directory = -1
    if directory is not None:
        # O_PATH asks for no right to read what the driver may only enter; other systems have no such flag.
        _Applied.directory = os.open(directory, os.O_CLOEXEC | os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY))


def _reset_levels(before: DriverEnvironment | None) -> None:
    """Give loggers that only the last frame spoke of their first state back."""
    if before is None or _Applied.frame is None:
        return
    for name in before.levels.keys() - _Applied.frame.levels.keys():
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)
        logger.disabled = False


def _apply_filters(filters: tuple[bytes, ...]) -> None:
    """Make the driver's warning filters this process's; a filter that does not load is left out."""
    entries = [entry for entry in map(_filter, filters) if entry is not None]
    if entries != warnings.filters:
        warnings.resetwarnings()  # in place, and tells the C part that something changed
        warnings.filters.extend(entries)  # type: ignore[attr-defined]


def _filter(data: bytes) -> Any:
    """Return a filter; each run asks for all of them, and most have a category that is always the same class."""
    known = _Applied.filters
    found = known.get(data)
    if found is None:
        found = _loaded(data)
        if type(found) is tuple and getattr(found[2], "__module__", None) == "builtins" and len(known) < _MOST_FILTERS:
            known[data] = found
    return found


def _loaded(entry: bytes) -> Any:
    """Load a filter; its category may be a class that does not exist here."""
    try:
        with loading():
            return pickle.loads(entry)
    except (Exception, SystemExit):  # noqa: BLE001  the module of the category may raise anything
        return None
