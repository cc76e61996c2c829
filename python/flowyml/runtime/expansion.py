"""The items of mapped steps in a run, lengths that are known only during the run, and map tasks.

```
run ──a step is complete──▶ expand_ready() ──▶ which lists are available now: count and compare them
                                            ├─▶ layout, values and scheduler get the items
                                            └─▶ or the step fails without items
```

A list that a step produced is loaded once, here, and split; values of other mapped steps stay as they are stored. Any
thread may expand, one at a time. For map tasks the scheduler counts failures: it knows how many failures a step
survives, and which step to end. The module does not know who runs the items.
"""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import pluralize
from flowyml.errors import FanOutError
from flowyml.planning.item_index import UNKNOWN
from flowyml.planning.map_inputs import as_items
from flowyml.results.error_text import error_line
from flowyml.runtime.extension import MAP_TASKS, RunExtension
from flowyml.state import CODES, FAILED, STATES, StepState
from flowyml.steps.map_task import NOT_RUN, MapTaskResult, map_task_result
from flowyml.store.serialization import decoded
from flowyml.store.value_store import MISSING, ListRef, MappedRef, unwrap_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flowyml._core import Scheduler
    from flowyml.planning.call_template import ItemColumns
    from flowyml.planning.item_index import ItemIndex
    from flowyml.planning.plan import Plan
    from flowyml.runtime.extension import Claim
    from flowyml.steps.map_task import MapTaskPolicy
    from flowyml.store.value_store import ValueStore


# Exceptions of loading and reading lists, which make the step fail.
_TROUBLE = (Exception, SystemExit, GeneratorExit)
_NO_FAILURES = {CODES[StepState.SKIPPED], CODES[StepState.CANCELLED]}


class MapExpansion:
    """The items of the mapped steps of one run.

    Args:
        plan: The steps.
        item_index: Which items each step has; grows.
        values: The run's values; grow.
        scheduler: Knows which lengths are due, and gets them.
        node_of: The step of each item; grows.
        tasks: Map tasks, which survive some failures.
        tables: Gets for each mapped step its items by index, as `CallTemplate.sources` names them: values, references
            to values of other steps, or tuples of these.
        refused: Gets the exception that kept a step from having items.

    Attributes:
        answered: The number of lengths that were given to the scheduler, or refused.
    """

    def __init__(
        self,
        plan: Plan,
        item_index: ItemIndex,
        values: ValueStore,
        scheduler: Scheduler,
        node_of: Sequence[int],
        *,
        tasks: MapTaskRuns | None,
        tables: dict[int, Sequence[Any]],
        refused: dict[int, BaseException],
    ) -> None:
        self._plan, self._item_index, self._values, self._scheduler = plan, item_index, values, scheduler
        self._node_of: Any = node_of
        self._tasks = tasks
        self._lock = threading.Lock()
        self._over = False
        self.answered = 0
        self._tables, self._refused = tables, refused
        self._groups: dict[int, Sequence[int]] = {}
        self.add_steps(item_index.mapped, {})

    def add_steps(self, nodes: Iterable[int], groups: Mapping[int, Sequence[int]]) -> None:
        """Prepare the items of mapped steps whose length is known.

        Args:
            nodes: The steps.
            groups: For each step that was inserted during the run, the steps that get their items together with it.
        """
        self._groups.update(groups)
        for node in nodes:
            if self._item_index.is_mapped(node) and node not in self._item_index.waiting:
                self._set_table(node, self._columns(node))

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Let no other thread expand a step in this block; yields False if the run is over."""
        with self._lock:
            yield not self._over

    def expand_ready(self, *, waits: bool = True) -> int:
        """Give their items to the steps whose lengths are due; return how many of them failed.

        Args:
            waits: Wait while another thread expands a step; otherwise leave the other steps to that thread.
        """
        failed = len(self._refused)
        # One at a time: a step without items is complete at once, and with it the next length may be due.
        while self._scheduler.expandable and self._lock.acquire(blocking=waits):
            try:
                node = self._scheduler.next_expandable()
                if node is not None and not self._over:
                    self._expand(node)
                    self.answered += 1
            finally:
                self._lock.release()
        return len(self._refused) - failed

    def is_stalled(self) -> bool:
        """Return True if the run is not finished and no event can come any more."""
        if not self._lock.acquire(blocking=False):  # a thread is about to expand a step
            return False
        try:
            return self._scheduler.stalled
        finally:
            self._lock.release()

    def close(self) -> None:
        """Expand no step any more: the run is over, although threads may still be in a step."""
        with self._lock:
            self._over = True

    def _expand(self, node: int) -> None:
        try:
            columns = self._columns(node)
            count = self._count(node, columns)
        except _NoInputError as error:
            self._scheduler.refuse(node, error.state, time.monotonic())
        except _TROUBLE as error:
            self._refused[node] = error
            self._scheduler.refuse(node, FAILED, time.monotonic())
        else:
            self._grow(node, columns, count)

    def _grow(self, node: int, columns: list[Sequence[Any]], count: int) -> None:
        """Make room first: once the scheduler knows the items, other threads may run them."""
        followers = self._group(node)
        self._item_index.grow(followers, count)
        for each in followers:
            self._node_of.extend([each] * count)
            self._values.raw.extend([MISSING] * count)
            self._set_table(each, columns if each == node else self._columns(each))
            if self._tasks is not None:
                self._tasks.allow(each, count)
        self._scheduler.expand(node, count, time.monotonic())

    def _group(self, node: int) -> Sequence[int]:
        """Return the steps that get their items together with one."""
        return self._groups[node] if node in self._groups else self._plan.graph.group(node)

    def _set_table(self, node: int, columns: list[Sequence[Any]]) -> None:
        self._tables[node] = self._over_of(node).map_input.table(columns)

    def _over_of(self, node: int) -> ItemColumns:
        template = self._plan.templates[node]
        assert template is not None and template.map_input is not None  # noqa: S101, PT018  a mapped step of a valid plan
        return template.map_input

    def _columns(self, node: int) -> list[Sequence[Any]]:
        over = self._over_of(node)
        references = self._plan.references.get(node, ())
        return [
            self._column(node, at, references[part]) if isinstance(part, int) else part or ()
            for at, part in enumerate(over.parts)
        ]

    def _column(self, node: int, at: int, reference: Any) -> Sequence[Any]:
        reference = unwrap_reference(reference)
        if isinstance(reference, MappedRef):
            return self._item_index.items_of(reference.node)
        if isinstance(reference, ListRef):
            return reference.references
        item = reference if isinstance(reference, int) else reference.item
        value = self._values.load(reference)
        if value is MISSING and self._scheduler.state(item) in _NO_FAILURES:
            raise _NoInputError(self._scheduler.state(item))
        try:
            if value is not MISSING:
                return as_items(value)
            what = "is not there"
        except TypeError as error:
            what = f"is {error}"
        name, producer = (
            self._over_of(node).map_input.columns[at].source,
            self._plan.names[self._item_index.node_at(item)],
        )
        raise FanOutError(self._plan.names[node], f"{name!r}, which step {producer!r} has to produce, {what}")

    def _count(self, node: int, columns: list[Sequence[Any]]) -> int:
        """Return how many items there are.

        Raises:
            FanOutError: If lengths differ in a zip, or a product is too large.
        """
        over, lengths = self._over_of(node).map_input, [len(column) for column in columns]
        if not over.product and len(set(lengths)) > 1:
            told = (f"{over.named(at)} has {pluralize(length, 'item')}" for at, length in enumerate(lengths))
            raise FanOutError(self._plan.names[node], f"the lists have different lengths: {', '.join(told)}")
        count = over.count(lengths)
        if self._item_index.item_count + count * len(self._group(node)) >= UNKNOWN:
            raise FanOutError(self._plan.names[node], f"{count:,} items are more than a run can have")
        return count


class _NoInputError(Exception):
    """A join was to be mapped over a list, and the list is not there because its step was skipped or cancelled."""

    def __init__(self, state: int) -> None:
        super().__init__(state)
        self.state = state


_BAD = tuple(state.code for state in (StepState.FAILED, StepState.TIMED_OUT, StepState.UPSTREAM_FAILED))
_FINE = {StepState.SUCCESS, StepState.CACHED, StepState.GIVEN, StepState.SKIPPED}


class MapTaskRuns(RunExtension):
    """The map tasks of one run.

    Args:
        plan: The steps.
        item_index: Which items each step has.
        scheduler: Counts failures, ends steps.
        failures: The exceptions of items.
        node_of: The step of each item; grows.

    Attributes:
        terms: The policy of each map task, by step.
    """

    rank = MAP_TASKS

    def __init__(
        self,
        plan: Plan,
        item_index: ItemIndex,
        scheduler: Scheduler,
        failures: Mapping[int, BaseException],
        node_of: Sequence[int],
    ) -> None:
        self._plan, self._item_index, self._scheduler, self._failures = plan, item_index, scheduler, failures
        self._node_of = node_of
        self.terms: dict[int, MapTaskPolicy] = {}
        self._add(item_index.mapped)
        for node in self.terms:
            if node not in item_index.waiting:
                self.allow(node, len(item_index.items_of(node)))

    def _add(self, nodes: Iterable[int]) -> None:
        overs = ((node, self._plan.specs[node].map_input) for node in nodes)
        self.terms.update((node, over.terms) for node, over in overs if over is not None and over.terms is not None)
        self.claims_single_items = any(terms.fail_fast for terms in self.terms.values())
        self.allows_direct_reports = not self.claims_single_items

    def on_steps_added(self, nodes: range) -> None:
        """Take in further steps, none of which can fail yet."""
        self._add(nodes)

    def on_steps_removed(self, nodes: range) -> None:
        """Forget steps of which nothing has run."""
        for node in nodes:
            self.terms.pop(node, None)

    def wrap_claim(self, claim: Claim) -> Claim:
        """Claim one item at a time if the first failure of a map task ends everything that has not begun."""
        if not self.claims_single_items:
            return claim
        return lambda worker, _limit, now, timeout=0.0: claim(worker, 1, now, timeout)

    @property
    def values(self) -> dict[int, Callable[[ValueStore], MapTaskResult[Any]]]:
        """For each of them, a function that makes its value."""
        return {node: partial(self._result, node) for node in self.terms}

    def allow(self, node: int, count: int) -> None:
        """Tell the scheduler how many of so many items may fail, before any can."""
        if node in self.terms:
            survives = self.terms[node].max_failures(count)
            if survives:
                self._scheduler.tolerate(node, survives)

    def on_items_failed(self, items: Sequence[int]) -> None:
        """Begin no other item of a map task that ends with its first failure."""
        for node in {self._node_of[item] for item in items}:
            if node in self.terms and self.terms[node].fail_fast:
                self._scheduler.cancel_node(node, time.monotonic())

    def forgiven(self, states: bytes) -> dict[int, int]:
        """Return the steps that had failures and are a success all the same, with the number of them."""
        found = {}
        for node, terms in self.terms.items():
            items = self._item_index.items_of(node)
            bad = sum(states.count(code, items.start, items.stop) for code in _BAD)
            if bad and terms.max_failures(len(items)) and STATES[self._scheduler.node_state(node)] in _FINE:
                found[node] = bad
        return found

    def _result(self, node: int, values: ValueStore) -> MapTaskResult[Any]:
        items = self._item_index.items_of(node)
        raw = values.raw[items.start : items.stop]
        load = None if values.decode is None else decoded
        return map_task_result(raw, [value is not MISSING for value in raw], partial(self._error, items), load)

    def _error(self, items: range, index: int) -> str | None:
        error = self._failures.get(items[index])
        if error is not None:
            return error_line(error)
        return NOT_RUN if self._scheduler.state(items[index]) in _BAD else None
