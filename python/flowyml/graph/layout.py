"""Where boxes and lines of a layered drawing stand: layers from top to bottom, few crossings, straight lines.

```
layers: longest path ──▶ long edges get a bend in each layer ──▶ order in a layer: medians of neighbours ──▶ x: as near
to the neighbours' middle as the widths allow
```

The steps of K. Sugiyama, S. Tagawa and M. Toda (1981); the last is an isotonic regression in each layer, by pooling
adjacent violators, so no two boxes ever overlap. Time grows with boxes and bends, times the fixed number of sweeps.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ORDER_SWEEPS = 12
_PLACE_SWEEPS = 13  # the last from top to bottom, so that chains hang straight
# Of a drawing with more boxes and bends than this nobody counts the crossings.
_LARGE = 3_000
# Bends are held to a straight line more than boxes are to the middle of their neighbours.
_BEND_WEIGHT = 4.0
# Boxes that nothing connects go to the next row beyond this width.
_WIDEST = 1_000.0


class DrawingLayout(NamedTuple):
    """Where everything stands.

    Attributes:
        x: The middle of each box.
        layers: The layer of each box, 0 on top.
        paths: For each edge the middles it passes, layer by layer, its two boxes included.
        left: The left end of everything.
        right: The right end.
    """

    x: list[float]
    layers: list[int]
    paths: list[list[float]]
    left: float
    right: float


def layout(widths: Sequence[float], edges: Sequence[tuple[int, int]], gap: float) -> DrawingLayout:
    """Place boxes.

    Args:
        widths: The width of each box. Every edge goes from a lower to a higher number.
        edges: Pairs of box numbers.
        gap: The least space between two boxes of a layer.
    """
    return _LayeredLayout(widths, edges, gap).layout()


class _LayeredLayout:
    """Boxes and bends of one drawing; bends are numbered after the boxes."""

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
        left = min((self.x[each] - self.widths[each] / 2 for each in range(self.boxes)), default=0.0)
        right = max((self.x[each] + self.widths[each] / 2 for each in range(self.boxes)), default=0.0)
        bends = self.x[self.boxes :]
        paths = [[self.x[each] for each in chain] for chain in self.chains]
        return DrawingLayout(
            self.x[: self.boxes], self.layer[: self.boxes], paths, min([left, *bends]), max([right, *bends])
        )

    def _wrap(self, edges: Iterable[tuple[int, int]]) -> None:
        """Boxes without edges stand in rows under all others, if they are too many for one row."""
        connected = {box for edge in edges for box in edge}
        loose = [box for box in range(self.boxes) if box not in connected]
        if sum(self.widths[box] + self.gap for box in loose) <= _WIDEST:
            return
        row = max((self.layer[box] for box in connected), default=-1) + 1
        width = 0.0
        for box in loose:
            width += self.widths[box] + self.gap
            if width > _WIDEST and width > self.widths[box] + self.gap:
                row, width = row + 1, self.widths[box] + self.gap
            self.layer[box] = row

    def _chain(self, start: int, end: int) -> list[int]:
        """Lead an edge through every layer between its boxes."""
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
        for each, layer in enumerate(self.layer):
            rows[layer].append(each)
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
        """Order a layer by the mean place of each one's neighbours; what has none stays where it is."""
        place = self._places()
        wanted = {each: _mean([place[other] for other in neighbours[each]], place[each]) for each in row}
        row.sort(key=wanted.__getitem__)

    def _places(self) -> dict[int, float]:
        """Return where each one stands in its layer, as a share of the layer."""
        return {each: (at + 0.5) / len(row) for row in self.rows for at, each in enumerate(row)}

    def _crossings(self) -> int:
        at = {each: place for row in self.rows for place, each in enumerate(row)}
        return sum(
            _inversions([low for up in row for low in sorted(at[each] for each in self.below[up])]) for row in self.rows
        )

    # -- where in its layer

    def _place(self) -> None:
        for row in self.rows:
            self._set_row(row, [0.0] * len(row))
        for sweep in range(_PLACE_SWEEPS):
            down = sweep % 2 == 0
            for row in self.rows if down else reversed(self.rows):
                near = self.above if down else self.below
                self._set_row(row, [_mean([self.x[other] for other in near[each]], self.x[each]) for each in row])

    def _set_row(self, row: list[int], wanted: list[float]) -> None:
        """Place a layer as near to what is wanted as the widths allow: least squares under fixed distances."""
        if not row:
            return
        offsets = [0.0]
        for left, right in pairwise(row):
            offsets.append(offsets[-1] + (self.widths[left] + self.widths[right]) / 2 + self.gap)
        weights = [1.0 if each < self.boxes else _BEND_WEIGHT for each in row]
        free = [want - offset for want, offset in zip(wanted, offsets, strict=True)]
        for each, place, offset in zip(row, _isotonic(free, weights), offsets, strict=True):
            self.x[each] = place + offset


def _layers(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the longest path to each box, in edges; what nothing leads to stands just above its first dependent."""
    layers = [0] * count
    below: list[list[int]] = [[] for _ in range(count)]
    rooted = [True] * count
    for start, end in sorted(edges, key=lambda edge: edge[1]):
        layers[end] = max(layers[end], layers[start] + 1)
        below[start].append(end)
        rooted[end] = False
    for box, lower in enumerate(below):
        if rooted[box] and lower:
            layers[box] = min(layers[each] for each in lower) - 1
    return layers


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the rising sequence that is nearest to these values.

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
    """Count the pairs of two rising lists in which the left is greater."""
    count = at = 0
    for value in right:
        while at < len(left) and left[at] <= value:
            at += 1
        count += len(left) - at
    return count
