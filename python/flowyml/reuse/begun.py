"""First steps of a run that its journal would not tell of, although what came after them is finished.

```
a failed item         has no value that could be taken over, but a join, or a reader of its map task, has
a dynamic step        is called anew with what its pipeline gave; the steps of that pipeline are finished
```

The next run looks for its first steps in the journal, to see whether it has anything in common with it. So the key of
such a step is written down, once, as soon as something behind it has been; alone it is nothing to continue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flowyml.reuse.journal_keys import JournalKeys
    from flowyml.running.run import Run


class Begun:
    """The first steps of one run that have ended without being finished.

    Args:
        run: The run.
        keys: The keys of its items.
    """

    def __init__(self, run: Run, keys: JournalKeys) -> None:
        self._run = run
        self._keys = keys
        self._dynamic: dict[int, bytes] = {}  # the keys of dynamic steps as they are before they return a pipeline
        self._open: dict[int, list[int]] = {}
        self._came_from: dict[int, int] = {}
        self._rests: dict[int, bool] = {}
        self._seen: set[int] = set()

    def prepare(self) -> None:
        """Take in the dynamic steps among the first ones, before anything runs."""
        plan = self._run.plan
        if plan.is_dynamic:
            firsts, first = self._run.layout.firsts, filter(self._is_first, plan.dynamic_steps())
            self._dynamic = {node: self._keys.key(firsts[node]) for node in first}
            self._run.grafting.listeners.append(self._grow)

    def failed(self, item: int) -> None:
        """Take in that an item has failed for good."""
        node = self._run.node_of[item]
        if node in self._open or self._is_first(node):
            self._open.setdefault(node, []).append(item)

    def behind(self, items: Iterable[int]) -> bytes:
        """Return the keys of those behind which these items have ended, each once, end to end.

        An item that rests on a finished first step, too, is found by that one: if it has changed, so has the item.
        """
        if not self._open:
            return b""
        nodes = {self._run.node_of[item] for item in items}
        reached = self._reached([node for node in nodes if not self._rests_on_finished(node)])
        return b"".join(key for node in reached for key in self._keys_of(node, self._open.pop(node)))

    def _grow(self, nodes: Sequence[int]) -> None:
        """Take in steps that came during the run: the last of these is the one that they came from."""
        *new, node = nodes
        self._came_from.update(dict.fromkeys(new, node))
        if node in self._dynamic:
            self._open.setdefault(node, [])

    def _keys_of(self, node: int, items: Sequence[int]) -> Sequence[bytes]:
        return [self._dynamic[node]] if node in self._dynamic else [self._keys.key(item) for item in items]

    def _is_first(self, node: int) -> bool:
        """Tell whether a step waits for nothing, as far as was known before the run."""
        plan, layout = self._run.plan, self._run.plan.layout
        return node < layout.nodes and not any(
            each in layout.waiting or layout.items_of(each) for each in plan.graph.dependencies(node)
        )

    def _rests_on_finished(self, node: int) -> bool:
        """Tell whether a step that has ended well is a first one, or has a first one before it that is finished."""
        known, todo = self._rests, [node]
        while todo:
            each = todo[-1]
            before = self._before(each)
            left = [other for other in before if other not in known]
            if left and each not in known:
                todo += left
                continue
            todo.pop()
            if each not in known:
                known[each] = any(map(known.__getitem__, before)) or self._is_finished(each)
        return known[node]

    def _is_finished(self, node: int) -> bool:
        """Tell whether something of a first step has ended well, now that something behind it has."""
        if node in self._dynamic or not self._is_first(node):
            return False
        return len(self._open.get(node, ())) < len(self._run.layout.items_of(node))

    def _before(self, node: int) -> list[int]:
        """Return the steps that a step came after: what it waited for, and the dynamic step that it came from."""
        came_from = self._came_from
        before = [each for each in self._run.plan.waits_for(node) if came_from.get(each) != node]
        return [*before, came_from[node]] if node in came_from else before

    def _reached(self, todo: list[int]) -> Iterator[int]:
        """Go back from steps, along each once, to the open ones."""
        while todo:
            node = todo.pop()
            if node in self._open:
                yield node
            elif node not in self._seen:
                self._seen.add(node)
                todo += self._before(node)
