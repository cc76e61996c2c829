"""Results of worker processes as values, failures and times of the run."""

from __future__ import annotations

import time
from array import array
from typing import TYPE_CHECKING, Any

from flowyml.errors import ExecutorError, RemoteError, SerializationError, ValueLoadError
from flowyml.executors._initializing import initializer_failed
from flowyml.executors._processes.crossing import wire
from flowyml.executors._processes.crossing.failure import unpack_exception
from flowyml.executors._processes.crossing.values import load_value
from flowyml.planning.templates import ASSET, CHOICE, KEPT, VALUE
from flowyml.steps.dynamic import Returned
from flowyml.steps.once import returned_once
from flowyml.steps.skips import Skipped
from flowyml.store.values import Outputs, bare

if TYPE_CHECKING:
    from flowyml.executors._processes.crossing.wire import Body
    from flowyml.executors._processes.dispatching.batching import BatchSizer
    from flowyml.executors._processes.dispatching.lending import Lending
    from flowyml.executors._processes.dispatching.member import Member, Posting
    from flowyml.running.run import Run

_KINDS = {"tuple": tuple, "list": list}
_RETURN = "return plain data (no open file or connection, no lock, no iterator)"


def no_start(error: bytes) -> ExecutorError:
    """Return the error of a run in which a worker's initializer has raised, as the worker has packed it."""
    return initializer_failed(unpack_exception(error, load_value)[0])


class _Report:
    """What came of consecutive items of a posting; see `Run.complete`."""

    __slots__ = ("ends", "failures", "start")

    def __init__(self, start: float, ends: array[float]) -> None:
        self.start = start
        self.ends = ends
        self.failures: list[tuple[int, int, BaseException]] = []


class Outcomes:
    """Brings results into a run.

    Args:
        run: The run; its values are kept encoded from now on.
        lending: Where large values lie.

    Attributes:
        taken: How many results were taken over.
        finished: How many postings came to their end by it.
    """

    def __init__(self, run: Run, lending: Lending) -> None:
        self._run = run
        self._lending = lending
        self.taken = self.finished = 0
        run.keep_encoded()
        run.usage.captures = True

    def commit(self, member: Member, committed: int, sizer: BatchSizer) -> bool:
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

    def _is_stray(self, member: Member) -> bool:
        """Return True if the next result belongs to no posted step, so that none after it could ever be taken.

        In shared memory `drain` notices it while anything is posted.
        """
        if not member.postings:
            return bool(member.arrived) or member.results.waiting
        return bool(member.arrived) and not member.is_posted(member.arrived[0][0][0])

    def _drain(self, member: Member, posting: Posting, committed: int) -> _Report | None:
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
            self._run.usage.note(item, cpu, memory, self._run.layout.item_count)
        if parts:
            node_of, forms = self._run.node_of, self._run.plan.forms
            for item, (kind, values) in parts:
                form = forms[node_of[item]]
                names = form.outputs if form.within is None else form.several
                raw[item] = Outputs(values, _KINDS[kind] if type(kind) is str else tuple(kind), names)
        return _Report(start, array("d", ends))

    def _receive(self, member: Member, posting: Posting) -> _Report | None:
        """Take over what has come through the socket, if it is next."""
        results, slot = member.arrived, posting.first + posting.done
        report: _Report | None = None
        for k in range(posting.count - posting.done):
            if not results or results[0][0][0] != slot + k or results[0][0][3] == wire.UNCHAINED:
                break
            result = results.popleft()
            if report is None:
                report = _Report(result[0][1], array("d"))
            self._fill(member, posting, k, result, report)
            if report.failures:  # before it is told, what is chained to it goes back
                self._give_back(posting, posting.done + k + 1)
                break
        return report

    def _pass_over(self, member: Member, posting: Posting) -> bool:
        """Pass over a step that was not called, since what it is chained to has no value; tell if it was one."""
        results = member.arrived
        slot = posting.first + posting.done
        if not results or results[0][0][0] != slot or results[0][0][3] != wire.UNCHAINED:
            return False
        body, _ = results.popleft()
        del body
        self._give_back(posting, posting.done)
        posting.done += 1
        if posting.done >= posting.count:
            member.finish(posting)
        return True

    def _give_back(self, posting: Posting, position: int) -> None:
        """Give back the steps from a position on that are chained to the one before it."""
        end = min(posting.batch.next_head(position), posting.count)
        start = max(position, posting.void)
        if start < end:
            self._run.scheduler.give_back(posting.batch, start, end - start)
            posting.void = end

    def fail(self, posting: Posting, error: BaseException, start: float) -> bool:
        """Report the next item of a posting that has no result: its worker died in it; tell whether it has failed."""
        now = time.monotonic()
        item = posting.batch.item(posting.done)
        report = _Report(min(start, now), array("d", [now]))
        report.failures.append((0, item, error))
        self._run.usage.forget(item)
        self._give_back(posting, posting.done + 1)
        position, posting.done = posting.done, posting.done + 1
        return bool(self._run.complete(posting.batch, position, report))

    def _fill(
        self, member: Member, posting: Posting, k: int, result: tuple[Body, list[bytes]], report: _Report
    ) -> None:
        """Take over a result that has come through the socket."""
        (_, _, end, outcome, value), segments = result
        item, raw = posting.batch.item(posting.done + k), self._run.values.raw
        if outcome == wire.LENT:
            outcome, value, kept, returned = value
            self._lending.note(member, kept, returned)
        if outcome == wire.HASHED:
            outcome, value = self._note_content(item, *value)
        if outcome == wire.RETURNED:
            raw[item] = wire.restore(value, segments) if segments else value
        elif outcome == wire.STORED:
            raw[item] = self._lending.receive(value)
        elif outcome == wire.PARTS:
            kind, parts = wire.restore(value, segments)
            parts = [self._lending.receive(part) if wire.is_block(part) else part for part in parts]
            raw[item] = self._parts(item, kind, parts)
        else:
            error = self._error(posting, posting.done + k, outcome, wire.restore(value, segments))  # or a pipeline
            report.failures.append((k, item, error))
        report.ends.append(end)

    def _note_content(self, item: int, outcome: int, value: Any, contents: list[bytes]) -> tuple[int, Any]:
        """Take in the content of a value, which came beside it."""
        recall = self._run.recall
        if recall is not None and recall.contents is not None:
            recall.contents.note(item, contents if outcome == wire.PARTS else contents[0])
        return outcome, value

    def _parts(self, item: int, kind: str | list[str], parts: list[Any]) -> Outputs:
        """Return the values of several outputs as the run keeps them."""
        names = self._run.plan.forms[self._run.node_of[item]].several
        return Outputs(tuple(parts), _KINDS[kind] if isinstance(kind, str) else tuple(kind), names)

    def _error(  # noqa: PLR0911  each outcome has its line
        self, posting: Posting, position: int, outcome: int, value: Any
    ) -> BaseException:
        item = posting.batch.item(position)
        name = self._run.item_name(item)
        if outcome == wire.RAISED:
            error, info = unpack_exception(value, load_value)
            if isinstance(error, RemoteError):
                error.type_names = info.type_names
            return error
        if outcome == wire.SKIPPED:
            return Skipped()
        if outcome == wire.PIPELINE:
            return _pipeline(name, value)
        if outcome == wire.ONCE:
            return returned_once(name, value)
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
            reference = run.tables[node][item - run.layout.firsts[node]]
            reference = reference if which is None else reference[which]
        elif kind in {ASSET, CHOICE}:
            place: Any = which if kind == ASSET else which[0]  # type: ignore[index]
            reference = run.plan.references[node][place]
        reference = bare(reference)
        if isinstance(reference, int):
            return f"step {run.item_name(reference)!r}"
        return f"an argument of step {run.item_name(item)!r}"


def _pipeline(name: str, value: bytes) -> BaseException:
    """Return a pipeline that a step has returned, or why it does not load."""
    try:
        return Returned(load_value(value))
    except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001  the error belongs to the step
        return ValueLoadError(f"step {name!r}", f"{type(error).__name__}: {error}")
