"""The summary of a run as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from flowyml.diagnostics.text import pluralize, truncate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    class SummaryStep(Protocol):
        """The attributes of a step that the summary shows."""

        step_name: str

        @property
        def state(self) -> object: ...  # noqa: D102
        @property
        def duration_seconds(self) -> float: ...  # noqa: D102
        @property
        def retries(self) -> int: ...  # noqa: D102
        @property
        def fallback_used(self) -> bool: ...  # noqa: D102
        @property
        def error_summary(self) -> str | None: ...  # noqa: D102
        @property
        def items(self) -> Sequence[object]: ...  # noqa: D102

    class SummaryGroup(Protocol):
        """The attributes of the steps of one function that the summary shows."""

        @property
        def label(self) -> str: ...  # noqa: D102
        @property
        def size(self) -> int: ...  # noqa: D102
        @property
        def states(self) -> Mapping[str, int]: ...  # noqa: D102

    class SummaryRun(Protocol):
        """The attributes of a run that the summary shows."""

        pipeline_name: str
        run_id: str
        duration_seconds: float
        start_time: datetime

        @property
        def state(self) -> str: ...  # noqa: D102

        resumed: str | None

        @property
        def success(self) -> bool: ...  # noqa: D102


# A terminal shows about this many lines. More steps than that are counted by function, with the first failures.
MAX_LINES = 30
MAX_FAILURES = 10
_GOOD, _BAD = ("success", "cached", "given"), ("failed", "timed_out", "upstream_failed")
_SIGNS = {**dict.fromkeys(_GOOD, "✓"), **dict.fromkeys(_BAD, "✗"), "skipped": "-"}


def summary(result: SummaryRun, steps: Iterable[SummaryStep]) -> str:
    """Return the summary with one line for each step."""
    return _text(result, map(_line, steps))


def summary_by_function(result: SummaryRun, tallies: Sequence[SummaryGroup], failures: Sequence[SummaryStep]) -> str:
    """Return the summary with one line for each function, and the given failures."""
    shown = [_tally(tally) for tally in tallies[:MAX_LINES]]
    if len(tallies) > MAX_LINES:
        shown.append(f"· {pluralize(len(tallies) - MAX_LINES, 'more function')}")
    return _text(result, [*shown, *map(_line, failures)])


def _text(result: SummaryRun, lines: Iterable[str]) -> str:
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


def _line(step: SummaryStep) -> str:
    state = str(step.state)
    count = f" ({pluralize(len(step.items), 'item')})" if step.items else ""
    retries = f" [{step.retries} {'retry' if step.retries == 1 else 'retries'}]" if step.retries else ""
    failure = step.error_summary
    tail = f": {truncate(failure)}" if failure else ""
    retries += " [fallback]" if step.fallback_used else ""
    word = "" if state == "success" else f" {state}"
    return f"{_SIGNS.get(state, '·')} {step.step_name}{count}: {step.duration_seconds:.2f}s{word}{retries}{tail}"


def _tally(tally: SummaryGroup) -> str:
    signs = {_SIGNS.get(state, "·") for state in tally.states}
    sign = next((sign for sign in "✗·-✓" if sign in signs), "✓")
    return f"{sign} {tally.size:,} {tally.label}: {', '.join(_counts(tally.states))}"


def _counts(states: Mapping[str, int]) -> Iterator[str]:
    return (f"{count:,} {state}" for state, count in states.items())
