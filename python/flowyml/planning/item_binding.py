"""Item wiring: what the items of a mapped step are made of, and which parameters take them.

```
Over (what `map` was told) ──column by column──▶ parts: the values themselves, or the place of a reference to them
                                            └──▶ sources of parameters: ITEM, or KEPT where it is another step's value
```

Lengths that are known are compared here, before anything runs; the others are compared in the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import join_names, pluralize
from flowyml.planning.call_template import ITEM, KEPT, VALUE
from flowyml.planning.item_index import UNKNOWN
from flowyml.planning.name_resolution import NameResolver
from flowyml.planning.problems import (
    DIFFERENT_LENGTHS,
    GIVEN_TWICE,
    JOIN_OVER_WHOLE_LIST,
    NO_ITEMS,
    NO_PARAMETER_FOR_ITEMS,
    NO_SIGNATURE,
    TOO_MANY_ITEMS,
    UNKNOWN_PARAMETER,
    Problem,
)
from flowyml.store.value_store import ListRef, MappedRef, OutputRef

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowyml.planning.map_inputs import MapColumn
    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.step_spec import AssetTable, StepSpec
    from flowyml.steps.declarations import Inputs


class ItemBinder(NameResolver):
    """The part of a wiring that concerns the items of a mapped step.

    Attributes:
        sources: `(kind, which)` of each parameter that is filled.
        spread: The same for the values of `*args`.
        parts: What each list that the step runs over is; `None` while nothing gives it.
        followed: Mapped steps whose items those of this one are made of.
        implicit: Parameters that take an asset of their own name without declaring it.
        missing: Parameters that nothing fills, and that have no declared input.
        unknown: How many names in params or inputs are no parameters; each may be meant for a missing one.
    """

    def __init__(
        self, form: StepSpec, assets: AssetTable, scope: Scope, inputs: Inputs | None, without: int | None
    ) -> None:
        super().__init__(form, assets, scope, without)
        self.inputs = inputs
        self.sources: dict[str, tuple[int, Any]] = {}
        self.spread: list[tuple[int, Any]] = []
        self.parts: list[Sequence[Any] | int | None] = []
        self.followed: list[int] = []
        self.implicit: set[str] = set()
        self.missing: list[str] = []
        self.unknown = 0

    def _take_items(self) -> None:
        """The values of the items go to their parameters: those named, then one of an asset's name, then any free."""
        if self.form.over is None:
            return
        columns = self.form.over.columns
        sources = list(map(self.column, columns))
        self._compare_lengths()
        wanted = [column.parameter or self._named_like(column.source) for column in columns]
        for parameter, column, source in zip(wanted, columns, sources, strict=True):
            if parameter is not None:
                self._give_item(parameter, source, column.parameter)
        for parameter, column, source in zip(wanted, columns, sources, strict=True):
            if parameter is None:
                self._give_free(column.source, source)

    def _spread_items(self) -> None:
        for column in self.form.over.columns if self.form.over else ():
            self.spread.append(self.column(column))
            if column.parameter is not None:
                self.problems.append(Problem(NO_SIGNATURE, remedy="give over as a list, in order"))
        self._compare_lengths()

    def _named_like(self, source: Any) -> str | None:
        free = isinstance(source, str) and source in self.own.names and source not in self.sources
        return source if free and source not in self._named_inputs() else None

    def _give_item(self, parameter: str, source: tuple[int, Any], declared: str | None) -> None:
        if declared and not self.signature.takes(parameter):
            self._refuse_unknown(parameter, "over")
        elif parameter in self.sources:
            self.problems.append(Problem(GIVEN_TWICE, parameter=parameter))
        else:
            self.sources[parameter] = source

    def _give_free(self, wanted: Any, source: tuple[int, Any]) -> None:
        """Take the first parameter that is free, by position if there is such a one."""
        signature, named = self.signature, self._named_inputs()
        free = [name for name in self.own.names if name not in self.sources and name not in named]
        if free and (free[0] in signature.positional or not signature.var_positional):
            self.sources[free[0]] = source
        elif signature.var_positional:
            self.spread.append(source)
        else:
            source_name = repr(wanted) if isinstance(wanted, str) else "the map"
            self.problems.append(Problem(NO_PARAMETER_FOR_ITEMS, source=source_name))

    def column(self, column: MapColumn) -> tuple[int, Any]:
        """Return how an item reads a list that the step runs over, and note where the list comes from."""
        assert self.form.over is not None  # noqa: S101  only mapped steps have columns
        at, place, wanted = len(self.producers), len(self.parts), column.source
        which = place if len(self.form.over.columns) > 1 else None
        if not isinstance(wanted, str):
            self.parts.append(wanted)
            return ITEM, which
        source = self._implicit_list(wanted) if column.implicit else self._named_list(wanted)
        if source is None or source[0] == VALUE:
            self.parts.append(self._run_items(wanted, source[1]) if source else None)
            return ITEM, which
        self.parts.append(source[1])
        reference = self._reference(source[1])
        if isinstance(reference, MappedRef) and not self.form.over.product:
            self.followed += self.producers[at:]
            del self.producers[at:]
        elif self.joins and not isinstance(reference, (int, OutputRef)):
            self.problems.append(Problem(JOIN_OVER_WHOLE_LIST))
        return ITEM if isinstance(reference, (int, OutputRef)) else KEPT, which

    def _named_list(self, name: str) -> tuple[int, Any] | None:
        """Find a list by its name: like a declared input, or else among the values of a context."""
        if name not in self.scope.context or self._is_pattern(name) or self.assets.find(name) is not None:
            return self._source(name)
        source = self._outside(name, declared=False) or self.scope.find(name)
        if source is not None and source[0] == VALUE:
            self.used.add(name)
        return source

    def _implicit_list(self, name: str) -> tuple[int, Any] | None:
        """Find a list that nobody named like any parameter: what is missing may come with the run."""
        found = self.assets.find(name)
        if found is not None and found[0] not in self.hidden:
            self.own_risk.add(found[0])
            self.implicit.add(name)
            return self._asset(self.assets.reference(found), [found[0]])
        source = self._outside(name, declared=False) or self._from_scope(name)
        if source is None:
            self.missing.append(name)
        return source

    def _compare_lengths(self) -> None:
        """Lengths that are known differ before anything runs; the others are compared in the run."""
        over = self.form.over
        lengths = {at: length for at, part in enumerate(self.parts) if (length := self._length(part)) is not None}
        if over is None or not lengths or self.problems:
            return
        if not over.product and len(set(lengths.values())) > 1:
            listed_lengths = (f"{over.named(at)} has {pluralize(length, 'item')}" for at, length in lengths.items())
            self.problems.append(Problem(DIFFERENT_LENGTHS, lengths=", ".join(listed_lengths)))
        elif (count := over.count([*lengths.values()])) >= UNKNOWN:
            self.problems.append(Problem(TOO_MANY_ITEMS, count=count, limit=UNKNOWN - 1))

    def _length(self, part: Sequence[Any] | int | None) -> int | None:
        if not isinstance(part, int):
            return None if part is None else len(part)
        reference = self._reference(part)
        if isinstance(reference, MappedRef):
            waits = reference.node in self._whole[0].layout.waiting
            return None if waits else len(self._whole[0].layout.items_of(reference.node))
        return len(reference.references) if isinstance(reference, ListRef) else None

    def _run_items(self, name: str, value: Any) -> Sequence[Any]:
        try:
            return self.scope.items(value)
        except TypeError as error:
            self.problems.append(Problem(NO_ITEMS, name=name, found=str(error)))
            return ()

    def _named_inputs(self) -> set[str]:
        if self.inputs is None:
            return set()
        return {self.inputs} if isinstance(self.inputs, str) else set(self.inputs)

    def _refuse_unknown(self, parameter: str, where: str) -> None:
        self.unknown += 1
        self.problems.append(
            Problem(UNKNOWN_PARAMETER, parameter=parameter, argument=where, hint=self._takes(parameter))
        )

    def _takes(self, parameter: str) -> str:
        """Say which parameter could be meant, or which there are."""
        signature = self.signature
        if parameter == signature.var_positional:
            return f"; *{parameter} takes inputs: inputs={{{parameter!r}: [...]}}"
        return (
            self._whole[0].near_parameter(parameter, signature)
            or f"; it takes {join_names(signature.names) or 'no parameters'}"
        )
