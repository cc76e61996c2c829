"""Step results: views of one step, or of one item of a mapped step, that read a run's record on access."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import pluralize
from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.state import StepState

if TYPE_CHECKING:
    from datetime import datetime

    from flowyml.results.record import RunRecord

# The state of a mapped step is the first of these that one of its items has,
_WORST = (StepState.FAILED, StepState.TIMED_OUT, StepState.CANCELLED, StepState.UPSTREAM_FAILED, StepState.SKIPPED)
# otherwise the one of these that all of its items have, or success.
_ALIKE = (StepState.CACHED, StepState.GIVEN)


class StepResult:
    """The result of one step, or of one item of a mapped step.

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
        """Index of the item in its mapped step; `None` for a step."""
        return self._index

    @property
    def state(self) -> StepState:
        """The final state; of a mapped step, the worst state of its items."""
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
        """True if the step has a value."""
        return self.state.has_value

    @property
    def cached(self) -> bool:
        """True if the value was read from the cache."""
        return self.state is StepState.CACHED

    @property
    def given(self) -> bool:
        """True if the value was passed in `run(given=)` and the step did not run."""
        return self.state is StepState.GIVEN

    @property
    def skipped(self) -> bool:
        """True if a condition kept the step from running."""
        return self.state is StepState.SKIPPED

    @property
    @hides_internal_frames
    def output(self) -> Any:
        """The return value, loaded on first access; of a mapped step, a list that loads item by item.

        Raises:
            StepNotRunError: If there is none, with the reason.
            ValueLoadError: If it cannot be loaded.
        """
        return self._record.value_of(self._node, self._index)

    @property
    def exception(self) -> BaseException | None:
        """The step's exception with the worker's traceback; of a mapped step, that of its first failed item."""
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
        """The exception that the fallback was called for; of a mapped step, that of the first such item."""
        fallen = self._record.fallen
        return next((fallen[item] for item in self._items if item in fallen), None) if fallen else None

    @property
    def fallback_used(self) -> bool:
        """True if the value, or that of an item, is the return value of the fallback."""
        record = self._record
        return bool(record.fallen) and any(item in record.fallen and record.has_value[item] for item in self._items)

    @property
    def error(self) -> str | None:
        """Message and traceback of the exception, or the reason why the step did not run; `None` on success."""
        from flowyml.results.error_text import error_text

        exception = self.exception
        return error_text(exception) if exception is not None else self._record.reason(self._node, self.state)

    @property
    def error_line(self) -> str | None:
        """Type and message of the exception in one line, or the reason why the step did not run."""
        from flowyml.results.error_text import error_line

        exception = self.exception
        return self._record.reason(self._node, self.state) if exception is None else error_line(exception)

    @property
    def error_summary(self) -> str | None:
        """The `error_line`; of a mapped step, how many items failed, and that of the first."""
        of_items = self._record.failure_line(self._node) if self._index is None else None
        if self._node in self._record.tasks and self._node not in self._record.forgiven:
            return self.error_line
        return of_items or self.error_line

    @property
    def started_at(self) -> datetime | None:
        """Start of the (last) attempt, in UTC; `None` if the step never ran."""
        started = min((self._record.starts[item] for item in self._ran()), default=None)
        return None if started is None else self._record.at(started)

    @property
    def duration_seconds(self) -> float:
        """Duration of the (last) attempt; of a mapped step, from its first start to its last end."""
        ran = self._ran()
        if not ran:
            return 0.0
        record = self._record
        return max(0.0, max(record.ends[item] for item in ran) - min(record.starts[item] for item in ran))

    @property
    def queue_seconds(self) -> float | None:
        """How long the step was ready but waited for a worker; of a mapped step, until its first item started.

        `None` if it never ran or was retried, because the time at which a retry is due is not recorded.
        """
        first = min(self._ran(), key=lambda item: self._record.starts[item], default=None)
        return None if first is None else self._record.queue_seconds(first)

    @property
    def attempts(self) -> int:
        """How often the function was called; of a mapped step, the maximum over its items.

        Calls of fallbacks do not count, nor do cached, skipped or circuit-broken steps.
        """
        items = self._items
        if len(items) == 1:
            return self._record.attempts[items[0]]
        return max(self._record.attempts[items.start : items.stop], default=0)

    @property
    def retries(self) -> int:
        """Attempts after the first; of a mapped step, the sum over its items."""
        items = self._items
        if len(items) == 1:
            return max(0, self.attempts - 1)
        attempts = self._record.attempts[items.start : items.stop]
        return sum(attempts) - len(attempts) + attempts.count(0)

    @property
    def worker(self) -> int | None:
        """Id of the worker that ran the step; `None` if it never ran, and for a mapped step."""
        ran = self._ran() if self._index is not None or not self._record.is_mapped(self._node) else ()
        return self._record.workers[ran[0]] if ran else None

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of the (last) attempt with all threads and awaited child processes; of a mapped step, the sum.

        Worker processes measure it for steps that are expected to take a millisecond or more; `None` for all others.
        """
        return self._record.usage.cpu_seconds(self._ran())

    @property
    def max_rss(self) -> int | None:
        """Peak memory in bytes of the worker process in the (last) attempt; of a mapped step, the maximum of its items.

        `None` if `cpu_seconds` is, or if the kernel does not report it.
        """
        return self._record.usage.max_rss(self._ran())

    @property
    def logs(self) -> str | None:
        """The output and log records of all attempts; of a mapped step, those of its items in their order.

        Bounded to the first and last 32 KiB of each step and 64 MiB a run. `None` for steps that did not run in a
        worker process: output of other steps goes to the streams and loggers of this process.
        """
        ran = self._ran()
        return self._record.usage.logs(ran) if ran else None

    @property
    def items(self) -> Sequence[StepResult]:
        """The results of a mapped step's items; empty for a plain step."""
        mapped = self._index is None and self._record.is_mapped(self._node)
        return _ItemResults(self._record, self._node) if mapped else ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-compatible data, without the value."""
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
