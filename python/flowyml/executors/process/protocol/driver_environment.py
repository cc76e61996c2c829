"""The driver's environment at `run()`, as workers see it.

    driver  capture() ──▶ DriverEnvironment ──wire, if its digest is new to the worker──▶ apply(frame)
                                                     before every step             restore_cwd()
                                                     after functions were loaded   reapply_logging_config()

It has the working directory, `sys.path`, `sys.argv`, environment variables, warning filters, logger levels, recursion
limit, umask and the start method of `multiprocessing`, if the user has chosen one. Variables that libraries read only
when they start are excluded: a change of those (`DriverEnvironment.start`) means new workers. So a worker keeps its own
ones, among them its thread caps, and its tag.

Every run captures it: that takes some ten microseconds, without locks.
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
MAX_CACHED_FILTERS = 256
_STATUS_BYTES = 256  # the umask is in the second line of the status

_OWN = (TAG, SHARE_VARIABLE)  # variables that the pool sets for each worker

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
    """What a worker sees of the driver.

    Attributes:
        directory: The working directory; `None` if it does not exist.
        path: `sys.path`, the empty entry made absolute if there is a working directory.
        argv: `sys.argv`.
        environment: The variables, without those of `start` and a worker's own.
        filters: `warnings.filters`, each entry pickled; without those that cannot be pickled.
        levels: Level and `disabled` of the root logger (`""`) and of each logger with a level or that is disabled.
        disable: The argument of `logging.disable`.
        recursion_limit: `sys.getrecursionlimit()`.
        umask: The umask; `None` if it cannot be read without changing it.
        start_method: That of `multiprocessing`, if it is not the default.
        start: Variables that libraries read only when they start: another value means new workers.
        digest: Equal for equal environments, whatever `start` is.
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
    """Return the current environment of this process.

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
    # The raw dictionary, if Python has one: iterating over the variables takes longer than to compare.
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
    return name in _START_NAMES or name.startswith(_START_PREFIXES) or name.endswith(_START_SUFFIXES)


def _directory() -> str | None:
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
    entries = tuple(_filters_here())
    if entries != _WarningFilterCache.entries:
        _WarningFilterCache.pickles = tuple(filter(None, map(_pickled, entries)))
        _WarningFilterCache.entries = entries
    return _WarningFilterCache.pickles


def _filters_here() -> Sequence[object]:
    """Return the filters of this context: `-X context_aware_warnings` and free-threaded builds have several."""
    here = getattr(warnings, "_get_filters", None)  # from Python 3.14 on
    return warnings.filters if here is None else here()


def _pickled(entry: object) -> bytes | None:
    try:
        return pickle.dumps(entry, _PROTOCOL)
    except Exception:  # noqa: BLE001  a category of other code may raise anything
        return None


def _levels() -> dict[str, Level]:
    levels = {ROOT: (logging.root.level, logging.root.disabled)}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and (logger.level or logger.disabled):
            levels[name] = (logger.level, bool(logger.disabled))
    return levels


def _umask() -> int | None:
    """Read the umask; `os.umask` would change it for a moment, in all threads."""
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
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None or not hasattr(multiprocessing, "get_start_method"):  # another thread imports it
        return None
    method: str | None = multiprocessing.get_start_method(allow_none=True)
    return None if method == multiprocessing.get_all_start_methods()[0] else method


# ---- in the worker ----------------------------------------------------------------------------------------------


class _Applied:
    """The environment of this worker, and what the next one must undo."""

    frame: DriverEnvironment | None = None
    directory: int = -1  # a descriptor; -1 if there is none
    filters: ClassVar[dict[bytes, Any]] = {}  # by their pickles


def apply(frame: DriverEnvironment) -> None:
    """Apply the driver's environment to this process."""
    before, _Applied.frame = _Applied.frame, frame
    _apply_environment(frame.environment)
    if sys.path != list(frame.path):
        sys.path[:] = frame.path
    importlib.invalidate_caches()  # a module may have been written
    sys.argv[:] = frame.argv
    _apply_recursion_limit(frame.recursion_limit)
    if frame.umask is not None:
        os.umask(frame.umask)
    if before is None or before.start_method != frame.start_method:
        _apply_start_method(frame.start_method)
    _open_directory(frame.directory)
    restore_cwd()
    _reset_levels(before)
    reapply_logging_config()


def restore_cwd() -> None:
    """Enter the run's working directory; called before every step. Raises OSError."""
    if _Applied.frame is None or _Applied.frame.directory is None:
        return
    try:
        os.fchdir(_Applied.directory)
    except (OSError, ValueError):  # a step has closed it, or opening it failed
        _open_directory(_Applied.frame.directory)
        os.fchdir(_Applied.directory)


def cwd_fd() -> int | None:
    """Return the descriptor of the run's working directory; `None` if there is none."""
    return None if _Applied.frame is None or _Applied.frame.directory is None else _Applied.directory


def reapply_logging_config() -> None:
    """Set logger levels and warning filters again after functions were loaded: modules set their own on import."""
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
    try:
        sys.setrecursionlimit(limit)
    except RecursionError:
        return


def _apply_start_method(method: str | None) -> None:
    if method is None and "multiprocessing" not in sys.modules:
        return
    import multiprocessing

    multiprocessing.set_start_method(method, force=True)


def _open_directory(directory: str | None) -> None:
    """Open the working directory, which may be renamed during the run."""
    with contextlib.suppress(OSError):  # there is none, or a step has closed it
        os.close(_Applied.directory)
    _Applied.directory = -1
    if directory is not None:
        # O_PATH asks for no right to read what the driver may only restore_cwd; other systems have no such flag.
        _Applied.directory = os.open(directory, os.O_CLOEXEC | os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY))


def _reset_levels(before: DriverEnvironment | None) -> None:
    """Reset loggers that only the last environment mentioned."""
    if before is None or _Applied.frame is None:
        return
    for name in before.levels.keys() - _Applied.frame.levels.keys():
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)
        logger.disabled = False


def _apply_filters(filters: tuple[bytes, ...]) -> None:
    entries = [entry for entry in map(_filter, filters) if entry is not None]
    if entries != warnings.filters:
        warnings.resetwarnings()  # in place, and invalidates the cache of the C code
        warnings.filters.extend(entries)  # type: ignore[attr-defined]


def _filter(data: bytes) -> Any:
    """Load a warning filter; each run needs all of them, and most have a builtin category, which can be cached."""
    known = _Applied.filters
    found = known.get(data)
    if found is None:
        found = _loaded(data)
        if (
            type(found) is tuple
            and getattr(found[2], "__module__", None) == "builtins"
            and len(known) < MAX_CACHED_FILTERS
        ):
            known[data] = found
    return found


def _loaded(entry: bytes) -> Any:
    try:
        with loading():
            return pickle.loads(entry)
    except (Exception, SystemExit):  # noqa: BLE001  the module of the category may raise anything
        return None
