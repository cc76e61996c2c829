"""Results: read-only views over what a run left behind.

A million steps cost no million objects: the run's flat arrays stand in a `Record`, and a `StepResult` is made when
somebody asks for one. A result stays readable after the executor is gone.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flowyml._frames import called_as, own_frames_hidden
from flowyml._record import Record, error_line
from flowyml._traceback import error_text
from flowyml._words import counted
from flowyml.errors import StepError
from flowyml.report.summary import MOST_LINES, MOST_TROUBLES, summary, summary_by_function
from flowyml.state import StepState

if TYPE_CHECKING:
    from flowyml.run import Run

# The state of a mapped step is the first of these that one of its items is in.
_WORST = (StepState.FAILED, StepState.TIMED_OUT, StepState.CANCELLED, StepState.UPSTREAM_FAILED, StepState.SKIPPED)


class PipelineResult:
    """What came of a run: every step with its state, its value or its error.

    `result["name"]` is an asset, or else the whole return value of a step.

    Args:
        run: The run, ended.

    Attributes:
        run_id: Name of the run.
        resumed: What was taken over from an earlier attempt, and what ran again and why, in words; `None` if there was
            none.
        pipeline_name: Name of the pipeline.
        start_time: When the run began (UTC).
        end_time: When it ended (UTC).
        duration_seconds: The time between.
        outputs: Assets by name, in add order; a mapped step's is the list of its results.
        step_results: A `StepResult` for each step by name, in add order.

    >>> from flowyml import Pipeline
    >>> result = Pipeline("one").add_step(max, params={"a": 1, "b": 2}).run()
    >>> result.success, result["max"], result.step_results["max"].state.value
    (True, 2, 'success')
    """

    def __init__(self, run: Run) -> None:
        """Take over the run's arrays."""
        self.run_id: str = run.run_id
        self.pipeline_name: str = run.plan.name
        self.duration_seconds: float = run.ended - run.started
        self.start_time: datetime = run.started_at
        self.end_time: datetime = run.started_at + timedelta(seconds=self.duration_seconds)
        self.resumed: str | None = run.resumed
        self._interrupted = run.interrupted
        self._dry = run.dry
        self._record = Record(run)
        self.outputs: Mapping[str, Any] = _Outputs(self._record)
        self.step_results: Mapping[str, StepResult] = _StepResults(self._record)

    @property
    def success(self) -> bool:
        """Whether every step that had to run succeeded."""
        return not self._interrupted and not self._dry and not self._record.has_trouble()

    @property
    def state(self) -> str:
        """The outcome as a word: "success", "failed", "cancelled" or "dry_run"."""
        if self._dry:
            return "dry_run"
        if self._interrupted:
            return "cancelled"
        return "success" if self.success else "failed"

    @property
    def failed(self) -> list[StepResult]:
        """The steps that failed on their own account, in add order; of a mapped step, the items that did."""
        return self._first_failed(None)

    def _first_failed(self, most: int | None) -> list[StepResult]:
        return [StepResult(self._record, *place) for place in self._record.own_failures()[:most]]

    def __getitem__(self, name: str) -> Any:
        """Return an asset, or else a step's whole return value, or that of one item: `result["name[3]"]`.

        Raises:
            KeyError: If there is none, with near matches.
            StepNotRunError: If the step has no value, saying why.
        """
        record = self._record
        with own_frames_hidden:
            found = record.find(name)
            if found is not None and record.plan.find(name) is None:
                return record.value_of(*found)
            return record.asset(name)

    def has_ended_well(self, name: str) -> bool:
        """Tell whether there is a step or item of that name that has a value."""
        found = self._record.find(name)
        return found is not None and StepResult(self._record, *found).success

    def __contains__(self, name: object) -> bool:
        """Tell whether there is an asset, step or item of that name, with a value or without."""
        record = self._record
        return isinstance(name, str) and (record.find(name) is not None or record.plan.find(name) is not None)

    def get(self, name: str, default: Any = None) -> Any:
        """Return an asset or a step's value, or the default where there is none."""
        try:
            return self[name]
        except LookupError:
            return default

    def raise_for_failure(self) -> None:
        """Raise a `StepError` from the first step that failed, if one did.

        Raises:
            StepError: Its `__cause__` is the step's own exception.
        """
        if self.success or self._dry:
            return
        failed = self._first_failed(1)
        if not failed:
            raise StepError(self.pipeline_name, self.state, "the run was interrupted")
        first, others = failed[0], len(self._record.own_failures()) - 1
        error = StepError(first.step_name, str(first.state), first.error_line, others)
        called = called_as(first.exception) if first.exception is not None else ""
        if called:
            error.add_note(f"it was called as {called}")
        with own_frames_hidden:
            raise error from first.exception

    def summary(self) -> str:
        """Return a few lines for people; steps of one function are put together where there are many."""
        if len(self.step_results) <= MOST_LINES:
            return summary(self, self.step_results.values())
        return summary_by_function(self, self._record.tallies(), self._first_failed(MOST_TROUBLES))

    def to_dict(self) -> dict[str, Any]:
        """Return what can be written as JSON: the run and its steps, without their values."""
        return {
            "run_id": self.run_id,
            "pipeline_name": self.pipeline_name,
            "success": self.success,
            "state": self.state,
            "start_time": self.start_time.isoformat(),
            "end_time": self.end_time.isoformat(),
            "duration_seconds": self.duration_seconds,
            "steps": {name: each.to_dict() for name, each in self.step_results.items()},
        }

    def __repr__(self) -> str:
        """Show the outcome and the counts."""
        counts = ", ".join(f"{count} {state}" for state, count in self._record.counts().items())
        return f"<PipelineResult {self.pipeline_name!r} {self.state}: {counts or 'no steps'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as text: a global of a script travels with its functions, its values do not."""
        return str, (repr(self),)


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

    def __init__(self, record: Record, node: int, index: int | None = None) -> None:
        """Point at the run's arrays."""
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
            return StepState.SUCCESS
        if StepState.WAITING.code in codes:  # only after a dry run
            return StepState.WAITING
        alike = StepState.CACHED if codes == {StepState.CACHED.code} else StepState.SUCCESS
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
    def skipped(self) -> bool:
        """Whether a condition kept the step from running."""
        return self.state is StepState.SKIPPED

    @property
    def output(self) -> Any:
        """The return value, loaded when it is first looked at; a mapped step's is a list that loads item by item.

        Raises:
            StepNotRunError: If there is none, saying why.
            ValueLoadError: If it does not load.
        """
        with own_frames_hidden:
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
        exception = self.exception
        return error_text(exception) if exception is not None else self._record.reason(self._node, self.state)

    @property
    def error_line(self) -> str | None:
        """Type and message of the exception in one line, or why the step did not run."""
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
        """How often the step was started; of a mapped step, the most for one item."""
        items = self._items
        if len(items) == 1:
            return self._record.attempts[items[0]]
        return max(self._record.attempts[items.start : items.stop], default=0)

    @property
    def retries(self) -> int:
        """Attempts after the first."""
        return max(0, self.attempts - 1)

    @property
    def worker(self) -> int | None:
        """Number of the worker that ran it; `None` if it never ran, or for a mapped step."""
        ran = self._ran() if self._index is not None or not self._record.is_mapped(self._node) else ()
        return self._record.workers[ran[0]] if ran else None

    @property
    def items(self) -> Sequence[StepResult]:
        """The results of a mapped step's items; empty for an ordinary step."""
        mapped = self._index is None and self._record.is_mapped(self._node)
        return _ItemResults(self._record, self._node) if mapped else ()

    def to_dict(self) -> dict[str, Any]:
        """Return what can be written as JSON."""
        state, attempts = self.state, self.attempts
        return {
            "state": state.value,
            "success": state.has_value,
            "duration": self.duration_seconds,
            "cached": state is StepState.CACHED,
            "attempts": attempts,
            "retries": max(0, attempts - 1),
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

    def __init__(self, record: Record, node: int) -> None:
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
        return f"<results of {self._record.plan.names[self._node]!r}: {counted(len(self), 'item')}>"


class _Outputs(Mapping[str, Any]):
    """The assets that have a value, in add order; one that has none says why when it is asked for."""

    __slots__ = ("_record",)

    def __init__(self, record: Record) -> None:
        self._record = record

    def __getitem__(self, asset: str) -> Any:
        with own_frames_hidden:
            return self._record.asset(asset)

    def get(self, asset: str, default: Any = None) -> Any:
        try:
            return self._record.asset(asset)
        except LookupError:
            return default

    def __contains__(self, asset: object) -> bool:
        found = self._record.plan.find(asset) if isinstance(asset, str) else None
        return found is not None and self._record.has_any_value(found[0])

    def __iter__(self) -> Iterator[str]:
        plan = self._record.plan
        for node in self._record.valued_nodes():
            yield from plan.assets_of(node)

    def __len__(self) -> int:
        return sum(len(self._record.plan.forms[node].outputs) or 1 for node in self._record.valued_nodes())

    def values(self) -> ValuesView[Any]:
        return _Values(self)

    def items(self) -> ItemsView[str, Any]:
        return _Items(self)

    def each(self) -> Iterator[tuple[str, Any]]:
        return self._record.valued_assets()

    def __repr__(self) -> str:
        return f"<outputs of {self._record.plan.name!r}: {counted(len(self), 'asset')}>"


class _Values(ValuesView[Any]):
    """The values of the assets, loaded one by one."""

    _mapping: _Outputs

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping.each())


class _Items(ItemsView[str, Any]):
    """The assets with their values, loaded one by one."""

    _mapping: _Outputs

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._mapping.each()


class _StepResults(Mapping[str, StepResult]):
    """Step results by name, in add order; items of mapped steps are found by theirs, too."""

    __slots__ = ("_record",)

    def __init__(self, record: Record) -> None:
        self._record = record

    def __getitem__(self, name: str) -> StepResult:
        record = self._record
        found = record.find(name)
        if found is None:
            with own_frames_hidden:
                raise KeyError(f"no step {name!r} in this run{record.hint(name, record.plan.names)}")
        return StepResult(record, *found)

    def __contains__(self, name: object) -> bool:
        return self._record.find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return map(self._record.plan.names.__getitem__, self._record.order)

    def __len__(self) -> int:
        return len(self._record.plan.names)

    def __repr__(self) -> str:
        return f"<step results of {self._record.plan.name!r}: {counted(len(self), 'step')}>"
