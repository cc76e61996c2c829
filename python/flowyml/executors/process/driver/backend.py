"""The worker processes of one executor, kept warm between runs.

The team knows who its members are and who may be one; who gets which steps it leaves to the dispatch loop.

What workers will import anyway, so that a template may import it once for all of them.

These are the large packages that this process has imported already, whatever the functions of a run use; see
`preloading.py` for why these packages and no others.

What workers need before the calls of a run: the run frame and the functions, to each what is new to it.

It goes out with the first calls of a worker, in one send, and to nobody who gets none. The module knows neither when
the driver was looked at (`team.py`) nor what the functions are (`calls.py`).

The process backend as an executor has it: runs, one after the other, on the same workers.

```
ParallelExecutor ── execute(run) ──▶ Backend ──▶ a Dispatch for the run ──▶ the team, as long as the executor
```
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
from flowyml.executors.process.driver.interpreter_exit import wait_if_ending, watch
from flowyml.executors.process.driver.worker_handle import WorkerHandle
from flowyml.executors.process.file_descriptors import raise_limit, reason_of
from flowyml.executors.process.pool.worker_pool import GRACE
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


FAMILIAR = ("numpy", "pandas", "scipy", "sklearn")
_PATCHING = ("gevent", "eventlet")
# Functions of a run that are looked at: a million would take too long.
_LOOKED_AT = 1000


def first_imports(run: Run) -> list[str]:
    """Return what the first workers of a run import: familiar modules, and what makes functions that come by value."""
    templates = {id(template): node for node, template in enumerate(run.plan.templates[:_LOOKED_AT])}
    functions = (_plain(run.plan.function_of(node)) for node in templates.values())
    by_value = any(not importable(str(getattr(function, "__module__", ""))) for function in functions)
    return [*([BY_VALUE] if by_value else []), *familiar()]


def familiar() -> list[str]:
    """Return the large packages, and their subpackages, that this process has imported, as words for `preload`."""
    if any(name in sys.modules for name in _PATCHING):  # they want to be imported before everything else
        return []
    packages = tuple(name for name in FAMILIAR if name in sys.modules)
    return _words(packages, len(sys.modules)) if packages else []


@functools.lru_cache(maxsize=1)
def _words(packages: tuple[str, ...], _: int) -> list[str]:
    """Return the words for packages; each run asks for them, and they differ only if the number of modules does."""
    files = {name: module_file(sys.modules[name]) or "" for name in packages}
    found = {name: files[name] for name in packages}
    for name, module in list(sys.modules.items()):
        package, dot, rest = name.partition(".")
        if dot and package in files and rest.isidentifier() and rest[0] != "_" and _is_package(module):
            found[name] = files[package]
    installed = installed_directories()
    return [f"{name}{SEPARATOR}{file}" for name, file in sorted(found.items()) if file.startswith(installed)]


def _is_package(module: Any) -> bool:
    """Return True if a module has submodules; a lazy one is not loaded by that."""
    return isinstance(module, ModuleType) and "__path__" in ModuleType.__getattribute__(module, "__dict__")


def _plain(function: Any) -> object:
    """Return what is called in the end: behind a partial, a bound method, the conditions of a step."""
    while isinstance(function, (functools.partial, MethodType, GuardedFunction)):
        function = function.__func__ if isinstance(function, MethodType) else function.func
    return function


class WorkerSetup:
    """What workers need before the calls of a run: the run frame and the functions, where they are new to them."""

    def __init__(
        self,
        frame: DriverEnvironment,
        writer: CallEncoder,
        run: wire.RunInfo,
        lending: ArenaOwner,
        terms: tuple[int, int | None],
    ) -> None:
        """Keep all of it; `run` is as a worker keeps it, without its number.

        The terms of the initializer are the number of the run in its team, and how many bytes a worker may have.
        """
        self._lending = lending
        self._writer = writer
        self._bare: set[WorkerHandle] = set()
        self._run = run
        self._frame = frame
        self._payload = writer.payload
        self._functions = writer.function_count
        self._initializer: tuple[Any, ...] | None = None
        if writer.initializer is not None:
            self._initializer = tuple(wire.InitializerCall(*writer.initializer, *terms))
        self._hashed = writer.hashed

    def register(self, member: WorkerHandle) -> None:
        """Note a worker that has nothing of this run."""
        self._bare.add(member)
        member.shared.clear()
        member.further = 0

    def is_new_to(self, member: WorkerHandle) -> bool:
        """Tell whether a worker has nothing of this run yet."""
        return member in self._bare

    def frames_for(self, member: WorkerHandle, shared: set[int]) -> list[bytes]:
        """Return what a worker must have before calls that read these shared values, and has not got yet.

        One send with the calls, and none to a worker that gets no step: a send wakes it, which costs more than it.
        """
        frames: list[bytes] = []
        if member in self._bare:
            self._bare.discard(member)
            frames += self._first(member)
        for payload, functions in self._writer.further[member.further :]:
            frames += wire.frame(wire.FUNCTIONS, [(0,), functions], [payload.data])
        member.further = len(self._writer.further)
        for number in shared - member.shared:
            frames += wire.frame(wire.SHARED, number, [self._writer.shared[number]])
        member.shared |= shared
        return frames

    def _first(self, member: WorkerHandle) -> list[bytes]:
        """Return the frame that brings a worker up to date."""
        new_frame = member.frame != self._frame.digest
        new_payload = member.payload != self._payload.digest
        member.frame, member.payload = self._frame.digest, self._payload.digest
        segments: list[bytes] = []
        frame = wire.slim(pickle.dumps(self._frame), segments) if new_frame else None
        payload = wire.slim(self._payload.data, segments) if new_payload else None
        body = wire.SetupBody(
            environment=frame,
            payload=payload,
            function_count=self._functions,
            run=tuple(self._run._replace(worker=member.number)),
            hashed_functions=self._hashed,
            arenas=tuple(self._lending.terms(member.number)),
            device_variable=member.setting,
            initializer=self._initializer,
        )
        return wire.frame(wire.SETUP, tuple(body), segments)


_log = logging.getLogger("flowyml")
clock = time.monotonic


class WorkerTeam:
    """Worker processes under one guardian.

    Args:
        pool: Where its workers come from; how many at most, it knows.
        max_tasks: After how many steps a worker is replaced; `None` for never.
        memory_limit: Bytes that a worker may have for itself; `None` for any number.
        memory_budget: Bytes that large values may have in memory together; `None` for any number.
        initializer: Called in each worker before its first step.

    Attributes:
        several: Whether there were several workers at once in this run.
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
        self.lending = ArenaOwner(memory_budget)
        self.members: list[WorkerHandle] = []
        self.several = False
        self.runs = 0  # how many have begun
        self.crowded = False  # no more files may be open, so no more workers
        self._refusals, self._can_raise = 0, False
        self._retires = False  # some worker was told to end
        self._start_variables: dict[str, str] | None = None
        self._modules: dict[str, Fingerprint] = {}

    def setup(self, writer: CallEncoder, run: Run) -> WorkerSetup:
        """Look at the driver as it is now; what only a new process can see means new workers."""
        frame, modules, loading = capture(), user_modules(), 0.0 if run.time_limits is None else wire.LOADING
        if changed_modules(self._modules, modules) or self._start_variables not in (None, frame.start):
            self.shutdown()
        self._start_variables, self._modules = frame.start, modules
        about = wire.RunInfo(run.run_id, run.plan.name, run.seed, loading, run.checkpoint_dir, worker=0)
        self.runs += 1
        return WorkerSetup(frame, writer, about, self.lending, (self.runs, self.memory_limit))

    def begin_processes(self, run: Run) -> None:
        """Start the guardian, unless it lives, and what imports for the first workers."""
        with run.interrupts.held_back():
            self.pool.start(lambda: first_imports(run))

    def start(self, run: Run) -> None:
        """Start the guardian, and clear away what died since the last run."""
        if self.pool.guardian_pid is None:  # it was looked after, and has been ended since
            self.begin_processes(run)
        self.crowded, self._refusals, self._can_raise = False, 0, False
        watch()
        self.pool.read_events()
        for member in [each for each in self.members if each.worker.ended or each.worker not in self.pool.workers]:
            self.dismiss(member)
        for member in self.members:
            if member.results.waiting and not member.torn:  # a stray result since the last run: of no step of this one
                member.torn = True
                self.pool.kill(member.worker)
        self.several = len(self.members) > 1

    def prepare(self) -> None:
        """Have workers that start now forked with the large packages that were imported since the last run."""
        self.pool.prepare(familiar())

    def hire(self) -> WorkerHandle | None:
        """Start another worker; `None` where no more files may be open: then those that are there do the work.

        Raises:
            ExecutorError: If there is none.
        """
        taken = {member.number for member in self.members if member.retired is None}
        number = next(k for k in range(self.size + 1) if k not in taken)
        try:
            member = WorkerHandle(self._spawn(), number, initialized=self.initializer is None)
        except OSError as error:
            self.note_crowd(error)
            return None
        self.members.append(member)
        self.several = self.several or len(self.members) > 1
        return member

    def _spawn(self) -> WorkerProcess:
        try:
            return self.pool.spawn_worker(anew=False)
        except OSError as error:
            if error.errno != errno.EMFILE or not raise_limit():
                raise
        return self.pool.spawn_worker(anew=False)

    def note_refusal(self, error: OSError) -> None:
        """Take in that the guardian could not start a worker; where its limit of open files can be raised, others can.

        Raises:
            ExecutorError: If there is none.
        """
        guardian, self._refusals = self.pool.guardian_pid, self._refusals + 1
        if error.errno == errno.EMFILE and guardian is not None:
            self._can_raise = raise_limit(guardian) or self._can_raise
        if not self._can_raise or self._refusals > self.size:
            self.note_crowd(error)

    def note_crowd(self, error: OSError) -> None:
        """Take in that this run can have no more workers, and say so.

        Raises:
            ExecutorError: If it has none.
        """
        reason = reason_of(error)
        count = sum(member.serves for member in self.members)
        if not count:
            raise ExecutorError(f"a worker process could not be started: {reason}") from error
        if not self.crowded:
            self.crowded = True
            many = f"{pluralize(count, 'worker')} instead of {self.size}"
            _log.warning("%s: the run goes on with %s", reason, many)

    def room(self, member: WorkerHandle) -> int:
        """Return how many more steps a worker may be given in its life."""
        return sys.maxsize if self.max_tasks is None else self.max_tasks - member.assigned

    def has_use_for(self, member: WorkerHandle) -> bool:
        """Tell whether a worker can be given steps."""
        return member.serves and self.room(member) > 0

    def renew(self) -> None:
        """Let workers end that have done their share: by themselves, so that what is registered with `atexit` runs."""
        if self.max_tasks is None and not self._retires:
            return
        for member in self.members:
            if member.retired is not None:
                if clock() > member.retired + GRACE:
                    self.pool.kill(member.worker)
            elif not member.postings and self.room(member) <= 0:
                self.retire(member)

    def retire(self, member: WorkerHandle) -> None:
        """Let a worker that has nothing to do end; until it has, it is a member that serves no more."""
        self._retires = True
        member.retired = clock()
        with contextlib.suppress(OSError):  # it has ended already
            member.worker.socket.shutdown(socket.SHUT_WR)

    @property
    def is_complete(self) -> bool:
        """Whether there may be no more workers."""
        return self.crowded or sum(member.retired is None for member in self.members) >= self.size

    def dismiss(self, member: WorkerHandle) -> None:
        """Let go of a worker that has ended."""
        self.members.remove(member)
        self._retires = any(each.retired is not None for each in self.members)
        if member.worker.ended:
            self.pool.release(member.worker)

    def member_of(self, worker: WorkerProcess) -> WorkerHandle | None:
        """Return the member of a worker."""
        return next((member for member in self.members if member.worker is worker), None)

    def shutdown(self, grace: float | None = None) -> None:
        """End all workers and the guardian; those that come after them see the driver as it is then."""
        members, self.members = self.members, []
        self._start_variables, self._modules = None, {}
        if grace is None:
            self.pool.shutdown()
        else:
            self.pool.shutdown(grace)
        del members  # what they look at stays until they are gone
        self.lending.bury_all()


class ProcessBackend(WorkerTeam):
    """A team of worker processes that runs what it is given."""

    def execute(self, run: Run) -> None:
        """Run all steps of a run; whatever goes wrong beyond a step ends all workers."""
        if run.finished:
            return
        try:
            # First the processes: they start while this one imports and pickles.
            self.begin_processes(run)
            from flowyml.executors.process.driver.dispatcher import Dispatcher

            Dispatcher(self, run).run()
        except BaseException:
            wait_if_ending()
            self.shutdown(grace=0)
            raise
