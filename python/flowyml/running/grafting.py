"""Grafting: what a dynamic step has returned becomes part of the run.

```
run ──Returned──▶ Grafting ──▶ growth.py: the plan gets the new steps
                     ├──▶ layout, values, tables, functions of workers: room for them
                     └──▶ scheduler: they may run; the dynamic step waits for them and runs again
```

Any thread may come; one at a time changes what all share. Room is made first: once the scheduler knows the new steps,
other threads may run them. If something is wrong nothing has changed, and the dynamic step fails with the reason.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from flowyml.errors import GraphError, PipelineValidationError
from flowyml.messages.words import listed
from flowyml.planning.layout import UNKNOWN
from flowyml.running.growth import Grown
from flowyml.steps.dynamic import unmarked
from flowyml.store.values import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml._core import Batch
    from flowyml.planning.plan import Plan
    from flowyml.planning.sub_pipelines import Holder
    from flowyml.running.run import Run

# Whatever a pipeline does when it is looked at is the step's failure.
_TROUBLE = (Exception, SystemExit, GeneratorExit)


class Grafting:
    """Lets one run grow; it does not hold the run, which holds it: what large values belong to must be in no cycle.

    Args:
        plan: The plan of the run; from now on the run's own, if it may grow.

    Attributes:
        listeners: Called with the numbers of the steps that are new or called in another way, before they may run;
            what they raise is the dynamic step's failure. They are let go of with the end of the run.
    """

    def __init__(self, plan: Plan) -> None:
        self.listeners: list[Callable[[list[int]], None]] = []
        self._came: list[tuple[int, float]] = []  # the first step of each pipeline, and when it was returned
        if plan.is_dynamic:
            plan.begin_to_grow()

    def came_at(self, node: int) -> float:
        """Return when the dynamic step ended that brought a step (monotonic seconds); 0 if none did."""
        at = bisect_right(self._came, (node, math.inf))
        return self._came[at - 1][1] if at else 0.0

    def graft(
        self, run: Run, batch: Batch, position: int, item: int, pipeline: Holder, *, now: float
    ) -> BaseException | None:
        """Expand what the item at a position of a batch has returned; return why the step fails, if it does."""
        node = run.node_of[item]
        if not run.plan.forms[node].options.dynamic:
            return unmarked(run.item_name(item), pipeline)
        try:
            with run.expansion.growing() as goes_on:
                if goes_on:
                    self._graft(run, batch, position, node, pipeline, now=now)
        except _TROUBLE as error:
            return error
        if run.circuits is not None:
            run.circuits.skipped(item)  # it has called nothing yet that could have failed
        return None

    def _graft(self, run: Run, batch: Batch, position: int, node: int, pipeline: Holder, *, now: float) -> None:
        grown = Grown(run.plan, run.layout, node, pipeline)
        items = len(run.values.raw)
        try:
            _make_room(run, grown)
            for listener in self.listeners:
                listener([*grown.steps, node])
            run.adopt(grown.steps, grown.special)
            self._came.append((grown.steps.start, now))
            _tell_scheduler(run, batch, position, grown, now)
        except BaseException:
            grown.undo()
            node_of: Any = run.node_of
            del run.values.raw[items:], node_of[items:]
            for each in grown.steps:
                run.tables.pop(each, None)
            run.forget(grown.steps)
            self._came = [each for each in self._came if each[0] < grown.steps.start]
            raise


def _make_room(run: Run, grown: Grown) -> None:
    node_of: Any = run.node_of  # a list, where a run may grow
    for node, count in zip(grown.steps, grown.counts, strict=True):
        if count != UNKNOWN:
            node_of.extend([node] * count)
    run.values.raw.extend([MISSING] * (run.layout.item_count - len(run.values.raw)))
    run.expansion.enter(grown.steps, grown.groups())


def _tell_scheduler(run: Run, batch: Batch, position: int, grown: Grown, now: float) -> None:
    edges = grown.edges
    keep = grown.keep_mask() if run.releases else None
    found: list[tuple[int, str]] = []
    new: Any = (grown.counts, edges.dependents, edges.dependencies, edges.kinds(), grown.joins, grown.awaited)
    with run.sharing.growing():
        limits = run.sharing.limits_of(grown.forms, found, special=bool(grown.special), first=grown.steps.start)
        grown.refuse((grown.steps[at], problem) for at, problem in found)
        try:
            run.scheduler.graft(batch, position, now, *new, keep=keep, **limits)
        except GraphError as error:
            grown.refuse_graph(error.problems)
        except ValueError as error:
            raise PipelineValidationError([_gone(run, grown)], grown.name) from error


def _gone(run: Run, grown: Grown) -> str:
    """Say which values the new steps read that are there no more."""
    read = [node for node in grown.reads() if node < grown.steps.start]
    dropped = [node for node in read if not run.values.dropped.isdisjoint(run.layout.items_of(node))]
    names = listed([run.plan.names[node] for node in dropped or read])
    return f"what {names} produced is gone: keep= let it go after its last reader; name it there, or read it before"
