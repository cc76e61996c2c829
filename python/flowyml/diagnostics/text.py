"""Parts of messages: near matches, counts, shortened lists, strings and values.

`short_repr` calls no code of the user: an object of a foreign class is shown by its class, and a container with its
length or shape. Everything is bounded, and nothing raises. The module knows nothing of steps or pipelines.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


MAX_LENGTH: Final = 100  # characters
_MAX_STRING: Final = 60
_MAX_ITEMS: Final = 4
_MAX_DEPTH: Final = 2
_MAX_INT_BITS: Final = 128
_BRACKETS: Final[dict[type, str]] = {list: "[]", tuple: "()", set: "{}", frozenset: "{}", dict: "{}"}
# Modules of classes whose repr() is short and complete.
_TRUSTED_REPR: Final = frozenset({"datetime", "decimal", "fractions", "ipaddress", "pathlib", "uuid", "zoneinfo"})
_ARRAYS: Final = frozenset({"cupy", "jax", "jaxlib", "numpy", "pandas", "polars", "scipy", "torch", "xarray"})


def short_repr(value: Any) -> str:
    """Return a description of a value in at most a hundred characters.

    >>> short_repr([1, "two", object(), 4, 5]), short_repr({"rows": range(3)}), short_repr("x" * 1000)[-9:]
    ("[1, 'two', <object>, 4, ...]", "{'rows': range(0, 3)}", "xxxxx'...")
    """
    try:
        text = _repr(value, 0)
    except Exception:  # noqa: BLE001  any defect of the value's class
        text = f"<{type(value).__name__}>"
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."


def _repr(value: Any, depth: int) -> str:
    kind: Any = type(value)
    if kind in _BRACKETS:
        return _container_repr(value, kind, depth)
    if kind in {str, bytes}:
        return repr(value) if len(value) <= _MAX_STRING else f"{value[:_MAX_STRING]!r}..."
    if kind is int and value.bit_length() > _MAX_INT_BITS:
        return f"<int of {value.bit_length():,} bits>"
    home = kind.__module__.partition(".")[0]
    if value is None or value is ... or kind in {bool, int, float, complex, range, slice} or home in _TRUSTED_REPR:
        return repr(value)
    return _object_repr(value, kind, home)


def _container_repr(value: Any, kind: type, depth: int) -> str:
    opening, closing = _BRACKETS[kind][0], _BRACKETS[kind][1]
    if not value:
        return repr(value)
    if depth == _MAX_DEPTH:
        return f"{opening}...{closing}"
    parts: Iterable[str]
    if kind is dict:
        pairs = islice(value.items(), _MAX_ITEMS)
        parts = [f"{_repr(key, depth + 1)}: {_repr(item, depth + 1)}" for key, item in pairs]
    else:
        parts = [_repr(item, depth + 1) for item in islice(value, _MAX_ITEMS)]
    more = ", ..." if len(value) > _MAX_ITEMS else "," if kind is tuple and len(value) == 1 else ""
    return f"{opening}{', '.join(parts)}{more}{closing}"


def _object_repr(value: Any, kind: Any, home: str) -> str:
    """Describe an object by its class, without calling its methods."""
    name = kind.__name__
    if home in _ARRAYS:
        shape = getattr(value, "shape", None)
        return f"<{name} of shape {tuple(shape)}>" if shape else repr(value).partition("\n")[0]
    if type(kind).__module__ == "enum":
        return f"{name}.{value._name_}"
    if kind.__module__ == "builtins" and isinstance(getattr(value, "__qualname__", None), str):
        return f"<{name} {value.__qualname__}>"
    base: Any = next((cls for cls in kind.__mro__ if cls in _BRACKETS or cls in {str, bytes}), None)
    return f"<{name}>" if base is None else f"<{name} of {base.__len__(value)}>"


# difflib takes some 40 us a pair, so among many names only the most similar by a cheap measure are compared.
_MAX_COMPARED = 1_000
_MAX_CONSIDERED = 100_000
# A glob is compared by its part before the first wildcard, if that is long enough.
_WILDCARD = r"[*?\[]"
_MIN_PREFIX = 2
# A misspelled name differs from the intended one by at most so many letters, and has at least this similarity.
_MAX_LETTERS = 2
_MIN_SIMILARITY = 0.85
MAX_PROBLEMS_SHOWN = 20
"""Problems of one kind that a message lists."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" with the closest known names, or "" if none is close.

    >>> did_you_mean("lerning_rate", ["learning_rate", "epochs"])
    "; did you mean 'learning_rate'?"
    """
    close = closest_names(name, known)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def is_misspelling(name: str, other: str) -> bool:
    """Return True if one name is most likely a misspelling of the other, not a different word.

    >>> is_misspelling("treshold", "threshold"), is_misspelling("plot", "plots"), is_misspelling("part_1", "part_2")
    (True, False, False)
    >>> is_misspelling("a", "a")
    False
    """
    if abs(len(name) - len(other)) > _MAX_LETTERS or len(set(name) ^ set(other)) > _MAX_LETTERS:
        return False
    if name.startswith(other) or other.startswith(name) or re.sub(r"\d", "", name) == re.sub(r"\d", "", other):
        return False
    return bool(closest_names(name, [other], cutoff=_MIN_SIMILARITY))


def closest_names(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Return the one or two known names that are most similar to a misspelled one, the closest first.

    >>> closest_names("laod", ["load", "save", "load"])
    ['load']
    >>> closest_names("X", ["x", "y"])
    ['x']
    >>> closest_names("chnk_*", ["chunk_of_the_first_file", "chunk_2"]), closest_names("etl.*", ["elt.load_everything"])
    (['chunk_2'], ['elt.load_everything'])
    """
    pool = list(dict.fromkeys(islice(known, _MAX_CONSIDERED)))
    if len(pool) > _MAX_COMPARED:
        from heapq import nsmallest

        pool = nsmallest(_MAX_COMPARED, pool, key=lambda other: _rough_distance(name, other))
    from difflib import get_close_matches  # slow to import, and needed only for errors

    same = [other for other in pool if other != name and other.casefold() == name.casefold()]
    return same[:2] or get_close_matches(name, pool, n=2, cutoff=cutoff) or _closest_prefix(name, pool)


def _closest_prefix(pattern: str, pool: Sequence[str]) -> list[str]:
    """Return the first name whose beginning is similar to that of a glob; nothing for other names."""
    begin = re.split(_WILDCARD, pattern, maxsplit=1)[0]
    if len(begin) < _MIN_PREFIX or begin == pattern:
        return []
    from difflib import get_close_matches

    heads = {other[: len(begin)]: other for other in reversed(pool)}
    return [heads[head] for head in get_close_matches(begin, heads, n=1, cutoff=0.6)]


def _rough_distance(name: str, other: str) -> int:
    """Estimate quickly how much two names differ: by length, beginning and end."""
    return abs(len(name) - len(other)) + 4 * (name[:2] != other[:2]) + 4 * (name[-2:] != other[-2:])


def unknown_keyword_message(where: str, unknown: Iterable[str], known: Sequence[str]) -> str:
    """Return the message of the `TypeError` for an unknown keyword.

    >>> unknown_keyword_message("step()", ["nmae"], ["name", "inputs"])
    "step() got an unknown keyword 'nmae'; did you mean 'name'?"
    """
    name = next(iter(unknown))
    hint = did_you_mean(name, known) or f"; known are {', '.join(known)}"
    return f"{where} got an unknown keyword {name!r}{hint}"


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> pluralize(1, "step"), pluralize(1_000, "item")
    ('1 step', '1,000 items')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def and_others(count: int) -> str:
    """Return the end of a sentence that stands for `count` others; "" for none.

    >>> and_others(1), and_others(39_980)
    (', and 1 other like it', ', and 39,980 others like it')
    """
    return f", and {count:,} other{'s' * (count > 1)} like it" if count else ""


def truncate(text: str, limit: int = 300) -> str:
    """Shorten a line to a maximum length.

    >>> truncate("a long line", 9)
    'a long...'
    """
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def join_names(names: Iterable[str], limit: int = 5) -> str:
    """Return the first names in quotes, and the number of the others.

    >>> join_names("abcdefg")
    "'a', 'b', 'c', 'd', 'e' and 2 more"
    """
    names = list(names)
    text = ", ".join(map(repr, names[:limit]))
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"
