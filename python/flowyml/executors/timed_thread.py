"""A thread of the local executor for steps that have a time limit: the caller waits until the limit is exceeded.

```
LocalExecutor ──steps without a limit──▶ called here
              └─steps with one──▶ TimedThread ──ThreadBatch──▶ call ──▶ done
                                  caller waits ──limit exceeded──▶ timed out, the thread abandoned and replaced
```

One step runs at a time, in the usual order; consecutive steps with a limit are passed to the thread together. If all
steps have one, the thread claims further batches itself: passing a batch costs as much as a hundred empty steps.
"""

from __future__ import annotations

import queue
import threading
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, TypeAlias

from flowyml._extension import ThreadCallLoop
from flowyml.executors.in_process import (
    MIN_REPORT_AGE_SECONDS,
    REPORT_INTERVAL_SECONDS,
    CurrentStep,
    ThreadBatch,
    look_in,
)
from flowyml.steps.current_step import step_context_provider

if TYPE_CHECKING:
    from flowyml._core import Batch
    from flowyml.runtime.run import Run
    from flowyml.steps.timeout import TimeLimits

Inbox: TypeAlias = "queue.SimpleQueue[tuple[ThreadBatch, _Completion, Context, bool] | None]"

# The caller waits in slices, so that it hears of a step that ends late in its time.
_WAIT_SECONDS = 0.1


class _Completion:
    """Tells when the steps of one `ThreadBatch` have ended, and what went wrong beyond them."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.trouble: BaseException | None = None


class TimedThread:
    """Calls steps in a thread of its own while the caller waits.

    Args:
        run: The run.
        limits: The time limits of its steps.
        most: The most steps that the thread claims at once.
    """

    def __init__(self, run: Run, limits: TimeLimits, most: int) -> None:
        self._run = run
        self._limits = limits
        self._most = most
        self._thread: threading.Thread | None = None
        self._inbox: Inbox = queue.SimpleQueue()

    def call(self, batch: Batch, count: int, *, goes_on: bool) -> None:
        """Call the first steps of a batch, all of which have a time limit, and report them to the run.

        Those behind one that was over its time go back to the scheduler.

        Args:
            batch: What was claimed.
            count: How many of it.
            goes_on: The thread may call what is ready after that.
        """
        claimed, done = ThreadBatch(self._limits, ThreadCallLoop(most=self._most, holds=True)), _Completion()
        claimed.begin(batch, count)
        self._started().put((claimed, done, copy_context(), goes_on))
        try:
            while not self._wait(claimed, done):
                if claimed.expire(self._run):
                    self._forget()
                    return
        except BaseException:
            claimed.turn.clear()
            claimed.take_back(self._run, everything=True)
            claimed.deliver(self._run)
            claimed.leave()
            self._forget()
            raise
        claimed.deliver(self._run)
        self._run.flush_journal()
        if done.trouble is not None:
            raise done.trouble

    def close(self) -> None:
        """End the thread, which is in no step."""
        thread = self._thread
        self._forget()
        if thread is not None:
            thread.join()

    def _wait(self, claimed: ThreadBatch, done: _Completion) -> bool:
        run = self._run
        longest = min(run.poll_interval(_WAIT_SECONDS), look_in(claimed.due(), self._limits))
        with run.interrupts.may_raise():
            ended = done.event.wait(min(longest, REPORT_INTERVAL_SECONDS) if run.reports_early else longest)
            if not ended:
                run.deliver_events()
        if run.reports_early and not ended:
            claimed.deliver(run, patience=MIN_REPORT_AGE_SECONDS)
            run.flush_journal()
        return ended

    def _started(self) -> Inbox:
        if self._thread is None:
            self._inbox = queue.SimpleQueue()
            self._thread = threading.Thread(
                target=_serve, args=(self._inbox, self._run), name="flowyml-local", daemon=True
            )
            self._thread.start()
        return self._inbox

    def _forget(self) -> None:
        """Let go of the thread: it ends after the step that it is in, if it ends."""
        self._inbox.put(None)
        self._thread = None


def _serve(inbox: Inbox, run: Run) -> None:
    while (work := inbox.get()) is not None:
        claimed, done, context, goes_on = work
        try:
            context.run(_call, run, claimed, goes_on=goes_on)
        except BaseException as error:  # noqa: BLE001  the caller raises it
            done.trouble = error
        done.event.set()
        del work, claimed, done, context


def _call(run: Run, claimed: ThreadBatch, *, goes_on: bool) -> None:
    with step_context_provider(CurrentStep(run, claimed)):
        claimed.call(run, goes_on=goes_on)
