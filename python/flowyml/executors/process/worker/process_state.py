"""What a step sets for its whole process, and steps after it would find: put back when the step ends.

```
os.umask(0o077) in a step ──▶ Watched ──▶ Traces.note: how it was before
                                               │ the step ends
             put_back ◀────────────────────────┘
```

What is noted are the umask, the environment, signal handlers and timers. To compare them after each step would take
5 us (4 for 64 handlers, 1 for 35 variables, half of one for the umask), and the shortest steps take 0.15 us. So the
functions of the standard library that set them are watched, which costs nothing until one is called. C code that makes
the system call itself is not seen. What a module sets while it is imported stays, since it is imported once.

The working directory (`frame.py`) and the standard streams (`capture.py`) are checked after each step. Everything else
that a step changes in its process stays.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from typing import TYPE_CHECKING, Any, ClassVar

from flowyml._containers import NamedTuple

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Protocol

    class SlotState(Protocol):
        """Who is told that a step has left something to see to: `written` has its worker look when the step ends."""

        written: bool
else:
    import _signal as signal  # see `starts.py`


_TAKES_FROM = {"posix": "os", "_signal": "signal"}


class Trait(NamedTuple):
    """Something that holds for the whole process.

    Attributes:
        names: The functions that set it, with the modules that have them.
        read: Returns how it is.
        write: Makes it so again.
    """

    names: tuple[str, ...]
    read: Callable[[], Any]
    write: Callable[[Any], object]


class ProcessStateGuard:
    """What the steps of a worker have set and not put back themselves.

    Args:
        moment: Is told when there is something.

    Attributes:
        left: How it was before, by what was set.
    """

    def __init__(self, moment: SlotState) -> None:
        self.left: dict[Trait, Any] = {}
        self._moment = moment
        _PatchedFunction.traces = self
        watch()

    def note(self, trait: Trait) -> None:
        """Note how something is before it is set."""
        if trait not in self.left:
            self.left[trait] = trait.read()
        self._moment.written = True

    def put_back(self) -> None:
        """Make everything as it was."""
        left, self.left = self.left, {}
        _PatchedFunction.traces = None
        for trait, before in left.items():
            trait.write(before)
        _PatchedFunction.traces = self


class _PatchedFunction:
    """A function of the standard library that sets something for the whole process.

    No function, as it must not bind where the built-in does not.

    Args:
        function: The function.
        trait: What it sets.
    """

    traces: ClassVar[ProcessStateGuard | None] = None

    def __init__(self, function: Callable[..., Any], trait: Trait) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._trait = trait

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, and note what it changes."""
        traces = self.traces
        if traces is not None and not _is_importing(sys._getframe(1)):  # noqa: SLF001  the only way to learn who calls
            traces.note(self._trait)
        return self._function(*args, **kwargs)

    def __reduce__(self) -> str:
        """Pickle by name, as the function does."""
        return self._function.__name__


def watch() -> None:
    """Put watched functions in the places of all; before other modules take them from there."""
    if not isinstance(os.umask, _PatchedFunction):
        for trait in _traits():
            for name in trait.names:
                _replace(trait, *name.split("."))


def set_environment(environment: Mapping[bytes, bytes]) -> None:
    """Make an environment that of this process."""
    before = _environment()
    for name in before.keys() - environment.keys():
        del os.environb[name]
    for name, value in environment.items():
        if before.get(name) != value:
            os.environb[name] = value
    if before.get(b"TZ") != environment.get(b"TZ"):
        time.tzset()


def _environment() -> dict[bytes, bytes]:
    """Return the environment of this process; one variable at a time takes 24 us rather than 0.2."""
    return dict(getattr(os.environb, "_data", os.environb))


def _traits() -> list[Trait]:
    timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    umask, set_handler, set_timer = os.umask, signal.signal, signal.setitimer

    def read_umask() -> int:
        found = umask(0)
        umask(found)
        return found

    def read_handlers() -> dict[int, Any]:
        return {number: signal.getsignal(number) for number in signal.valid_signals()}

    def write_handlers(before: dict[int, Any]) -> None:
        for timer in timers:  # first: a signal without its handler would end the worker
            set_timer(timer, 0)
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:  # None: it is of C code
                set_handler(number, handler)

    return [
        Trait(("posix.umask",), read_umask, umask),
        Trait(("posix.putenv", "posix.unsetenv"), _environment, set_environment),
        Trait(("_signal.signal", "_signal.setitimer", "_signal.alarm"), read_handlers, write_handlers),
    ]


def _replace(trait: Trait, module: str, name: str) -> None:
    """Put one watched function in the place of a function, also in the module that takes it from there."""
    function = getattr(sys.modules.get(module), name, None)
    if function is not None:
        watched = _PatchedFunction(function, trait)
        for place in (module, _TAKES_FROM[module]):
            if getattr(sys.modules.get(place), name, None) is function:
                setattr(sys.modules[place], name, watched)


def _is_importing(frame: FrameType | None) -> bool:
    """Tell whether a module is being imported from here."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and getattr(frame.f_globals.get("__spec__"), "_initializing", False):
            return True
        frame = frame.f_back
    return False
