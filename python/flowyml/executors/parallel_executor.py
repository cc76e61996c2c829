"""ParallelExecutor: worker processes, threads or an event loop, kept warm between runs."""

from __future__ import annotations

import os
import sys
import threading
import time
from array import array
from typing import TYPE_CHECKING, Any, Literal

from flowyml.diagnostics.text import did_you_mean, unknown_keyword_message
from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.executors.cpus import default_workers, detected
from flowyml.executors.executor import Executor
from flowyml.executors.initializer import checked_initializer, refuse_nested
from flowyml.executors.local_executor import LocalExecutor
from flowyml.executors.monkey_patches import refuse_patches
from flowyml.state import CODES, StepState
from flowyml.steps.resources import Capacity, checked_tag_limits, checked_totals
from flowyml.steps.timeout import checked_seconds
from flowyml.units import checked_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from flowyml._core import Graph
    from flowyml.planning.plan import Plan
    from flowyml.runtime.run import Run

BACKENDS = ("process", "thread", "async")
OF_PROCESSES = ("memory_limit", "memory_budget", "max_tasks_per_worker", "preload")
OPTIONS = ("timeout", "resources", "tag_limits", "initializer", *OF_PROCESSES)
_KEYWORDS = ("max_workers", "backend", *OPTIONS)
# How many coroutines are under way at once by default: as many connections as HTTP clients open by default.
_DEFAULT_COROUTINES = 100
# The core keeps the number of a worker in 16 bits.
_MAX_WORKERS = 1 << 16
# Waiting for a turn is done in slices, so that Ctrl-C is seen.
_WAIT_SECONDS = 0.1
# Steps whose seconds are kept for one pipeline, and pipelines.
_MAX_TIMED_STEPS = 20_000
_MAX_TIMED_PIPELINES = 16
# Mean seconds of a step from which on the order of steps may be worth the bookkeeping.
_MIN_MEAN_SECONDS = 0.001
_SUCCESS = CODES[StepState.SUCCESS]


class StepDurations:
    """The seconds of the steps of the last run of each pipeline: the next run begins with the longest path by time.

    The first run knows how many steps depend on each other, not how long they take. Kept in memory with the executor,
    only for pipelines of ordinary steps that take a millisecond each, in the mean, or longer: for the others the order
    does not matter. What may run does not depend on it.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, dict[str, float]] = {}

    def prioritized_graph(self, plan: Plan) -> Graph:
        """Return the graph of a plan with priorities by time; steps without a known time count as the mean."""
        known = self._seconds.get(plan.name)
        if not known or not _has_timed_steps(plan):
            return plan.graph
        mean = sum(known.values()) / len(known)
        return plan.graph.weighted(array("d", [known.get(name, mean) for name in plan.names]))

    def record(self, run: Run) -> None:
        """Record the seconds of the steps of a run that has just ended."""
        plan = run.plan
        if time.monotonic() - run.started < _MIN_MEAN_SECONDS * len(plan.names) or not _has_timed_steps(plan):
            return
        scheduler = run.scheduler
        starts, ends = memoryview(scheduler.starts()).cast("d"), memoryview(scheduler.ends()).cast("d")
        steps = zip(plan.names, scheduler.states(), starts, ends, strict=True)
        self._seconds.pop(plan.name, None)
        self._seconds[plan.name] = {name: end - start for name, state, start, end in steps if state == _SUCCESS}
        while len(self._seconds) > _MAX_TIMED_PIPELINES:
            del self._seconds[next(iter(self._seconds))]


def _has_timed_steps(plan: Plan) -> bool:
    """Return True if all steps are ordinary ones, more than one and not too many, and none can come."""
    return plan.item_index.is_plain and not plan.is_dynamic and 1 < len(plan.names) <= _MAX_TIMED_STEPS


class ParallelExecutor(Executor):
    """Runs steps on worker processes (for CPU-bound steps), on threads or in an event loop (for I/O-bound ones).

    Args:
        max_workers: How many workers; the usable CPUs by default (affinity and cgroup quota count), a worker's share of
            them inside a step. With `backend="async"`: how many steps are under way at once, 100 by default.
        backend: "process", "thread", or "async": coroutine functions run concurrently in one event loop, plain
            functions in threads beside it, 32 at the most.
        timeout: Seconds (or a `timedelta`) that a step without a `timeout` of its own may take.
        resources: What steps that declare `resources` may take together: numbers by name, "memory" in bytes or as a
            text ("16GiB"). CPUs, GPUs (CUDA devices) and memory are detected where they are not given.
        tag_limits: How many steps with a tag may run at once, by tag.
        initializer: Called without arguments in each worker process, or thread, before its first step, as that of
            `concurrent.futures`: to load a model, to open a connection. `functools.partial` gives it arguments. What it
            raises ends the run with an `ExecutorError`. Not for `backend="async"`.
        memory_limit: What each worker process may have for itself, in bytes or as a text like "4GiB": the step that
            takes it above that fails with a `MemoryLimitError`.
        memory_budget: What large values that worker processes return, and arguments, may take of memory together, in
            bytes or as a text: what is made beyond it lies in unlinked files in `$TMPDIR` or /var/tmp.
        max_tasks_per_worker: After how many steps a worker process is replaced, where steps leak what they use.
        preload: Names of modules that are imported once, before worker processes are forked, so that each has them at
            once and shares their memory; imported and nothing else. numpy, pandas, scipy and scikit-learn need not be
            named if this process has imported them.

    Workers start with the first run and stay warm until `shutdown()`, the end of a `with` block, or the end of the
    interpreter. One run at a time: a second thread waits for its turn. A step that runs a pipeline on the very thread
    executor it runs on itself runs it inline.

    Raises:
        ValueError: For `max_workers` below 1, an unknown backend, a limit that is not above 0, a negative total, or
            what is about worker processes with another backend.
        TypeError: For an unknown keyword, a `max_workers` that is no whole number, an `initializer` that is no plain
            function, or a `preload` that is no list of names.

    >>> from flowyml import ParallelExecutor, Pipeline
    >>> with ParallelExecutor(max_workers=2, backend="thread") as executor:
    ...     list(Pipeline("lengths").map(len, ["a", "bc"]).run(executor=executor)["len"])
    [1, 2]
    """

    @hides_internal_frames
    def __init__(
        self,
        max_workers: int | None = None,
        backend: Literal["process", "thread", "async"] = "process",
        *,
        timeout: float | timedelta | None = None,
        resources: Mapping[str, float | str] | None = None,
        tag_limits: Mapping[str, int] | None = None,
        initializer: Callable[[], object] | None = None,
        memory_limit: int | str | None = None,
        memory_budget: int | str | None = None,
        max_tasks_per_worker: int | None = None,
        preload: Sequence[str] | None = None,
        **unknown: object,
    ) -> None:
        """Check the arguments; no worker starts."""
        if unknown:
            raise TypeError(unknown_keyword_message("ParallelExecutor()", unknown, _KEYWORDS))
        self.backend: str = checked_backend(backend)
        self.max_workers: int = checked_workers(max_workers, self.backend)
        self.timeout: float | None = None if timeout is None else checked_seconds("timeout", timeout)
        self.initializer: Callable[[], object] | None = checked_initializer(initializer)
        self.memory_limit: int | None = None if memory_limit is None else checked_size("memory_limit", memory_limit)
        self.memory_budget: int | None = None if memory_budget is None else checked_size("memory_budget", memory_budget)
        self.max_tasks_per_worker: int | None = checked_tasks(max_tasks_per_worker)
        self.preload: tuple[str, ...] | None = None if preload is None else checked_names(preload)
        self.resources: dict[str, float | str] | None = None if resources is None else dict(resources)
        self.tag_limits: dict[str, int] | None = checked_tag_limits(tag_limits) or None
        self.capacity = Capacity(checked_totals("resources", resources), self.tag_limits or {}, detected)
        self._durations = StepDurations()
        self._refuse_process_options()
        self._pid = os.getpid()
        self._turn = threading.RLock()
        self._team: Any = None
        self._closing = False
        self._runner: int | None = None  # the thread whose run it is

    @property
    def keeps_values_serialized(self) -> bool:
        """True if a run that it executes now keeps its values encoded; see `Executor`."""
        return self.backend == "process" and not self._is_nested()

    def prioritized_graph(self, plan: Plan) -> Graph:
        """Return the graph of a plan: what took long when it last ran here goes first, with all that waits for it."""
        return self._durations.prioritized_graph(plan)

    def execute(self, run: Run) -> None:
        """Run all steps of a run on the workers; see `Executor.execute`."""
        self._reset_after_fork()
        if self.timeout is not None:
            run.default_timeout = self.timeout
        if self._is_nested():
            LocalExecutor().execute(run)
            return
        while not self._turn.acquire(timeout=_WAIT_SECONDS):
            run.interrupts.check()
        try:
            self._execute(run)
        finally:  # whatever hits the end of the run: others wait for their turn
            self._turn.release()

    def _execute(self, run: Run) -> None:
        """Run all steps of a run whose turn it is."""
        try:
            self._runner = threading.get_ident()
            if self._team is None:
                self._team = self._new_backend(run)
            self._team.execute(run)
            self._durations.record(run)
        finally:
            self._runner = None  # first: a step that asks for the end from now on sees to it itself
            closing, self._closing = self._closing, False
            if closing:
                self.shutdown()

    def shutdown(self) -> None:
        """End the workers; the executor can be used again and starts new ones.

        Called by a step that runs on it, it waits for the end of the run. A step that was given up and calls it after
        that waits for no worker: it may be in one.
        """
        self._reset_after_fork()
        if self._is_nested():
            self._shutdown_from_step()
            return
        with self._turn:
            self._closing = False
            team, self._team = self._team, None
            if team is not None:
                team.shutdown()

    def _shutdown_from_step(self) -> None:
        """Let the current run end the workers; if there is none, tell them to end."""
        self._closing = True  # before the look: a run that ends meanwhile sees it
        if self._runner is not None or not self._turn.acquire(blocking=False):
            return
        try:
            self._closing = False
            team, self._team = self._team, None
            if team is not None:
                team.abandon()
        finally:
            self._turn.release()

    def _is_nested(self) -> bool:
        """Return True in a step of a run on these workers, and in the thread that waits for that run.

        That thread may run code of the user's while it waits: a signal handler, a logging handler, a finalizer.
        """
        if self._runner == threading.get_ident():
            return True
        # Without it there is no such thread; another thread may be importing it, and it has not all of its names yet.
        works_for = getattr(sys.modules.get("flowyml.executors.threads"), "works_for", None)
        return works_for is not None and works_for(self)

    def _reset_after_fork(self) -> None:
        """In a forked child: the workers are the parent's, and a turn that its thread had never ends here."""
        if self._pid != os.getpid():
            self._pid, self._turn, self._team = os.getpid(), threading.RLock(), None
            self._runner, self._closing = None, False

    def _new_backend(self, run: Run | None = None) -> Any:
        if self.backend != "async":
            refuse_patches(self.backend)
        if self.backend == "thread":
            from flowyml.executors.threads import ThreadBackend

            return ThreadBackend(self.max_workers, self, self.initializer)
        if self.backend == "async":
            from flowyml.executors.event_loop import EventLoopBackend

            return EventLoopBackend(self.max_workers, self)
        return self._new_processes(run)

    def _new_processes(self, run: Run | None) -> Any:
        """Make a team of worker processes; for a run they begin to start while this process imports the rest."""
        refuse_nested(self.initializer)
        from flowyml.executors.process.pool.worker_pool import WorkerPool

        pool = WorkerPool(self.max_workers, preload=self.preload or ())
        if run is not None and not run.finished:
            with run.interrupts.held_back():
                pool.start(lambda: _imports_of(run))
        from flowyml.executors.process.driver.backend import ProcessBackend

        return ProcessBackend(
            pool,
            max_tasks=self.max_tasks_per_worker,
            memory_limit=self.memory_limit,
            memory_budget=self.memory_budget,
            initializer=self.initializer,
        )

    def _refuse_process_options(self) -> None:
        if self.initializer is not None and self.backend == "async":
            raise ValueError('initializer is about workers: backend="process" or "thread", not "async"')
        for name in OF_PROCESSES if self.backend != "process" else ():
            if getattr(self, name) is not None:
                raise ValueError(f'{name} is about worker processes: backend="process", not {self.backend!r}')

    def _options(self) -> dict[str, Any]:
        """Return the options that were given."""
        options = {name: getattr(self, name) for name in OPTIONS}
        return {name: option for name, option in options.items() if option is not None}

    def __repr__(self) -> str:
        """Show the arguments."""
        options = "".join(f", {name}={option}" for name, option in self._options().items())
        return f"ParallelExecutor(max_workers={self.max_workers}, backend={self.backend!r}{options})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the arguments: a copy arrives without workers."""
        return _rebuild, (self.max_workers, self.backend, self._options())


def _imports_of(run: Run) -> Sequence[str]:
    """Return what the first workers will import for a run; called once the supervisor is started."""
    from flowyml.executors.process.driver.backend import initial_preload

    return initial_preload(run)


def _rebuild(max_workers: int, backend: Any, options: dict[str, Any]) -> ParallelExecutor:
    return ParallelExecutor(max_workers, backend, **options)


def checked_workers(max_workers: int | None, backend: str) -> int:
    """Return a number of workers for a backend.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is below 1 or above 65536.
    """
    if max_workers is None:
        return _DEFAULT_COROUTINES if backend == "async" else default_workers()
    if isinstance(max_workers, bool) or not hasattr(type(max_workers), "__index__"):
        raise TypeError(f"max_workers must be a whole number or None, got {type(max_workers).__name__} {max_workers!r}")
    if max_workers < 1:
        hint = "max(1, cpu_count() - 1) with os.cpu_count() keeps a core free, None takes all usable CPUs"
        raise ValueError(f"max_workers must be at least 1, got {max_workers}; {hint}")
    if max_workers > _MAX_WORKERS:
        raise ValueError(f"max_workers must be at most {_MAX_WORKERS}, got {max_workers}")
    return max_workers.__index__()


def checked_tasks(tasks: int | None) -> int | None:
    """Return a number of steps after which a worker is replaced.

    Raises:
        TypeError: If it is no whole number.
        ValueError: If it is below 1.
    """
    if tasks is None:
        return None
    if isinstance(tasks, bool) or not hasattr(type(tasks), "__index__"):
        raise TypeError(
            f"max_tasks_per_worker must be a whole number or None, got {type(tasks).__name__} {tasks!r:.60}"
        )
    if tasks < 1:
        raise ValueError(f"max_tasks_per_worker must be at least 1, got {tasks}; None never replaces a worker")
    return tasks.__index__()


def checked_names(preload: Sequence[str]) -> tuple[str, ...]:
    """Return names of modules.

    Raises:
        TypeError: If they are no sequence of names.
    """
    names: tuple[Any, ...] = () if isinstance(preload, str) else tuple(preload)  # a text is a sequence of texts, too
    if not names or not all(isinstance(name, str) and name.replace(".", "_").isidentifier() for name in names):
        raise TypeError(f'preload must be a list of module names, such as ["torch"], got {preload!r:.60}')
    return names


def checked_backend(backend: str) -> str:
    """Return a backend's name.

    Raises:
        ValueError: If there is none of that name.
    """
    if backend in BACKENDS:
        return backend
    hint = did_you_mean(str(backend), BACKENDS)
    raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}{hint}")
