"""What a group of cases tells the harness: what to measure, what to compare and which figures it ought to reach.

```
Group ─ cases ──▶ Case ── start, then its phases one by one (timed), check, stop: in a process of its own
      ├ sizes     how big, how many rounds; a round measures every case once, so that cases alternate
      ├ pairs     which case is set beside which baseline
      └ bars      what ought to hold, read from the figures
```

A new subject joins as a file in this folder with a `GROUP`, and a line in `catalogue.py`. Nothing here knows how
processes are started or figures kept.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from figures import Figures

    from cases.pair import Pair

WORKERS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""As many workers as there are usable CPUs, here and in every baseline."""

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether threads of this interpreter run Python code at the same time."""


class Case:
    """One thing to measure; made in a fresh process for each measurement.

    Args:
        size: How much of it.
        data: The folder that the group's `prepare` has filled.

    Attributes:
        units: What the wall time of a phase is divided by.
        phases: Names of the methods that are timed, in order.
        command: Arguments of the interpreter, for a case that is measured as a whole and from outside.
        needs: Packages that it imports; where one is not installed it is skipped, with a line.
        needs_free_threads: Skipped, with a line, where Python has a global lock.
        further: Figures that only this case has, by name.
    """

    phases: ClassVar[tuple[str, ...]] = ("run",)
    command: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    needs_free_threads: ClassVar[bool] = False

    def __init__(self, size: int, data: Path) -> None:
        self.size = self.units = size
        self.data = data
        self.further: dict[str, float] = {}

    def start(self) -> None:
        """Make ready what is there before the measurement, such as warm workers."""

    def check(self) -> None:
        """Raise if the outcome is not right: a wrong answer has no speed."""

    def stop(self) -> None:
        """Let go of what `start` made."""


@dataclass(frozen=True)
class Bar:
    """A figure that ought to be reached.

    Attributes:
        text: What is measured, in words.
        most: The bar; the figure must not be above it.
        read: Reads the figure; `None` (or a `LookupError`) where it was not measured.
        unit: Unit of both.
    """

    text: str
    most: float
    read: Callable[[Figures], float | None]
    unit: str = ""


@dataclass(frozen=True)
class Group:
    """Cases that are measured in turn.

    Attributes:
        title: What it is about, for the table.
        unit: Name of the unit in which costs are told, with its number in a second.
        cases: The cases by name.
        sizes: Rounds by size.
        quick: The same for a look whether everything works.
        prepare: Fills a folder with what the cases of one size read.
    """

    title: str
    unit: tuple[str, float]
    cases: Mapping[str, type[Case]]
    sizes: Mapping[int, int]
    quick: Mapping[int, int]
    pairs: tuple[Pair, ...] = ()
    bars: tuple[Bar, ...] = ()
    prepare: Callable[[Path, int], None] | None = None
