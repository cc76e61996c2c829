"""The functions of a run in a worker: each is loaded when the first step that calls it has begun.

```
payload ──set_up──▶ not loaded (`None`) ──load, in a step that is claimed──▶ callable
   │                    ▲            └──▶ failure, which its steps raise       ▲
   │                    └─ next attempt, run ┘                                 │
   └── of modules that are imported already ───────────────────────────────────┘
```

To load one is to run what the user wrote: a module may take long to import, crash, or never end. So the step that
needs it has begun by then: that is the one to blame for a crash, and the one whose time is over. What came by value
comes together, since it shares globals and the values of steps may be made of it.

One that did not load fails its steps, and is tried again where one of them is, and in the next run: whatever was
missing may be there by then; yet a million steps do not import a broken module a million times.

The functions of a run in a worker, made of the payload that `payload.py` has built.

What comes by name is imported; what comes by value is made under a fresh `__main__`, see `namespaces.py`.
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
from flowyml.executors.process.protocol.driver_environment import settle
from flowyml.import_guard import loading
from flowyml.steps.coroutines import make_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.executors.process.protocol.function_payload import Function, Reference


AnyFunction = Any
"""A callable."""


class FunctionTable:
    """The functions of the run that a worker is at.

    Attributes:
        called: What is called for each; `None` for one that is not loaded yet.
        failed: Those that did not load, and are not tried again before `forget_failures`.
    """

    def __init__(self) -> None:
        self.called: list[AnyFunction | None] = []
        self.failed: list[int] = []
        self._wrap: Callable[[AnyFunction], AnyFunction] | None = None
        self._loaded: list[AnyFunction | LoadFailure | None] = []
        self._opened: list[tuple[int, LoadedPayload]] = []

    def set_up(self, data: bytes) -> None:
        """Take those of another payload in the place of all."""
        self._opened, self._loaded, self.called, self.failed = [], [], [], []
        self._add(LoadedPayload(data))

    def begin(self, count: int, wrap: Callable[[AnyFunction], AnyFunction] | None, error: BaseException | None) -> None:
        """Begin a run with the first of them: others came during the run before.

        Args:
            count: How many they are.
            wrap: Makes what is called of a function, if it is not the function itself.
            error: Why no step can run here.
        """
        self._wrap = wrap
        self.forget_failures()
        del self._loaded[count:], self._opened[1:]
        self.called = [self._wrapped(each) for each in self._loaded] if error is None else [raising(error)] * count

    def add(self, data: bytes, count: int) -> None:
        """Take over those of steps that came during the run."""
        try:
            self._add(LoadedPayload(data, further=True))
        except Exception as error:  # noqa: BLE001  the steps fail with it
            self._loaded += [LoadFailure(error)] * count
            self.called += [raising(error)] * count

    def forget_failures(self) -> None:
        """Let what did not load be tried again."""
        if not self.failed:
            return
        for index in self.failed:
            self._loaded[index] = self.called[index] = None
        for _, opened in self._opened:
            opened.forget_failure()
        self.failed.clear()
        importlib.invalidate_caches()  # else a file is not seen that came within the same tick of the clock

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
            settle()
            gc.freeze()  # what was imported until now stays: the collector need not look at it again
        return self.called[index]

    def _add(self, opened: LoadedPayload) -> None:
        first = len(self._loaded)
        self._opened.append((first, opened))
        self._loaded += [None] * len(opened)
        self.called += [None] * len(opened)
        if opened.is_complete:
            self._fill(first, opened)

    def _fill(self, first: int, opened: LoadedPayload) -> None:
        """Take all that can be had without running anything."""
        for position in range(len(opened)):
            if opened.is_near(position):
                self._take(first + position, first, opened)

    def _take(self, index: int, first: int, opened: LoadedPayload) -> None:
        self._loaded[index] = loaded = opened.load(index - first)
        self.called[index] = self._wrapped(loaded)
        if isinstance(loaded, LoadFailure):
            self.failed.append(index)

    def _wrapped(self, loaded: AnyFunction | LoadFailure | None) -> AnyFunction | None:
        """Return what is called for a function."""
        if loaded is None:
            return None
        called = callable_of(loaded)
        return called if self._wrap is None else self._wrap(called)


_PICKLER = "flowyml.executors.process.protocol.pickler"


class LoadFailure(NamedTuple):
    """Stands for a function that did not load in a worker.

    Attributes:
        exception: What was raised.
    """

    exception: BaseException


class LoadedPayload:
    """A payload in a worker: nothing of it has run yet.

    Args:
        data: `FunctionPayload.data`.
        further: They come to those that are here, and share their globals; else under a fresh `__main__`.
    """

    def __init__(self, data: bytes, *, further: bool = False) -> None:
        if not further:
            # Else nothing was pickled; a thread that a step has left may be importing it.
            if (forget := getattr(sys.modules.get(_PICKLER), "forget_definitions", None)) is not None:
                forget()
            main_module.begin()
            prefer_fork()
        self._file = io.BytesIO(data)
        self._places: list[int | Reference] = pickle.load(self._file)
        self._carried: list[Function] | LoadFailure | None = None

    def __len__(self) -> int:
        """Return how many functions it has."""
        return len(self._places)

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing that came by value, or it is loaded."""
        return self._carried is not None or all(isinstance(place, tuple) for place in self._places)

    def is_near(self, position: int) -> bool:
        """Tell whether a function can be had without running anything, now that what came by value is loaded."""
        place = self._places[position]
        return not isinstance(place, tuple) or place[0] in sys.modules

    def load_carried(self) -> None:
        """Load what came by value, all together: the values of steps may be made of it."""
        if not self.is_complete:
            start = self._file.tell()
            with loading():
                self._carried = _load_carried(self._file)
            if isinstance(self._carried, LoadFailure):
                self._file.seek(start)
            else:
                self._file = io.BytesIO()

    def forget_failure(self) -> None:
        """Let what came by value be loaded again, if it did not load."""
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
    """Load what came by value."""
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
    """Import a function; what that raises belongs to its step alone."""
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

    `__main__` of a worker exists only there: a child that is spawned could not find its functions. Python 3.14 made
    forkserver the default on Linux; there is no public way to change a default and leave it changeable.
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
    """Stand for a function that did not load: its step fails with the reason."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail
