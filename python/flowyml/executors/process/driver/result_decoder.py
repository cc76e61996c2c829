"""Turns the results of worker processes into values, failures and times of the run.

When a worker dies, its results are taken first. Then the step that it claimed last is to blame, unless its result has
arrived; the others are given back. A worker that dies before it has begun a step is no step's fault, unless that
happens again and again.

A corrupt worker, whose results ring contains something other than its results, has begun steps whose results cannot be
read. The first of them is to blame, since the invalid record is in the place of its result. The others are given back.
"""

from __future__ import annotations

import time
from array import array
from typing import TYPE_CHECKING, Any

from flowyml.errors import (
    ExecutorError,
    RemoteError,
    SerializationError,
    ValueLoadError,
    WorkerLostError,
    describe_exit,
)
from flowyml.executors.initializer import initializer_failed
from flowyml.executors.process.protocol import wire
from flowyml.executors.process.protocol.exceptions import unpack_exception
from flowyml.executors.process.protocol.value_pickle import load_value
from flowyml.planning.call_template import ASSET, CHOICE, KEPT, VALUE
from flowyml.runtime.run import BatchReport
from flowyml.steps.dynamic import SubgraphReturned
from flowyml.steps.outcomes import StepSkipped, single_use_error
from flowyml.store.value_store import MultiOutput, unwrap_reference

if TYPE_CHECKING:
    from flowyml.executors.process.driver.arena_owner import ArenaOwner
    from flowyml.executors.process.driver.batching import BatchSizer
    from flowyml.executors.process.driver.worker_handle import PostedBatch, WorkerHandle
    from flowyml.executors.process.protocol.wire import ResultBody
    from flowyml.runtime.run import Run


# Consecutive deaths of workers that have not begun a step: starting is broken, not a step.
MAX_FALSE_STARTS = 3
# Steps that are blamed for such deaths before the run fails.
MAX_BLAMED_STEPS = 3
_TORN = "something wrote into the shared memory of its results (ctypes? an extension module?), so it was ended"


class WorkerLossHandler:
    """Handles the deaths of one run's workers."""

    def __init__(self, run: Run, outcomes: ResultDecoder) -> None:
        self._run = run
        self._decoder = outcomes
        self._false_starts = 0

    def reset_failures(self) -> None:
        """Note that workers do begin steps."""
        self._false_starts = 0

    def handle_exit(self, worker: WorkerHandle) -> bool:
        """Blame the step that a dead worker was in, give back those it has not begun; return True if a step failed.

        Raises:
            ExecutorError: Workers die one after the other, and no step is to blame.
        """
        guilty = worker.process.claims.last_claimed() if worker.has_started else None
        if worker.corrupt and guilty is not None:
            guilty = worker.batches[0].first + worker.batches[0].left
        verdict = worker.verdict
        if verdict is not None and verdict.slot is None and verdict.reason is not None:
            self._count_end(verdict.reason)
        elif guilty is None and worker.batches and verdict is None:
            guilty = self._count_false_start(worker)
        failed = False
        for posted in list(worker.batches):
            if guilty is not None and posted.first + posted.left <= guilty < posted.first + posted.count:
                error = self._reason(worker, guilty, posted.batch.item(posted.done))
                failed = self._decoder.fail(posted, error, worker.began)
            left = posted.count - posted.left
            if left > 0:
                self._run.scheduler.give_back(posted.batch, posted.left, left)
        worker.batches.clear()
        return failed

    def _reason(self, worker: WorkerHandle, guilty: int, item: int) -> BaseException:
        verdict = worker.verdict
        if verdict is not None and verdict.slot == guilty and verdict.reason is not None:
            return verdict.reason
        reason = _TORN if worker.corrupt else None
        return WorkerLostError(self._run.item_name(item), worker.process.exitcode, reason)

    def _count_false_start(self, worker: WorkerHandle) -> int | None:
        """Return the slot to blame if workers die again and again before they begin a step.

        The next step may be the reason: an argument that takes all memory, a module that crashes when it is imported.
        So it is blamed at every third death, and the run ends if that does not help. Before the initializer has ended
        no step is to blame.
        """
        self._false_starts += 1
        started = worker.ready and worker.initialized
        if self._false_starts >= MAX_FALSE_STARTS * (MAX_BLAMED_STEPS + 1) or not started:
            self._check_starts(worker)
        first = worker.batches[0]
        return first.first + first.done if started and self._false_starts % MAX_FALSE_STARTS == 0 else None

    def _count_end(self, reason: BaseException) -> None:
        self._false_starts += 1
        if self._false_starts >= MAX_FALSE_STARTS:
            raise reason

    def _check_starts(self, worker: WorkerHandle) -> None:
        if self._false_starts >= MAX_FALSE_STARTS:
            if worker.ready and not worker.initialized:
                raise ExecutorError(
                    f"{self._false_starts} worker processes died one after the other in the initializer, the last one: "
                    f"{describe_exit(worker.process.exitcode)}"
                )
            how = "before they began a step" if worker.ready else "when they started"
            lost = WorkerLostError(self._run.item_name(worker.batches[0].batch.item(0)), worker.process.exitcode)
            raise ExecutorError(
                f"{self._false_starts} worker processes died one after the other {how}; the last step was: {lost}"
            )


_KINDS = {"tuple": tuple, "list": list}
_RETURN = "return plain data (no open file or connection, no lock, no iterator)"


def initializer_error(error: bytes) -> ExecutorError:
    """Return the error of a run whose initializer has raised, from the worker's packed exception."""
    return initializer_failed(unpack_exception(error, load_value)[0])


class ResultDecoder:
    """Completes the steps of a run with the results of its workers.

    Attributes:
        taken: The number of results that were taken.
        finished: The number of batches that they completed.
    """

    def __init__(self, run: Run, arenas: ArenaOwner) -> None:
        self._run = run
        self._arenas = arenas
        self.taken = self.finished = 0
        run.keep_values_serialized()
        run.captures_output = True

    def commit(self, worker: WorkerHandle, committed: int, sizer: BatchSizer) -> bool:
        """Take the results of a worker, in the order of its slots; return True if a step failed.

        Small results are in shared memory, others have arrived through the socket: the next slot decides.

        Args:
            worker: The worker.
            committed: The end of its results in shared memory; what it sent before was read from the socket.
            sizer: Receives the duration of the steps.
        """
        failed = False
        while worker.batches:
            posted = worker.batches[0]
            if self._pass_over(worker, posted):
                continue
            report = self._drain(worker, posted, committed) or self._receive(worker, posted)
            if report is None:
                break
            count = len(report.ends)
            sizer.observe(count, report.ends[-1] - report.start)
            position, posted.done = posted.done, posted.done + count
            self.taken += count
            failed = bool(self._run.complete(posted.batch, position, report)) or failed
            if posted.done == posted.count:
                self.finished += 1
                worker.finish(posted)
        worker.corrupt = worker.corrupt or self._is_stray(worker)
        return failed

    def _is_stray(self, worker: WorkerHandle) -> bool:
        """Return True if the next result belongs to no posted step, so that none after it could be taken.

        While steps are posted, `drain` detects this in shared memory.
        """
        if not worker.batches:
            return bool(worker.arrived) or worker.results.waiting
        return bool(worker.arrived) and not worker.is_posted(worker.arrived[0].slot)

    def _drain(self, worker: WorkerHandle, posted: PostedBatch, committed: int) -> BatchReport | None:
        """Take the results in shared memory up to one that is not there; mark the worker corrupt if one is invalid."""
        if worker.corrupt:
            return None
        done, raw = posted.done, self._run.values.raw
        slot, left = posted.first + done, posted.count - done
        try:
            end, unpack = worker.posted_end, wire.unpack_outputs
            found = worker.results.drain(raw, posted.batch, done, left, slot, end, committed, unpack)
        except ValueError:  # a step has overwritten the memory: nothing in it can be trusted
            worker.corrupt, found = True, None
        if found is None:
            return None
        start, ends, used, parts = found
        for item, cpu, memory in used:
            self._run.usage.note(item, cpu, memory, self._run.item_index.item_count)
        if parts:
            node_of, specs = self._run.node_of, self._run.plan.specs
            for item, (kind, values) in parts:
                spec = specs[node_of[item]]
                names = spec.outputs if spec.within is None else spec.several
                raw[item] = MultiOutput(values, _KINDS[kind] if type(kind) is str else tuple(kind), names)
        return BatchReport(start, array("d", ends))

    def _receive(self, worker: WorkerHandle, posted: PostedBatch) -> BatchReport | None:
        results, slot = worker.arrived, posted.first + posted.done
        report: BatchReport | None = None
        for k in range(posted.count - posted.done):
            if not results or results[0].slot != slot + k or results[0].outcome == wire.CHAIN_BROKEN:
                break
            result = results.popleft()
            if report is None:
                report = BatchReport(result.start, array("d"))
            self._fill(worker, posted, k, result, report)
            del result  # a large value must not stay until the next one
            if report.failures:  # its dependents go back before the failure is reported
                self._give_back(posted, posted.done + k + 1)
                break
        return report

    def _pass_over(self, worker: WorkerHandle, posted: PostedBatch) -> bool:
        """Skip a step that was not called because the step before it has no value; return False if there is none."""
        results = worker.arrived
        slot = posted.first + posted.done
        if not results or results[0].slot != slot or results[0].outcome != wire.CHAIN_BROKEN:
            return False
        results.popleft()
        self._give_back(posted, posted.done)
        posted.done += 1
        if posted.done >= posted.count:
            worker.finish(posted)
        return True

    def _give_back(self, posted: PostedBatch, position: int) -> None:
        """Give back the steps from a position on that are chained to the one before it."""
        end = min(posted.batch.next_head(position), posted.count)
        start = max(position, posted.void)
        if start < end:
            self._run.scheduler.give_back(posted.batch, start, end - start)
            posted.void = end

    def fail(self, posted: PostedBatch, error: BaseException, start: float) -> bool:
        """Fail the next step of a batch, in which its worker died; return True if no attempt is left."""
        now = time.monotonic()
        item = posted.batch.item(posted.done)
        report = BatchReport(min(start, now), array("d", [now]))
        report.failures.append((0, item, error))
        self._run.usage.forget(item)
        self._give_back(posted, posted.done + 1)
        position, posted.done = posted.done, posted.done + 1
        return bool(self._run.complete(posted.batch, position, report))

    def _fill(self, worker: WorkerHandle, posted: PostedBatch, k: int, result: ResultBody, report: BatchReport) -> None:
        outcome, value = result.outcome, result.value
        item, raw = posted.batch.item(posted.done + k), self._run.values.raw
        if outcome == wire.RETAINED_BLOCKS:
            outcome, value, kept, returned = value
            self._arenas.note_retained(worker, kept, returned)
        if outcome == wire.HASHED:
            outcome, value = self._note_content(item, *value)
        if outcome == wire.RETURNED:
            raw[item] = value
        elif outcome == wire.STORED:
            raw[item] = self._arenas.receive(value)
        elif outcome == wire.MULTI_OUTPUT:
            kind, parts = value
            parts = [self._arenas.receive(part) if wire.is_block(part) else part for part in parts]
            raw[item] = self._parts(item, kind, parts)
        else:
            error = self._error(posted, posted.done + k, outcome, value)  # or a pipeline
            report.failures.append((k, item, error))
        report.ends.append(result.end)

    def _note_content(self, item: int, outcome: int, value: Any, contents: list[bytes]) -> tuple[int, Any]:
        recall = self._run.lookup
        if recall is not None and recall.contents is not None:
            recall.contents.note(item, contents if outcome == wire.MULTI_OUTPUT else contents[0])
        return outcome, value

    def _parts(self, item: int, kind: str | list[str], parts: list[Any]) -> MultiOutput:
        names = self._run.plan.specs[self._run.node_of[item]].several
        return MultiOutput(tuple(parts), _KINDS[kind] if isinstance(kind, str) else tuple(kind), names)

    def _error(  # noqa: PLR0911  each outcome has its line
        self, posted: PostedBatch, position: int, outcome: int, value: Any
    ) -> BaseException:
        item = posted.batch.item(position)
        name = self._run.item_name(item)
        if outcome == wire.RAISED:
            error, info = unpack_exception(value, load_value)
            if isinstance(error, RemoteError):
                error.type_names = info.type_names
            return error
        if outcome == wire.SKIPPED:
            return StepSkipped()
        if outcome == wire.SUBGRAPH:
            return _pipeline(name, value)
        if outcome == wire.SINGLE_USE:
            return single_use_error(name, value)
        if outcome == wire.UNPICKLABLE:
            return SerializationError(f"the result of step {name!r}", value, _RETURN)
        if outcome == wire.REFUSED:
            return posted.refused[position]
        return ValueLoadError(self._source(item, value[0]), value[1])

    def _source(self, item: int, argument: int) -> str:
        """Describe the source of an argument that cannot be loaded."""
        run, node = self._run, self._run.node_of[item]
        template = run.plan.templates[node]
        sources: Any = template.sources if template is not None else ()
        kind, which = sources[argument] if argument < len(sources) else (VALUE, None)
        reference: Any = None
        if kind == KEPT:
            reference = run.map_inputs[node][item - run.item_index.firsts[node]]
            reference = reference if which is None else reference[which]
        elif kind in {ASSET, CHOICE}:
            place: Any = which if kind == ASSET else which[0]  # type: ignore[index]
            reference = run.plan.references[node][place]
        reference = unwrap_reference(reference)
        if isinstance(reference, int):
            return f"step {run.item_name(reference)!r}"
        return f"an argument of step {run.item_name(item)!r}"


def _pipeline(name: str, value: bytes) -> BaseException:
    try:
        return SubgraphReturned(load_value(value))
    except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001  the error belongs to the step
        return ValueLoadError(f"step {name!r}", f"{type(error).__name__}: {error}")
