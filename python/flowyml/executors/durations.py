"""What steps took when they last ran on an executor: the next run begins with what has the most time behind it.

```
run ──note──▶ seconds by step name, of the last run of each pipeline ──prioritized_graph──▶ graph, ranks by time
```

The first run knows how many steps stand behind each other, not how long they take. Kept in memory, with the executor,
and only where it can matter: for pipelines of ordinary steps that take a millisecond each, in the mean, or longer; all
others pay a comparison. What may run does not depend on it. It knows nothing of workers.
"""

from __future__ import annotations

import time
from array import array
from typing import TYPE_CHECKING

from flowyml.state import CODES, StepState

if TYPE_CHECKING:
    from flowyml._core import Graph
    from flowyml.planning.plan import Plan
    from flowyml.runtime.run import Run

# Steps whose seconds are kept for one pipeline, and pipelines.
_MOST_STEPS = 20_000
_MOST_PIPELINES = 16
# Mean seconds of a step from which on the order may be worth the bookkeeping.
_LONG = 0.001
_SUCCESS = CODES[StepState.SUCCESS]


class StepDurations:
    """The seconds of steps, by pipeline and name."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[str, float]] = {}

    def prioritized_graph(self, plan: Plan) -> Graph:
        """Return the graph of a plan, with ranks by time as far as it is known; others count as the mean."""
        known = self._seconds.get(plan.name)
        if not known or not _fits(plan):
            return plan.graph
        mean = sum(known.values()) / len(known)
        return plan.graph.weighted(array("d", [known.get(name, mean) for name in plan.names]))

    def note(self, run: Run) -> None:
        """Remember what the steps of a run took that has just ended."""
        plan = run.plan
        if time.monotonic() - run.started < _LONG * len(plan.names) or not _fits(plan):
            return
        scheduler = run.scheduler
        starts, ends = memoryview(scheduler.starts()).cast("d"), memoryview(scheduler.ends()).cast("d")
        each = zip(plan.names, scheduler.states(), starts, ends, strict=True)
        self._seconds.pop(plan.name, None)
        self._seconds[plan.name] = {name: end - start for name, state, start, end in each if state == _SUCCESS}
        while len(self._seconds) > _MOST_PIPELINES:
            del self._seconds[next(iter(self._seconds))]


def _fits(plan: Plan) -> bool:
    """Tell whether all steps are ordinary ones, more than one and not too many, that stay what they are."""
    return plan.layout.is_plain and not plan.is_dynamic and 1 < len(plan.names) <= _MOST_STEPS
