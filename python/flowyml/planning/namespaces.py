"""Namespaces: where the steps of a sub-pipeline look up names.

```
AssetTable (all names of a pipeline) ◀──"etl."── NamespaceView: the sub-pipeline's own names ──given──▶ the names around
```

The steps of a sub-pipeline are stored in the columns of the pipeline that it was added to, under names with a prefix,
and still use the names that they were added with: a spec refers to its namespace, and `NamespaceView` puts the prefix
before each name. A name that the sub-pipeline does not produce is looked up in the pipeline around it: under the name
that was given, or under the same name if none was. Namespaces are nested as sub-pipelines are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml.diagnostics.text import did_you_mean, join_names
from flowyml.planning.globs import GlobIndex, is_glob
from flowyml.planning.problems import (
    EXPORT_TAKEN,
    STEP_NAMED_AS_SUB_PIPELINE,
    UNKNOWN_EXPORT,
    UNUSED_INPUT,
    Problem,
)
from flowyml.planning.step_spec import StepColumns

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
    from typing import Literal

    from flowyml.planning.assets import AssetTable
    from flowyml.planning.globs import Found
    from flowyml.planning.step_spec import SourceLocation, StepSpec
    from flowyml.store.value_store import Reference

    Names: TypeAlias = "AssetTable | NamespaceView"
    """Where names are looked up: all of a pipeline, or inside a sub-pipeline."""

Wanted: TypeAlias = "str | Sequence[str]"
"""What a sub-pipeline is given under one of its names: an asset of the pipeline around it, a glob, a list of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Namespace:
    """A sub-pipeline in the pipeline that it was added to.

    Attributes:
        name: Its name there; of one in another, with the other's before it: "etl.load".
        steps: Its steps by number, those of sub-pipelines in it among them.
        outer: The sub-pipeline around it, if it is in one.
        given: What the pipeline around it gives, by its own names; `None`: everything it lacks, by the same name.
        exports: By an asset of its own, the name that this has in the pipeline around it.
        after: The steps around it that its first steps wait for.
        context: Its own context values.
        place: Where it was added.
        grafted: Whether a dynamic step returned it.
        types: What a type mismatch of its steps is; `None`: the same as around it.
    """

    name: str
    steps: range
    outer: Namespace | None
    given: Mapping[str, Wanted] | None
    exports: Mapping[str, str]
    after: tuple[str, ...]
    context: Mapping[str, Any]
    place: SourceLocation
    grafted: bool = False
    types: Literal["warn", "error"] | None = None

    @property
    def prefix(self) -> str:
        """The prefix of the names of its steps and assets."""
        return f"{self.name}."

    def moved(self, into: Namespace, first: int) -> Namespace:
        """Return it as part of a pipeline that has become a sub-pipeline itself; it is in one, or directly in `into`.

        Args:
            into: The new sub-pipeline, or the one in it that it is in.
            first: How many steps stand before those of the pipeline it was in.
        """
        own = self.name if self.outer is None else self.name.removeprefix(self.outer.prefix)
        steps = range(self.steps.start + first, self.steps.stop + first)
        return replace(self, name=f"{into.prefix}{own}", steps=steps, outer=into)


def types_mode(within: Namespace | None, around: Literal["warn", "error"] | None) -> Literal["warn", "error"] | None:
    """Return what a type mismatch of a step is.

    Args:
        within: The sub-pipeline that the step is in.
        around: The mode of the whole pipeline.
    """
    while within is not None and within.types is None:
        within = within.outer
    return around if within is None else within.types


def inlined(columns: StepColumns, whole: Namespace) -> StepColumns:
    """Return the columns of a pipeline as part of another one: numbered from there on, behind its prefix."""
    moved: dict[Namespace | None, Namespace] = {None: whole}
    for each in reversed(columns.namespaces):  # outer ones first
        moved[each] = each.moved(moved[each.outer], whole.steps.start)
    prefix = whole.prefix
    specs = {spec: spec.moved(moved[spec.within], prefix) for spec in dict.fromkeys(columns.specs)}
    names = dict(zip(map(prefix.__add__, columns.names), whole.steps, strict=True))
    inner = [*(moved[each] for each in columns.namespaces), whole]
    return StepColumns(names, list(map(specs.__getitem__, columns.specs)), columns.rows, columns.reads, inner)


class NamespaceView:
    """The assets of a sub-pipeline by its own names; the methods are those of `AssetTable`.

    Args:
        root: All assets.
        outer: What the pipeline around it sees.
        namespace: The sub-pipeline.

    Attributes:
        asked: The given names that some step reads.
    """

    def __init__(self, root: AssetTable, outer: Names, namespace: Namespace) -> None:
        self.specs = root.specs
        self.outer = outer
        self.namespace = namespace
        self.asked: set[str] = set()
        self._root = root

    def number(self, name: str) -> int | None:
        """Return the id of a step."""
        number = self._root.number(self.namespace.prefix + name)
        return number if number in self.namespace.steps else None

    def steps(self, name: str) -> Sequence[int] | None:
        """Return the id of the step of that name, or those of all steps of a sub-pipeline in it."""
        return self._root.steps(self.namespace.prefix + name)

    def find(self, asset: str) -> Found | None:
        """Return the producer of an asset."""
        found = self._root.find(self.namespace.prefix + asset)
        return found if found is not None and found[0] in self.namespace.steps else None

    def match(self, pattern: str) -> list[Found]:
        """Return all assets that match a glob, in add order."""
        return self._globs.match(pattern)

    @cached_property
    def _globs(self) -> GlobIndex:
        return GlobIndex(self.each())

    def each(self) -> Iterator[tuple[str, Found]]:
        """Yield the sub-pipeline's assets, each under all the names that it has there."""
        prefix = self.namespace.prefix
        for asset, found in self._root.each(self.namespace.steps):
            if asset.startswith(prefix):
                yield asset[len(prefix) :], found

    @property
    def names(self) -> Iterator[str]:
        """The names of its steps."""
        return (name[len(self.namespace.prefix) :] for name in map(self._root.name_of, self.namespace.steps))

    def reference(self, found: Found) -> Reference:
        """Return the reference to an asset's value."""
        return self._root.reference(found)

    def wanted(self, name: str, *, declared: bool) -> Wanted | None:
        """Return what the pipeline around it gives under a name that the sub-pipeline does not produce.

        Args:
            name: The name of an asset or a parameter, or a glob.
            declared: Whether it is a declared input; a parameter takes a value of the sub-pipeline's own context first.
        """
        given = self.namespace.given
        if given is not None:
            if name in given:
                self.asked.add(name)
            return given.get(name)
        if not declared and name in self.namespace.context:
            return None
        return name if reaches(self.outer, name, self.namespace.steps, declared=declared) else None

    def handed(self) -> list[str]:
        """Return the names under which the pipeline around it may give something."""
        given, steps = self.namespace.given, self.namespace.steps
        if given is not None:
            return list(given)
        specs = dict.fromkeys(self.specs[steps.start : steps.stop])
        names = dict.fromkeys(chain.from_iterable(map(needs_of, specs)))
        return [name for name in names if self.find(name) is None and self.wanted(name, declared=False)]

    # -- for messages

    def hint(self, asset: str, more: Iterable[str] = ()) -> str:
        """Return a hint for an asset that does not exist; `more` are other names that are allowed."""
        node = self.number(asset)
        if node is not None:
            return f"; {asset!r} is a step, its outputs are {join_names(self.specs[node].parts)}"
        return self.near(asset, chain(more, self.known()))

    def known(self) -> Iterator[str]:
        """Yield the names that a step may read."""
        given = self.namespace.given
        yield from (asset for asset, _ in self.each())
        yield from self.outer.known() if given is None else given

    def near(self, name: str, known: Iterable[str]) -> str:
        """Return ", did you mean ...?", for the first few names that are asked for."""
        return self._root.near(name, known)

    def close(self, name: str, more: Iterable[str]) -> list[str]:
        """Return the assets and other names that are like one, for the first few that are asked for."""
        return self._root.near_names(name, chain(more, self.known()))

    def origin(self, name: str) -> str | None:
        """Return where an asset or step of that name is, in words, if there is one."""
        if self.number(name) is None and self.find(name) is None:
            return self.outer.origin(name)
        return self._root.origin(self.namespace.prefix + name)


def inside(root: AssetTable, namespace: Namespace | None) -> Names:
    """Return what the steps of a sub-pipeline see, the same object each time; of none, all assets."""
    if namespace is None:
        return root
    if namespace not in root.inner:
        root.inner[namespace] = NamespaceView(root, inside(root, namespace.outer), namespace)
    found: NamespaceView = root.inner[namespace]
    return found


def reaches(names: Names, name: str, hidden: Container[int], *, declared: bool) -> bool:
    """Return True if a step, or a pipeline around, has an asset of that name or one that matches the glob."""
    found = names.find(name)
    if found is not None and found[0] not in hidden:
        return True
    if is_glob(name) and any(node not in hidden for node, _ in names.match(name)):
        return True
    return isinstance(names, NamespaceView) and names.wanted(name, declared=declared) is not None


def reached(names: Names, asset: str, *, declared: bool = True) -> Found | None:
    """Return the producer of one asset, inside or in a pipeline around; `None` if the name means anything else.

    The inputs of a sub-pipeline are looked up around it like a parameter, so values of contexts there go first.
    """
    found = names.find(asset)
    if found is not None or not isinstance(names, NamespaceView) or is_glob(asset):
        return found
    wanted = names.wanted(asset, declared=declared)
    return reached(names.outer, wanted, declared=False) if isinstance(wanted, str) else None


def needs_of(spec: StepSpec) -> Iterator[str]:
    """Yield the names that a step may look up: declared inputs, lists of a map, parameters."""
    inputs = spec.inputs
    if isinstance(inputs, str):
        yield inputs
    elif inputs is not None:
        for wanted in inputs.values() if hasattr(inputs, "values") else inputs:
            yield from (wanted,) if isinstance(wanted, str) else wanted
    if spec.map_input is not None:
        yield from (column.source for column in spec.map_input.columns if isinstance(column.source, str))
    yield from spec.parameters


def enter(assets: AssetTable, namespaces: Sequence[Namespace]) -> Iterator[Problem]:
    """Enter the sub-pipelines, inner ones first, and the names that they export; yield the names that are taken."""
    assets.namespaces.update((namespace.name, namespace) for namespace in namespaces)
    for namespace in namespaces:
        within = inside(assets, namespace)
        node, own = assets.number(namespace.name), {"name": namespace.name, "place": namespace.place}
        if node is not None:
            yield Problem(STEP_NAMED_AS_SUB_PIPELINE, step_place=assets.specs[node].place, **own)
        around = "" if namespace.outer is None else namespace.outer.prefix
        for asset, name in namespace.exports.items():
            found = within.find(asset)
            if found is None:
                known = (each for each, _ in within.each()) if isinstance(within, NamespaceView) else ()
                yield Problem(UNKNOWN_EXPORT, asset=asset, hint=within.near(asset, known), **own)
            elif not assets.export(_full_name(assets, found), around + name, found):
                yield Problem(EXPORT_TAKEN, asset=name, nodes=[_producer(assets, around + name)], **own)


def unused_inputs(assets: AssetTable, namespaces: Iterable[Namespace]) -> Iterator[Problem]:
    """Yield the names that sub-pipelines are given and none of their steps reads.

    `steps` of a problem are the steps of the sub-pipeline, `meant` the names that they miss, if the name explains that.
    """
    for namespace in namespaces:
        within = inside(assets, namespace)
        strange = [name for name in namespace.given or () if name not in within.asked]  # type: ignore[union-attr]
        if strange:
            steps = namespace.steps
            specs = dict.fromkeys(assets.specs[steps.start : steps.stop])
            needs = dict.fromkeys(chain.from_iterable(map(needs_of, specs)))
            open_names = [name for name in needs if within.find(name) is None and name not in (namespace.given or ())]
            for name in strange:
                why = "it produces that itself" if within.find(name) else "none of its steps takes that"
                hint = did_you_mean(name, open_names) or f"; it takes {join_names(open_names) or 'nothing else'}"
                if len(namespace.given or ()) == 1 and not open_names:  # it may have been meant as its name
                    hint += f"; to call it so write name={name!r}"
                meant = open_names if len(open_names) <= len(strange) else ()
                data = {"name": namespace.name, "asset": name, "reason": why, "hint": hint, "place": namespace.place}
                yield Problem(UNUSED_INPUT, steps=steps, meant=meant, **data)


def names_of(assets: AssetTable, node: int, namespace: Namespace | None) -> list[list[str]]:
    """Return for each output of a step the names that it has in a sub-pipeline or the whole, the shortest way first.

    The last one is the name under which the step declares it; it may stand there twice.
    """
    prefix = "" if namespace is None else namespace.prefix
    spec = assets.specs[node]
    own = spec.outputs or (assets.name_of(node),)
    named = []
    for full, declared in zip(own, spec.parts or own, strict=True):
        visible = [*reversed(assets.exported.get(full, ())), full]
        names = [name.removeprefix(prefix) for name in visible if name.startswith(prefix)]
        named.append([*names, declared])
    return named


def _full_name(assets: AssetTable, found: Found) -> str:
    node, output = found
    outputs = assets.specs[node].outputs
    return outputs[output or 0] if outputs else assets.name_of(node)


def _producer(assets: AssetTable, name: str) -> int:
    node = assets.number(name)
    if node is None:
        found = assets.find(name)
        assert found is not None  # noqa: S101  the name is taken
        node = found[0]
    return node
