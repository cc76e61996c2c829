"""The functions of a run in a worker, made of the payload that `payload.py` has built.

What comes by name is imported; what comes by value is made under a fresh `__main__`, see `namespaces.py`.
"""

from __future__ import annotations

import io
import linecache
import pickle
import sys
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml._loading import loading
from flowyml.executors._processes.crossing import namespaces
from flowyml.steps.coroutines import blocking

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.executors._processes.crossing.payload import Function, Reference

_PICKLER = "flowyml.executors._processes.crossing.pickler"


class LoadFailure(NamedTuple):
    """Stands for a function that did not load in a worker.

    Attributes:
        exception: What was raised.
    """

    exception: BaseException


class Opened:
    """A payload in a worker: nothing of it has run yet.

    Args:
        data: `Payload.data`.
        further: They come to those that are here, and share their globals; else under a fresh `__main__`.
    """

    def __init__(self, data: bytes, *, further: bool = False) -> None:
        if not further:
            # Else nothing was pickled; a thread that a step has left may be importing it.
            if (forget := getattr(sys.modules.get(_PICKLER), "forget_definitions", None)) is not None:
                forget()
            namespaces.begin()
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
            namespaces.namespace(module, {}).setdefault(name, thing)
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
    return raising(loaded.exception) if isinstance(loaded, LoadFailure) else blocking(loaded)


def raising(error: BaseException) -> Callable[..., Any]:
    """Stand for a function that did not load: its step fails with the reason."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail
