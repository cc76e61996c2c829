"""LocalExecutor: in this process, one step at a time; in the caller's thread, but for steps that have a time limit."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, ClassVar, Literal

from flowyml.executors.executor import Executor

if TYPE_CHECKING:
    from flowyml._core import Batch
    from flowyml.executors.in_process import ThreadBatch
    from flowyml.runtime.run import Run
    from flowyml.steps.timeout import TimeLimits

clock = time.monotonic

# Reporting a batch costs about as much as ten calls of the loop; past a few hundred steps nothing more is gained.
_MAX_BATCH = 256


class LocalExecutor(Executor):
    """Runs one step at a time in the calling thread, in add order among what is ready; the default.

    Steps that have a `timeout` run in a helper thread, one at a time as well, while the calling thread waits.

    >>> from flowyml import LocalExecutor, Pipeline
    >>> Pipeline("one").add_step(max, params={"a": 1, "b": 2}).run(executor=LocalExecutor())["max"]
    2
    """

    order: ClassVar[Literal["critical_path", "add"]] = "add"

    def __repr__(self) -> str:
        """Show it as it is made."""
        return "LocalExecutor()"

    def execute(self, run: Run) -> None:
        """Run all steps, here and now."""
        from flowyml._extension import ThreadCallLoop
        from flowyml.executors.in_process import CurrentStep, ReportFlusher, ThreadBatch
        from flowyml.steps.current_step import step_context_provider

        limits, turn = run.time_limits, ThreadCallLoop(most=1 if run.fail_fast else _MAX_BATCH)
        claimed = ThreadBatch(turn=turn)
        with step_context_provider(CurrentStep(run, claimed)):
            if limits is not None:
                _run_with_limits(run, claimed, limits)
                return
            with ReportFlusher(run, claimed) if run.reports_early else nullcontext():
                while not run.finished:
                    _one_batch(run, claimed, run.claim(0, turn.limit(0), clock(), 0.1))


def _one_batch(run: Run, claimed: ThreadBatch, batch: Batch | None, count: int | None = None) -> None:
    """Call a batch, or only its first steps; steps that ended before a Ctrl-C are reported."""
    if batch is None:
        _idle(run)
        return
    run.deliver_events()
    claimed.begin(batch, count)
    try:
        with run.interrupts.may_raise(claimed.turn):
            claimed.call(run, goes_on=count is None)
    finally:
        claimed.deliver(run)
        run.flush_journal()
    run.deliver_events()


def _idle(run: Run) -> None:
    """Deliver events while the run waits for the delay of a retry, or for tokens of an abandoned step."""
    run.interrupts.check()
    run.deliver_events()
    run.check_progress()


def _run_with_limits(run: Run, claimed: ThreadBatch, limits: TimeLimits) -> None:
    """Run all steps, those with a time limit in a helper thread; steps for the other thread go back first."""
    from flowyml.executors.timed_thread import TimedThread

    most = 1 if run.fail_fast else _MAX_BATCH
    helper, size = TimedThread(run, limits, most), 1
    try:
        while not run.finished:
            batch = run.claim(0, 1 if run.fail_fast else size, clock(), 0.1)
            if batch is None:
                _idle(run)
                continue
            count = _equally_limited(batch, limits)
            if count < len(batch):
                run.scheduler.give_back(batch, count, len(batch) - count)
            size = 1 if run.reports_early and not limits.everywhere else min(_MAX_BATCH, 2 * count)
            if limits.of(batch.item(0)) < math.inf:
                run.deliver_events()
                helper.call(batch, count, goes_on=limits.everywhere)
                run.deliver_events()
            else:
                _one_batch(run, claimed, batch, count)
    finally:
        helper.close()


def _equally_limited(batch: Batch, limits: TimeLimits) -> int:
    """Return how many of the first items are alike: all have a time limit, or none has one."""
    if limits.everywhere:
        return len(batch)
    limited, count = limits.of(batch.item(0)) < math.inf, 0
    for first, length, _, index in batch.runs:
        for item in range(first, first + (length if index is None else 1)):
            if (limits.of(item) < math.inf) is not limited:
                return count
            count += 1 if index is None else length
    return count
