"""Lengths: how many items mapped steps have, as far as a plan can know, and who learns it with whom.

```
before wiring   items, run inputs, mapped steps of known length ──▶ counts: a number, or UNKNOWN
after wiring    what each mapped step is made of ──▶ edges item by item, or from the whole
```

An item waits for the item it is made of, no longer, where both steps are sure to have as many: both lengths are known,
or both follow from the same step. Else it waits for the whole list, and lengths are compared when they are there.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from flowyml.planning.layout import UNKNOWN
from flowyml.planning.wiring import Wiring
from flowyml.store.values import Gather, Items, bare

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from flowyml.planning.forms import Assets, Form
    from flowyml.planning.over import Column
    from flowyml.planning.scope import Scope
    from flowyml.planning.wired import Wired


def counts_of(
    forms: Sequence[Form], assets: Assets, scope: Scope, first: int = 0, given: Mapping[int, int] | None = None
) -> array[int]:
    """Return how many items each step has, or `UNKNOWN`.

    Args:
        forms: All forms.
        assets: What the steps see.
        scope: Values of the run's inputs and the contexts.
        first: The step to begin with.
        given: Lengths that are known already, `UNKNOWN` among them.
    """
    known = _Known(forms, assets, scope, given or {})
    each = enumerate(forms[first:] if first else forms, first)
    return array("I", [1 if form.over is None else known.count(node) for node, form in each])


class _Known:
    """Lengths of mapped steps that follow from what is known before a run."""

    def __init__(self, forms: Sequence[Form], assets: Assets, scope: Scope, given: Mapping[int, int]) -> None:
        self._forms, self._assets, self._scope = forms, assets, scope
        self._counts: dict[int, int] = dict(given)

    def count(self, node: int) -> int:
        """Return the length of one; of those in a cycle nothing is known."""
        if node not in self._counts:
            columns: dict[int, list[int | Items]] = {}

            def sources(node: int) -> list[int]:
                columns[node] = self._columns(node)
                return [each.node for each in columns[node] if isinstance(each, Items)]

            for each in _sources_first(node, sources, self._counts):
                self._counts[each] = self._counted(each, columns[each])
        return self._counts[node]

    def _columns(self, node: int) -> list[int | Items]:
        """Return the length of each column, or the mapped step that has it."""
        over = self._forms[node].over
        return [self._column(node, column) for column in over.columns] if over else []

    def _column(self, node: int, column: Column) -> int | Items:
        if not isinstance(column.source, str):
            return len(column.source)
        wiring = Wiring(self._forms[node], self._assets, self._scope, None, node)
        wiring.column(column)
        part = wiring.parts[-1]
        if not isinstance(part, int):
            return UNKNOWN if part is None or wiring.problems else len(part)
        reference = bare(wiring.references[part])
        if isinstance(reference, Items):
            return reference
        return len(reference.references) if isinstance(reference, Gather) else UNKNOWN

    def _counted(self, node: int, columns: list[int | Items]) -> int:
        form = self._forms[node]
        lengths = [self._counts.get(each.node, UNKNOWN) if isinstance(each, Items) else each for each in columns]
        if form.over is None or UNKNOWN in lengths:
            return UNKNOWN
        return min(form.over.count(lengths), UNKNOWN)


def _sources_first(start: int, sources: Callable[[int], Iterable[int]], done: Mapping[int, Any]) -> list[int]:
    """Return what a node follows from and is not done, each after its own sources, the node last."""
    order: list[int] = []
    entered, stack = set(), [start]
    while stack:
        node = stack.pop()
        if node < 0:
            order.append(~node)
        elif node not in entered and node not in done:
            entered.add(node)
            stack.append(~node)
            stack.extend(sources(node))
    return order


def item_by_item(mapped: Mapping[int, Wired], waiting: Collection[int]) -> set[int]:
    """Return the mapped steps whose items wait for the items they are made of, and not for whole lists.

    Args:
        mapped: The wiring of each mapped step that is made of items of others.
        waiting: The steps whose number of items is not known.
    """
    origins: dict[int, int] = {}
    for start in mapped:
        for node in _sources_first(start, lambda each: mapped[each].followed if each in mapped else (), origins):
            origins[node] = _origin(node, mapped[node], waiting, origins) if node in mapped else node
    return {
        node
        for node, origin in origins.items()
        if origin != node or (node in mapped and _is_apart(mapped[node]) and node not in waiting)
    }


def _origin(node: int, wired: Wired, waiting: Collection[int], origins: Mapping[int, int]) -> int:
    """Return the step whose length a step has for sure; itself, if it has one of its own or its length is known."""
    waits = [node, *wired.followed]
    if not _is_apart(wired) or not wired.is_all_followed or not all(each in waiting for each in waits):
        return node
    roots = {origins.get(each, each) for each in wired.followed}
    return roots.pop() if len(roots) == 1 else node


def _is_apart(wired: Wired) -> bool:
    """Tell whether a step follows others and reads nothing else of them."""
    return bool(wired.followed) and set(wired.producers).isdisjoint(wired.followed)
