"""Retries, fallbacks and circuit breakers: what follows a failure.

```
failure ──▶ another attempt after a delay ──▶ the fallback, immediately ──▶ permanent failure

claim   ──▶ the next ready items, cut so that they have the same breaker ──▶ no breaker, or admitted: to the worker
                                                                         └─▶ refused: failed, then the next items
report  ──▶ Circuit (steps/circuit_breaker.py): closed, open, half open
```

Everything happens in the driver, for every executor. Steps with a breaker are claimed one at a time and no earlier than
they begin, so none begins once the circuit is open; other steps are claimed in batches. Attempts are counted only for
steps with `retry=`. The module knows neither executors nor the effects of a permanent failure.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from flowyml.errors import CircuitOpenError
from flowyml.results.error_text import error_line
from flowyml.runtime.extension import BREAKERS, RunExtension
from flowyml.runtime.run import BatchReport
from flowyml.state import SUCCESS
from flowyml.steps.circuit_breaker import Circuit
from flowyml.steps.dynamic import SubgraphReturned
from flowyml.steps.outcomes import StepSkipped

if TYPE_CHECKING:
    import random
    from collections.abc import Container, Iterable, Sequence

    from flowyml._core import Batch, Scheduler
    from flowyml.planning.item_index import ItemIndex
    from flowyml.planning.plan import Plan
    from flowyml.planning.step_spec import StepSpec
    from flowyml.runtime.extension import Claim, FinishedItems
    from flowyml.runtime.run import Run


class CircuitBreakers(RunExtension):
    """The circuits of one run, one for each breaker.

    Args:
        run: The run.
        specs: Specs of steps, some of which have a breaker.
    """

    rank = BREAKERS
    claims_single_items = True

    def __init__(self, run: Run, specs: Iterable[StepSpec]) -> None:
        self._run = run
        self._circuits: dict[int, Circuit] = {}
        self._of_form: dict[int, Circuit] = {}
        self._add(specs)
        # How many items are worth claiming at once: the items that are cut off go back.
        self._reach = 1

    def on_steps_added(self, nodes: range) -> None:
        """Construct circuits for those that have breakers."""
        self._add(self._run.plan.specs[node] for node in nodes)

    def _add(self, specs: Iterable[StepSpec]) -> None:
        for spec in specs:
            breaker: Any = spec.options.circuit_breaker
            if not breaker:
                continue
            circuit = self._circuits.setdefault(id(breaker), Circuit(breaker, breaker.name or spec.step.name))
            self._of_form[id(spec)] = circuit

    def of(self, item: int) -> Circuit | None:
        """Return the circuit that an item is under; a fallback is under none."""
        run = self._run
        circuit = self._of_form.get(id(run.plan.specs[run.item_index.node_at(item)]))
        return None if circuit is None or item in run.fallback_errors else circuit

    def wrap_claim(self, claim: Claim) -> Claim:
        """Return a function that reports the items that are refused, and returns those that may begin."""

        def careful(worker: int, limit: int, now: float, timeout: float = 0.0) -> Batch | None:
            while (batch := claim(worker, min(limit, self._reach), now, timeout)) is not None:
                items = batch.items()
                count = self._alike(items, now)
                self._reach = max(1, 2 * count)
                if count < len(items):
                    self._run.scheduler.give_back(batch, 0, len(items))
                    limit = count
                    continue
                circuit = self.of(items[0])
                refusal = None if circuit is None else circuit.admit(items[0], now)
                if refusal is None:
                    return batch
                self._refuse(batch, items, refusal, now)
            return None

        return careful

    def _refuse(self, batch: Batch, items: list[int], refusal: CircuitOpenError, now: float) -> None:
        run = self._run
        assert run.retries is not None  # noqa: S101  a step with a breaker has options
        run.retries.refused.update(items)
        failures = [(offset, item, refusal) for offset, item in enumerate(items)]
        run.complete(batch, 0, BatchReport(now, [now] * len(items), failures))

    def _alike(self, items: list[int], now: float) -> int:
        """Return how many of the first items may go together: all without a circuit, all that one refuses, or one."""
        circuit = self.of(items[0])
        if circuit is not None and not circuit.refuses(items[0], now):
            return 1
        return next((k for k, item in enumerate(items) if self.of(item) is not circuit), len(items))

    def on_items_finished(self, finished: FinishedItems) -> None:
        """Record the success of a step with a breaker; such steps are claimed alone."""
        if len(finished.batch) == 1 and (finished.states is None or finished.states[0] == SUCCESS):
            (item,) = finished.items()
            circuit = self.of(item)
            if circuit is not None:
                circuit.record(item, None, finished.ends[0])

    def on_attempt_failed(self, item: int, error: BaseException, now: float) -> None:
        """Record the failure of a step with a breaker."""
        circuit = self.of(item)
        # Neither a refusal, here or by another breaker inside the step, nor a step that called nothing says anything
        # about the service.
        if circuit is not None and isinstance(error, (CircuitOpenError, StepSkipped, SubgraphReturned)):
            circuit.release(item)
        elif circuit is not None:
            circuit.record(item, error, now)


class RetryState:
    """The attempts of all items.

    Args:
        plan: The options of the steps.
        item_index: Which items belong to which step.
        node_of: The step of each item.
        scheduler: Knows if the run is cancelled.
        seed: Makes the spread of delays reproducible.
        fallen: By item, the exception that made the run call the step's fallback.

    Attributes:
        refused: How often items have failed without having been begun: their circuit was open.
    """

    def __init__(
        self,
        plan: Plan,
        item_index: ItemIndex,
        node_of: Sequence[int],
        scheduler: Scheduler,
        seed: int | None,
        *,
        fallen: dict[int, BaseException],
    ) -> None:
        self._plan, self._item_index, self._node_of = plan, item_index, node_of
        self._scheduler, self._seed = scheduler, seed
        self._failed: dict[int, int] = {}
        self.refused: Counter[int] = Counter()
        self.fallen = fallen

    def delay(self, item: int, error: BaseException) -> float | None:
        """Count a failure; return the seconds until the item, or its fallback, starts; `None` if it is permanent."""
        node = self._node_of[item]
        options = self._plan.specs[node].options
        retry, attempts = options.retry, 0
        if item in self.fallen:
            _note_fallback(error, self.fallen[item])
            return None
        if retry is not None:
            attempts = self._failed[item] = self.failed(item) + 1
        if self._scheduler.cancelled:
            return None
        if retry is not None and retry.should_retry(error, attempts):
            return retry.delay(attempts, self._jitter(item, attempts))
        if options.falls_back_on(error) and not self._plan.is_expanded(node):  # what it would be given is gone then
            self.fallen[item] = error
            return 0.0
        return None

    @property
    def some_failed(self) -> bool:
        """True if some attempt was counted as failed; before that, each item is in its first."""
        return bool(self._failed)

    def failed(self, item: int) -> int:
        """Return how many attempts of an item have failed; 0 if they are not counted."""
        return self._failed.get(item, 0)

    def current(self, item: int) -> int:
        """Return which attempt of an item is running, or would be the next: 1 is the first."""
        failed = self.failed(item) - self.refused[item]
        return max(1, failed) if item in self.fallen else failed + 1

    def made(self, item: int, failures: Container[int]) -> int:
        """Return how often an item that has ended was started, its fallback not counted.

        Args:
            item: The item.
            failures: The items that have failed for good.
        """
        failed = self.failed(item)
        ends = max(1, failed) if item in failures or item in self.fallen else failed + 1
        return ends - self.refused[item]

    def spend(self, item: int, attempts: int) -> None:
        """Count attempts that an item has made in an earlier run, which this one continues."""
        if self._plan.specs[self._node_of[item]].options.retry is not None:
            self._failed[item] = attempts

    def _jitter(self, item: int, attempt: int) -> random.Random | None:
        """Return what spreads the delay after an attempt; `None` if it need not be reproducible."""
        if self._seed is None:
            return None
        import random

        from flowyml.runtime import random_seeds

        name = self._plan.item_name(*self._item_index.place_of(item))
        return random.Random(random_seeds.derived(self._seed, name, attempt))  # noqa: S311


def _note_fallback(error: BaseException, first: BaseException) -> None:
    """Add the first exception to that of a fallback as a note, unless they are the same object."""
    if error is not first:
        error.add_note(f"raised by the fallback, which stood in for: {error_line(first)}")
