"""The record of a run: its values, read one by one, and the reasons why others do not exist.

```
RunArrays ◀── RunRecord ──▶ result.py, step_result.py, report_data.py
 states, causes of failures   values
```
"""

from __future__ import annotations

from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import truncate
from flowyml.errors import MapTaskError, StepNotRunError
from flowyml.results.error_text import error_line
from flowyml.results.mapped_values import MappedValues
from flowyml.results.run_arrays import RunArrays
from flowyml.state import STATES, StepState
from flowyml.steps.map_task import NOT_RUN, MapTaskResult, map_task_result
from flowyml.store.arenas import ENCODED
from flowyml.store.value_store import MISSING, MultiOutput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WHY_NOT = {
    StepState.CANCELLED: "it was cancelled before it was finished",
    StepState.SKIPPED: "it was skipped: its condition, or that of a step before it, was false",
    StepState.UPSTREAM_FAILED: "it did not run, a step before it failed",
}
# Translates the states of all items to 1 for those with a value, else 0.
_HAS_VALUE = bytes(code < len(STATES) and STATES[code].has_value for code in range(256))


class RunRecord(RunArrays):
    """States, values and failures of a run that has ended."""

    @cached_property
    def has_value(self) -> bytes:
        """For each item 1 if it has a value, else 0."""
        has = self.states.translate(_HAS_VALUE)
        if not self.values.dropped:
            return has
        kept = bytearray(has)
        for item in self.values.dropped:
            kept[item] = 0
        return bytes(kept)

    def value_of(self, node: int, index: int | None = None) -> Any:
        """Return the value of a step or item; of a mapped step, the lazy list of its items' values.

        Raises:
            StepNotRunError: If there is none.
        """
        if index is None and self.is_mapped(node):
            if not self.items_of(node) and not self.empty_states[node].has_value:
                reason, cause = self._why_no_items(node)
                raise StepNotRunError(self.plan.names[node], reason) from cause
            return self._task_result(node) if node in self.tasks else MappedValues(self, node)
        return self.value(self.item_index.firsts[node] + (index or 0))

    def _task_result(self, node: int) -> MapTaskResult[Any]:
        items = self.items_of(node)
        there = self.has_value[items.start : items.stop]
        if items.start in self.values.dropped and not any(there):
            self.value(items.start)  # raises
        return self._map_task_result(items, there)

    def _map_task_result(self, items: Sequence[int], there: bytes) -> MapTaskResult[Any]:
        return map_task_result(items, there, lambda index: self._item_error(items[index]), self.value)

    def _item_error(self, item: int) -> str | None:
        if item in self.failures:
            return error_line(self.failures[item])
        return NOT_RUN if self.state(item) is StepState.UPSTREAM_FAILED else None

    def task_error(self, node: int) -> MapTaskError | None:
        """Return the error of a map task of which too few items succeeded, else `None`."""
        items, terms = self.items_of(node), self.tasks[node]
        first = None if node in self.forgiven else self.first_failure(items)
        if first is None:
            return None
        succeeded = self.states[items.start : items.stop].translate(
            _HAS_VALUE
        )  # including items whose values were dropped
        wanted = 1.0 if terms.fail_fast else terms.min_success_ratio
        line = f"{self.item_name(first)}: {error_line(self.failures[first])}"
        error = MapTaskError(self.plan.names[node], sum(succeeded), len(items), wanted, line)
        error.__cause__, error.result = self.failures[first], self._map_task_result(items, succeeded)
        return error

    def value(self, item: int, output: int | None = None) -> Any:
        """Return the value of an item, or one of its declared outputs.

        Raises:
            StepNotRunError: If there is none, chained to the step's exception if it failed.
        """
        if self.has_value[item]:
            return self.values.read(item) if output is None else self.values.read_output(item, output)
        name = self.item_name(item)
        if item in self.values.dropped:
            raise StepNotRunError(name, "it was dropped after its last reader, because of keep=")
        reason, cause = self._why_not(item)
        raise StepNotRunError(name, reason) from cause

    def _why_not(self, item: int) -> tuple[str, BaseException | None]:
        """Return the reason why an item has no value, and its exception."""
        error = self.failures.get(item)
        if error is not None:
            return self._failure_text(item, error), error
        return self._why_not_run(self.node_of(item), self.state(item))

    def _why_no_items(self, node: int) -> tuple[str, BaseException | None]:
        error = self.refused.get(node)
        if error is not None:
            return truncate(error_line(error)), error
        return self._why_not_run(node, self.empty_states[node])

    def _why_not_run(self, node: int, state: StepState) -> tuple[str, BaseException | None]:
        culprit = self._culprit(node) if state is StepState.UPSTREAM_FAILED else None
        if culprit is not None and culprit in self.refused:
            error = self.refused[culprit]
            return f"it did not run, {self._called(culprit)} failed: {truncate(error_line(error))}", error
        if culprit in self.tasks and culprit is not None and (task_error := self.task_error(culprit)) is not None:
            return f"it did not run, {self._called(culprit)} failed: {truncate(error_line(task_error))}", task_error
        first = None if culprit is None else self.first_failure(self.items_of(culprit))
        if first is None:
            return _WHY_NOT.get(state, f"its state is {state}"), None
        return f"it did not run, {self._failure_text(first, self.failures[first])}", self.failures[first]

    def _failure_text(self, item: int, error: BaseException) -> str:
        word = str(self.state(item)).replace("_", " ")
        return f"step {self.item_name(item)!r} {word}: {truncate(error_line(error))}"

    def asset(self, name: str) -> Any:
        """Return the value of an asset.

        Raises:
            KeyError: If no step produces it, with near matches.
            StepNotRunError: If its step has no value.
        """
        producer = self.plan.find(name)
        if producer is None:
            raise KeyError(self.no_such(name))
        return self.asset_of(*producer)

    def asset_of(self, node: int, output: int | None) -> Any:
        """Return the value of a step, or of one of its declared outputs."""
        return self.value_of(node) if output is None else self.value(self.item_index.firsts[node], output)

    def valued_nodes(self) -> Iterator[int]:
        """Yield the steps that have a value; a mapped step has one if any of its items has."""
        if self.item_index.is_plain:
            yield from compress(range(len(self.plan.specs)), self.has_value)
            return
        yield from filter(self.has_any_value, self.order)

    def has_any_value(self, node: int) -> bool:
        """Return True if a step has a value, in the sense of `valued_nodes`."""
        items = self.items_of(node)
        if not items:
            return self.empty_states[node].has_value
        return self.has_value.find(1, items.start, items.stop) >= 0

    @cached_property
    def whole(self) -> list[Any] | None:
        """The values of all steps in add order, if each has one and none of them must be loaded or split, else `None`.

        This is the result of most large fan-outs, and the fast path of reading it.
        """
        raw, decodes = self.values.raw, self.values.decode is not None
        if not self.item_index.is_plain or 0 in self.has_value:
            return None
        kinds = set(map(type, raw))
        return None if MultiOutput in kinds or (decodes and not kinds.isdisjoint(ENCODED)) else raw

    @cached_property
    def asset_names(self) -> Sequence[str] | None:
        """The names of all assets if each step has exactly one, named like the step; else `None`."""
        plain = not self.plan.assets.exported and not any(spec.outputs for spec in set(self.plan.specs))
        return self.plan.names if plain else None

    def valued_names(self) -> Iterator[str]:
        """Yield the names of the assets that have a value, in add order."""
        if self.whole is not None and self.asset_names is not None:
            return iter(self.asset_names)
        return (asset for node in self.valued_nodes() for asset in self.plan.assets_of(node))

    def valued_count(self) -> int:
        """Return the number of assets that have a value."""
        if self.whole is not None and self.asset_names is not None:
            return len(self.whole)
        specs = self.plan.specs
        return sum(len(specs[node].outputs) or 1 for node in self.valued_nodes())

    def valued_assets(self) -> Iterator[tuple[str, Any]]:
        """Yield the assets that have a value, in add order, with their values."""
        if self.whole is not None and self.asset_names is not None:
            return zip(self.asset_names, self.whole, strict=True)
        return self._valued_assets()

    def asset_values(self) -> Iterator[Any]:
        """Yield the values of the assets that have one, in add order."""
        return (value for _, value in self._valued_assets()) if self.whole is None else iter(self.whole)

    def _valued_assets(self) -> Iterator[tuple[str, Any]]:
        plan, raw, decodes = self.plan, self.values.raw, self.values.decode is not None
        names, specs, firsts, mapped = plan.names, plan.specs, self.item_index.firsts, self.item_index.mapped
        exported = plan.assets.exported
        for node in self.valued_nodes():
            value, spec = MISSING if node in mapped else raw[firsts[node]], specs[node]
            kind = type(value)
            if kind is MultiOutput:
                for index, asset in enumerate(plan.assets_of(node)):
                    yield asset, self.values.read_output(firsts[node], index)
            else:
                if value is MISSING or (decodes and kind in ENCODED):
                    value = self.value_of(node)
                asset = spec.outputs[0] if spec.outputs else names[node]
                yield exported[asset][-1] if asset in exported else asset, value
