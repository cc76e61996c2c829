"""The values of one run, by item, and the references to them.

A value keeps the form in which it arrived: executors in this process keep the object itself, process workers send an
*encoded* value, which is decoded when it is first read. The module does not know how values are encoded; it is given
the decoder.

An argument is a *reference*:

```
7                      the value of item 7 (nearly all references have this form)
OutputRef(7, 1)        the second declared output of item 7
MappedRef(3)           the list of the values of the mapped step 3
ListRef((3, 4, 9))     the list of the values of these references: a glob or a list of assets
OptionalRef(...)       one of these, whose values may be missing: `MISSING` for a missing value and for a mapped step
                       with failed or skipped items; a `ListRef` without the missing values
IteratorRef(...)       an iterator over one of these lists, which reads one value at a time
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import pluralize
from flowyml.errors import OutputMismatchError
from flowyml.steps.outcomes import SINGLE_USE_TYPES, PipelineBase, close_iterator, is_pipeline, single_use_error
from flowyml.store.arenas import ENCODED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flowyml.planning.item_index import ItemIndex


class OutputRef(NamedTuple):
    """One declared output of an item that has several."""

    item: int
    part: int


class MappedRef(NamedTuple):
    """The values of a mapped step, as a list; the layout knows its items."""

    node: int


class ListRef(NamedTuple):
    """Several references, as a list."""

    references: tuple[Any, ...]


class OptionalRef(NamedTuple):
    """The existing values of a reference: a join reads values of which some may be missing."""

    reference: Any


class IteratorRef(NamedTuple):
    """The values of a list, one by one: for a step that takes an iterator."""

    reference: Any


Reference: TypeAlias = int | OutputRef | MappedRef | ListRef | OptionalRef | IteratorRef


def unwrap_reference(reference: Any) -> Any:
    """Return a reference without the wrappers that determine how it is read."""
    while isinstance(reference, (OptionalRef, IteratorRef)):
        reference = reference.reference
    return reference


def parts_of(reference: Any, item_index: ItemIndex) -> Iterable[Any] | None:
    """Return the references in a list; `None` for a reference to one value."""
    if isinstance(reference, ListRef):
        return reference.references
    return item_index.items_of(reference.node) if isinstance(reference, MappedRef) else None


def nodes_of(references: Iterable[Any], item_index: ItemIndex) -> Iterator[int]:
    """Yield the steps whose values references read."""
    for reference in references:
        if isinstance(reference, MappedRef):
            yield reference.node
        elif isinstance(reference, ListRef):
            yield from nodes_of(reference.references, item_index)
        elif isinstance(reference, (OptionalRef, IteratorRef)):
            yield from nodes_of((reference.reference,), item_index)
        else:
            yield item_index.node_at(reference if isinstance(reference, int) else reference.item)


class _Missing:
    """The value of an item that has none, not yet or no longer."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


class MultiOutput:
    """The value of a step with several declared outputs, part by part.

    Args:
        parts: The values in the order of the declared outputs, each as it is kept.
        kind: `tuple` or `list`, or the keys of the dict that the step returned, in its order.
        names: The declared outputs.
    """

    __slots__ = ("kind", "names", "parts")

    def __init__(self, parts: tuple[Any, ...], kind: Any, names: tuple[str, ...]) -> None:
        self.parts = parts
        self.kind = kind
        self.names = names

    def whole(self, decode: Callable[[Any], Any]) -> Any:
        """Return the step's return value."""
        parts = [decode(part) for part in self.parts]
        if self.kind in {tuple, list}:
            return self.kind(parts)
        by_name = dict(zip(self.names, parts, strict=True))
        return {key: by_name[key] for key in self.kind}


_PICKLES = frozenset([bytes])


def always(_node: int) -> bool:
    """Return True: the list of each mapped step is a value."""
    return True


class ValueStore:
    """The values of one run.

    Args:
        item_index: Which items each step has.

    Attributes:
        raw: One entry per item, in the form in which it arrived; `MISSING` if there is no value.
        decode: Turns an entry into the object; `None` while entries are the objects.
        decode_all: Turns many pickles into objects; may raise any exception.
        tasks: Functions that return the values of map tasks, by step.
        is_whole: Returns True if a mapped step that has ended counts as a success, so that its list is a value; used
            during the run only.
    """

    __slots__ = ("_decoded", "_item_index", "decode", "decode_all", "dropped", "is_whole", "raw", "tasks")

    def __init__(self, item_index: ItemIndex) -> None:
        self._item_index = item_index
        self.raw: list[Any] = [MISSING] * item_index.item_count
        self.decode: Callable[[Any, int], Any] | None = None
        self.decode_all: Callable[[list[Any]], list[Any]] = list
        self.tasks: Mapping[int, Callable[[ValueStore], Any]] = {}
        self.is_whole: Callable[[int], bool] = always
        self.dropped: set[int] = set()
        self._decoded: dict[int | tuple[int, int], Any] = {}

    def argument(self, reference: Reference) -> Any:
        """Return the value of a reference, in the form in which values are kept."""
        if isinstance(reference, int):
            return self.raw[reference]
        if isinstance(reference, OutputRef):
            return self.raw[reference.item].parts[reference.part]
        if isinstance(reference, MappedRef):
            return self._of_step(reference.node)
        if isinstance(reference, OptionalRef):
            return self._present(reference.reference)
        if isinstance(reference, IteratorRef):
            return self._streamed(reference.reference)
        return [self.argument(part) for part in reference.references]

    def has(self, reference: int | OutputRef) -> bool:
        """Return True if the value of a reference exists."""
        return self.raw[reference if isinstance(reference, int) else reference.item] is not MISSING

    def load(self, reference: int | OutputRef) -> Any:
        """Return a new object of one value, or `MISSING`; only the encoded value is kept.

        Raises:
            ValueLoadError: If it cannot be loaded.
        """
        if isinstance(reference, int):
            raw, item = self.raw[reference], reference
        else:
            whole, item = self.raw[reference.item], reference.item
            raw = whole if whole is MISSING else whole.parts[reference.part]
        return (
            raw.whole(lambda part: self._decode(part, item))
            if isinstance(raw, MultiOutput)
            else self._decode(raw, item)
        )

    def _of_step(self, node: int) -> Any:
        if node in self.tasks:
            return self.tasks[node](self)
        items = self._item_index.items_of(node)
        return self.raw[items.start : items.stop]

    def _streamed(self, reference: Any) -> Any:
        """Return an iterator over the values of a list, or `MISSING` if a join reads a list that has no value."""
        listed = unwrap_reference(reference)
        if isinstance(reference, OptionalRef) and isinstance(listed, MappedRef) and not self.is_whole(listed.node):
            return MISSING
        return self._each(reference)

    def _each(self, reference: Any) -> Iterator[Any]:
        """Yield the values of a list; for a join, only the values that exist."""
        listed = unwrap_reference(reference)
        items = isinstance(listed, MappedRef)
        for part in self._item_index.items_of(listed.node) if items else listed.references:
            value = self._present(part) if isinstance(reference, OptionalRef) or items else self.argument(part)
            if value is not MISSING:
                yield value

    def _present(self, reference: Any) -> Any:
        """Return the value, or `MISSING` if there is none; for several references a list of the values that exist."""
        if isinstance(reference, OutputRef):
            return MISSING if self.raw[reference.item] is MISSING else self.argument(reference)
        if isinstance(reference, MappedRef):
            return self._of_step(reference.node) if self.is_whole(reference.node) else MISSING
        if isinstance(reference, ListRef):
            return [value for value in map(self._present, reference.references) if value is not MISSING]
        return self.raw[reference]

    def read(self, item: int) -> Any:
        """Return the object that an item returned, the same object each time.

        Raises:
            LookupError: If there is none.
            ValueLoadError: If it cannot be loaded.
        """
        raw = self.raw[item]
        if raw is MISSING:
            raise LookupError(item)
        if isinstance(raw, MultiOutput):
            return raw.whole(lambda part: self._decode(part, item))
        return self._once(item, raw, item)

    def read_all(self, items: range) -> list[Any] | None:
        """Return the objects of several items that all have one, as `read` does, but much faster.

        `None` if they cannot be loaded together: they are in arenas, or one cannot be loaded.
        """
        found = self.raw[items.start : items.stop]
        kinds = set() if self.decode is None else ENCODED.intersection(map(type, found))
        if not kinds:
            return None if MultiOutput in map(type, found) else found
        if kinds != _PICKLES or not self._decoded.keys().isdisjoint(items):
            return None
        try:
            loaded = self.decode_all(found)
        except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001  `read` raises it for the item alone
            return None
        return list(map(self._decoded.setdefault, items, loaded))

    def read_output(self, item: int, index: int) -> Any:
        """Return one of several declared outputs of an item, as `read` does."""
        raw = self.raw[item]
        if raw is MISSING:
            raise LookupError(item)
        return self._once((item, index), raw.parts[index], item)

    def drop(self, items: Iterable[int]) -> None:
        """Release values that are no longer needed."""
        for item in items:
            if self.raw[item] is not MISSING:
                self.raw[item] = MISSING
                self.dropped.add(item)

    def _once(self, key: Any, raw: Any, item: int) -> Any:
        if self.decode is None or type(raw) not in ENCODED:
            return raw
        decoded = self._decoded.get(key, MISSING)
        if decoded is MISSING:
            decoded = self._decoded.setdefault(key, self.decode(raw, item))  # of two threads that read it, one is first
        return decoded

    def _decode(self, raw: Any, item: int) -> Any:
        return raw if self.decode is None or type(raw) not in ENCODED else self.decode(raw, item)


def split_outputs(returned: Any, names: tuple[str, ...], step: str) -> MultiOutput | PipelineBase:
    """Split a return value into the declared outputs; a pipeline stays whole.

    Raises:
        OutputMismatchError: If it is not a tuple or list of that length nor a dict with these keys.
        TypeError: If a part can be consumed only once.
    """
    if _is(returned, dict):
        if set(returned) == set(names):
            return MultiOutput(_kept([returned[name] for name in names], names, step), tuple(returned), names)
        raise OutputMismatchError(step, names, f"a dict with the keys {list(returned)}")
    if _is(returned, (tuple, list)):
        if len(returned) == len(names):
            return MultiOutput(_kept(returned, names, step), list if isinstance(returned, list) else tuple, names)
        raise OutputMismatchError(step, names, pluralize(len(returned), "value"))
    if is_pipeline(returned):
        pipeline: PipelineBase = returned
        return pipeline  # the run inserts its steps
    raise OutputMismatchError(step, names, f"one value of type {type(returned).__name__}")


def _is(returned: Any, kinds: type | tuple[type, ...]) -> bool:
    """Return True if a value is an instance; a value whose class raises in the check is not."""
    try:
        return isinstance(returned, kinds)
    except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001  code of the value's class
        return False


def _kept(parts: Sequence[Any], names: tuple[str, ...], step: str) -> tuple[Any, ...]:
    """Return the parts, none of which can be consumed only once."""
    for name, part in zip(names, parts, strict=True):
        if type(part) in SINGLE_USE_TYPES:
            raise single_use_error(step, close_iterator(part), name)
    return tuple(parts)
