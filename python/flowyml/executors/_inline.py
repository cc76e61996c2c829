"""Calling steps in this process: what the local executor and thread workers share.

The loop itself is the core's (`Turn.call`, see `rust/python/turn.rs`): it reads the clock once a step, since a step
starts when the one before it ended. Here stands what it calls when a step has raised, or returned what is no value.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flowyml._pipelines import AnyPipeline
from flowyml.steps.dynamic import refusal
from flowyml.steps.once import ONCE
from flowyml.steps.step_context import StepContext, by_name
from flowyml.store.values import MISSING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol, TypeAlias

    from flowyml._core import Batch, Scheduler, Turn
    from flowyml.running.run import Run

    Failures: TypeAlias = list[tuple[int, int, BaseException]]

    class Work(Protocol):
        """What a worker is at."""

        def at(self) -> tuple[Batch, int, int] | None:
            """Return the batch, the position of the step that runs, and a number that tells it from all others."""


clock = time.monotonic


class Report:
    """What came of some steps of one batch, in order.

    Args:
        start: When the first step began (monotonic seconds).
        ends: When each step ended.
        failures: `(offset in the report, item, exception)` of those that raised; `Skipped` of those that did not run.
    """

    __slots__ = ("ends", "failures", "start")

    def __init__(self, start: float, ends: Sequence[float], failures: Failures) -> None:
        self.start = start
        self.ends = ends
        self.failures = failures


class Current:
    """Tells which step of a batch is running in this process; see `steps/step_context.py`.

    Nothing is noted for it step by step: as many steps of the batch are done as have an end.

    Args:
        run: The run.
        work: The batch that is being worked on, and the report on it.
    """

    __slots__ = ("_run", "_told", "_work")

    def __init__(self, run: Run, work: Work) -> None:
        self._run = run
        self._work = work
        self._told: tuple[int, StepContext] | None = None

    def step_context(self) -> StepContext | None:
        """Return the step that is running, the same object each time; `None` between steps."""
        at = self._work.at()
        if at is None:
            return None
        batch, position, number = at
        told = self._told  # threads that the step has started may ask, too
        if told is None or told[0] != number:
            told = self._told = (number, describe(self._run, batch, position))
        return told[1]


def describe(run: Run, batch: Batch, position: int) -> StepContext:
    """Say what is known about the step at a position of a batch that runs in this process."""
    item, plan = _item_at(batch, position), run.plan
    node, index = run.layout.place_of(item)
    template = plan.templates[node]
    assert template is not None  # noqa: S101  a plan that runs is wired
    gpus = run.devices.of(batch, plan.forms[node].options)
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
        gpus=gpus,
        devices=tuple(map(run.devices.names.__getitem__, gpus)),
    )


def _item_at(batch: Batch, position: int) -> int:
    for first, count, _, _ in batch.runs:
        if position < count:
            return first + position
        position -= count
    raise IndexError(position)


def call_steps(run: Run, turn: Turn, failures: Failures, scheduler: Scheduler | None) -> None:
    """Call the steps of a turn one after the other; failures are added, values go into the run, or are held.

    Args:
        run: The run.
        turn: What is claimed.
        failures: Gets `(position in the batch, item, exception)` of those that raised, or returned no value.
        scheduler: Where the turn reports, and claims its next batch; `None` if that is for others to do.
    """
    raw, interrupts = run.values.raw, run.interrupts

    def failed(position: int, item: int, error: BaseException) -> Any:
        if interrupts.requested and isinstance(error, KeyboardInterrupt):
            raise error
        failures.append((position, item, error))
        return MISSING

    def refused(position: int, item: int, value: Any) -> Any:
        failures.append((position, item, refusal(value, run.item_name(item))))
        return MISSING

    turn.call(
        *(run.steps, raw, failed, refused, clock(), AnyPipeline, ONCE),
        atoms=run.atoms,
        stop=run.fail_fast,
        scheduler=scheduler,
    )
