"""The content of a value as a short byte string: equal for equal values, in whatever process they were made.

The canonical form is a pickle without the two things that make pickles of equal values differ. There is no memo (the C
pickler's `fast` mode), so it does not matter whether two equal strings are one object; and dicts and sets are written
in sorted order. Types stand in the form: 1, 1.0, True and a subclass's 1 are four values. A NaN is equal to itself.
Functions and classes stand there with their code (`code.py`), so a lambda has a content though it does not pickle.
Arrays and frames are read by their buffers (`arrays.py`).

Hashed with `hashlib.blake2b`, 0.8 GB/s: blake3 and xxhash are faster for large values, but they are packages to
install, and next to pickling, checksums and the disk the hash is the smaller part.
"""

from __future__ import annotations

import copyreg
import io
import marshal
import pickle
from collections import Counter, OrderedDict
from enum import EnumType
from functools import partial
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from flowyml._digests import blake2b
from flowyml._installed import is_written_here
from flowyml._tuples import NamedTuple
from flowyml.keys import arrays, bytecode, code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SIZE = 16
"""Bytes of a digest."""

ATOMS = frozenset([type(None), bool, int, float, str])
_FLAT = ATOMS | {bytes}
_SEQUENCES = frozenset([list, tuple])
_SORTABLE = ({str}, {int}, {bytes}, {bool})
# Without a memo an object that is held many times is written many times.
_MOST = 4 << 30
# Sequences of at least so many numbers and texts are written by plain C.
_MANY = 64
_MARSHAL = 2  # version 2 keeps no table of what it has seen: equal bytes for equal atoms
_TROUBLE = (Exception, SystemExit, GeneratorExit)  # what a reducer may raise without being Ctrl-C
_TOO_MUCH = (ValueError, RecursionError, OverflowError)  # what a cycle, or too many copies, ends in without a memo

Handler: TypeAlias = "Callable[[Canonical, Any], Any]"
Known: TypeAlias = "dict[int, tuple[object, bytes]]"
"""Functions and classes by id, with the hash of their code: what one run has looked at."""

_shallow: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()


class Unhashable(Exception):  # noqa: N818  it says what a value is
    """A value has no content: something in it does not pickle. Its text says what."""


def content(value: Any, known: Known | None = None) -> bytes:
    """Return the content of a value: short ones as they are, others as a hash.

    Args:
        value: Anything.
        known: With it, functions and classes in the value count with what they read of the globals of their modules;
            they are kept there, so that each is looked at once. For what the driver has: in a worker the modules of a
            script are not whole.

    Raises:
        Unhashable: If something in it does not pickle.

    >>> content({"a": 1, "b": 2}) == content({"b": 2, "a": 1}), content(1) == content(1.0)
    (True, False)
    """
    kind = type(value)
    if kind in ATOMS or (kind in _SEQUENCES and _FLAT.issuperset(map(type, value))):
        data = marshal.dumps(value, _MARSHAL)
        return data if len(data) <= SIZE else b"*" + blake2b(data, digest_size=SIZE).digest()
    return b"#" + _digest(value, Mode(known))


def contents_of_atoms(values: Sequence[Any]) -> list[bytes] | None:
    """Return the contents of many values at once, if they are numbers and texts; else `None`.

    >>> contents_of_atoms([1, "a"]) == [content(1), content("a")], contents_of_atoms([1, []])
    (True, None)
    """
    if not ATOMS.issuperset(map(type, values)):
        return None
    dumps = marshal.dumps
    found = [dumps(value, _MARSHAL) for value in values]
    if len(max(found, key=len, default=b"")) <= SIZE:
        return found
    return [data if len(data) <= SIZE else b"*" + blake2b(data, digest_size=SIZE).digest() for data in found]


def code_digest(part: Any, known: Known | None = None) -> bytes:
    """Return the hash of a function, or of a part of one; what does not pickle in it counts by its type."""
    return _digest(part, Mode(known, code=True))


class Mode(NamedTuple):
    """How much of a value counts.

    Attributes:
        known: As for `content`.
        code: It is part of a function: what does not pickle, and iterators, count by their type instead of being
            refused.
    """

    known: Known | None
    code: bool = False


def _digest(value: Any, mode: Mode) -> bytes:
    try:
        return _dumped(Canonical, value, mode)
    except _TOO_MUCH:
        pass
    except _TROUBLE as error:
        return _given_up(value, error, mode)
    try:
        return _dumped(_Memoized, value, mode)
    except _TROUBLE as error:
        return _given_up(value, error, mode)


def _dumped(kind: type[Canonical], value: Any, mode: Mode) -> bytes:
    sink = _Sink()
    kind(sink, mode).dump(value)
    return sink.hash.digest()


def _given_up(value: Any, error: BaseException, mode: Mode) -> bytes:
    if not mode.code:
        raise Unhashable(f"{type(error).__name__}: {error}") from error
    return blake2b(_type_name(type(value)).encode(), digest_size=SIZE).digest()


class _Sink:
    """A file that is hashed and not kept."""

    def __init__(self) -> None:
        self.hash = blake2b(digest_size=SIZE)
        self._size = 0

    def write(self, data: Any) -> None:
        self._size += len(data)
        if self._size > _MOST:
            raise OverflowError("too large to be hashed without a memo")
        self.hash.update(data)


class Canonical(pickle.Pickler):
    """Writes the canonical form.

    What stands in the place of an object is a persistent id: a tuple of plain data and further objects, written alike.

    Args:
        file: Where it goes.
        mode: How much counts.
    """

    def __init__(self, file: Any, mode: Mode) -> None:
        """Write without a memo."""
        super().__init__(file, 5)
        self.fast = True
        self.mode = mode
        self._seen: dict[int, tuple[int, object]] = {}

    def persistent_id(self, obj: Any) -> Any:
        """Return what stands for an object; `None` if its pickle does."""
        handler = _HANDLERS[type(obj)]
        return None if handler is None else handler(self, obj)

    def reducer_override(self, obj: Any) -> Any:
        """Reduce as pickle does; in code, by the type alone what does not reduce."""
        if not self.mode.code:
            return NotImplemented
        try:
            if hasattr(type(obj), "__next__"):
                raise TypeError("its place changes with each use")
            reduce = copyreg.dispatch_table.get(type(obj))
            reduced = reduce(obj) if reduce else obj.__reduce_ex__(5)
        except _TROUBLE:
            return _opaque, (_type_name(type(obj)),)
        return NotImplemented if isinstance(reduced, str) else reduced

    def again(self, obj: object) -> tuple[str, int] | None:
        """Return the number of an object that was written before; a new one gets a number and is kept alive."""
        known = self._seen.get(id(obj))
        if known is None:
            self._seen[id(obj)] = (len(self._seen), obj)
            return None
        return "again", known[0]

    def digest(self, part: Any) -> bytes:
        """Return the hash of a part on its own."""
        return _dumped(Canonical, part, self.mode)


class _Memoized(Canonical):
    """Writes what has cycles: with a memo, so equal values differ if they share their parts differently."""

    def __init__(self, file: Any, mode: Mode) -> None:
        super().__init__(file, mode)
        self.fast = False

    def persistent_id(self, obj: Any) -> Any:
        again = self.again(obj) if type(obj) is dict else None
        return again or super().persistent_id(obj)


def _opaque(name: str) -> None:
    """Stands for what does not pickle, in a form that nobody loads."""


def _type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


# ---- functions and classes -------------------------------------------------------------------------------------------


def _of_function(canonical: Canonical, obj: FunctionType) -> Any:
    name = code.installed_name(obj)
    if name is not None:
        return "named", name
    if not canonical.mode.code:
        return "function", _known_digest(obj, canonical.mode.known)
    return canonical.again(obj) or ("function", list(code.parts_of(obj, follow=canonical.mode.known is not None)))


def _of_class(canonical: Canonical, obj: type) -> Any:
    name = code.installed_name(obj)
    if name is not None:
        return "named", name
    if not canonical.mode.code:
        return "class", _known_digest(obj, canonical.mode.known)
    follow = canonical.mode.known is not None
    return canonical.again(obj) or ("class", _type_name(obj), list(code.parts_of_class(obj, follow=follow)))


def _known_digest(obj: Any, known: Known | None) -> bytes:
    """Return the hash of a function or class that stands in a value, from memory where it is known."""
    if known is None:
        if obj not in _shallow:
            _shallow[obj] = code_digest(obj)
        return _shallow[obj]
    if id(obj) not in known:
        known[id(obj)] = (obj, code_digest(obj, known))
    return known[id(obj)][1]


def _of_callable(_: Canonical, obj: Any) -> Any:
    """Write what goes around a function: methods, partials, what a decorator put in its place."""
    return code.unwrapped(obj)


# ---- what needs more than its pickle ---------------------------------------------------------------------------------


def _of_dict(canonical: Canonical, obj: dict[Any, Any]) -> Any:
    if len(obj) > 1 and set(map(type, obj)) not in _SORTABLE:
        return "dict", _by_digest(canonical, obj.items())
    return "dict", [each for key in sorted(obj) for each in (key, obj[key])]


def _of_set(canonical: Canonical, obj: Iterable[Any]) -> Any:
    return type(obj).__name__, _sorted(canonical, obj)


def _sorted(canonical: Canonical, obj: Iterable[Any]) -> list[Any]:
    return sorted(obj) if set(map(type, obj)) in _SORTABLE else _by_digest(canonical, obj)


def _by_digest(canonical: Canonical, parts: Iterable[Any]) -> list[bytes]:
    return sorted(canonical.digest(part) for part in parts)


def _of_sequence(_: Canonical, obj: Any) -> Any:
    """Write long sequences of numbers and texts without a look at each."""
    if len(obj) < _MANY or not _FLAT.issuperset(map(type, obj)):
        return None
    return type(obj).__name__, "flat", _flat_digest(obj)


def _flat_digest(obj: Any) -> bytes:
    file = io.BytesIO()
    pickler = pickle.Pickler(file, 5)
    pickler.fast = True
    pickler.dump(obj)
    return blake2b(file.getbuffer(), digest_size=SIZE).digest()


def _of_dict_subclass(canonical: Canonical, obj: Any) -> Any:
    """Write what has the order of its keys by chance; what pickles in a way of its own does so here."""
    if type(obj).__reduce__ is _REDUCES_COUNTER:  # it leaves out what a subclass keeps
        return "counter", type(obj), _of_dict(canonical, dict(obj)), object.__getstate__(obj)
    reduced = obj.__reduce_ex__(5)
    if isinstance(reduced, str) or len(reduced) < 5 or reduced[4] is None:  # noqa: PLR2004  the items of a dict
        return None
    return "dict of", reduced[:4], _of_dict(canonical, dict(reduced[4])), reduced[5:]


def _of_set_subclass(canonical: Canonical, obj: Any) -> Any:
    if type(obj).__reduce__ not in _REDUCES_SET:
        return None
    return "set of", type(obj), _sorted(canonical, obj), obj.__reduce__()[2:]


_REDUCES_COUNTER: Any = Counter.__reduce__
_REDUCES_SET: tuple[Any, ...] = (set.__reduce__, frozenset.__reduce__)


def _of_mapping_proxy(_: Canonical, obj: Any) -> Any:
    return "view", obj.copy()


def _of_memory(_: Canonical, obj: Any) -> Any:
    view = memoryview(obj)
    return type(obj).__name__, view.format, view.shape, view.readonly, view.tobytes()


def _of_exception(_: Canonical, obj: BaseException) -> Any:
    """Write what its pickle leaves out: the exceptions that it came from."""
    others = obj.__cause__, obj.__context__
    if others[0] is None is others[1]:
        return None
    return ("exception", obj.__reduce_ex__(5), others, obj.__suppress_context__)


def _of_module(_: Canonical, obj: ModuleType) -> Any:
    return "module", obj.__name__


def _of_code(_: Canonical, obj: CodeType) -> Any:
    return "code", bytecode.plain(obj)


class _Handlers(dict[type, "Handler | None"]):
    """The handler of each type; those of types that come up are found and kept, but for the user's own."""

    def __missing__(self, kind: type) -> Handler | None:
        handler = arrays.handler_of(kind, _flat_digest) or _handler_of(kind)
        if not is_written_here(kind.__module__):
            self[kind] = handler
        return handler


def _handler_of(kind: type) -> Handler | None:
    for base, handler in _BASES:
        if issubclass(kind, base):
            return handler
    return _of_callable if callable(getattr(kind, "__call__", None)) else None  # noqa: B004  of the type


_BASES: tuple[tuple[Any, Handler | None], ...] = (
    (type, _of_class),
    (ModuleType, _of_module),
    (OrderedDict, None),
    (dict, _of_dict_subclass),
    ((set, frozenset), _of_set_subclass),
    (BaseException, _of_exception),
)
_KNOWN: dict[Any, Handler | None] = {
    **dict.fromkeys(_FLAT),
    **dict.fromkeys((list, tuple), _of_sequence),
    **dict.fromkeys((set, frozenset), _of_set),
    **dict.fromkeys((type, EnumType), _of_class),
    **dict.fromkeys((MethodType, partial), _of_callable),
    dict: _of_dict,
    MappingProxyType: _of_mapping_proxy,
    **dict.fromkeys((memoryview, pickle.PickleBuffer), _of_memory),
    CodeType: _of_code,
    FunctionType: _of_function,
}
_HANDLERS = _Handlers(_KNOWN)
