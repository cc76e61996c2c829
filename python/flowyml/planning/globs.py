"""Globs: the assets that match a pattern.

```
names, sorted ──bisect by the text before the first wildcard──┐
                                                              ├─▶ the fewer candidates ──regular expression──▶ assets
names reversed, sorted ──by the text after the last one───────┘
```

Names are sorted once, so a glob costs about as much as it matches: many steps that each read a few of many names do
not scan all of them. A pattern with wildcards at both ends does, once for all steps that read it.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Found: TypeAlias = "tuple[int, int | None]"
"""The producer of an asset: the id of the step, and which of its outputs (`None`: its whole return value)."""


def is_glob(name: str) -> bool:
    """Return True if an input is a pattern rather than a name."""
    return "*" in name or "?" in name or "[" in name


class GlobIndex:
    """Index of assets by name, for matching patterns.

    Args:
        assets: Names with their producers, in add order; an asset may have several names.
    """

    def __init__(self, assets: Iterable[tuple[str, Found]]) -> None:
        self._assets = list(assets)
        self._matches: dict[str, list[Found]] = {}

    def match(self, pattern: str) -> list[Found]:
        """Return the assets that match a pattern, in add order and each once."""
        if pattern not in self._matches:
            import fnmatch  # most pipelines have no glob

            fits = re.compile(fnmatch.translate(pattern)).match
            found = (self._assets[place] for place in self.candidates(pattern) if fits(self._assets[place][0]))
            self._matches[pattern] = list(dict.fromkeys(asset for _, asset in found))
        return self._matches[pattern]

    def candidates(self, pattern: str) -> Sequence[int]:
        """Return the positions of the assets that may match a pattern, in add order."""
        head, *_, tail = re.split(r"[*?\[\]]", pattern)
        ranges: list[list[int]] = [_beginning_with(text, *names) for text, names in self._sides(head, tail)]
        if not ranges:
            return range(len(self._assets))
        fewest: list[int] = min(ranges, key=len)
        return sorted(fewest)

    def _sides(self, head: str, tail: str) -> Iterable[tuple[str, tuple[list[str], list[int]]]]:
        if head:
            yield head, self._forwards
        if tail:
            yield tail[::-1], self._backwards

    @cached_property
    def _forwards(self) -> tuple[list[str], list[int]]:
        return _sorted([name for name, _ in self._assets])

    @cached_property
    def _backwards(self) -> tuple[list[str], list[int]]:
        return _sorted([name[::-1] for name, _ in self._assets])


def _sorted(names: list[str]) -> tuple[list[str], list[int]]:
    places = sorted(range(len(names)), key=names.__getitem__)
    return [names[place] for place in places], places


def _beginning_with(text: str, names: list[str], places: list[int]) -> list[int]:
    size = len(text)
    first = bisect_left(names, text)
    return places[first : bisect_right(names, text, lo=first, key=lambda name: name[:size])]
