"""Pickles arguments and results: with plain pickle if that suffices, else by value.

    driver ── dump_value ──▶ worker        a class of `__main__` carries its definition, in case the worker lacks it
    driver ◀── dump_result ── worker       it is sent by name: the driver has the class itself

Small plain objects cost what plain pickle costs. The bytes are searched for the names of modules that a worker cannot
import; a name that occurs by chance (in a string) costs time and changes nothing. The contents of arrays are not
searched: that would take longer than to copy them.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import TYPE_CHECKING, Any

from flowyml.errors import SerializationError
from flowyml.store.reduction import holds_exceptions, reduce_exception

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.executors.process.protocol.pickler import ByValuePickler

_GLOBAL = b"\x93"  # opcode STACK_GLOBAL: without it the bytes name no class or function
_ATOMS = frozenset([bytes, bytearray, str, int, float, complex, bool, type(None)])

_PLAIN_BYTES = frozenset([bytes, bytearray])

_TROUBLE = (Exception, SystemExit, GeneratorExit)  # what a reducer may raise, except Ctrl-C

load_value = pickle.loads
"""Load the result of `dump_value` or `dump_result`; workers do it under `flowyml.import_guard.loading()`."""


def _dumps(obj: object, apart: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    if "polars" not in sys.modules:
        return pickle.dumps(obj, 5, buffer_callback=apart)
    from flowyml.executors.process.protocol.polars_frames import dumps

    return dumps(obj, apart)


class OutOfBandBuffers:
    """Takes large buffers out of a pickle, for one value after the other.

    Args:
        least: The size in bytes from which a buffer is large.

    Attributes:
        buffers: Those taken out of the current pickle.
    """

    __slots__ = ("buffers", "least")

    def __init__(self, least: int) -> None:
        self.least = least
        self.buffers: list[memoryview] = []

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Return True if a buffer stays in the pickle."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous: left to the pickler
            return True
        if len(view) < self.least:
            return True
        self.buffers.append(view)
        return False

    def take(self) -> list[memoryview]:
        """Return the buffers and forget them."""
        taken, self.buffers = self.buffers, []
        return taken

    def shown(self, obj: object) -> object:
        """Return what to pickle for an object: pickle itself never takes `bytes` out of band."""
        is_large = type(obj) in _PLAIN_BYTES and len(obj) >= self.least  # type: ignore[arg-type]
        return _OutOfBandBytes(obj) if is_large else obj


class _OutOfBandBytes:
    """Pickles as bytes, with their contents out of band."""

    __slots__ = ("_obj",)

    def __init__(self, obj: object) -> None:
        self._obj = obj

    def __reduce__(self) -> tuple[object, ...]:
        return type(self._obj), (pickle.PickleBuffer(self._obj),)  # type: ignore[arg-type]


def dump_value(obj: object, what: str = "the value", apart: OutOfBandBuffers | None = None) -> bytes:
    """Pickle a value for a worker, which has the functions of the run and can import modules.

    Args:
        obj: The value.
        what: What it is, for error messages ("argument 'x' of step 'a'").
        apart: Takes large buffers; without it they stay in the pickle.

    Raises:
        SerializationError: The value cannot be pickled; names the part that cannot.

    >>> load_value(dump_value({"a": [1, 2]}))
    {'a': [1, 2]}
    """
    values = ValueDumper(apart)
    try:
        return values.dump(obj, what)
    finally:
        values.close()


class ValueDumper:
    """Pickles many values for a worker, as `dump_value` does: common state is prepared once.

    Values share no object. A value whose type was sent by value before is not tried with plain pickle first: pipelines
    that are translated from other graphs have a task object for each step, all of one class.
    """

    def __init__(self, apart: OutOfBandBuffers | None = None) -> None:
        self._apart = apart
        self._by_value: ByValuePickler | None = None
        self._types: set[type] = set()

    def dump(self, obj: object, what: str) -> bytes:
        """Pickle a value; see `dump_value` for the arguments and errors."""
        if type(obj) in self._types:
            return self._dump_by_value(obj, what)
        apart = self._apart
        buffers: list[pickle.PickleBuffer] = []
        try:
            shown = obj if apart is None else apart.shown(obj)
            data = _dumps(shown, buffers.append if apart is None else apart)
        except _TROUBLE:  # reducers of other packages may raise anything; cloudpickle is tried next
            return self._dump_by_value(obj, what)
        if _GLOBAL in data and type(obj) not in _ATOMS and (_names_by_value(data) or holds_exceptions(obj)):
            if type(obj).__module__ != "builtins":  # lists may have different contents
                self._types.add(type(obj))
            return self._dump_by_value(obj, what)
        return pickle.dumps(obj, 5) if buffers else data

    def close(self) -> None:
        """Release the common state; the next value prepares it again."""
        if self._by_value is not None:
            self._by_value.close()

    def _dump_by_value(self, obj: object, what: str) -> bytes:
        if self._by_value is None:
            from flowyml.executors.process.protocol.pickler import ByValuePickler

            self._by_value = ByValuePickler(self._apart)
        return _explained(self._by_value.dump, obj, what, self._apart)


def dump_result(obj: object, what: str = "the result", apart: OutOfBandBuffers | None = None) -> bytes:
    """Pickle a value in a worker for the driver, which has every class that the worker got from it.

    See `dump_value` for the arguments and errors.
    """
    try:
        data = _dumps(obj if apart is None else apart.shown(obj), apart)
        if _GLOBAL not in data or type(obj) in _ATOMS or not holds_exceptions(obj):
            return data
        if apart is not None:
            apart.take()
        return _dump_with_exceptions(obj, apart)
    except (*_TROUBLE, KeyboardInterrupt):  # raised by a reducer: Ctrl-C does not reach a worker
        return _dump_by_value(obj, what, apart)


def _dump_with_exceptions(obj: object, apart: OutOfBandBuffers | None) -> bytes:
    file = io.BytesIO()
    _ExceptionPickler(file, 5, buffer_callback=apart).dump(obj)
    return file.getvalue()


class _ExceptionPickler(pickle.Pickler):
    """Pickles as pickle does, but for exceptions that would not arrive as they are."""

    def reducer_override(self, obj: Any) -> Any:
        return reduce_exception(obj) if isinstance(obj, BaseException) else NotImplemented


def _names_by_value(data: bytes) -> bool:
    if b"__main__" in data or ("__mp_main__" in sys.modules and b"__mp_main__" in data):
        return True
    from flowyml.executors.process.protocol.importable import by_value_modules  # not needed in workers

    return any(name.encode() in data for name in by_value_modules())


def _dump_by_value(obj: object, what: str, apart: OutOfBandBuffers | None = None) -> bytes:
    from flowyml.executors.process.protocol.pickler import dump_by_value

    return _explained(lambda each: dump_by_value(each, apart), obj, what, apart)


def _explained(dump: Callable[[object], bytes], obj: object, what: str, apart: OutOfBandBuffers | None) -> bytes:
    """Pickle a value; errors say what cannot be pickled and why."""
    if apart is not None:
        apart.take()
    attempt = sys.exception()
    try:
        return dump(obj)
    except Exception as error:
        from flowyml.executors.process.protocol import pickle_errors

        raise SerializationError(what, pickle_errors.explain(obj, error, attempt)) from error
    except (SystemExit, GeneratorExit, KeyboardInterrupt) as error:
        raise SerializationError(what, f"pickling it raises {type(error).__name__}") from error
