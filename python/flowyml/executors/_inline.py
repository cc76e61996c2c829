"""Calling steps in this process: what the local executor and thread workers share.

The loop is the innermost one of the package: it reads the clock once a step (a step starts when the one before it
ended) and reports a whole batch at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flowyml.step_context import StepContext, by_name
from flowyml.store.values import MISSING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from flowyml._core import Batch
    from flowyml.run import Run

    class Work(Protocol):
        """What a worker is at."""

        batch: Batch | None
        report: Report


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

    def part(self, first: int, last: int | None = None) -> Report:
        """Return what came of the steps from position `first` up to `last`, while others may still be added.

        A step counts once its end is noted: value and failure are noted before.
        """
        part = Report()
        part.start = self.ends[first - 1] if first else self.start
        part.ends = self.ends[first:last]
        end = first + len(part.ends)
        part.failures = [(offset - first, *what) for offset, *what in self.failures if first <= offset < end]  # type: ignore[misc]
        return part


class Current:
    """Tells which step of a batch is running in this process; see `step_context.py`.

    Nothing is noted for it step by step: as many steps of the batch are done as the report has ends.

    Args:
        run: The run.
        work: The batch that is being worked on, and the report on it.
    """

    __slots__ = ("_run", "_told", "_work")

    def __init__(self, run: Run, work: Work) -> None:
        """Look at nothing yet."""
        self._run = run
        self._work = work
        self._told: tuple[Batch, int, StepContext] | None = None

    def step_context(self) -> StepContext | None:
        """Return the step that is running, the same object each time; `None` between steps."""
        batch, position = self._work.batch, len(self._work.report.ends)
        if batch is None or position >= len(batch):
            return None
        if self._told is None or self._told[0] is not batch or self._told[1] != position:
            self._told = (batch, position, describe(self._run, batch, position))
        return self._told[2]


def describe(run: Run, batch: Batch, position: int) -> StepContext:
    """Say what is known about the step at a position of a batch that runs in this process."""
    item, plan = _item_at(batch, position), run.plan
    node, index = run.layout.place_of(item)
    template = plan.templates[node]
    assert template is not None  # noqa: S101  a plan that runs is wired
    return StepContext(
        run_id=run.run_id,
        pipeline_name=plan.name,
        step_name=plan.item_name(node, index),
        index=index,
        attempt=run.trials.current(item),
        params=by_name(plan.function_of(node), template.keywords, run.calls.arguments(item)),
        worker=batch.worker,
        seed=run.calls.seed_of(item),
        checkpoint_dir=run.checkpoint_dir,
    )


def _item_at(batch: Batch, position: int) -> int:
    for first, count, _, _ in batch.runs:
        if position < count:
            return first + position
        position -= count
    raise IndexError(position)


def call_items(run: Run, items: Iterable[int], report: Report, held: dict[int, Any] | None = None) -> None:
    """Call the steps of these items one after the other; times and failures go into the report.

    Values go into the run, or where `held` is given into that: a thread may be given up, and then nothing of its steps
    must reach the run.
    """
    call, ends = run.call, report.ends
    raw: Any = run.values.raw if held is None else held
    for item in items:
        try:
            raw[item] = call(item)
        except BaseException as error:
            if run.interrupts.requested and isinstance(error, KeyboardInterrupt):
                raise
            raw[item] = MISSING
            report.failures.append((len(ends), item, error))
        ends.append(clock())
