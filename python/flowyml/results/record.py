"""The record of a run: the values that there are, read one by one, and why the others are not there.

```
Ended ◀── Reasons ◀── Record ──▶ result.py makes objects of it
 arrays    culprits    values
```

Each class knows the ones to its left. A value is loaded when it is read.
"""

from __future__ import annotations

from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import truncate
from flowyml.errors import MapTaskError, StepNotRunError
from flowyml.results.error_text import error_line
from flowyml.results.mapped_values import MappedValues
from flowyml.results.run_arrays import FailureCauses
from flowyml.state import STATES, StepState
from flowyml.steps.map_task import NOT_RUN, MapTaskResult
from flowyml.store.arenas import ENCODED
from flowyml.store.value_store import MISSING, MultiOutput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WHY_NOT = {
    StepState.CANCELLED: "it was cancelled before it was finished",
    StepState.SKIPPED: "it was skipped: its condition, or that of a step before it, did not hold",
    StepState.UPSTREAM_FAILED: "it did not run, a step before it failed",
}
# From the states of all items to one byte each: 1 where there is a value.
_HAS_VALUE = bytes(code < len(STATES) and STATES[code].has_value for code in range(256))


class RunRecord(FailureCauses):
    """What a run left behind: states, values, reasons."""

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
            return self._task_result(node) if node in self.tasks else MappedValues(self, node)
        return self.value(self.layout.firsts[node] + (index or 0))

    def _task_result(self, node: int) -> MapTaskResult[Any]:
        """Return what came of a map task; where all its values were let go, say so."""
        items = self.items_of(node)
        there = self.has_value[items.start : items.stop]
        if items.start in self.values.dropped and not any(there):
            self.value(items.start)  # raises
        return self._what_came_of(items, there)

    def _what_came_of(self, items: Sequence[int], there: bytes) -> MapTaskResult[Any]:
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
        succeeded = self.states[items.start : items.stop].translate(_HAS_VALUE)  # also those whose values were let go
        wanted = 1.0 if terms.fail_fast else terms.min_success_ratio
        line = f"{self.item_name(first)}: {error_line(self.failures[first])}"
        error = MapTaskError(self.plan.names[node], sum(succeeded), len(items), wanted, line)
        error.__cause__, error.result = self.failures[first], self._what_came_of(items, succeeded)
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
            return truncate(error_line(error)), error
        return self._why_not_run(node, self.empty_states[node])

    def _why_not_run(self, node: int, state: StepState) -> tuple[str, BaseException | None]:
        """Say why a step did not run, from what failed before it."""
        culprit = self._culprit(node) if state is StepState.UPSTREAM_FAILED else None
        if culprit is not None and culprit in self.refused:
            error = self.refused[culprit]
            return f"it did not run, {self._called(culprit)} failed: {truncate(error_line(error))}", error
        if culprit in self.tasks and culprit is not None and (short := self.task_error(culprit)) is not None:
            return f"it did not run, {self._called(culprit)} failed: {truncate(error_line(short))}", short
        first = None if culprit is None else self.first_failure(self.items_of(culprit))
        if first is None:
            return _WHY_NOT.get(state, f"its state is {state}"), None
        return f"it did not run, {self._told(first, self.failures[first])}", self.failures[first]

    def _told(self, item: int, error: BaseException) -> str:
        word = str(self.state(item)).replace("_", " ")
        return f"step {self.item_name(item)!r} {word}: {truncate(error_line(error))}"

    def asset(self, name: str) -> Any:
        """Return the value of an asset.

        Raises:
            KeyError: If no step produces it, with near matches.
            StepNotRunError: If its step has no value.
        """
        found = self.plan.find(name)
        if found is None:
            raise KeyError(self.no_such(name))
        return self.asset_of(*found)

    def asset_of(self, node: int, output: int | None) -> Any:
        """Return the value of a step, or of one of its declared outputs.

        Raises:
            StepNotRunError: The step has no value.
        """
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

    @cached_property
    def whole(self) -> list[Any] | None:
        """The values of all steps, in add order, where each has one and none of them has to be loaded or taken apart.

        That is what most large fan-outs leave behind; `None` for all others.
        """
        raw, decodes = self.values.raw, self.values.decode is not None
        if not self.layout.is_plain or 0 in self.has_value:
            return None
        kinds = set(map(type, raw))
        return None if MultiOutput in kinds or (decodes and not kinds.isdisjoint(ENCODED)) else raw

    @cached_property
    def asset_names(self) -> Sequence[str] | None:
        """The names of all assets, where each step has one of its own name; `None` otherwise."""
        plain = not self.plan.assets.exported and not any(form.outputs for form in set(self.plan.forms))
        return self.plan.names if plain else None

    def valued_names(self) -> Iterator[str]:
        """Go through the names of the assets that have a value, in add order."""
        if self.whole is not None and self.asset_names is not None:
            return iter(self.asset_names)
        return (asset for node in self.valued_nodes() for asset in self.plan.assets_of(node))

    def valued_count(self) -> int:
        """Return how many assets have a value."""
        if self.whole is not None and self.asset_names is not None:
            return len(self.whole)
        forms = self.plan.forms
        return sum(len(forms[node].outputs) or 1 for node in self.valued_nodes())

    def valued_assets(self) -> Iterator[tuple[str, Any]]:
        """Go through the assets that have a value, in add order, with it."""
        if self.whole is not None and self.asset_names is not None:
            return zip(self.asset_names, self.whole, strict=True)
        return self._valued_assets()

    def asset_values(self) -> Iterator[Any]:
        """Go through the values of the assets that have one, in add order."""
        return (value for _, value in self._valued_assets()) if self.whole is None else iter(self.whole)

    def _valued_assets(self) -> Iterator[tuple[str, Any]]:
        plan, raw, decodes = self.plan, self.values.raw, self.values.decode is not None
        names, forms, firsts, mapped = plan.names, plan.forms, self.layout.firsts, self.layout.mapped
        exported = plan.assets.exported
        for node in self.valued_nodes():
            value, form = MISSING if node in mapped else raw[firsts[node]], forms[node]
            kind = type(value)
            if kind is MultiOutput:
                for index, asset in enumerate(plan.assets_of(node)):
                    yield asset, self.values.read_output(firsts[node], index)
            else:
                if value is MISSING or (decodes and kind in ENCODED):
                    value = self.value_of(node)
                asset = form.outputs[0] if form.outputs else names[node]
                yield exported[asset][-1] if asset in exported else asset, value
