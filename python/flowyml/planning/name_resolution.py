"""Sourcing: what a name stands for that a step reads.

```
name, glob, list of names ──▶ an asset of some step ──▶ a reference, and the steps to wait for
                         └──▶ a value of the run's inputs
```

Names are looked up where the step stands: in its sub-pipeline first, then in what the pipeline around hands on. The
module notes what is wrong and who is waited for; which parameter takes what is the wiring's.

Scope: the named values beside steps, which parameters may take.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from flowyml.planning.call_template import ASSET, VALUE
from flowyml.planning.globs import is_glob
from flowyml.planning.map_inputs import as_items
from flowyml.planning.namespaces import NamespaceView, inside, reaches
from flowyml.planning.problems import GLOB_WITHOUT_MATCH, UNDEFINED_ASSET, UNDEFINED_IN_SUB_PIPELINE, Problem
from flowyml.registry import producing
from flowyml.steps.conditions import GuardSet
from flowyml.steps.context import Context
from flowyml.store.value_store import ListRef, OptionalRef, Reference, bare

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Mapping, Sequence

    from flowyml.planning.globs import Found
    from flowyml.planning.namespaces import Names, Namespace, Wanted
    from flowyml.planning.step_spec import AssetTable, StepSpec
    from flowyml.steps.signature import StepSignature


@dataclass(slots=True)
class Scope:
    """The named values beside steps: of `run(inputs=)`, `run(context=)` and the pipeline, in that order.

    Attributes:
        inputs: Of `run(inputs=)`.
        context: Of the contexts, those of `run(context=)` over the pipeline's.
        complete: Whether these are all, so that what is missing is missing.
        overlay: Names of those of `run(context=)`, for those who explain.
    """

    inputs: Mapping[str, Any]
    context: Mapping[str, Any]
    complete: bool
    overlay: Collection[str] = ()
    _listed: dict[int, tuple[Any, Sequence[Any]]] = field(default_factory=dict)
    _inner: dict[Namespace, Scope] = field(default_factory=dict)

    def inside(self, namespace: Namespace | None) -> Scope:
        """Return the values beside the steps of a sub-pipeline, whose own context goes before those around it."""
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
            TypeError: If it is no list of items.
        """
        known = self._listed.get(id(value))
        if known is None:
            known = self._listed[id(value)] = (value, as_items(value))
        return known[1]

    def find(self, name: str) -> tuple[int, Any] | None:
        """Return a value source for a parameter, or `None`."""
        for values in (self.inputs, self.context):
            if name in values:
                return VALUE, values[name]
        return None

    def origin(self, name: str) -> str:
        """Say who has a value of that name."""
        where = "run(inputs=)" if name in self.inputs else "run(context=)" if name in self.overlay else "the context"
        return f"{where} has {name!r}"


T = TypeVar("T")


class NameResolver:
    """What names stand for, for the step of one form.

    Args:
        form: What `add_step` was told.
        assets: Who produces what.
        scope: Values of the run's inputs and the contexts.
        without: A step that must not be read without being named: the step itself.

    Attributes:
        assets: Where names are looked up now: inside a sub-pipeline, or among all.
        scope: The values beside the steps there.
        hidden: Steps that are not found there without being named.
        references: What the arguments that are read from assets refer to.
        routes: By a name that a pipeline around gives: the sub-pipelines on the way, each with its own name for it.
        producers: The steps to wait for.
        own_risk: Steps that are read without being named: one that is among them must not read itself.
        problems: What is wrong.
        undefined: Declared inputs that nothing gives.
        used: Names of run inputs and context values that are taken.
    """

    assets: Names
    scope: Scope
    hidden: Container[int | None]

    def __init__(self, form: StepSpec, assets: AssetTable, scope: Scope, without: int | None) -> None:
        self.form, self.hidden = form, (without,)
        self._whole = assets, scope
        self._look_from(form.within)
        self.own: StepSignature = form.step.signature
        self.guards = GuardSet(guards, self.own) if (guards := form.options.guards) else None
        self.signature: StepSignature = self.guards.signature if self.guards else self.own
        self.joins = form.options.run_if == "any"
        self.references: list[Reference] = []
        self.routes: dict[str, list[tuple[Namespace, str]]] = {}
        self._asked: str | None = None  # the name inside, while a pipeline around is asked
        self.undefined: list[str] = []
        self.producers: list[int] = []
        self.own_risk: set[int] = set()
        self.problems: list[Problem] = []
        self.used: set[str] = set()

    # -- assets

    def _source(self, wanted: str | Sequence[str]) -> tuple[int, Any] | None:
        """Return the source of a declared input: an asset, a run input, a glob, or a list of them."""
        if isinstance(wanted, str):
            return self._several([wanted]) if self._is_pattern(wanted) else self._single(wanted)
        if wanted and all(map(self._is_run_input, wanted)):
            self.used.update(wanted)
            return VALUE, [self.scope.inputs[name] for name in wanted]
        return self._several(wanted)

    def _is_run_input(self, name: str) -> bool:
        """Return True if a name means a value of `run(inputs=)` here, and no asset of a step."""
        if name not in self.scope.inputs or self.assets.find(name) is not None:
            return False
        return not isinstance(self.assets, NamespaceView) or self.assets.wanted(name, declared=True) is None

    def _is_pattern(self, name: str) -> bool:
        """A step may well be called "chunk[0]": what exists under that very name is no pattern."""
        return is_glob(name) and self.assets.find(name) is None and name not in self.scope.inputs

    def _single(self, asset: str) -> tuple[int, Any] | None:
        found = self.assets.find(asset)
        if found is not None:
            return self._asset(self.assets.reference(found), [found[0]])
        told = len(self.problems)
        source = self._outside(asset, declared=True)
        if source is not None or len(self.problems) > told:
            return source
        if asset in self.scope.inputs:
            self.used.add(asset)
            return VALUE, self.scope.inputs[asset]
        self._report_undefined(asset)
        return None

    def _several(self, names: Sequence[str]) -> tuple[int, Any]:
        """Gather the assets of all names and patterns in one list."""
        found = self._found_all(names)
        return self._asset(ListRef(tuple(map(self.assets.reference, found))), [node for node, _ in found])

    def _found(self, name: str) -> list[Found]:
        if self._is_pattern(name):
            found = [each for each in self.assets.match(name) if each[0] not in self.hidden]
            self.own_risk.update(node for node, _ in found)
        else:
            one = self.assets.find(name)
            found = [one] if one is not None else []
        if found:
            return found
        outside = self._asked_outside(name, self._found_all, declared=True)
        if outside is None:
            self._report_undefined(name)
        return outside or []

    def _found_all(self, wanted: Wanted) -> list[Found]:
        return [each for name in ((wanted,) if isinstance(wanted, str) else wanted) for each in self._found(name)]

    def _not_added(self, asset: str) -> str:
        """Return a hint if a `@step` that produces an asset is defined and not in the pipeline; "" if there is none."""
        found = producing(asset) if self.assets.number(asset) is None else None
        if found is None or any(form.step.func is found.func for form in self._whole[0].forms):
            return ""
        code = getattr(found.func, "__code__", None)
        place = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
        return f"; step {found.name!r}, which produces it, is defined{place} and was not added: add_step({found.name})"

    def _report_undefined(self, asset: str) -> None:
        is_pattern = self._is_pattern(asset)
        if is_pattern:
            hint = self.assets.hint(asset, self.scope.inputs)
        elif asset in self.scope.inputs:
            hint = "; run inputs and outputs of steps do not go into one list, add a step that returns the value"
        else:
            hint = self._not_added(asset) + self.assets.hint(asset, self.scope.inputs)
        self.undefined.append(asset)
        if self._asked is None:
            self.problems.append(Problem(GLOB_WITHOUT_MATCH if is_pattern else UNDEFINED_ASSET, asset=asset, hint=hint))
            return
        hint = f": the glob matches nothing{hint}" if is_pattern else hint
        namespace, own = self.routes[self._asked][-1]
        given = "" if own == asset else f", given as {own!r}"
        data = {"name": namespace.name, "asset": asset, "given": given, "hint": hint, "place": namespace.place}
        self.problems.append(Problem(UNDEFINED_IN_SUB_PIPELINE, **data))

    def _asset(self, reference: Reference, producers: list[int]) -> tuple[int, Any]:
        self.references.append(OptionalRef(reference) if self.joins else reference)
        self.producers.extend(producers)
        return ASSET, len(self.references) - 1

    def _from_scope(self, name: str) -> tuple[int, Any] | None:
        source = self.scope.find(name)
        if source is not None:
            self.used.add(name)
        elif name == "context" and name not in self.signature.defaults:
            source = VALUE, self.scope.context
        return source

    def _reference(self, place: int) -> Any:
        return bare(self.references[place])

    def _may_be_missing(self, which: int) -> bool:
        reference = self.references[which]
        return isinstance(reference, OptionalRef) and not isinstance(reference.reference, ListRef)

    # -- the pipeline around a sub-pipeline

    def _look_from(self, namespace: Namespace | None) -> None:
        """Look names up inside a sub-pipeline, or among all."""
        self.assets, self.scope = inside(self._whole[0], namespace), self._whole[1].inside(namespace)

    def _outside(self, name: str, *, declared: bool) -> tuple[int, Any] | None:
        """Return the source of what the pipeline around gives under a name that is not the sub-pipeline's own."""
        return self._asked_outside(name, self._handed, declared=declared)

    def _asked_outside(self, name: str, ask: Callable[[Wanted], T], *, declared: bool) -> T | None:
        if not isinstance(self.assets, NamespaceView):
            return None
        wanted = self.assets.wanted(name, declared=declared)
        if wanted is None:
            return None
        namespace, kept = self.assets.namespace, (self.assets, self.scope, self.hidden, self._asked)
        self.hidden, self._asked = namespace.steps, self._asked or name
        self.routes.setdefault(self._asked, []).append((namespace, name))
        self.assets, self.scope = self.assets.outer, self._whole[1].inside(namespace.outer)
        try:
            return ask(wanted)
        finally:
            self.assets, self.scope, self.hidden, self._asked = kept

    def _handed(self, wanted: Wanted) -> tuple[int, Any] | None:
        """What is handed on to a sub-pipeline is found like a parameter, so it may be a value beside the steps, too."""
        if isinstance(wanted, str) and not reaches(self.assets, wanted, (), declared=False):
            source = self.scope.find(wanted)
            if source is not None:
                self.used.add(wanted)
                return source
        return self._source(wanted)
