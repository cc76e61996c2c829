"""Calling steps in this process: what the local executor and thread workers share.

The loop is the innermost one of the package: it reads the clock once a step (a step starts when the one before it
ended) and reports a whole batch at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flowyml.store.values import MISSING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowyml.run import Run

clock = time.monotonic


class Report:
    """What came of the steps of one batch, in order.

    Attributes:
        start: When the first step began (monotonic seconds).
        ends: When each step ended.
        failures: `(offset in the batch, item, exception)` of those that raised; `Skipped` of those that did not run.
    """

    __slots__ = ("ends", "failures", "start")

    def __init__(self) -> None:
        """Begin now."""
        self.start = clock()
        self.ends: list[float] = []
        self.failures: list[tuple[int, int, BaseException]] = []

    def part(self, first: int) -> Report:
        """Return what came of the steps from position `first` on, while others may still be added.

        A step counts once its end is noted: value and failure are noted before.
        """
        part = Report()
        part.start = self.ends[first - 1] if first else self.start
        part.ends = self.ends[first:]
        end = first + len(part.ends)
        part.failures = [(offset - first, *what) for offset, *what in self.failures if first <= offset < end]  # type: ignore[misc]
        return part


def call_items(run: Run, items: Iterable[int], report: Report) -> None:
    """Call the steps of these items one after the other; values go into the run, times and failures into the report."""
    call, raw, ends = run.call, run.values.raw, report.ends
    for item in items:
        try:
            raw[item] = call(item)
        except BaseException as error:
            if run.interrupts.requested and isinstance(error, KeyboardInterrupt):
                raise
            raw[item] = MISSING
            report.failures.append((len(ends), item, error))
        ends.append(clock())
