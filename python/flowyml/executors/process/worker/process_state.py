"""Restores what a step has set for its whole process, and later steps would see.

```
os.umask(0o077) in a step ──▶ _PatchedFunction ──▶ ProcessStateGuard.note: the value before
                                                          │ the step ends
             put_back ◀───────────────────────────────────┘
```

These are the umask, the environment, signal handlers and timers. Comparing them after each step would take 5 us (4 for
64 handlers, 1 for 35 variables, half of one for the umask), and the shortest steps take 0.15 us. So the functions of
the standard library that set them are patched, which costs nothing until one is called. System calls of C code are not
seen. What a module sets while it is imported stays, since it is imported once.

The working directory (`protocol/driver_environment.py`) and the standard streams (`output_capture.py`) are checked
after each step. Other changes of the process stay.
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

    from flowyml.executors.process.worker.output_capture import CurrentSlot
else:
    import _signal as signal  # see `spawning.py`


_TAKES_FROM = {"posix": "os", "_signal": "signal"}


class Trait(NamedTuple):
    """A setting of the whole process."""

    names: tuple[str, ...]  # functions that set it, with their modules
    read: Callable[[], Any]  # returns it
    write: Callable[[Any], object]  # sets it


class ProcessStateGuard:
    """The settings that steps of a worker have changed and not restored.

    Args:
        current: Its `written` is set when there is something to restore.

    Attributes:
        left: The values before, by setting.
    """

    def __init__(self, current: CurrentSlot) -> None:
        self.left: dict[Trait, Any] = {}
        self._current = current
        _PatchedFunction.guard = self
        watch()

    def note(self, trait: Trait) -> None:
        """Record a setting before it is changed."""
        if trait not in self.left:
            self.left[trait] = trait.read()
        self._current.written = True

    def put_back(self) -> None:
        """Restore all settings."""
        left, self.left = self.left, {}
        _PatchedFunction.guard = None
        for trait, before in left.items():
            trait.write(before)
        _PatchedFunction.guard = self


class _PatchedFunction:
    """A function of the standard library that changes a setting of the process.

    Not a Python function, which would bind as a class attribute, unlike a built-in one.
    """

    guard: ClassVar[ProcessStateGuard | None] = None

    def __init__(self, function: Callable[..., Any], trait: Trait) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._trait = trait

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        guard = self.guard
        if guard is not None and not _is_importing(sys._getframe(1)):  # noqa: SLF001  the only way to learn who calls
            guard.note(self._trait)
        return self._function(*args, **kwargs)

    def __reduce__(self) -> str:
        return self._function.__name__


def watch() -> None:
    """Patch all functions, before other modules import them."""
    if not isinstance(os.umask, _PatchedFunction):
        for trait in _traits():
            for name in trait.names:
                _replace(trait, *name.split("."))


def set_environment(environment: Mapping[bytes, bytes]) -> None:
    """Replace the environment of this process."""
    before = _environment()
    for name in before.keys() - environment.keys():
        del os.environb[name]
    for name, value in environment.items():
        if before.get(name) != value:
            os.environb[name] = value
    if before.get(b"TZ") != environment.get(b"TZ"):
        time.tzset()


def _environment() -> dict[bytes, bytes]:
    """Return the environment; one variable at a time would take 24 us rather than 0.2."""
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
    """Patch a function in its module and in the module that re-exports it."""
    function = getattr(sys.modules.get(module), name, None)
    if function is not None:
        watched = _PatchedFunction(function, trait)
        for place in (module, _TAKES_FROM[module]):
            if getattr(sys.modules.get(place), name, None) is function:
                setattr(sys.modules[place], name, watched)


def _is_importing(frame: FrameType | None) -> bool:
    """Return True if a module is being imported by this frame or its callers."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and getattr(frame.f_globals.get("__spec__"), "_initializing", False):
            return True
        frame = frame.f_back
    return False
