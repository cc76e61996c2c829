"""Base types of containers: named tuples that are cheap to create, and sequences that compare like lists.

`typing.NamedTuple` compiles the hint of each field if hints are strings, as in all modules here, and so takes three
times as long to create a class. The package has some seventy such classes, eighteen of them in `from flowyml import *`.
Type checkers see `typing.NamedTuple`; at run time a class is made by `collections.namedtuple`, with the methods,
defaults and hints of its body.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from flowyml.diagnostics.tracebacks import hides_internal_frames

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from collections import namedtuple

    # Names in a class body that the named tuple defines itself.
    _OWN = frozenset(["__qualname__", "__module__", "__annotations__", "__dict__", "__weakref__", "__classcell__"])

    class _NamedTupleMeta(type):
        """Makes a named tuple of a class body."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            hints = body["__annotations__"]
            fields = tuple(hints)
            defaults = [body[field] for field in fields if field in body]
            named_tuple = namedtuple(name, fields, defaults=defaults, module=body["__module__"])  # noqa: PYI024  see above
            named_tuple.__annotations__, named_tuple.__qualname__ = hints, body["__qualname__"]
            for key, value in body.items():
                if key not in _OWN and key not in hints:
                    setattr(named_tuple, key, value)
            return named_tuple

    class NamedTuple(metaclass=_NamedTupleMeta):
        """Base in a class statement; the resulting class does not inherit from it."""


R_co = TypeVar("R_co", covariant=True)


class LazySequence(Sequence[R_co]):
    """A sequence that equals any other sequence of equal values except strings; unhashable like a list."""

    __slots__ = ()

    @hides_internal_frames
    def __eq__(self, other: object) -> bool:
        """Compare as a list does."""
        if not isinstance(other, Sequence) or isinstance(other, (str, bytes)):
            return NotImplemented
        return len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


__all__ = ["LazySequence", "NamedTuple"]
