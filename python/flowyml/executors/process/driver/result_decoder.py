"""Results of worker processes as values, failures and times of the run.

What a dead worker leaves: the step to blame, and the steps to give back.

The step it claimed last is guilty, unless its result is in; whatever it has delivered was taken over before. A worker
that dies before it has begun a step is nobody's fault, until that happens again and again.

A torn worker, whose results ring holds something other than its results, has begun steps whose results cannot be read.
The first of them is guilty: the invalid record is in the place of its result. All others are given back.
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


# Workers that die one after the other without having begun a step: something is wrong with starting, not with a step.
_MOST_FALSE_STARTS = 3
# Steps that are blamed for such deaths before the run is given up.
_MOST_BLAMED = 3
_TORN = "something wrote into the shared memory of its results (ctypes? an extension module?), so it was ended"


class WorkerLossHandler:
    """The deaths of one run's workers.

    Args:
        run: The run.
        outcomes: Gets the steps that are to blame.
    """

    def __init__(self, run: Run, outcomes: ResultDecoder) -> None:
        self._run = run
        self._outcomes = outcomes
        self._false_starts = 0

    def note_result(self) -> None:
        """Workers do begin steps."""
        self._false_starts = 0

    def settle(self, member: WorkerHandle) -> bool:
        """Blame the step that a dead worker was in, and give back what it has not begun; tell whether a step failed.

        Raises:
            ExecutorError: Workers die one after the other, and it is no step's fault.
        """
        guilty = member.worker.claims.last_claimed() if member.begun else None
        if member.torn and guilty is not None:
            guilty = member.postings[0].first + member.postings[0].left
        verdict = member.verdict
        if verdict is not None and verdict.slot is None and verdict.reason is not None:
            self._count_end(verdict.reason)
        elif guilty is None and member.postings and verdict is None:
            guilty = self._count_false_start(member)
        failed = False
        for posting in list(member.postings):
            if guilty is not None and posting.first + posting.left <= guilty < posting.first + posting.count:
                error = self._reason(member, guilty, posting.batch.item(posting.done))
                failed = self._outcomes.fail(posting, error, member.began)
            left = posting.count - posting.left
            if left > 0:
                self._run.scheduler.give_back(posting.batch, posting.left, left)
        member.postings.clear()
        return failed

    def _reason(self, member: WorkerHandle, guilty: int, item: int) -> BaseException:
        """Say why the step in a slot took its worker along."""
        verdict = member.verdict
        if verdict is not None and verdict.slot == guilty and verdict.reason is not None:
            return verdict.reason
        reason = _TORN if member.torn else None
        return WorkerLostError(self._run.item_name(item), member.worker.exitcode, reason)

    def _count_false_start(self, member: WorkerHandle) -> int | None:
        """Return the slot to blame when workers die again and again before they begin a step.

        Something that comes before a step may be its own: an argument that takes all memory, a module that crashes when
        it is imported. So the step that was next is blamed at every third death; and nobody any more when that does
        not help either. What comes before the initializer has ended is no step's.
        """
        self._false_starts += 1
        started = member.ready and member.initialized
        if self._false_starts >= _MOST_FALSE_STARTS * (_MOST_BLAMED + 1) or not started:
            self._check_starts(member)
        first = member.postings[0]
        return first.first + first.done if started and self._false_starts % _MOST_FALSE_STARTS == 0 else None

    def _count_end(self, reason: BaseException) -> None:
        """Give the run up if workers have to be ended again and again before they begin a step.

        Raises:
            ExecutorError: They were, for this reason.
        """
        self._false_starts += 1
        if self._false_starts >= _MOST_FALSE_STARTS:
            raise reason

    def _check_starts(self, member: WorkerHandle) -> None:
        """Give the run up if workers do not even start.

        Raises:
            ExecutorError: They died one after the other.
        """
        if self._false_starts >= _MOST_FALSE_STARTS:
            if member.ready and not member.initialized:
                raise ExecutorError(
                    f"{self._false_starts} worker processes died one after the other in the initializer, the last one: "
                    f"{describe_exit(member.worker.exitcode)}"
                )
            how = "before they began a step" if member.ready else "when they started"
            lost = WorkerLostError(self._run.item_name(member.postings[0].batch.item(0)), member.worker.exitcode)
            raise ExecutorError(
                f"{self._false_starts} worker processes died one after the other {how}; the last step was: {lost}"
            )


_KINDS = {"tuple": tuple, "list": list}
_RETURN = "return plain data (no open file or connection, no lock, no iterator)"


def no_start(error: bytes) -> ExecutorError:
    """Return the error of a run in which a worker's initializer has raised, as the worker has packed it."""
    return initializer_failed(unpack_exception(error, load_value)[0])


class ResultDecoder:
    """Brings results into a run.

    Args:
        run: The run; its values are kept encoded from now on.
        lending: Where large values lie.

    Attributes:
        taken: How many results were taken over.
        finished: How many postings came to their end by it.
    """

    def __init__(self, run: Run, lending: ArenaOwner) -> None:
        self._run = run
        self._lending = lending
        self.taken = self.finished = 0
        run.keep_values_serialized()
        run.captures_output = True

    def commit(self, member: WorkerHandle, committed: int, sizer: BatchSizer) -> bool:
        """Take over the results of a worker, in the order of its slots; tell whether a step failed.

        What is small stands in shared memory, all else has come through the socket: whichever has the next slot.

        Args:
            member: The worker.
            committed: Up to where its shared memory is looked at: what it sent before that was read from the socket.
            sizer: Learns how long the steps took.
        """
        failed = False
        while member.postings:
            posting = member.postings[0]
            if self._pass_over(member, posting):
                continue
            report = self._drain(member, posting, committed) or self._receive(member, posting)
            if report is None:
                break
            count = len(report.ends)
            sizer.observe(count, report.ends[-1] - report.start)
            position, posting.done = posting.done, posting.done + count
            self.taken += count
            failed = bool(self._run.complete(posting.batch, position, report)) or failed
            if posting.done == posting.count:
                self.finished += 1
                member.finish(posting)
        member.torn = member.torn or self._is_stray(member)
        return failed

    def _is_stray(self, member: WorkerHandle) -> bool:
        """Return True if the next result belongs to no posted step, so that none after it could ever be taken.

        In shared memory `drain` notices it while anything is posted.
        """
        if not member.postings:
            return bool(member.arrived) or member.results.waiting
        return bool(member.arrived) and not member.is_posted(member.arrived[0].slot)

    def _drain(self, member: WorkerHandle, posting: PostedBatch, committed: int) -> BatchReport | None:
        """Take over what stands in shared memory, up to a result that does not; the worker is torn if that is none."""
        if member.torn:
            return None
        done, raw = posting.done, self._run.values.raw
        slot, left = posting.first + done, posting.count - done
        try:
            end, unpack = member.posted_end, wire.unpacked_parts
            found = member.results.drain(raw, posting.batch, done, left, slot, end, committed, unpack)
        except ValueError:  # a step has written into the memory: none of its contents can be trusted
            member.torn, found = True, None
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

    def _receive(self, member: WorkerHandle, posting: PostedBatch) -> BatchReport | None:
        """Take over what has come through the socket, if it is next."""
        results, slot = member.arrived, posting.first + posting.done
        report: BatchReport | None = None
        for k in range(posting.count - posting.done):
            if not results or results[0].slot != slot + k or results[0].outcome == wire.UNCHAINED:
                break
            result = results.popleft()
            if report is None:
                report = BatchReport(result.start, array("d"))
            self._fill(member, posting, k, result, report)
            del result  # a large value must not stay until the next one
            if report.failures:  # before it is told, what is chained to it goes back
                self._give_back(posting, posting.done + k + 1)
                break
        return report

    def _pass_over(self, member: WorkerHandle, posting: PostedBatch) -> bool:
        """Pass over a step that was not called, since what it is chained to has no value; tell if it was one."""
        results = member.arrived
        slot = posting.first + posting.done
        if not results or results[0].slot != slot or results[0].outcome != wire.UNCHAINED:
            return False
        results.popleft()
        self._give_back(posting, posting.done)
        posting.done += 1
        if posting.done >= posting.count:
            member.finish(posting)
        return True

    def _give_back(self, posting: PostedBatch, position: int) -> None:
        """Give back the steps from a position on that are chained to the one before it."""
        end = min(posting.batch.next_head(position), posting.count)
        start = max(position, posting.void)
        if start < end:
            self._run.scheduler.give_back(posting.batch, start, end - start)
            posting.void = end

    def fail(self, posting: PostedBatch, error: BaseException, start: float) -> bool:
        """Report the next item of a posting that has no result: its worker died in it; tell whether it has failed."""
        now = time.monotonic()
        item = posting.batch.item(posting.done)
        report = BatchReport(min(start, now), array("d", [now]))
        report.failures.append((0, item, error))
        self._run.usage.forget(item)
        self._give_back(posting, posting.done + 1)
        position, posting.done = posting.done, posting.done + 1
        return bool(self._run.complete(posting.batch, position, report))

    def _fill(
        self,
        member: WorkerHandle,
        posting: PostedBatch,
        k: int,
        result: ResultBody,
        report: BatchReport,
    ) -> None:
        """Take over a result that has come through the socket."""
        outcome, value = result.outcome, result.value
        item, raw = posting.batch.item(posting.done + k), self._run.values.raw
        if outcome == wire.LENT:
            outcome, value, kept, returned = value
            self._lending.note(member, kept, returned)
        if outcome == wire.HASHED:
            outcome, value = self._note_content(item, *value)
        if outcome == wire.RETURNED:
            raw[item] = value
        elif outcome == wire.STORED:
            raw[item] = self._lending.receive(value)
        elif outcome == wire.PARTS:
            kind, parts = value
            parts = [self._lending.receive(part) if wire.is_block(part) else part for part in parts]
            raw[item] = self._parts(item, kind, parts)
        else:
            error = self._error(posting, posting.done + k, outcome, value)  # or a pipeline
            report.failures.append((k, item, error))
        report.ends.append(result.end)

    def _note_content(self, item: int, outcome: int, value: Any, contents: list[bytes]) -> tuple[int, Any]:
        """Take in the content of a value, which came beside it."""
        recall = self._run.lookup
        if recall is not None and recall.contents is not None:
            recall.contents.note(item, contents if outcome == wire.PARTS else contents[0])
        return outcome, value

    def _parts(self, item: int, kind: str | list[str], parts: list[Any]) -> MultiOutput:
        """Return the values of several outputs as the run keeps them."""
        names = self._run.plan.specs[self._run.node_of[item]].several
        return MultiOutput(tuple(parts), _KINDS[kind] if isinstance(kind, str) else tuple(kind), names)

    def _error(  # noqa: PLR0911  each outcome has its line
        self, posting: PostedBatch, position: int, outcome: int, value: Any
    ) -> BaseException:
        item = posting.batch.item(position)
        name = self._run.item_name(item)
        if outcome == wire.RAISED:
            error, info = unpack_exception(value, load_value)
            if isinstance(error, RemoteError):
                error.type_names = info.type_names
            return error
        if outcome == wire.SKIPPED:
            return StepSkipped()
        if outcome == wire.PIPELINE:
            return _pipeline(name, value)
        if outcome == wire.ONCE:
            return single_use_error(name, value)
        if outcome == wire.UNPICKLABLE:
            return SerializationError(f"the result of step {name!r}", value, _RETURN)
        if outcome == wire.REFUSED:
            return posting.refused[position]
        return ValueLoadError(self._source(item, value[0]), value[1])

    def _source(self, item: int, argument: int) -> str:
        """Say where an argument that does not load comes from."""
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
    """Return a pipeline that a step has returned, or why it does not load."""
    try:
        return SubgraphReturned(load_value(value))
    except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001  the error belongs to the step
        return ValueLoadError(f"step {name!r}", f"{type(error).__name__}: {error}")
