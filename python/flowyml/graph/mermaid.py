"""A graph as a mermaid flowchart, which GitHub, GitLab and many notebooks render.

Nodes are called n0, n1, ..., and characters in labels that mermaid or HTML would read as syntax are written as numeric
entities in mermaid's form ("#34;").
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

from flowyml.graph.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml.graph.model import GraphModel, NodeBox

_SYNTAX = frozenset('"#&;<>`\\%$')
# Mermaid rejects labels that begin like a list ("Unsupported markdown: list"), unless the space is a no-break space.
_LIST = re.compile(r"^(\d+[.)]|[-+*]) ")
# Brackets of a step, of one with several calls, of an input, and of a decision.
_STEP, _MANY, _INPUT, _DECISION = ("[", "]"), ("[[", "]]"), ("([", "])"), ("{", "}")


def mermaid(picture: GraphModel) -> str:
    """Return the graph as a flowchart from top to bottom.

    >>> from flowyml.graph.model import NodeBox, GraphModel
    >>> print(mermaid(GraphModel("p", (NodeBox("a", "a"), NodeBox("b", "b", (0,))), 2)))
    flowchart TD
        n0["a"]
        n1["b"]
        n0 --> n1
    """
    return "\n".join(_lines(picture))


def _lines(picture: GraphModel) -> Iterator[str]:
    yield "flowchart TD"
    indent, groups = "    ", count()
    for part in picture.nested():
        if part is None:
            indent = indent[:-4]
            yield f"{indent}end"
        elif isinstance(part, tuple):
            yield f'{indent}subgraph g{next(groups)}["{_escaped(part[1])}"]'
            indent += "    "
        else:
            box = picture.boxes[part]
            opening, closing = _shape(box)
            yield f'{indent}n{part}{opening}"{_label(box)}"{closing}{":::optional" if box.optional else ""}'
    for before, position in picture.edges:
        arrow = "-.->" if picture.boxes[before].given else "-->"
        answer = picture.answer(before, position)
        label = f'|"{_escaped(answer)}"|' if answer else ""
        yield f"    n{before} {arrow}{label} n{position}"
    if any(box.optional for box in picture.boxes):
        yield "    classDef optional stroke-dasharray: 5 4"


def _shape(box: NodeBox) -> tuple[str, str]:
    if box.given:
        return _INPUT
    if box.decides:
        return _DECISION
    return _MANY if box.size > 1 or box.items is not None else _STEP


def _label(box: NodeBox) -> str:
    detail = "" if box.decides else box.detail
    return "<br/>".join(_escaped(part) for part in (box.short_title, detail) if part)


def _escaped(label: str) -> str:
    """Write syntax characters as entities.

    >>> _escaped('say "a" < b #1')
    'say #34;a#34; #60; b #35;1'
    """
    line = _LIST.sub("\\1\N{NO-BREAK SPACE}", one_line(label))
    return "".join(f"#{ord(letter)};" if letter in _SYNTAX else letter for letter in line)
