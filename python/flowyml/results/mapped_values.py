"""The value of a mapped step: a lazy list over the run's values."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from flowyml._containers import LazySequence
from flowyml.diagnostics.text import pluralize
from flowyml.diagnostics.tracebacks import hide_internal_frames

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flowyml.results.record import RunRecord


# How many values are loaded at once, by somebody who goes through them, in the end: one by one they take twice as long.
_AT_ONCE = 256


class MappedValues(LazySequence[Any]):
    """The values of a mapped step in item order, loaded one by one; reading a failed item raises.

    Compares equal to any sequence of equal values. Read from a `PipelineResult`, never made by hand.
    """

    __slots__ = ("_items", "_node", "_record")

    def __init__(self, record: RunRecord, node: int) -> None:
        self._record = record
        self._node = node
        self._items = record.items_of(node)

    def __len__(self) -> int:
        """Return how many items there are."""
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        """Return one value, or a list of them for a slice.

        Raises:
            IndexError: If there is no such item.
            StepNotRunError: If an item has none, from its exception.
        """
        try:
            if isinstance(index, slice):
                return list(map(self.__getitem__, range(*index.indices(len(self)))))
            try:
                item = self._items[index]
            except (IndexError, TypeError) as error:
                raise self._refusal(index, error) from None
            return self._record.value(item)
        except BaseException as error:  # the decorator's call costs as much as the value of a small item
            hide_internal_frames(error)
            raise

    def _refusal(self, index: object, error: Exception) -> Exception:
        if isinstance(error, IndexError):
            return IndexError(f"{self._name!r} has {pluralize(len(self), 'item')}, there is no {index}")
        return TypeError(f"items of {self._name!r} are asked for by number or slice, not by {index!r:.60}")

    def __iter__(self) -> Iterator[Any]:
        """Go through the values; the first item that has none raises as `values[i]` does.

        Some are loaded at once, more and more: one, then two, then four.
        """
        return itertools.chain.from_iterable(self._pieces())

    def _pieces(self) -> Iterator[Iterable[Any]]:
        values, has = self._record.values, self._record.has_value
        start, end = self._items.start, self._items.stop
        count, first = 1, start
        while first < end:
            items = range(first, min(first + count, end))
            found = values.read_all(items) if all(has[first : items.stop]) else None
            # Not a generator: its frame would be part of the traceback of what an item raises.
            yield map(self.__getitem__, range(first - start, items.stop - start)) if found is None else found
            first, count = items.stop, min(2 * count, _AT_ONCE)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a list of all values."""
        return list, (list(self),)

    def __repr__(self) -> str:
        """Show the size; values are not loaded for it."""
        return f"<values of {self._name!r}: {pluralize(len(self), 'item')}>"

    @property
    def _name(self) -> str:
        return self._record.plan.names[self._node]
