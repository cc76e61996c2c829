"""Values in a few words, for messages about something else.

No code of the user is called: what an object of a foreign class is like, its class says, and that it holds something,
its length or shape. Everything is bounded, and nothing raises.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST: Final = 100  # characters
_LONGEST_TEXT: Final = 60
_MOST_SHOWN: Final = 4  # of a list
_DEEPEST: Final = 2
_LARGEST_INT: Final = 128  # bits
_BRACKETS: Final[dict[type, str]] = {list: "[]", tuple: "()", set: "{}", frozenset: "{}", dict: "{}"}
# Modules of classes whose repr() is short and says it all.
_TELLING: Final = frozenset({"datetime", "decimal", "fractions", "ipaddress", "pathlib", "uuid", "zoneinfo"})
_ARRAYS: Final = frozenset({"cupy", "jax", "jaxlib", "numpy", "pandas", "polars", "scipy", "torch", "xarray"})


def short(value: Any) -> str:
    """Return a value in at most a hundred characters.

    >>> short([1, "two", object(), 4, 5]), short({"rows": range(3)}), short("x" * 1000)[-9:]
    ("[1, 'two', <object>, 4, ...]", "{'rows': range(0, 3)}", "xxxxx'...")
    """
    try:
        text = _told(value, 0)
    except Exception:  # noqa: BLE001  whatever is the matter with the value
        text = f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _told(value: Any, depth: int) -> str:
    kind: Any = type(value)
    if kind in _BRACKETS:
        return _items(value, kind, depth)
    if kind in {str, bytes}:
        return repr(value) if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]!r}..."
    if kind is int and value.bit_length() > _LARGEST_INT:
        return f"<int of {value.bit_length():,} bits>"
    home = kind.__module__.partition(".")[0]
    if value is None or value is ... or kind in {bool, int, float, complex, range, slice} or home in _TELLING:
        return repr(value)
    return _class(value, kind, home)


def _items(value: Any, kind: type, depth: int) -> str:
    opening, closing = _BRACKETS[kind][0], _BRACKETS[kind][1]
    if not value:
        return repr(value)
    if depth == _DEEPEST:
        return f"{opening}...{closing}"
    parts: Iterable[str]
    if kind is dict:
        pairs = islice(value.items(), _MOST_SHOWN)
        parts = [f"{_told(key, depth + 1)}: {_told(each, depth + 1)}" for key, each in pairs]
    else:
        parts = [_told(each, depth + 1) for each in islice(value, _MOST_SHOWN)]
    more = ", ..." if len(value) > _MOST_SHOWN else "," if kind is tuple and len(value) == 1 else ""
    return f"{opening}{', '.join(parts)}{more}{closing}"


def _class(value: Any, kind: Any, home: str) -> str:
    """Show an object by its class, with what is known without asking it."""
    name = kind.__name__
    if home in _ARRAYS:
        shape = getattr(value, "shape", None)
        return f"<{name} of shape {tuple(shape)}>" if shape else repr(value).partition("\n")[0]
    if type(kind).__module__ == "enum":
        return f"{name}.{value._name_}"
    if kind.__module__ == "builtins" and isinstance(getattr(value, "__qualname__", None), str):
        return f"<{name} {value.__qualname__}>"
    base: Any = next((each for each in kind.__mro__ if each in _BRACKETS or each in {str, bytes}), None)
    return f"<{name}>" if base is None else f"<{name} of {base.__len__(value)}>"
