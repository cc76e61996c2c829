"""What a step sets for its whole process, and steps after it would find: put back, or the worker ends after the step.

```
os.umask(0o077) in a step ──▶ Watched: notes how it was, and that there is something to see to
                                  │ the step ends, its result is on its way
             put back ◀───────────┴──────────▶ cannot be (chroot, another user, a lowered hard limit): another worker
```

Looking after each step would cost a dozen system calls, more than a short step takes; so the functions of the standard
library that set such things are watched, which costs nothing until one is called. C code that makes the system call
itself is not seen. What a module sets while it is imported stays, since it is imported once.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Protocol

    class Moment(Protocol):
        """Who is told that a step has left something to see to: `written` has its worker look when the step ends."""

        written: bool


class Kind(NamedTuple):
    """Something that holds for the whole process.

    Attributes:
        names: The functions that set it, with the modules that have them.
        read: Returns how it is.
        write: Makes it so again; raises `OSError` or `ValueError` where that is not allowed.
    """

    names: tuple[str, ...]
    read: Callable[[], Any]
    write: Callable[[Any], object]


class Traces:
    """What the steps of a worker have set and not put back themselves.

    Args:
        moment: Is told when there is something.

    Attributes:
        left: How it was before, by what was set.
    """

    def __init__(self, moment: Moment) -> None:
        """Watch from now on."""
        self.left: dict[Kind, Any] = {}
        self._moment = moment
        _watch(self)

    def note(self, kind: Kind, before: Any) -> None:
        """Note that something was set."""
        self.left.setdefault(kind, before)
        self._moment.written = True

    def put_back(self) -> bool:
        """Make everything as it was; tell whether that was possible."""
        left, self.left = self.left, {}
        try:
            for kind, before in left.items():
                kind.write(before)
        except (OSError, ValueError):
            return False
        return True


class Watched:
    """A function of the standard library that sets something for the whole process.

    No function, as it must not bind where the built-in does not.

    Args:
        function: The function.
        kind: What it sets.
    """

    def __init__(self, function: Callable[..., Any], kind: Kind) -> None:
        """Look like the function."""
        functools.update_wrapper(self, function)
        self._function = function
        self._kind = kind

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, and note what it changes."""
        traces = _state.traces
        if traces is None or _is_importing(sys._getframe(1)):  # noqa: SLF001  the only way to learn who calls
            return self._function(*args, **kwargs)
        before = self._kind.read()
        found = self._function(*args, **kwargs)
        traces.note(self._kind, before)
        return found

    def __reduce__(self) -> str:
        """Pickle by name, as the function does."""
        return self._function.__name__


class _State:
    traces: Traces | None = None
    watching = False


_state = _State()


def _watch(traces: Traces) -> None:
    _state.traces = traces
    watch()


def watch() -> None:
    """Put watched functions in the places of all; before other modules take them from there."""
    if not _state.watching:
        _state.watching = True
        for kind in _kinds():
            for name in kind.names:
                _replace(kind, *name.split("."))


def _replace(kind: Kind, module: str, name: str) -> None:
    found = sys.modules.get(module)
    function = getattr(found, name, None)
    if function is not None:
        watched = Watched(function, kind)
        setattr(found, name, watched)
        posix = sys.modules.get("posix")
        if module == "os" and getattr(posix, name, None) is function:  # pickles name it so
            setattr(posix, name, watched)


def _is_importing(frame: FrameType | None) -> bool:
    """Tell whether a module is being imported from here."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and getattr(frame.f_globals.get("__spec__"), "_initializing", False):
            return True
        frame = frame.f_back
    return False


def _kinds() -> Iterable[Kind]:
    import _locale
    import resource

    umask, set_limit = os.umask, resource.setrlimit
    set_timer, set_locale, set_priority = signal.setitimer, _locale.setlocale, os.setpriority
    limits = [number for name, number in vars(resource).items() if name.startswith("RLIMIT_")]
    timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)

    def read_umask() -> int:
        found = umask(0)
        umask(found)
        return found

    def write_limits(before: dict[int, tuple[int, int]]) -> None:
        for number, pair in before.items():
            if resource.getrlimit(number) != pair:
                set_limit(number, pair)

    def write_priority(before: int) -> None:
        if os.getpriority(os.PRIO_PROCESS, 0) != before:
            set_priority(os.PRIO_PROCESS, 0, before)

    yield Kind(("os.umask",), read_umask, umask)
    yield Kind(
        ("resource.setrlimit", "resource.prlimit"),
        lambda: {number: resource.getrlimit(number) for number in limits},
        write_limits,
    )
    yield Kind(("os.nice", "os.setpriority"), lambda: os.getpriority(os.PRIO_PROCESS, 0), write_priority)
    yield Kind(("signal.setitimer", "signal.alarm"), lambda: None, lambda _: [set_timer(each, 0) for each in timers])
    yield Kind(
        ("_locale.setlocale", "locale._setlocale"),
        lambda: set_locale(_locale.LC_ALL),
        lambda before: set_locale(_locale.LC_ALL, before),
    )
    if hasattr(os, "sched_setaffinity"):
        set_cores = os.sched_setaffinity
        yield Kind(("os.sched_setaffinity",), lambda: os.sched_getaffinity(0), lambda before: set_cores(0, before))
    yield Kind(tuple(f"os.{name}" for name in _FOR_GOOD), lambda: None, _refuse)


_FOR_GOOD = (
    *("chroot", "setuid", "seteuid", "setreuid", "setresuid", "setgid", "setegid", "setregid", "setresgid"),
    *("setgroups", "initgroups", "sched_setscheduler", "sched_setparam", "unshare", "setns"),
)


def _refuse(_: object) -> None:
    raise PermissionError
