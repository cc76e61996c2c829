"""Steps in this process: the batch that one thread has claimed, and how its steps are called and reported.

```
begin(batch) ──▶ call loop: left ──the thread takes them in order──▶ running ──▶ ends ──deliver()──▶ run
                               └──▶ take_back(): to the scheduler          └──▶ expire(): timed out, thread abandoned
```

The loop is the core's (`ThreadCallLoop.call`): it reads the clock once a step, since a step starts when the one before
it ended. This module handles a step that raises or returns an invalid value.

The thread itself needs no lock for a step: the number of `turn.ends` shows that a step has ended, and the end of the
step before it shows when it began. Other threads look under the lock. If steps have time limits, the loop *holds*
values until they are reported, so that an abandoned thread cannot write into the run.

`ReportFlusher` reports, for runs that write a journal, while a thread is in a long step; other runs may wait for the
end of the batch.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from flowyml._extension import ThreadCallLoop
from flowyml.cancellation import cancel_thread
from flowyml.runtime.run import BatchReport
from flowyml.steps.context import StepContext, by_name
from flowyml.steps.dynamic import refusal
from flowyml.steps.outcomes import SINGLE_USE_TYPES, PipelineBase
from flowyml.steps.timeout import StepExpired
from flowyml.store.value_store import MISSING

if TYPE_CHECKING:
    from types import TracebackType

    from flowyml._core import Batch, EndTimes, Scheduler
    from flowyml.runtime.run import Run
    from flowyml.steps.timeout import TimeLimits


# Checking more often than this gains nothing: a limit is kept to some tens of milliseconds.
_MIN_CHECK_SECONDS = 0.01


class ThreadBatch:
    """Steps of one batch in the hands of one thread.

    Args:
        limits: The time limits of the run's steps, if there are any.
        turn: What counts the steps; by default one that takes one batch after the other. With limits it holds values.

    Attributes:
        abandoned: The thread was given up; nothing of it reaches the run any more.
        turn: The steps.
        failures: `(position in the batch, item, exception)` of those that raised.
    """

    __slots__ = (
        *("_kept", "_limits", "_lock", "_thread"),
        *("abandoned", "at", "failures", "turn"),
    )

    def __init__(self, limits: TimeLimits | None = None, turn: ThreadCallLoop | None = None) -> None:
        self._lock = threading.Lock()
        self._limits = limits
        self._thread = 0
        self._kept: Batch | None = None  # its tokens are kept until this thread ends its step
        self.abandoned = False
        self.turn = ThreadCallLoop(holds=limits is not None) if turn is None else turn
        self.at = self.turn.at
        self.failures: Failures = []

    def begin(self, batch: Batch, count: int | None = None) -> None:
        """Take over a batch, or the first `count` items of it."""
        with self._lock:
            self.failures = []
            self.turn.begin(batch, clock(), count)

    def call(self, run: Run, *, goes_on: bool = True) -> None:
        """Call the steps in this thread, until nothing is left here.

        Where a report means nothing but itself, batch after batch, until nothing is ready; `deliver` then has the rest.

        Args:
            run: The run.
            goes_on: This thread may call whatever is ready.
        """
        self._thread = threading.get_ident()
        try:
            call_steps(run, self.turn, self.failures, run.scheduler if goes_on and run.can_report_directly else None)
        finally:
            if self._limits is not None:
                self._return_tokens(run)

    def _return_tokens(self, run: Run) -> None:
        """Return the tokens of a step that was abandoned, now that it has ended."""
        with self._lock:
            kept, self._kept = self._kept, None
            if kept is not None:
                run.scheduler.return_tokens(kept)

    def deliver(self, run: Run, *, patience: float = 0.0) -> tuple[int, bool]:
        """Report the ended steps that were not reported; return their number, and True if one failed.

        Args:
            run: The run.
            patience: Do nothing while the worker has ended a step more recently than this.
        """
        with self._lock:
            if self.abandoned:
                return 0, False
            before = clock() - patience if patience else math.inf
            found = self.turn.report(before, into=run.values.raw)
            return (0, False) if found is None else self._deliver(run, *found)

    def _deliver(self, run: Run, batch: Batch, position: int, start: float, ends: EndTimes) -> tuple[int, bool]:
        end = position + len(ends)
        failures = [(at - position, item, error) for at, item, error in self.failures if position <= at < end]
        failed = run.complete(batch, position, BatchReport(start, ends, failures))
        return len(ends), failed > 0

    def take_back(self, run: Run, *, everything: bool = False) -> bool:
        """Give half (or all) of the steps that have not begun back; return True if there was one."""
        with self._lock:
            return self._take_back(run, everything=everything)

    def _take_back(self, run: Run, *, everything: bool) -> bool:
        left = self.turn.left
        taken = self.turn.take_back(left if everything else -(-left // 2)) if left else None
        if taken is not None:
            run.scheduler.give_back(*taken)
        return taken is not None

    # -- time limits

    def due(self) -> float:
        """Return when the step that runs is over its time; `inf` if none runs, or if it has no limit."""
        with self._lock:
            return self._due(self.turn.running())

    def _due(self, running: tuple[Batch, int, int, float] | None) -> float:
        if running is None or self._limits is None:
            return math.inf
        batch, position, _, start = running
        return start + self._limits.of(batch.item(position))

    def expire(self, run: Run) -> bool:
        """Report the running step as timed out and abandon the thread, if the limit is exceeded; return True then.

        Costs next to nothing if it is not. Else what is not begun goes back to the scheduler: then the thread can begin
        nothing of this batch, and if it is in the same step after that, the step is what is over its time.
        """
        with self._lock:
            running = self.turn.running()
            if self.abandoned or self._limits is None or running is None or clock() < self._due(running):
                return False
            self._take_back(run, everything=True)
            batch, position, number, start = running
            if not self.turn.abandon(number):
                return False
            done = self.turn.report(most=position, into=run.values.raw)
            if done is not None:
                self._deliver(run, *done)
            self.abandoned = True
            item = batch.item(position)
            run.scheduler.keep_tokens(batch)
            self._kept = batch
            run.complete(
                batch, position, BatchReport(start, [clock()], [(0, item, StepExpired(self._limits.of(item)))])
            )
        if not cancel_thread(self._thread):
            self._limits.warn_left_behind(run.item_name(item), self._limits.of(item))
        return True

    def leave(self) -> None:
        """Give the thread up, whatever it is in: the run is over, and nothing of it reaches the run any more."""
        with self._lock:
            self.abandoned = True
            self.turn.abandon()


def look_in(due: float, limits: TimeLimits) -> float:
    """Return in how many seconds to look again, where a step is over its time at `due`, or others have yet to begin."""
    return max(_MIN_CHECK_SECONDS, min(due - clock(), limits.shortest))


REPORT_INTERVAL_SECONDS = 0.02
"""How often threads that are in a long step are checked for ended steps."""

MIN_REPORT_AGE_SECONDS = 0.005
"""A thread that has ended a step more recently than this will report soon itself."""


class ReportFlusher:
    """Reports the ended steps of a batch at intervals while its thread is in a step.

    Args:
        run: The run.
        claimed: What the thread has claimed.
    """

    def __init__(self, run: Run, claimed: ThreadBatch) -> None:
        self._run = run
        self._claimed = claimed
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go, name="flowyml-report", daemon=True)

    def _go(self) -> None:
        while not self._over.wait(REPORT_INTERVAL_SECONDS):
            _, failed = self._claimed.deliver(self._run, patience=MIN_REPORT_AGE_SECONDS)
            if failed and self._run.fail_fast:
                self._claimed.take_back(self._run, everything=True)
            self._run.flush_journal()

    def __enter__(self) -> Self:
        """Start reporting."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop; the thread itself reports the rest."""
        self._over.set()
        self._thread.join()


if TYPE_CHECKING:
    from typing import Protocol, TypeAlias

    Failures: TypeAlias = list[tuple[int, int, BaseException]]

    class RunningWork(Protocol):
        """The step that a worker is in."""

        def at(self) -> tuple[Batch, int, int] | None:
            """Return the batch, the position of the step that runs, and a number that tells it from all others."""


clock = time.monotonic


class CurrentStep:
    """The step of a batch that is running in this process; see `steps/context.py`.

    Nothing is noted for it step by step: as many steps of the batch are done as have an end.

    Args:
        run: The run.
        work: The batch that is being worked on, and the report on it.
    """

    __slots__ = ("_run", "_told", "_work")

    def __init__(self, run: Run, work: RunningWork) -> None:
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
    """Return the context of the step at a position of a batch that runs in this process."""
    item, plan = _item_at(batch, position), run.plan
    node, index = run.item_index.place_of(item)
    template = plan.templates[node]
    assert template is not None  # noqa: S101  a plan that runs is wired
    limits = run.resource_limits
    gpus = () if limits is None else limits.devices.of(batch, plan.specs[node].options)
    return StepContext(
        run_id=run.run_id,
        pipeline_name=plan.name,
        step_name=plan.item_name(node, index),
        index=index,
        attempt=run.attempt_of(item),
        params=by_name(plan.function_of(node), template.keywords, run.calls.arguments(item)),
        worker=batch.worker,
        seed=run.calls.seed_of(item),
        checkpoint_dir=run.checkpoint_dir,
        gpus=gpus,
        devices=tuple(map(run.device_names.__getitem__, gpus)),
    )


def _item_at(batch: Batch, position: int) -> int:
    for first, count, _, _ in batch.runs:
        if position < count:
            return first + position
        position -= count
    raise IndexError(position)


def call_steps(run: Run, turn: ThreadCallLoop, failures: Failures, scheduler: Scheduler | None) -> None:
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
        *(run.steps, raw, failed, refused, clock(), PipelineBase, SINGLE_USE_TYPES),
        atoms=run.atoms,
        stop=run.fail_fast,
        scheduler=scheduler,
    )
