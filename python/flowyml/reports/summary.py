"""The summary of a run as text; pure functions of what a result says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from flowyml.diagnostics.text import pluralize, truncate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    class SummaryStep(Protocol):
        """What the summary needs of a step."""

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
        def failure_line(self) -> str | None: ...  # noqa: D102
        @property
        def items(self) -> Sequence[object]: ...  # noqa: D102

    class SummaryGroup(Protocol):
        """What the summary needs of the steps of one function."""

        @property
        def label(self) -> str: ...  # noqa: D102
        @property
        def size(self) -> int: ...  # noqa: D102
        @property
        def states(self) -> Mapping[str, int]: ...  # noqa: D102

    class SummaryRun(Protocol):
        """What the summary needs of a run."""

        pipeline_name: str
        run_id: str
        duration_seconds: float
        start_time: datetime

        @property
        def state(self) -> str: ...  # noqa: D102

        resumed: str | None

        @property
        def success(self) -> bool: ...  # noqa: D102


# A terminal shows about this many lines; more steps than that are counted, and the first that failed are told in full.
MOST_LINES = 30
MOST_TROUBLES = 10
_GOOD, _BAD = ("success", "cached", "given"), ("failed", "timed_out", "upstream_failed")
_SIGNS = {**dict.fromkeys(_GOOD, "✓"), **dict.fromkeys(_BAD, "✗"), "skipped": "-"}


def summary(result: SummaryRun, steps: Iterable[SummaryStep]) -> str:
    """Return the run in a few lines, one for each step."""
    return _text(result, map(_line, steps))


def summary_by_function(result: SummaryRun, tallies: Sequence[SummaryGroup], troubles: Sequence[SummaryStep]) -> str:
    """Return the run in a few lines: the steps of one function together, and some that failed."""
    shown = [_tally(tally) for tally in tallies[:MOST_LINES]]
    if len(tallies) > MOST_LINES:
        shown.append(f"· {pluralize(len(tallies) - MOST_LINES, 'more function')}")
    return _text(result, [*shown, *map(_line, troubles)])


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
    failure = step.failure_line
    tail = f": {truncate(failure)}" if failure else ""
    retries += " [fallback]" if step.fallback_used else ""
    word = "" if state == "success" else f" {state}"
    return f"{_SIGNS.get(state, '·')} {step.step_name}{count}: {step.duration_seconds:.2f}s{word}{retries}{tail}"


def _tally(tally: SummaryGroup) -> str:
    signs = {_SIGNS.get(state, "·") for state in tally.states}
    sign = next((sign for sign in "✗·-✓" if sign in signs), "✓")
    return f"{sign} {tally.size:,} {tally.label}: {', '.join(_counted(tally.states))}"


def _counted(states: Mapping[str, int]) -> Iterator[str]:
    return (f"{count:,} {state}" for state, count in states.items())
