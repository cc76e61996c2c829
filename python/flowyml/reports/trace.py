"""A timeline as a trace for Perfetto and Chrome: `ui.perfetto.dev` or `about:tracing` show workers as threads.

The format is Chrome's "Trace Event Format": an object with `traceEvents`, times in microseconds. It is written in
chunks, so a million calls take no memory. It contains no step values.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flowyml.state import CACHED, STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flowyml.reports.timeline import Timeline

_PID = 1
_CHUNK_EVENTS = 4096
# Colour names of Chrome's viewer; Perfetto derives its own from the name of the slice.
_COLOURS = {"failed": "terrible", "timed_out": "bad", "cancelled": "grey"}


def trace(
    timeline: Timeline, title: str, facts: Mapping[str, object], arrows: Iterable[tuple[int, int]] = ()
) -> Iterator[str]:
    """Yield the trace in chunks.

    Args:
        timeline: Times and workers of all calls.
        title: Name of the process in the viewer: that of the pipeline.
        facts: Metadata of the run; JSON-safe.
        arrows: Dependencies between calls, as (before, after) positions; drawn if both ran.
    """
    yield f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(dict(facts))}, "traceEvents": [\n'
    yield ",\n".join(_heads(timeline, title))
    pieces: list[str] = []
    for event in _events(timeline, arrows):
        pieces.append(event)
        if len(pieces) == _CHUNK_EVENTS:
            yield ",\n" + ",\n".join(pieces)
            pieces.clear()
    yield "".join(f",\n{piece}" for piece in pieces)
    yield "\n]}\n"


def _heads(timeline: Timeline, title: str) -> Iterator[str]:
    yield _meta("process_name", 0, name=title)
    for worker in sorted({timeline.workers[at] for at in timeline.ran()}):
        yield _meta("thread_name", worker, name=f"worker {worker}")
        yield _meta("thread_sort_index", worker, sort_index=worker)


def _meta(name: str, thread: int, /, **arguments: object) -> str:
    return json.dumps({"ph": "M", "pid": _PID, "tid": thread, "name": name, "args": arguments})


def _events(timeline: Timeline, arrows: Iterable[tuple[int, int]]) -> Iterator[str]:
    names = [json.dumps(name)[1:-1] for name in timeline.names]
    starts, ends, workers, states = timeline.starts, timeline.ends, timeline.workers, timeline.states
    step_of, firsts, mapped, attempts = timeline.step_of, timeline.firsts, timeline.mapped, timeline.attempts
    tails = [_tail(str(state)) for state in STATES]
    for at in timeline.ran():
        step, start = step_of[at], starts[at]
        index = f"[{at - firsts[step]}]" if step in mapped else ""
        yield (
            f'{{"ph": "X", "pid": {_PID}, "tid": {workers[at]}, "ts": {start * 1e6:.3f}, '
            f'"dur": {max(0.0, ends[at] - start) * 1e6:.3f}, "name": "{names[step]}{index}"{tails[states[at]]}'
            f'"attempts": {attempts[at]}}}}}'
        )
    yield from _flows(timeline, arrows)


def _tail(state: str) -> str:
    colour = f', "cname": "{_COLOURS[state]}"' if state in _COLOURS else ""
    return f', "cat": "{state}"{colour}, "args": {{"state": "{state}", '


def _flows(timeline: Timeline, arrows: Iterable[tuple[int, int]]) -> Iterator[str]:
    for number, (before, after) in enumerate(arrows):
        if not (_ran(timeline, before) and _ran(timeline, after)):
            continue
        head = f'"cat": "dependency", "name": "dependency", "id": {number}, "pid": {_PID}'
        # A flow must start inside its slice, and viewers count the end as outside: start a nanosecond earlier.
        begin = max(timeline.starts[before], timeline.ends[before] - 1e-9)
        yield f'{{"ph": "s", {head}, "tid": {timeline.workers[before]}, "ts": {begin * 1e6:.3f}}}'
        end = timeline.starts[after]
        yield f'{{"ph": "f", "bp": "e", {head}, "tid": {timeline.workers[after]}, "ts": {end * 1e6:.3f}}}'


def _ran(timeline: Timeline, at: int) -> bool:
    return bool(timeline.attempts[at]) and timeline.states[at] != CACHED
