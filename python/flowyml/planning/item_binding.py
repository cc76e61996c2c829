"""Item binding: what the items of a mapped step are made of.

```
MapInput (the lists of `map`) ──column by column──▶ parts: the values themselves, or the index of a reference to them
                                               └──▶ source: ITEM, or KEPT if an item is another step's value
```

Lengths that are known are compared here, before anything runs; the others are compared during the run. Which parameter
gets a column is decided in `binding.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import pluralize
from flowyml.planning.call_template import ITEM, KEPT, VALUE
from flowyml.planning.item_index import UNKNOWN
from flowyml.planning.problems import DIFFERENT_LENGTHS, JOIN_OVER_WHOLE_LIST, NO_ITEMS, TOO_MANY_ITEMS, Problem
from flowyml.store.value_store import ListRef, MappedRef, OutputRef

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowyml.planning.map_inputs import MapColumn, MapInput
    from flowyml.planning.name_resolution import NameResolver, Source


class ItemBinder:
    """The lists that a mapped step runs over.

    Args:
        names: What names stand for; gets the references, dependencies and problems.
        map_input: The lists.
        is_join: Whether the step runs although steps before it failed.

    Attributes:
        map_input: The lists, as they were given.
        parts: The values of each list, or the index of the reference to them; `None` while nothing gives it.
        followed: Mapped steps whose items are the items of this one.
        missing: Lists that nothing gives, and that were not declared.
    """

    def __init__(self, names: NameResolver, map_input: MapInput, *, is_join: bool) -> None:
        self._names, self.map_input, self._is_join = names, map_input, is_join
        self.parts: list[Sequence[Any] | int | None] = []
        self.followed: list[int] = []
        self.missing: list[str] = []

    def bind(self) -> list[Source]:
        """Return how an item reads each of the lists."""
        sources = list(map(self.bind_column, self.map_input.columns))
        self._compare_lengths()
        return sources

    def bind_column(self, column: MapColumn) -> Source:
        """Return how an item reads a list, and record where the list comes from."""
        names, index, wanted = self._names, len(self.parts), column.source
        first_producer, which = len(names.producers), index if len(self.map_input.columns) > 1 else None
        if not isinstance(wanted, str):
            self.parts.append(wanted)
            return ITEM, which
        source = self._implicit_list(wanted) if column.implicit else self._declared_list(wanted)
        if source is None or source[0] == VALUE:
            self.parts.append(self._run_items(wanted, source[1]) if source else None)
            return ITEM, which
        self.parts.append(source[1])
        reference = names.reference(source[1])
        if isinstance(reference, MappedRef) and not self.map_input.product:
            self.followed += names.producers[first_producer:]
            del names.producers[first_producer:]
        elif self._is_join and not isinstance(reference, (int, OutputRef)):
            names.problems.append(Problem(JOIN_OVER_WHOLE_LIST))
        return ITEM if isinstance(reference, (int, OutputRef)) else KEPT, which

    def _declared_list(self, name: str) -> Source | None:
        """Find a list like a declared input, or else among the values of a context."""
        names = self._names
        if name not in names.scope.context or names.is_pattern(name) or names.assets.find(name) is not None:
            return names.source(name)
        source = names.outside(name, declared=False) or names.scope.find(name)
        if source is not None and source[0] == VALUE:
            names.used.add(name)
        return source

    def _implicit_list(self, name: str) -> Source | None:
        """Find a list like a parameter that nothing was declared for: a run may still give what is missing."""
        source = self._names.implicit_source(name) or self._names.value_source(name)
        if source is None:
            self.missing.append(name)
        return source

    def _compare_lengths(self) -> None:
        names, map_input = self._names, self.map_input
        lengths = {at: length for at, part in enumerate(self.parts) if (length := self._length(part)) is not None}
        if not lengths or names.problems:
            return
        if not map_input.product and len(set(lengths.values())) > 1:
            described = (f"{map_input.named(at)} has {pluralize(length, 'item')}" for at, length in lengths.items())
            names.problems.append(Problem(DIFFERENT_LENGTHS, lengths=", ".join(described)))
        elif (count := map_input.count([*lengths.values()])) >= UNKNOWN:
            names.problems.append(Problem(TOO_MANY_ITEMS, count=count, limit=UNKNOWN - 1))

    def _length(self, part: Sequence[Any] | int | None) -> int | None:
        if not isinstance(part, int):
            return None if part is None else len(part)
        reference = self._names.reference(part)
        if isinstance(reference, MappedRef):
            item_index = self._names.root.item_index
            return None if reference.node in item_index.waiting else len(item_index.items_of(reference.node))
        return len(reference.references) if isinstance(reference, ListRef) else None

    def _run_items(self, name: str, value: Any) -> Sequence[Any]:
        try:
            return self._names.scope.items(value)
        except TypeError as error:
            self._names.problems.append(Problem(NO_ITEMS, name=name, found=str(error)))
            return ()
