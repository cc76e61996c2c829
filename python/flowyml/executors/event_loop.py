"""The async backend: one event loop in a thread of its own, in which coroutine steps run concurrently.

```
caller waits ◀── done ── EventLoopRun: claim a step for each free slot ──▶ task ──▶ complete ──▶ claim again
                            ▲                                                └ plain function: a helper thread
                            └── timers: the next retry, the next time limit
```

At most as many steps as the executor has workers are in progress; each has a slot, which is its worker number. A step
is claimed when it begins, so nothing has to be taken back. Everything happens in the thread of the loop, between two
awaits of steps; only plain functions run in other threads, so that one that blocks does not block the others. The loop
stays between runs, with the sessions and connections that steps keep in it.

A step that exceeds its time limit is cancelled. If it does not end soon after, it is left behind, and can no longer
reach the run. A step whose task is cancelled by another step (steps share the loop) fails with a `CancelledError`, also
if it is a plain function, which continues in its thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import weakref
from contextvars import Context, copy_context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml.cancellation import cancel_thread
from flowyml.executors.in_process import CurrentStep, clock, look_in
from flowyml.executors.threads import owners
from flowyml.runtime import random_seeds
from flowyml.runtime.async_run import ThreadCache, in_thread
from flowyml.runtime.run import BatchReport
from flowyml.steps.conditions import GuardedFunction
from flowyml.steps.coroutines import coroutine_function
from flowyml.steps.current_step import step_context_provider
from flowyml.steps.dynamic import is_refused, refusal
from flowyml.steps.fallback import Fallback
from flowyml.steps.timeout import StepExpired
from flowyml.store.value_store import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml._core import Batch
    from flowyml.planning.call_template import CallTemplate
    from flowyml.runtime.run import Run
    from flowyml.steps.timeout import TimeLimits

# More plain functions than this at once gain nothing: they hold the interpreter.
_MAX_THREADS = 32
# The caller waits in slices, so that Ctrl-C is seen.
_WAIT_SECONDS = 0.1
# How long steps that were cancelled may take to end.
_CANCEL_SECONDS = 0.5
# ... and those that were cancelled because they are over their time.
_TIMEOUT_GRACE_SECONDS = 0.1
# Stands for a thread that is to call the function, and will, however long it takes to start.
_THREAD_IS_STARTING = -1
# A loop takes no infinite delay.
_MAX_TIMER_SECONDS = 3600.0


class _StepTask:
    """One step under way: what `CurrentStep` looks at, and when its time is over.

    Attributes:
        due: When it is over its time, once it has begun.
        expired: It is.
        left: It did not end then: it is left behind.
        reported: The run has heard of it.
    """

    __slots__ = (
        *("_ended", "_keeps", "_lock", "claimed", "due", "expired", "item"),
        *("left", "reported", "start", "thread", "worker"),
    )

    def __init__(self, claimed: Batch) -> None:
        self.claimed = claimed
        self.item = claimed.items()[0]
        self.worker = claimed.worker
        self.start = clock()
        self.thread = 0
        self.due = math.inf
        self.expired = self.left = self.reported = self._ended = self._keeps = False
        self._lock = threading.Lock() if claimed.limited else None

    def keep_tokens(self, run: Run) -> None:
        """Keep what it has taken although it is given up, unless it has ended or has taken nothing."""
        if self._lock is None:
            return
        with self._lock:
            if not (self._ended or self._keeps):
                run.scheduler.keep_tokens(self.claimed)
                self._keeps = True

    def end(self, run: Run) -> bool:
        """Note that its thread or its coroutine has ended; return True if tokens that it kept are back."""
        if self._lock is None:
            return False
        with self._lock:
            self._ended = True
            if self._keeps:
                run.scheduler.return_tokens(self.claimed)
            return self._keeps

    def at(self) -> tuple[Batch, int, int] | None:
        """Return the step, for `CurrentStep`; `None` once it has ended."""
        return None if self.reported else (self.claimed, 0, 0)


class EventLoopRun:
    """One run in an event loop.

    Args:
        run: The run.
        limit: How many steps may be under way at once.
        loop: The loop; all methods but `wait` and `stop` are called in its thread.
        threads: Where plain functions are called.
        executors: The executors that wait for this run.

    Attributes:
        left_behind: Some step did not end when it was cancelled, and goes on in the loop.
    """

    def __init__(
        self,
        run: Run,
        limit: int,
        loop: asyncio.AbstractEventLoop,
        threads: ThreadCache,
        executors: tuple[object, ...],
    ) -> None:
        self._run = run
        self._loop = loop
        self._helpers = threads
        self._free = list(range(run.max_useful_workers(limit)))[::-1]
        self._tasks: dict[asyncio.Task[None], _StepTask] = {}
        self._limits = run.time_limits
        self.left_behind = False
        self._coroutines: dict[int, CallTemplate | None] = {}
        self._threads = asyncio.Semaphore(_MAX_THREADS)
        self._timer: asyncio.TimerHandle | None = None
        self._next_look: asyncio.TimerHandle | None = None
        # An event would leave frames of `threading` in the traceback of Ctrl-C.
        self._over, self._until_over = False, threading.Lock()
        self._until_over.acquire()
        self._stopped = False
        self._trouble: BaseException | None = None
        self._context = copy_context()
        self._context.run(owners.set, executors)

    def wait(self) -> None:
        """Run everything and wait for the end, in the caller's thread."""
        self._loop.call_soon_threadsafe(self._begin)  # in there Ctrl-C would leave frames of `asyncio`
        with self._run.interrupts.may_raise():
            while not (self._over or self._until_over.acquire(timeout=self._run.poll_interval(_WAIT_SECONDS))):
                self._run.interrupts.check()
                self._run.deliver_events()
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            try:
                raise trouble
            finally:
                del trouble  # its traceback holds this frame, and so the executor with its thread

    def stop(self) -> bool:
        """Cancel all steps in progress; return True if they have ended."""
        self._stopped = True
        self._run.cancel()
        self._loop.call_soon_threadsafe(self._cancel)
        return self._over or self._until_over.acquire(timeout=_CANCEL_SECONDS)

    def _cancel(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self._fill()

    def _begin(self) -> None:
        self._fill()
        if self._limits is not None:
            self._look(self._limits)

    def _fill(self) -> None:
        """Begin steps while there are free slots; see whether that was all."""
        try:
            self._begin_steps()
            if not (self._tasks or self._stopped) and self._run.check_progress():
                self._begin_steps()
        except BaseException as error:  # noqa: BLE001  an error of ours must reach the caller
            self._trouble = self._trouble or error
            self._run.cancel()
        is_over = self._stopped or self._trouble or self._run.finished
        if is_over and not (self._tasks or self._over):
            self._over = True
            self._until_over.release()

    def _begin_steps(self) -> None:
        scheduler = self._run.scheduler
        scheduler.advance(clock())
        while self._free and scheduler.ready and not self._stopped:
            batch = self._run.claim(self._free[-1], 1, clock())
            if batch is None:
                break
            self._free.pop()
            work = _StepTask(batch)
            task = self._loop.create_task(self._step(work), context=self._context.copy())
            self._tasks[task] = work
            task.add_done_callback(self._end)
        self._set_timer(scheduler.next_wakeup())

    def _end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        work = self._tasks.pop(task, None)
        if work is None:
            return
        if task.cancelled():
            error = self._end_cancelled(work)
        if error is not None:
            self._trouble = self._trouble or error
            self._run.cancel()
        self._fill()

    def _end_cancelled(self, work: _StepTask) -> BaseException | None:
        """Report a step whose task another step cancelled, before it began or during a plain function.

        Returns:
            The error of that, since an exception would be lost here.
        """
        try:
            if work.thread and not self._stopped:
                work.keep_tokens(self._run)
            self._report(work, MISSING, asyncio.CancelledError())
        except BaseException as error:  # noqa: BLE001  an error of ours must reach the caller
            return error
        return None

    def _set_timer(self, wakeup: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wakeup is not None:
            self._timer = self._loop.call_later(max(0.0, wakeup - clock()), self._fill)

    # -- time limits

    def _look(self, limits: TimeLimits) -> None:
        """Cancel the steps that are over their time, and look again when the next one may be."""
        if self._over or self._stopped:
            return
        now, soonest = clock(), math.inf
        for task, work in list(self._tasks.items()):
            if work.due <= now and not work.expired:
                work.expired = True
                task.cancel()
                self._loop.call_later(_TIMEOUT_GRACE_SECONDS, self._leave, task, work)
            elif not work.expired:
                soonest = min(soonest, work.due)
        self._look_in(look_in(soonest, limits), limits)

    def _look_in(self, seconds: float, limits: TimeLimits) -> None:
        """Look in so many seconds, and not at another time."""
        if self._next_look is not None:
            self._next_look.cancel()
        self._next_look = self._loop.call_later(min(seconds, _MAX_TIMER_SECONDS), self._look, limits)

    def _leave(self, task: asyncio.Task[None], work: _StepTask) -> None:
        """Go on without a step that has not ended although it was cancelled."""
        if self._tasks.pop(task, None) is not None and not self._stopped:
            work.left = self.left_behind = True
            self._report(work, MISSING, None)
            self._fill()

    def _begin_time(self, work: _StepTask) -> None:
        """Begin the time that a step has."""
        if self._limits is None:
            return
        limit = self._limits.of(work.item)
        work.due = clock() + limit
        if self._next_look is None or self._next_look.when() > self._loop.time() + limit:
            self._look_in(limit, self._limits)  # of a step that came during the run

    def _give_up(self, work: _StepTask) -> None:
        """Go on without a thread: what it has begun is asked to end, it itself cannot be stopped."""
        if not cancel_thread(work.thread) and work.expired and self._limits is not None:
            self._limits.warn_left_behind(self._run.item_name(work.item), self._limits.of(work.item))

    def _end_work(self, work: _StepTask) -> None:
        """Note the real end of a step, in the thread that called it; begin what has waited for tokens that it kept."""
        if work.end(self._run) and not self._over:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nothing waits any more
                self._loop.call_soon_threadsafe(self._fill)

    # -- steps

    async def _step(self, work: _StepTask) -> None:
        """Call one step and report it."""
        try:
            with step_context_provider(CurrentStep(self._run, work)):
                value, error = await self._outcome(work)
        except asyncio.CancelledError:
            if self._stopped or not work.expired:
                raise
            value, error = MISSING, None
        finally:
            if not work.thread:
                self._end_work(work)
        if not work.left:
            self._report(work, value, error)

    def _report(self, work: _StepTask, value: Any, error: BaseException | None) -> None:
        self._free.append(work.worker)
        if self._stopped:
            return
        if work.expired and self._limits is not None:
            if work.left or work.thread:
                work.keep_tokens(self._run)
            value, error = MISSING, StepExpired(self._limits.of(work.item))
        if is_refused(value):
            value, error = MISSING, refusal(value, self._run.item_name(work.item))
        self._run.values.raw[work.item] = value
        work.reported = True
        failures = [] if error is None else [(0, work.item, error)]
        self._run.complete(work.claimed, 0, BatchReport(work.start, [clock()], failures))

    async def _outcome(self, work: _StepTask) -> tuple[Any, BaseException | None]:
        """Return the value of a step, or what it raised: not every exception may pass through a future."""
        template = self._coroutine(self._run.calls.template_of(work.item))
        if template is None:
            async with self._threads:
                self._begin_time(work)
                work.thread = _THREAD_IS_STARTING
                call, give_up = partial(self._called, work), partial(self._give_up, work)
                return await in_thread(call, give_up, patience=0, threads=self._helpers)
        self._begin_time(work)
        try:
            return await self._value(template, work.item), None
        except BaseException as error:
            if self._stopped:
                raise
            return MISSING, error

    def _called(self, work: _StepTask) -> tuple[Any, BaseException | None]:
        """Call a plain function in a thread beside the loop."""
        work.thread = threading.get_ident()
        try:
            return self._run.call(work.item), None
        except BaseException as error:  # noqa: BLE001  whatever a step raises is its failure
            return MISSING, error
        finally:
            self._end_work(work)

    async def _value(self, template: CallTemplate, item: int) -> Any:
        run = self._run
        if run.seed is not None:
            random_seeds.begin(run.calls.seed_of(item) or 0)
        if run.calls.watch is None:
            returned = await template.call(run.calls.arguments(item))
        else:
            with run.calls.watched(item):
                returned = await template.call(run.calls.arguments(item))
        return run.plan.split(returned, run.node_of[item])

    def _coroutine(self, template: CallTemplate) -> CallTemplate | None:
        """Return how the steps of a template are awaited; `None` if its function is a plain one."""
        if id(template) not in self._coroutines:
            function = _awaited(template.function)
            self._coroutines[id(template)] = None if function is None else replace(template, function=function)
        return self._coroutines[id(template)]


def _awaited(function: Callable[..., Any]) -> Callable[..., Any] | None:
    return (
        function.as_coroutine_function()
        if isinstance(function, (GuardedFunction, Fallback))
        else coroutine_function(function)
    )


class EventLoopBackend:
    """An event loop in a thread, kept between runs.

    Args:
        limit: How many steps may be under way at once.
        owner: The executor; see `_threads.works_for`.
    """

    def __init__(self, limit: int, owner: object) -> None:
        self._limit = limit
        self._owner = weakref.ref(owner)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._left_behind = False

    def execute(self, run: Run) -> None:
        """Run all steps of a run."""
        loop = self._started()
        run.share_devices()
        run.call  # noqa: B018  as in `ThreadBackend.execute`
        current = EventLoopRun(run, self._limit, loop, self._helpers, (self._owner(), *owners.get()))
        try:
            current.wait()
        except BaseException:
            if not current.stop():
                self.abandon()
            raise
        finally:
            self._left_behind = self._left_behind or current.left_behind

    def shutdown(self) -> None:
        """End the loop and wait for it; not for long where a step is in it that does not let itself be cancelled."""
        thread = self._thread
        patience = _CANCEL_SECONDS if self._left_behind else None
        self.abandon()
        if thread is not None:
            thread.join(patience)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            alone = Context()  # of neither the run nor the step that comes first: the loop is there for later ones, too
            self._loop = loop = alone.run(asyncio.new_event_loop)
            self._helpers = helpers = ThreadCache()
            self._thread = threading.Thread(target=_serve, args=(loop, helpers), name="flowyml-loop", daemon=True)
            alone.run(self._thread.start)
            self._finalizer = weakref.finalize(self, _stop, loop)
            self._finalizer.atexit = False
        return self._loop

    def abandon(self) -> None:
        """Tell the loop to end, once what blocks it lets it."""
        if self._loop is not None:
            self._finalizer()
        self._loop = self._thread = None
        self._left_behind = False


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon_threadsafe(loop.stop)


def _serve(loop: asyncio.AbstractEventLoop, helpers: ThreadCache) -> None:
    """Run a loop until it is stopped, then end the tasks that steps left in it."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()
    helpers.close()
