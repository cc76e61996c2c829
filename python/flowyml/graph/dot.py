"""A graph in the language of graphviz."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from flowyml.graph.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml.graph.model import GraphModel, NodeBox


def dot(picture: GraphModel) -> str:
    """Return the graph as a digraph from top to bottom.

    >>> from flowyml.graph.model import NodeBox, GraphModel
    >>> print(dot(GraphModel("p", (NodeBox("a", "a"), NodeBox("b", "b", (0,))), 2)))
    digraph "p" {
        rankdir=TB;
        node [shape=box, style=rounded, fontname="Helvetica"];
        n0 [label="a"];
        n1 [label="b"];
        n0 -> n1;
    }
    """
    return "\n".join(_lines(picture))


def _lines(picture: GraphModel) -> Iterator[str]:
    yield f'digraph "{_escaped(picture.name)}" {{'
    yield "    rankdir=TB;"
    yield '    node [shape=box, style=rounded, fontname="Helvetica"];'
    indent, groups = "    ", count()
    for part in picture.nested():
        if part is None:
            indent = indent[:-4]
            yield f"{indent}}}"
        elif isinstance(part, tuple):
            yield f"{indent}subgraph cluster_{next(groups)} {{"
            indent += "    "
            yield f'{indent}label="{_escaped(part[1])}"; style=rounded; color=gray; fontname="Helvetica";'
        else:
            box = picture.boxes[part]
            yield f'{indent}n{part} [label="{_label(box)}"{_manner(box)}];'
    for before, position in picture.edges:
        style = " [style=dashed]" if picture.boxes[before].given else ""
        answer = picture.answer(before, position)
        label = f' [label="{_escaped(answer)}"]' if answer else ""
        yield f"    n{before} -> n{position}{label}{style};"
    yield "}"


def _manner(box: NodeBox) -> str:
    if box.given:
        return ", shape=oval, style=dashed"
    if box.decides:
        return ", shape=diamond, style=solid"
    dashed = ', style="rounded,dashed"' if box.optional else ""
    return dashed + (", peripheries=2" if box.size > 1 or box.items is not None else "")


def _label(box: NodeBox) -> str:
    detail = "" if box.decides else box.detail
    return "\\n".join(_escaped(part) for part in (box.short_title, detail) if part)


def _escaped(label: str) -> str:
    r"""Escape a name for use between quotes.

    >>> print(_escaped('a "b" \\ c'))
    a \"b\" \\ c
    """
    return one_line(label).replace("\\", "\\\\").replace('"', '\\"')
