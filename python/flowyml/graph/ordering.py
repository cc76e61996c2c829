"""Orders of a graph that is given as lists of numbers: what comes after what, and what is alike.

```
dependencies: [[], [0], [0], [1, 2]]        node 3 waits for 1 and 2
```

Pure and iterative: a chain of a million is no deeper than one node. Nodes in or behind a cycle come in no order.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


def add_order(dependencies: Sequence[Sequence[int]]) -> list[int]:
    """Return nodes so that each comes after its dependencies, lower numbers first; without those of cycles.

    >>> add_order([[2], [], []]), add_order([[1], [0], []])
    ([1, 2, 0], [2])
    """
    if all(not before or max(before) < node for node, before in enumerate(dependencies)):
        return list(range(len(dependencies)))
    waiting = [len(before) for before in dependencies]
    after = _dependents(dependencies)
    ready = [node for node, count in enumerate(waiting) if not count]
    heapify(ready)
    order = []
    while ready:
        node = heappop(ready)
        order.append(node)
        for each in _released(node, after, waiting):
            heappush(ready, each)
    return order


def fold(kinds: Sequence[Hashable], dependencies: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Put together what is alike: nodes of one kind whose dependencies are, after folding, the same.

    Args:
        kinds: What may be put together, node by node.
        dependencies: What each node waits for.
        most: As many alike nodes stand alone; of more, one group is made.

    Returns:
        Groups of numbers, each in rising order; of the graph of groups no cycle comes that was not there before.

    >>> fold("abbb", [[], [0], [0], [0]], most=2)
    [[0], [1, 2, 3]]
    """
    waiting = [len(before) for before in dependencies]
    after = _dependents(dependencies)
    group_of = [-1] * len(kinds)
    groups: list[list[int]] = []
    level = [node for node, count in enumerate(waiting) if not count]
    while level:
        alike: dict[Hashable, list[int]] = {}
        for node in level:
            before = frozenset(group_of[each] for each in dependencies[node])
            alike.setdefault((kinds[node], before), []).append(node)
        for nodes in alike.values():
            _enter([nodes] if len(nodes) > most else [[node] for node in nodes], groups, group_of)
        level = sorted(each for node in level for each in _released(node, after, waiting))
    _enter([[node] for node, group in enumerate(group_of) if group < 0], groups, group_of)
    return groups


def _enter(new: list[list[int]], groups: list[list[int]], group_of: list[int]) -> None:
    for nodes in new:
        for node in nodes:
            group_of[node] = len(groups)
        groups.append(nodes)


def _dependents(dependencies: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    after: dict[int, list[int]] = {}
    for node, before in enumerate(dependencies):
        for each in before:
            after.setdefault(each, []).append(node)
    return after


def _released(node: int, after: dict[int, list[int]], waiting: list[int]) -> list[int]:
    """Return the nodes that waited for this one last."""
    free = []
    for each in after.get(node, ()):
        waiting[each] -= 1
        if not waiting[each]:
            free.append(each)
    return free
