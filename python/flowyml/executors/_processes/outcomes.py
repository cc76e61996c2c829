"""Results of worker processes as values, failures and times of the run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flowyml.conditions import Skipped
from flowyml.dynamic_steps import Returned
from flowyml.errors import RemoteError, SerializationError, ValueLoadError
from flowyml.executors._processes import wire
from flowyml.executors._processes.failure import unpack_exception
from flowyml.executors._processes.values import load_value
from flowyml.store.values import Outputs, bare
from flowyml.templates import ASSET, CHOICE, KEPT, VALUE

if TYPE_CHECKING:
    from flowyml.executors._processes.lending import Lending
    from flowyml.executors._processes.member import Member, Posting
    from flowyml.executors._processes.wire import Body
    from flowyml.executors.batching import BatchSizer
    from flowyml.run import Run

_RETURN = "return plain data (a list, not a generator; no open file or connection)"


class _Report:
    """What came of consecutive items of a posting; see `Run.complete`."""

    __slots__ = ("ends", "failures", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.ends: list[float] = []
        self.failures: list[tuple[int, int, BaseException]] = []


class Outcomes:
    """Brings results into a run.

    Args:
        run: The run; its values are kept encoded from now on.
        lending: Where large values lie.
    """

    def __init__(self, run: Run, lending: Lending) -> None:
        """Tell the run's values how to decode."""
        self._run = run
        self._lending = lending
        run.keep_encoded()
        run.usage.captures = True

    def commit(self, member: Member, results: list[tuple[Body, list[bytes]]], sizer: BatchSizer) -> bool:
        """Take over results that a worker has sent, in slot order; tell whether a step failed."""
        failed = False
        at = 0
        while at < len(results):
            posting = member.postings[0]
            report = _Report(results[at][0][1])
            taken = self._fill(member, results, at, report)
            sizer.observe(len(report.ends), report.ends[-1] - report.start)
            position, posting.done = posting.done, posting.done + len(report.ends)
            failed = bool(self._run.complete(posting.batch, position, report)) or failed
            if posting.done == posting.count:
                member.finish(posting)
            at += taken
        return failed

    def fail(self, posting: Posting, error: BaseException, start: float) -> bool:
        """Report the next item of a posting that has no result: its worker died in it; tell whether it has failed."""
        now = time.monotonic()
        report = _Report(min(start, now))
        report.ends.append(now)
        report.failures.append((0, posting.items[posting.done], error))
        self._run.usage.forget(posting.items[posting.done])
        position, posting.done = posting.done, posting.done + 1
        return bool(self._run.complete(posting.batch, position, report))

    def _fill(self, member: Member, results: list[tuple[Body, list[bytes]]], at: int, report: _Report) -> int:
        """Take as many results as belong to the first posting."""
        posting = member.postings[0]
        raw, ends = self._run.values.raw, report.ends
        taken = min(len(results) - at, posting.count - posting.done)
        for k in range(taken):
            (_, _, end, outcome, value), segments = results[at + k]
            item = posting.items[posting.done + k]
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
                raw[item] = self._parts(item, wire.restore(value, segments))
            else:
                error = self._error(posting, posting.done + k, outcome, wire.restore(value, segments))  # or a pipeline
                report.failures.append((k, item, error))
            ends.append(end)
        return taken

    def _note_content(self, item: int, outcome: int, value: Any, contents: list[bytes]) -> tuple[int, Any]:
        """Take in the content of a value, which came beside it."""
        recall = self._run.recall
        if recall is not None and recall.contents is not None:
            recall.contents.note(item, contents if outcome == wire.PARTS else contents[0])
        return outcome, value

    def _parts(self, item: int, value: Any) -> Outputs:
        kind, parts = value
        template = self._run.plan.templates[self._run.node_of[item]]
        known = {"tuple": tuple, "list": list}
        names = template.outputs if template else ()
        parts = [self._lending.receive(part) if wire.is_block(part) else part for part in parts]
        return Outputs(tuple(parts), known[kind] if isinstance(kind, str) else tuple(kind), names)

    def _error(self, posting: Posting, position: int, outcome: int, value: Any) -> BaseException:
        item = posting.items[position]
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
