"""One run: the glue of scheduler, values and failures, the same for every executor.

```
Plan ──▶ Run ──claim──▶ executor ──complete──▶ Run ──▶ PipelineResult
          │ scheduler: which item is in which state
          │ values: what each item returned
          └ failures: what each failed item raised
```

The run decides what a failure means and what is kept; it does not know where steps run.
"""

from __future__ import annotations

import math
import os
import sys
import time
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flowyml._extension import Scheduler
from flowyml.diagnostics.text import join_names
from flowyml.diagnostics.tracebacks import hide_internal_frames
from flowyml.errors import ExecutorError, SerializationError, StepTimeoutError
from flowyml.hooks import everywhere
from flowyml.results.resource_usage import ResourceUsage
from flowyml.results.result import PipelineResult
from flowyml.runtime.calls import StepCaller
from flowyml.runtime.dynamic_steps import SubgraphInsertion
from flowyml.runtime.events import EventQueue
from flowyml.runtime.expansion import MapExpansion, MapTaskRuns
from flowyml.runtime.failure_policy import CircuitBreakers, RetryState
from flowyml.runtime.interrupts import InterruptHandler
from flowyml.runtime.resource_limits import ResourceLimits
from flowyml.runtime.retention import keep_mask
from flowyml.state import CODES, FAILED, SKIPPED, STATES, SUCCESS, TIMED_OUT, StepState
from flowyml.steps.dynamic import SubgraphReturned
from flowyml.steps.outcomes import StepSkipped
from flowyml.steps.timeout import StepExpired, TimeLimits
from flowyml.store.serialization import ATOMS, decoded_all, decoder, encoded
from flowyml.store.value_store import ValueStore, always, split_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Literal, Protocol

    from flowyml._core import Batch, Graph
    from flowyml.caching.lookup import ResultLookup
    from flowyml.hooks import Hooks
    from flowyml.pipeline import Pipeline
    from flowyml.planning.plan import Plan
    from flowyml.planning.step_spec import StepSpec
    from flowyml.runtime.calls import Steps
    from flowyml.runtime.mutation_check import MutationCheck
    from flowyml.steps.resources import Capacity

    class BatchReport(Protocol):
        """What an executor reports of a batch; see `executors/in_process.py`."""

        start: float
        ends: Any  # a sequence of times
        failures: list[tuple[int, int, BaseException]]


# How late hooks may hear of what happens in other threads.
_TOLD_AFTER = 0.01


def _wholeness(scheduler: Scheduler) -> Callable[[int], bool]:
    """Return a function that tells whether an ended step counts as a success; without a reference to the run."""
    return lambda node: STATES[scheduler.node_state(node)].has_value


class Run:
    """One run of a plan.

    Args:
        plan: What is run.
        order: Which ready step goes first; see `Executor.order`.
        keep: Which values stay; see `Pipeline.run`.
        fail_fast: Start nothing new after the first failure.
        run_id: Name of the run; random by default.
        seed: Seeds the random generators of each step; see `seeding.py`.
        graph: The graph of the plan with other ranks; see `Executor.prioritized_graph`.
        watch: Tells which steps change their arguments; see `watching.py`.
        max_batch_size: The most steps that one worker takes at once; `None`: what the executor thinks right.

    Attributes:
        map_inputs: For each mapped step its items; see `expansion.py`.
        expansion_errors: Mapped steps that failed without items, with the reason.
        retries: How often items were tried; see `trials.py`.
        calls: How steps are called in this process; see `calls.py`.
        claim: Takes up to `limit` ready items for a worker, as `Scheduler.claim` does.
        fallback_errors: What the steps raised in whose place their fallback is called, by item.
        single_item_batches: Items are claimed one at a time, so a worker should not have any beyond the one it is at.
        events: What happens, for those who asked for it; `None` if nobody did.
        resume_summary: Which results of an earlier attempt are reused and what runs again; `None` if there was none.
        final_resume_summary: Returns the same at the end of the run, when all of it is known; `None` if there was none.
        lookup: What is known of its items already, for pipelines that ask; `None` if nobody does.
        resource_limits: What its steps may take together.
        devices: Which devices its steps have, where they take some.
        usage: What steps have used and written, where that is seen.
        reports_early: What has ended is reported soon, since it is written down: a batch may hold a long step.
        checkpoint_dir: Where steps put aside what `PipelineCheckpoint` is given; "" for a run of no pipeline.
        forced_steps: Steps that run again although an earlier attempt has finished them.
        keeps_serialized: Whether its values are kept encoded: then those that are known already come so, too.
        default_timeout: The seconds that a step without a `timeout` of its own may take; the executor sets it.
    """

    scheduler: Scheduler
    started_at: datetime
    started: float
    ended: float

    def __init__(
        self,
        plan: Plan,
        *,
        order: Literal["critical_path", "add"] = "critical_path",
        keep: str | Sequence[str] = "all",
        fail_fast: bool = False,
        run_id: str | None = None,
        seed: int | None = None,
        capacity: Capacity | None = None,
        graph: Graph | None = None,
        watch: MutationCheck | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        mask = keep_mask(plan, keep)
        self.plan = plan
        self.fail_fast = fail_fast
        self.run_id = run_id or os.urandom(6).hex()
        self.seed, self.max_batch_size = seed, sys.maxsize if max_batch_size is None else max_batch_size
        self.layout = plan.layout.of_run(grows=plan.is_dynamic)
        self.values = ValueStore(self.layout)
        self.failures: dict[int, BaseException] = {}
        self.interrupts = InterruptHandler()
        self.interrupted = False
        self.dry = False
        self.default_timeout = math.inf
        self.resource_limits = ResourceLimits(capacity, self.layout)
        self.devices = self.resource_limits.devices
        found: list[tuple[int, str]] = []
        limits = self.resource_limits.limits_of(plan.forms, found, special=bool(plan.special))
        plan.refuse(found)
        self.scheduler = Scheduler(graph or plan.graph, order=order, keep=mask, **limits)
        self.node_of = self.layout.node_of()
        self.retries = RetryState(plan, self.layout, self.node_of, self.scheduler, seed)
        self.fallback_errors: dict[int, BaseException] = self.retries.fallen
        self.map_tasks: MapTaskRuns = MapTaskRuns(plan, self.layout, self.scheduler, self.failures)
        self.values.tasks, self.values.is_whole = self.map_tasks.values, _wholeness(self.scheduler)
        self.claim: Callable[..., Batch | None] = self._claiming(self.scheduler.claim)
        options = [form.options for form in plan.special.values()]
        self.has_fallbacks = plan.is_dynamic or any(each.fallback for each in options)
        self.circuits = self._new_circuits() if any(each.circuit_breaker for each in options) else None
        self.single_item_batches = self.circuits is not None or self.map_tasks.any_fail_fast
        self.events: EventQueue | None = None
        self.lookup: ResultLookup | None = None
        self.resume_summary: str | None = None
        self.final_resume_summary: Callable[[], str | None] | None = None
        self.reports_early = False
        self.usage = ResourceUsage()
        self.checkpoint_dir = ""
        self.forced_steps: frozenset[int] = frozenset()
        self.keeps_serialized = False
        self.expansion = MapExpansion(
            plan, self.layout, self.values, self.scheduler, self.node_of, tasks=self.map_tasks
        )
        self.map_inputs: dict[int, Sequence[Any]] = self.expansion.tables
        self.expansion_errors: dict[int, BaseException] = self.expansion.refused
        self.subgraphs = SubgraphInsertion(plan)
        self._give()
        if self.layout.waiting:
            self.expansion.go_on()
        self.calls = StepCaller(
            plan,
            self.layout,
            self.node_of,
            self.values,
            tables=self.map_inputs,
            fallen=self.fallback_errors,
            seed=seed,
            watch=watch,
        )
        self.started_at = datetime.now(UTC)
        self.started = time.monotonic()
        self.ended = self.started
        self.releases = mask is not None

    @cached_property
    def call(self) -> Callable[[int], Any]:
        """Calls the step of an item in this process and returns its value."""
        return self.calls.caller(fallbacks=self.has_fallbacks)

    @cached_property
    def steps(self) -> Steps:
        """What the core needs to do the same: see `rust/python/turn/steps.rs`."""
        return self.calls.for_core(self.call, fallbacks=self.has_fallbacks)

    @property
    def finished(self) -> bool:
        """Whether no step is left to run and none is running."""
        return self.scheduler.finished

    @property
    def can_report_directly(self) -> bool:
        """Whether a report without failures means nothing but itself, so that workers can give it to the scheduler."""
        notes = self.lookup is not None and self.lookup.notes
        asked = self.events is not None or ((self.lookup is not None or self.reports_early) and not notes)
        changes = self.releases or self.layout.waiting or self.layout.grows
        return not (asked or changes) and self.claim == self.scheduler.claim

    @property
    def atoms(self) -> frozenset[type] | None:
        """The types whose values no step can change, if those of others are to be written down before the next step."""
        return ATOMS if self.lookup is not None and self.lookup.notes else None

    def max_useful_workers(self, workers: int) -> int:
        """Return how many of so many workers can have something to do."""
        return workers if self.layout.waiting or self.layout.grows else max(1, min(workers, self.layout.item_count))

    def _give(self) -> None:
        """End the given steps, before their dependents look at them."""
        for node in self.plan.given_steps():
            form, items = self.plan.forms[node], self.layout.items_of(node)
            values: Sequence[Any] = self.plan.row(node)
            if form.over is not None:
                values = form.over.columns[0].source
            elif len(form.outputs) > 1:
                values = [split_outputs(values[0], form.parts, self.plan.names[node])]
            self.values.raw[items.start : items.stop] = values
            self.scheduler.give(node)

    def attach_hooks(self, pipeline: Pipeline, hooks: Hooks) -> None:
        """Tell hooks what happens in this run of a pipeline."""
        if not (hooks.any or everywhere.any or self.plan.special or self.plan.is_dynamic):
            return
        events = EventQueue(self, pipeline, hooks)
        if events:
            self.events = events
        if events.one_by_one:
            self.single_item_batches = True
            self.claim = events.claiming(self.claim)

    def _claiming(self, claim: Callable[..., Batch | None]) -> Callable[..., Batch | None]:
        """Return a way to claim: one item at a time where the first failure of a step ends all that has not begun."""
        if not self.map_tasks.any_fail_fast:
            return claim
        return lambda worker, _limit, now, timeout=0.0: claim(worker, 1, now, timeout)

    def attach_lookup(self, recall: ResultLookup) -> None:
        """Ask for what is known already before anything runs, and tell what has run."""
        self.lookup, self.reports_early = recall, True
        claim = self._claiming(recall.claiming(self.scheduler.claim))
        self.claim = claim if self.circuits is None else self.circuits.claiming(claim)

    def keep_values_serialized(self) -> None:
        """Keep values as they come from worker processes, those that are known already like all others."""
        if not self.keeps_serialized:
            self.keeps_serialized = True
            for node in self.plan.given_steps():
                self._encode_given(node)
            self.values.decode = decoder(self.plan, self.layout)
            self.values.decode_all = decoded_all
            if self.lookup is not None:
                self.lookup.encode()

    def _encode_given(self, node: int) -> None:
        raw, items = self.values.raw, self.layout.items_of(node)
        try:
            raw[items.start : items.stop] = map(encoded, raw[items.start : items.stop])
        except SerializationError as error:
            what = f"the given value of step {self.plan.names[node]!r}"
            raise SerializationError(what, error.reason) from error.__cause__

    def deliver_events(self) -> None:
        """Tell hooks what has happened; called by the thread that waits for the run, where nothing is half done."""
        if self.events is not None:
            self.events.deliver()

    def poll_interval(self, most: float) -> float:
        """Return how long, up to `most` seconds, the waiting thread may wait before it looks what there is to tell."""
        return most if self.events is None else min(most, _TOLD_AFTER)

    def flush_journal(self) -> None:
        """Write down what workers of this process have ended and noted."""
        if self.lookup is not None:
            self.lookup.write()

    def complete(self, batch: Batch, position: int, report: BatchReport) -> int:
        """Take over the report on items `position` and following of a batch; return how many failed for good."""
        failed = 0
        if report.failures:
            failed = self._complete_with_failures(batch, position, report)
        else:
            if self.circuits is not None:
                self.circuits.passed(batch)
            self._end(batch, position, report.start, report.ends, None)
        if self.layout.waiting and not (failed and self.fail_fast):
            failed += self.expansion.go_on()
        if failed and self.fail_fast:
            self.cancel()
        if self.releases:
            self.values.drop(self.scheduler.take_released())
        return failed

    def complete_from_cache(self, batch: Batch, position: int, states: bytes) -> None:
        """Let items of a batch end in these states without having run."""
        now = time.monotonic()
        self._end(batch, position, now, [now] * len(states), states)
        if self.layout.waiting and self.expansion.go_on() and self.fail_fast:
            self.cancel()
        if self.releases:
            self.values.drop(self.scheduler.take_released())

    def _complete_with_failures(self, batch: Batch, position: int, report: BatchReport) -> int:
        """Report what has ended, and hold back what is to be tried again; return how many steps failed for good.

        A step whose condition did not hold stands among the failures with `StepSkipped`, one that took too long with
        `StepExpired`, one that returned a pipeline with `SubgraphReturned`.
        """
        failed = 0
        outcomes = bytearray([SUCCESS]) * len(report.ends)
        first = 0
        for offset, item, error in report.failures:
            if isinstance(error, SubgraphReturned):
                self._complete_part(batch, position, report, outcomes, slice(first, offset))
                refusal = self.subgraphs.graft(
                    self, batch, position + offset, item, error.pipeline, now=report.ends[offset]
                )
                first = offset + (refusal is None)
                if refusal is None:
                    continue
                error = refusal  # noqa: PLW2901  that is what the step fails with
            if isinstance(error, StepSkipped):
                outcomes[offset] = SKIPPED
                if self.circuits is not None:
                    self.circuits.skipped(item)
                continue
            outcome, reason = self._failure(item, error, report.ends[offset])
            delay = self.retries.delay(item, reason)
            if delay is None:
                outcomes[offset] = outcome
                hide_internal_frames(reason)
                self.failures[item] = reason
                failed += 1
                continue
            self._complete_part(batch, position, report, outcomes, slice(first, offset))
            now = report.ends[offset]
            if self.lookup is not None:
                self.lookup.retried(item, self.retries.failed(item))
            self.scheduler.retry(batch, position + offset, now + delay, now)
            first = offset + 1
        self._complete_part(batch, position, report, outcomes, slice(first, len(outcomes)))
        if failed and self.map_tasks.terms:
            self.map_tasks.note_failures(
                {self.node_of[item] for _, item, _ in report.failures if item in self.failures}
            )
        return failed

    def _complete_part(
        self, batch: Batch, position: int, report: BatchReport, outcomes: bytearray, part: slice
    ) -> None:
        if part.start < part.stop:
            start = report.ends[part.start - 1] if part.start else report.start
            outcome = bytes(outcomes[part])
            self._end(batch, position + part.start, start, report.ends[part], outcome)

    def _end(self, batch: Batch, position: int, start: float, ends: Sequence[float], outcomes: bytes | None) -> None:
        if self.lookup is not None:  # first: who hears of an end, in another thread, may rely on its being written
            self.lookup.ended(batch, position, len(ends), outcomes)
        if self.events is not None:
            self.events.ended(batch, position, start, ends, outcomes)
        self.scheduler.complete(batch, position, start, ends, outcomes)

    def _failure(self, item: int, error: BaseException, now: float) -> tuple[int, BaseException]:
        """Return the state of an item that failed, and the exception that is the reason; tell its circuit."""
        outcome, reason = FAILED, error
        if isinstance(error, StepExpired):
            outcome, reason = TIMED_OUT, StepTimeoutError(self.item_name(item), error.limit)
        if self.circuits is not None:
            self.circuits.record(item, reason, now)
        return outcome, reason

    @cached_property
    def time_limits(self) -> TimeLimits | None:
        """The time limits of the steps; `None` where no step has one."""
        if not self.plan.has_timeouts and not self.plan.is_dynamic and self.default_timeout == math.inf:
            return None
        forms = self.plan.forms
        options = (form.options for form in set(forms))
        return TimeLimits(options, lambda item: forms[self.node_of[item]].options, self.default_timeout)

    def check_progress(self) -> bool:
        """Give items to the steps whose length is due; raise an error if no event can come any more.

        Executors call it before they wait: otherwise such a run would never end.

        Returns:
            True if there was such a step, so that steps may be ready now.

        Raises:
            ExecutorError: If the run is not finished, and no step is running, ready or waiting for a retry.
        """
        before = self.expansion.answered
        if self.layout.waiting and self.expansion.go_on(waits=False) and self.fail_fast:
            self.cancel()
        if self.expansion.is_stalled():
            raise ExecutorError(
                f"internal error: the run of pipeline {self.plan.name!r} cannot finish: nothing is running or ready, "
                f"and these steps would wait for ever: {join_names(self.waiting_steps())}; please report this"
            )
        return self.expansion.answered != before

    def waiting_steps(self) -> list[str]:
        """Return the names of the waiting steps."""
        waiting = CODES[StepState.WAITING]
        return [name for node, name in enumerate(self.plan.names) if self.scheduler.node_state(node) == waiting]

    def cancel(self) -> None:
        """Start nothing new: what is not running is cancelled."""
        self.scheduler.cancel(time.monotonic())

    def item_name(self, item: int) -> str:
        """Return the name of an item's step, with the index in a mapped step."""
        return self.plan.item_name(*self.layout.place_of(item))

    def result(self) -> PipelineResult:
        """Return what came of the run."""
        self.ended = time.monotonic()
        # What is called back from here on would hold the run in a cycle, and with it large values.
        self.subgraphs.listeners.clear()
        if self.events is None:  # else hooks may still look at what steps were given
            self.values.is_whole = always
        if self.final_resume_summary is not None:
            self.resume_summary, self.final_resume_summary = self.final_resume_summary(), None
        return PipelineResult(self)

    def dry_run_result(self) -> PipelineResult:
        """Return the result of running nothing: every step waits."""
        self.dry = True
        return PipelineResult(self)

    def partial_result(self) -> PipelineResult:
        """Return what came of a run that was interrupted; threads that are still in a step no longer reach it."""
        self.interrupted = True
        self.cancel()
        self.expansion.end()
        self.scheduler.close()  # so nothing need be copied: that takes long for millions of steps
        result = self.result()
        self.failures = {}
        return result

    def add_steps(self, nodes: Iterable[int], forms: Mapping[int, StepSpec]) -> None:
        """Be ready for steps that come during the run; `forms` are those of them that have options."""
        self.plan.special.update(forms)
        if self.map_tasks.extend(self.plan, nodes) and not self.single_item_batches:
            self.claim, self.single_item_batches = self._claiming(self.claim), True
        self.values.tasks = self.map_tasks.values
        options = [form.options for form in forms.values()]
        if self.time_limits is not None:
            self.time_limits.extend(options)
        breakers = [form for form in forms.values() if form.options.circuit_breaker]
        if breakers and self.circuits is None:
            self.circuits, self.single_item_batches = self._new_circuits(), True
        elif breakers and self.circuits is not None:
            self.circuits.extend(breakers)

    def remove_steps(self, nodes: Iterable[int]) -> None:
        """Forget such steps again: they were refused, and others will have their numbers."""
        self.map_tasks.forget(nodes)
        self.values.tasks = self.map_tasks.values

    def _new_circuits(self) -> CircuitBreakers:
        circuits = CircuitBreakers(self, (form for form in self.plan.special.values() if form.options.circuit_breaker))
        self.claim = circuits.claiming(self.claim)
        return circuits
