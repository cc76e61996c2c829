"""cloudpickle with shared globals, classes that are filled once, and files in tracebacks.

`FunctionPickler` is `cloudpickle.Pickler` for what is sent by value between driver and workers:

- the globals of a module that is sent by value become that module's dictionary in the worker (`main_module.namespace`);
- a class that arrives twice is filled once (`main_module.fill_class`), also with what cloudpickle omits;
- code keeps its file name, and source lines that exist only in memory (notebook cells) are collected.

`ValuePickler` is for arguments and results: each class or module-level function is pickled once per run and sent as a
definition, which the other side executes only if it does not have it. Its functions have globals of their own, so that
loading an argument never changes what the steps of a worker share.

It depends on private names of cloudpickle: `Pickler._function_getnewargs`, `_class_setstate`, `_make_skeleton_class`
and (for speed) `_find_imported_submodules`; tests check them.
"""

from __future__ import annotations

import io
import linecache
import operator
import sys
import threading
from collections import ChainMap
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

import cloudpickle
from cloudpickle import cloudpickle as internals

from flowyml.executors.process.protocol import main_module
from flowyml.executors.process.protocol.importable import by_value_modules, goes_by_value
from flowyml.executors.process.protocol.reducers import REDUCERS, find_imported_submodules
from flowyml.hashing import blake2b
from flowyml.store.reduction import reduce_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pickle import PickleBuffer

PROTOCOL = 5
_BY_VALUE_REDUCTION = 6  # length of what cloudpickle returns for a class or function by value; all others are shorter

_REDUCED = (type, FunctionType, CodeType, BaseException)
"""The types that are reduced here; cloudpickle reduces no others by value."""

_SET_BY_ENUM = frozenset(["_value_", "_name_", "__objclass__", "_sort_order_"])
_NAMESPACE = 3  # the position of the class body among the arguments of `_make_skeleton_class`

_lock = threading.RLock()
_definitions: dict[int, tuple[object, tuple[bytes, bytes, str, str]]] = {}


class _GlobalsRef:
    """Stands for the globals of a module that is sent by value."""

    def __init__(self, name: str, start: dict[str, object]) -> None:
        self.name = name
        self.start = start

    def __reduce__(self) -> tuple[Any, ...]:
        return main_module.namespace, (self.name, self.start)


class FunctionPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles the functions of a payload.

    Args:
        file: Where the bytes are written.
        apart: Called with each buffer; returns whether it stays in the pickle. By default all do.

    Attributes:
        exports: Module to name to class or function by value: what must be found by name in the worker.
        sources: File name to the `linecache` entry of code whose source is in memory only.
    """

    dispatch_table: ClassVar[Mapping[type, Any]] = ChainMap(REDUCERS, cloudpickle.Pickler.dispatch_table)

    def __init__(self, file: io.BytesIO, apart: Callable[[PickleBuffer], bool] | None = None) -> None:
        super().__init__(file, protocol=PROTOCOL, buffer_callback=apart)
        self.exports: dict[str, dict[str, object]] = {}
        self.sources: dict[str, Any] = {}
        self._namespaces: dict[int, _GlobalsRef] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Reduce code, classes, functions and exceptions; leave others to cloudpickle."""
        if isinstance(obj, BaseException) and (reduced := reduce_exception(obj)) is not NotImplemented:
            return reduced
        if type(obj) is CodeType:
            return self._reduce_code(obj)
        if type(type(obj)) is type and type(obj).__name__ == "PyCArrayType":  # of ctypes, which makes each type once
            return operator.mul, (obj._type_, obj._length_)
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented or len(reduced) != _BY_VALUE_REDUCTION:
            return reduced
        if has_place(obj):
            self.exports.setdefault(obj.__module__, {})[obj.__qualname__] = obj
        if isinstance(obj, type):
            main_module.keep_as_is(obj)
            return _reduced_class(obj, *reduced[:3])
        return reduced

    def _reduce_code(self, code: CodeType) -> tuple[Any, ...]:
        """Reduce code as cloudpickle does, and keep its file name."""
        file = code.co_filename
        entry = linecache.cache.get(file)
        if entry is not None and len(entry) > 1 and entry[1] is None:
            self.sources[file] = entry
        return main_module.make_code, (file, *self.dispatch_table[CodeType](code)[1])

    def _function_getnewargs(self, func: FunctionType) -> tuple[Any, ...]:
        """Replace the globals by the shared namespace if the module is sent by value."""
        code, start, *rest = super()._function_getnewargs(func)
        return code, self._shared_globals(func, start), *rest

    def _shared_globals(self, func: FunctionType, start: dict[str, object]) -> object:
        shared = func.__globals__
        name = shared.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) else None
        if module is None or vars(module) is not shared or not goes_by_value(str(name)) or not _is_reachable(str(name)):
            return start
        key = id(shared)
        if key not in self._namespaces:
            start = {key: value for key, value in start.items() if key != "__file__"}
            self._namespaces[key] = _GlobalsRef(str(name), start)
        return self._namespaces[key]


def _reduced_class(cls: type, make: Any, arguments: tuple[Any, ...], state: Any) -> tuple[Any, ...]:
    """Return cloudpickle's reduction of a class, with what that omits.

    * Slots: it sets `__slots__` once the class exists, which creates none, so instances would differ. (Those of tuples
      are empty, and `typing.NamedTuple` sets them itself.)
    * The qualified name of a class that is defined in another class or in a function.
    * The attributes that `__init__` or `__new__` of an enum set on its members, which are created before the enum has
      these methods.
    """
    if make is not internals._make_skeleton_class:  # noqa: SLF001
        members = getattr(cls, "__members__", {}).items()
        given = {name: attributes for name, each in members if (attributes := _given_to_member(each))}
        return make, arguments, (state, given), None, None, main_module.fill_enum
    body = arguments[_NAMESPACE]
    body["__qualname__"] = cls.__qualname__
    if "__slots__" in vars(cls) and not issubclass(cls, tuple):
        body["__slots__"] = vars(cls)["__slots__"]
    return main_module.make_class, arguments, state, None, None, main_module.fill_class


def _given_to_member(member: object) -> dict[str, Any]:
    return {name: value for name, value in vars(member).items() if name not in _SET_BY_ENUM}


class DefinitionPickler(FunctionPickler):
    """Pickles one class or function with globals of its own."""

    def _shared_globals(self, func: FunctionType, start: dict[str, object]) -> object:  # noqa: ARG002
        return start


class ValuePickler(DefinitionPickler):
    """Pickles arguments and results that plain pickle cannot."""

    @property
    def dispatch_table(self) -> dict[type, Any]:  # type: ignore[override]
        """The reducers in one dictionary: pickle reads this once, and then searches it for each object."""
        table = _flat(FunctionPickler.dispatch_table)
        if "polars" in sys.modules:
            from flowyml.executors.process.protocol.polars_frames import reducers

            table.update(reducers())
        return table

    def reducer_override(self, obj: Any) -> Any:
        """Reduce a class or function by value to its definition."""
        if not isinstance(obj, _REDUCED) or obj is main_module.locate:  # most objects of most values
            return NotImplemented
        if isinstance(obj, BaseException):
            return reduce_exception(obj)
        known = _definitions.get(id(obj))
        if known is not None:
            return main_module.locate, known[1]
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented or len(reduced) != _BY_VALUE_REDUCTION:
            return reduced
        if isinstance(obj, type) or has_place(obj):
            return main_module.locate, _define(obj)
        return reduced

    def forget(self) -> None:
        """Forget the objects of the last value, so that the next one shares none of them."""
        self.clear_memo()
        self.globals_ref.clear()


def _define(obj: Any) -> tuple[bytes, bytes, str, str]:
    """Pickle a class or function, once per run if a module has it."""
    file = io.BytesIO()
    DefinitionPickler(file).dump(obj)
    data = file.getvalue()
    digest = blake2b(data, digest_size=16).digest()
    placed = has_place(obj)
    definition = (digest, data, obj.__module__ or "", obj.__qualname__ if placed else "")
    if placed:  # others are created at each call, and would accumulate
        _definitions[id(obj)] = (obj, definition)
    return definition


def forget_definitions() -> None:
    """Forget the definitions of classes and functions, which may change between runs."""
    _definitions.clear()


def has_place(obj: Any) -> bool:
    """Return True if a class or function is what its module has under its name."""
    home, name = obj.__module__ or "", obj.__qualname__
    module = sys.modules.get(home)
    return module is not None and "." not in name and vars(module).get(name) is obj and _is_reachable(home)


def _is_reachable(module: str) -> bool:
    """Return True if plain pickle finds a loaded module by name: it imports the parent packages, too."""
    parent = module.rpartition(".")[0]
    return not parent or (parent in sys.modules and _is_reachable(parent))


@contextmanager
def by_value() -> Iterator[None]:
    """Tell cloudpickle, while the block runs, which modules a worker cannot import."""
    with _lock, _fast_submodules():
        registered = cloudpickle.list_registry_pickle_by_value()
        modules = [sys.modules[name] for name in by_value_modules() if name in sys.modules]
        added = [module for module in modules if module.__name__ in sys.modules and module.__name__ not in registered]
        for module in added:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in added:
                cloudpickle.unregister_pickle_by_value(module)


@contextmanager
def _fast_submodules() -> Iterator[None]:
    """Replace a search of cloudpickle by a faster one with the same result, while the block runs."""
    slow = internals._find_imported_submodules  # noqa: SLF001  no hook leads there
    internals._find_imported_submodules = find_imported_submodules  # noqa: SLF001
    try:
        yield
    finally:
        internals._find_imported_submodules = slow  # noqa: SLF001


def _flat(table: Mapping[type, Any]) -> dict[type, Any]:
    """Return a table of reducers as a dictionary, which pickle searches several times faster."""
    if not isinstance(table, ChainMap):
        return dict(table)
    flat: dict[type, Any] = {}
    for each in reversed(table.maps):
        flat.update(_flat(each))
    return flat


class ByValuePickler:
    """Pickles many values by value, one after the other: common state is prepared with the first one.

    The values share no object. Between the first value and `close` the thread holds the lock of `by_value`.

    Args:
        apart: Called with each buffer; returns whether it stays in the pickle. By default all do.
    """

    def __init__(self, apart: Callable[[PickleBuffer], bool] | None = None) -> None:
        self._apart = apart
        self._file = io.BytesIO()
        self._pickler: ValuePickler | None = None
        self._entered = by_value()

    def dump(self, obj: object) -> bytes:
        """Pickle one value."""
        if self._pickler is None:
            self._entered.__enter__()
            self._pickler = ValuePickler(self._file, self._apart)
        try:
            self._pickler.dump(obj)
            return self._file.getvalue()
        finally:
            self._pickler.forget()
            self._file.seek(0)
            self._file.truncate()

    def close(self) -> None:
        """Release the lock, if it is held. The object can be used again."""
        if self._pickler is not None:
            self._pickler, entered, self._entered = None, self._entered, by_value()
            entered.__exit__(None, None, None)


def dump_by_value(obj: object, apart: Callable[[PickleBuffer], bool] | None = None) -> bytes:
    """Pickle an argument or result by value if plain pickle does not suffice."""
    values = ByValuePickler(apart)
    try:
        return values.dump(obj)
    finally:
        values.close()
