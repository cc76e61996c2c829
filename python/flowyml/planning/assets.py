"""Assets: which step produces which asset.

```
name of an asset ──AssetTable──▶ (step, which of its outputs) ──▶ reference to the value
```

An `AssetTable` has all assets of a pipeline; the steps of a sub-pipeline see it through a `NamespaceView` (see
`namespaces.py`), which has the same methods.
"""

from __future__ import annotations

from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from flowyml.diagnostics.text import MAX_PROBLEMS_SHOWN, closest_names, did_you_mean, join_names
from flowyml.planning.globs import GlobIndex
from flowyml.planning.problems import ASSET_NAMED_AS_STEP, SEVERAL_PRODUCERS, Problem
from flowyml.planning.step_spec import listed_names
from flowyml.store.value_store import MappedRef, OutputRef, Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flowyml.planning.globs import Found
    from flowyml.planning.item_index import ItemIndex
    from flowyml.planning.namespaces import Namespace, NamespaceView
    from flowyml.planning.step_spec import StepSpec
    from flowyml.steps.decision_context import VisibleStep
    from flowyml.steps.signature import StepSignature

# A near match among many names takes a twentieth of a second; a pipeline of typos must not take minutes.
_MAX_HINTS = 10


class AssetTable:
    """Which step produces which asset.

    A step without declared outputs produces one asset of its own name, which needs no entry.

    Args:
        names: Step names with their ids, in add order.
        specs: The spec of each step.
        item_index: Which items each step has.
        start: The id of the first of these steps; not 0 for steps that a dynamic step added.

    Attributes:
        exported: By asset of a sub-pipeline its further names, from the innermost to the outermost pipeline.
        seen: The steps as decisions see them, by the sub-pipeline of the decisions.
        hints_left: How many more near matches messages may look for.
        namespaces: The sub-pipelines by name.
        inner: The view of each of them, once it was needed.
    """

    def __init__(
        self, names: Mapping[str, int], specs: Sequence[StepSpec], item_index: ItemIndex, start: int = 0
    ) -> None:
        self.names = names
        self.specs = specs
        self.item_index = item_index
        self.exported: dict[str, list[str]] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.inner: dict[Namespace, NamespaceView] = {}
        self._declared: dict[str, Found] = {}
        self._clashes: dict[str, list[int]] = {}
        self.seen: dict[Namespace | None, dict[int, tuple[VisibleStep, Reference]]] = {}
        self.hints_left = _MAX_HINTS
        self._near_parameters: dict[tuple[str, int], str] = {}
        self._start = start
        own = specs[start:] if start else specs
        if any(spec.outputs for spec in set(own)):
            declaring = [(node, spec.outputs) for node, spec in enumerate(own, start) if spec.outputs]
            if not self._declare_all(declaring):
                for node, outputs in declaring:
                    self._declare(node, outputs)

    def _declare_all(self, declaring: list[tuple[int, tuple[str, ...]]]) -> bool:
        """Add the outputs of many steps at once; return False if an asset has the name of another, or of a step."""
        found = {
            asset: (node, index if len(outputs) > 1 else None)
            for node, outputs in declaring
            for index, asset in enumerate(outputs)
        }
        distinct = len(found) == sum(len(outputs) for _, outputs in declaring)
        if not distinct or any(map(self.names.__contains__, found)):
            return False
        self._declared = found
        return True

    def _declare(self, node: int, outputs: tuple[str, ...]) -> None:
        for index, asset in enumerate(outputs):
            other = self._declared[asset][0] if asset in self._declared else self.names.get(asset, node)
            if other == node:
                self._declared[asset] = (node, index if len(outputs) > 1 else None)
            else:
                self._clashes.setdefault(asset, [other]).append(node)

    def export(self, asset: str, name: str, found: Found) -> bool:
        """Give an asset a further name; return whether that was free."""
        if name in self.names or name in self._declared:
            return False
        self._declared[name] = found
        self.exported.setdefault(asset, []).append(name)
        return True

    def problems(self) -> Iterator[Problem]:
        """Yield the assets that several steps produce."""
        for asset, nodes in self._clashes.items():
            outputs = self.specs[nodes[0]].outputs
            if outputs and asset not in outputs:
                yield Problem(ASSET_NAMED_AS_STEP, asset=asset, nodes=nodes, outputs=join_names(outputs))
            else:
                yield Problem(SEVERAL_PRODUCERS, asset=asset, nodes=nodes)

    def name_of(self, node: int) -> str:
        """Return the name of a step."""
        return self._listed[node - self._start]

    @cached_property
    def _listed(self) -> list[str]:
        return listed_names(self.names)

    @property
    def plain(self) -> Mapping[str, int] | None:
        """The ids of all steps by name, if each asset is a step and its value that of its only item."""
        others = self._declared or self.namespaces or self._start
        return self.names if not others and self.item_index.is_plain else None

    def are_named(self, first: int, names: Sequence[str]) -> bool:
        """Return True if the steps from an id on have these names."""
        place = first - self._start
        return self._listed[place : place + len(names)] == list(names)

    def number(self, name: str) -> int | None:
        """Return the id of a step."""
        return self.names.get(name)

    def steps(self, name: str) -> Sequence[int] | None:
        """Return the id of the step of that name, or those of all steps of a sub-pipeline."""
        if name in self.names:
            return (self.names[name],)
        return self.namespaces[name].steps if name in self.namespaces else None

    def find(self, asset: str) -> Found | None:
        """Return the producer of an asset."""
        found = self._declared.get(asset)
        if found is None and asset in self.names:
            node = self.names[asset]
            found = None if self.specs[node].outputs else (node, None)
        return found

    def match(self, pattern: str) -> list[Found]:
        """Return all assets that match a glob, in add order."""
        return self._globs.match(pattern)

    @cached_property
    def _globs(self) -> GlobIndex:
        return GlobIndex(self.each(range(self._start, self._start + len(self.names))))

    def each(self, nodes: range) -> Iterator[tuple[str, Found]]:
        """Yield the assets of some steps, each under all its names."""
        names = self._listed[nodes.start - self._start : nodes.stop - self._start]
        for node, name in zip(nodes, names, strict=True):
            outputs = self.specs[node].outputs
            for index, asset in enumerate(outputs or (name,)):
                found = node, index if len(outputs) > 1 else None
                yield asset, found
                for further in self.exported.get(asset, ()):
                    yield further, found

    def reference(self, found: Found) -> Reference:
        """Return the reference to an asset's value."""
        node, output = found
        return self.whole(node) if output is None else OutputRef(self.item_index.firsts[node], output)

    def whole(self, node: int) -> int | MappedRef:
        """Return the reference to all that a step returns."""
        return MappedRef(node) if self.item_index.is_mapped(node) else self.item_index.firsts[node]

    def hint(self, asset: str, more: Iterable[str] = ()) -> str:
        """Return a hint for an asset that does not exist; `more` are other names that are allowed."""
        node = self.names.get(asset)
        if node is not None:
            return f"; {asset!r} is a step, its outputs are {join_names(self.specs[node].outputs)}"
        return self.near(asset, chain(more, self.known()))

    def known(self) -> Iterator[str]:
        """Yield the names of all assets and steps."""
        yield from self._declared
        yield from self.names

    def near(self, name: str, known: Iterable[str]) -> str:
        """Return ", did you mean ...?", for the first few names that are asked for."""
        self.hints_left -= 1
        return did_you_mean(name, known) if self.hints_left >= 0 else ""

    def near_parameter(self, name: str, signature: StepSignature) -> str:
        """Return "; did you mean ...?" with a parameter of a function, for the first few problems."""
        key = name, id(signature)
        if key not in self._near_parameters and len(self._near_parameters) < MAX_PROBLEMS_SHOWN:
            self._near_parameters[key] = signature.near(name)
        return self._near_parameters.get(key, "")

    def close(self, name: str, more: Iterable[str]) -> list[str]:
        """Return the assets, steps and other names that are like one, for the first few that are asked for."""
        return self.near_names(name, chain(more, self.known()))

    def near_names(self, name: str, known: Iterable[str]) -> list[str]:
        """Return those of some names that are like one, for the first few that are asked for."""
        self.hints_left -= 1
        return closest_names(name, known) if self.hints_left >= 0 else []

    def before(self, spec: StepSpec) -> str | None:
        """Return the only asset of the step that was added before the first of a spec, for the first few asked for."""
        self.hints_left -= 1
        node = self.specs.index(spec) - 1 if self.hints_left >= 0 else -1
        if node < 0:
            return None
        outputs = self.specs[node].outputs or (self.name_of(node),)
        return outputs[0] if len(outputs) == 1 else None

    def origin(self, name: str) -> str | None:
        """Return where an asset or step of that name is, in words, if there is one."""
        if name in self.names:
            return f"there is a step {name!r}"
        return f"step {self.name_of(self._declared[name][0])!r} produces {name!r}" if name in self._declared else None
