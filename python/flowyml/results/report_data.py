"""The data of a run's reports, gathered from its record when a report is requested.

```
RunRecord (arrays by item) ──▶ Timeline (by call, in add order) ──▶ reports/: dataframe, trace
          names, failures  ──▶ ReportData ───────────────────────▶ reports/html: page
```

Items that were added during the run are at the end of its arrays; in reports the calls of each step are in add order.
"""

from __future__ import annotations

import gzip
from array import array
from collections import Counter
from heapq import nlargest
from html import escape
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.graph import renderer
from flowyml.graph.model import BoxOutcome, picture_of
from flowyml.reports.html.page import FailureRow, FunctionRow, ReportData, StepRow, page
from flowyml.reports.timeline import Timeline, relative
from flowyml.reports.trace import trace
from flowyml.results.error_text import error_line, error_text
from flowyml.state import STATES, StepState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from os import PathLike

    from flowyml.results.record import RunRecord
    from flowyml.results.step_result import StepResult


_MAX_FAILURES = 50
_MAX_TRACEBACK = 20_000  # characters of one traceback
_MAX_SLOWEST = 12
_MAX_ROWS = 500
_MAX_BOXES = 150
_MAX_GRAPH_LINES = 200
_MAX_ARROWS = 200_000
# The state of a box is the first of these that one of its calls has.
_WORST = (
    StepState.FAILED,
    StepState.TIMED_OUT,
    StepState.UPSTREAM_FAILED,
    StepState.CANCELLED,
    StepState.SKIPPED,
    StepState.WAITING,
)


class RunHeader(NamedTuple):
    """The attributes of a run as a whole, as in `PipelineResult`."""

    pipeline: str
    run_id: str
    state: str
    began: datetime
    duration: float
    resumed: str | None


class TimelineIndex:
    """The position of each item of a record in a timeline.

    Args:
        record: The record.

    Attributes:
        order: The items in the order of the timeline; `None` if that is the order of the record.
        nodes: The step of each call, in that order.
    """

    def __init__(self, record: RunRecord) -> None:
        self.order: array[int] | None = None
        self.nodes: Sequence[int] = range(len(record.states))
        if not (record.item_index.is_plain and isinstance(record.order, range)):
            self.order, self.nodes = array("I"), array("I")
            for node in record.order:
                items = record.items_of(node)
                self.order.extend(items)
                self.nodes.extend([node] * len(items))
            if all(map(int.__eq__, self.order, range(len(self.order)))):
                self.order = None
        self._places = None if self.order is None else {item: place for place, item in enumerate(self.order)}

    def of(self, item: int) -> int:
        """Return the position of an item."""
        return item if self._places is None else self._places[item]

    def picked(self, column: Any, code: str) -> Any:
        """Return a column of the record in the order of the timeline."""
        if self.order is None:
            return column
        values = map(column.__getitem__, self.order)
        return bytes(values) if code == "B" else memoryview(array(code, values)).toreadonly()


def timeline_of(record: RunRecord, head: RunHeader, places: TimelineIndex) -> Timeline:
    """Return the timeline of a run."""
    attempts = places.picked(record.attempts, "B")
    return Timeline(
        began=head.began,
        duration=head.duration,
        starts=relative(places.picked(record.starts, "d"), record.began, attempts),
        ends=relative(places.picked(record.ends, "d"), record.began, attempts),
        workers=places.picked(record.workers, "H"),
        attempts=attempts,
        states=places.picked(record.states, "B"),
        names=record.plan.names,
        step_of=places.nodes,
        firsts=_firsts(record, places),
        mapped=record.item_index.mapped,
    )


def _firsts(record: RunRecord, places: TimelineIndex) -> Sequence[int]:
    if record.item_index.is_plain:
        return _nodes(record)
    return array("I", (places.of(items[0]) if (items := record.items_of(node)) else 0 for node in _nodes(record)))


def _nodes(record: RunRecord) -> range:
    return range(len(record.plan.names))


def errors_of(record: RunRecord, places: TimelineIndex) -> dict[int, str]:
    """Return type and message of each call that failed, by position."""
    return {places.of(item): error_line(error) for item, error in record.failures.items()}


def usage_of(record: RunRecord, places: TimelineIndex) -> tuple[Any, Any]:
    """Return the CPU seconds of each call, NaN if unknown, and its KiB of memory, 0 if unknown."""
    cpu, memory = record.usage.columns(len(record.states))
    return places.picked(cpu, "f"), places.picked(memory, "I")


def arrows_of(record: RunRecord, places: TimelineIndex) -> Iterator[tuple[int, int]]:
    """Yield dependencies of calls as (before, after); for a whole map, from the item that ended last."""
    plan = record.plan
    pairs = ((node, before) for node in _nodes(record) for before in plan.dependencies_of(node))
    arrows = (arrow for node, before in pairs for arrow in _between(record, before, node))
    for before, after in islice(arrows, _MAX_ARROWS):
        yield places.of(before), places.of(after)


def _between(record: RunRecord, before: int, node: int) -> Iterable[tuple[int, int]]:
    first, then = record.items_of(before), record.items_of(node)
    if not first or not then:
        return ()
    if before in record.plan.linked.get(node, ()) and len(first) == len(then):
        return zip(first, then, strict=True)
    last = max(first, key=record.ends.__getitem__)
    soonest = min((item for item in then if record.attempts[item]), key=record.starts.__getitem__, default=then[0])
    return [(last, soonest)]


def write_trace(record: RunRecord, head: RunHeader, path: str | PathLike[str], *, flows: bool) -> None:
    """Write the trace of a run to a file, compressed if its name ends in ".gz"."""
    places = TimelineIndex(record)
    facts = {"pipeline": head.pipeline, "run_id": head.run_id, "state": head.state, "began": head.began.isoformat()}
    pieces = trace(timeline_of(record, head, places), head.pipeline, facts, arrows_of(record, places) if flows else ())
    target = Path(path)
    with (
        gzip.open(target, "wt", 6, encoding="utf-8")
        if target.suffix == ".gz"
        else target.open("w", encoding="utf-8") as file
    ):
        file.writelines(pieces)


def write_page(record: RunRecord, head: RunHeader, steps: Iterable[StepResult], path: str | PathLike[str]) -> None:
    """Write the HTML page of a run to a file."""
    with Path(path).open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(f"{line}\n" for line in page(facts_of(record, head, steps)))


# ---- the page ------------------------------------------------------------------------------------------------------


def facts_of(record: RunRecord, head: RunHeader, steps: Iterable[StepResult]) -> ReportData:
    """Return the data of the page; `steps` are the steps in add order."""
    places = TimelineIndex(record)
    timeline = timeline_of(record, head, places)
    kind_of, kinds = _kinds(record, timeline)
    failed = record.own_failures()
    return ReportData(
        pipeline=head.pipeline,
        run_id=head.run_id,
        state=head.state,
        began=head.began,
        duration=head.duration,
        resumed=head.resumed,
        counts=record.counts(),
        steps=len(record.plan.names),
        timeline=timeline,
        graph=_graph(record),
        kinds=kinds,
        kind_of=kind_of,
        failures=[_failure(record, *place) for place in failed[:_MAX_FAILURES]],
        failed=len(failed),
        slowest=nlargest(_MAX_SLOWEST, timeline.ran(), key=lambda at: timeline.ends[at] - timeline.starts[at]),
        rows=[_row(step, head) for step in islice(steps, _MAX_ROWS)],
        version=version("flowyml"),
    )


def _kinds(record: RunRecord, timeline: Timeline) -> tuple[Sequence[int], list[FunctionRow]]:
    """Return for each step the position of its function, and the functions, those with the most time first."""
    numbers: dict[int, int] = {}
    plan = record.plan
    by_node = [numbers.setdefault(id(spec.step), len(numbers)) for spec in plan.specs]
    nodes = dict(zip(reversed(by_node), range(len(by_node) - 1, -1, -1), strict=True))  # the first of each
    steps = Counter(by_node)
    labels = [
        (steps[number] > 1 and plan.specs[nodes[number]].step.name) or plan.names[nodes[number]]
        for number in range(len(numbers))
    ]
    ran, total, longest = _times(timeline, by_node, len(numbers))
    states: list[Counter[int]] = [Counter() for _ in numbers]
    for (number, code), count in Counter(
        zip(map(by_node.__getitem__, timeline.step_of), timeline.states, strict=True)
    ).items():
        states[number][code] = count
    for node in record.refused:
        states[by_node[node]][record.empty_states[node].code] += 1
    ranked = sorted(range(len(numbers)), key=total.__getitem__, reverse=True)
    kinds = []
    for number in ranked:
        counts = {str(STATES[code]): count for code, count in sorted(states[number].items())}
        kinds.append(
            FunctionRow(labels[number], states[number].total(), counts, ran[number], total[number], longest[number])
        )
    rank = {number: place for place, number in enumerate(ranked)}
    return array("I", map(rank.__getitem__, by_node)), kinds


def _times(timeline: Timeline, by_node: Sequence[int], kinds: int) -> tuple[list[int], list[float], list[float]]:
    """Return by function the number of calls that ran, their total time and the longest."""
    ran, total, longest = [0] * kinds, [0.0] * kinds, [0.0] * kinds
    starts, ends, step_of = timeline.starts, timeline.ends, timeline.step_of
    for at in timeline.ran():
        kind, took = by_node[step_of[at]], ends[at] - starts[at]
        ran[kind] += 1
        total[kind] += took
        if took > longest[kind]:  # noqa: PLR1730  a call of max() for each of a million calls shows
            longest[kind] = took
    return ran, total, longest


def _failure(record: RunRecord, node: int, index: int | None) -> FailureRow:
    name = record.plan.item_name(node, index)
    if index is None and node in record.refused:
        error, state, attempts = record.refused[node], record.empty_states[node], 0
    else:
        item = record.items_of(node)[index or 0]
        error, state, attempts = record.failures[item], record.state(item), record.attempts[item]
    text = error_text(error)
    if len(text) > _MAX_TRACEBACK:
        half = _MAX_TRACEBACK // 2
        text = f"{text[:half]}\n[... {len(text) - 2 * half:,} characters ...]\n{text[-half:]}"
    return FailureRow(name, str(state), error_line(error), text, attempts)


def _row(step: StepResult, head: RunHeader) -> StepRow:
    began, items = step.started_at, len(step.items)
    start = float("nan") if began is None else (began - head.began).total_seconds()
    took = float("nan") if began is None else step.duration_seconds
    note = step.error_summary or ("value of its fallback" if step.fallback_used else "")
    return StepRow(step.step_name, str(step.state), items or None, start, took, step.attempts, note)


def _graph(record: RunRecord) -> str:
    plan = record.plan
    picture = picture_of(plan, list(map(plan.dependencies_of, _nodes(record))), lambda nodes: _outcome(record, nodes))
    if len(picture.boxes) <= _MAX_BOXES:
        return renderer("svg")(picture)
    lines = renderer("text")(picture).split("\n")
    more = [f"  ... and {len(lines) - _MAX_GRAPH_LINES:,} more lines"] if len(lines) > _MAX_GRAPH_LINES else []
    return f"<pre>{escape(chr(10).join([*lines[:_MAX_GRAPH_LINES], *more]))}</pre>"


def _outcome(record: RunRecord, nodes: Sequence[int]) -> BoxOutcome:
    """Return the state of a box, a note with the number of calls in each state, and its number of items."""
    plain = record.item_index.is_plain
    counter: Counter[int] = Counter(map(record.states.__getitem__, nodes)) if plain else Counter()
    for node in () if plain else nodes:
        items = record.items_of(node)
        if not items:
            counter[record.empty_states[node].code] += 1
        elif len(items) == 1:
            counter[record.states[items.start]] += 1
        else:
            counter.update(record.states[items.start : items.stop])
    words = {STATES[code]: count for code, count in sorted(counter.items())}
    alike = next((state for state in (StepState.CACHED, StepState.GIVEN) if set(words) == {state}), StepState.SUCCESS)
    worst = alike if all(node in record.forgiven for node in nodes) else next(filter(words.__contains__, _WORST), alike)
    several = counter.total() > 1
    note = ", ".join(f"{count:,} {word}" if several else str(word) for word, count in words.items())
    length = len(record.items_of(nodes[0])) if record.is_mapped(nodes[0]) else None
    return BoxOutcome(str(worst), note.replace("_", " "), length)
