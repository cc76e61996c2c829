"""Item index: which items belong to which step.

```
steps      load   clean (mapped, 3 items)   fit (mapped over another step's list)   report
items       0      1 2 3                     5 6 7 ... : appended during the run      4
```

A step is a node of the graph, its calls are its items: an ordinary step has one, a mapped step one per value. The items
of a node are consecutive. A plan has one index, which runs share and nothing changes; a run whose lengths become known
later has a copy that grows. The module knows ids only, neither names nor values.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from functools import partial
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

UNKNOWN = 0xFFFFFFFF
"""A number of items that is known only during the run."""


class ItemIndex:
    """Which items each step has.

    Args:
        nodes: The number of steps.
        counts: The number of items of each step, or `UNKNOWN`; `None` if all are ordinary steps.
        mapped: The mapped steps.

    Attributes:
        nodes: How many steps there are.
        mapped: The mapped steps, whatever the number of their items.
        item_count: How many items there are, as far as lengths are known.
        firsts: First item of each step; of a step without items it means nothing.
        waiting: Steps whose number of items is not known yet.
        grows: Whether steps may be added.

    >>> index = ItemIndex(3, array("I", [1, 3, 1]), {1})
    >>> index.items_of(1), index.place_of(3), index.place_of(4)
    (range(1, 4), (1, 2), (2, None))
    """

    __slots__ = ("_bounds", "_counts", "_grown", "firsts", "grows", "item_count", "mapped", "nodes", "waiting")

    def __init__(self, nodes: int, counts: array[int] | None, mapped: Collection[int] = ()) -> None:
        self.nodes = nodes
        self.grows = False
        self.waiting: set[int] = set()
        if counts is not None and UNKNOWN in counts:
            self.waiting = {node for node, count in enumerate(counts) if count == UNKNOWN}
            counts = array("I", [0 if count == UNKNOWN else count for count in counts])
        self.mapped = mapped
        self._counts = counts
        self._bounds: Sequence[int] = range(nodes) if counts is None else array("I", [0, *accumulate(counts)])
        self._grown: list[tuple[int, int]] = []
        self.firsts = self._bounds
        self.item_count = nodes if counts is None else self._bounds[-1]

    @property
    def is_plain(self) -> bool:
        """Whether every step is an ordinary one: item k is step k."""
        return self._counts is None

    def of_run(self, *, grows: bool = False) -> ItemIndex:
        """Return the index for one run: a copy if it may grow."""
        if not grows and (self._counts is None or not self.waiting):
            return self
        # A list may get longer while other threads read it, also where they run without a lock; an array may not.
        kind: Any = list if grows else partial(array, "I")
        copy = ItemIndex(self.nodes, None, set(self.mapped) if grows else self.mapped)
        copy._counts = kind(repeat(1, self.nodes) if self._counts is None else self._counts)
        copy._bounds = array("I", range(self.nodes + 1)) if self._counts is None else self._bounds
        firsts = kind(copy._bounds)
        firsts.pop()  # where a step that is added would begin
        copy.firsts, copy.item_count, copy.waiting = firsts, self.item_count, set(self.waiting)
        copy.grows = grows
        return copy

    def add(self, counts: Sequence[int], mapped: Collection[int]) -> None:
        """Add steps, with these numbers of items (or `UNKNOWN`) behind all others; `mapped` are the mapped ones."""
        assert self._counts is not None and isinstance(self.mapped, set)  # noqa: S101, PT018  it was made to grow
        firsts: Any = self.firsts
        for node, count in enumerate(counts, self.nodes):
            known = 0 if count == UNKNOWN else count
            firsts.append(self.item_count)
            self._counts.append(known)
            if known:
                self._grown.append((self.item_count, node))
            if count == UNKNOWN:
                self.waiting.add(node)
            self.item_count += known
        self.nodes += len(counts)
        self.mapped |= set(mapped)

    def cut(self, nodes: int) -> None:
        """Remove the steps that were added last, so that `nodes` are left."""
        assert self._counts is not None and isinstance(self.mapped, set)  # noqa: S101, PT018
        if nodes == self.nodes:
            return
        firsts: Any = self.firsts
        self.item_count = firsts[nodes]
        del firsts[nodes:], self._counts[nodes:]
        while self._grown and self._grown[-1][1] >= nodes:
            self._grown.pop()
        self.mapped -= set(range(nodes, self.nodes))
        self.waiting -= set(range(nodes, self.nodes))
        self.nodes = nodes

    def grow(self, nodes: Iterable[int], count: int) -> None:
        """Give each of these steps its items, behind all others."""
        assert self._counts is not None  # noqa: S101  a plan with mapped steps has them
        for node in nodes:
            self._grown.append((self.item_count, node))
            self.firsts[node], self._counts[node] = self.item_count, count  # type: ignore[index]
            self.item_count += count
            self.waiting.discard(node)

    def items_of(self, node: int) -> range:
        """Return the items of a step."""
        first = self.firsts[node]
        return range(first, first + (1 if self._counts is None else self._counts[node]))

    def is_mapped(self, node: int) -> bool:
        """Return True if a step is a mapped one."""
        return node in self.mapped

    def node_at(self, item: int) -> int:
        """Return the step of an item."""
        if self._counts is None:
            return item
        if item >= self._bounds[-1]:
            return self._grown[bisect_right(self._grown, (item, self.nodes)) - 1][1]
        return bisect_right(self._bounds, item, hi=len(self._bounds) - 1) - 1

    def place_of(self, item: int) -> tuple[int, int | None]:
        """Return the step of an item and, of a mapped step, which of its items it is."""
        node = self.node_at(item)
        return node, item - self.firsts[node] if node in self.mapped else None

    def node_of(self) -> Sequence[int]:
        """Return the step of each item; a list if items may still be added."""
        if self._counts is None:
            return range(self.nodes)
        each: list[int] | array[int] = [] if self.waiting or self.grows else array("I")
        next_node = 0
        for node in sorted(self.mapped):
            each.extend(range(next_node, node))
            each.extend(array("I", [node]) * self._counts[node])
            next_node = node + 1
        each.extend(range(next_node, self.nodes))
        return each

    def empty_nodes(self) -> Iterable[int]:
        """Return the steps that have no items."""
        return (node for node, count in enumerate(self._counts or ()) if not count)
