"""Hooks and `on_failure=`: the events of one run, delivered in the thread that called `run()`.

```
claim    ──▶ queue: StepStarted  ┐
complete ──▶ queue: StepFinished ┴──deliver(), in the thread that waits for the run──▶ hooks, on_failure
```

Workers only append to the queue; the waiting thread empties it at points where the run is consistent. A step starts and
ends once, however many attempts it takes.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.errors import StepNotRunError, ValueLoadError
from flowyml.hooks import everywhere
from flowyml.planning.call_template import VIEW
from flowyml.results.record import RunRecord
from flowyml.results.step_result import StepResult
from flowyml.runtime.extension import EVENTS, RunExtension
from flowyml.state import CODES, FAILURES, STATES, SUCCESS, StepState
from flowyml.steps.context import by_name
from flowyml.steps.fallback import call_handler
from flowyml.steps.step import added_step
from flowyml.store.arenas import ENCODED
from flowyml.store.value_store import MISSING, IteratorRef, MultiOutput, OptionalRef

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowyml.runtime.run import Run


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowyml._core import Batch
    from flowyml.hooks import Hooks
    from flowyml.pipeline import Pipeline
    from flowyml.results.result import PipelineResult
    from flowyml.runtime.extension import Claim, FinishedItems
    from flowyml.runtime.run import Run
    from flowyml.steps.step import Step

_log = logging.getLogger("flowyml")
_MOST_LOGGED = 3
# How late hooks may be called for what happens in other threads.
_POLL_SECONDS = 0.01


class StepStarted(NamedTuple):
    """That an item was claimed; its arguments, where they are at hand as objects."""

    item: int
    arguments: list[Any] | None


class EventQueue(RunExtension):
    """What happens in one run.

    Args:
        run: The run.
        pipeline: The pipeline that runs.
        hooks: Those of the pipeline; those of all pipelines go before them.
    """

    rank = EVENTS
    reads_inputs_at_end = True
    poll_seconds = _POLL_SECONDS

    def __init__(self, run: Run, pipeline: Pipeline, hooks: Hooks | None) -> None:
        """Take the functions as they are registered now."""
        self._run = run
        self._pipeline = pipeline
        self._hooks = {
            moment: everywhere.at(moment) + (() if hooks is None else hooks.at(moment))
            for moment in ("on_pipeline_start", "on_pipeline_end", "on_step_start", "on_step_end")
        }
        self.claims_single_items = bool(self._hooks["on_step_start"])
        self.needs_durable_ends = bool(self._hooks["on_step_end"])
        self._queue: deque[StepStarted | StepFinished] = deque()
        handlers = any(spec.options.on_failure for spec in run.plan.specs_with_options.values())
        self._has_handlers = handlers or run.plan.is_dynamic  # steps that come may have some
        self._raised: Counter[str] = Counter()
        self._over = False
        self._told_start, self._told_end = bytearray(run.item_index.item_count), bytearray(run.item_index.item_count)

    def __bool__(self) -> bool:
        """Return True if a function may be called."""
        return self._has_handlers or any(self._hooks.values())

    # -- what happens, from any thread

    def wrap_claim(self, claim: Claim) -> Claim:
        """Return a function that claims one item at a time and notes it, if a hook is called when a step begins."""
        if not self.claims_single_items:
            return claim

        def noting(worker: int, _limit: int, now: float, timeout: float = 0.0) -> Batch | None:
            batch = claim(worker, 1, now, timeout)
            if batch is not None:
                self._began(batch.items()[0])
            return batch

        return noting

    def _began(self, item: int) -> None:
        run = self._run
        # Values of this process are available now; encoded ones are loaded on access.
        self._queue.append(StepStarted(item, run.calls.arguments(item) if run.values.decode is None else None))

    def on_items_finished(self, finished: FinishedItems) -> None:
        """Note that items have ended, if a hook is called for that."""
        batch, _, start, ends, states = finished
        told, fallen = self.needs_durable_ends, self._run.fallback_errors
        if not told and not (self._has_handlers and (states or fallen)):
            return
        for k, item in enumerate(finished.items()):
            state = SUCCESS if states is None else states[k]
            if told or state in FAILURES or item in fallen:
                self._queue.append(StepFinished(item, state, ends[k - 1] if k else start, ends[k], batch.worker))

    # -- telling it, in the thread that waits for the run

    def deliver(self) -> None:
        """Tell everything that has happened until now."""
        while self._queue:
            event = self._queue.popleft()
            if isinstance(event, StepStarted):
                self._tell_start(event)
            else:
                self._tell_end(event)

    def on_run_started(self) -> None:
        """Call `on_pipeline_start`."""
        self._call("on_pipeline_start", self._pipeline)

    def on_run_finished(self, result: PipelineResult, *, interrupted: bool = False) -> None:
        """Call the hooks for steps that never began and for the end of the run; only the latter after Ctrl-C."""
        if not interrupted:
            self.deliver()
            self._tell_the_rest(result)
        if not self._over:
            self._over = True
            self._call("on_pipeline_end", self._pipeline, result)

    def _tell_start(self, began: StepStarted) -> None:
        if _first(self._told_start, began.item):
            self._call("on_step_start", self._step(began.item), LazyInputs(self._run, *began))

    def _tell_end(self, ended: StepFinished) -> None:
        _first(self._told_end, ended.item)
        node, index = self._run.item_index.place_of(ended.item)
        result = StepResult(ItemRecord(self._run, ended), node, index)
        self._tell_failure(node, result)
        self._call("on_step_end", self._step(ended.item), result)

    def _tell_failure(self, node: int, result: StepResult) -> None:
        """Tell the step's own `on_failure`; also if a fallback has given the value."""
        handler = self._run.plan.specs[node].options.on_failure
        error = result.exception or result.fallback_error
        if handler is not None and error is not None:
            self._call_one(f"on_failure of step {result.step_name!r}", call_handler, handler, error, result)

    def _tell_the_rest(self, result: PipelineResult) -> None:
        names = self._run.plan.names
        for node in self._run.expansion_errors:
            self._tell_failure(node, result.step_results[names[node]])
        if not self._hooks["on_step_end"]:
            return
        for item in range(self._run.item_index.item_count):
            if _first(self._told_end, item):
                self._call("on_step_end", self._step(item), result.step_results[self._run.item_name(item)])
        for node in self._run.item_index.empty_nodes():
            self._call("on_step_end", self._step_called(node), result.step_results[names[node]])

    def _step(self, item: int) -> Step[..., Any]:
        """Return the step as it stands in the pipeline."""
        return self._step_called(*self._run.item_index.place_of(item))

    def _step_called(self, node: int, index: int | None = None) -> Step[..., Any]:
        spec = self._run.plan.specs[node]
        return added_step(spec.step, self._run.plan.item_name(node, index), spec.inputs, spec.outputs, spec.options)

    def _call(self, moment: str, *arguments: Any) -> None:
        for hook in self._hooks[moment]:
            self._call_one(f"hook {_name(hook)} of {moment}", hook, *arguments)

    def _call_one(self, what: str, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function of the user's; only Ctrl-C goes through."""
        try:
            # A run that was cut off has given the signal's handler back.
            with contextlib.nullcontext() if self._run.interrupted else self._run.interrupts.may_raise():
                function(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  also SystemExit: a hook stops nothing
            self._log_error(what, error)

    def _log_error(self, what: str, error: BaseException) -> None:
        """Log the exception of a user's function, from its own frame on, a limited number of times."""
        self._raised[what] += 1
        if self._raised[what] <= _MOST_LOGGED:
            last = "; what else it raises in this run is not logged" if self._raised[what] == _MOST_LOGGED else ""
            trace = error.__traceback__.tb_next if error.__traceback__ else None
            message = "%s of pipeline %r raised %s; the run goes on%s"
            name = self._run.plan.name
            _log.error(message, what, name, type(error).__name__, last, exc_info=(type(error), error, trace))


class LazyInputs(Mapping[str, Any]):
    """The arguments of a step by parameter name; encoded ones are loaded when they are first looked at."""

    __slots__ = ("_arguments", "_item", "_named", "_run")

    def __init__(self, run: Run, item: int, arguments: list[Any] | None) -> None:
        self._run = run
        self._item = item
        self._arguments = arguments
        self._named: Mapping[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return self._loaded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())

    def __repr__(self) -> str:
        return repr(dict(self._loaded()))

    def _loaded(self) -> Mapping[str, Any]:
        if self._named is None:
            self._named = self._load()
        return self._named

    def _load(self) -> Mapping[str, Any]:
        run, item = self._run, self._item
        node = run.item_index.node_at(item)
        template: Any = run.plan.templates[node]
        if template.sources and template.sources[0][0] == VIEW:  # a decision: the view that it reads is not an argument
            return {}
        arguments = self._arguments
        if arguments is None:
            arguments = run.calls.arguments(item, self._read)
        return by_name(run.plan.function_of(node), template.keywords, arguments)

    def _read(self, reference: Any) -> Any:
        values = self._run.values
        value = values.argument(reference)
        gone = value is MISSING or (type(value) is list and any(each is MISSING for each in value))
        read = reference.reference if isinstance(reference, IteratorRef) else reference
        if values.dropped and gone and not isinstance(read, OptionalRef):
            reason = "it was dropped after its last reader, as keep= asked, before it was looked at"
            raise StepNotRunError(f"an argument of {self._run.item_name(self._item)}", reason)
        return self._decoded(value)

    def _decoded(self, value: Any) -> Any:
        if type(value) is list:
            return [self._decoded(each) for each in value]
        if isinstance(value, Iterator):
            return map(self._decoded, value)
        if type(value) is MultiOutput:
            return value.whole(self._decoded)
        if type(value) not in ENCODED:
            return value
        try:
            return self._run.values.decode(value, self._item)  # type: ignore[misc]
        except ValueLoadError as error:
            raise ValueLoadError(f"an argument of step {self._run.item_name(self._item)!r}", error.reason) from error


def _first(marks: bytearray, item: int) -> bool:
    """Mark an item; return True if it was not marked before."""
    if item >= len(marks):
        marks.extend(bytes(item + 1 - len(marks)))
    before, marks[item] = marks[item], 1
    return not before


def _name(function: Any) -> str:
    return repr(getattr(function, "__qualname__", function))


_NOT_BEGUN = {CODES[StepState.SKIPPED], CODES[StepState.CACHED], CODES[StepState.GIVEN]}


class StepFinished(NamedTuple):
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


class ItemRecord(RunRecord):
    """The record of one item that has ended, while the run continues.

    Args:
        run: The run.
        ended: The end of the item.
    """

    def __init__(self, run: Run, ended: StepFinished) -> None:
        item, state, start, end, worker = ended
        self.plan, self.item_index, self.values, self.failures = run.plan, run.item_index, run.values, run.failures
        self.began, self._began_at = run.started, run.started_at
        self._subgraphs, self._scheduler = run.subgraphs, run.scheduler
        self.fallen, self.refused, self.usage = run.fallback_errors, run.expansion_errors, run.usage
        self._state = ((item, state),)
        retries = run.retries
        if retries is None:
            made = 0 if state in _NOT_BEGUN else 1
        else:
            made = retries.failed(item) if state in _NOT_BEGUN else retries.made(item, run.failures)
        self.states, self.attempts = {item: state}, {item: made}  # type: ignore[assignment]
        self.workers, self.starts, self.ends = {item: worker}, {item: start}, {item: end}  # type: ignore[assignment]
        self.empty_states, self.tasks, self.forgiven = {}, {}, {}

    @property
    def has_value(self) -> Any:
        """For the item, whether there is a value: `keep=` may let it go while somebody holds this."""
        return {item: STATES[state].has_value and item not in self.values.dropped for item, state in self._state}

    def _ends_of(self, items: range) -> Sequence[float]:
        """Return when items ended that this one has waited for; all are copied for that, since it is rarely used."""
        return memoryview(self._scheduler.ends()).cast("d")[items.start : items.stop]
