"""Results: read-only views over what a run left behind.

A million steps cost no million objects: a result keeps the run's flat arrays (state, attempts, worker, start, end by
item), its values and its failures, and makes a `StepResult` when somebody asks for one. It stays readable after the
executor is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flowyml._traceback import error_text
from flowyml._words import nearest
from flowyml.errors import StepError, StepNotRunError
from flowyml.report.summary import summary
from flowyml.state import CODES, STATES, StepState

if TYPE_CHECKING:
    from flowyml.plan import Plan
    from flowyml.run import Run

_SUCCESS, _CACHED, _FAILED, _TIMED_OUT = (
    CODES[StepState(name)] for name in ("success", "cached", "failed", "timed_out")
)
_CANCELLED = CODES[StepState.CANCELLED]
_WORST = (StepState.FAILED, StepState.TIMED_OUT, StepState.CANCELLED, StepState.UPSTREAM_FAILED, StepState.SKIPPED)


class PipelineResult:
    """What came of a run: every step with its state, its value or its error.

    `result["name"]` is an asset, or else the whole return value of a step.

    Args:
        run: The run, ended.

    Attributes:
        run_id: Name of the run.
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
        self.run_id = run.run_id
        self.pipeline_name = run.plan.name
        self.duration_seconds = run.ended - run.started
        self.start_time: datetime = run.started_at
        self.end_time = run.started_at + timedelta(seconds=self.duration_seconds)
        self._interrupted = run.interrupted
        self._record = Record(run)
        self.outputs: Mapping[str, Any] = _Outputs(self._record)
        self.step_results: Mapping[str, StepResult] = _StepResults(self._record)

    @property
    def success(self) -> bool:
        """Whether every step that had to run succeeded."""
        return not self._interrupted and not self._record.has_trouble()

    @property
    def state(self) -> str:
        """The outcome as a word: "success", "failed" or "cancelled"."""
        if self._interrupted:
            return "cancelled"
        return "success" if self.success else "failed"

    @property
    def failed(self) -> list[StepResult]:
        """The steps that failed on their own account, in add order; of a mapped step, the items that did."""
        return [self._record.step_result(item) for item in self._record.own_failures()]

    def __getitem__(self, name: str) -> Any:
        """Return an asset, or else a step's whole return value.

        Raises:
            KeyError: If there is neither, with near matches.
            StepNotRunError: If the step has no value, saying why.
        """
        if name in self.outputs:
            return self.outputs[name]
        if name in self.step_results:
            return self._record.value_of(self._record.plan.numbers[name])
        raise KeyError(self._record.no_such(name))

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
        if self.success:
            return
        failed = self._record.own_failures()
        if not failed:
            raise StepError(self.pipeline_name, self.state, "the run was interrupted")
        first = self._record.step_result(failed[0])
        raise StepError(first.step_name, str(first.state), first.error_line, len(failed) - 1) from first.exception

    def summary(self) -> str:
        """Return a few lines for people; steps of one function are put together where there are many."""
        return summary(self)

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
    """

    __slots__ = ("_index", "_node", "_record", "step_name")

    def __init__(self, record: Record, node: int, index: int | None = None) -> None:
        """Point at the run's arrays."""
        self._record = record
        self._node = node
        self._index = index
        self.step_name: str = record.plan.item_name(node, index)

    @property
    def state(self) -> StepState:
        """The final state; of a mapped step, the worst of its items'."""
        states = {self._record.state(item) for item in self._items()}
        return next((state for state in _WORST if state in states), next(iter(states), StepState.SUCCESS))

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
        return self._record.value_of(self._node, self._index)

    @property
    def exception(self) -> BaseException | None:
        """What the step raised, with the worker's traceback; of a mapped step, what its first failed item raised."""
        failures = self._record.failures
        return next((failures[item] for item in self._items() if item in failures), None) if failures else None

    @property
    def error(self) -> str | None:
        """The exception's message and traceback as text, or why the step did not run; `None` for a success."""
        exception = self.exception
        return error_text(exception) if exception is not None else self._record.reason(self._node, self.state)

    @property
    def error_line(self) -> str | None:
        """Type and message of the exception in one line, or why the step did not run."""
        exception = self.exception
        if exception is None:
            return self._record.reason(self._node, self.state)
        return f"{type(exception).__name__}: {first_line(exception)}"

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
    def attempts(self) -> int:
        """How often the step was started; of a mapped step, the most for one item."""
        return max((self._record.attempts[item] for item in self._items()), default=0)

    @property
    def retries(self) -> int:
        """Attempts after the first."""
        return max(0, self.attempts - 1)

    @property
    def worker(self) -> int | None:
        """Number of the worker that ran it; `None` if it never ran, or for a mapped step."""
        ran = self._ran()
        return self._record.workers[ran[0]] if len(ran) == 1 else None

    @property
    def items(self) -> Sequence[StepResult]:
        """The results of a mapped step's items; empty for an ordinary step."""
        mapped = self._record.plan.forms[self._node].items is not None and self._index is None
        return _ItemResults(self._record, self._node) if mapped else ()

    def to_dict(self) -> dict[str, Any]:
        """Return what can be written as JSON."""
        return {
            "state": str(self.state),
            "success": self.success,
            "duration": self.duration_seconds,
            "cached": self.cached,
            "attempts": self.attempts,
            "retries": self.retries,
            "error": self.error_line,
        }

    def __repr__(self) -> str:
        """Show name and state."""
        return f"<StepResult {self.step_name!r} {self.state}>"

    def _items(self) -> range:
        items = self._record.items_of(self._node)
        return items if self._index is None else items[self._index : self._index + 1]

    def _ran(self) -> Sequence[int]:
        attempts = self._record.attempts
        return [item for item in self._items() if attempts[item]]


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message."""
    try:
        return str(error).partition("\n")[0]
    except Exception as trouble:  # noqa: BLE001  a __str__ of the user's may do anything
        return f"<its __str__ raised {type(trouble).__name__}>"


class Record:
    """The arrays of one run, and what is read from them."""

    def __init__(self, run: Run) -> None:
        """Copy the scheduler's arrays, take over values and failures."""
        self.plan: Plan = run.plan
        self.values = run.values
        self.failures = run.failures
        scheduler = run.scheduler
        self.states = scheduler.states()
        self.attempts = scheduler.attempts()
        self.workers = memoryview(scheduler.workers()).cast("H")
        self.starts = memoryview(scheduler.starts()).cast("d")
        self.ends = memoryview(scheduler.ends()).cast("d")
        self._began, self._began_at = run.started, run.started_at

    def at(self, seconds: float) -> datetime:
        """Return the time of day of a monotonic time."""
        return self._began_at + timedelta(seconds=seconds - self._began)

    def state(self, item: int) -> StepState:
        """Return an item's state; what an interrupt cut off is cancelled."""
        code = self.states[item]
        return STATES[code if code >= _SUCCESS else _CANCELLED]

    def items_of(self, node: int) -> range:
        """Return the items of a step."""
        first, items = self.plan.firsts[node], self.plan.forms[node].items
        return range(first, first + (1 if items is None else len(items)))

    def has_trouble(self) -> bool:
        """Tell whether some item ended in another state than success, cached or skipped."""
        fine = self.states.count(_SUCCESS) + self.states.count(_CACHED) + self.states.count(CODES[StepState.SKIPPED])
        return fine != len(self.states)

    def own_failures(self) -> list[int]:
        """Return the items that failed on their own account."""
        return sorted(self.failures)

    def counts(self) -> dict[str, int]:
        """Return how many items are in each state that occurs."""
        counted = {str(state): self.states.count(code) for code, state in enumerate(STATES)}
        return {state: count for state, count in counted.items() if count}

    def step_result(self, item: int) -> StepResult:
        """Return the result of one item."""
        node = self.node_of(item)
        mapped = self.plan.forms[node].items is not None
        return StepResult(self, node, item - self.plan.firsts[node] if mapped else None)

    def node_of(self, item: int) -> int:
        """Return the step of an item."""
        if self.plan.counts is None:
            return item
        from bisect import bisect_right

        return bisect_right(self.plan.firsts, item, hi=len(self.plan.forms)) - 1

    def value_of(self, node: int, index: int | None = None) -> Any:
        """Return the return value of a step or item."""
        items = self.items_of(node)
        if self.plan.forms[node].items is not None and index is None:
            return ItemValues(self, node)
        return self.value(items[index or 0], self.plan.item_name(node, index))

    def value(self, item: int, name: str, output: int | None = None) -> Any:
        """Return the value of an item, or one of its declared outputs.

        Raises:
            StepNotRunError: If there is none, from the step's exception where it failed.
        """
        try:
            return self.values.read(item) if output is None else self.values.read_output(item, output)
        except LookupError:
            pass
        if item in self.values.dropped:
            reason = "it was dropped after its last reader, as keep= asked"
            raise StepNotRunError(name, reason)
        reason = f"its state is {self.state(item)}"
        raise StepNotRunError(name, reason) from self.failures.get(item)

    def reason(self, node: int, state: StepState) -> str | None:
        """Say why a step without an exception has no value."""
        if state is StepState.UPSTREAM_FAILED:
            return f"did not run: {self._culprit(node)} failed"
        return "cancelled before it was finished" if state is StepState.CANCELLED else None

    def _culprit(self, node: int) -> str:
        """Name a failed step that this one depends on, near or far."""
        seen, pending = {node}, [node]
        while pending:
            for before in self.plan.graph.dependencies(pending.pop()):
                items = self.items_of(before)
                if any(item in self.failures for item in items):
                    return f"step {self.plan.names[before]!r}"
                if before not in seen:
                    seen.add(before)
                    pending.append(before)
        return "a step before it"

    def no_such(self, name: str) -> str:
        """Return the text of the `KeyError` for a name that is neither asset nor step."""
        return f"no asset or step {name!r} in this run{nearest(name, [*self.plan.names, *self.plan.all_assets()])}"


class ItemValues(Sequence[Any]):
    """The values of a mapped step in item order, loaded one by one; reading a failed item raises."""

    __slots__ = ("_node", "_record")

    def __init__(self, record: Record, node: int) -> None:
        """Point at the run's values."""
        self._record = record
        self._node = node

    def __len__(self) -> int:
        """Return how many items there are."""
        return len(self._record.items_of(self._node))

    def __getitem__(self, index: Any) -> Any:
        """Return one value, or a list of them for a slice.

        Raises:
            StepNotRunError: If an item has none, from its exception.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        item = self._record.items_of(self._node)[index]
        name = self._record.plan.item_name(self._node, range(len(self))[index])
        return self._record.value(item, name)

    def __eq__(self, other: object) -> bool:
        """Compare as a list does."""
        return (
            list(self) == list(other) if isinstance(other, Sequence) and not isinstance(other, str) else NotImplemented
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the size; values are not loaded for it."""
        return f"<values of {self._record.plan.names[self._node]!r}: {len(self)} items>"


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


class _Outputs(Mapping[str, Any]):
    """Assets by name, in add order."""

    __slots__ = ("_record",)

    def __init__(self, record: Record) -> None:
        self._record = record

    def __getitem__(self, asset: str) -> Any:
        record = self._record
        found = record.plan.assets.find(asset)
        if found is None:
            raise KeyError(record.no_such(asset))
        node, output = found
        if output is None:
            return record.value_of(node)
        return record.value(record.plan.firsts[node], asset, output)

    def __contains__(self, asset: object) -> bool:
        return isinstance(asset, str) and self._record.plan.assets.find(asset) is not None

    def __iter__(self) -> Iterator[str]:
        for node in range(len(self._record.plan.forms)):
            if self._has_value(node):
                yield from self._record.plan.assets_of(node)

    def __len__(self) -> int:
        plan = self._record.plan
        return sum(len(plan.assets_of(node)) for node in range(len(plan.forms)) if self._has_value(node))

    def _has_value(self, node: int) -> bool:
        record = self._record
        if record.plan.forms[node].items is not None:
            return True
        item = record.plan.firsts[node]
        return record.states[item] in {_SUCCESS, _CACHED} and item not in record.values.dropped

    def __repr__(self) -> str:
        return f"<outputs of {self._record.plan.name!r}: {len(self)} assets>"


class _StepResults(Mapping[str, StepResult]):
    """Step results by name, in add order."""

    __slots__ = ("_record",)

    def __init__(self, record: Record) -> None:
        self._record = record

    def __getitem__(self, name: str) -> StepResult:
        node = self._record.plan.numbers.get(name)
        if node is None:
            raise KeyError(f"no step {name!r} in this run{nearest(name, self._record.plan.names)}")
        return StepResult(self._record, node)

    def __contains__(self, name: object) -> bool:
        return name in self._record.plan.numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._record.plan.names)

    def __len__(self) -> int:
        return len(self._record.plan.names)

    def __repr__(self) -> str:
        return f"<step results of {self._record.plan.name!r}: {len(self)} steps>"
