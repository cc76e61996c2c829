"""Frames around the boxes of sub-pipelines in a picture with layers.

A layered layout does not keep the boxes of a sub-pipeline together. Where they happen to be alone in the rectangle that
they span, that is framed; where other boxes stand between them, a frame would lie, and there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowyml.report.graph.picture import Picture


class Frame(NamedTuple):
    """What goes around the boxes of a sub-pipeline.

    Attributes:
        label: Its name in the pipeline around it.
        left: Where its boxes begin.
        right: Where they end.
        rows: The layers that they are in.
        levels: How many levels of sub-pipelines there are in it, itself among them.
    """

    label: str
    left: float
    right: float
    rows: range
    levels: int


def frames(
    picture: Picture, layers: Sequence[int], middles: Sequence[float], widths: Sequence[float], gap: float
) -> Iterator[Frame]:
    """Go through the frames that can be drawn, outer ones first.

    Args:
        picture: What is drawn.
        layers: The layer of each box.
        middles: The middle of each box in its layer.
        widths: The width of each box.
        gap: How much room there is between two boxes.
    """
    boxes = picture.boxes
    for name, members in picture.groups.items():
        depth = boxes[members[0]].groups.index(name)
        around = f"{boxes[members[0]].groups[depth - 1]}." if depth else ""
        left = min(middles[each] - widths[each] / 2 for each in members)
        right = max(middles[each] + widths[each] / 2 for each in members)
        rows = range(min(layers[each] for each in members), max(layers[each] for each in members) + 1)
        levels = max(len(boxes[each].groups) for each in members) - depth
        others = set(range(len(boxes))).difference(members)
        reach = (left + right) / 2, (right - left + gap) / 2
        if not any(
            layers[each] in rows and abs(middles[each] - reach[0]) < reach[1] + widths[each] / 2 for each in others
        ):
            yield Frame(name.removeprefix(around), left, right, rows, levels)
