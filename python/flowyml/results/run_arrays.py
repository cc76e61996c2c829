"""States, attempts, workers and times of a run that has ended, as flat arrays, and the causes of its failures.

```
scheduler ──▶ states, attempts, workers, starts, ends (one entry an item) ┐
run       ──▶ values, failures                                            ├──▶ RunArrays ◀── RunRecord
plan      ──▶ names, forms, assets                                        ┘
```

Items are calls: a plain step has one, a mapped step one for each item. Methods take node and item ids; no object is
created for a step. A step with the state upstream_failed has a culprit: a failed step that it depends on.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import did_you_mean, pluralize
from flowyml.results.error_text import error_line
from flowyml.state import CODES, STATES, StepState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from flowyml.planning.plan import Plan
    from flowyml.results.resource_usage import ResourceUsage
    from flowyml.runtime.failure_policy import RetryState
    from flowyml.runtime.run import Run
    from flowyml.steps.map_task import MapTaskPolicy


_ITEM = r"(?P<step>.+)\[(?P<index>0|[1-9][0-9]{0,18})\]"
_GLOB = r"[*?]"
# Translates states at the end of a run: items that an interrupt left unfinished are cancelled.
_AFTER_RUN = bytes(code if code >= CODES[StepState.SUCCESS] else CODES[StepState.CANCELLED] for code in range(256))

# ... and of a dry run, in which only given steps have a value.
_AFTER_DRY_RUN = bytes(code if code == CODES[StepState.GIVEN] else CODES[StepState.WAITING] for code in range(256))


_FINE = tuple(CODES[state] for state in (StepState.SUCCESS, StepState.CACHED, StepState.GIVEN, StepState.SKIPPED))
_UPSTREAM_FAILED = CODES[StepState.UPSTREAM_FAILED]
_OWN_FAILURES = {CODES[StepState.FAILED], CODES[StepState.TIMED_OUT]}


class StateCounts(NamedTuple):
    """The number of calls of one function in each state; each item of a mapped step is a call."""

    label: str
    size: int
    states: dict[str, int]


class RunArrays:
    """The arrays of one run.

    Args:
        run: The run, ended.

    Attributes:
        began: Start of the run, on the clock of `starts` and `ends`.
        empty_states: The states of mapped steps without items.
        tasks: The policies of map tasks.
        forgiven: Map tasks that succeeded although items failed, with the number of failed items.
        order: The steps in add order.
    """

    def __init__(self, run: Run) -> None:
        self.plan: Plan = run.plan
        self.item_index = run.item_index
        self.values = run.values
        self.failures, self.fallen = run.failures, run.fallback_errors
        self.refused = run.expansion_errors
        self._usage, self._captures_output = run.measured_usage(), run.captures_output
        scheduler = run.scheduler
        self.states = scheduler.states().translate(_AFTER_DRY_RUN if run.dry else _AFTER_RUN)
        self.attempts = _begun(scheduler.attempts(), self.states, run.retries)
        self._scheduler = scheduler
        self.began, self._began_at = run.started, run.started_at
        self._subgraphs = run.subgraphs
        self.order = self.plan.in_order()
        self._culprits: dict[int, int] = {}
        self.empty_states = {
            node: StepState.WAITING if run.dry else STATES[scheduler.node_state(node)]
            for node in self.item_index.empty_nodes()
        }
        tasks = run.map_tasks
        self.tasks: Mapping[int, MapTaskPolicy] = {} if tasks is None else tasks.terms
        self.forgiven: Mapping[int, int] = {} if tasks is None else tasks.forgiven(self.states)

    @cached_property
    def usage(self) -> ResourceUsage:
        """What steps have used and written."""
        from flowyml.results.resource_usage import ResourceUsage

        return self._usage or ResourceUsage(captures=self._captures_output)

    # Copied on access, so that these arrays of a million steps are not held twice.

    @cached_property
    def workers(self) -> Sequence[int]:
        """The worker of each item."""
        return memoryview(self._scheduler.workers()).cast("H")

    @cached_property
    def starts(self) -> Sequence[float]:
        """Start of the last attempt of each item."""
        return memoryview(self._scheduler.starts()).cast("d")

    @cached_property
    def ends(self) -> Sequence[float]:
        """End of each item."""
        return memoryview(self._scheduler.ends()).cast("d")

    # -- items and steps

    def items_of(self, node: int) -> range:
        """Return the items of a step."""
        return self.item_index.items_of(node)

    def node_of(self, item: int) -> int:
        """Return the step of an item."""
        return self.item_index.node_at(item)

    def item_name(self, item: int) -> str:
        """Return the name of an item's step, with the index for a mapped step."""
        return self.plan.item_name(*self.item_index.place_of(item))

    def find(self, name: object) -> tuple[int, int | None] | None:
        """Return step and index of a name as in messages: "load" is a step, "load[3]" an item of a mapped step."""
        if not isinstance(name, str):
            return None
        node = self.plan.numbers.get(name)
        if node is not None:
            return node, None
        node, index = self._parse_item_name(name)
        return None if node is None or index >= len(self.items_of(node)) or not self.is_mapped(node) else (node, index)

    def _parse_item_name(self, name: str) -> tuple[int | None, int]:
        """Return step and index in the name of an item, which need not exist."""
        parts = re.fullmatch(_ITEM, name, re.DOTALL)
        return (self.plan.numbers.get(parts["step"]), int(parts["index"])) if parts else (None, 0)

    def is_mapped(self, node: int) -> bool:
        """Return True if a step is a mapped step."""
        return self.item_index.is_mapped(node)

    def no_such(self, name: object) -> str:
        """Return the message of the `KeyError` for a name that is neither an asset nor a step."""
        return f"no asset or step {name!r} in this run{self.hint(name, [*self.plan.names, *self.plan.all_assets()])}"

    def hint(self, name: object, known: Iterable[str]) -> str:
        """Return a hint for a name that does not exist: a near match, or the number of items."""
        node, _ = self._parse_item_name(str(name))
        if node is None:
            if re.search(_GLOB, str(name)):
                return "; patterns are for inputs=, here pick from the names in .outputs"
            return did_you_mean(str(name), known)
        size = f"has {pluralize(len(self.items_of(node)), 'item')}" if self.is_mapped(node) else "is not a mapped step"
        return f"; step {self.plan.names[node]!r} {size}"

    # -- states and times

    def at(self, seconds: float) -> datetime:
        """Return the time of day of a clock reading."""
        return self._began_at + timedelta(seconds=seconds - self.began)

    def state(self, item: int) -> StepState:
        """Return the state of an item."""
        return STATES[self.states[item]]

    def has_trouble(self) -> bool:
        """Return True if an item ended in a state other than success, cached, given or skipped."""
        good = sum(map(self.states.count, _FINE)) + sum(self.forgiven.values())
        return good != len(self.states) or bool(self.refused)

    def counts(self) -> dict[str, int]:
        """Return the number of items in each state that occurs; a step that failed without items counts as one."""
        counter = Counter({code: self.states.count(code) for code in range(len(STATES))})
        return _by_name(counter + Counter({CODES[StepState.FAILED]: len(self.refused)}))

    def tallies(self) -> list[StateCounts]:
        """Return the states by function, in the order in which each function was added first."""
        plan, states = self.plan, self.states
        groups: dict[int, tuple[str, Counter[int]]] = {}
        for node, spec in enumerate(plan.specs):
            _, counter = groups.setdefault(id(spec.step), (spec.step.name or plan.names[node], Counter()))
            items = self.items_of(node)
            if len(items) == 1:
                counter[states[items.start]] += 1
            else:
                counter.update(states[items.start : items.stop])
                counter[CODES[StepState.FAILED]] += node in self.refused
        return [StateCounts(label, counter.total(), _by_name(counter)) for label, counter in groups.values()]

    def queue_seconds(self, item: int) -> float | None:
        """Return how long an item was ready before it started; `None` if it never did or was retried."""
        if self.attempts[item] != 1 or item in self.fallen:
            return None
        node, index = self.item_index.place_of(item)
        linked = self.plan.linked.get(node, ())
        ready = max(self.began, 0.0 if self._subgraphs is None else self._subgraphs.came_at(node))
        for before in self.plan.dependencies_of(node):
            items = self.items_of(before)
            needed = items[index : index + 1] if before in linked and index is not None else items
            ready = max(ready, max(self._ends_of(needed), default=0.0))
        return max(0.0, self.starts[item] - ready)

    def _ends_of(self, items: range) -> Sequence[float]:
        return self.ends[items.start : items.stop]

    # -- causes of failures

    def own_failures(self) -> list[tuple[int, int | None]]:
        """Return step and index (`None` for the step) of all that failed themselves, in add order."""
        places = list(map(self.item_index.place_of, self.failures))
        items = [place for place in places if place[0] not in self.forgiven]
        if not items and not self.refused and self.has_trouble():
            items = places  # items whose failure was tolerated had dependents
        rank = range(len(self.order)) if isinstance(self.order, range) else _places(self.order)
        failed = [*items, *((node, None) for node in self.refused)]
        return sorted(failed, key=lambda place: (rank[place[0]], place[1] or 0))

    def first_failure(self, items: range) -> int | None:
        """Return the first of these items that failed itself."""
        return min((item for item in self.failures if item in items), default=None)

    def failure_line(self, node: int) -> str | None:
        """Return how many items of a mapped step failed, and the first of them; `None` for other steps."""
        items = self.items_of(node)
        first = self.first_failure(items) if self.is_mapped(node) else None
        if first is None:
            return None
        failed = sum(self.states.count(code, items.start, items.stop) for code in _OWN_FAILURES)
        line = error_line(self.failures[first])
        return f"{failed:,} of {pluralize(len(items), 'item')} failed, first: {self.item_name(first)}: {line}"

    def reason(self, node: int, state: StepState) -> str | None:
        """Return the reason why a step without an exception has no value."""
        if state is StepState.UPSTREAM_FAILED:
            culprit = self._culprit(node)
            return f"did not run: {'a step before it' if culprit is None else self._called(culprit)} failed"
        return "cancelled before it was finished" if state is StepState.CANCELLED else None

    def _called(self, node: int) -> str:
        return f"step {self.plan.names[node]!r}"

    def _culprit(self, node: int) -> int | None:
        """Return a failed step that this one depends on, directly or not; results are stored along the path."""
        path, at = [], node
        while at not in self._culprits:
            path.append(at)
            before = self.plan.dependencies_of(at)
            failed = [other for other in before if self._ended(other, _OWN_FAILURES)]
            own = min(failed, key=self.forgiven.__contains__, default=None)
            if own is not None:
                self._culprits[at] = own
                break
            further = next((other for other in before if self._ended(other, {_UPSTREAM_FAILED})), None)
            if further is None:
                return None
            at = further
        self._culprits.update(dict.fromkeys(path, self._culprits[at]))
        return self._culprits[at]

    def _ended(self, node: int, codes: set[int]) -> bool:
        items = self.items_of(node)
        if not items:
            return self.empty_states[node].code in codes
        return any(self.states.find(code, items.start, items.stop) >= 0 for code in codes)


def _places(order: Sequence[int]) -> dict[int, int]:
    return {node: place for place, node in enumerate(order)}


def _begun(attempts: bytes, states: bytes, retries: RetryState | None) -> bytes:
    """Return the attempts without calls of fallbacks and calls that a circuit breaker refused."""
    if retries is None or (not retries.fallen and not retries.refused):
        return attempts
    own = bytearray(attempts)
    for item in retries.fallen:
        if states[item] != CODES[StepState.CANCELLED]:
            own[item] -= 1
    for item, times in retries.refused.items():
        own[item] = max(0, own[item] - times)
    return bytes(own)


def _by_name(counter: Counter[int]) -> dict[str, int]:
    return {str(state): counter[code] for code, state in enumerate(STATES) if counter[code]}
