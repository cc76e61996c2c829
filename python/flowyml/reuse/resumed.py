"""What a run that continues another has taken over, and what runs again, and why: in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.keys.fingerprint import differences
from flowyml.messages.words import counted
from flowyml.reuse.call_keys import split

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from flowyml.reuse.call_keys import Made
    from flowyml.reuse.finished import Before, Finished
    from flowyml.reuse.journal_keys import JournalKeys
    from flowyml.running.run import Run

_MOST_NAMED = 5


class Story:
    """What became of what was finished before.

    Args:
        run: The run that continues, before anything has run.
        finished: What was finished.
        keys: The keys of the run's items.
        taken: The items that were taken over.
        again: Items that had ended and run again, with the reason.
    """

    def __init__(
        self, run: Run, finished: Finished, keys: JournalKeys, taken: Collection[int], again: Mapping[int, str]
    ) -> None:
        """Compare nothing yet."""
        self._run = run
        self._finished = finished
        self._keys = keys
        self._taken = taken
        self._unread = again

    def told(self) -> str:
        """Return it in a sentence."""
        parts = [f"{self._how_many()} taken over"]
        again = list(self._again())
        behind = [node for node, reason in again if reason is None]
        first = [f"{self._run.plan.names[node]!r} ({reason})" for node, reason in again if reason is not None]
        if again:
            more = len(first) - _MOST_NAMED
            named = ", ".join(first[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
            tail = (
                f"{counted(len(behind), 'step')} that depend{'s' * (len(behind) == 1)} on what runs again"
                if behind
                else ""
            )
            parts.append(f"run{'s' * (len(again) == 1)} again: {' and '.join(filter(None, (named, tail)))}")
        return "; ".join(parts)

    def of(self, node: int) -> str:
        """Return what becomes of one step: what was taken over of it, or why it runs."""
        run = self._run
        items, name = run.layout.items_of(node), run.plan.names[node]
        taken = sum(item in self._taken for item in items)
        if run.layout.is_mapped(node) and 0 < taken < len(items):
            return f"{taken:,} of {counted(len(items), 'item')} taken over"
        if taken:
            return "taken over"
        nodes = {run.layout.node_at(item) for item in self._taken}
        if run.plan.forms[node].options.dynamic:
            return "runs: a dynamic step says anew which steps there are"
        if node in self._behind_dynamic_steps(nodes):
            return "not known before the dynamic step in front of it has run"
        before = self._finished.steps().get(name)
        if before is None:
            return "runs: it had not ended"
        reason = self._reason(node, before, nodes)
        return f"runs again: {reason or 'what it reads runs again'}"

    def _how_many(self) -> str:
        layout = self._run.layout
        nodes = [layout.node_at(item) for item in self._taken]
        items = sum(layout.is_mapped(node) for node in nodes)
        parts = [counted(len(nodes) - items, "finished step")] if len(nodes) > items or not items else []
        if items:
            parts.append(counted(items, "finished item"))
        return " and ".join(parts)

    def _again(self) -> Iterator[tuple[int, str | None]]:
        """Go through the steps that were finished and run again, with the reason; `None`: they depend on another."""
        run = self._run
        if not self._finished and not self._unread:
            return
        nodes = {run.layout.node_at(item) for item in self._taken}
        unknown = self._behind_dynamic_steps(nodes)
        for name, before in self._finished.steps().items():
            node = run.plan.numbers.get(name)
            if node is not None and node not in nodes and node not in unknown:
                yield node, self._reason(node, before, nodes)

    def _behind_dynamic_steps(self, taken: Collection[int]) -> set[int]:
        """Return the dynamic steps, which say once more what runs, and all steps behind them: nobody knows it yet."""
        plan = self._run.plan
        todo = [node for node, form in enumerate(plan.forms) if form.options.dynamic] if plan.is_dynamic else []
        todo = [node for node in todo if node not in taken]
        found: set[int] = set()
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                todo += plan.graph.dependents(node)
        return found

    def _reason(self, node: int, before: Before, taken: Collection[int]) -> str | None:
        plan, made = self._run.plan, self._keys.made(node)
        changes = list(differences(before.made.parts, made.parts))
        items = self._run.layout.items_of(node)
        unread = next((self._unread[item] for item in items if item in self._unread), None)
        if unread is not None:
            return unread
        if before.seed != self._run.seed:
            changes.append("its seed has changed")
        if all(each in taken for each in plan.graph.dependencies(node)):
            if before.contents is None or self._run.layout.is_mapped(node):
                return ", ".join(changes) or "its items are others"
            now = self._keys.with_contents(items)[1][0]
            changes += _changed_arguments(
                _arguments(before.made, before.contents, before.seed), _arguments(made, now, self._run.seed)
            )
            return ", ".join(changes) or "its place among the steps has changed"
        return ", ".join(changes) or None


def _arguments(made: Made, contents: bytes, seed: int | None) -> dict[str, bytes]:
    """Return the contents of arguments by name, without the seed, which stands behind them."""
    names = made.arguments if seed is None else made.arguments[:-1]
    return dict(zip(names, split(contents), strict=False))


def _changed_arguments(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> Iterator[str]:
    yield from (f"argument {name!r} has changed" for name, content in now.items() if before.get(name) != content)
    yield from (f"argument {name!r} is gone" for name in before if name not in now)
