"""A graph as an SVG picture, without graphviz: a layered layout, plain shapes, no script, no embedded font.

Colours are legible on white and dark pages. Widths of text are estimated generously from the letters.

A layered layout does not keep the boxes of a sub-pipeline together. A frame is drawn around them only if the rectangle
that they span contains no other box.
"""

from __future__ import annotations

from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

from flowyml._containers import NamedTuple
from flowyml.graph.layout import layout
from flowyml.graph.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flowyml.graph.layout import DrawingLayout
    from flowyml.graph.model import GraphModel, NodeBox


class Cluster(NamedTuple):
    """The frame around the boxes of a sub-pipeline.

    Attributes:
        label: Its name in the outer pipeline.
        left: Left end of its boxes.
        right: Right end of its boxes.
        rows: Its layers.
        levels: Depth of nested sub-pipelines, itself included.
    """

    label: str
    left: float
    right: float
    rows: range
    levels: int


def frames(
    picture: GraphModel, layers: Sequence[int], middles: Sequence[float], widths: Sequence[float], gap: float
) -> Iterator[Cluster]:
    """Yield the frames that can be drawn, outer ones first.

    Args:
        picture: The graph.
        layers: The layer of each box.
        middles: The horizontal middle of each box.
        widths: The width of each box.
        gap: The space between two boxes.
    """
    boxes = picture.boxes
    for name, members in picture.groups.items():
        depth = boxes[members[0]].groups.index(name)
        prefix = f"{boxes[members[0]].groups[depth - 1]}." if depth else ""
        left = min(middles[box] - widths[box] / 2 for box in members)
        right = max(middles[box] + widths[box] / 2 for box in members)
        rows = range(min(layers[box] for box in members), max(layers[box] for box in members) + 1)
        levels = max(len(boxes[box].groups) for box in members) - depth
        others = set(range(len(boxes))).difference(members)
        reach = (left + right) / 2, (right - left + gap) / 2
        if not any(layers[box] in rows and abs(middles[box] - reach[0]) < reach[1] + widths[box] / 2 for box in others):
            yield Cluster(name.removeprefix(prefix), left, right, rows, levels)


_MARGIN = 16.0
_GAP = 28.0
_LAYER_HEIGHT = 92.0  # from one layer to the next
_HEIGHT, _TALL_HEIGHT = 34.0, 46.0
_PADDING = 14.0
_TITLE_SIZE, _DETAIL_SIZE = 13, 11
_FRAME = 16.0  # more room for each level of sub-pipelines
_MAX_LABEL, _MAX_ANSWER = 44, 24
_ARROW_LENGTH = 7.0
_NARROW = frozenset("iljtfrI.,:;'|![]() ")
_WIDE = frozenset("mwMW@%")
_HEXAGON_POINT = 14.0  # width of the points of a decision's hexagon
_LINE = "#8a8f98"
# Position of an answer on its edge, nearer to the branch than to the decision: a point of the curve.
_ALONG_X, _ALONG_Y = 0.648, 0.576
_STYLES = {  # fill and border by kind of box
    "step": 'fill="#eef4ff" stroke="#4a74c9"',
    "many": 'fill="#e8f6ee" stroke="#3a9663"',
    "given": 'fill="#fff8e6" stroke="#b98a1d" stroke-dasharray="4 3"',
    "decision": 'fill="#f4eefb" stroke="#8257b5"',
    "cycle": 'fill="#fdecec" stroke="#c8433f"',
}
_STATE_STYLES = {  # fill and border by final state
    "success": 'fill="#e6f5ec" stroke="#2f8f5b"',
    "cached": 'fill="#e3f4f4" stroke="#2b8c8c"',
    "given": 'fill="#e3f4f4" stroke="#2b8c8c"',
    "failed": 'fill="#fde3e1" stroke="#c8332d"',
    "timed_out": 'fill="#fde8d8" stroke="#c2601a"',
    "upstream_failed": 'fill="#fdf1dc" stroke="#b98a1d"',
    "cancelled": 'fill="#f5efe2" stroke="#94835a"',
    "skipped": 'fill="#f0f1f3" stroke="#8a8f98"',
}


def svg(picture: GraphModel) -> str:
    """Return the graph as an SVG file, from top to bottom.

    >>> from flowyml.graph.model import NodeBox, GraphModel
    >>> svg(GraphModel("p", (NodeBox("a", "a"), NodeBox("b", "b", (0,))), 2))[:42]
    '<svg xmlns="http://www.w3.org/2000/svg" wi'
    """
    return "\n".join(_SvgWriter(picture).lines())


class _SvgWriter:
    def __init__(self, picture: GraphModel) -> None:
        self.picture = picture
        self.tall = [bool(_detail(box)) for box in picture.boxes]
        self.widths = [_box_width(box) for box in picture.boxes]
        self.forward = [edge for edge in picture.edges if edge[0] < edge[1]]
        self.backward = [edge for edge in picture.edges if edge[0] >= edge[1]]  # of cycles only
        self.layout: DrawingLayout = layout([*self._slots()], self.forward, _GAP)
        self.frames = list(frames(picture, self.layout.layers, self.layout.x, self.widths, _GAP))
        self.margin = _MARGIN + max((frame.levels for frame in self.frames), default=0) * _FRAME
        badges = [*self._badges()]
        self.shift = self.margin - min([self.layout.left, *(left for left, _ in badges)])
        self.right = self.shift + max([self.layout.right, *(right for _, right in badges)])

    def lines(self) -> Iterator[str]:
        side = 40.0 if self.backward else 0.0
        width = max(self.right + self.margin + side, 120.0)
        height = (
            (max(self.layout.layers, default=0) + 1) * _LAYER_HEIGHT - (_LAYER_HEIGHT - _TALL_HEIGHT) + 2 * self.margin
        )
        title = escape(one_line(self.picture.name))
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="Pipeline DAG: {title}" '
            'font-family="Helvetica, Arial, sans-serif" text-anchor="middle">'
        )
        yield f"<title>Pipeline DAG: {title}</title>"
        for frame in self.frames:
            yield from self._frame(frame)
        for (before, position), path in zip(self.forward, self.layout.paths, strict=True):
            yield from self._edge(before, position, [x + self.shift for x in path])
        yield from (self._back(before, position) for before, position in self.backward)
        for position, box in enumerate(self.picture.boxes):
            yield from self._box(position, box)
        yield "</svg>"

    def _middle(self, position: int) -> tuple[float, float]:
        return self.layout.x[position] + self.shift, self.margin + _TALL_HEIGHT / 2 + self.layout.layers[
            position
        ] * _LAYER_HEIGHT

    def _half(self, position: int) -> float:
        return (_TALL_HEIGHT if self.tall[position] else _HEIGHT) / 2

    def _slots(self) -> Iterator[float]:
        """Yield the width reserved for each box, so that answers on neighbouring edges do not overlap."""
        for box, width in zip(self.picture.boxes, self.widths, strict=True):
            badge = max((_badge_width(answer) for _, answer in box.answers), default=0.0)
            yield max(width, (badge + 4) / _ALONG_X - _GAP)

    def _frame(self, frame: Cluster) -> Iterator[str]:
        space = frame.levels * _FRAME / 2
        left, width = frame.left + self.shift - space, frame.right - frame.left + 2 * space
        top = self.margin + frame.rows.start * _LAYER_HEIGHT - space - _FRAME / 4
        height = (len(frame.rows) - 1) * _LAYER_HEIGHT + _TALL_HEIGHT + 2 * space + _FRAME / 2
        yield (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="8" fill="#8a8f98" '
            f'fill-opacity="0.08" stroke="{_LINE}" stroke-width="0.8"/>'
        )
        yield _text(left + 6, top + 11, _short(frame.label), f'font-size="10" fill="{_LINE}" text-anchor="start"')

    # -- lines

    def _badges(self) -> Iterator[tuple[float, float]]:
        """Yield the left and right ends of the answers on edges."""
        for (before, position), path in zip(self.forward, self.layout.paths, strict=True):
            answer = self.picture.answer(before, position)
            if answer:
                middle, half = path[0] + _ALONG_X * (path[1] - path[0]), _badge_width(answer) / 2
                yield middle - half, middle + half

    def _edge(self, before: int, position: int, xs: Sequence[float]) -> Iterator[str]:
        y = self._middle(before)[1]
        middles = [(x, y + layer * _LAYER_HEIGHT) for layer, x in enumerate(xs)]
        start = middles[0][0], y + self._half(before)
        end = middles[-1][0], middles[-1][1] - self._half(position) - _ARROW_LENGTH + 1
        # Edges bend only between layers; within a layer they run vertically, next to the boxes.
        points = [start]
        for x, at in middles[1:-1]:
            points += [(x, at - _TALL_HEIGHT / 2), (x, at + _TALL_HEIGHT / 2)]
        points.append(end)
        dash = ' stroke-dasharray="4 3"' if self.picture.boxes[before].given else ""
        yield f'<path d="{_curve(points)}" fill="none" stroke="{_LINE}" stroke-width="1.3"{dash}/>'
        yield _arrow_head(*end)
        answer = self.picture.answer(before, position)
        if answer:
            (to_x, to_y), (x, y) = points[1], start
            yield from _badge((x + _ALONG_X * (to_x - x), y + _ALONG_Y * (to_y - y)), answer)

    def _back(self, before: int, position: int) -> str:
        """Draw an edge of a cycle, upwards around the right side."""
        (x, y), (to_x, to_y) = self._middle(before), self._middle(position)
        x, to_x = x + self.widths[before] / 2, to_x + self.widths[position] / 2
        out = max(x, to_x) + 36
        path = f"M{x:.1f},{y + 6:.1f} C{out:.1f},{y + 6:.1f} {out:.1f},{to_y - 6:.1f} {to_x:.1f},{to_y - 6:.1f}"
        return f'<path d="{path}" fill="none" stroke="#c8433f" stroke-width="1.3" stroke-dasharray="2 2"/>'

    # -- boxes

    def _box(self, position: int, box: NodeBox) -> Iterator[str]:
        (x, y), half, width = self._middle(position), self._half(position), self.widths[position]
        style = _STATE_STYLES.get(box.state) or _STYLES["cycle" if position >= self.picture.ordered else _kind(box)]
        if box.optional:
            style += ' stroke-dasharray="6 3"'
        yield f"<g><title>{escape(one_line(_tooltip(box)))}</title>"
        if box.size > 1:  # a stack of boxes
            yield _rect((x + 4, y + 4), width, half, style, 6.0)
        if box.decides:
            yield _hexagon((x, y), width, half, style)
        else:
            yield _rect((x, y), width, half, style, half if box.given else 6.0)
        detail = _detail(box)
        yield _text(x, y - 3 if detail else y + 4.5, _short(box.title), f'font-size="{_TITLE_SIZE}" fill="#1f2430"')
        if detail:
            yield _text(x, y + 13, detail, f'font-size="{_DETAIL_SIZE}" fill="#5a6270"')
        yield "</g>"


def _kind(box: NodeBox) -> str:
    if box.given:
        return "given"
    if box.decides:
        return "decision"
    return "many" if box.size > 1 or box.items is not None else "step"


def _detail(box: NodeBox) -> str:
    return _short(_subtitle(box))


def _subtitle(box: NodeBox) -> str:
    """Return the second line, with the function's name; a decision is recognised by its shape."""
    if box.decides:
        return ""
    plain = box.size == 1 and box.items is None and not box.given
    return ", ".join(filter(None, (box.of() if plain else "", box.detail)))


def _tooltip(box: NodeBox) -> str:
    detail = ", ".join(filter(None, ("decision" if box.decides else _subtitle(box), box.note)))
    return f"{box.title}: {detail}" if detail else box.title


def _short(label: str, limit: int = _MAX_LABEL) -> str:
    """Shorten a label in its middle: names of similar steps differ at the end."""
    label = one_line(label)
    half = limit // 2 - 1
    return label if len(label) <= limit else f"{label[:half]}…{label[-half:]}"


def _box_width(box: NodeBox) -> float:
    texts = _text_width(_short(box.title), _TITLE_SIZE), _text_width(_detail(box), _DETAIL_SIZE)
    return max(*texts, 40.0) + 2 * (_HEXAGON_POINT if box.decides else _PADDING)


def _text_width(label: str, size: int) -> float:
    return size * sum(map(_letter_width, label))


def _letter_width(letter: str) -> float:
    if letter in _NARROW:
        return 0.36
    if letter in _WIDE or letter.isupper():
        return 0.8
    return 1.05 if east_asian_width(letter) in "WF" else 0.6


def _rect(middle: tuple[float, float], width: float, half: float, style: str, corner: float) -> str:
    left, top = middle[0] - width / 2, middle[1] - half
    place = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{2 * half:.1f}" rx="{corner:g}"'
    return f'<rect {place} {style} stroke-width="1.3"/>'


def _hexagon(middle: tuple[float, float], width: float, half: float, style: str) -> str:
    (x, y), side = middle, width / 2
    corners = [(-side, 0.0), (_HEXAGON_POINT - side, -half), (side - _HEXAGON_POINT, -half), (side, 0.0)]
    corners += [(side - _HEXAGON_POINT, half), (_HEXAGON_POINT - side, half)]
    points = " ".join(f"{x + right:.1f},{y + down:.1f}" for right, down in corners)
    return f'<polygon points="{points}" {style} stroke-width="1.3"/>'


def _badge(place: tuple[float, float], label: str) -> Iterator[str]:
    (x, y), width = place, _badge_width(label)
    label = _short(label, _MAX_ANSWER)
    yield _rect(place, width, 9, _STYLES["decision"], 9.0)
    yield _text(x, y + 4, label, f'font-size="{_DETAIL_SIZE}" fill="#1f2430"')


def _badge_width(label: str) -> float:
    return _text_width(_short(label, _MAX_ANSWER), _DETAIL_SIZE) + 12


def _text(x: float, y: float, label: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(label)}</text>'


def _curve(points: Iterable[tuple[float, float]]) -> str:
    """Return a path through points that leaves and enters each of them vertically."""
    points = list(points)
    parts = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for (x, y), (to_x, to_y) in pairwise(points):
        middle = (y + to_y) / 2
        parts.append(f"C{x:.1f},{middle:.1f} {to_x:.1f},{middle:.1f} {to_x:.1f},{to_y:.1f}")
    return " ".join(parts)


def _arrow_head(x: float, y: float) -> str:
    return f'<path d="M{x - 4:.1f},{y:.1f} L{x + 4:.1f},{y:.1f} L{x:.1f},{y + _ARROW_LENGTH:.1f} Z" fill="{_LINE}"/>'
