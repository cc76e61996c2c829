"""The summary of a run as text; a pure function of its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    class StepLine(Protocol):
        """What the summary needs of a step."""

        step_name: str

        @property
        def state(self) -> object: ...  # noqa: D102
        @property
        def duration_seconds(self) -> float: ...  # noqa: D102
        @property
        def retries(self) -> int: ...  # noqa: D102
        @property
        def error_line(self) -> str | None: ...  # noqa: D102
        @property
        def items(self) -> Sequence[StepLine]: ...  # noqa: D102

    class Summarised(Protocol):
        """What the summary needs of a run."""

        pipeline_name: str
        run_id: str
        duration_seconds: float
        start_time: datetime

        @property
        def state(self) -> str: ...  # noqa: D102
        @property
        def success(self) -> bool: ...  # noqa: D102
        @property
        def step_results(self) -> Mapping[str, StepLine]: ...  # noqa: D102


# A terminal shows about this many lines; more steps than that are counted by state, with what went wrong in full.
_MOST_LINES = 30
_MOST_TROUBLES = 10
_SIGNS = {"success": "✓", "cached": "✓", "failed": "✗", "timed_out": "✗", "skipped": "-", "upstream_failed": "✗"}


def summary(result: Summarised) -> str:
    """Return the run in a few lines."""
    status = f"✓ {result.state.upper()}" if result.success else f"✗ {result.state.upper()}"
    head = [
        f"Pipeline: {result.pipeline_name}",
        f"Run ID: {result.run_id}",
        f"Status: {status}",
        f"Duration: {result.duration_seconds:.2f}s",
        "Steps:",
    ]
    steps = result.step_results
    lines = map(_line, steps.values()) if len(steps) <= _MOST_LINES else _counted(steps.values())
    return "\n".join([*head, *(f"  {line}" for line in lines)])


def _line(step: StepLine) -> str:
    state = str(step.state)
    count = f" ({len(step.items):,} items)" if step.items else ""
    retries = f" [{step.retries} retries]" if step.retries else ""
    tail = f": {step.error_line}" if step.error_line else ""
    word = "" if state == "success" else f" {state}"
    return f"{_SIGNS.get(state, '·')} {step.step_name}{count}: {step.duration_seconds:.2f}s{word}{retries}{tail}"


def _counted(steps: Iterable[StepLine]) -> Iterator[str]:
    counts: dict[str, int] = {}
    troubles: list[str] = []
    for step in steps:
        state = str(step.state)
        counts[state] = counts.get(state, 0) + 1
        if state in {"failed", "timed_out"} and len(troubles) < _MOST_TROUBLES:
            troubles.append(_line(step))
    for state, count in counts.items():
        yield f"{_SIGNS.get(state, '·')} {count:,} {state}"
    yield from troubles
