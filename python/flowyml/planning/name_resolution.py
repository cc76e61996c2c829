"""Name resolution: what a name stands for that a step reads.

```
name, glob, list of names ──▶ an asset of some step ──▶ a reference, and the steps to wait for
                         └──▶ a value of the run's inputs or of a context (`Scope`)
```

Names are looked up in the step's own sub-pipeline first, then in what the pipeline around gives to that. The module
does not know which parameter reads a name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from flowyml.planning.call_template import ASSET, VALUE
from flowyml.planning.globs import is_glob
from flowyml.planning.map_inputs import as_items
from flowyml.planning.namespaces import NamespaceView, inside, reaches
from flowyml.planning.problems import GLOB_WITHOUT_MATCH, UNDEFINED_ASSET, UNDEFINED_IN_SUB_PIPELINE, Problem
from flowyml.registry import producing
from flowyml.steps.context import Context
from flowyml.store.value_store import ListRef, OptionalRef, Reference, unwrap_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Mapping, Sequence

    from flowyml.planning.assets import AssetTable
    from flowyml.planning.globs import Found
    from flowyml.planning.namespaces import Names, Namespace, Wanted
    from flowyml.planning.step_spec import StepSpec
    from flowyml.steps.signature import StepSignature

Source: TypeAlias = "tuple[int, Any]"
"""Where an argument comes from; see `CallTemplate.sources`."""


@dataclass(slots=True)
class Scope:
    """The named values that no step produces: of `run(inputs=)`, `run(context=)` and the pipeline, in that order.

    Attributes:
        inputs: The values of `run(inputs=)`.
        context: The values of the contexts, those of `run(context=)` over the pipeline's.
        complete: Whether a value that is missing here is an error; a run may still give others.
        overlay: Names of the values of `run(context=)`, for explanations.
    """

    inputs: Mapping[str, Any]
    context: Mapping[str, Any]
    complete: bool
    overlay: Collection[str] = ()
    _listed: dict[int, tuple[Any, Sequence[Any]]] = field(default_factory=dict)
    _inner: dict[Namespace, Scope] = field(default_factory=dict)

    def inside(self, namespace: Namespace | None) -> Scope:
        """Return the values for the steps of a sub-pipeline, whose own context takes precedence."""
        if namespace is None:
            return self
        if namespace not in self._inner:
            around = self.inside(namespace.outer).context
            overlay = {name: self.context[name] for name in self.overlay}
            context = Context(**{**around, **namespace.context, **overlay})
            self._inner[namespace] = Scope(self.inputs, context, self.complete, self.overlay)
        return self._inner[namespace]

    def items(self, value: Any) -> Sequence[Any]:
        """Return a value as the items of a map, read once.

        Raises:
            TypeError: If it is not a list of items.
        """
        known = self._listed.get(id(value))
        if known is None:
            known = self._listed[id(value)] = (value, as_items(value))
        return known[1]

    def find(self, name: str) -> Source | None:
        """Return the source of a value, or `None`."""
        for values in (self.inputs, self.context):
            if name in values:
                return VALUE, values[name]
        return None

    def origin(self, name: str) -> str:
        """Return where the value of a name comes from, in words."""
        where = "run(inputs=)" if name in self.inputs else "run(context=)" if name in self.overlay else "the context"
        return f"{where} has {name!r}"


T = TypeVar("T")


class NameResolver:
    """What names stand for, for the steps of one spec. It collects what the arguments read, and what is wrong.

    Args:
        spec: How the steps were added.
        signature: The parameters that are bound: those of the function, and those that its conditions add.
        assets: All assets.
        scope: Values of the run's inputs and the contexts.
        without: A step that must not be read by its parameter's name: the step itself.

    Attributes:
        root: All assets.
        assets: Where names are looked up now: in a sub-pipeline, or among all assets.
        scope: The values that names may stand for there.
        hidden: Steps that are found there only by declared names.
        references: What the arguments that are read from assets refer to.
        producers: The steps to wait for.
        implicit: Parameters that read an asset because it has their name.
        implicit_producers: The steps that are read so: one that is among them must not read itself.
        import_paths: By a name that the pipeline around gives: the sub-pipelines on the way, each with its name for it.
        problems: What is wrong.
        undefined: Declared inputs that nothing gives.
        used: Names of run inputs and context values that are read.
    """

    assets: Names
    scope: Scope
    hidden: Container[int | None]

    def __init__(
        self, spec: StepSpec, signature: StepSignature, assets: AssetTable, scope: Scope, without: int | None
    ) -> None:
        self.root, self._root_scope, self._defaults, self.hidden = assets, scope, signature.defaults, (without,)
        self.look_from(spec.within)
        self._is_join = spec.options.run_if == "any"
        self._requested: str | None = None  # the name inside a sub-pipeline, while it is looked up around it
        self.references: list[Reference] = []
        self.producers: list[int] = []
        self.implicit: set[str] = set()
        self.implicit_producers: set[int] = set()
        self.import_paths: dict[str, list[tuple[Namespace, str]]] = {}
        self.problems: list[Problem] = []
        self.undefined: list[str] = []
        self.used: set[str] = set()

    def look_from(self, namespace: Namespace | None) -> None:
        """Look names up in a sub-pipeline, or among all assets."""
        self.assets, self.scope = inside(self.root, namespace), self._root_scope.inside(namespace)

    # -- declared names

    def source(self, wanted: str | Sequence[str]) -> Source | None:
        """Return the source of a declared input: an asset, a run input, a glob, or a list of them."""
        if isinstance(wanted, str):
            return self._list_source([wanted]) if self.is_pattern(wanted) else self._single_source(wanted)
        if wanted and all(map(self._is_run_input, wanted)):
            self.used.update(wanted)
            return VALUE, [self.scope.inputs[name] for name in wanted]
        return self._list_source(wanted)

    def is_pattern(self, name: str) -> bool:
        """Return True if a name is a glob; the name of a step that is called "chunk[0]" is none."""
        return is_glob(name) and self.assets.find(name) is None and name not in self.scope.inputs

    def _is_run_input(self, name: str) -> bool:
        if name not in self.scope.inputs or self.assets.find(name) is not None:
            return False
        return not isinstance(self.assets, NamespaceView) or self.assets.wanted(name, declared=True) is None

    def _single_source(self, asset: str) -> Source | None:
        found = self.assets.find(asset)
        if found is not None:
            return self._asset_source(self.assets.reference(found), [found[0]])
        problem_count = len(self.problems)
        source = self.outside(asset, declared=True)
        if source is not None or len(self.problems) > problem_count:
            return source
        if asset in self.scope.inputs:
            self.used.add(asset)
            return VALUE, self.scope.inputs[asset]
        self._report_undefined(asset)
        return None

    def _list_source(self, names: Sequence[str]) -> Source:
        found = self._find_all(names)
        return self._asset_source(ListRef(tuple(map(self.assets.reference, found))), [node for node, _ in found])

    def _find_all(self, wanted: Wanted) -> list[Found]:
        return [asset for name in ((wanted,) if isinstance(wanted, str) else wanted) for asset in self._find(name)]

    def _find(self, name: str) -> list[Found]:
        if self.is_pattern(name):
            found = [asset for asset in self.assets.match(name) if asset[0] not in self.hidden]
            self.implicit_producers.update(node for node, _ in found)
        else:
            asset = self.assets.find(name)
            found = [asset] if asset is not None else []
        if found:
            return found
        outside = self._ask_outside(name, self._find_all, declared=True)
        if outside is None:
            self._report_undefined(name)
        return outside or []

    def _asset_source(self, reference: Reference, producers: list[int]) -> Source:
        self.references.append(OptionalRef(reference) if self._is_join else reference)
        self.producers.extend(producers)
        return ASSET, len(self.references) - 1

    # -- names of parameters

    def implicit_source(self, name: str) -> Source | None:
        """Return the source of a parameter that nothing was declared for, if an asset has its name."""
        found = self.assets.find(name)
        if found is None or found[0] in self.hidden:
            return self.outside(name, declared=False)
        self.implicit_producers.add(found[0])
        self.implicit.add(name)
        return self._asset_source(self.assets.reference(found), [found[0]])

    def value_source(self, name: str) -> Source | None:
        """Return the source of a parameter that a run input or a context value has the name of."""
        source = self.scope.find(name)
        if source is not None:
            self.used.add(name)
        elif name == "context" and name not in self._defaults:
            source = VALUE, self.scope.context
        return source

    # -- the pipeline around a sub-pipeline

    def outside(self, name: str, *, declared: bool) -> Source | None:
        """Return the source of what the pipeline around gives under a name that is not the sub-pipeline's own."""
        return self._ask_outside(name, self._given_source, declared=declared)

    def _ask_outside(self, name: str, ask: Callable[[Wanted], T], *, declared: bool) -> T | None:
        if not isinstance(self.assets, NamespaceView):
            return None
        wanted = self.assets.wanted(name, declared=declared)
        if wanted is None:
            return None
        namespace, inner = self.assets.namespace, (self.assets, self.scope, self.hidden, self._requested)
        self.hidden, self._requested = namespace.steps, self._requested or name
        self.import_paths.setdefault(self._requested, []).append((namespace, name))
        self.assets, self.scope = self.assets.outer, self._root_scope.inside(namespace.outer)
        try:
            return ask(wanted)
        finally:
            self.assets, self.scope, self.hidden, self._requested = inner

    def _given_source(self, wanted: Wanted) -> Source | None:
        """What is given to a sub-pipeline is found like a parameter, so values of the run and of contexts count."""
        if isinstance(wanted, str) and not reaches(self.assets, wanted, (), declared=False):
            source = self.scope.find(wanted)
            if source is not None:
                self.used.add(wanted)
                return source
        return self.source(wanted)

    # -- what was found

    def reference(self, index: int) -> Any:
        """Return a reference without what is wrapped around it."""
        return unwrap_reference(self.references[index])

    def may_be_missing(self, index: int) -> bool:
        """Return True if a reference may have no value when the step runs, and is no list of others."""
        reference = self.references[index]
        return isinstance(reference, OptionalRef) and not isinstance(reference.reference, ListRef)

    def _report_undefined(self, asset: str) -> None:
        is_pattern = self.is_pattern(asset)
        if is_pattern:
            hint = self.assets.hint(asset, self.scope.inputs)
        elif asset in self.scope.inputs:
            hint = "; run inputs and outputs of steps do not go into one list, add a step that returns the value"
        else:
            hint = self.not_added_hint(asset) + self.assets.hint(asset, self.scope.inputs)
        self.undefined.append(asset)
        if self._requested is None:
            self.problems.append(Problem(GLOB_WITHOUT_MATCH if is_pattern else UNDEFINED_ASSET, asset=asset, hint=hint))
            return
        hint = f": the glob matches nothing{hint}" if is_pattern else hint
        namespace, own = self.import_paths[self._requested][-1]
        given = "" if own == asset else f", given as {own!r}"
        data = {"name": namespace.name, "asset": asset, "given": given, "hint": hint, "place": namespace.place}
        self.problems.append(Problem(UNDEFINED_IN_SUB_PIPELINE, **data))

    def not_added_hint(self, asset: str) -> str:
        """Return a hint if a `@step` that produces an asset is defined and not in the pipeline; "" if there is none."""
        step = producing(asset) if self.assets.number(asset) is None else None
        if step is None or any(spec.step.func is step.func for spec in self.root.specs):
            return ""
        code = getattr(step.func, "__code__", None)
        place = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
        return f"; step {step.name!r}, which produces it, is defined{place} and was not added: add_step({step.name})"
