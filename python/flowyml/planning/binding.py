"""Wiring: where each parameter of a step gets its value from.

The rules, first match wins: `params`, an asset (declared, or undeclared by a step's output of that name),
`run(inputs=)`, `run(context=)`, the pipeline's context, the Python default; a parameter called `context` takes the
whole context.

```
Form (what add_step was told) + Signature + Assets ──wire()──▶ Wired: Template (how to call) + references + problems
```

Steps that were added in the same way share one `StepSpec` and so one `Template`: a fan-out of a million is wired
once,
and
in a chain `BindingResult.with_reads` puts the other steps' inputs in the places of the first one's. A step of a
sub-pipeline
is wired by its names inside (see `namespaces.py`); what these do not tell is looked for in the pipeline around it.
The module decides about one step at a time and knows nothing of graphs, runs or workers.

Looking: what a decision, or a condition that asks for `ctx`, may see of the steps that it waits for.

```
If(lambda ctx: ...)         ──▶ the steps in its after=, the context, the run's inputs   ──▶ (VIEW, View)
skip_if=lambda ctx: ...     ──▶ the steps that the step waits for, and the same
```

The values are references like those of arguments; the view says which is whose.

Wired: the outcome of wiring one form, and how steps that differ only in what they read take it over.

It knows nothing of the rules that led to it (`wiring.py`).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import closest_names
from flowyml.planning.call_template import (
    ASSET,
    CHOICE,
    PARAM,
    SPREAD,
    VALUE,
    VIEW,
    CallTemplate,
    DecisionInput,
    ItemColumns,
)
from flowyml.planning.globs import is_glob
from flowyml.planning.item_binding import ItemBinder
from flowyml.planning.namespaces import NamespaceView, names_of, reached
from flowyml.planning.problems import (
    DEFAULT_NEEDED,
    MISSING_PARAMETERS,
    NO_PARAMETER_FOR_INPUT,
    NO_SIGNATURE,
    SINGLE_USE_VALUE,
    UNKNOWN_STEP,
    Problem,
)
from flowyml.planning.step_spec import AssetTable
from flowyml.steps.control_flow import Decision
from flowyml.steps.coroutines import blocking
from flowyml.steps.decision_context import VisibleStep
from flowyml.steps.outcomes import ONCE, given_once
from flowyml.steps.signature import asks_for_iterator
from flowyml.store.value_store import IteratorRef, ListRef, MappedRef, OptionalRef, OutputRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.namespaces import Names
    from flowyml.planning.step_spec import StepSpec
    from flowyml.steps.declarations import Inputs
    from flowyml.store.value_store import Reference


# What a condition calls its parameter that wants to see more than the step's arguments, as in the pages of 2.x.
SEEN_AS = "ctx"


class DecisionBinder(ItemBinder):
    """The part of a wiring that concerns what is seen of other steps."""

    def _take_view(self) -> None:
        """A decision looks at the steps that it waits for, the reason why it names them."""
        before = self._see(self.awaited())
        params = {**self.scope.context, **self.scope.inputs}
        given = self._given_to_view(self.assets, params) if isinstance(self.assets, NamespaceView) else ()
        self.sources["context"] = (VIEW, DecisionInput(before, params, given))

    def _take_view_of_condition(self) -> None:
        """A condition looks at the steps that its step waits for anyway."""
        first = len(self.references)
        before = self._see(dict.fromkeys(self.producers))
        params = {**self.scope.context, **self.scope.inputs}
        self.used.update(self.scope.context, self.scope.inputs)  # nobody knows which of them it will ask for
        self.sources[SEEN_AS] = (VIEW, DecisionInput(before, params, first=first))

    def _see(self, nodes: Iterable[int]) -> tuple[VisibleStep, ...]:
        """Read the return values of some steps; decisions that see the same steps share the description of each."""
        known = self._whole[0].seen.setdefault(self.form.within, {})
        seen = []
        for node in nodes:
            each = known.get(node)
            if each is None:
                each = known[node] = self._before(node), OptionalRef(self._whole[0].whole(node))
            seen.append(each)
        self.references.extend([reference for _, reference in seen])
        return tuple([before for before, _ in seen])

    def awaited(self) -> Sequence[int]:
        """Return the steps in `after=`, without names that are no steps."""
        assets, after = self.assets, self.form.after
        first = assets.number(after[0]) if after else None
        if first is not None and isinstance(assets, AssetTable) and assets.are_named(first, after):
            return range(first, first + len(after))  # all steps before a decision, as a rule
        return [node for name in after for node in assets.steps(name) or ()]

    def _before(self, node: int) -> VisibleStep:
        assets, within = self._whole[0], self.form.within
        name, form = assets.name_of(node), self.assets.forms[node]
        mapped = form.over is not None
        if form.within is None:
            return VisibleStep(name, form.outputs or (name,), mapped=mapped)
        named = names_of(assets, node, within)
        also = tuple((other, index) for index, names in enumerate(named) for other in names[1:-1])
        seen_as = name if within is None else name.removeprefix(within.prefix)
        return VisibleStep(
            seen_as, tuple(names[0] for names in named), also, tuple(names[-1] for names in named), mapped
        )

    def _given_to_view(self, within: NamespaceView, params: dict[str, Any]) -> tuple[tuple[str, int], ...]:
        """What the pipeline around gives to the sub-pipeline of a decision is for the decision, too."""
        given = []
        for name in within.handed():
            source = self._outside(name, declared=False)
            if source is not None and source[0] == ASSET:
                given.append((name, source[1]))
            elif source is not None:
                params[name] = source[1]
        return tuple(given)


@dataclass(slots=True)
class BindingResult:
    """The outcome of wiring one form.

    Attributes:
        assets: Where its names are looked up.
        template: How the function is called; `None` if something is wrong.
        references: What the arguments that are read from assets refer to.
        producers: The steps to wait for.
        followed: Mapped steps whose items those of this one are made of, if nothing else is read of them.
        own_risk: Steps that this wiring reads without naming them: one that is among them must not read itself.
        slots: The positions of each declared input in `references` and in `producers`, in the order of the inputs.
            Empty if some input is not one value of one step: then steps with other inputs have to be wired themselves.
        borders: The steps of each enclosing sub-pipeline with `after=`: a step waits for that unless it waits for a
            step inside.
        problems: What is wrong.
        undefined: Declared inputs that nothing gives.
        used: Names of run inputs and context values that are taken.
        notes: What is right, and may be meant otherwise.
        defaulted: Parameters that keep their defaults, if the step is in no sub-pipeline.
        lacks: Whether parameters have no value, which is a problem now or may become one.
        waits: Whether it reads anything or waits for anything.
        plain: The numbers of all steps by name, where each name is one step, and its value its only item; else `None`.
        links: The same, for steps that read one other step each and nothing else is to be said of; else `None`.
    """

    assets: Names
    template: CallTemplate | None
    references: tuple[Reference, ...]
    producers: Sequence[int]
    followed: list[int]
    own_risk: frozenset[int]
    slots: tuple[tuple[int, int], ...]
    borders: tuple[range, ...]
    problems: list[Problem]
    undefined: list[str]
    used: set[str]
    notes: list[str]
    lacks: bool
    defaulted: tuple[str, ...]
    waits: bool = field(init=False)
    plain: Mapping[str, int] | None = field(init=False)
    links: Mapping[str, int] | None = field(init=False)

    def __post_init__(self) -> None:
        """See whether it stands alone, and whether others like it are wired by looking up names."""
        self.waits = bool(self.references or self.producers or self.followed)
        self.plain = self.assets.plain if isinstance(self.assets, AssetTable) else None
        one = len(self.references) == len(self.producers) == len(self.slots) == 1 and self.template is not None
        self.links = self.plain if one and not (self.own_risk or self.followed or self.problems) else None

    @property
    def is_all_followed(self) -> bool:
        """Whether all that the items are made of are items of other steps."""
        over = None if self.template is None else self.template.over
        return over is not None and len(over.parts) == len(self.followed)

    def with_reads(self, reads: tuple[str, ...]) -> tuple[tuple[Reference, ...], Sequence[int]] | None:
        """Return references and producers of a step that has these inputs instead; `None` if it differs in more."""
        assets = self.assets
        if self.template is None or not self.slots:
            return None
        if self.plain is not None:
            return self._looked_up(self.plain, reads)
        references, producers = list(self.references), list(self.producers)
        for position, asset in enumerate(reads):
            found = assets.find(asset) or reached(assets, asset)
            if found is None or assets.forms[found[0]].over is not None:
                return None
            at, producer = self.slots[position]
            if self.borders and self._is_across(found[0], producers[producer]):
                return None
            references[at] = assets.reference(found)
            producers[producer] = found[0]
        return tuple(references), producers

    def _is_across(self, one: int, other: int) -> bool:
        """Return whether a border lies between two steps."""
        return any((one in border) is not (other in border) for border in self.borders)

    def _looked_up(
        self, numbers: Mapping[str, int], reads: tuple[str, ...]
    ) -> tuple[tuple[Reference, ...], Sequence[int]] | None:
        """Do the same where a name is a step."""
        references, producers = list(self.references), list(self.producers)
        for position, asset in enumerate(reads):
            node = numbers.get(asset)
            if node is None:
                return None
            at, producer = self.slots[position]
            references[at] = producers[producer] = node
        return tuple(references), producers


VERIFY = "FLOWYML_VERIFY_FAST_PATHS"
"""The environment variable that, set to anything, makes each plan compare its fast paths with `wire`, step by step."""

# From so many on, ids of steps are kept in an array, which takes a ninth of the memory of a list.
_MANY = 256

# How like two names must be for one to be the other, misspelled, where it may well be right: a key of a mapping, say.
_MISSPELLED = 0.85


def wire(
    form: StepSpec, assets: AssetTable, scope: Scope, reads: tuple[str, ...] = (), *, without: int | None = None
) -> BindingResult:
    """Decide where each parameter of a form gets its value from.

    Args:
        form: What `add_step` was told.
        assets: Who produces what.
        scope: Values of the run's inputs and the contexts.
        reads: The declared inputs of this step, where they differ from step to step.
        without: A step that must not be read without being named: the step itself.
    """
    return Binder(form, assets, scope, form.inputs_of(reads), without).wire()


class Binder(DecisionBinder):
    """The wiring of one form, source by source.

    Beside what a plan needs (`BindingResult`) it knows, for those who ask, how each source came about.

    Attributes:
        declared: The declared input of each parameter, as it was written.
        slots: For each declared input that is one asset, where it stands in `references` and in `producers`.
    """

    def __init__(
        self, form: StepSpec, assets: AssetTable, scope: Scope, inputs: Inputs | None, without: int | None
    ) -> None:
        super().__init__(form, assets, scope, inputs, without)
        self.explicit: set[str] = set()
        self.declared: dict[str, str | Sequence[str]] = {}
        self.slots: dict[int, tuple[int, int]] = {}
        self.notes: list[str] = []
        self.defaulted: list[str] = []

    def wire(self) -> BindingResult:
        """Go through the sources in order of precedence."""
        self._take_params()
        if isinstance(self.form.step.func, Decision):
            self._take_view()
        if self.signature.readable:
            self._take_items()
            self._take_inputs()
        else:
            self._take_by_position()
        if self.guards:
            self.explicit.update(self.sources)
        looks = self._take_the_rest()
        self._take_after()
        if looks:
            self._take_view_of_condition()
        self._refuse_once()
        return BindingResult(
            self.assets,
            None if self.problems else self._template(),
            tuple(self.references),
            self.producers if len(self.producers) < _MANY else array("I", self.producers),
            self.followed,
            frozenset(self.own_risk),
            self._all_slots() if not looks else (),  # a condition sees other steps in each of them
            self._borders(),
            self.problems,
            self.undefined,
            self.used,
            self.notes,
            bool(self.missing),
            tuple(self.defaulted),
        )

    def _refuse_once(self) -> None:
        """Say which values beside the steps can be read only once."""
        for name, (kind, value) in self.sources.items():
            if kind == VALUE and type(value) in ONCE:
                source = "run(inputs=)"
                if name not in self.declared:
                    source = self.scope.origin(name).removesuffix(f" has {name!r}")
                self.problems.append(Problem(SINGLE_USE_VALUE, message=given_once(name, value, source)))

    # -- the sources, in order of precedence

    def _take_params(self) -> None:
        signature = self.signature
        for index, key in enumerate(self.form.keys):
            if not signature.readable or signature.takes(key):
                self.sources[key] = (PARAM, index)
            else:
                self._refuse_unknown(key, "params")

    def _take_inputs(self) -> None:
        inputs = self.inputs
        if isinstance(inputs, Mapping):
            for position, (parameter, wanted) in enumerate(inputs.items()):
                self._take_named(parameter, wanted, position)
        elif inputs is not None:
            self._place((inputs,) if isinstance(inputs, str) else tuple(inputs))

    def _take_named(self, parameter: str, wanted: Any, position: int) -> None:
        if parameter == self.signature.var_positional:
            for name in (wanted,) if isinstance(wanted, str) else wanted:
                self._take_spread(name)
        elif not self.signature.takes(parameter):
            self._refuse_unknown(parameter, "inputs")
        elif parameter not in self.sources:  # else params give it, and params go first
            self._fill(parameter, wanted, position)

    def _place(self, names: tuple[str, ...]) -> None:
        """Names first, then the remaining inputs fill the remaining parameters left to right."""
        remaining = []
        for position, name in enumerate(names):
            if name not in self.signature.names:
                remaining.append((position, name))
            elif name not in self.sources:
                self._fill(name, name, position)
        free = [name for name in self.own.names if name not in self.sources and name not in self.declared]
        for parameter, (position, name) in zip(free, remaining, strict=False):
            self._fill(parameter, name, position)
        for position, name in remaining[len(free) :]:
            self._take_left_over(name, position)

    def _take_left_over(self, name: str, position: int) -> None:
        if self.signature.var_positional:
            self._take_spread(name, position)
        elif self.signature.var_keyword and not is_glob(name):
            self._fill(name, name, None)  # the asset's name is the keyword, so it differs from step to step
        else:
            self.problems.append(Problem(NO_PARAMETER_FOR_INPUT, asset=name))

    def _take_spread(self, name: str, position: int | None = None) -> None:
        """Pass an asset to `*args`; of a glob or a mapped step, each value is an argument of its own."""
        source = self._noted(name, position)
        if source is None:
            return
        kind, which = source
        if kind == ASSET and self._may_be_missing(which) and not isinstance(self._reference(which), MappedRef):
            self.references[which] = OptionalRef(ListRef((self._reference(which),)))
        many = kind == ASSET and not isinstance(self.references[which], (int, OutputRef))
        self.spread.append((SPREAD if many else kind, which))

    def _take_the_rest(self) -> bool:
        """Fill what nobody has spoken of; return whether a condition asks to see more than arguments."""
        looks = False
        for name in self.signature.names:
            if name in self.sources or name in self.declared:  # what is declared and undefined is no other asset
                continue
            told = len(self.problems)
            source = self._implicit(name) or self._from_scope(name)
            if source is not None:
                self.sources[name] = source
            elif len(self.problems) > told:
                continue
            elif name == SEEN_AS and self.guards is not None and name not in self.own.names:
                looks = True
            elif self.is_optional(name):
                self._note_first(name)
            elif name not in self.signature.defaults:
                self.missing.append(name)
            elif self.form.within is None:
                self.defaulted.append(name)
        if len(self.missing) > self.unknown and self.scope.complete:
            self._report_missing(self.missing)
        return looks

    def _note_first(self, name: str) -> None:
        """A condition's name that nothing has stands for the first argument, unless it is another one, misspelled."""
        first, *others = self.own.names or ("",)
        near = closest_names(name, others, cutoff=_MISSPELLED)
        if near and not closest_names(name, [first], cutoff=_MISSPELLED):
            means = f"did you mean {near[0]!r}? It gets the step's first argument, {first!r}"
            self.notes.append(f"asks a condition for {name!r}, which is none of its parameters; {means}")

    def is_optional(self, name: str) -> bool:
        """A condition's only parameter needs no source of its own: the first argument stands in."""
        return self.guards is not None and name in self.guards.optional

    def _report_missing(self, missing: list[str]) -> None:
        hint = "".join(map(self._missing_hint, missing)) or f"; give params, {self._inputs_hint(missing)}"
        self.problems.append(Problem(MISSING_PARAMETERS, parameters=missing, hint=hint))

    def _inputs_hint(self, missing: list[str]) -> str:
        """Say how a parameter would read what the step before it produces; that it follows there means nothing."""
        alone = len(missing) == 1 and self.inputs is None and self.form.within is None
        before = self._whole[0].before(self.form) if alone else None
        return f"inputs{'' if before is None else f'=[{before!r}]'}, run(inputs=) or a context value"

    def _missing_hint(self, name: str) -> str:
        """Say why a parameter gets nothing: only the step itself has its name, or something has one that is like it."""
        found = self.assets.find(name)
        if found is not None and found[0] in self.hidden:
            own = f"{name!r} is the step's own output, which it does not read"
            return f"; {own}: rename the parameter or give it in params"
        if self.assets.number(name) is not None:
            return self.assets.hint(name)
        close = self.assets.close(name, [*self.scope.inputs, *self.scope.context])
        near = "".join(f"; {self.assets.origin(each) or self.scope.origin(each)}" for each in close[:1])
        return self._not_added(name) + near

    def _implicit(self, name: str) -> tuple[int, Any] | None:
        found = self.assets.find(name)
        if found is None or found[0] in self.hidden:
            source = self._outside(name, declared=False)
            return source and self._or_default(name, source)
        self.own_risk.add(found[0])
        self.implicit.add(name)
        return self._or_default(name, self._asset(self.assets.reference(found), [found[0]]))

    def _take_by_position(self) -> None:
        """Without a signature all is passed by position: parameters, then the item, then each input as one argument."""
        extras = {name: source for name, source in self.sources.items() if name in self.signature.names}
        self.spread = [source for name, source in self.sources.items() if name not in extras]
        self.sources = extras
        self._spread_items()
        inputs = self.inputs
        if isinstance(inputs, Mapping):
            self.problems.append(Problem(NO_SIGNATURE, remedy="give inputs as a list, in order"))
        elif inputs is not None:
            sources = map(self._source, (inputs,) if isinstance(inputs, str) else inputs)
            self.spread.extend(source for source in sources if source is not None)
            if any(map(self._may_be_missing, range(len(self.references)))):
                self.problems.append(Problem(NO_SIGNATURE, remedy='with run_if="any" give it a glob, a list'))

    def _take_after(self) -> None:
        if self.form.options.given:
            return
        awaited = self.awaited()
        self.producers.extend(awaited)
        if not isinstance(awaited, range):
            self._refuse_unknown_steps(self.form.after)
        within = self.form.within
        while within is not None and not within.grafted:
            if within.after and not any(node in within.steps for node in (*self.producers, *self.followed)):
                self._look_from(within.outer)
                self.producers.extend(node for name in within.after for node in self.assets.steps(name) or ())
                self._refuse_unknown_steps(within.after)
            within = within.outer
        if self.form.within is not None:
            self._look_from(self.form.within)

    def _refuse_unknown_steps(self, after: Iterable[str]) -> None:
        for name in after:
            if self.assets.steps(name) is None:
                self.problems.append(Problem(UNKNOWN_STEP, name=name, hint=self.assets.near(name, self.assets.names)))

    # -- assets

    def _fill(self, parameter: str, wanted: Any, position: int | None) -> None:
        self.declared[parameter] = wanted
        source = self._noted(wanted, position)
        if source is not None:
            self.sources[parameter] = self._or_default(parameter, source)

    def _or_default(self, parameter: str, source: tuple[int, Any]) -> tuple[int, Any]:
        """In a join a single asset, or a mapped step, may have no value; its parameter takes the default then."""
        kind, which = source
        if kind != ASSET:
            return source
        may_be_missing = self._may_be_missing(which)
        self._stream(parameter, which)
        if not may_be_missing:
            return source
        if parameter not in self.signature.defaults:
            self.problems.append(Problem(DEFAULT_NEEDED, parameter=parameter))
        return CHOICE, (which, self.signature.defaults.get(parameter))

    def _stream(self, parameter: str, which: int) -> None:
        """Give a list value by value where the function asks for an iterator."""
        if isinstance(self._reference(which), (MappedRef, ListRef)) and asks_for_iterator(
            self.form.step.func, parameter
        ):
            self.references[which] = IteratorRef(self.references[which])

    def _noted(self, wanted: Any, position: int | None) -> tuple[int, Any] | None:
        """Return the source of a declared input, and note where it stands if it is a single asset."""
        at, producer = len(self.references), len(self.producers)
        source = self._source(wanted)
        if source is None or source[0] != ASSET or position is None:
            return source
        if isinstance(self.references[at], (int, OutputRef)):
            self.slots[position] = (at, producer)
        return source

    def _borders(self) -> tuple[range, ...]:
        """Return the steps of the sub-pipelines that the step is in and that have an `after=`."""
        borders, within = [], self.form.within
        while within is not None and not within.grafted:
            if within.after:
                borders.append(within.steps)
            within = within.outer
        return tuple(borders)

    def _all_slots(self) -> tuple[tuple[int, int], ...]:
        """Return the slot of each declared input in order; none if some input is not one asset of one step."""
        count = 0 if self.inputs is None else 1 if isinstance(self.inputs, str) else len(self.inputs)
        return tuple(self.slots[position] for position in range(count)) if len(self.slots) == count else ()

    # -- the call

    def _template(self) -> CallTemplate:
        sources, keywords = self._in_call_order()
        func = self.form.step.func
        function = self.guards.guarded(func, self.explicit) if self.guards else blocking(func)
        over = ItemColumns(self.form.over, tuple(self.parts)) if self.form.over else None
        return CallTemplate(function, sources, keywords, len(self.form.several), over, self.form.lone)

    def _in_call_order(self) -> tuple[tuple[tuple[int, Any], ...], tuple[str, ...]]:
        """Pass by position as far as it goes, the rest by keyword."""
        signature = self.signature
        by_position: list[tuple[int, Any]] = []
        by_keyword = dict(self.sources)
        for index, name in enumerate(signature.positional):
            if not self._goes_by_position(index):
                break
            default = (VALUE, signature.defaults.get(name))
            by_position.append(by_keyword.pop(name, default))
        return (*by_position, *self.spread, *by_keyword.values()), tuple(by_keyword)

    def _goes_by_position(self, index: int) -> bool:
        """A parameter goes by position if it is filled, or if something after it can go in no other way."""
        signature = self.signature
        if signature.positional[index] in self.sources or self.spread:
            return True
        return any(name in self.sources for name in signature.positional[index + 1 : signature.positional_only])
