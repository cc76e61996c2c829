"""The content of a value as a short byte string, equal for equal values in any process.

The canonical form is a pickle without the two things that make pickles of equal values differ: there is no memo (the C
pickler's `fast` mode), so it does not matter whether two equal strings are one object, and dicts and sets are sorted.
Types count: 1, 1.0, True and a subclass's 1 are four values. A NaN equals itself. Functions and classes count by their
code and everything it reaches (`code_graph.py`), so a lambda has a content although it cannot be pickled. A value that
can neither be pickled nor followed is an `UnhashableError`: nothing counts by its type alone. Arrays and frames are
read by their buffers (`arrays.py`).

`blake2b` hashes 0.8 GB/s. blake3 and xxhash are faster for large values, but are packages to install, and compared with
pickling, checksums and the disk the hash is the smaller part.
"""

from __future__ import annotations

import copyreg
import io
import marshal
import pickle
import sys
import threading
import typing
from collections import Counter, OrderedDict
from contextvars import ContextVar
from enum import EnumType
from functools import partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ReferenceType, WeakKeyDictionary, WeakSet, WeakValueDictionary

from flowyml.hashing import arrays, blake2b, bytecode, code, module_source
from flowyml.hashing.file import File, collected, digest_of
from flowyml.user_modules import is_user_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flowyml.hashing.code_graph import CodeGraph

SIZE = 16
"""Bytes of a digest."""

HOLDS_FILES = b"@"
"""The first byte of the content of a value that contains a `File`."""

ATOMS = frozenset([type(None), bool, int, float, str])
FLAT = ATOMS | {bytes}
_SEQUENCES = frozenset([list, tuple])
_SORTABLE = ({str}, {int}, {bytes}, {bool})
# Without a memo an object is written as often as it occurs.
_MAX_WRITTEN = 4 << 30
_MIN_FLAT_LENGTH = 64  # sequences of atoms from this length are written in C
_MARSHAL = 2  # version 2 has no references, so equal atoms have equal bytes
TROUBLE = (Exception, SystemExit, GeneratorExit)  # of a reducer; not Ctrl-C
TOO_MUCH = (ValueError, RecursionError, OverflowError)  # of cycles and too many copies, without a memo

Handler: TypeAlias = "Callable[[CanonicalPickler, Any], Any]"


class UnhashableError(Exception):
    """A value has no content, because something in it cannot be pickled; the message names it."""


class UnknownCodeError(UnhashableError):
    """A value contains functions or classes of the user, and there is no code graph."""


def content(value: Any, code_graph: CodeGraph | None = None) -> bytes:
    """Return the content of a value: short ones as they are, others as a hash.

    Functions and classes in it count with their code and everything it reaches. Only for the driver: in a worker the
    modules of a script are incomplete.

    Args:
        value: Any value.
        code_graph: The functions and classes hashed so far.

    Raises:
        UnhashableError: If something in it cannot be pickled.

    >>> content({"a": 1, "b": 2}) == content({"b": 2, "a": 1}), content(1) == content(1.0)
    (True, False)
    """
    return _flat_content(value) or _deep_content(value, code_graph or _new_graph())


def plain_content(value: Any) -> bytes | None:
    """Return the content of a value without functions and classes of the user; `None` for others.

    Raises:
        UnhashableError: If something in it cannot be pickled.

    >>> plain_content([1, {"a"}]) == content([1, {"a"}]), plain_content(lambda: 1)
    (True, None)
    """
    try:
        return _flat_content(value) or _deep_content(value, None)
    except UnknownCodeError:
        return None


def _flat_content(value: Any) -> bytes | None:
    """Return the content of numbers, strings, and lists of them; `None` for others."""
    kind = type(value)
    if kind in ATOMS or (kind in _SEQUENCES and FLAT.issuperset(map(type, value))):
        data = marshal.dumps(value, _MARSHAL)
        return data if len(data) <= SIZE else b"*" + blake2b(data, digest_size=SIZE).digest()
    return None


def _deep_content(value: Any, code_graph: CodeGraph | None) -> bytes:
    with collected() as files:
        digest = _digest(value, code_graph)
    return (HOLDS_FILES if files else b"#") + digest


def _new_graph() -> CodeGraph:
    from flowyml.hashing.code_graph import CodeGraph

    return CodeGraph()


def contents_of_atoms(values: Sequence[Any]) -> list[bytes] | None:
    """Return the contents of many values at once if all are numbers and strings, else `None`.

    >>> contents_of_atoms([1, "a"]) == [content(1), content("a")], contents_of_atoms([1, []])
    (True, None)
    """
    if not ATOMS.issuperset(map(type, values)):
        return None
    dumps = marshal.dumps
    dumped = [dumps(value, _MARSHAL) for value in values]
    if len(max(dumped, key=len, default=b"")) <= SIZE:
        return dumped
    return [data if len(data) <= SIZE else b"*" + blake2b(data, digest_size=SIZE).digest() for data in dumped]


def _digest(value: Any, code_graph: CodeGraph | None) -> bytes:
    try:
        try:
            return ValueWriter(code_graph).dumped(value)
        except TOO_MUCH:
            from flowyml.hashing.code_graph import digest_of_objects

            return digest_of_objects(value, code_graph)
    except UnhashableError:
        raise
    except TROUBLE as error:
        raise UnhashableError(f"{type(error).__name__}: {error}") from error


class HashSink:
    """A file that hashes the written data."""

    def __init__(self) -> None:
        self.hash = blake2b(digest_size=SIZE)
        self._size = 0

    def write(self, data: Any) -> None:
        """Hash some bytes."""
        self._size += len(data)
        if self._size > _MAX_WRITTEN:
            raise OverflowError("too large to be hashed without a memo")
        self.hash.update(data)


class CanonicalPickler(pickle.Pickler):
    """Writes the canonical form and hashes it.

    A handler replaces an object by a persistent id: a tuple of plain data and further objects, which are written alike.

    Attributes:
        is_code: True if the value belongs to a function.
    """

    is_code = False

    def __init__(self) -> None:
        self._sink = HashSink()
        super().__init__(self._sink, 5)
        self.fast = True

    def dumped(self, value: Any) -> bytes:
        """Return the hash of a value; may be called once."""
        self.dump(value)
        return self._sink.hash.digest()

    def persistent_id(self, obj: Any) -> Any:
        """Return the replacement of an object; `None` if it is pickled."""
        handler = HANDLERS[type(obj)]
        return None if handler is None else handler(self, obj)

    def reducer_override(self, obj: Any) -> Any:
        """Reduce as pickle does; objects pickled by name are reduced with class and attributes, too."""
        kind = type(obj)
        if kind in _DEFAULT_REDUCED or (kind.__reduce_ex__ is _REDUCES[0] and kind.__reduce__ is _REDUCES[1]):
            return NotImplemented
        if kind in copyreg.dispatch_table:
            return NotImplemented
        if not is_user_module(kind.__module__):
            _DEFAULT_REDUCED.add(kind)
            return NotImplemented
        reduced = obj.__reduce_ex__(5)
        return (_by_name, (reduced, kind, getattr(obj, "__dict__", None))) if isinstance(reduced, str) else reduced

    # -- for subclasses

    def code(self, obj: Any) -> tuple[Any, ...]:
        """Return the canonical form of a function, class or module of the user."""
        raise NotImplementedError

    def named(self, name: str) -> tuple[Any, ...]:
        """Return the canonical form of an installed function, class or module."""
        return "named", name

    def unordered(self, parts: Iterable[Any]) -> tuple[Any, ...]:
        """Return the canonical form of unordered parts."""
        raise NotImplementedError


class ValueWriter(CanonicalPickler):
    """Writes a value; code in it counts by its hash.

    Args:
        code_graph: Hashes code; `None` if the value may contain no code.
    """

    def __init__(self, code_graph: CodeGraph | None) -> None:
        super().__init__()
        self.code_graph = code_graph

    def code(self, obj: Any) -> tuple[Any, ...]:
        """Return the hash of the code."""
        if self.code_graph is None:
            raise UnknownCodeError(f"{type(obj).__name__} {getattr(obj, '__qualname__', '')}")
        return "code", self.code_graph.digest(obj)

    def unordered(self, parts: Iterable[Any]) -> tuple[Any, ...]:
        """Return the hashes of the parts, sorted."""
        return tuple(sorted(ValueWriter(self.code_graph).dumped(part) for part in parts))


_DEFAULT_REDUCED: set[type] = set()  # installed types
_REDUCES: tuple[Any, Any] = (object.__reduce_ex__, object.__reduce__)


def _by_name(*_: Any) -> None:
    """Mark an object that is pickled by name; the written form is never loaded."""


# ---- functions and classes -------------------------------------------------------------------------------------------


def _of_function(canonical: CanonicalPickler, obj: Any) -> Any:
    name = code.installed_name(obj)
    return canonical.code(obj) if name is None else canonical.named(name)


def _of_builtin(canonical: CanonicalPickler, obj: Any) -> Any:
    """Write functions of extension modules; methods of objects are pickled."""
    if isinstance(obj.__self__, ModuleType | None):
        return _of_function(canonical, obj)
    return None


def _of_module(canonical: CanonicalPickler, obj: ModuleType) -> Any:
    return canonical.code(obj) if is_user_module(obj.__name__) else canonical.named(obj.__name__)


def _of_named(canonical: CanonicalPickler, obj: code.InstalledName) -> Any:
    return canonical.named(obj.name)


def _of_file(canonical: CanonicalPickler, obj: Any) -> Any:
    return canonical.code(obj)


def _of_callable(_: CanonicalPickler, obj: Any) -> Any:
    return code.unwrapped(obj)


# ---- types whose pickle is not canonical -----------------------------------------------------------------------------


def _of_dict(canonical: CanonicalPickler, obj: dict[Any, Any]) -> Any:
    if len(obj) > 1 and set(map(type, obj)) not in _SORTABLE:
        return "dict", canonical.unordered(obj.items())
    return "dict", tuple([entry for key in sorted(obj) for entry in (key, obj[key])])


def _of_set(canonical: CanonicalPickler, obj: Iterable[Any]) -> Any:
    return type(obj).__name__, _sorted(canonical, obj)


def _sorted(canonical: CanonicalPickler, obj: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(obj)) if set(map(type, obj)) in _SORTABLE else canonical.unordered(obj)


def _of_sequence(_: CanonicalPickler, obj: Any) -> Any:
    """Write long sequences of atoms in C."""
    if len(obj) < _MIN_FLAT_LENGTH or not FLAT.issuperset(map(type, obj)):
        return None
    return type(obj).__name__, "flat", _flat_digest(obj)


def _flat_digest(obj: Any) -> bytes:
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 5)
    pickler.fast = True
    pickler.dump(obj)
    return blake2b(file.getbuffer(), digest_size=SIZE).digest()


def _of_dict_subclass(canonical: CanonicalPickler, obj: Any) -> Any:
    """Write subclasses whose key order is arbitrary; those with their own way of pickling keep it."""
    if type(obj).__reduce__ is _REDUCES_COUNTER:  # it drops the attributes of a subclass
        return "counter", type(obj), _of_dict(canonical, dict(obj)), object.__getstate__(obj)
    reduced = obj.__reduce_ex__(5)
    if isinstance(reduced, str) or len(reduced) < 5 or reduced[4] is None:  # noqa: PLR2004  the items of a dict
        return None
    return "dict of", reduced[:4], _of_dict(canonical, dict(reduced[4])), reduced[5:]


def _of_set_subclass(canonical: CanonicalPickler, obj: Any) -> Any:
    if type(obj).__reduce__ not in _REDUCES_SET:
        return None
    return "set of", type(obj), _sorted(canonical, obj), obj.__reduce__()[2:]


_REDUCES_COUNTER: Any = Counter.__reduce__
_REDUCES_SET: tuple[Any, ...] = (set.__reduce__, frozenset.__reduce__)


def _of_mapping_proxy(_: CanonicalPickler, obj: Any) -> Any:
    return "view", obj.copy()


def _of_memory(_: CanonicalPickler, obj: Any) -> Any:
    view = memoryview(obj)
    return type(obj).__name__, view.format, view.shape, view.readonly, view.tobytes()


def _of_data_file(_: CanonicalPickler, obj: File) -> Any:
    return "file", type(obj), obj.path, digest_of(obj.path), getattr(obj, "__dict__", None)


def _of_exception(_: CanonicalPickler, obj: BaseException) -> Any:
    """Write the cause and context, which its pickle omits."""
    others = obj.__cause__, obj.__context__
    if others[0] is None is others[1]:
        return None
    return ("exception", obj.__reduce_ex__(5), others, obj.__suppress_context__)


def _of_code(_: CanonicalPickler, obj: CodeType) -> Any:
    return "code", bytecode.plain(obj)


def _of_stream(canonical: CanonicalPickler, obj: Any) -> Any:
    """Write the standard streams, usual defaults of `file=`, by name; other open files have no content."""
    name = next((name for name in ("stdin", "stdout", "stderr") if obj is getattr(sys, name)), None)
    return None if name is None or not canonical.is_code else canonical.named(f"sys.{name}")


def _of_lock(canonical: CanonicalPickler, obj: Any) -> Any:
    """Write a lock in code by its kind, because a function cannot depend on its state; as a value it has no content."""
    return ("lock", type(obj).__name__) if canonical.is_code else None


def _of_weak_mapping(_: CanonicalPickler, obj: Any) -> Any:
    return type(obj).__name__, dict(obj.items())


def _of_weak_set(_: CanonicalPickler, obj: Any) -> Any:
    return "weak set", set(obj)


def _of_weak_reference(_: CanonicalPickler, obj: Any) -> Any:
    return "weak reference", obj()


def _of_context_variable(_: CanonicalPickler, obj: ContextVar[Any]) -> Any:
    return "context variable", obj.name, obj.get(None)


def _of_local(_: CanonicalPickler, obj: Any) -> Any:
    return "local of a thread", type(obj), vars(obj)


def _of_cell(_: CanonicalPickler, obj: Any) -> Any:
    try:
        return "cell", obj.cell_contents
    except ValueError:
        return "cell", "empty"


def _of_descriptor(_: CanonicalPickler, obj: Any) -> Any:
    return type(obj).__name__, obj.__func__


def _of_property(_: CanonicalPickler, obj: property) -> Any:
    return "property", obj.fget, obj.fset, obj.fdel


def _of_new_type(_: CanonicalPickler, obj: Any) -> Any:
    return "new type", code.full_name(obj), obj.__supertype__


def _of_type_alias(_: CanonicalPickler, obj: Any) -> Any:
    return "alias", obj.__name__, obj.__value__


class _TypeHandlers(dict[type, "Handler | None"]):
    """The handler of each type, found on first use; those of the user's types are not stored."""

    def __missing__(self, kind: type) -> Handler | None:
        if not isinstance(kind.__module__, str):  # as of Cython's functions
            return _of_function
        handler = arrays.handler_of(kind, _flat_digest) or _handler_of(kind)
        if not is_user_module(kind.__module__):
            self[kind] = handler
        return handler


def _handler_of(kind: type) -> Handler | None:
    for base, handler in _BASES:
        if issubclass(kind, base):
            return handler
    return _of_callable if callable(getattr(kind, "__call__", None)) else None  # noqa: B004  the attribute of the type


_BASES: tuple[tuple[Any, Handler | None], ...] = (
    (type, _of_function),
    (ModuleType, _of_module),
    (OrderedDict, None),
    (dict, _of_dict_subclass),
    ((set, frozenset), _of_set_subclass),
    (BaseException, _of_exception),
    (threading.local, _of_local),
    (ReferenceType, _of_weak_reference),
    (File, _of_data_file),
)
_KNOWN: dict[Any, Handler | None] = {
    **dict.fromkeys(FLAT),
    **dict.fromkeys((list, tuple), _of_sequence),
    **dict.fromkeys((set, frozenset), _of_set),
    **dict.fromkeys((type, EnumType, FunctionType), _of_function),
    **dict.fromkeys((module_source.Source, module_source.Project), _of_file),
    **dict.fromkeys((type(threading.Lock()), type(threading.RLock())), _of_lock),
    **dict.fromkeys((WeakKeyDictionary, WeakValueDictionary), _of_weak_mapping),
    **dict.fromkeys((staticmethod, classmethod), _of_descriptor),
    **dict.fromkeys((MethodType, partial), _of_callable),
    dict: _of_dict,
    MappingProxyType: _of_mapping_proxy,
    **dict.fromkeys((memoryview, pickle.PickleBuffer), _of_memory),
    CodeType: _of_code,
    io.TextIOWrapper: _of_stream,
    BuiltinFunctionType: _of_builtin,
    code.InstalledName: _of_named,
    WeakSet: _of_weak_set,
    ReferenceType: _of_weak_reference,
    ContextVar: _of_context_variable,
    CellType: _of_cell,
    property: _of_property,
    typing.NewType: _of_new_type,
    **({typing.TypeAliasType: _of_type_alias} if hasattr(typing, "TypeAliasType") else {}),
}
HANDLERS = _TypeHandlers(_KNOWN)
