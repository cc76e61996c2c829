"""The map tasks of one run: what holds for their items together, and what they have for a value while it goes on.

The scheduler counts: it is told how many failures a step survives, and which step to end. The module does not know who
runs the items.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from flowyml.results.traceback import error_line
from flowyml.state import STATES, StepState
from flowyml.steps.tasks import NOT_RUN, MapTaskResult
from flowyml.store.encoding import decoded
from flowyml.store.values import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from flowyml._core import Scheduler
    from flowyml.planning.layout import Layout
    from flowyml.planning.plan import Plan
    from flowyml.steps.tasks import Terms
    from flowyml.store.values import Values

_BAD = tuple(state.code for state in (StepState.FAILED, StepState.TIMED_OUT, StepState.UPSTREAM_FAILED))
_FINE = {StepState.SUCCESS, StepState.CACHED, StepState.GIVEN, StepState.SKIPPED}


class TaskRuns:
    """The map tasks of one run.

    Args:
        plan: What is run.
        layout: Which items each step has.
        scheduler: Counts failures, ends steps.
        failures: What items have raised.

    Attributes:
        terms: What holds for each of them, by step.
    """

    def __init__(self, plan: Plan, layout: Layout, scheduler: Scheduler, failures: Mapping[int, BaseException]) -> None:
        self._layout, self._scheduler, self._failures = layout, scheduler, failures
        self.terms: dict[int, Terms] = {}
        self.extend(plan, layout.mapped)
        for node in self.terms:
            if node not in layout.waiting:
                self.allow(node, len(layout.items_of(node)))

    def extend(self, plan: Plan, nodes: Iterable[int]) -> bool:
        """Take in further steps, none of which can fail yet; tell whether the first failure ends one of them."""
        overs = ((node, plan.forms[node].over) for node in nodes)
        new = {node: over.terms for node, over in overs if over is not None and over.terms is not None}
        self.terms.update(new)
        return any(terms.fail_fast for terms in new.values())

    def forget(self, nodes: Iterable[int]) -> None:
        """Forget steps of which nothing has run."""
        for node in nodes:
            self.terms.pop(node, None)

    @property
    def any_fail_fast(self) -> bool:
        """Whether the first failure ends one of them."""
        return any(terms.fail_fast for terms in self.terms.values())

    @property
    def values(self) -> dict[int, Callable[[Values], MapTaskResult[Any]]]:
        """For each of them, what its value is made of."""
        return {node: partial(self._result, node) for node in self.terms}

    def allow(self, node: int, count: int) -> None:
        """Tell the scheduler how many of so many items may fail, before any can."""
        if node in self.terms:
            survives = self.terms[node].survives(count)
            if survives:
                self._scheduler.tolerate(node, survives)

    def note_failures(self, nodes: Iterable[int]) -> None:
        """Some items of these steps have failed for good: where the first failure ends all, begin no other."""
        for node in nodes:
            if node in self.terms and self.terms[node].fail_fast:
                self._scheduler.cancel_node(node, time.monotonic())

    def forgiven(self, states: bytes) -> dict[int, int]:
        """Return the steps that had failures and are a success all the same, with the number of them."""
        found = {}
        for node, terms in self.terms.items():
            items = self._layout.items_of(node)
            bad = sum(states.count(code, items.start, items.stop) for code in _BAD)
            if bad and terms.survives(len(items)) and STATES[self._scheduler.node_state(node)] in _FINE:
                found[node] = bad
        return found

    def _result(self, node: int, values: Values) -> MapTaskResult[Any]:
        items = self._layout.items_of(node)
        raw = values.raw[items.start : items.stop]
        load = None if values.decode is None else decoded
        return MapTaskResult.of(raw, [value is not MISSING for value in raw], partial(self._error, items), load)

    def _error(self, items: range, index: int) -> str | None:
        error = self._failures.get(items[index])
        if error is not None:
            return error_line(error)
        return NOT_RUN if self._scheduler.state(items[index]) in _BAD else None
