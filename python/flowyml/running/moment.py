"""The record of one item that has ended, for those who are told of it while the run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.results.record import Record
from flowyml.state import CODES, STATES, StepState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowyml.running.run import Run

_NOT_BEGUN = {CODES[StepState.SKIPPED], CODES[StepState.CACHED], CODES[StepState.GIVEN]}


class Ended(NamedTuple):
    """That an item has ended for good.

    Attributes:
        item: The item.
        state: Its state, as the core's number.
        start: When its last attempt began (monotonic seconds).
        end: When it ended.
        worker: Number of the worker.
    """

    item: int
    state: int
    start: float
    end: float
    worker: int


class Moment(Record):
    """The record of one item that has ended, while the run goes on.

    Args:
        run: The run.
        ended: What is known about the item.
    """

    def __init__(self, run: Run, ended: Ended) -> None:
        item, state, start, end, worker = ended
        self.plan, self.layout, self.values, self.failures = run.plan, run.layout, run.values, run.failures
        self.began, self._began_at = run.started, run.started_at
        self._came_at, self._scheduler = run.grafting.came_at, run.scheduler
        self.fallen, self.refused, self.usage = run.fallen, run.refused, run.usage
        self._state = ((item, state),)
        made = run.trials.failed(item) if state in _NOT_BEGUN else run.trials.made(item, run.failures)
        self.states, self.attempts = {item: state}, {item: made}  # type: ignore[assignment]
        self.workers, self.starts, self.ends = {item: worker}, {item: start}, {item: end}  # type: ignore[assignment]
        self.empty_states, self.tasks, self.forgiven = {}, {}, {}

    @property
    def has_value(self) -> Any:
        """For the item, whether there is a value: `keep=` may let it go while somebody holds this."""
        return {item: STATES[state].has_value and item not in self.values.dropped for item, state in self._state}

    def _ends_of(self, items: range) -> Sequence[float]:
        """Return when items ended that this one has waited for; all are copied for that, since hardly anybody asks."""
        return memoryview(self._scheduler.ends()).cast("d")[items.start : items.stop]
