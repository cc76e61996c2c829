"""Topological order and folding of a graph given as lists of node ids.

```
dependencies: [[], [0], [0], [1, 2]]        node 3 depends on 1 and 2
```

Pure and iterative: a chain of a million nodes needs no recursion. Nodes in or after a cycle have no order.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence


def add_order(dependencies: Sequence[Sequence[int]]) -> list[int]:
    """Return nodes with dependencies first, lower ids first; without nodes of cycles.

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
        for released in _released(node, after, waiting):
            heappush(ready, released)
    return order


def fold(kinds: Sequence[Hashable], dependencies: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Group similar nodes: those of one kind whose dependencies are, after grouping, the same.

    Args:
        kinds: Nodes with equal kinds may be grouped.
        dependencies: The dependencies of each node.
        most: Up to this number, similar nodes are not grouped.

    Returns:
        Groups of ascending ids. The graph of groups has no cycles but those of the nodes.

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
            before = frozenset(group_of[other] for other in dependencies[node])
            alike.setdefault((kinds[node], before), []).append(node)
        for nodes in alike.values():
            _enter([nodes] if len(nodes) > most else [[node] for node in nodes], groups, group_of)
        level = sorted(other for node in level for other in _released(node, after, waiting))
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
        for dependency in before:
            after.setdefault(dependency, []).append(node)
    return after


def _released(node: int, after: dict[int, list[int]], waiting: list[int]) -> list[int]:
    """Return the nodes whose last open dependency was this one."""
    free = []
    for dependent in after.get(node, ()):
        waiting[dependent] -= 1
        if not waiting[dependent]:
            free.append(dependent)
    return free
