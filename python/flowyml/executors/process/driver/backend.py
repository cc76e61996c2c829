"""The process backend of an executor: worker processes that are kept warm between runs.

```
ParallelExecutor ── execute(run) ──▶ ProcessBackend ──▶ a Dispatcher for each run ──▶ the workers of the backend
```

Here are also the modules that the fork server imports in advance (`preload_candidates`), and what a worker receives
before the first calls of a run (`WorkerSetup`). Steps are assigned to workers in `assignment.py`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import pickle
import socket
import sys
import time
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import pluralize
from flowyml.errors import ExecutorError
from flowyml.executors.process.driver.arena_owner import ArenaOwner
from flowyml.executors.process.driver.worker_handle import WorkerHandle
from flowyml.executors.process.file_descriptors import raise_limit, reason_of
from flowyml.executors.process.pool.worker_pool import GRACE_SECONDS, block_at_interpreter_exit
from flowyml.executors.process.protocol import wire
from flowyml.executors.process.protocol.driver_environment import capture
from flowyml.executors.process.protocol.importable import changed_modules, importable, user_modules
from flowyml.executors.process.worker.fork_server import BY_VALUE, SEPARATOR
from flowyml.steps.conditions import GuardedFunction
from flowyml.user_modules import installed_directories, module_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.executors.process.driver.call_encoder import CallEncoder
    from flowyml.executors.process.pool.worker_pool import WorkerPool
    from flowyml.executors.process.pool.worker_process import WorkerProcess
    from flowyml.executors.process.protocol.driver_environment import DriverEnvironment
    from flowyml.executors.process.protocol.importable import Fingerprint
    from flowyml.runtime.run import Run


PRELOAD_CANDIDATES = ("numpy", "pandas", "scipy", "sklearn")
_PATCHING = ("gevent", "eventlet")
MAX_INSPECTED_FUNCTIONS = 1000


def initial_preload(run: Run) -> list[str]:
    """Return what the fork server imports for the first workers: candidates, and what functions sent by value need."""
    templates = {id(template): node for node, template in enumerate(run.plan.templates[:MAX_INSPECTED_FUNCTIONS])}
    functions = (_plain(run.plan.function_of(node)) for node in templates.values())
    by_value = any(not importable(str(getattr(function, "__module__", ""))) for function in functions)
    return [*([BY_VALUE] if by_value else []), *preload_candidates()]


def preload_candidates() -> list[str]:
    """Return the large packages and subpackages that this process has imported, in the form `preload` takes."""
    if any(name in sys.modules for name in _PATCHING):  # they must be imported before other modules
        return []
    packages = tuple(name for name in PRELOAD_CANDIDATES if name in sys.modules)
    return _words(packages, len(sys.modules)) if packages else []


@functools.lru_cache(maxsize=1)
def _words(packages: tuple[str, ...], _: int) -> list[str]:
    files = {name: module_file(sys.modules[name]) or "" for name in packages}
    found = {name: files[name] for name in packages}
    for name, module in list(sys.modules.items()):
        package, dot, rest = name.partition(".")
        if dot and package in files and rest.isidentifier() and rest[0] != "_" and _is_package(module):
            found[name] = files[package]
    installed = installed_directories()
    return [f"{name}{SEPARATOR}{file}" for name, file in sorted(found.items()) if file.startswith(installed)]


def _is_package(module: Any) -> bool:
    """Return True if a module has submodules; does not load a lazy module."""
    return isinstance(module, ModuleType) and "__path__" in ModuleType.__getattribute__(module, "__dict__")


def _plain(function: Any) -> object:
    """Unwrap partials, bound methods and the conditions of a step."""
    while isinstance(function, (functools.partial, MethodType, GuardedFunction)):
        function = function.__func__ if isinstance(function, MethodType) else function.func
    return function


class WorkerSetup:
    """Sends each worker what it needs before the calls of a run: environment, functions, shared values."""

    def __init__(
        self,
        frame: DriverEnvironment,
        writer: CallEncoder,
        run: wire.RunInfo,
        arenas: ArenaOwner,
        terms: tuple[int, int | None],
    ) -> None:
        self._arenas = arenas
        self._encoder = writer
        self._bare: set[WorkerHandle] = set()
        self._run = run
        self._frame = frame
        self._payload = writer.payload
        self._functions = writer.function_count
        self._initializer: tuple[Any, ...] | None = None
        if writer.initializer is not None:
            self._initializer = tuple(wire.InitializerCall(*writer.initializer, *terms))
        self._hashed = writer.hashed

    def register(self, worker: WorkerHandle) -> None:
        """Add a worker that has nothing of this run."""
        self._bare.add(worker)
        worker.shared.clear()
        worker.extra_payload_count = 0

    def is_new_to(self, worker: WorkerHandle) -> bool:
        """Return True if a worker has nothing of this run yet."""
        return worker in self._bare

    def frames_for(self, worker: WorkerHandle, shared: set[int]) -> list[bytes]:
        """Return the messages that a worker needs before calls that read these shared values.

        They are sent together with the calls, and not to a worker without steps: a send wakes it, which costs more.
        """
        frames: list[bytes] = []
        if worker in self._bare:
            self._bare.discard(worker)
            frames += self._first(worker)
        for payload, functions in self._encoder.extra_payloads[worker.extra_payload_count :]:
            frames += wire.frame(wire.FUNCTIONS, [(0,), functions], [payload.data])
        worker.extra_payload_count = len(self._encoder.extra_payloads)
        for number in shared - worker.shared:
            frames += wire.frame(wire.SHARED, number, [self._encoder.shared[number]])
        worker.shared |= shared
        return frames

    def _first(self, worker: WorkerHandle) -> list[bytes]:
        new_frame = worker.frame != self._frame.digest
        new_payload = worker.payload != self._payload.digest
        worker.frame, worker.payload = self._frame.digest, self._payload.digest
        segments: list[bytes] = []
        frame = wire.extract_segments(pickle.dumps(self._frame), segments) if new_frame else None
        payload = wire.extract_segments(self._payload.data, segments) if new_payload else None
        body = wire.SetupBody(
            environment=frame,
            payload=payload,
            function_count=self._functions,
            run=tuple(self._run._replace(worker=worker.number)),
            hashed_functions=self._hashed,
            arenas=tuple(self._arenas.config_for(worker.number)),
            device_variable=worker.device_variable,
            initializer=self._initializer,
        )
        return wire.frame(wire.SETUP, tuple(body), segments)


_log = logging.getLogger("flowyml")
clock = time.monotonic


class ProcessBackend:
    """Worker processes under one supervisor, which execute one run after the other.

    Args:
        pool: Starts and kills the processes.
        max_tasks: The number of steps after which a worker is replaced; `None` for no limit.
        memory_limit: The bytes of private memory that a worker may use; `None` for no limit.
        memory_budget: The bytes of memory that large values may use together; `None` for no limit.
        initializer: Called in each worker before its first step.

    Attributes:
        several: Whether this run has had several workers at the same time, so that output is labelled.
    """

    def __init__(
        self,
        pool: WorkerPool,
        *,
        max_tasks: int | None = None,
        memory_limit: int | None = None,
        memory_budget: int | None = None,
        initializer: Callable[[], object] | None = None,
    ) -> None:
        self.initializer = initializer
        self.size = pool.max_workers
        self.max_tasks = max_tasks
        self.memory_limit = memory_limit
        self.pool = pool
        self.arenas = ArenaOwner(memory_budget)
        self.workers: list[WorkerHandle] = []
        self.several = False
        self.runs = 0
        self.is_fd_exhausted = False  # no more files may be open, so no worker can be started
        self._refusals, self._can_raise = 0, False
        self._retires = False  # a worker is to exit
        self._start_variables: dict[str, str] | None = None
        self._modules: dict[str, Fingerprint] = {}

    def execute(self, run: Run) -> None:
        """Execute all steps of a run; an error other than a step's failure ends all workers."""
        if run.finished:
            return
        try:
            # First the processes: they start while this one imports and pickles.
            self.start_supervisor(run)
            from flowyml.executors.process.driver.dispatcher import Dispatcher

            Dispatcher(self, run).run()
        except BaseException:
            block_at_interpreter_exit()
            self.shutdown(grace=0)
            raise

    def setup(self, writer: CallEncoder, run: Run) -> WorkerSetup:
        """Capture the driver's environment; replace all workers if only a new process could see a change."""
        frame, modules, loading = (
            capture(),
            user_modules(),
            0.0 if run.time_limits is None else wire.MAX_LOADING_SECONDS,
        )
        if changed_modules(self._modules, modules) or self._start_variables not in (None, frame.start):
            self.shutdown()
        self._start_variables, self._modules = frame.start, modules
        about = wire.RunInfo(run.run_id, run.plan.name, run.seed, loading, run.checkpoint_dir, worker=0)
        self.runs += 1
        return WorkerSetup(frame, writer, about, self.arenas, (self.runs, self.memory_limit))

    def start_supervisor(self, run: Run) -> None:
        """Start the supervisor if it does not run, and the fork server for the first workers."""
        with run.interrupts.held_back():
            self.pool.start(lambda: initial_preload(run))

    def start(self, run: Run) -> None:
        """Remove workers that died since the last run."""
        if self.pool.supervisor_pid is None:  # it died since `execute` started it
            self.start_supervisor(run)
        self.is_fd_exhausted, self._refusals, self._can_raise = False, 0, False
        self.pool.read_events()
        for worker in [each for each in self.workers if each.process.ended or each.process not in self.pool.workers]:
            self.remove_worker(worker)
        for worker in self.workers:
            if worker.results.waiting and not worker.corrupt:  # a stray result, of no step of this run
                worker.corrupt = True
                self.pool.kill(worker.process)
        self.several = len(self.workers) > 1

    def prepare(self) -> None:
        """Make the fork server import large packages that were imported since the last run."""
        self.pool.prepare(preload_candidates())

    def start_worker(self) -> WorkerHandle | None:
        """Start a worker; return None if no more files may be open and the run continues with the existing workers.

        Raises:
            ExecutorError: There are no workers.
        """
        taken = {worker.number for worker in self.workers if worker.retired is None}
        number = next(k for k in range(self.size + 1) if k not in taken)
        try:
            worker = WorkerHandle(self._spawn(), number, initialized=self.initializer is None)
        except OSError as error:
            self.on_fd_exhausted(error)
            return None
        self.workers.append(worker)
        self.several = self.several or len(self.workers) > 1
        return worker

    def _spawn(self) -> WorkerProcess:
        try:
            return self.pool.spawn_worker(restart=False)
        except OSError as error:
            if error.errno != errno.EMFILE or not raise_limit():
                raise
        return self.pool.spawn_worker(restart=False)

    def on_spawn_failed(self, error: OSError) -> None:
        """Handle a worker that the supervisor could not start; raise the supervisor's limit of open files if possible.

        Raises:
            ExecutorError: There are no workers.
        """
        supervisor, self._refusals = self.pool.supervisor_pid, self._refusals + 1
        if error.errno == errno.EMFILE and supervisor is not None:
            self._can_raise = raise_limit(supervisor) or self._can_raise
        if not self._can_raise or self._refusals > self.size:
            self.on_fd_exhausted(error)

    def on_fd_exhausted(self, error: OSError) -> None:
        """Log that this run cannot have more workers. Raises ExecutorError."""
        reason = reason_of(error)
        count = sum(worker.accepts_work for worker in self.workers)
        if not count:
            raise ExecutorError(f"a worker process could not be started: {reason}") from error
        if not self.is_fd_exhausted:
            self.is_fd_exhausted = True
            many = f"{pluralize(count, 'worker')} instead of {self.size}"
            _log.warning("%s: the run continues with %s", reason, many)

    def remaining_steps(self, worker: WorkerHandle) -> int:
        """Return how many more steps a worker may execute before it is replaced."""
        return sys.maxsize if self.max_tasks is None else self.max_tasks - worker.steps_assigned

    def can_take_steps(self, worker: WorkerHandle) -> bool:
        """Return True if a worker may be assigned steps."""
        return worker.accepts_work and self.remaining_steps(worker) > 0

    def recycle_workers(self) -> None:
        """Let workers that have executed `max_tasks` steps exit by themselves, so that their `atexit` functions run."""
        if self.max_tasks is None and not self._retires:
            return
        for worker in self.workers:
            if worker.retired is not None:
                if clock() > worker.retired + GRACE_SECONDS:
                    self.pool.kill(worker.process)
            elif not worker.batches and self.remaining_steps(worker) <= 0:
                self.retire_worker(worker)

    def retire_worker(self, worker: WorkerHandle) -> None:
        """Let an idle worker exit."""
        self._retires = True
        worker.retired = clock()
        with contextlib.suppress(OSError):  # it has exited already
            worker.process.socket.shutdown(socket.SHUT_WR)

    @property
    def is_complete(self) -> bool:
        """True if no more workers may be started."""
        return self.is_fd_exhausted or sum(worker.retired is None for worker in self.workers) >= self.size

    def remove_worker(self, worker: WorkerHandle) -> None:
        """Remove a worker that has exited."""
        self.workers.remove(worker)
        self._retires = any(each.retired is not None for each in self.workers)
        if worker.process.ended:
            self.pool.release(worker.process)

    def handle_of(self, process: WorkerProcess) -> WorkerHandle | None:
        """Return the handle of a worker process."""
        return next((worker for worker in self.workers if worker.process is process), None)

    def shutdown(self, grace: float | None = None) -> None:
        """End all workers and the supervisor."""
        workers, self.workers = self.workers, []
        self._start_variables, self._modules = None, {}
        if grace is None:
            self.pool.shutdown()
        else:
            self.pool.shutdown(grace)
        del workers  # their retained blocks stay until they have exited
        self.arenas.discard_all_unfinished()
