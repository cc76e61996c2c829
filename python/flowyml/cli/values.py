"""Values of `-c name=value`: what a text on the command line means.

| text | value |
| --- | --- |
| `3`, `-1`, `0x1f`, `2.5`, `1e-3` | a number |
| `true`, `false`, `null`, `none` in any case | `True`, `False`, `None` |
| `[1, 2]`, `{"a": 1}`, `(1, 2)`, `"007"`, `'x'` | as JSON, else as Python writes it |
| anything else: `abc`, `007`, `2026-01-31`, `1_000`, `yes` | the text itself |

Quotes make text of what would be something else: `-c 'id="3"'`.
"""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING, Any

from flowyml.cli.terminal import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_FRACTION = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]+")
_WORDS = {"true": True, "false": False, "null": None, "none": None}


def value_of(text: str) -> Any:
    """Return what a text means.

    >>> [value_of(text) for text in ("3", "1e-3", "TRUE", "null", "[1, 2]", '"3"', "007", "2026-01-31")]
    [3, 0.001, True, None, [1, 2], '3', '007', '2026-01-31']
    """
    if _NUMBER.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text[:1] in tuple("[{(\"'"):
        return _structure(text)
    return text


def _structure(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def assigned(option: str, pairs: Iterable[str]) -> dict[str, Any]:
    """Return the values of `name=value` pairs by name; the last one of a name wins.

    Raises:
        UsageError: If one has no name or no `=`.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name.strip():
            raise UsageError(f"{option} takes name=value, got {pair!r}")
        values[name.strip()] = value_of(text)
    return values
