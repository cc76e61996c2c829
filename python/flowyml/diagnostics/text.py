"""Words of messages: near matches, counts, long lists made short.

It knows nothing of steps or pipelines; everything here takes names and returns text.

Values in a few words, for messages about something else.

No code of the user is called: what an object of a foreign class is like, its class says, and that it holds something,
its length or shape. Everything is bounded, and nothing raises.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


LONGEST: Final = 100  # characters
_LONGEST_TEXT: Final = 60
_MOST_SHOWN: Final = 4  # of a list
_DEEPEST: Final = 2
_LARGEST_INT: Final = 128  # bits
_BRACKETS: Final[dict[type, str]] = {list: "[]", tuple: "()", set: "{}", frozenset: "{}", dict: "{}"}
# Modules of classes whose repr() is short and says it all.
_TELLING: Final = frozenset({"datetime", "decimal", "fractions", "ipaddress", "pathlib", "uuid", "zoneinfo"})
_ARRAYS: Final = frozenset({"cupy", "jax", "jaxlib", "numpy", "pandas", "polars", "scipy", "torch", "xarray"})


def short_repr(value: Any) -> str:
    """Return a value in at most a hundred characters.

    >>> short_repr([1, "two", object(), 4, 5]), short_repr({"rows": range(3)}), short_repr("x" * 1000)[-9:]
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


# difflib compares pairwise, at some 40 us a pair: among many names only the likeliest are compared.
_MOST_COMPARED = 1_000
_MOST_LOOKED_AT = 100_000
# What a glob has in common with a name is what stands before its first wildcard, if that says anything.
_WILDCARD = r"[*?\[]"
_SHORTEST_BEGIN = 2
# A misspelled name differs by at most so many letters from the intended one, and has at least this similarity to it.
_MOST_LETTERS = 2
_MISSPELLED = 0.85
MAX_PROBLEMS_SHOWN = 20
"""How many problems of one kind are put into words."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" with the closest known names, or "" if none is close.

    >>> did_you_mean("lerning_rate", ["learning_rate", "epochs"])
    "; did you mean 'learning_rate'?"
    """
    close = closest_names(name, known)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def is_misspelling(name: str, other: str) -> bool:
    """Return True if one name is most likely a misspelling of the other, and not another word.

    >>> (
    ...     is_misspelling("treshold", "threshold"),
    ...     is_misspelling("plot", "plots"),
    ...     is_misspelling("part_1", "part_2"),
    ...     is_misspelling("a", "a"),
    ... )
    (True, False, False, False)
    """
    if abs(len(name) - len(other)) > _MOST_LETTERS or len(set(name) ^ set(other)) > _MOST_LETTERS:
        return False
    if name.startswith(other) or other.startswith(name) or re.sub(r"\d", "", name) == re.sub(r"\d", "", other):
        return False
    return bool(closest_names(name, [other], cutoff=_MISSPELLED))


def closest_names(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Return the one or two known names that are like a misspelled one, the nearest first.

    >>> closest_names("laod", ["load", "save", "load"])
    ['load']
    >>> closest_names("X", ["x", "y"])
    ['x']
    >>> closest_names("chnk_*", ["chunk_of_the_first_file", "chunk_2"]), closest_names("etl.*", ["elt.load_everything"])
    (['chunk_2'], ['elt.load_everything'])
    """
    pool = list(dict.fromkeys(islice(known, _MOST_LOOKED_AT)))
    if len(pool) > _MOST_COMPARED:
        from heapq import nsmallest

        pool = nsmallest(_MOST_COMPARED, pool, key=lambda other: _unlike(name, other))
    from difflib import get_close_matches  # only where something is misspelled

    same = [other for other in pool if other != name and other.casefold() == name.casefold()]
    return same[:2] or get_close_matches(name, pool, n=2, cutoff=cutoff) or _like_the_beginning(name, pool)


def _like_the_beginning(pattern: str, pool: Sequence[str]) -> list[str]:
    """Return the first name that begins nearly as a glob does; nothing for what is no glob."""
    begin = re.split(_WILDCARD, pattern, maxsplit=1)[0]
    if len(begin) < _SHORTEST_BEGIN or begin == pattern:
        return []
    from difflib import get_close_matches

    heads = {other[: len(begin)]: other for other in reversed(pool)}
    return [heads[head] for head in get_close_matches(begin, heads, n=1, cutoff=0.6)]


def _unlike(name: str, other: str) -> int:
    """Guess quickly how much two names differ: by length, beginning and end."""
    return abs(len(name) - len(other)) + 4 * (name[:2] != other[:2]) + 4 * (name[-2:] != other[-2:])


def unknown_keyword_message(where: str, unknown: Iterable[str], known: Sequence[str]) -> str:
    """Return the text of the `TypeError` for keywords that nobody knows.

    >>> unknown_keyword_message("step()", ["nmae"], ["name", "inputs"])
    "step() got an unknown keyword 'nmae'; did you mean 'name'?"
    """
    name = next(iter(unknown))
    hint = did_you_mean(name, known) or f"; known are {', '.join(known)}"
    return f"{where} got an unknown keyword {name!r}{hint}"


def pluralize(count: int, noun: str) -> str:
    """Return a number with its noun.

    >>> pluralize(1, "step"), pluralize(1_000, "item")
    ('1 step', '1,000 items')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def and_others(count: int) -> str:
    """Return how many more a sentence about one is about; "" for none.

    >>> and_others(1), and_others(39_980)
    (', and 1 other like it', ', and 39,980 others like it')
    """
    return f", and {count:,} other{'s' * (count > 1)} like it" if count else ""


def truncate(text: str, most: int = 300) -> str:
    """Return a line of at most so many characters.

    >>> truncate("a long line", 9)
    'a long...'
    """
    return text if len(text) <= most else f"{text[: most - 3]}..."


def join_names(names: Iterable[str], most: int = 5) -> str:
    """Return names in quotes, the first few of them.

    >>> join_names("abcdefg")
    "'a', 'b', 'c', 'd', 'e' and 2 more"
    """
    names = list(names)
    text = ", ".join(map(repr, names[:most]))
    return text if len(names) <= most else f"{text} and {len(names) - most} more"
