"""Sequences of values that are loaded one by one, and compare as lists do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from flowyml.messages.frames import own_frames_hidden

R_co = TypeVar("R_co", covariant=True)


class ListLike(Sequence[R_co]):
    """Equal to any sequence of equal values but a text; like a list it has no hash."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        """Compare as a list does."""
        if not isinstance(other, Sequence) or isinstance(other, (str, bytes)):
            return NotImplemented
        with own_frames_hidden:
            return len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]
