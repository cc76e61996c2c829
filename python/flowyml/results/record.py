"""The record of a run: its flat arrays after the end, and what is read from them.

```
scheduler ──▶ states, attempts, workers, starts, ends (one entry an item) ┐
run       ──▶ values, failures                                            ├──▶ Record ──▶ result.py makes objects of it
plan      ──▶ names, forms, assets                                        ┘
```

Items are calls: a step has one, a mapped step one for each of its items. The record answers by step number and item
number; it makes no object for a step. A value is loaded when it is read.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

from flowyml.errors import MapTaskError, StepNotRunError
from flowyml.messages.words import counted, cut, nearest
from flowyml.results.item_values import ItemValues
from flowyml.results.traceback import error_line
from flowyml.state import CODES, STATES, StepState
from flowyml.steps.tasks import NOT_RUN, MapTaskResult
from flowyml.store.arenas import ENCODED
from flowyml.store.values import MISSING, Outputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from flowyml.planning.plan import Plan
    from flowyml.running.run import Run
    from flowyml.running.trials import Trials
    from flowyml.steps.tasks import Terms

_UPSTREAM_FAILED = CODES[StepState.UPSTREAM_FAILED]
_ITEM = r"(?P<step>.+)\[(?P<index>0|[1-9][0-9]{0,18})\]"
_OWN_FAILURES = {CODES[StepState.FAILED], CODES[StepState.TIMED_OUT]}
# What an interrupt cut off is cancelled.
_AT_THE_END = bytes(code if code >= CODES[StepState.SUCCESS] else CODES[StepState.CANCELLED] for code in range(256))
_WHY_NOT = {
    StepState.CANCELLED: "it was cancelled before it was finished",
    StepState.SKIPPED: "it was skipped: its condition, or that of a step before it, did not hold",
    StepState.UPSTREAM_FAILED: "it did not run, a step before it failed",
}
# From the states of all items to one byte each: 1 where there is a value.
_HAS_VALUE = bytes(code < len(STATES) and STATES[code].has_value for code in range(256))


class Tally(NamedTuple):
    """How the steps of one function ended.

    Attributes:
        label: Name of the step as it was declared.
        size: How many there are, each item of a mapped step counted.
        states: How many of them are in each state.
    """

    label: str
    size: int
    states: dict[str, int]


class Record:
    """The arrays of one run, and what is read from them.

    Args:
        run: The run, ended.

    Attributes:
        began: When the run began, on the clock of `starts` and `ends`.
        empty_states: The states of mapped steps without items.
        tasks: The terms of map tasks.
        forgiven: Map tasks that are a success although items failed, and how many did.
        order: The steps in add order.
    """

    def __init__(self, run: Run) -> None:
        """Copy what the scheduler says of states, take over values and failures."""
        self.plan: Plan = run.plan
        self.layout = run.layout
        self.values = run.values
        self.failures, self.fallen = run.failures, run.fallen
        self.refused = run.refused
        self.usage = run.usage
        scheduler = run.scheduler
        self.states = bytes(scheduler.item_count) if run.dry else scheduler.states().translate(_AT_THE_END)
        self.attempts = _begun(scheduler.attempts(), self.states, run.trials)
        self._scheduler = scheduler
        if run.interrupted:  # what is still running must not change them
            self._times = self.workers, self.starts, self.ends
        self.began, self._began_at = run.started, run.started_at
        self.order = self.plan.in_order()
        self._culprits: dict[int, int] = {}
        self.empty_states = {
            node: StepState.WAITING if run.dry else STATES[scheduler.node_state(node)]
            for node in self.layout.empty_nodes()
        }
        self.tasks: Mapping[int, Terms] = run.tasks.terms
        self.forgiven: Mapping[int, int] = run.tasks.forgiven(self.states)

    # Copied when somebody asks: a million steps that nobody asks about need them once, and not twice.

    @cached_property
    def workers(self) -> Sequence[int]:
        """The worker of each item."""
        return memoryview(self._scheduler.workers()).cast("H")

    @cached_property
    def starts(self) -> Sequence[float]:
        """When each item began last."""
        return memoryview(self._scheduler.starts()).cast("d")

    @cached_property
    def ends(self) -> Sequence[float]:
        """When each item ended."""
        return memoryview(self._scheduler.ends()).cast("d")

    # -- items and steps

    def items_of(self, node: int) -> range:
        """Return the items of a step."""
        return self.layout.items_of(node)

    def node_of(self, item: int) -> int:
        """Return the step of an item."""
        return self.layout.node_at(item)

    def item_name(self, item: int) -> str:
        """Return the name of an item's step, with the index in a mapped step."""
        return self.plan.item_name(*self.layout.place_of(item))

    def find(self, name: object) -> tuple[int, int | None] | None:
        """Return step and index by the name that messages use: "load" is a step, "load[3]" an item of a mapped one."""
        if not isinstance(name, str):
            return None
        node = self.plan.numbers.get(name)
        if node is not None:
            return node, None
        node, index = self._item_called(name)
        return None if node is None or index >= len(self.items_of(node)) or not self.is_mapped(node) else (node, index)

    def _item_called(self, name: str) -> tuple[int | None, int]:
        """Return the step and the index that the name of an item tells, whether there is that item or not."""
        parts = re.fullmatch(_ITEM, name, re.DOTALL)
        return (self.plan.numbers.get(parts["step"]), int(parts["index"])) if parts else (None, 0)

    def is_mapped(self, node: int) -> bool:
        """Tell whether a step is a mapped one."""
        return self.layout.is_mapped(node)

    # -- states and times

    def at(self, seconds: float) -> datetime:
        """Return the time of day of a monotonic time."""
        return self._began_at + timedelta(seconds=seconds - self.began)

    def state(self, item: int) -> StepState:
        """Return an item's state."""
        return STATES[self.states[item]]

    def has_trouble(self) -> bool:
        """Tell whether some item ended in another state than success, cached or skipped."""
        fine = (StepState.SUCCESS, StepState.CACHED, StepState.SKIPPED)
        good = sum(self.states.count(state.code) for state in fine) + sum(self.forgiven.values())
        return good != len(self.states) or bool(self.refused)

    def counts(self) -> dict[str, int]:
        """Return how many items are in each state that occurs; a step that failed without items counts as one."""
        return _by_name(Counter(self.states) + Counter({CODES[StepState.FAILED]: len(self.refused)}))

    def tallies(self) -> list[Tally]:
        """Return how the steps ended, function by function, in the order in which each was added first."""
        plan, states = self.plan, self.states
        groups: dict[int, tuple[str, Counter[int]]] = {}
        for node, form in enumerate(plan.forms):
            _, counter = groups.setdefault(id(form.step), (form.step.name or plan.names[node], Counter()))
            items = self.items_of(node)
            if len(items) == 1:
                counter[states[items.start]] += 1
            else:
                counter.update(states[items.start : items.stop])
                counter[CODES[StepState.FAILED]] += node in self.refused
        return [Tally(label, counter.total(), _by_name(counter)) for label, counter in groups.values()]

    def own_failures(self) -> list[tuple[int, int | None]]:
        """Return step and index of all that failed on its own account, in add order; an index of `None`: the step."""
        places = list(map(self.layout.place_of, self.failures))
        items = [place for place in places if place[0] not in self.forgiven]
        if not items and not self.refused and self.has_trouble():
            items = places  # what was forgiven has cost items that were made of it
        rank = range(len(self.order)) if isinstance(self.order, range) else _places(self.order)
        found = [*items, *((node, None) for node in self.refused)]
        return sorted(found, key=lambda place: (rank[place[0]], place[1] or 0))

    def first_failure(self, items: range) -> int | None:
        """Return the first of these items that failed on its own account."""
        return min((item for item in self.failures if item in items), default=None)

    def failure_line(self, node: int) -> str | None:
        """Say how many items of a mapped step failed, and the first of them; `None` for other steps."""
        items = self.items_of(node)
        first = self.first_failure(items) if self.is_mapped(node) else None
        if first is None:
            return None
        failed = sum(self.states.count(code, items.start, items.stop) for code in _OWN_FAILURES)
        line = error_line(self.failures[first])
        return f"{failed:,} of {counted(len(items), 'item')} failed, first: {self.item_name(first)}: {line}"

    def reason(self, node: int, state: StepState) -> str | None:
        """Say why a step without an exception has no value."""
        if state is StepState.UPSTREAM_FAILED:
            culprit = self._culprit(node)
            return f"did not run: {'a step before it' if culprit is None else self._called(culprit)} failed"
        return "cancelled before it was finished" if state is StepState.CANCELLED else None

    def _called(self, node: int) -> str:
        return f"step {self.plan.names[node]!r}"

    def _culprit(self, node: int) -> int | None:
        """Return a failed step that this one depends on, near or far; each step is passed once for all questions."""
        path, at = [], node
        while at not in self._culprits:
            path.append(at)
            before = self.plan.waits_for(at)
            failed = [each for each in before if self._ended(each, _OWN_FAILURES)]
            own = min(failed, key=self.forgiven.__contains__, default=None)
            if own is not None:
                self._culprits[at] = own
                break
            further = next((each for each in before if self._ended(each, {_UPSTREAM_FAILED})), None)
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

    def queue_seconds(self, item: int) -> float | None:
        """Return how long an item was ready before it began; `None` if it never did, or if it was tried again."""
        if self.attempts[item] != 1 or item in self.fallen:
            return None
        node, index = self.layout.place_of(item)
        linked = self.plan.linked.get(node, ())
        ready = self.began
        for before in self.plan.graph.dependencies(node):
            items = self.items_of(before)
            needed = items[index : index + 1] if before in linked and index is not None else items
            ready = max(ready, max(self.ends[needed.start : needed.stop], default=0.0))
        return max(0.0, self.starts[item] - ready)

    # -- values

    @cached_property
    def has_value(self) -> bytes:
        """For each item 1 where there is a value, else 0."""
        has = self.states.translate(_HAS_VALUE)
        if not self.values.dropped:
            return has
        kept = bytearray(has)
        for item in self.values.dropped:
            kept[item] = 0
        return bytes(kept)

    def value_of(self, node: int, index: int | None = None) -> Any:
        """Return the return value of a step or item; of a mapped step, the lazy list of its items' values.

        Raises:
            StepNotRunError: If there is none.
        """
        if index is None and self.is_mapped(node):
            if not self.items_of(node) and not self.empty_states[node].has_value:
                reason, cause = self._why_no_items(node)
                raise StepNotRunError(self.plan.names[node], reason) from cause
            return self._task_result(node) if node in self.tasks else ItemValues(self, node)
        return self.value(self.layout.firsts[node] + (index or 0))

    def _task_result(self, node: int) -> MapTaskResult[Any]:
        """Return what came of a map task; where all its values were let go, say so."""
        items = self.items_of(node)
        there = self.has_value[items.start : items.stop]
        if items.start in self.values.dropped and not any(there):
            self.value(items.start)  # raises
        return MapTaskResult.of(items, there, lambda index: self._item_error(items[index]), self.value)

    def _item_error(self, item: int) -> str | None:
        if item in self.failures:
            return error_line(self.failures[item])
        return NOT_RUN if self.state(item) is StepState.UPSTREAM_FAILED else None

    def task_error(self, node: int) -> MapTaskError | None:
        """Return what a map task failed with: that too few of its items succeeded."""
        items, terms = self.items_of(node), self.tasks[node]
        first = None if node in self.forgiven else self.first_failure(items)
        if first is None:
            return None
        successes = sum(_HAS_VALUE[code] for code in self.states[items.start : items.stop])
        wanted = 1.0 if terms.fail_fast else terms.min_success_ratio
        line = f"{self.item_name(first)}: {error_line(self.failures[first])}"
        error = MapTaskError(self.plan.names[node], successes, len(items), wanted, line)
        error.__cause__, error.result = self.failures[first], self._task_result(node)
        return error

    def value(self, item: int, output: int | None = None) -> Any:
        """Return the value of an item, or one of its declared outputs.

        Raises:
            StepNotRunError: If there is none, from the step's exception where it failed.
        """
        if self.has_value[item]:
            return self.values.read(item) if output is None else self.values.read_output(item, output)
        name = self.item_name(item)
        if item in self.values.dropped:
            reason = "it was dropped after its last reader, as keep= asked"
            raise StepNotRunError(name, reason)
        reason, cause = self._why_not(item)
        raise StepNotRunError(name, reason) from cause

    def _why_not(self, item: int) -> tuple[str, BaseException | None]:
        """Say why an item has no value, and return the exception that is the reason."""
        error = self.failures.get(item)
        if error is not None:
            return self._told(item, error), error
        return self._why_not_run(self.node_of(item), self.state(item))

    def _why_no_items(self, node: int) -> tuple[str, BaseException | None]:
        error = self.refused.get(node)
        if error is not None:
            return cut(error_line(error)), error
        return self._why_not_run(node, self.empty_states[node])

    def _why_not_run(self, node: int, state: StepState) -> tuple[str, BaseException | None]:
        """Say why a step did not run, from what failed before it."""
        culprit = self._culprit(node) if state is StepState.UPSTREAM_FAILED else None
        if culprit is not None and culprit in self.refused:
            error = self.refused[culprit]
            return f"it did not run, {self._called(culprit)} failed: {cut(error_line(error))}", error
        if culprit in self.tasks and culprit is not None and (short := self.task_error(culprit)) is not None:
            return f"it did not run, {self._called(culprit)} failed: {cut(error_line(short))}", short
        first = None if culprit is None else self.first_failure(self.items_of(culprit))
        if first is None:
            return _WHY_NOT.get(state, f"its state is {state}"), None
        return f"it did not run, {self._told(first, self.failures[first])}", self.failures[first]

    def _told(self, item: int, error: BaseException) -> str:
        word = str(self.state(item)).replace("_", " ")
        return f"step {self.item_name(item)!r} {word}: {cut(error_line(error))}"

    def asset(self, name: str) -> Any:
        """Return the value of an asset.

        Raises:
            KeyError: If no step produces it, with near matches.
            StepNotRunError: If its step has no value.
        """
        found = self.plan.find(name)
        if found is None:
            raise KeyError(self.no_such(name))
        node, output = found
        return self.value_of(node) if output is None else self.value(self.layout.firsts[node], output)

    def valued_nodes(self) -> Iterator[int]:
        """Go through the steps that have a value; a mapped step has one unless none of its items came to an end."""
        if self.layout.is_plain:
            yield from compress(range(len(self.plan.forms)), self.has_value)
            return
        yield from filter(self.has_any_value, self.order)

    def has_any_value(self, node: int) -> bool:
        """Tell whether a step has a value, as `valued_nodes` does."""
        items = self.items_of(node)
        if not items:
            return self.empty_states[node].has_value
        return self.has_value.find(1, items.start, items.stop) >= 0

    def valued_assets(self) -> Iterator[tuple[str, Any]]:
        """Go through the assets that have a value, in add order, with it."""
        plan, raw, decodes = self.plan, self.values.raw, self.values.decode is not None
        names, forms, firsts, mapped = plan.names, plan.forms, self.layout.firsts, self.layout.mapped
        exported = plan.assets.exported
        for node in self.valued_nodes():
            value, form = MISSING if node in mapped else raw[firsts[node]], forms[node]
            kind = type(value)
            if kind is Outputs:
                for index, asset in enumerate(plan.assets_of(node)):
                    yield asset, self.values.read_output(firsts[node], index)
            else:
                if value is MISSING or (decodes and kind in ENCODED):
                    value = self.value_of(node)
                asset = form.outputs[0] if form.outputs else names[node]
                yield exported[asset][-1] if asset in exported else asset, value

    def no_such(self, name: object) -> str:
        """Return the text of the `KeyError` for a name that is neither asset nor step."""
        return f"no asset or step {name!r} in this run{self.hint(name, [*self.plan.names, *self.plan.all_assets()])}"

    def hint(self, name: object, known: Iterable[str]) -> str:
        """Say what could be meant by a name that does not exist: another name, or an item among those there are."""
        node, _ = self._item_called(str(name))
        if node is None:
            return nearest(str(name), known)
        size = f"has {counted(len(self.items_of(node)), 'item')}" if self.is_mapped(node) else "is no mapped step"
        return f"; step {self.plan.names[node]!r} {size}"


def _begun(attempts: bytes, states: bytes, trials: Trials) -> bytes:
    """Return how often each step was begun, calls of fallbacks and what a circuit breaker refused taken off."""
    if not trials.fallen and not trials.refused:
        return attempts
    own = bytearray(attempts)
    for item in trials.fallen:
        if states[item] != CODES[StepState.CANCELLED]:
            own[item] -= 1
    for item, times in trials.refused.items():
        own[item] = max(0, own[item] - times)
    return bytes(own)


def _places(order: Sequence[int]) -> dict[int, int]:
    return {node: place for place, node in enumerate(order)}


def _by_name(counter: Counter[int]) -> dict[str, int]:
    return {str(state): counter[code] for code, state in enumerate(STATES) if counter[code]}
