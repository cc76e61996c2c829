"""A graph as text: one line for each step, in the order in which one worker would run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml.graph.model import GraphModel, NodeBox

# A step may have thousands of dependencies; a line names this many.
_MAX_NAMED = 20


def text(picture: GraphModel) -> str:
    """Return the graph as lines.

    >>> from flowyml.graph.model import NodeBox, GraphModel
    >>> print(text(GraphModel("p", (NodeBox("load_data", "load_data"), NodeBox("preprocess", "preprocess", (0,))), 2)))
    Pipeline DAG: p
    <BLANKLINE>
    Step Execution Order:
      1. load_data
      2. preprocess (depends on: load_data)
    """
    return "\n".join(_lines(picture))


def _lines(picture: GraphModel) -> Iterator[str]:
    steps = [(position, box) for position, box in enumerate(picture.boxes) if not box.given]
    inputs = [box for box in picture.boxes if box.given]
    yield from (f"Pipeline DAG: {one_line(picture.name)}", "")
    if inputs:
        yield from (f"Inputs of the run: {', '.join(map(_named, inputs))}", "")
    yield "Step Execution Order:"
    for number, (position, box) in enumerate(steps, 1):
        if position < picture.ordered:
            yield f"  {number}. {_named(box)}{_waits(box, picture)}"
    if picture.ordered < len(picture.boxes):
        yield from ("", "In no order, because of a cycle:")
        yield from (f"  - {_named(box)}{_waits(box, picture)}" for box in picture.boxes[picture.ordered :])


def _named(box: NodeBox) -> str:
    detail = "" if box.given and box.size == 1 else box.detail
    return one_line(f"{box.title} ({detail})" if detail else box.title)


def _waits(box: NodeBox, picture: GraphModel) -> str:
    if not box.dependencies:
        return ""
    answers = {before: f" is {answer}" for before, answer in box.answers}
    named = box.dependencies[:_MAX_NAMED]
    titles = [one_line(picture.boxes[before].title + answers.get(before, "")) for before in named]
    more = len(box.dependencies) - len(titles)
    return f" (depends on: {', '.join(titles)}{f' and {more:,} more' if more else ''})"


def one_line(label: str) -> str:
    r"""Return a name as one line of printable characters.

    >>> one_line("a\nb")
    'a b'
    """
    return "".join(letter if letter.isprintable() else " " for letter in label)
