"""The dispatch loop: one thread of the driver owns all communication with the worker processes.

```
            ┌── assign_batches: see `assignment.py`
  run() ──▶ │── wait: for sockets, the supervisor and output pipes, see `connections.py`
            ├── handle: results ─▶ run.complete   output ─▶ sys.stdout   exits ─▶ blame, give back, replace
            └── enforce limits: the supervisor kills a worker whose step exceeds one
```

When a worker dies, the messages that it has sent still count. Then the step that it claimed last is to blame, unless
its result has arrived; its other steps become ready again and have not spent an attempt.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flowyml.errors import ExecutorError
from flowyml.executors.process.driver.assignment import STEAL_DELAY_SECONDS, BatchAssigner, take_back
from flowyml.executors.process.driver.connections import WorkerConnections
from flowyml.executors.process.driver.limit_monitor import limit_monitors
from flowyml.executors.process.driver.output import keep
from flowyml.executors.process.driver.result_decoder import ResultDecoder, WorkerLossHandler, initializer_error
from flowyml.executors.process.driver.worker_handle import KillDecision
from flowyml.executors.process.pool.worker_pool import block_at_interpreter_exit
from flowyml.executors.process.pool.worker_process import SpawnFailed, SupervisorLost, WorkerExited
from flowyml.executors.process.protocol import wire
from flowyml.executors.process.protocol.log_records import handle_record

if TYPE_CHECKING:
    from flowyml.executors.process.driver.backend import ProcessBackend
    from flowyml.executors.process.driver.limit_monitor import LimitMonitor
    from flowyml.executors.process.driver.worker_handle import WorkerHandle
    from flowyml.runtime.run import Run

MAX_WAIT_SECONDS = 1.0
# How long a result may stay in shared memory while its worker is in a long step, if hooks or a journal await it.
RESULT_POLL_SECONDS = 0.01
# Portions read from one worker before the next worker is served.
MAX_READS = 8

clock = time.monotonic


class Dispatcher:
    """Executes one run on the workers of a backend."""

    def __init__(self, backend: ProcessBackend, run: Run) -> None:
        self._backend = backend
        self._run = run
        self._connections = WorkerConnections()
        self._assigner = BatchAssigner(backend, run, self._connections)
        self._decoder = ResultDecoder(run, backend.arenas)
        self._monitors = limit_monitors(backend, run)
        self._loss_handler = WorkerLossHandler(run, self._decoder)
        self._stopped = False

    def run(self) -> None:
        """Execute all steps."""
        try:
            self._backend.start(self._run)
            self._assigner.begin()
            while not self._run.finished:
                self._assigner.assign_batches()
                self._connections.listen(self._backend.pool.fileno())
                self._assigner.show_output()
                self._run.deliver_events()
                self._wait()
            self._end()
        except KeyboardInterrupt:
            self._drain_results()
            raise
        finally:
            self._connections.close()

    def _drain_results(self) -> None:
        """Take the results that were sent before Ctrl-C, so that finished steps count."""
        self._run.cancel()
        self._end()

    def _end(self) -> None:
        self._backend.recycle_workers()
        for worker in self._backend.workers:
            while self._read_frames(worker):
                pass
            worker.read_pipes(last=True)
        self._assigner.end()

    def stop(self) -> None:
        """Cancel all steps that have not begun."""
        self._stopped = True
        self._run.cancel()
        for worker in self._backend.workers:
            take_back(self._run, worker, keep=0)

    # -- messages from workers

    def _wait(self) -> None:
        if self._run.finished:
            return
        timeout = self._timeout()
        if self._run.finished:
            return
        if timeout and self._run.check_progress():
            return
        with self._run.interrupts.may_raise():
            ready = self._connections.poll(timeout)
        block_at_interpreter_exit()
        for worker in self._backend.workers:
            worker.results.awake()
        for fd in ready:
            if (speaker := self._connections.owner_of(fd)) is not None:
                self._on_socket(speaker)
            elif not self._connections.read_pipe(fd):
                self._on_supervisor()
        self._drain_shared_memory()
        for monitor in self._monitors:
            if clock() >= monitor.next:
                self._enforce(monitor)

    def _arm_wakeups(self, *, ends_soon: bool) -> bool:
        """Ask workers to wake the loop, then check once more; return True if there is something to do.

        Results wait in shared memory until workers have nothing left to do, unless a worker is idle for which a single
        result could make a step ready, and the posted steps do not end soon.
        """
        each_result = not ends_soon and self._assigner.wants_early_wakeup
        for worker in self._backend.workers:
            worker.results.want(each_result)
        finished, taken = self._decoder.finished, self._decoder.taken
        self._drain_shared_memory()
        return self._decoder.finished != finished or (each_result and self._decoder.taken != taken)

    def _drain_shared_memory(self) -> None:
        for worker in self._backend.workers:
            if worker.results.waiting and not worker.corrupt:
                self._read_frames(worker)

    def _timeout(self) -> float:
        ends_soon = self._assigner.ends_soon
        if self._arm_wakeups(ends_soon=ends_soon):
            return 0.0
        return STEAL_DELAY_SECONDS if ends_soon else self._longest_wait()

    def _longest_wait(self) -> float:
        """Return how long to wait: until a deadline, or shortly if an idle worker may steal steps."""
        wakeups = [monitor.next for monitor in self._monitors]
        if (wakeup := self._run.scheduler.next_wakeup()) is not None:
            wakeups.append(wakeup)
        longest = self._run.poll_interval(MAX_WAIT_SECONDS)
        if self._run.reports_early and any(worker.open > 1 for worker in self._backend.workers):
            longest = min(longest, RESULT_POLL_SECONDS)
        longest = min(longest, max(0.0, min(wakeups) - clock())) if wakeups else longest
        return STEAL_DELAY_SECONDS if self._assigner.has_idle_worker else longest

    def _on_socket(self, worker: WorkerHandle) -> None:
        self._connections.flush(worker)
        self._read_frames(worker)
        if worker.receiver.ended and not worker.failed:
            worker.failed = True
            self._connections.disconnect(worker)
            if worker.retired is None:
                self._backend.pool.kill(worker.process)

    def _read_frames(self, worker: WorkerHandle) -> bool:
        """Read up to `MAX_READS` portions of a worker's messages; return True if there are more.

        The end of its results in shared memory is read first, so that a step's log records are handled before its
        result.
        """
        full, reads = True, 0
        while full and reads < MAX_READS:
            committed = worker.results.committed()
            full = worker.receiver.read() == wire.RECEIVE_BYTES
            reads += 1
            self._handle_frames(worker, committed)
        return full

    def _handle_frame(self, worker: WorkerHandle, kind: int, body: Any, segments: list[bytes]) -> None:
        run = self._run
        if kind == wire.RESULT:
            result = wire.ResultBody._make(body)
            worker.arrived.append(
                result._replace(value=wire.insert_segments(result.value, segments)) if segments else result
            )
        elif kind == wire.LOG:
            handle_record(wire.insert_segments(body, segments), keep=lambda slot, text: keep(run, worker, slot, text))
        elif kind == wire.USAGE:
            slot, cpu, memory = body
            is_open = bool(worker.batches) and worker.is_posted(slot)  # else it is of an earlier run
            item = worker.item_at(slot) if is_open else None
            if item is not None:
                run.usage.note(item, cpu, memory, run.item_index.item_count)
        elif kind == wire.READY:
            worker.ready = True
        elif kind == wire.INITIALIZED:
            worker.initialized = body
        elif kind == wire.INITIALIZER_FAILED:
            number, error = body
            if number == self._backend.runs and not run.finished:  # else it tries again with the next SETUP
                raise initializer_error(error)

    def _handle_frames(self, worker: WorkerHandle, committed: int) -> None:
        for frame in worker.receiver.frames():
            self._handle_frame(worker, *frame)
        before, corrupt = self._decoder.taken, worker.corrupt
        failed = self._decoder.commit(worker, committed, self._assigner.sizer)
        if worker.corrupt and not corrupt:
            take_back(self._run, worker, keep=0)  # so that it does not begin steps that others run again
            self._backend.pool.kill(worker.process)
        if self._decoder.taken != before:
            self._loss_handler.reset_failures()
            if failed and self._run.fail_fast and not self._stopped:
                self.stop()

    def _on_supervisor(self) -> None:
        for event in self._backend.pool.read_events():
            if isinstance(event, SupervisorLost):
                raise ExecutorError(event.reason)
            if isinstance(event, SpawnFailed):
                self._on_spawn_failed(self._backend.handle_of(event.worker), event.error)
            if isinstance(event, WorkerExited):
                self._on_worker_exit(self._backend.handle_of(event.worker))

    def _on_spawn_failed(self, worker: WorkerHandle | None, error: OSError) -> None:
        if worker is None:
            return
        worker.verdict = KillDecision(None, None)
        self._backend.on_spawn_failed(error)
        self._on_worker_exit(worker)

    # -- limits

    def _enforce(self, monitor: LimitMonitor) -> None:
        """Kill the workers whose step exceeds a limit.

        First the results that they have sent are taken, and the steps that they have not begun are taken back: either
        may show that the step has ended, and afterwards the worker cannot begin another one.
        """
        monitor.begin_check()
        for worker in self._backend.workers:
            if monitor.is_over_limit(worker):
                self._read_frames(worker)
                take_back(self._run, worker, keep=0)
                worker.verdict = monitor.verdict(worker)
                if worker.verdict is not None:
                    self._backend.pool.kill(worker.process)

    # -- exits

    def _on_worker_exit(self, worker: WorkerHandle | None) -> None:
        """Take the last results of a dead worker, blame the step that it was in, and give back the others."""
        if worker is None:
            return
        while worker.receiver.read():
            pass
        self._handle_frames(worker, worker.results.committed())
        worker.read_pipes(last=True)  # while its slots are known
        if self._loss_handler.handle_exit(worker) and self._run.fail_fast and not self._stopped:
            self.stop()
        if worker.retired is None:  # else another worker has its number
            self._backend.arenas.discard_unfinished(worker.number)
        self._connections.remove(worker)
        self._backend.remove_worker(worker)
