"""The summary of a run as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.diagnostics.text import pluralize, truncate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flowyml.results.result import PipelineResult
    from flowyml.results.run_arrays import StateCounts
    from flowyml.results.step_result import StepResult


# A terminal shows about this many lines. More steps than that are counted by function, with the first failures.
MAX_LINES = 30
MAX_FAILURES = 10
_GOOD, _BAD = ("success", "cached", "given"), ("failed", "timed_out", "upstream_failed")
_SIGNS = {**dict.fromkeys(_GOOD, "✓"), **dict.fromkeys(_BAD, "✗"), "skipped": "-"}


def summary(result: PipelineResult, steps: Iterable[StepResult]) -> str:
    """Return the summary with one line for each step."""
    return _text(result, map(_line, steps))


def summary_by_function(result: PipelineResult, tallies: Sequence[StateCounts], failures: Sequence[StepResult]) -> str:
    """Return the summary with one line for each function, and the given failures."""
    shown = [_tally(tally) for tally in tallies[:MAX_LINES]]
    if len(tallies) > MAX_LINES:
        shown.append(f"· {pluralize(len(tallies) - MAX_LINES, 'more function')}")
    return _text(result, [*shown, *map(_line, failures)])


def _text(result: PipelineResult, lines: Iterable[str]) -> str:
    sign = "✓" if result.success else "·" if result.state == "dry_run" else "✗"
    status = f"{sign} {result.state.upper()}"
    head = [
        f"Pipeline: {result.pipeline_name}",
        f"Run ID: {result.run_id}",
        f"Status: {status}",
        f"Duration: {result.duration_seconds:.2f}s",
        *([f"Resumed: {result.resumed}"] if result.resumed else ()),
        "Steps:",
    ]
    return "\n".join([*head, *(f"  {line}" for line in lines)])


def _line(step: StepResult) -> str:
    state = str(step.state)
    count = f" ({pluralize(len(step.items), 'item')})" if step.items else ""
    retries = f" [{step.retries} {'retry' if step.retries == 1 else 'retries'}]" if step.retries else ""
    failure = step.error_summary
    tail = f": {truncate(failure)}" if failure else ""
    retries += " [fallback]" if step.fallback_used else ""
    word = "" if state == "success" else f" {state}"
    return f"{_SIGNS.get(state, '·')} {step.step_name}{count}: {step.duration_seconds:.2f}s{word}{retries}{tail}"


def _tally(tally: StateCounts) -> str:
    signs = {_SIGNS.get(state, "·") for state in tally.states}
    sign = next((sign for sign in "✗·-✓" if sign in signs), "✓")
    return f"{sign} {tally.size:,} {tally.label}: {', '.join(_counts(tally.states))}"


def _counts(states: Mapping[str, int]) -> Iterator[str]:
    return (f"{count:,} {state}" for state, count in states.items())
