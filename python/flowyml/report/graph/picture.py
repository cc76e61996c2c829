"""What a picture of a graph shows: boxes, and which waits for which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml.messages.words import counted
from flowyml.planning.layout import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

JOIN = "join"


class Box(NamedTuple):
    """One box: a step, several like steps, or an input of the run.

    Attributes:
        first: Name of the step; of several, of the first.
        label: The name under which the step was declared, often that of its function.
        dependencies: The boxes that it waits for, by position.
        last: Name of the last of several steps.
        size: How many steps it stands for.
        items: How many items a mapped step has (each, if there are several); `UNKNOWN` if only a run tells.
        given: Whether it is an input that `run(inputs=)` has to give, and no step.
        groups: The sub-pipelines that it is in, by their whole names, from the outmost to the inmost.
        decides: Whether it is a decision between steps.
        manner: What else decides whether it runs, in a few words: "join", "if large", "conditional".
        answers: Decisions that it waits for, by position, and the answer with which it runs.
        state: After a run, how it ended; "" before.
        note: What else there is to say of that.
    """

    first: str
    label: str
    dependencies: tuple[int, ...] = ()
    last: str = ""
    size: int = 1
    items: int | None = None
    given: bool = False
    groups: tuple[str, ...] = ()
    decides: bool = False
    manner: tuple[str, ...] = ()
    answers: tuple[tuple[int, str], ...] = ()
    state: str = ""
    note: str = ""

    @property
    def title(self) -> str:
        """The name, or the first and the last of several."""
        return self.first if self.size == 1 else f"{self.first} ... {self.last}"

    @property
    def short_title(self) -> str:
        """The title for a place where its sub-pipeline is named already."""
        prefix = f"{self.groups[-1]}." if self.groups else ""
        inside = self._replace(first=self.first.removeprefix(prefix), last=self.last.removeprefix(prefix))
        return inside.title

    @property
    def optional(self) -> bool:
        """Whether something beside its dependencies decides whether it runs."""
        return bool(self.answers) or any(each != JOIN for each in self.manner)

    @property
    def detail(self) -> str:
        """What else there is to say: how many, of what, and when; "" for a step under its own name."""
        parts = (self._many(), "decision" if self.decides else "", *self.manner)
        return ", ".join(filter(None, parts))

    def _many(self) -> str:
        what = "run inputs" if self.given else self.label
        if self.size > 1:
            each = "" if self.items is None else f", {told(self.items)} each"
            return f"{self.size:,} x {what}{each}"
        if self.items is not None:
            return f"{told(self.items)}{self.of(' of ')}"
        return "run input" if self.given else ""

    def of(self, before: str = "") -> str:
        """Return what the step was declared as, where that is not its name."""
        return "" if self.label in {self.first, "", "lambda"} else f"{before}{self.label}"


def told(items: int) -> str:
    """Return a number of items in words."""
    return "items known at run time" if items == UNKNOWN else counted(items, "item")


@dataclass(frozen=True, slots=True)
class Picture:
    """A graph to be drawn.

    Attributes:
        name: Name of the pipeline.
        boxes: In execution order, then those that are in or behind a cycle.
        ordered: How many of them are in execution order.
    """

    name: str
    boxes: tuple[Box, ...]
    ordered: int

    @property
    def edges(self) -> list[tuple[int, int]]:
        """All edges as (dependency, dependent), in the order of the dependents."""
        return [(before, position) for position, box in enumerate(self.boxes) for before in box.dependencies]

    def answer(self, before: int, position: int) -> str:
        """Return what a decision must have answered for a box that waits for it; "" for other edges."""
        return dict(self.boxes[position].answers).get(before, "")

    @property
    def groups(self) -> dict[str, list[int]]:
        """By sub-pipeline the boxes in it, also those in further ones, by position; outer ones first."""
        groups: dict[str, list[int]] = {}
        for position, box in enumerate(self.boxes):
            for name in box.groups:
                groups.setdefault(name, []).append(position)
        return groups

    def nested(self) -> Iterator[int | tuple[str, str] | None]:
        """Go through the boxes group by group.

        Yields:
            The position of a box; where a group begins, its whole name and its name in the one around it; `None` where
            it ends.
        """
        yield from self._within(range(len(self.boxes)), 0, "")

    def _within(self, positions: Iterable[int], depth: int, prefix: str) -> Iterator[int | tuple[str, str] | None]:
        parts: dict[str | int, list[int]] = {}
        for position in positions:
            groups = self.boxes[position].groups
            parts.setdefault(groups[depth] if len(groups) > depth else position, []).append(position)
        for part, members in parts.items():
            if isinstance(part, int):
                yield part
            else:
                yield part, part.removeprefix(prefix)
                yield from self._within(members, depth + 1, f"{part}.")
                yield None
