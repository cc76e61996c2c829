"""Values as bytes: encoded for a run, as process workers send them, and packed with a checksum for files.

```
object ──encoded()──▶ number, string, pickle ──packed()──▶ SerializedValue(kind, data)
```

A pickle is stored as it is, so that large ones are not copied; other values, and the parts of several outputs, are
stored by marshal. The decoder of a run is kept by its result; it has no reference to the run, so that no cycle keeps
large values alive.
"""

from __future__ import annotations

import functools
import io
import marshal
import pickle
from collections import ChainMap
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from flowyml._containers import NamedTuple
from flowyml.errors import SerializationError, ValueLoadError
from flowyml.hashing import blake2b
from flowyml.store.arenas import ArenaValue
from flowyml.store.reduction import holds_exceptions, reduce_exception, reduce_view
from flowyml.store.value_store import MultiOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.planning.item_index import ItemIndex
    from flowyml.planning.plan import Plan


def decoder(plan: Plan, item_index: ItemIndex) -> Callable[[Any, int], Any]:
    """Return a function that loads the encoded value of an item, and names the step if that fails."""
    return functools.partial(_decode, plan, item_index)


def _decode(plan: Plan, item_index: ItemIndex, raw: Any, item: int) -> Any:
    try:
        return decoded(raw)
    except (Exception, SystemExit, GeneratorExit) as error:
        producer = f"step {plan.item_name(*item_index.place_of(item))!r}"
        raise ValueLoadError(producer, f"{type(error).__name__}: {error}") from error


SIZE = 16
"""Bytes of a checksum."""

ATOMS = frozenset([type(None), bool, int, float, str])
_TROUBLE = (Exception, SystemExit, GeneratorExit)
_GLOBAL = b"\x93"  # opcode STACK_GLOBAL: without it no class is named in the bytes
_PLAIN, _PICKLE = b"m", b"p"
PARTS = b"o"
"""The kind of the values of several outputs."""

_VERSION = 2
_KINDS = {"tuple": tuple, "list": list}


class SerializedValue(NamedTuple):
    """A value in a form for files.

    Attributes:
        kind: How to unpack it, one byte.
        data: The bytes.
    """

    kind: bytes
    data: bytes

    @property
    def checksum(self) -> bytes:
        """A hash of kind and data."""
        return blake2b(self.data, digest_size=SIZE, person=self.kind).digest()


def encoded(value: Any) -> Any:
    """Return an object as a process worker would send it: a number or string as it is, any other object pickled.

    Raises:
        SerializationError: If it cannot be pickled.

    >>> encoded(3), pickle.loads(encoded([1]))
    (3, [1])
    """
    if type(value) in ATOMS:
        return value
    if type(value) is MultiOutput:
        return MultiOutput(tuple(map(encoded, value.parts)), value.kind, value.names)
    try:
        data = pickle.dumps(value, 5)
    except _TROUBLE as error:
        return _by_value(value, error)
    return _by_value(value, None) if _GLOBAL in data and holds_exceptions(value) else data


def _by_value(value: Any, error: BaseException | None) -> bytes:
    """Pickle by value, for instances of local classes and functions of a script, and with reduced exceptions."""
    file = io.BytesIO()
    try:
        _pickler()(file, 5).dump(value)
    except _TROUBLE as other:
        error = error or other
        raise SerializationError("the value", f"{type(error).__name__}: {error}") from error
    return file.getvalue()


@cache
def _pickler() -> Any:
    """Return cloudpickle's pickler without support for open files, which it would replace by their content."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        dispatch_table: ClassVar[Any] = ChainMap(
            {io.TextIOWrapper: _refuse, memoryview: reduce_view}, cloudpickle.Pickler.dispatch_table
        )

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, BaseException) and (reduced := reduce_exception(obj)) is not NotImplemented:
                return reduced
            return super().reducer_override(obj)

    return Pickler


def _refuse(file: io.TextIOWrapper) -> Any:
    raise pickle.PicklingError(f"cannot pickle a file ({file.name!r})")


def packed(raw: Any) -> SerializedValue:
    """Pack an encoded value.

    Raises:
        ValueError: If it is too large (parts of 2 GiB).

    >>> unpacked(packed("text"))
    'text'
    """
    if type(raw) is bytes:
        return SerializedValue(_PICKLE, raw)
    if type(raw) is ArenaValue:
        return SerializedValue(_PICKLE, raw.inline())
    if type(raw) is MultiOutput:
        kind = raw.kind.__name__ if isinstance(raw.kind, type) else tuple(raw.kind)
        parts = tuple(part.inline() if type(part) is ArenaValue else part for part in raw.parts)
        return SerializedValue(PARTS, marshal.dumps((parts, kind, raw.names), _VERSION))
    return SerializedValue(_PLAIN, marshal.dumps(raw, _VERSION))


def unpacked(value: SerializedValue) -> Any:
    """Return the encoded value; the caller has compared its checksum."""
    kind, data = value
    if kind == _PICKLE:
        return data
    raw = marshal.loads(data)  # noqa: S302  it has its checksum
    if kind == PARTS:
        parts, what, names = raw
        return MultiOutput(parts, _KINDS.get(what, what) if isinstance(what, str) else what, names)
    return raw


def decoded_all(raws: list[Any]) -> list[Any]:
    """Return the objects of encoded values; may raise any exception.

    >>> decoded_all([3, encoded([1])])
    [3, [1]]
    """
    return [pickle.loads(raw) if type(raw) is bytes else decoded(raw) for raw in raws]


def decoded(raw: Any) -> Any:
    """Return the object of an encoded value; may raise any exception."""
    if type(raw) is bytes:
        return pickle.loads(raw)
    if type(raw) is ArenaValue:
        return raw.load()
    if type(raw) is MultiOutput:
        return MultiOutput(tuple(map(decoded, raw.parts)), raw.kind, raw.names)
    return raw
