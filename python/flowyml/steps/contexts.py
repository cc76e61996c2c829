"""Context: named values that any step may ask for by parameter name.

A context is a plain mapping with attribute access. Which parameter gets which value is decided in `planning/wiring.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowyml.messages.frames import hides_internal_frames
from flowyml.messages.words import nearest


class Context(Mapping[str, Any]):
    """Named values for the steps of a pipeline; `context` is the same by a shorter name.

    Args:
        **values: The values by name.

    >>> ctx = Context(epochs=3, rate=0.1)
    >>> ctx.epochs, ctx["rate"], "rate" in ctx, ctx.get("seed", 0)
    (3, 0.1, True, 0)
    """

    __slots__ = ("_values",)

    def __init__(self, /, **values: Any) -> None:
        self._values = values

    @hides_internal_frames
    def __getitem__(self, name: str) -> Any:
        """Return a value.

        Raises:
            KeyError: If there is none of that name, with near matches.
        """
        try:
            return self._values[name]
        except KeyError:
            raise KeyError(self._missing(name)) from None

    @hides_internal_frames
    def __getattr__(self, name: str) -> Any:
        """Return a value as an attribute."""
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(self._missing(name)) from None

    def _missing(self, name: str) -> str:
        return f"the context has no value {name!r}{nearest(name, self._values)}"

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a value of that name."""
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        """Go through the names in the order in which they were given."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._values)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the values."""
        return _rebuild, (self._values,)

    def __repr__(self) -> str:
        """Show the values."""
        return f"Context({', '.join(f'{name}={value!r}' for name, value in self._values.items())})"

    def to_dict(self) -> dict[str, Any]:
        """Return a copy as a plain dict."""
        return dict(self._values)

    def update(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set values in this context."""
        self._values.update(values or {}, **more)

    def inherit(self, /, **values: Any) -> Context:
        """Return a new context with these values over the present ones.

        >>> Context(a=1, b=2).inherit(b=3).to_dict()
        {'a': 1, 'b': 3}
        """
        return Context(**{**self._values, **values})


def _rebuild(values: dict[str, Any]) -> Context:
    return Context(**values)


def context(**values: Any) -> Context:
    """Make a `Context` of named values.

    >>> context(batch_size=32)["batch_size"]
    32
    """
    return Context(**values)
