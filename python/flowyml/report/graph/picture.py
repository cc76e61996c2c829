"""What a picture of a graph shows: boxes, and which waits for which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from flowyml._words import counted


class Box(NamedTuple):
    """One box: a step, several like steps, or an input of the run.

    Attributes:
        first: Name of the step; of several, of the first.
        label: The name under which the step was declared, often that of its function.
        dependencies: The boxes that it waits for, by position.
        last: Name of the last of several steps.
        size: How many steps it stands for.
        items: How many items a mapped step has (each, if there are several).
        given: Whether it is an input that `run(inputs=)` has to give, and no step.
    """

    first: str
    label: str
    dependencies: tuple[int, ...] = ()
    last: str = ""
    size: int = 1
    items: int | None = None
    given: bool = False

    @property
    def title(self) -> str:
        """The name, or the first and the last of several."""
        return self.first if self.size == 1 else f"{self.first} ... {self.last}"

    @property
    def detail(self) -> str:
        """What else there is to say: how many, and of what; "" for a step under its own name."""
        what = "run inputs" if self.given else self.label
        if self.size > 1:
            each = "" if self.items is None else f", {counted(self.items, 'item')} each"
            return f"{self.size:,} x {what}{each}"
        if self.items is not None:
            return f"{counted(self.items, 'item')}{self.of(' of ')}"
        return "run input" if self.given else ""

    def of(self, before: str = "") -> str:
        """Return what the step was declared as, where that is not its name."""
        return "" if self.label in {self.first, "", "lambda"} else f"{before}{self.label}"


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
