"""Call templates: how the steps of one spec call their function.

```
CallTemplate.sources ──▶ (kind, which) of each argument ──assemble(row, item, references, read)──▶ arguments ──▶ call
```

`binding.py` makes templates, executors read them. The module knows neither graphs nor runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.diagnostics.tracebacks import user_code_boundary
from flowyml.errors import StepNotRunError
from flowyml.steps.decision_context import DecisionContext, EncodedItems, VisibleStep
from flowyml.store.value_store import MISSING, ListRef, MappedRef, MultiOutput, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flowyml.planning.map_inputs import MapInput

# Kinds of sources. PARAM, ASSET and VALUE are a param, another step's value and a constant; SPREAD is a list whose
# values are passed to *args. CHOICE is an asset, or in a join the parameter's default if the asset has no value. VIEW
# is a decision's view of the steps before it. ITEM is the mapped step's item, or one of the values in it; KEPT is the
# same if those are references to values of other steps.
PARAM, ITEM, ASSET, VALUE, SPREAD, CHOICE, VIEW, KEPT = range(8)
_PARTS = frozenset((PARAM, ASSET, VALUE))


class ItemColumns(NamedTuple):
    """What the items of a mapped step are made of.

    Attributes:
        map_input: The lists, as they were given.
        parts: The values of each list, or the index of the reference to them; `None` while nothing gives it.
    """

    map_input: MapInput
    parts: tuple[Sequence[Any] | int | None, ...]


@dataclass(slots=True, eq=False)
class CallTemplate:
    """How the steps of one spec call their function.

    Attributes:
        function: What is called.
        sources: `(kind, which)` of each argument in call order; the last `len(keywords)` are passed by keyword.
        keywords: Names of the arguments that are passed by keyword.
        several: How many outputs are declared, if there are two or more; their names are those of each step's spec.
        map_input: What the items of a mapped step are made of.
        has_single_param: Whether the rows hold the only parameter itself; see `StepSpec.has_single_param`.
        direct: The parameters, as given, are the positional arguments: nothing has to be assembled.
        single: The item of a mapped step is the only argument,
        kept: or the value of another step, which the item points at.
        parts: The sources, where all are parameters, values of other steps and constants, and nothing else has to be
            done: then the core puts the arguments side by side (`rust/python/turn/steps.rs`).
    """

    function: Callable[..., Any]
    sources: tuple[tuple[int, Any], ...]
    keywords: tuple[str, ...]
    several: int
    map_input: ItemColumns | None
    has_single_param: bool
    direct: bool = field(init=False)
    single: bool = field(init=False)
    kept: bool = field(init=False)
    parts: tuple[tuple[int, Any], ...] | None = field(init=False)

    def __post_init__(self) -> None:
        plain = not self.keywords and not self.several
        self.direct = plain and all(s == (PARAM, k) for k, s in enumerate(self.sources)) and self.map_input is None
        self.single = plain and self.sources == ((ITEM, None),)
        self.kept = plain and self.sources == ((KEPT, None),)
        simple = plain and self.map_input is None and all(kind in _PARTS for kind, _ in self.sources)
        self.parts = self.sources if simple else None

    def assemble(self, row: tuple[Any, ...], item: Any, references: Sequence[Reference], read: Any) -> list[Any]:
        """Return the arguments in call order; `read` turns a reference into a value."""
        arguments: list[Any] = []
        for kind, which in self.sources:
            if kind == PARAM:
                arguments.append(row[which])
            elif kind == ASSET:
                arguments.append(read(references[which]))
            elif kind == VALUE:
                arguments.append(which)
            elif kind == ITEM:
                arguments.append(item if which is None else item[which])
            elif kind == KEPT:
                arguments.append(there(read(item if which is None else item[which])))
            elif kind == CHOICE:
                value = read(references[which[0]])
                arguments.append(which[1] if value is MISSING else value)
            elif kind == VIEW:
                arguments.append(which.seen(references, read))
            elif (values := read(references[which])) is not MISSING:
                arguments.extend(values)
        return arguments

    @user_code_boundary
    def call(self, arguments: Sequence[Any]) -> Any:
        """Call the function with assembled arguments."""
        count = len(self.keywords)
        if not count:
            return self.function(*arguments)
        return self.function(*arguments[:-count], **dict(zip(self.keywords, arguments[-count:], strict=True)))


def there(value: Any) -> Any:
    """Return a value that an item is made of.

    Raises:
        StepNotRunError: If there is none: the map task that it belongs to continued without it.
    """
    if value is MISSING:
        raise StepNotRunError("what this item is made of", "it failed or was skipped")
    return value


class DecisionInput(NamedTuple):
    """What a decision, or a condition, may read.

    Attributes:
        before: The steps, in the order of the references to their values.
        params: The context and the run's inputs.
        given: What the pipeline around a sub-pipeline gives: names with the places of their references.
        first: The place of the first of those references.
    """

    before: tuple[VisibleStep, ...]
    params: dict[str, Any]
    given: tuple[tuple[str, int], ...] = ()
    first: int = 0

    def seen(
        self, references: Sequence[Any], read: Any, decode: Callable[[bytes], Any] | None = None
    ) -> DecisionContext:
        """Return the view with the values of a run; `decode` deserializes what `read` returns."""
        values: dict[str, Sequence[Any]] = {}
        for before, reference in zip(self.before, references[self.first :], strict=False):
            kept = read(reference)
            if isinstance(kept, MultiOutput):
                values[before.name] = kept.parts
            elif kept is not MISSING:
                values[before.name] = (_kept(kept, reference),)
        given = [(name, references[at], read(references[at])) for name, at in self.given]
        known = {name: _kept(kept, reference) for name, reference, kept in given if kept is not MISSING}
        return DecisionContext(self.before, values, self.params, decode, known)


def _kept(kept: Any, reference: Any) -> Any:
    listed = isinstance(reference.reference, (MappedRef, ListRef)) and isinstance(kept, list)
    return EncodedItems(kept) if listed else kept


def rows_alike(templates: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """Yield the first step of each row of steps that have the same template, and the end of the row."""
    node = 0
    while node < len(templates):
        end = last_alike(templates, node, len(templates))
        yield node, end
        node = end


def last_alike(templates: Sequence[Any], first: int, end: int) -> int:
    """Return the end of the steps from the first on that have the same template.

    Compares piece by piece, each twice as long as the one before: a tenth of the cost of a loop where many are alike.
    """
    template, last, piece = templates[first], first + 1, 1
    while last < end:
        found = templates[last : min(end, last + piece)]
        if found.count(template) < len(found):
            if piece == 1:
                break
            piece = 1
            continue
        last, piece = last + len(found), 2 * piece
    return last
