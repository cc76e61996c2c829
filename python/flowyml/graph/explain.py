"""Explanations: the source of each argument of a step, and the rule that chose it.

```
Plan + step ──bind again, with notes──▶ [ArgumentSource] ──▶ Explanation, lines of run(debug=True)
```

A plan stores how a step is called but not why. An explanation binds that one step again, so other steps cost nothing.
It works for invalid plans, too. Values are not shown, because they may be large or secret, except defaults, which are
in the code.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import join_names
from flowyml.planning.binding import CONDITION_CONTEXT, Binder
from flowyml.planning.call_template import ASSET, CHOICE, ITEM, KEPT, PARAM, SPREAD, VIEW
from flowyml.planning.item_index import UNKNOWN
from flowyml.steps.control_flow import BranchPredicate
from flowyml.steps.options import NO_OPTIONS
from flowyml.store.value_store import IteratorRef, ListRef, MappedRef, OutputRef, nodes_of, unwrap_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flowyml.planning.call_template import CallTemplate
    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.namespaces import Namespace
    from flowyml.planning.plan import Plan
    from flowyml.store.value_store import Reference

_log = logging.getLogger("flowyml")
_MAX_LENGTH = 60


class ArgumentSource(NamedTuple):
    """The source of one argument of a step.

    Attributes:
        parameter: Its parameter; "*args" for one of many.
        source: A description of the source.
        implicit: True if it reads an asset only because that has the parameter's name.
    """

    parameter: str
    source: str
    assets: tuple[str, ...] = ()
    implicit: bool = False


class KeyPart(NamedTuple):
    """A part that the key of a cached step covers.

    Attributes:
        kind: "argument", "function", "class", "module", "condition", "file", "files", "value" or "installed".
        name: Its name; of a value in code, its label: "global 'RATE'".
        counts: What counts of it ("content", "its code").
    """

    kind: str
    name: str
    counts: str


class ArgumentTrace:
    """The arguments of one step of a plan.

    Args:
        plan: The plan.
        node: The step.
        scope: Values of the run's inputs and the contexts.

    Attributes:
        arguments: One for each parameter, in the order of the signature, then those of `*args`.
        missing: Parameters that have no source yet.
        problems: Problems found by binding the step.
    """

    def __init__(self, plan: Plan, node: int, scope: Scope) -> None:
        self._plan, self._form = plan, plan.specs[node]
        self._binder = binder = Binder(
            self._form, plan.assets, scope, self._form.inputs_of(plan.reads[node]), without=node
        )
        self.problems = list(map(str, binder.bind().problems))
        self._references: Sequence[Reference] = binder.names.references
        self._sources, self._rest = dict(binder.sources), binder.spread
        template = plan.templates[node]
        if template is not None:
            self._references = plan.references.get(node, ())
            self._use_template(template)
        self.arguments: list[ArgumentSource] = [*self._named(), *self._spread()]
        self.missing: list[str] = binder.missing

    def _use_template(self, template: CallTemplate) -> None:
        """Replace the sources by those in the plan's template of the step."""
        count = len(template.sources) - len(template.keywords)
        named = count - len(self._rest)
        self._rest = list(template.sources[named:count])
        positional = zip(self._binder.signature.positional[:named], template.sources[:named], strict=True)
        for name, source in (*positional, *zip(template.keywords, template.sources[count:], strict=True)):
            if name in self._sources:  # else a default that is passed
                self._sources[name] = source

    @property
    def assets(self) -> list[str]:
        """The assets that the step reads, and declared inputs without a source, each once."""
        read = (asset for argument in self.arguments for asset in argument.assets)
        return list(dict.fromkeys([*read, *self._binder.names.undefined]))

    def _named(self) -> Iterator[ArgumentSource]:
        signature, sources = self._binder.signature, self._sources
        for name in dict.fromkeys([*signature.names, *sources, *self._binder.declared]):
            if name in sources:
                yield self._argument(name, *sources[name])
            elif name in self._binder.declared:
                yield ArgumentSource(name, f"asset {self._binder.declared[name]!r}, which no step produces")
            elif name in signature.defaults:
                yield ArgumentSource(name, f"default {_short(signature.defaults[name])}")
            elif not self._binder.is_optional(name):
                yield ArgumentSource(name, "no source yet: give it by params, run(inputs=) or a context value")

    def _spread(self) -> Iterator[ArgumentSource]:
        star = f"*{self._binder.signature.var_positional or 'args'}"
        for kind, which in self._rest:
            yield self._argument(star, kind, which)

    def _argument(self, name: str, kind: int, which: Any) -> ArgumentSource:
        if kind == PARAM:
            return ArgumentSource(name, "params")
        if kind in {ITEM, KEPT}:
            return self._item(name, which or 0)
        binder = self._binder
        if kind == CHOICE:
            chosen = self._argument(name, ASSET, which[0])
            return chosen._replace(source=f"{chosen.source}, else its default {which[1]!r:.40}")
        if kind == VIEW:
            seen = "its dependencies" if name == CONDITION_CONTEXT else "the results of earlier steps"
            return ArgumentSource(name, f"{seen}, and the context")
        if kind in {ASSET, SPREAD}:
            implicit = name in binder.names.implicit
            rule = "implicit: it has the parameter's name" if implicit else self._declaration(name)
            if self._is_branch_of(name):
                rule = "the decision that chooses this branch"
            assets = self._assets(which)
            return ArgumentSource(name, f"{self._asset_text(which, assets)} ({rule})", assets, implicit)
        return ArgumentSource(name, self._value(name))

    def _is_branch_of(self, name: str) -> bool:
        """Return True if a name is that of the decision that lets the step run."""
        predicates = [guard.predicate for guard in self._form.options.guards]
        return any(isinstance(predicate, BranchPredicate) and predicate.decision == name for predicate in predicates)

    def _route(self, name: str) -> str | None:
        """Return the sub-pipelines through which a value from outside is passed; `None` for one from inside."""
        asked = self._binder.declared.get(name, name)
        route = self._binder.names.import_paths.get(asked, []) if isinstance(asked, str) else []
        return ", ".join(map(_route_text, route)) or None

    def _item(self, name: str, at: int) -> ArgumentSource:
        items = self._binder.items
        assert items is not None  # noqa: S101  it has items
        over, part = items.map_input, items.parts[at]
        source = over.columns[at].source
        if part is None:
            return ArgumentSource(
                name, f"an item of {source!r}, which has no source yet", (), name in self._binder.names.implicit
            )
        if not isinstance(part, int):
            list_of = f" of {over.named(at)}" if len(over.columns) > 1 else ""
            what = (
                f"an item of {self._value(source)}, {source!r}," if isinstance(source, str) else f"the item{list_of},"
            )
            return ArgumentSource(name, f"{what} one of {len(part):,}")
        assets = self._assets(part)
        reference = self._reference(part)
        if isinstance(reference, MappedRef):
            word = "an item" if over.product else "the item of the same index"
            return ArgumentSource(name, f"{word} of step {self._plan.names[reference.node]!r}", assets)
        if isinstance(reference, ListRef):
            return ArgumentSource(name, f"one of {len(assets):,} assets: {join_names(assets)}", assets)
        return ArgumentSource(name, f"an item of asset {assets[0]!r}, a list known at run time", assets)

    def _declaration(self, name: str) -> str:
        route = self._route(name)
        if route:
            return route
        wanted = self._binder.declared.get(name)
        several = isinstance(wanted, str) and any(letter in wanted for letter in "*?[")
        return f"declared input {wanted!r}" if several else "declared input"

    def _value(self, name: str) -> str:
        scope, declared, route = self._binder.names.scope, self._binder.declared, self._route(name)
        if route:
            return f"a value of the run ({route})"
        if name in declared:
            return f"run(inputs=), {declared[name]!r} (declared input)"
        if name in scope.inputs or name.startswith("*"):
            return "run(inputs=)"
        if name in scope.context:
            return "run(context=)" if name in scope.overlay else self._context(name)
        return "the whole context"

    def _context(self, name: str) -> str:
        namespace = self._form.within
        while namespace is not None and name not in namespace.context:
            namespace = namespace.outer
        return "context" if namespace is None else f"context of sub-pipeline {namespace.name!r}"

    # -- assets

    def _assets(self, which: int) -> tuple[str, ...]:
        reference = self._reference(which)
        parts = reference.references if isinstance(reference, ListRef) else (reference,)
        return tuple(map(self._asset, parts))

    def _reference(self, which: int) -> Any:
        return unwrap_reference(self._references[which])

    def _asset(self, reference: Any) -> str:
        part = reference.part if isinstance(reference, OutputRef) else 0
        return self._plan.assets_of(self._node(reference))[part]

    def _node(self, reference: Any) -> int:
        return next(nodes_of((reference,), self._plan.item_index))

    def _asset_text(self, which: int, assets: tuple[str, ...]) -> str:
        reference = self._reference(which)
        kind = "iterator over" if isinstance(self._references[which], IteratorRef) else "list of"
        if isinstance(reference, ListRef):
            return f"{kind} {len(assets):,} asset{'s' * (len(assets) != 1)}: {join_names(assets)}"
        step, asset = self._plan.names[self._node(reference)], assets[0]
        text = f"step {step!r}" if asset == step else f"asset {asset!r} of step {step!r}"
        if isinstance(reference, MappedRef):
            length = self._plan.length_of(reference.node)
            return f"{kind} {'all' if length in {None, UNKNOWN} else f'the {length:,}'} results of {text}"
        return f"output of {text}" if asset == step else text


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """The arguments, dependencies and dependents of a step; `str()` returns it as text.

    Attributes:
        step_name: Name of the step.
        label: Name under which it was declared, and the line that added it.
        arguments: The source of each argument.
        dependencies: Its direct dependencies.
        dependents: Its direct dependents.
        options: Options that differ from the defaults.
        problems: Its problems.
        missing: Parameters that `run` has to give.
        mapped: True for a mapped step.
        items: Number of items of a mapped step; `None` if it is known only at run time.
        cache: Whether its value would be read from the cache, and why not; `None` for steps that are not cached.
        resume: What would be reused from an earlier attempt, or why it runs again; `None` without one.
        key: The parts covered by the key of its cached value; only with `explain(name, cache=True)`.
        not_in_key: The parts that the key does not cover.
    """

    step_name: str
    label: str
    arguments: tuple[ArgumentSource, ...]
    dependencies: tuple[str, ...]
    dependents: tuple[str, ...]
    options: Mapping[str, object]
    problems: tuple[str, ...]
    missing: tuple[str, ...]
    mapped: bool
    items: int | None
    cache: str | None = None
    resume: str | None = None
    key: tuple[KeyPart, ...] = ()
    not_in_key: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return str(self)

    def _lines(self) -> Iterator[str]:
        yield f"Step {self.step_name!r}: {self.label}"
        if self.mapped:
            items = "each item of a list known at run time" if self.items is None else f"each of {self.items:,} items"
            yield f"  Mapped: runs once for {items}"
        yield f"  Arguments:{'' if self.arguments else ' none'}"
        for argument in self.arguments:
            yield f"    {argument.parameter}: {argument.source}"
        yield f"  Waits for: {_several(self.dependencies)}"
        yield f"  Needed by: {_several(self.dependents)}"
        if self.options:
            yield f"  Options: {', '.join(f'{name}={value}' for name, value in self.options.items())}"
        if self.cache:
            yield f"  Cache: {self.cache}"
        if self.resume:
            yield f"  Resume: {self.resume}"
        if self.key:
            yield "  Its key covers:"
            yield from (f"    {part.kind} {part.name}: {part.counts}" for part in self.key)
        if self.not_in_key:
            yield "  Its key does not cover:"
            yield from (f"    {gap}" for gap in self.not_in_key)
        if self.problems:
            yield "  Problems:"
            yield from (f"    {problem}" for problem in self.problems)


def options_of(plan: Plan, node: int) -> dict[str, object]:
    """Return the options of a step that differ from the defaults."""
    spec = plan.specs[node]
    pairs = ((option.name, getattr(spec.options, option.name)) for option in fields(spec.options))
    said: dict[str, object] = {name: value for name, value in pairs if value != getattr(NO_OPTIONS, name)}
    terms = spec.map_input.terms if spec.map_input is not None else None
    return said if terms is None else said | terms.non_defaults()


def log_sources(plan: Plan, scope: Scope) -> None:
    """Log the sources of each step's arguments; steps that are called alike share a line.

    At level INFO, or the logger's own if that is higher, so that `run(debug=True)` always shows them.
    """
    level = max(logging.INFO, _log.getEffectiveLevel())
    for nodes in _groups_of_steps(plan):
        arguments = ArgumentTrace(plan, nodes[0], scope).arguments
        sources = "; ".join(f"{argument.parameter}: {argument.source}" for argument in arguments) or "no arguments"
        more = f" and {len(nodes) - 1:,} like it" if len(nodes) > 1 else ""
        _log.log(level, "step %r%s: %s", plan.names[nodes[0]], more, sources)


def _groups_of_steps(plan: Plan) -> Iterator[list[int]]:
    """Yield the steps, grouped by form unless they read something."""
    groups: dict[int | tuple[int], list[int]] = {}
    for node, spec in enumerate(plan.specs):
        key = (node,) if node in plan.references or plan.reads[node] else id(spec)
        groups.setdefault(key, []).append(node)
    yield from groups.values()


def _route_text(part: tuple[Namespace, str]) -> str:
    namespace, name = part
    if namespace.given is None:
        return f"sub-pipeline {namespace.name!r} takes {name!r} from around it"
    return f"given to sub-pipeline {namespace.name!r} as {name!r}"


def _several(names: tuple[str, ...]) -> str:
    return join_names(names, limit=20) or "nothing"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 3]}..."
