"""NamedTuple: classes of named tuples, made in a third of the time that `typing` takes.

That one looks at every hint of every field: where hints are text, as in all modules here, it compiles each of them. The
package has some seventy such classes, eighteen of them in `from flowyml import *`. For type checkers this is that of
`typing`; at run time a class is what `collections.namedtuple` makes, with the methods, defaults and hints of its body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from collections import namedtuple

    # What a class body has that is the tuple's own.
    _OWN = frozenset(["__qualname__", "__module__", "__annotations__", "__dict__", "__weakref__", "__classcell__"])

    class _Making(type):
        """Makes a named tuple of a class body."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            hints = body["__annotations__"]
            fields = tuple(hints)
            defaults = [body[field] for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])  # noqa: PYI024  see above
            made.__annotations__, made.__qualname__ = hints, body["__qualname__"]
            for key, value in body.items():
                if key not in _OWN and key not in hints:
                    setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Making):
        """The base of named tuples, which is in the place of their class body alone."""


__all__ = ["NamedTuple"]
