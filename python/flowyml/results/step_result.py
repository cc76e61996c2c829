"""Step results: what came of one step, or of one item of a mapped step, read from a run's record when it is asked for.

It knows nothing of executors, and holds nothing but its place in the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import pluralize
from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.state import StepState

if TYPE_CHECKING:
    from datetime import datetime

    from flowyml.results.record import RunRecord

# The state of a mapped step is the first of these that one of its items is in.
_WORST = (StepState.FAILED, StepState.TIMED_OUT, StepState.CANCELLED, StepState.UPSTREAM_FAILED, StepState.SKIPPED)
# ... otherwise the one of these states that all of its items are in, or success.
_ALIKE = (StepState.CACHED, StepState.GIVEN)


class StepResult:
    """What came of one step, or of one item of a mapped step.

    Attributes:
        step_name: Name of the step; of an item, "name[index]".

    >>> from flowyml import Pipeline
    >>> halves = Pipeline("halves").map(lambda x: 1 / x, [1, 0], name="halves").run().step_results["halves"]
    >>> halves.state.value, halves.error_line, [item.success for item in halves.items]
    ('failed', 'ZeroDivisionError: division by zero', [True, False])
    """

    __slots__ = ("_index", "_node", "_record", "step_name")

    def __init__(self, record: RunRecord, node: int, index: int | None = None) -> None:
        self._record = record
        self._node = node
        self._index = index
        self.step_name: str = record.plan.item_name(node, index)

    @property
    def index(self) -> int | None:
        """Which item of a mapped step this is; `None` for a step."""
        return self._index

    @property
    def state(self) -> StepState:
        """The final state; of a mapped step, the worst of its items'."""
        record, items = self._record, self._items
        if len(items) == 1 and not (self._index is None and self._node in record.forgiven):
            return record.state(items[0])
        if not items:
            return record.empty_states[self._node]
        codes = set(record.states[items.start : items.stop])
        if self._index is None and self._node in record.forgiven:
            return StepState.SKIPPED if StepState.SKIPPED.code in codes else StepState.SUCCESS
        if StepState.WAITING.code in codes:  # only after a dry run
            return StepState.WAITING
        alike = next((state for state in _ALIKE if codes == {state.code}), StepState.SUCCESS)
        return next((state for state in _WORST if state.code in codes), alike)

    @property
    def success(self) -> bool:
        """Whether the step has a value."""
        return self.state.has_value

    @property
    def cached(self) -> bool:
        """Whether the value came from the cache."""
        return self.state is StepState.CACHED

    @property
    def given(self) -> bool:
        """Whether the value comes from `run(given=)`: the step did not run."""
        return self.state is StepState.GIVEN

    @property
    def skipped(self) -> bool:
        """Whether a condition kept the step from running."""
        return self.state is StepState.SKIPPED

    @property
    @hides_internal_frames
    def output(self) -> Any:
        """The return value, loaded when it is first looked at; a mapped step's is a list that loads item by item.

        Raises:
            StepNotRunError: If there is none, saying why.
            ValueLoadError: If it does not load.
        """
        return self._record.value_of(self._node, self._index)

    @property
    def exception(self) -> BaseException | None:
        """What the step raised, with the worker's traceback; of a mapped step, what its first failed item raised."""
        failures, items = self._record.failures, self._items
        if self._index is None and self._node in self._record.tasks and items:
            return self._record.task_error(self._node)
        if len(items) == 1:
            return failures.get(items[0])
        if not items:
            return self._record.refused.get(self._node)
        first = self._record.first_failure(items)
        return None if first is None else failures[first]

    @property
    def fallback_error(self) -> BaseException | None:
        """What the step raised for good, where its fallback was called; of a mapped step, its first such item."""
        fallen = self._record.fallen
        return next((fallen[item] for item in self._items if item in fallen), None) if fallen else None

    @property
    def fallback_used(self) -> bool:
        """Whether the value, or that of an item, is the fallback's."""
        record = self._record
        return bool(record.fallen) and any(item in record.fallen and record.has_value[item] for item in self._items)

    @property
    def error(self) -> str | None:
        """The exception's message and traceback as text, or why the step did not run; `None` for a success."""
        from flowyml.results.error_text import error_text

        exception = self.exception
        return error_text(exception) if exception is not None else self._record.reason(self._node, self.state)

    @property
    def error_line(self) -> str | None:
        """Type and message of the exception in one line, or why the step did not run."""
        from flowyml.results.error_text import error_line

        exception = self.exception
        return self._record.reason(self._node, self.state) if exception is None else error_line(exception)

    @property
    def failure_line(self) -> str | None:
        """The `error_line`; of a mapped step how many items failed, and that of the first."""
        of_items = self._record.failure_line(self._node) if self._index is None else None
        if self._node in self._record.tasks and self._node not in self._record.forgiven:
            return self.error_line
        return of_items or self.error_line

    @property
    def started_at(self) -> datetime | None:
        """When the (last) attempt began, in UTC; `None` if the step never ran."""
        started = min((self._record.starts[item] for item in self._ran()), default=None)
        return None if started is None else self._record.at(started)

    @property
    def duration_seconds(self) -> float:
        """How long the (last) attempt took; of a mapped step, from its first start to its last end."""
        ran = self._ran()
        if not ran:
            return 0.0
        record = self._record
        return max(0.0, max(record.ends[item] for item in ran) - min(record.starts[item] for item in ran))

    @property
    def queue_seconds(self) -> float | None:
        """How long it could have begun already, but waited for a worker; of a mapped step, until its first item began.

        `None` if it never began, or if it was tried again: when a retry was due is not kept.
        """
        first = min(self._ran(), key=lambda item: self._record.starts[item], default=None)
        return None if first is None else self._record.queue_seconds(first)

    @property
    def attempts(self) -> int:
        """How often the function was begun; of a mapped step, the most for one item.

        What was cached, skipped or refused by its circuit breaker was not begun, and a fallback is another function.
        """
        items = self._items
        if len(items) == 1:
            return self._record.attempts[items[0]]
        return max(self._record.attempts[items.start : items.stop], default=0)

    @property
    def retries(self) -> int:
        """Attempts after the first; of a mapped step, those of all its items together."""
        items = self._items
        if len(items) == 1:
            return max(0, self.attempts - 1)
        attempts = self._record.attempts[items.start : items.stop]
        return sum(attempts) - len(attempts) + attempts.count(0)

    @property
    def worker(self) -> int | None:
        """Number of the worker that ran it; `None` if it never ran, or for a mapped step."""
        ran = self._ran() if self._index is not None or not self._record.is_mapped(self._node) else ()
        return self._record.workers[ran[0]] if ran else None

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of the (last) attempt, all threads and children that were waited for; of a mapped step, the sum.

        Worker processes measure it for steps that are expected to take a millisecond or more; `None` for all others.
        """
        return self._record.usage.cpu_seconds(self._ran())

    @property
    def max_rss(self) -> int | None:
        """The most bytes of memory that the worker process had in the (last) attempt; of a mapped step, for any item.

        `None` where `cpu_seconds` is, and where the kernel does not tell.
        """
        return self._record.usage.max_rss(self._ran())

    @property
    def logs(self) -> str | None:
        """What the step printed and logged, in all its attempts; of a mapped step, that of its items in their order.

        The first and the last 32 KiB of each step, and 64 MiB in a run. `None` for a step that did not run, or not on a
        worker process: what is written in this process goes where the streams and loggers of the process go.
        """
        ran = self._ran()
        return self._record.usage.logs(ran) if ran else None

    @property
    def items(self) -> Sequence[StepResult]:
        """The results of a mapped step's items; empty for an ordinary step."""
        mapped = self._index is None and self._record.is_mapped(self._node)
        return _ItemResults(self._record, self._node) if mapped else ()

    def to_dict(self) -> dict[str, Any]:
        """Return what can be written as JSON."""
        state = self.state
        return {
            "state": state.value,
            "success": state.has_value,
            "duration": self.duration_seconds,
            "cached": state is StepState.CACHED,
            "given": state is StepState.GIVEN,
            "attempts": self.attempts,
            "retries": self.retries,
            "cpu_seconds": self.cpu_seconds,
            "max_rss": self.max_rss,
            "fallback_used": self.fallback_used,
            "items": len(self.items) if self._index is None and self._record.is_mapped(self._node) else None,
            "error": None if state.has_value else self.error_line,
        }

    def __repr__(self) -> str:
        """Show name and state."""
        return f"<StepResult {self.step_name!r} {self.state}>"

    @property
    def _items(self) -> range:
        items = self._record.items_of(self._node)
        return items if self._index is None else items[self._index : self._index + 1]

    def _ran(self) -> Sequence[int]:
        attempts, items = self._record.attempts, self._items
        if len(items) == 1:
            return items if attempts[items[0]] else ()
        return [item for item in items if attempts[item]]


class _ItemResults(Sequence[StepResult]):
    """The step results of a mapped step's items."""

    __slots__ = ("_node", "_record")

    def __init__(self, record: RunRecord, node: int) -> None:
        self._record = record
        self._node = node

    def __len__(self) -> int:
        return len(self._record.items_of(self._node))

    def __getitem__(self, index: Any) -> Any:
        chosen = range(len(self))[index]
        if isinstance(chosen, range):
            return [StepResult(self._record, self._node, i) for i in chosen]
        return StepResult(self._record, self._node, chosen)

    def __repr__(self) -> str:
        return f"<results of {self._record.plan.names[self._node]!r}: {pluralize(len(self), 'item')}>"
