"""Layered graph drawing: layers from top to bottom, few crossings, straight lines.

```
layers: longest path ──▶ long edges get a bend in each layer ──▶ order in a layer: medians of neighbours ──▶ x: as near
to the neighbours' middle as the widths allow
```

The method of K. Sugiyama, S. Tagawa and M. Toda (1981); the last step is an isotonic regression in each layer, by
pooling adjacent violators, so boxes never overlap. Time grows linearly with boxes and bends, times a fixed number of
sweeps.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ORDER_SWEEPS = 12
_PLACE_SWEEPS = 13  # the last from top to bottom, so that chains hang straight
# In drawings with more boxes and bends than this, crossings do not matter.
_LARGE = 3_000
# Straight lines matter more than boxes in the middle of their neighbours.
_BEND_WEIGHT = 4.0
# Unconnected boxes are wrapped at this width.
_MAX_ROW_WIDTH = 1_000.0


class DrawingLayout(NamedTuple):
    """The positions in a drawing.

    Attributes:
        x: The middle of each box.
        layers: The layer of each box, 0 on top.
        paths: The middles of each edge in each layer, including its two boxes.
    """

    x: list[float]
    layers: list[int]
    paths: list[list[float]]
    left: float
    right: float


def layout(widths: Sequence[float], edges: Sequence[tuple[int, int]], gap: float) -> DrawingLayout:
    """Place boxes.

    Args:
        widths: The width of each box. Edges lead from lower to higher indices.
        edges: Pairs of boxes.
        gap: The minimum space between two boxes of a layer.
    """
    return _LayeredLayout(widths, edges, gap).layout()


class _LayeredLayout:
    """Boxes and bends of one drawing; bends have the indices after the boxes."""

    def __init__(self, widths: Sequence[float], edges: Sequence[tuple[int, int]], gap: float) -> None:
        self.boxes, self.gap = len(widths), gap
        self.widths = list(widths)
        self.layer = _layers(len(widths), edges)
        self._wrap(edges)
        self.above: list[list[int]] = [[] for _ in widths]
        self.below: list[list[int]] = [[] for _ in widths]
        self.chains = [self._chain(start, end) for start, end in edges]
        self.rows = self._rows()
        self.x = [0.0] * len(self.widths)

    def layout(self) -> DrawingLayout:
        self._reduce_crossings()
        self._place()
        left = min((self.x[box] - self.widths[box] / 2 for box in range(self.boxes)), default=0.0)
        right = max((self.x[box] + self.widths[box] / 2 for box in range(self.boxes)), default=0.0)
        bends = self.x[self.boxes :]
        paths = [[self.x[point] for point in chain] for chain in self.chains]
        return DrawingLayout(
            self.x[: self.boxes], self.layer[: self.boxes], paths, min([left, *bends]), max([right, *bends])
        )

    def _wrap(self, edges: Iterable[tuple[int, int]]) -> None:
        """Arrange boxes without edges in rows below all others, if they need more than one row."""
        connected = {box for edge in edges for box in edge}
        loose = [box for box in range(self.boxes) if box not in connected]
        if sum(self.widths[box] + self.gap for box in loose) <= _MAX_ROW_WIDTH:
            return
        row = max((self.layer[box] for box in connected), default=-1) + 1
        width = 0.0
        for box in loose:
            width += self.widths[box] + self.gap
            if width > _MAX_ROW_WIDTH and width > self.widths[box] + self.gap:
                row, width = row + 1, self.widths[box] + self.gap
            self.layer[box] = row

    def _chain(self, start: int, end: int) -> list[int]:
        """Add a bend to an edge in each layer between its boxes."""
        between = range(self.layer[start] + 1, self.layer[end])
        bends = range(len(self.widths), len(self.widths) + len(between))
        self.widths += [0.0] * len(between)
        self.layer += between
        self.above += [[] for _ in between]
        self.below += [[] for _ in between]
        chain = [start, *bends, end]
        for upper, lower in pairwise(chain):
            self.below[upper].append(lower)
            self.above[lower].append(upper)
        return chain

    def _rows(self) -> list[list[int]]:
        rows: list[list[int]] = [[] for _ in range(max(self.layer, default=-1) + 1)]
        for point, layer in enumerate(self.layer):
            rows[layer].append(point)
        return rows

    # -- the order within a layer

    def _reduce_crossings(self) -> None:
        best, fewest = [row[:] for row in self.rows], self._crossings()
        for sweep in range(_ORDER_SWEEPS if len(self.widths) < _LARGE else 2):
            if not fewest:
                break
            down = sweep % 2 == 0
            for row in self.rows if down else reversed(self.rows):
                self._sort(row, self.above if down else self.below)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [row[:] for row in self.rows], crossings
        self.rows = best

    def _sort(self, row: list[int], neighbours: list[list[int]]) -> None:
        """Order a layer by the mean position of neighbours; points without neighbours keep their place."""
        place = self._places()
        wanted = {point: _mean([place[other] for other in neighbours[point]], place[point]) for point in row}
        row.sort(key=wanted.__getitem__)

    def _places(self) -> dict[int, float]:
        """Return the position of each point in its layer, as a share of the layer."""
        return {point: (at + 0.5) / len(row) for row in self.rows for at, point in enumerate(row)}

    def _crossings(self) -> int:
        at = {point: place for row in self.rows for place, point in enumerate(row)}
        return sum(
            _inversions([low for up in row for low in sorted(at[point] for point in self.below[up])])
            for row in self.rows
        )

    # -- where in its layer

    def _place(self) -> None:
        for row in self.rows:
            self._set_row(row, [0.0] * len(row))
        for sweep in range(_PLACE_SWEEPS):
            down = sweep % 2 == 0
            for row in self.rows if down else reversed(self.rows):
                near = self.above if down else self.below
                self._set_row(row, [_mean([self.x[other] for other in near[point]], self.x[point]) for point in row])

    def _set_row(self, row: list[int], wanted: list[float]) -> None:
        """Place a layer as near to the wanted positions as the widths allow (least squares)."""
        if not row:
            return
        offsets = [0.0]
        for left, right in pairwise(row):
            offsets.append(offsets[-1] + (self.widths[left] + self.widths[right]) / 2 + self.gap)
        weights = [1.0 if point < self.boxes else _BEND_WEIGHT for point in row]
        free = [want - offset for want, offset in zip(wanted, offsets, strict=True)]
        for point, place, offset in zip(row, _isotonic(free, weights), offsets, strict=True):
            self.x[point] = place + offset


def _layers(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the longest path to each box; a box without dependencies is just above its first dependent."""
    layers = [0] * count
    below: list[list[int]] = [[] for _ in range(count)]
    rooted = [True] * count
    for start, end in sorted(edges, key=lambda edge: edge[1]):
        layers[end] = max(layers[end], layers[start] + 1)
        below[start].append(end)
        rooted[end] = False
    for box, lower in enumerate(below):
        if rooted[box] and lower:
            layers[box] = min(layers[dependent] for dependent in lower) - 1
    return layers


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the non-decreasing sequence that is closest to the values.

    >>> _isotonic([1.0, 4.0, 2.0, 5.0], [1.0, 1.0, 1.0, 1.0])
    [1.0, 3.0, 3.0, 5.0]
    """
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            pool = _pooled(pools.pop(), pool)
        pools.append(pool)
    return [value for value, _, size in pools for _ in range(size)]


def _pooled(one: tuple[float, float, int], other: tuple[float, float, int]) -> tuple[float, float, int]:
    weight = one[1] + other[1]
    return (one[0] * one[1] + other[0] * other[1]) / weight, weight, one[2] + other[2]


def _inversions(values: list[int]) -> int:
    """Count the pairs in the wrong order, by merging.

    >>> _inversions([2, 0, 1]), _inversions([1, 1])
    (2, 0)
    """
    count, width = 0, 1
    while width < len(values):
        for start in range(0, len(values), 2 * width):
            left, right = values[start : start + width], values[start + width : start + 2 * width]
            count += _between(left, right)
            values[start : start + 2 * width] = sorted(left + right)
        width *= 2
    return count


def _between(left: list[int], right: list[int]) -> int:
    """Count the pairs of two sorted lists in which the left value is greater."""
    count = at = 0
    for value in right:
        while at < len(left) and left[at] <= value:
            at += 1
        count += len(left) - at
    return count
