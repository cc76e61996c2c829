"""The result of a run: a read-only view over the run's flat arrays.

A million steps do not become a million objects: the arrays are in a `RunRecord`, and a `StepResult` is created on
access. A result stays readable after the executor is gone.

A pickled result is a `RemoteResultStub` without values. So a script's global result does not travel with a function
that names it, nor with an exception that holds it.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from flowyml.diagnostics.text import pluralize, short_repr
from flowyml.diagnostics.tracebacks import called_as, hide_internal_frames, hides_internal_frames
from flowyml.errors import StepError
from flowyml.results.record import RunRecord
from flowyml.results.step_result import StepResult

if TYPE_CHECKING:
    from datetime import datetime
    from os import PathLike

    import pandas as pd

    from flowyml.reports.timeline import Timeline
    from flowyml.results.report_data import RunHeader
    from flowyml.runtime.run import Run


class RemoteResultStub:
    """Placeholder for a `PipelineResult` of another process.

    Args:
        text: `repr()` of the result.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name if name.startswith("_") else self._where())  # such as __array__

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(self._where())

    def _where(self) -> str:
        return (
            f"{self._text} was pickled without its values, which are in the process of its run: pass on the values "
            "that are needed, such as dict(result.outputs), or result.to_dict()"
        )

    __getitem__ = __contains__ = __iter__ = __len__ = __bool__ = _refuse


T = TypeVar("T")
# repr() of more outputs than these shows only their number.
_MAX_SHOWN = 20


class PipelineResult:
    """The result of a run: each step with its state and its value or error.

    `result["name"]` is an asset or the return value of a step. `bool(result)` is `result.success`, so
    `assert pipeline.run()` holds only if the run succeeded.

    Args:
        run: The run, ended.

    Attributes:
        run_id: Id of the run.
        resumed: Summary of a resumed run: which results were taken from an earlier attempt, which steps ran again and
            why; `None` if the run was not resumed.
        pipeline_name: Name of the pipeline.
        start_time: Start of the run (UTC).
        end_time: End of the run (UTC).
        duration_seconds: Time between start and end.
        outputs: Assets by name, in add order; a mapped step's is the list of its results.
        step_results: A `StepResult` for each step by name, in add order.

    >>> from flowyml import Pipeline
    >>> result = Pipeline("one").add_step(max, params={"a": 1, "b": 2}).run()
    >>> result.success, result["max"], result.step_results["max"].state.value
    (True, 2, 'success')
    """

    def __init__(self, run: Run) -> None:
        from datetime import timedelta

        self.run_id: str = run.run_id
        self.pipeline_name: str = run.plan.name
        self.duration_seconds: float = run.ended - run.started
        self.start_time: datetime = run.started_at
        self.end_time: datetime = run.started_at + timedelta(seconds=self.duration_seconds)
        self.resumed: str | None = run.resume_summary
        self._interrupted = run.interrupted
        self._dry = run.dry
        self._record = RunRecord(run)
        self.outputs: Mapping[str, Any] = _OutputMapping(self._record)
        self.step_results: Mapping[str, StepResult] = _StepResultMapping(self._record)

    @property
    def success(self) -> bool:
        """True if every step that had to run succeeded."""
        return not self._interrupted and not self._dry and not self._record.has_trouble()

    def __bool__(self) -> bool:
        """Return `success`."""
        return self.success

    @property
    def state(self) -> str:
        """The outcome: "success", "failed", "cancelled" or "dry_run"."""
        if self._dry:
            return "dry_run"
        if self._interrupted:
            return "cancelled"
        return "success" if self.success else "failed"

    @property
    def failed(self) -> list[StepResult]:
        """The steps that failed themselves, in add order; of a mapped step, its failed items."""
        return self._first_failed(None)

    def _first_failed(self, most: int | None) -> list[StepResult]:
        return [StepResult(self._record, *place) for place in self._record.own_failures()[:most]]

    def __getitem__(self, name: str) -> Any:
        """Return an asset, the return value of a step, or that of an item: `result["name[3]"]`.

        Raises:
            KeyError: If the name does not exist, with near matches.
            StepNotRunError: If the step has no value, with the reason.
        """
        record = self._record
        try:
            if (asset := record.plan.find(name)) is not None:
                return record.asset_of(*asset)
            found = record.find(name)
            return record.asset(name) if found is None else record.value_of(*found)
        except BaseException as error:  # calling the decorator costs as much as the lookup
            hide_internal_frames(error)
            raise

    @hides_internal_frames
    def __iter__(self) -> NoReturn:
        """Refuse: it would be ambiguous whether names, values or steps are meant."""
        raise TypeError(
            "a PipelineResult is not iterable: iterate over result.outputs (values by name) or result.step_results"
        )

    def __contains__(self, name: object) -> bool:
        """Return True if an asset, step or item of that name exists, with or without a value."""
        record = self._record
        return isinstance(name, str) and (record.find(name) is not None or record.plan.find(name) is not None)

    @hides_internal_frames
    def get(self, name: str, default: Any = None) -> Any:
        """Return an asset or a step's value, or the default if there is none."""
        try:
            return self[name]
        except LookupError:
            return default

    @hides_internal_frames
    def raise_for_failure(self) -> None:
        """Raise a `StepError` for the first failed step, if there is one.

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
        raise error from first.exception

    def summary(self) -> str:
        """Return a few lines that describe the run; many steps are grouped by function."""
        from flowyml.reports.summary import MAX_FAILURES, MAX_LINES, summary, summary_by_function

        if len(self.step_results) <= MAX_LINES:
            return summary(self, self.step_results.values())
        return summary_by_function(self, self._record.tallies(), self._first_failed(MAX_FAILURES))

    def to_dict(self) -> dict[str, Any]:
        """Return the run and its steps as JSON-compatible data, without values."""
        return {
            "run_id": self.run_id,
            "pipeline_name": self.pipeline_name,
            "success": self.success,
            "state": self.state,
            "start_time": self.start_time.isoformat(),
            "end_time": self.end_time.isoformat(),
            "duration_seconds": self.duration_seconds,
            "steps": {name: step.to_dict() for name, step in self.step_results.items()},
        }

    # -- reports

    def timeline(self) -> Timeline:
        """Return start, end, worker and attempts of each call of the run, in flat arrays.

        A plain step has one entry, a mapped step one for each item, in add order. Times belong to the last attempt and
        are seconds after the start of the run; NaN for calls that never ran. Entries become objects only on access.

        >>> import time
        >>> from flowyml import Pipeline
        >>> timeline = Pipeline("naps").map(time.sleep, [0.01, 0.02], name="nap").run().timeline()
        >>> [call.name for call in timeline], timeline[1].end > timeline[1].start + 0.015
        (['nap[0]', 'nap[1]'], True)
        """
        from flowyml.results.report_data import TimelineIndex, timeline_of

        return timeline_of(self._record, self._head(), TimelineIndex(self._record))

    @hides_internal_frames
    def to_dataframe(self) -> pd.DataFrame:
        """Return a pandas DataFrame with a row for each call, in add order.

        Its columns are `step`, `item` (NA for plain steps), `state` (categorical), `worker` (NA if it never ran),
        `attempts`, `start` and `end` of the last attempt (UTC; NaT if it never ran), `duration` (seconds),
        `cpu_seconds` and `max_rss` (bytes; both as in `StepResult`, NaN and NA if unknown) and `error` (type and
        message of the failure).

        Raises:
            ImportError: If pandas is not installed.
        """
        from flowyml.reports.dataframe import dataframe
        from flowyml.results.report_data import TimelineIndex, errors_of, timeline_of, usage_of

        places = TimelineIndex(self._record)
        timeline = timeline_of(self._record, self._head(), places)
        return dataframe(timeline, errors_of(self._record, places), *usage_of(self._record, places))

    def to_trace(self, path: str | PathLike[str], *, flows: bool = False) -> None:
        """Write a trace for Perfetto (ui.perfetto.dev) and Chrome (about:tracing), with a thread for each worker.

        Args:
            path: The file, compressed if its name ends in ".gz", which the viewers can read. A call takes some 150
                bytes, about a tenth of that if compressed.
            flows: Draw arrows from calls to the calls that depended on them.

        Raises:
            OSError: If the file cannot be written.
        """
        from flowyml.results.report_data import write_trace

        write_trace(self._record, self._head(), path, flows=flows)

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write an HTML page about the run: one self-contained file without scripts.

        It shows the states, the graph, the timeline of the workers, failures with tracebacks and the slowest calls, but
        no values. Large runs are folded: the page stays below 1.5 megabytes.

        Args:
            path: The file.

        Raises:
            OSError: If the file cannot be written.

        >>> import os, tempfile
        >>> from flowyml import Pipeline
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     Pipeline("one").add_step(max, params={"a": 1, "b": 2}).run().to_html(
        ...         os.path.join(directory, "run.html")
        ...     )
        ...     os.listdir(directory)
        ['run.html']
        """
        from flowyml.results.report_data import write_page

        write_page(self._record, self._head(), self.step_results.values(), path)

    def _head(self) -> RunHeader:
        from flowyml.results.report_data import RunHeader

        times = self.start_time, self.duration_seconds
        return RunHeader(self.pipeline_name, self.run_id, self.state, *times, self.resumed)

    def __repr__(self) -> str:
        """Show the outcome and the number of calls in each state."""
        counts = ", ".join(f"{count} {state}" for state, count in self._record.counts().items())
        none = "no items" if self.step_results else "no steps"
        return f"<PipelineResult {self.pipeline_name!r} {self.state}: {counts or none}>"

    def __copy__(self) -> Self:
        """Return itself: a result is immutable."""
        return self

    def __deepcopy__(self, _: object) -> Self:
        """Return itself: a result is immutable."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a stub without the values; see the module."""
        return RemoteResultStub, (repr(self),)


class _OutputMapping(Mapping[str, Any]):
    """The assets that have a value, in add order; reading another one raises an error with the reason."""

    __slots__ = ("_record",)

    def __init__(self, record: RunRecord) -> None:
        self._record = record

    def __getitem__(self, asset: str) -> Any:
        try:
            return self._record.asset(asset)
        except BaseException as error:  # as above
            hide_internal_frames(error)
            raise

    @hides_internal_frames
    def get(self, asset: str, default: Any = None) -> Any:
        try:
            return self._record.asset(asset)
        except LookupError:
            return default

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __contains__(self, asset: object) -> bool:
        found = self._record.plan.find(asset) if isinstance(asset, str) else None
        return found is not None and self._record.has_any_value(found[0])

    def __iter__(self) -> Iterator[str]:
        return self._record.valued_names()

    def __len__(self) -> int:
        return self._record.valued_count()

    def values(self) -> ValuesView[Any]:
        return _OutputValues(self)

    def items(self) -> ItemsView[str, Any]:
        return _OutputItems(self)

    def each(self) -> Iterator[tuple[str, Any]]:
        return _without_frames(self._record.valued_assets())

    def each_value(self) -> Iterator[Any]:
        return _without_frames(self._record.asset_values())

    def __repr__(self) -> str:
        count = len(self)
        if count > _MAX_SHOWN:
            return f"<outputs of {self._record.plan.name!r}: {pluralize(count, 'asset')}>"
        return f"{{{', '.join(f'{asset!r}: {self._shown(asset)}' for asset in self)}}}"

    def _shown(self, asset: str) -> str:
        try:
            value = self._record.asset(asset)
            return repr(value) if type(value).__module__.startswith("flowyml.") else short_repr(value)
        except Exception as error:  # noqa: BLE001  whatever loading it calls
            return f"<{type(error).__name__}>"


def _without_frames(values: Iterator[T]) -> Iterator[T]:
    """Yield values; if loading one raises, hide internal frames."""
    try:
        yield from values
    except BaseException as error:
        hide_internal_frames(error)
        raise


class _OutputValues(ValuesView[Any]):
    _mapping: _OutputMapping

    def __iter__(self) -> Iterator[Any]:
        return self._mapping.each_value()


class _OutputItems(ItemsView[str, Any]):
    _mapping: _OutputMapping

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._mapping.each()


class _StepResultMapping(Mapping[str, StepResult]):
    """Step results by name, in add order, with the items of mapped steps."""

    __slots__ = ("_record",)

    def __init__(self, record: RunRecord) -> None:
        self._record = record

    def __getitem__(self, name: str) -> StepResult:
        record = self._record
        try:
            found = record.find(name)
            if found is None:
                raise KeyError(f"no step {name!r} in this run{record.hint(name, record.plan.names)}")  # noqa: TRY301
            return StepResult(record, *found)
        except BaseException as error:  # as above
            hide_internal_frames(error)
            raise

    def __contains__(self, name: object) -> bool:
        return self._record.find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return map(self._record.plan.names.__getitem__, self._record.order)

    def __len__(self) -> int:
        return len(self._record.plan.names)

    def __repr__(self) -> str:
        return f"<step results of {self._record.plan.name!r}: {pluralize(len(self), 'step')}>"
