"""One run: its scheduler, values and failures, the same for every executor.

```
Plan ──▶ Run ──claim──▶ executor ──complete──▶ Run ──▶ PipelineResult
          │ scheduler: the state of each item
          │ values: the return value of each item
          │ failures: the exception of each failed item
          └ extensions: the features that this run uses, see `extension.py`
```

The run decides what a failure means and which values are kept; it does not know where steps run. What the steps of a
run do not ask for (retries, maps, dynamic steps, limits, hooks, the cache) is not constructed.
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
from flowyml.errors import ExecutorError
from flowyml.results.result import PipelineResult
from flowyml.runtime.batch_failures import FailedReport
from flowyml.runtime.calls import StepCaller
from flowyml.runtime.interrupts import InterruptHandler
from flowyml.state import CODES, STATES, StepState
from flowyml.steps.timeout import TimeLimits
from flowyml.store.serialization import ATOMS, decoded_all, decoder
from flowyml.store.value_store import ValueStore, always

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from flowyml._core import Batch, Graph
    from flowyml.caching.lookup import ResultLookup
    from flowyml.hooks import Hooks
    from flowyml.pipeline import Pipeline
    from flowyml.planning.plan import Plan
    from flowyml.results.resource_usage import ResourceUsage
    from flowyml.runtime.calls import Steps
    from flowyml.runtime.dynamic_steps import SubgraphInsertion
    from flowyml.runtime.expansion import MapExpansion, MapTaskRuns
    from flowyml.runtime.extension import Claim, RunExtension
    from flowyml.runtime.failure_policy import RetryState
    from flowyml.runtime.mutation_check import MutationCheck
    from flowyml.runtime.resource_limits import ResourceLimits
    from flowyml.steps.resources import Capacity


class BatchReport:
    """An executor's report on consecutive items of a batch.

    Args:
        start: When the first item began (monotonic seconds).
        ends: When each item ended.
        failures: `(offset in the report, item, exception)` of items that raised: `StepSkipped` if a condition did not
            hold, `StepExpired` if the item took too long, `SubgraphReturned` if it returned a pipeline.
    """

    __slots__ = ("ends", "failures", "start")

    def __init__(
        self, start: float, ends: Any, failures: Sequence[tuple[int, int, BaseException]] | None = None
    ) -> None:
        self.start = start
        self.ends = ends  # a sequence of times that may be sliced
        self.failures: Any = [] if failures is None else failures


def _is_successful(scheduler: Scheduler) -> Callable[[int], bool]:
    """Return a function that says whether an ended step counts as a success; without a reference to the run."""
    return lambda node: STATES[scheduler.node_state(node)].has_value


class Run:
    """One run of a plan.

    Args:
        plan: The steps.
        order: Which ready step goes first; see `Executor.order`.
        keep: Which values stay; see `Pipeline.run`.
        fail_fast: Start nothing new after the first failure.
        run_id: Name of the run; random by default.
        seed: Seeds the random generators of each step; see `random_seeds.py`.
        capacity: What the executor has for steps to take; `None`: it runs one step at a time.
        graph: The graph of the plan with other priorities; see `Executor.prioritized_graph`.
        watch: Reports steps that change their arguments.
        max_batch_size: The most items in one batch; `None`: the executor decides.

    Attributes:
        claim: Takes up to `limit` ready items for a worker, as `Scheduler.claim` does, through all extensions.
        extensions: The features that this run uses, in the order of `RunExtension.rank`.
        lookup: The extension for cache and journal; `None` if the run has neither.
        retries: Attempts of items; `None` if no step has options.
        map_tasks: The map tasks; `None` if there is none and none can come.
        expansion: Items of mapped steps; `None` if there is none and none can come.
        subgraphs: Inserts steps that dynamic steps return; `None` if no step is dynamic.
        resource_limits: What steps may take together; `None` if no step takes anything.
        map_inputs: The items of each mapped step.
        expansion_errors: Why mapped steps failed before they had items.
        fallback_errors: By item, the exception that made the run call the step's fallback.
        resume_summary: Which results of an earlier attempt are reused and what runs again; `None` if there was none.
        final_resume_summary: Returns the same at the end of the run, when all of it is known; `None` if there was none.
        reports_early: Items are reported soon after they end, not at the end of their batch.
        checkpoint_dir: Where steps save their state, see `PipelineCheckpoint`; "" for a run of no pipeline.
        forced_steps: Steps that run again although an earlier attempt has finished them.
        keeps_serialized: Values are kept as workers sent them.
        captures_output: The output of steps is kept for `StepResult.logs`.
        default_timeout: The seconds that a step without a `timeout` of its own may take; set by the executor.
    """

    extensions: Sequence[RunExtension] = ()
    lookup: ResultLookup | None = None
    retries: RetryState | None = None
    map_tasks: MapTaskRuns | None = None
    expansion: MapExpansion | None = None
    subgraphs: SubgraphInsertion | None = None
    resource_limits: ResourceLimits | None = None
    resume_summary: str | None = None
    final_resume_summary: Callable[[], str | None] | None = None
    interrupted = dry = reports_early = keeps_serialized = captures_output = False
    default_timeout = math.inf
    checkpoint_dir = ""
    forced_steps: frozenset[int] = frozenset()

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
        mask = _keep_mask(plan, keep)
        self.plan = plan
        self.fail_fast = fail_fast
        self.run_id = run_id or os.urandom(6).hex()
        self.seed, self.max_batch_size = seed, sys.maxsize if max_batch_size is None else max_batch_size
        self.item_index = plan.item_index.of_run(grows=plan.is_dynamic)
        self.values = ValueStore(self.item_index)
        self.failures: dict[int, BaseException] = {}
        self.fallback_errors: dict[int, BaseException] = {}
        self.expansion_errors: dict[int, BaseException] = {}
        self.map_inputs: dict[int, Sequence[Any]] = {}
        self.interrupts = InterruptHandler()
        limits = self._limits(capacity)
        self.scheduler = Scheduler(graph or plan.graph, order=order, keep=mask, **limits)
        self.releases = mask is not None
        self.node_of = self.item_index.node_of()
        self.claim: Claim = self.scheduler.claim
        self.values.is_whole = _is_successful(self.scheduler)
        self._watch = watch
        self._attach_features()
        self._expand()
        self.started_at = datetime.now(UTC)
        self.started = self.ended = time.monotonic()

    # -- features

    @property
    def _has_features(self) -> bool:
        return bool(self.plan.specs_with_options or self.plan.is_dynamic or self.item_index.mapped)

    def _limits(self, capacity: Capacity | None) -> dict[str, Any]:
        """Return the arguments of the scheduler for what steps may take together."""
        if not self._has_features:
            return {}
        from flowyml.runtime.features import limit_resources

        return limit_resources(self, capacity)

    def _attach_features(self) -> None:
        if self._has_features:
            from flowyml.runtime.features import attach_features

            attach_features(self)

    def attach(self, extension: RunExtension) -> None:
        """Let a feature take part in the run, at its place among the others."""
        self.extensions = sorted([*self.extensions, extension], key=lambda each: each.rank)
        self.refresh_extensions()

    def refresh_extensions(self) -> None:
        """Wrap the claim again, and look up map tasks, after extensions have changed."""
        if self.map_tasks is not None:
            self.values.tasks = self.map_tasks.values
        claim: Claim = self.scheduler.claim
        for extension in self.extensions:
            claim = extension.wrap_claim(claim)
        self.claim = claim

    def attach_hooks(self, pipeline: Pipeline, hooks: Hooks | None) -> None:
        """Call hooks in this run of a pipeline: those that are given, and those of all pipelines."""
        everywhere = getattr(sys.modules.get("flowyml.hooks"), "everywhere", None)  # not imported: it has no hooks
        may_notify = self.plan.specs_with_options or self.plan.is_dynamic  # `on_failure=`
        if may_notify or (hooks is not None and hooks.any) or (everywhere is not None and everywhere.any):
            from flowyml.runtime.events import EventQueue

            events = EventQueue(self, pipeline, hooks)
            if events:
                self.attach(events)

    def attach_lookup(self, lookup: ResultLookup) -> None:
        """Take results from the cache and the journal, and store new ones there."""
        self.lookup, self.reports_early = lookup, True
        self.attach(lookup)

    @property
    def can_report_directly(self) -> bool:
        """Whether workers may report successes to the scheduler without calling the run."""
        early = self.reports_early and self.lookup is None
        if early or self.releases or self.item_index.waiting or self.item_index.grows:
            return False
        if not self.extensions:
            return True
        return self.claim == self.scheduler.claim and all(each.allows_direct_reports for each in self.extensions)

    @property
    def single_item_batches(self) -> bool:
        """Whether items are claimed one at a time, so that a worker gets its next item when it has ended the last."""
        return any(extension.claims_single_items for extension in self.extensions)

    @property
    def atoms(self) -> frozenset[type] | None:
        """The types whose values no step can change, if other values must be written before the next step begins."""
        return ATOMS if self.lookup is not None and self.lookup.allows_direct_reports else None

    def deliver_events(self) -> None:
        """Call hooks; in the thread that waits for the run."""
        for extension in self.extensions:
            extension.deliver()

    def poll_interval(self, most: float) -> float:
        """Return how long, up to `most` seconds, the waiting thread may wait before it delivers events."""
        return min(most, *(extension.poll_seconds for extension in self.extensions)) if self.extensions else most

    def flush_journal(self) -> None:
        """Write what workers of this process have reported to the scheduler."""
        if self.lookup is not None:
            self.lookup.write()

    # -- calls

    @cached_property
    def calls(self) -> StepCaller:
        """How steps are called in this process."""
        return StepCaller(
            *(self.plan, self.item_index, self.node_of, self.values),
            tables=self.map_inputs,
            fallen=self.fallback_errors,
            seed=self.seed,
            watch=self._watch,
        )

    @property
    def has_fallbacks(self) -> bool:
        """Whether steps have fallbacks, or may come that have."""
        return self.plan.is_dynamic or any(spec.options.fallback for spec in self.plan.specs_with_options.values())

    @cached_property
    def call(self) -> Callable[[int], Any]:
        """Calls the step of an item in this process and returns its value."""
        return self.calls.caller(fallbacks=self.has_fallbacks)

    @cached_property
    def steps(self) -> Steps:
        """What the core needs to do the same: see `rust/python/turn/steps.rs`."""
        return self.calls.for_core(self.call, fallbacks=self.has_fallbacks)

    @cached_property
    def usage(self) -> ResourceUsage:
        """CPU seconds, memory and output of steps; constructed when the first is measured."""
        from flowyml.results.resource_usage import ResourceUsage

        return ResourceUsage(captures=self.captures_output)

    def measured_usage(self) -> ResourceUsage | None:
        """Return `usage` if something was measured."""
        return vars(self).get("usage")

    @cached_property
    def time_limits(self) -> TimeLimits | None:
        """The time limits of the steps; `None` if no step has one."""
        if not self.plan.has_timeouts and not self.plan.is_dynamic and self.default_timeout == math.inf:
            return None
        specs = self.plan.specs
        options = (spec.options for spec in set(specs))
        return TimeLimits(options, lambda item: specs[self.node_of[item]].options, self.default_timeout)

    @property
    def device_names(self) -> tuple[str, ...]:
        """The devices that steps of this run share out; none if no step takes one."""
        return () if self.resource_limits is None else self.resource_limits.devices.names

    def share_devices(self) -> None:
        """Note that all steps run in this process."""
        if self.resource_limits is not None:
            self.resource_limits.devices.share()

    def max_useful_workers(self, workers: int) -> int:
        """Return how many of so many workers can have something to do."""
        return (
            workers
            if self.item_index.waiting or self.item_index.grows
            else max(1, min(workers, self.item_index.item_count))
        )

    def item_name(self, item: int) -> str:
        """Return the name of an item's step, with the index in a mapped step."""
        return self.plan.item_name(*self.item_index.place_of(item))

    def attempt_of(self, item: int) -> int:
        """Return which attempt of an item is running, or would be the next: 1 is the first."""
        return 1 if self.retries is None else self.retries.current(item)

    # -- values

    def keep_values_serialized(self) -> None:
        """Keep values as worker processes send them; those that are known already are encoded."""
        if not self.keeps_serialized:
            self.keeps_serialized = True
            given = self.plan.given_steps()
            if given:
                from flowyml.runtime.features import encode_given

                encode_given(self, given)
            self.values.decode = decoder(self.plan, self.item_index)
            self.values.decode_all = decoded_all
            if self.lookup is not None:
                self.lookup.encode()

    # -- reports

    def complete(self, batch: Batch, position: int, report: BatchReport) -> int:
        """Take the report on the items of a batch from `position` on; return how many failed permanently."""
        failed = 0
        if report.failures:
            failed = FailedReport(self, batch, position, report).complete()
        else:
            self.end_items(batch, position, report.start, report.ends, None)
        if not (failed and self.fail_fast):
            failed += self._expand()
        self._settle(failed)
        return failed

    def complete_from_cache(self, batch: Batch, position: int, states: bytes) -> None:
        """End items of a batch in these states without running them."""
        now = time.monotonic()
        self.end_items(batch, position, now, [now] * len(states), states)
        self._settle(self._expand())

    def _settle(self, failed: int) -> None:
        if failed and self.fail_fast:
            self.cancel()
        if self.releases:
            self.values.drop(self.scheduler.take_released())

    def _expand(self, *, waits: bool = True) -> int:
        """Give items to the steps whose lengths are known by now; return how many steps failed."""
        return self.expansion.expand_ready(waits=waits) if self.item_index.waiting and self.expansion is not None else 0

    def end_items(
        self, batch: Batch, position: int, start: float, ends: Sequence[float], outcomes: bytes | None
    ) -> None:
        """End items of a batch in these states; `None`: all have succeeded."""
        if self.extensions:
            self._notify_finished(batch, position, start, ends, outcomes)
        self.scheduler.complete(batch, position, start, ends, outcomes)

    def _notify_finished(self, *items: Any) -> None:
        from flowyml.runtime.extension import FinishedItems

        finished = FinishedItems(*items)
        for extension in self.extensions:
            extension.on_items_finished(finished)

    def on_plan_change(self, listener: Callable[[list[int]], None]) -> None:
        """Call a function with the numbers of steps that come or change during the run, before they may begin."""
        if self.subgraphs is not None:
            self.subgraphs.listeners.append(listener)

    # -- progress and end

    @property
    def finished(self) -> bool:
        """Whether no step is left to run and none is running."""
        return self.scheduler.finished

    def check_progress(self) -> bool:
        """Give items to the steps whose length is due; raise an error if no event can come any more.

        Executors call it before they wait: otherwise such a run would never end.

        Returns:
            True if there was such a step, so that steps may be ready now.

        Raises:
            ExecutorError: If the run is not finished, and no step is running, ready or waiting for a retry.
        """
        expansion = self.expansion
        before = 0 if expansion is None else expansion.answered
        if self._expand(waits=False) and self.fail_fast:
            self.cancel()
        if self.scheduler.stalled if expansion is None else expansion.is_stalled():
            raise ExecutorError(
                f"internal error: the run of pipeline {self.plan.name!r} cannot finish: nothing is running or ready, "
                f"and these steps would wait for ever: {join_names(self.waiting_steps())}; please report this"
            )
        return expansion is not None and expansion.answered != before

    def waiting_steps(self) -> list[str]:
        """Return the names of the waiting steps."""
        waiting = CODES[StepState.WAITING]
        return [name for node, name in enumerate(self.plan.names) if self.scheduler.node_state(node) == waiting]

    def cancel(self) -> None:
        """Start nothing new: what is not running is cancelled."""
        self.scheduler.cancel(time.monotonic())

    def result(self) -> PipelineResult:
        """Return the result of the run, which has ended."""
        self.ended = time.monotonic()
        # What is called back from here on would hold the run in a cycle, and with it large values.
        if self.subgraphs is not None:
            self.subgraphs.listeners.clear()
        if not any(extension.reads_inputs_at_end for extension in self.extensions):
            self.values.is_whole = always
        if self.final_resume_summary is not None:
            self.resume_summary, self.final_resume_summary = self.final_resume_summary(), None
        return PipelineResult(self)

    def dry_run_result(self) -> PipelineResult:
        """Return the result of a dry run: every step waits."""
        self.dry = True
        return PipelineResult(self)

    def partial_result(self) -> PipelineResult:
        """Return the result of a run that was interrupted; threads that are still in a step no longer reach it."""
        self.interrupted = True
        self.cancel()
        if self.expansion is not None:
            self.expansion.close()
        self.scheduler.close()  # so nothing need be copied: that takes long for millions of steps
        result = self.result()
        self.failures = {}
        return result


def _keep_mask(plan: Plan, keep: Any) -> bytes | None:
    if isinstance(keep, str) and keep == "all":
        return None
    from flowyml.runtime.retention import keep_mask

    return keep_mask(plan, keep)
