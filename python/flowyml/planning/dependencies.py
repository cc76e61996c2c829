"""Dependencies: which step waits for which, and how many items each step has.

```
specs, reads ──bind(), once per spec──▶ templates, references, edges, problems         DependencyBuilder
before binding   items, run inputs, mapped steps of known length ──▶ counts, or UNKNOWN            counts_of
after binding    what each mapped step is made of ──▶ edges item by item, or from the whole list   item_by_item
```

Steps of one spec are bound once and differ only in what they read; consecutive steps of one spec are added in one go.
Steps are numbered from any first id, so that a dynamic step can add some during a run.

An item waits only for the item it is made of if both steps have the same number of items for certain: both lengths are
known, or both follow from the same step. Otherwise it waits for the whole list, and lengths are compared at run time.
"""

from __future__ import annotations

from array import array
from itertools import count
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.planning.binding import bind
from flowyml.planning.globs import is_glob
from flowyml.planning.item_binding import ItemBinder
from flowyml.planning.item_index import UNKNOWN
from flowyml.planning.name_resolution import NameResolver
from flowyml.planning.problems import JOIN_OVER_WHOLE_LIST, SINGLE_USE_VALUE, Problem
from flowyml.steps.options import NO_OPTIONS
from flowyml.steps.outcomes import SINGLE_USE_TYPES, single_use_argument
from flowyml.store.value_store import ListRef, MappedRef

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from flowyml.planning.assets import AssetTable
    from flowyml.planning.binding import BindingResult
    from flowyml.planning.call_template import CallTemplate
    from flowyml.planning.map_inputs import MapColumn
    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.problems import Problems
    from flowyml.planning.step_spec import StepColumns, StepSpec
    from flowyml.store.value_store import Reference


# How many steps are added in one go: twice as many each time, as long as they are alike.
_LEAST, _MOST = 8, 1 << 14


class EdgeList(NamedTuple):
    """Which step waits for which; `elementwise` has a 1 for each edge item by item, up to the last of those."""

    dependents: array[int]
    dependencies: array[int]
    elementwise: bytearray

    def kinds(self) -> bytes | None:
        """Return 1 for each edge that is elementwise, else 0; `None` if none is."""
        return bytes(self.elementwise.ljust(len(self.dependents), b"\0")) if self.elementwise else None

    def add(self, node: int, producers: Sequence[int], *, elementwise: bool = False) -> None:
        """Let a step wait for its producers."""
        if elementwise:
            self.elementwise.extend(bytes(len(self.dependents) - len(self.elementwise)) + b"\1" * len(producers))
        if len(producers) == 1:
            self.dependents.append(node)
            self.dependencies.append(producers[0])
        else:
            self.dependents.extend([node] * len(producers))
            self.dependencies.extend(producers)


def _may_be_once(specs: Sequence[StepSpec], rows: Sequence[Any]) -> bool:
    """Return True if some params may be values that can be read only once: checks the types of all at once."""
    counts = {len(spec.keys) for spec in set(specs)}
    kinds = set(map(type, rows)) if 1 in counts else set()
    if max(counts, default=0) > 1:
        kinds.update(type(value) for row in rows if type(row) is tuple for value in row)
    return not SINGLE_USE_TYPES.isdisjoint(kinds)


class DependencyBuilder:
    """The bindings and dependencies of consecutive steps.

    Args:
        first: The id of the first of them.
        assets: The assets that they see.
        scope: Values of the run's inputs and the contexts.
        problems: Collects what is wrong.

    Attributes:
        first: The id of the first of them.
        assets: The assets that they see.
        scope: Values of the run's inputs and the contexts.
        templates: How each step calls its function; `None` where something is wrong.
        references: What the arguments of the steps that read assets refer to.
        edges: Which step waits for which.
        undefined: Declared inputs that nothing gives, and the steps that declare them.
        used: Names of run inputs and context values that some step reads.
        notes: What is valid about steps, and may be meant otherwise, by the id of their spec.
        defaulted: Parameters of steps that keep their defaults, by the id of their spec.
        specs_with_options: The specs whose steps have options, by id.
        linked: The mapped steps whose items wait for the items they are made of, and the steps of those items.
        has_timeouts: Whether some step has a time limit of its own.
        has_missing: Whether some step has parameters without a value.
    """

    def __init__(self, first: int, assets: AssetTable, scope: Scope, problems: Problems) -> None:
        self.templates: list[CallTemplate | None] = []
        self.references: dict[int, tuple[Reference, ...]] = {}
        self.edges = EdgeList(array("I"), array("I"), bytearray())
        self.undefined: dict[str, list[int]] = {}
        self.used: set[str] = set()
        self.notes: dict[int, tuple[StepSpec, list[str]]] = {}
        self.defaulted: dict[int, tuple[StepSpec, tuple[str, ...]]] = {}
        self.specs_with_options: dict[int, StepSpec] = {}
        self.linked: dict[int, Sequence[int]] = {}
        self.has_timeouts = self.has_missing = self._has_joins = False
        self._lost: dict[int, BindingResult] = {}  # by spec: a step of which nothing that it alone reads exists
        self._mapped: dict[int, BindingResult] = {}  # the steps whose items are made of those of others
        self.first, self.assets, self.scope, self._problems = first, assets, scope, problems

    def connect(self, columns: StepColumns, waiting: Collection[int]) -> None:
        """Bind all steps; `waiting` are those whose number of items is not known."""
        _, specs, rows, reads, _ = columns
        done: dict[int, BindingResult] = {}
        at, end, piece = 0, len(specs), _LEAST
        while at < end:
            spec, node = specs[at], self.first + at
            binding = done.get(id(spec.base))
            if binding is None:
                binding = done[id(spec.base)] = self._bind(spec, reads[at])
                self._connect(node, spec, reads[at], binding)
            elif specs[at - 1] is spec and (taken := self._connect_alike(binding, specs, reads, at, piece)):
                at, piece = at + taken, min(2 * piece, _MOST) if taken == piece else _LEAST
                continue
            elif reads[at] or binding.waits or binding.problems or binding.implicit_producers:
                self._connect_another(node, spec, reads[at], binding)
            else:
                self.templates.append(binding.template)
            at += 1
        self._follow(self._mapped, specs, waiting)
        if _may_be_once(specs, rows):
            for node, spec, row in zip(count(self.first), specs, rows, strict=False):
                self._refuse_once(node, spec, spec.unpack_row(row))

    def _connect_another(self, node: int, spec: StepSpec, own: tuple[str, ...], binding: BindingResult) -> None:
        """Add a step whose spec has been bound."""
        if not own:
            self._connect(node, spec, own, binding)
            return
        link = binding.links.get(own[0]) if binding.links is not None else None
        if link is not None:
            self.templates.append(binding.template)
            self.references[node] = (link,)
            self.edges.dependents.append(node)
            self.edges.dependencies.append(link)
            return
        alike = binding.with_reads(own)
        if alike is not None:
            self._connect(node, spec, own, binding, alike)
        elif not self._connect_lost(node, spec, own):
            binding = self._bind(spec, own)
            if binding.assets is self.assets and len(own) == len(binding.undefined) == len(binding.problems):
                self._lost[id(spec)] = binding
            self._connect(node, spec, own, binding)

    def _connect_lost(self, node: int, spec: StepSpec, own: tuple[str, ...]) -> bool:
        """Add a step if all its own inputs are undefined and enough of those are reported; return True if it is one.

        A wrong loop makes a million of them.
        """
        lost = self._lost.get(id(spec))
        if lost is None or node in lost.implicit_producers or not all(map(self._is_undefined, own)):
            return False
        if not self._problems.count_more(lost.problems[0].kind, len(own)):
            return False
        self.templates.append(None)
        if lost.waits:
            self.references[node] = lost.references
            self.edges.add(node, lost.producers)
        for asset in own:
            self.undefined.setdefault(asset, []).append(node)
        return True

    def _is_undefined(self, asset: str) -> bool:
        return not is_glob(asset) and asset not in self.scope.inputs and self.assets.find(asset) is None

    def _connect(
        self,
        node: int,
        spec: StepSpec,
        own: tuple[str, ...],
        binding: BindingResult,
        alike: tuple[tuple[Reference, ...], Sequence[int]] | None = None,
    ) -> None:
        """Append a step; `alike` is what it reads and waits for if that differs from the binding."""
        if node in binding.implicit_producers:
            alike, binding = None, self._bind(spec, own, without=node)
        self.templates.append(binding.template)
        if binding.problems:
            self._refuse(node, binding)
        if binding.waits:
            self.references[node], producers = alike or (binding.references, binding.producers)
            self.edges.add(node, producers)
            if binding.followed:
                self._mapped[node] = binding

    def _connect_alike(
        self, binding: BindingResult, specs: Sequence[StepSpec], reads: Sequence[tuple[str, ...]], at: int, most: int
    ) -> int:
        """Add at most `most` steps from one on if they have its spec and are simple; return how many were added.

        Simple steps read nothing, or one other step each: a pipeline of a million steps spends most of its planning on
        those.
        """
        links = binding.links
        if links is None and (binding.waits or binding.problems or binding.implicit_producers):
            return 0
        found, own = specs[at : at + most], reads[at : at + most]
        if found.count(found[0]) < len(found):
            own = own[: next(k for k, spec in enumerate(found) if spec is not found[0])]
        node, count = self.first + at, len(own)
        if links is not None:
            producers = [links.get(names[0]) if names else None for names in own]
            if None in producers:
                count = producers.index(None)
                del producers[count:]
            nodes = range(node, node + count)
            self.references.update(zip(nodes, zip(producers, strict=True), strict=True))  # type: ignore[arg-type]
            self.edges.dependents.extend(nodes)
            self.edges.dependencies.extend(producers)  # type: ignore[arg-type]
        elif any(own):
            count = next(k for k, names in enumerate(own) if names)
        self.templates.extend([binding.template] * count)
        return count

    def _refuse(self, node: int, binding: BindingResult) -> None:
        self._problems.add_of_step(node, binding.problems)
        for asset in binding.undefined:
            self.undefined.setdefault(asset, []).append(node)

    def joins(self, specs: Sequence[StepSpec]) -> bytes | None:
        """Return for each step 1 if it is a join; `None` if none is."""
        return bytes(spec.options.run_if == "any" for spec in specs) if self._has_joins else None

    def _follow(self, mapped: dict[int, BindingResult], specs: Sequence[StepSpec], waiting: Collection[int]) -> None:
        """Let mapped steps wait for those whose items theirs are made of: item by item where that can be."""
        first = self.first
        linked = (node for node in item_by_item(mapped, waiting) if not first or min(mapped[node].followed) >= first)
        # Lists of earlier steps are read as a whole: how much of them is known by now depends on timing.
        self.linked = {node: mapped[node].followed for node in linked}
        for node, binding in mapped.items():
            self.edges.add(node, binding.followed, elementwise=node in self.linked)
            if node not in self.linked and specs[node - self.first].options.run_if == "any":
                self._problems.add_of_step(node, [Problem(JOIN_OVER_WHOLE_LIST)])

    def _refuse_once(self, node: int, spec: StepSpec, row: tuple[Any, ...]) -> None:
        """Report params of a step that can be read only once."""
        for key, value in zip(spec.keys, row, strict=False):
            if type(value) in SINGLE_USE_TYPES:
                message = single_use_argument(key, value, "params")
                self._problems.add_of_step(node, [Problem(SINGLE_USE_VALUE, message=message)])

    def _bind(self, spec: StepSpec, own: tuple[str, ...], *, without: int | None = None) -> BindingResult:
        binding = bind(spec, self.assets, self.scope, own, without=without)
        self._has_joins = self._has_joins or spec.options.run_if == "any"
        self.has_timeouts = self.has_timeouts or spec.options.timeout is not None
        self.has_missing = self.has_missing or binding.has_missing
        if spec.options is not NO_OPTIONS:
            self.specs_with_options[id(spec)] = spec
        self.used |= binding.used
        if binding.defaulted:
            self.defaulted[id(spec)] = (spec, binding.defaulted)
        if binding.notes:
            self.notes[id(spec)] = (spec, binding.notes)
        return binding


def counts_of(
    specs: Sequence[StepSpec], assets: AssetTable, scope: Scope, first: int = 0, given: Mapping[int, int] | None = None
) -> array[int]:
    """Return how many items each step has, or `UNKNOWN`.

    Args:
        specs: All specs.
        assets: What the steps see.
        scope: Values of the run's inputs and the contexts.
        first: The step to begin with.
        given: Lengths that are known already, `UNKNOWN` among them.
    """
    known = _KnownCounts(specs, assets, scope, given or {})
    each = enumerate(specs[first:] if first else specs, first)
    return array("I", [1 if spec.map_input is None else known.count(node) for node, spec in each])


class _KnownCounts:
    """Lengths of mapped steps that are known before a run."""

    def __init__(self, specs: Sequence[StepSpec], assets: AssetTable, scope: Scope, given: Mapping[int, int]) -> None:
        self._specs, self._assets, self._scope = specs, assets, scope
        self._counts: dict[int, int] = dict(given)

    def count(self, node: int) -> int:
        """Return the length of one; of those in a cycle nothing is known."""
        if node not in self._counts:
            columns: dict[int, list[int | MappedRef]] = {}

            def sources(node: int) -> list[int]:
                columns[node] = self._columns(node)
                return [each.node for each in columns[node] if isinstance(each, MappedRef)]

            for each in _sources_first(node, sources, self._counts):
                self._counts[each] = self._counted(each, columns[each])
        return self._counts[node]

    def _columns(self, node: int) -> list[int | MappedRef]:
        """Return the length of each column, or the mapped step that has it."""
        map_input = self._specs[node].map_input
        return [self._column(node, column) for column in map_input.columns] if map_input else []

    def _column(self, node: int, column: MapColumn) -> int | MappedRef:
        if not isinstance(column.source, str):
            return len(column.source)
        spec, map_input = self._specs[node], self._specs[node].map_input
        assert map_input is not None  # noqa: S101  it has the column
        names = NameResolver(spec, spec.step.signature, self._assets, self._scope, node)
        items = ItemBinder(names, map_input, is_join=spec.options.run_if == "any")
        items.bind_column(column)
        part = items.parts[-1]
        if not isinstance(part, int):
            return UNKNOWN if part is None or names.problems else len(part)
        reference = names.reference(part)
        if isinstance(reference, MappedRef):
            return reference
        return len(reference.references) if isinstance(reference, ListRef) else UNKNOWN

    def _counted(self, node: int, columns: list[int | MappedRef]) -> int:
        spec = self._specs[node]
        lengths = [self._counts.get(each.node, UNKNOWN) if isinstance(each, MappedRef) else each for each in columns]
        if spec.map_input is None or UNKNOWN in lengths:
            return UNKNOWN
        return min(spec.map_input.count(lengths), UNKNOWN)


def _sources_first(start: int, sources: Callable[[int], Iterable[int]], done: Mapping[int, Any]) -> list[int]:
    """Return a node and the sources it follows from that are not done, each after its own sources."""
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


def item_by_item(mapped: Mapping[int, BindingResult], waiting: Collection[int]) -> set[int]:
    """Return the mapped steps whose items wait for the items they are made of, and not for whole lists.

    Args:
        mapped: The binding of each mapped step that is made of items of others.
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


def _origin(node: int, binding: BindingResult, waiting: Collection[int], origins: Mapping[int, int]) -> int:
    """Return the step whose length a step has for sure; itself, if it has one of its own or its length is known."""
    waits = [node, *binding.followed]
    if not _is_apart(binding) or not binding.is_all_followed or not all(each in waiting for each in waits):
        return node
    roots = {origins.get(each, each) for each in binding.followed}
    return roots.pop() if len(roots) == 1 else node


def _is_apart(binding: BindingResult) -> bool:
    return bool(binding.followed) and set(binding.producers).isdisjoint(binding.followed)
