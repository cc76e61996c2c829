"""A report with failures: which items end, which are tried again, and which have returned further steps.

```
report ──▶ parts that end together ──▶ Run.end_items
       ├─▶ another attempt, or the fallback ──▶ Scheduler.retry
       └─▶ a pipeline ──▶ SubgraphInsertion.insert
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.diagnostics.tracebacks import hide_internal_frames
from flowyml.errors import StepTimeoutError
from flowyml.state import FAILED, SKIPPED, SUCCESS, TIMED_OUT
from flowyml.steps.dynamic import SubgraphReturned, unmarked_dynamic_error
from flowyml.steps.outcomes import StepSkipped
from flowyml.steps.timeout import StepExpired

if TYPE_CHECKING:
    from flowyml._core import Batch
    from flowyml.runtime.run import BatchReport, Run


class FailedReport:
    """A report in which some items failed, or did not simply succeed.

    Args:
        run: The run.
        batch: The batch.
        position: The position of the first reported item in the batch.
        report: The report.
    """

    def __init__(self, run: Run, batch: Batch, position: int, report: BatchReport) -> None:
        self._run, self._batch, self._position, self._report = run, batch, position, report
        self._outcomes = bytearray([SUCCESS]) * len(report.ends)
        self._first = 0  # the first item that has neither ended nor been put back

    def complete(self) -> int:
        """Let the run take the report; return how many items failed permanently."""
        failed = [item for offset, item, error in self._report.failures if self._has_failed(offset, item, error)]
        self._end_before(len(self._outcomes))
        for extension in self._run.extensions if failed else ():
            extension.on_items_failed(failed)
        return len(failed)

    def _has_failed(self, offset: int, item: int, error: BaseException) -> bool:
        """Handle one failure; return True if it is permanent."""
        run, now = self._run, self._report.ends[offset]
        if isinstance(error, SubgraphReturned):
            refusal = self._insert_subgraph(offset, item, error)
            if refusal is None:
                return False
            error = refusal
        if isinstance(error, StepSkipped):
            self._outcomes[offset] = SKIPPED
            self._notify(item, error, now)
            return False
        outcome, reason = FAILED, error
        if isinstance(error, StepExpired):
            outcome, reason = TIMED_OUT, StepTimeoutError(run.item_name(item), error.limit)
        self._notify(item, reason, now)
        delay = None if run.retries is None else run.retries.delay(item, reason)
        if delay is not None:
            self._retry(offset, item, delay)
            return False
        self._outcomes[offset] = outcome
        hide_internal_frames(reason)
        run.failures[item] = reason
        return True

    def _notify(self, item: int, error: BaseException, now: float) -> None:
        for extension in self._run.extensions:
            extension.on_attempt_failed(item, error, now)

    def _insert_subgraph(self, offset: int, item: int, returned: SubgraphReturned) -> BaseException | None:
        """Insert the steps that an item has returned; return why the item fails, if it does."""
        run, now = self._run, self._report.ends[offset]
        self._end_before(offset)
        if run.subgraphs is None:
            return unmarked_dynamic_error(run.item_name(item), returned.pipeline)
        position = self._position + offset
        refusal = run.subgraphs.insert(run, self._batch, position, item, returned.pipeline, now=now)
        if refusal is None:
            self._first = offset + 1
            self._notify(item, returned, now)
        return refusal

    def _retry(self, offset: int, item: int, delay: float) -> None:
        run, now = self._run, self._report.ends[offset]
        assert run.retries is not None  # noqa: S101  it has returned the delay
        self._end_before(offset)
        for extension in run.extensions:
            extension.on_retry(item, run.retries.failed(item))
        run.scheduler.retry(self._batch, self._position + offset, now + delay, now)
        self._first = offset + 1

    def _end_before(self, offset: int) -> None:
        """End the items before an offset that have not ended yet."""
        first, self._first = self._first, offset
        if first < offset:
            ends, start = self._report.ends, self._report.ends[first - 1] if first else self._report.start
            states = bytes(self._outcomes[first:offset])
            self._run.end_items(self._batch, self._position + first, start, ends[first:offset], states)
