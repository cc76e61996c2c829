"""RunExtension: how a feature takes part in the runs that use it.

```
claim   ◀── wrap_claim ── events ◀── breakers ◀── map tasks ◀── cache and journal ◀── Scheduler.claim
report  ──▶ on_attempt_failed, on_retry, on_items_finished, on_items_failed, in the opposite order
```

A run has a list of the extensions that its steps, its pipeline or its hooks ask for, in this order; the list of a plain
run is empty, and workers then report to the scheduler without calling the run. Each method does nothing unless an
extension overrides it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from flowyml._core import Batch
    from flowyml.results.result import PipelineResult

    Claim: TypeAlias = Callable[..., Batch | None]
    """Takes `(worker, limit, now, timeout=0.0)` and returns up to `limit` ready items, as `Scheduler.claim` does."""

# The order in which extensions wrap the claim and receive reports. Cache and journal come first: an item that they have
# must not be counted by a breaker or announced by a hook, and a hook may rely on what the journal has written.
LOOKUP, MAP_TASKS, BREAKERS, EVENTS = range(4)


class FinishedItems(NamedTuple):
    """Consecutive items of a batch that have ended.

    Attributes:
        batch: The batch.
        position: The position of the first of them in the batch.
        start: When the first of them began (monotonic seconds).
        ends: When each of them ended.
        states: The state of each of them; `None`: all have succeeded.
    """

    batch: Batch
    position: int
    start: float
    ends: Sequence[float]
    states: bytes | None

    def items(self) -> list[int]:
        """Return the items."""
        return self.batch.items()[self.position : self.position + len(self.ends)]


class RunExtension:
    """A feature of one run.

    Attributes:
        rank: The place in the order of extensions.
        allows_direct_reports: Workers may report successes to the scheduler without calling the run.
        claims_single_items: Items are claimed one at a time, immediately before they begin.
        needs_durable_ends: The end of an item must be in the journal before the extension receives it.
        reads_inputs_at_end: Inputs of steps are read after the last step has ended.
        poll_seconds: The waiting thread calls `deliver` at least this often.
    """

    rank: int
    allows_direct_reports: bool = False
    claims_single_items: bool = False
    needs_durable_ends: bool = False
    reads_inputs_at_end: bool = False
    poll_seconds: float = math.inf

    def wrap_claim(self, claim: Claim) -> Claim:
        """Return a function that claims as `claim` does, with what the feature adds."""
        return claim

    def on_run_started(self) -> None:
        """Called before the executor."""

    def deliver(self) -> None:
        """Called in the thread that waits for the run, between its other work."""

    def on_attempt_failed(self, item: int, error: BaseException, now: float) -> None:
        """Called when an attempt has ended with an exception; also `StepSkipped` and `SubgraphReturned`."""

    def on_retry(self, item: int, attempts: int) -> None:
        """Called when an item is tried again, after so many failed attempts."""

    def on_items_finished(self, finished: FinishedItems) -> None:
        """Called when items of a batch have ended, before their dependents can begin."""

    def on_items_failed(self, items: Sequence[int]) -> None:
        """Called when items have failed and the scheduler has taken the report."""

    def on_steps_added(self, nodes: range) -> None:
        """Called before steps that a dynamic step returned may begin."""

    def on_steps_removed(self, nodes: range) -> None:
        """Called when such steps were refused: other steps may get their numbers."""

    def on_run_finished(self, result: PipelineResult, *, interrupted: bool = False) -> None:
        """Called with the result, which is partial if the run was interrupted."""

    def close(self, result: PipelineResult | None) -> None:
        """Called at the end in any case; without a result if the run did not reach its end."""
