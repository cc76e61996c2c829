"""Why steps have no value: what failed on its own account, and what only because of that.

A step that did not run has a culprit: a failed step that it depends on, near or far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.messages.words import counted
from flowyml.results._ended import Ended
from flowyml.results.traceback import error_line
from flowyml.state import CODES, StepState

if TYPE_CHECKING:
    from collections.abc import Sequence

_UPSTREAM_FAILED = CODES[StepState.UPSTREAM_FAILED]
_OWN_FAILURES = {CODES[StepState.FAILED], CODES[StepState.TIMED_OUT]}


class Reasons(Ended):
    """The arrays of one run, and who is to blame for what."""

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


def _places(order: Sequence[int]) -> dict[int, int]:
    return {node: place for place, node in enumerate(order)}
