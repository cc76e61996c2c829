"""The functions of a run in a worker: each is loaded when the first step that calls it has begun.

```
payload ──set_up──▶ not loaded (`None`) ──load, in a claimed step──▶ callable
   │                    ▲            └──▶ LoadFailure, raised by its steps ▲
   │                    └─ next attempt, run ┘                             │
   └── of modules that are already imported ───────────────────────────────┘
```

Loading runs user code: an import may take long, crash, or never end. So the step that needs it has begun by then: it is
to blame for a crash, and its time limit applies. Functions sent by value (`protocol/function_payload.py`) are loaded
together under a fresh `__main__`, since they share globals and values may be instances of their classes.

A function that could not be loaded fails its steps. It is tried again with their next attempt and in the next run: the
cause may be gone by then, and a million steps do not import a broken module a million times.
"""

from __future__ import annotations

import gc
import importlib
import io
import linecache
import pickle
import sys
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.executors.process.protocol import main_module
from flowyml.executors.process.protocol.driver_environment import reapply_logging_config
from flowyml.import_guard import loading
from flowyml.steps.coroutines import make_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.executors.process.protocol.function_payload import Function, Reference


AnyFunction = Any
"""A callable."""


class FunctionTable:
    """The functions of the current run.

    Attributes:
        called: What is called for each; `None` if it is not loaded yet.
        failed: Those that could not be loaded, and are not tried again before `forget_failures`.
    """

    def __init__(self) -> None:
        self.called: list[AnyFunction | None] = []
        self.failed: list[int] = []
        self._wrap: Callable[[AnyFunction], AnyFunction] | None = None
        self._loaded: list[AnyFunction | LoadFailure | None] = []
        self._opened: list[tuple[int, LoadedPayload]] = []

    def set_up(self, data: bytes) -> None:
        """Replace all functions by those of a payload."""
        self._opened, self._loaded, self.called, self.failed = [], [], [], []
        self._add(LoadedPayload(data))

    def begin(self, count: int, wrap: Callable[[AnyFunction], AnyFunction] | None, error: BaseException | None) -> None:
        """Begin a run with the first `count` functions; others were added during the run before.

        Args:
            count: How many they are.
            wrap: Returns what is called for a function, if not the function itself.
            error: Why no step can run here.
        """
        self._wrap = wrap
        self.forget_failures()
        del self._loaded[count:], self._opened[1:]
        self.called = [self._wrapped(each) for each in self._loaded] if error is None else [raising(error)] * count

    def add(self, data: bytes, count: int) -> None:
        """Add the functions of steps that were added during the run."""
        try:
            self._add(LoadedPayload(data, further=True))
        except Exception as error:  # noqa: BLE001  the steps fail with it
            self._loaded += [LoadFailure(error)] * count
            self.called += [raising(error)] * count

    def forget_failures(self) -> None:
        """Let functions that could not be loaded be tried again."""
        if not self.failed:
            return
        for index in self.failed:
            self._loaded[index] = self.called[index] = None
        for _, opened in self._opened:
            opened.forget_failure()
        self.failed.clear()
        importlib.invalidate_caches()  # else a file written within the same clock tick is not seen

    def original(self, index: int) -> AnyFunction:
        """Return a function as it was loaded."""
        return self._loaded[index]

    def load(self, index: int) -> AnyFunction:
        """Load a function, and return what is called for it."""
        modules = len(sys.modules)
        before = [(first, opened) for first, opened in self._opened if first <= index]
        for first, opened in before:
            if not opened.is_complete:
                opened.load_carried()
                self._fill(first, opened)
        if self.called[index] is None:
            self._take(index, *before[-1])
        if len(sys.modules) != modules:
            reapply_logging_config()
            gc.freeze()  # imported modules stay: the garbage collector need not visit them
        return self.called[index]

    def _add(self, opened: LoadedPayload) -> None:
        first = len(self._loaded)
        self._opened.append((first, opened))
        self._loaded += [None] * len(opened)
        self.called += [None] * len(opened)
        if opened.is_complete:
            self._fill(first, opened)

    def _fill(self, first: int, opened: LoadedPayload) -> None:
        """Take all functions that can be had without running code."""
        for position in range(len(opened)):
            if opened.is_near(position):
                self._take(first + position, first, opened)

    def _take(self, index: int, first: int, opened: LoadedPayload) -> None:
        self._loaded[index] = loaded = opened.load(index - first)
        self.called[index] = self._wrapped(loaded)
        if isinstance(loaded, LoadFailure):
            self.failed.append(index)

    def _wrapped(self, loaded: AnyFunction | LoadFailure | None) -> AnyFunction | None:
        if loaded is None:
            return None
        called = callable_of(loaded)
        return called if self._wrap is None else self._wrap(called)


_PICKLER = "flowyml.executors.process.protocol.pickler"


class LoadFailure(NamedTuple):
    """Stands for a function that could not be loaded in a worker."""

    exception: BaseException


class LoadedPayload:
    """A payload in a worker, of which no code has run yet.

    Args:
        data: `FunctionPayload.data`.
        further: Whether it extends the functions that are here and shares their globals; else it gets a fresh
            `__main__`.
    """

    def __init__(self, data: bytes, *, further: bool = False) -> None:
        if not further:
            # Not imported here: nothing was pickled, and a thread that a step has left may be importing it.
            if (forget := getattr(sys.modules.get(_PICKLER), "forget_definitions", None)) is not None:
                forget()
            main_module.begin()
            prefer_fork()
        self._file = io.BytesIO(data)
        self._places: list[int | Reference] = pickle.load(self._file)
        self._carried: list[Function] | LoadFailure | None = None

    def __len__(self) -> int:
        """Return the number of functions."""
        return len(self._places)

    @property
    def is_complete(self) -> bool:
        """True if nothing was sent by value, or it is loaded."""
        return self._carried is not None or all(isinstance(place, tuple) for place in self._places)

    def is_near(self, position: int) -> bool:
        """Return True if a function can be had without running code, now that those sent by value are loaded."""
        place = self._places[position]
        return not isinstance(place, tuple) or place[0] in sys.modules

    def load_carried(self) -> None:
        """Load what was sent by value, all together: values of steps may be instances of its classes."""
        if not self.is_complete:
            start = self._file.tell()
            with loading():
                self._carried = _load_carried(self._file)
            if isinstance(self._carried, LoadFailure):
                self._file.seek(start)
            else:
                self._file = io.BytesIO()

    def forget_failure(self) -> None:
        """Let what was sent by value be loaded again, if that failed."""
        if isinstance(self._carried, LoadFailure):
            self._carried = None

    def load(self, position: int) -> Function | LoadFailure:
        """Load a function."""
        place = self._places[position]
        if isinstance(place, tuple):
            with loading():
                return _load_reference(place)
        self.load_carried()
        carried: Any = self._carried
        return carried if isinstance(carried, LoadFailure) else carried[place]


def _load_carried(file: io.BytesIO) -> list[Function] | LoadFailure:
    try:
        carried, exports, sources = pickle.load(file)
    except BaseException as error:  # noqa: BLE001  the error belongs to the steps
        return LoadFailure(error)
    for module, names in exports.items():
        for name, thing in names.items():
            main_module.namespace(module, {}).setdefault(name, thing)
    linecache.cache.update(sources)
    functions: list[Function] = carried
    return functions


def _load_reference(reference: Reference) -> Function | LoadFailure:
    import importlib

    module, way = reference
    try:
        found: Any = importlib.import_module(module)
        for part in way.split("."):
            found = getattr(found, part)
    except BaseException as error:  # noqa: BLE001  the error belongs to the step
        return LoadFailure(error)
    function: Function = found
    return function


def prefer_fork() -> None:
    """Make fork the default start method of `multiprocessing` in a worker, unless the user has set one.

    `__main__` of a worker exists only there: a spawned child could not find its functions. Python 3.14 made forkserver
    the default on Linux; there is no public way to change a default and leave it changeable.
    """
    if sys.platform != "linux":
        return
    if sys.version_info >= (3, 14):
        import multiprocessing
        from multiprocessing import context

        context._default_context._default_context = multiprocessing.get_context("fork")  # noqa: SLF001


def callable_of(loaded: Callable[..., Any] | LoadFailure) -> Callable[..., Any]:
    """Return what is called for a function of the run."""
    return raising(loaded.exception) if isinstance(loaded, LoadFailure) else make_sync(loaded)


def raising(error: BaseException) -> Callable[..., Any]:
    """Return a function that raises the reason why the actual one could not be loaded."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail
