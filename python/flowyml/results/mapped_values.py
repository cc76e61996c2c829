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


# An iteration loads chunks of up to this many values; one by one they take twice as long.
_MAX_CHUNK = 256


class MappedValues(LazySequence[Any]):
    """The values of a mapped step in item order, loaded one by one; reading a failed item raises.

    Compares equal to any sequence of equal values. It is read from a `PipelineResult` and has no public constructor.
    """

    __slots__ = ("_items", "_node", "_record")

    def __init__(self, record: RunRecord, node: int) -> None:
        self._record = record
        self._node = node
        self._items = record.items_of(node)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        """Return one value, or a list of values for a slice.

        Raises:
            IndexError: If there is no such item.
            StepNotRunError: If an item has no value, chained to the item's exception.
        """
        try:
            if isinstance(index, slice):
                return list(map(self.__getitem__, range(*index.indices(len(self)))))
            try:
                item = self._items[index]
            except (IndexError, TypeError) as error:
                raise self._refusal(index, error) from None
            return self._record.value(item)
        except BaseException as error:  # calling the decorator costs as much as a small value
            hide_internal_frames(error)
            raise

    def _refusal(self, index: object, error: Exception) -> Exception:
        if isinstance(error, IndexError):
            return IndexError(f"{self._name!r} has {pluralize(len(self), 'item')}, index {index} is out of range")
        return TypeError(f"items of {self._name!r}: indices must be integers or slices, not {index!r:.60}")

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values; the first item without a value raises as `values[i]` does.

        Chunks grow from one value to 256, so that the first value is available at once.
        """
        return itertools.chain.from_iterable(self._pieces())

    def _pieces(self) -> Iterator[Iterable[Any]]:
        values, has = self._record.values, self._record.has_value
        start, end = self._items.start, self._items.stop
        count, first = 1, start
        while first < end:
            items = range(first, min(first + count, end))
            values_read = values.read_all(items) if all(has[first : items.stop]) else None
            # map() rather than a generator, whose frame would be in the traceback of an item's exception.
            yield (
                map(self.__getitem__, range(first - start, items.stop - start)) if values_read is None else values_read
            )
            first, count = items.stop, min(2 * count, _MAX_CHUNK)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a list of all values."""
        return list, (list(self),)

    def __repr__(self) -> str:
        """Show the size without loading values."""
        return f"<values of {self._name!r}: {pluralize(len(self), 'item')}>"

    @property
    def _name(self) -> str:
        return self._record.plan.names[self._node]
