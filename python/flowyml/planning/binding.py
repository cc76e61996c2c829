"""Binding: where each parameter of a step gets its value from.

```
StepSpec + StepSignature ──Binder──▶ BindingResult: CallTemplate (how to call) + references + dependencies + problems
                             ├─ NameResolver     names, globs ──▶ assets, run inputs, context values
                             ├─ ItemBinder       the lists of a mapped step
                             └─ DecisionBinder   what decisions and conditions see of other steps
```

The rules, first match wins: `params`, an asset (declared, or undeclared by a step's output of that name),
`run(inputs=)`, `run(context=)`, the pipeline's context, the Python default; a parameter called `context` takes the
whole context.

Steps that were added in the same way share one `StepSpec` and so one `CallTemplate`: a fan-out of a million is bound
once, and in a chain `BindingResult.with_reads` replaces the first step's inputs by those of the others. A step of a
sub-pipeline is bound by its names inside (see `namespaces.py`); other names are looked up in the pipeline around it.
The module decides about one step at a time and knows neither graphs nor runs nor workers.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import closest_names, join_names
from flowyml.planning.assets import AssetTable
from flowyml.planning.call_template import ASSET, CHOICE, PARAM, SPREAD, VALUE, CallTemplate, ItemColumns
from flowyml.planning.decision_binding import DecisionBinder
from flowyml.planning.globs import is_glob
from flowyml.planning.item_binding import ItemBinder
from flowyml.planning.name_resolution import NameResolver
from flowyml.planning.namespaces import reached
from flowyml.planning.problems import (
    DEFAULT_NEEDED,
    GIVEN_TWICE,
    MISSING_PARAMETERS,
    NO_PARAMETER_FOR_INPUT,
    NO_PARAMETER_FOR_ITEMS,
    NO_SIGNATURE,
    SINGLE_USE_VALUE,
    UNKNOWN_PARAMETER,
    UNKNOWN_STEP,
    Problem,
)
from flowyml.steps.conditions import GuardSet
from flowyml.steps.control_flow import Decision
from flowyml.steps.coroutines import make_sync
from flowyml.steps.outcomes import SINGLE_USE_TYPES, single_use_argument
from flowyml.steps.signature import asks_for_iterator
from flowyml.store.value_store import IteratorRef, ListRef, MappedRef, OptionalRef, OutputRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flowyml.planning.name_resolution import Scope, Source
    from flowyml.planning.namespaces import Names
    from flowyml.planning.step_spec import StepSpec
    from flowyml.steps.declarations import Inputs
    from flowyml.steps.signature import StepSignature
    from flowyml.store.value_store import Reference


# The parameter by which a condition asks to see more than the step's arguments; the name is that of 2.x.
CONDITION_CONTEXT = "ctx"

VERIFY = "FLOWYML_VERIFY_FAST_PATHS"
"""The environment variable that, set to anything, makes each plan compare its fast paths with `bind`, step by step."""

# From this many ids on, steps are stored in an array, which takes a ninth of the memory of a list.
_MANY = 256

# How similar two names must be to count as a misspelling where the name may be right: the key of a mapping, say.
_MISSPELLED = 0.85


@dataclass(slots=True)
class BindingResult:
    """How the steps of one spec are called and whom they wait for.

    Attributes:
        assets: Where names are looked up.
        template: How the function is called; `None` if something is wrong.
        references: What the arguments that are read from assets refer to.
        producers: The steps to wait for.
        followed: Mapped steps whose items those of this one are made of, if nothing else is read of them.
        implicit_producers: Steps that are read by parameters' names: one that is among them must not read itself.
        slots: The positions of each declared input in `references` and in `producers`, in the order of the inputs.
            Empty if some input is not one value of one step: then steps with other inputs have to be wired themselves.
        borders: The steps of each enclosing sub-pipeline with `after=`: a step waits for that unless it waits for a
            step inside.
        problems: What is wrong.
        undefined: Declared inputs that nothing gives.
        used: Names of run inputs and context values that are read.
        notes: What is valid, and may be meant otherwise.
        defaulted: Parameters that keep their defaults, if the step is in no sub-pipeline.
        has_missing: Whether parameters have no value, which is a problem now or may become one.
        waits: Whether it reads anything or waits for anything.
        plain: The ids of all steps by name, if each name is one step and its value its only item; else `None`.
        links: The same, for steps that read one other step each and nothing else; else `None`.
    """

    assets: Names
    template: CallTemplate | None
    references: tuple[Reference, ...]
    producers: Sequence[int]
    followed: list[int]
    implicit_producers: frozenset[int]
    slots: tuple[tuple[int, int], ...]
    borders: tuple[range, ...]
    problems: list[Problem]
    undefined: list[str]
    used: set[str]
    notes: list[str]
    has_missing: bool
    defaulted: tuple[str, ...]
    waits: bool = field(init=False)
    plain: Mapping[str, int] | None = field(init=False)
    links: Mapping[str, int] | None = field(init=False)

    def __post_init__(self) -> None:
        self.waits = bool(self.references or self.producers or self.followed)
        self.plain = self.assets.plain if isinstance(self.assets, AssetTable) else None
        one = len(self.references) == len(self.producers) == len(self.slots) == 1 and self.template is not None
        self.links = self.plain if one and not (self.implicit_producers or self.followed or self.problems) else None

    @property
    def is_all_followed(self) -> bool:
        """Whether all that the items are made of are items of other steps."""
        map_input = None if self.template is None else self.template.map_input
        return map_input is not None and len(map_input.parts) == len(self.followed)

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
            if found is None or assets.specs[found[0]].map_input is not None:
                return None
            at, producer = self.slots[position]
            if self.borders and self._is_across(found[0], producers[producer]):
                return None
            references[at] = assets.reference(found)
            producers[producer] = found[0]
        return tuple(references), producers

    def _is_across(self, one: int, other: int) -> bool:
        return any((one in border) is not (other in border) for border in self.borders)

    def _looked_up(
        self, numbers: Mapping[str, int], reads: tuple[str, ...]
    ) -> tuple[tuple[Reference, ...], Sequence[int]] | None:
        """Do the same if each name is a step."""
        references, producers = list(self.references), list(self.producers)
        for position, asset in enumerate(reads):
            node = numbers.get(asset)
            if node is None:
                return None
            at, producer = self.slots[position]
            references[at] = producers[producer] = node
        return tuple(references), producers


def bind(
    spec: StepSpec, assets: AssetTable, scope: Scope, reads: tuple[str, ...] = (), *, without: int | None = None
) -> BindingResult:
    """Decide where each parameter of the steps of a spec gets its value from.

    Args:
        spec: How the steps were added.
        assets: Which step produces what.
        scope: Values of the run's inputs and the contexts.
        reads: The declared inputs of this step, if they differ from step to step.
        without: A step that must not be read by its parameter's name: the step itself.
    """
    return Binder(spec, assets, scope, spec.inputs_of(reads), without).bind()


class Binder:
    """Binds the parameters of one spec, source by source.

    In addition to what a plan needs (`BindingResult`) it knows how each source came about, for explanations.

    Args:
        spec: As for `bind`, like `assets`, `scope` and `without`.
        inputs: The declared inputs.

    Attributes:
        signature: The parameters: those of the function, and those that its conditions add.
        names: What names stand for, with the references and problems.
        items: The lists that a mapped step runs over.
        sources: The source of each parameter that has one.
        spread: The same for the values of `*args`.
        declared: The declared input of each parameter, as it was written.
        missing: Parameters without a source and without a default.
    """

    def __init__(
        self, spec: StepSpec, assets: AssetTable, scope: Scope, inputs: Inputs | None, without: int | None
    ) -> None:
        self.spec, self.inputs = spec, inputs
        self.own: StepSignature = spec.step.signature
        self.guards = GuardSet(guards, self.own) if (guards := spec.options.guards) else None
        self.signature: StepSignature = self.guards.signature if self.guards else self.own
        self.names = names = NameResolver(spec, self.signature, assets, scope, without)
        self.problems = names.problems
        self._is_join = spec.options.run_if == "any"
        self.items = None if spec.map_input is None else ItemBinder(names, spec.map_input, is_join=self._is_join)
        self.sources: dict[str, Source] = {}
        self.spread: list[Source] = []
        self.declared: dict[str, str | Sequence[str]] = {}
        self.missing: list[str] = []
        self._unknown_count = (
            0  # names in params and inputs that are no parameters; each may be meant for a missing one
        )
        self._explicit: set[str] = set()
        self._slots: dict[int, tuple[int, int]] = {}  # of each declared input that is one asset
        self._notes: list[str] = []
        self._defaulted: list[str] = []

    def bind(self) -> BindingResult:
        """Go through the sources in order of precedence."""
        names = self.names
        self._bind_params()
        if isinstance(self.spec.step.func, Decision):
            self.sources["context"] = DecisionBinder(names, self.spec).bind_decision(self._awaited_steps())
        if self.signature.readable:
            self._bind_items()
            self._bind_inputs()
        else:
            self._bind_by_position()
        if self.guards:
            self._explicit.update(self.sources)
        sees_steps = self._bind_rest()
        if not self.spec.options.given:
            self._bind_after(self._awaited_steps())
        if sees_steps:
            self.sources[CONDITION_CONTEXT] = DecisionBinder(names, self.spec).bind_condition()
        self._refuse_single_use()
        return BindingResult(
            names.assets,
            None if self.problems else self._template(),
            tuple(names.references),
            names.producers if len(names.producers) < _MANY else array("I", names.producers),
            [] if self.items is None else self.items.followed,
            frozenset(names.implicit_producers),
            self._all_slots() if not sees_steps else (),  # a condition sees other steps for each of them
            self._borders(),
            self.problems,
            names.undefined,
            names.used,
            self._notes,
            bool(self.missing),
            tuple(self._defaulted),
        )

    def _refuse_single_use(self) -> None:
        """Report values of the run and of contexts that can be read only once."""
        for name, (kind, value) in self.sources.items():
            if kind == VALUE and type(value) in SINGLE_USE_TYPES:
                source = "run(inputs=)"
                if name not in self.declared:
                    source = self.names.scope.origin(name).removesuffix(f" has {name!r}")
                self.problems.append(Problem(SINGLE_USE_VALUE, message=single_use_argument(name, value, source)))

    # -- params

    def _bind_params(self) -> None:
        signature = self.signature
        for index, key in enumerate(self.spec.keys):
            if not signature.readable or signature.takes(key):
                self.sources[key] = (PARAM, index)
            else:
                self._refuse_unknown(key, "params")

    def _refuse_unknown(self, parameter: str, argument: str) -> None:
        self._unknown_count += 1
        hint = self._parameter_hint(parameter)
        self.problems.append(Problem(UNKNOWN_PARAMETER, parameter=parameter, argument=argument, hint=hint))

    def _parameter_hint(self, parameter: str) -> str:
        signature = self.signature
        if parameter == signature.var_positional:
            return f"; *{parameter} takes inputs: inputs={{{parameter!r}: [...]}}"
        near = self.names.root.near_parameter(parameter, signature)
        return near or f"; it takes {join_names(signature.names) or 'no parameters'}"

    # -- items of a mapped step

    def _bind_items(self) -> None:
        """Columns with a parameter first, then those that have a parameter's name; the rest take any free one."""
        if self.items is None or self.spec.map_input is None:
            return
        columns, sources = self.spec.map_input.columns, self.items.bind()
        self.missing += self.items.missing
        targets = [column.parameter or self._parameter_named_as(column.source) for column in columns]
        for parameter, column, source in zip(targets, columns, sources, strict=True):
            if parameter is not None:
                self._bind_item(parameter, source, column.parameter)
        for parameter, column, source in zip(targets, columns, sources, strict=True):
            if parameter is None:
                self._bind_item_to_free(column.source, source)

    def _parameter_named_as(self, source: Any) -> str | None:
        is_free = isinstance(source, str) and source in self.own.names and source not in self.sources
        return source if is_free and source not in self._input_names() else None

    def _bind_item(self, parameter: str, source: Source, declared: str | None) -> None:
        if declared and not self.signature.takes(parameter):
            self._refuse_unknown(parameter, "over")
        elif parameter in self.sources:
            self.problems.append(Problem(GIVEN_TWICE, parameter=parameter))
        else:
            self.sources[parameter] = source

    def _bind_item_to_free(self, wanted: Any, source: Source) -> None:
        """Take the first free parameter that can be passed by position, if there is one."""
        signature, named = self.signature, self._input_names()
        free = [name for name in self.own.names if name not in self.sources and name not in named]
        if free and (free[0] in signature.positional or not signature.var_positional):
            self.sources[free[0]] = source
        elif signature.var_positional:
            self.spread.append(source)
        else:
            source_name = repr(wanted) if isinstance(wanted, str) else "the map"
            self.problems.append(Problem(NO_PARAMETER_FOR_ITEMS, source=source_name))

    def _input_names(self) -> set[str]:
        if self.inputs is None:
            return set()
        return {self.inputs} if isinstance(self.inputs, str) else set(self.inputs)

    # -- declared inputs

    def _bind_inputs(self) -> None:
        inputs = self.inputs
        if isinstance(inputs, Mapping):
            for position, (parameter, wanted) in enumerate(inputs.items()):
                self._bind_named(parameter, wanted, position)
        elif inputs is not None:
            self._assign_positional((inputs,) if isinstance(inputs, str) else tuple(inputs))

    def _bind_named(self, parameter: str, wanted: Any, position: int) -> None:
        if parameter == self.signature.var_positional:
            for name in (wanted,) if isinstance(wanted, str) else wanted:
                self._bind_spread(name)
        elif not self.signature.takes(parameter):
            self._refuse_unknown(parameter, "inputs")
        elif parameter not in self.sources:  # params take precedence
            self._bind_input(parameter, wanted, position)

    def _assign_positional(self, names: tuple[str, ...]) -> None:
        """Inputs with a parameter's name first; the others fill the remaining parameters from left to right."""
        remaining = []
        for position, name in enumerate(names):
            if name not in self.signature.names:
                remaining.append((position, name))
            elif name not in self.sources:
                self._bind_input(name, name, position)
        free = [name for name in self.own.names if name not in self.sources and name not in self.declared]
        for parameter, (position, name) in zip(free, remaining, strict=False):
            self._bind_input(parameter, name, position)
        for position, name in remaining[len(free) :]:
            self._bind_left_over(name, position)

    def _bind_left_over(self, name: str, position: int) -> None:
        if self.signature.var_positional:
            self._bind_spread(name, position)
        elif self.signature.var_keyword and not is_glob(name):
            self._bind_input(name, name, None)  # the asset's name is the keyword, so it differs from step to step
        else:
            self.problems.append(Problem(NO_PARAMETER_FOR_INPUT, asset=name))

    def _bind_input(self, parameter: str, wanted: Any, position: int | None) -> None:
        self.declared[parameter] = wanted
        source = self._input_source(wanted, position)
        if source is not None:
            self.sources[parameter] = self._or_default(parameter, source)

    def _bind_spread(self, name: str, position: int | None = None) -> None:
        """Pass an asset to `*args`; each value of a glob or a mapped step is an argument of its own."""
        source = self._input_source(name, position)
        if source is None:
            return
        (kind, which), names = source, self.names
        if kind == ASSET and names.may_be_missing(which) and not isinstance(names.reference(which), MappedRef):
            names.references[which] = OptionalRef(ListRef((names.reference(which),)))
        is_list = kind == ASSET and not isinstance(names.references[which], (int, OutputRef))
        self.spread.append((SPREAD if is_list else kind, which))

    def _input_source(self, wanted: Any, position: int | None) -> Source | None:
        """Return the source of a declared input, and record its slot if it is a single asset."""
        names = self.names
        index, producer = len(names.references), len(names.producers)
        source = names.source(wanted)
        if source is None or source[0] != ASSET or position is None:
            return source
        if isinstance(names.references[index], (int, OutputRef)):
            self._slots[position] = (index, producer)
        return source

    def _all_slots(self) -> tuple[tuple[int, int], ...]:
        """Return the slot of each declared input in order; none if some input is not one asset of one step."""
        count = 0 if self.inputs is None else 1 if isinstance(self.inputs, str) else len(self.inputs)
        return tuple(self._slots[position] for position in range(count)) if len(self._slots) == count else ()

    def _or_default(self, parameter: str, source: Source) -> Source:
        """In a join a single asset, or a mapped step, may have no value; its parameter takes the default then."""
        kind, which = source
        if kind != ASSET:
            return source
        may_be_missing = self.names.may_be_missing(which)
        self._bind_iterator(parameter, which)
        if not may_be_missing:
            return source
        if parameter not in self.signature.defaults:
            self.problems.append(Problem(DEFAULT_NEEDED, parameter=parameter))
        return CHOICE, (which, self.signature.defaults.get(parameter))

    def _bind_iterator(self, parameter: str, which: int) -> None:
        """Give a list value by value if the function asks for an iterator."""
        names = self.names
        if isinstance(names.reference(which), (MappedRef, ListRef)) and asks_for_iterator(
            self.spec.step.func, parameter
        ):
            names.references[which] = IteratorRef(names.references[which])

    def _bind_by_position(self) -> None:
        """Without a signature all is passed by position: parameters, then the item, then each input as one argument."""
        names = self.names
        extras = {name: source for name, source in self.sources.items() if name in self.signature.names}
        self.spread = [source for name, source in self.sources.items() if name not in extras]
        self.sources = extras
        if self.items is not None and self.spec.map_input is not None:
            self.spread += self.items.bind()
            self.missing += self.items.missing
            if any(column.parameter is not None for column in self.spec.map_input.columns):
                self.problems.append(Problem(NO_SIGNATURE, remedy="give over as a list, in order"))
        inputs = self.inputs
        if isinstance(inputs, Mapping):
            self.problems.append(Problem(NO_SIGNATURE, remedy="give inputs as a list, in order"))
        elif inputs is not None:
            sources = map(names.source, (inputs,) if isinstance(inputs, str) else inputs)
            self.spread.extend(source for source in sources if source is not None)
            if any(map(names.may_be_missing, range(len(names.references)))):
                self.problems.append(Problem(NO_SIGNATURE, remedy='with run_if="any" give it a glob, a list'))

    # -- parameters that nothing was said about

    def _bind_rest(self) -> bool:
        """Bind the other parameters; return whether a condition asks to see steps."""
        sees_steps = False
        for name in self.signature.names:
            if name in self.sources or name in self.declared:  # what is declared and undefined is no other asset
                continue
            problem_count = len(self.problems)
            source = self.names.implicit_source(name)
            source = self.names.value_source(name) if source is None else self._or_default(name, source)
            if source is not None:
                self.sources[name] = source
            elif len(self.problems) > problem_count:
                continue
            elif name == CONDITION_CONTEXT and self.guards is not None and name not in self.own.names:
                sees_steps = True
            elif self.is_optional(name):
                self._note_first(name)
            elif name not in self.signature.defaults:
                self.missing.append(name)
            elif self.spec.within is None:
                self._defaulted.append(name)
        if len(self.missing) > self._unknown_count and self.names.scope.complete:
            self._report_missing()
        return sees_steps

    def _note_first(self, name: str) -> None:
        """A condition's unknown name stands for the first argument, unless it is another one, misspelled."""
        first, *others = self.own.names or ("",)
        near = closest_names(name, others, cutoff=_MISSPELLED)
        if near and not closest_names(name, [first], cutoff=_MISSPELLED):
            means = f"did you mean {near[0]!r}? It gets the step's first argument, {first!r}"
            self._notes.append(f"asks a condition for {name!r}, which is none of its parameters; {means}")

    def is_optional(self, name: str) -> bool:
        """Return True for a condition's only parameter: without a source it gets the first argument."""
        return self.guards is not None and name in self.guards.optional

    def _report_missing(self) -> None:
        hint = "".join(map(self._missing_hint, self.missing)) or f"; give params, {self._inputs_hint()}"
        self.problems.append(Problem(MISSING_PARAMETERS, parameters=self.missing, hint=hint))

    def _inputs_hint(self) -> str:
        """Return how a parameter reads what the step before it produces; the order of steps alone means nothing."""
        is_only_one = len(self.missing) == 1 and self.inputs is None and self.spec.within is None
        before = self.names.root.before(self.spec) if is_only_one else None
        return f"inputs{'' if before is None else f'=[{before!r}]'}, run(inputs=) or a context value"

    def _missing_hint(self, name: str) -> str:
        """Return why a parameter gets nothing: only the step itself has its name, or something has a name like it."""
        names, assets = self.names, self.names.assets
        found = assets.find(name)
        if found is not None and found[0] in names.hidden:
            own = f"{name!r} is the step's own output, which it does not read"
            return f"; {own}: rename the parameter or give it in params"
        if assets.number(name) is not None:
            return assets.hint(name)
        close = assets.close(name, [*names.scope.inputs, *names.scope.context])
        near = "".join(f"; {assets.origin(other) or names.scope.origin(other)}" for other in close[:1])
        return names.not_added_hint(name) + near

    # -- after=

    def _awaited_steps(self) -> Sequence[int]:
        """Return the steps in `after=`; names that are no steps are left out."""
        assets, after = self.names.assets, self.spec.after
        first = assets.number(after[0]) if after else None
        if first is not None and isinstance(assets, AssetTable) and assets.are_named(first, after):
            return range(first, first + len(after))  # usually all steps before a decision
        return [node for name in after for node in assets.steps(name) or ()]

    def _bind_after(self, awaited: Sequence[int]) -> None:
        names = self.names
        names.producers.extend(awaited)
        if not isinstance(awaited, range):
            self._refuse_unknown_steps(self.spec.after)
        within = self.spec.within
        while within is not None and not within.grafted:
            if within.after and not any(node in within.steps for node in self._dependencies()):
                names.look_from(within.outer)
                names.producers.extend(node for name in within.after for node in names.assets.steps(name) or ())
                self._refuse_unknown_steps(within.after)
            within = within.outer
        if self.spec.within is not None:
            names.look_from(self.spec.within)

    def _dependencies(self) -> Iterable[int]:
        return self.names.producers if self.items is None else (*self.names.producers, *self.items.followed)

    def _refuse_unknown_steps(self, after: Iterable[str]) -> None:
        assets = self.names.assets
        for name in after:
            if assets.steps(name) is None:
                self.problems.append(Problem(UNKNOWN_STEP, name=name, hint=assets.near(name, assets.names)))

    def _borders(self) -> tuple[range, ...]:
        """Return the steps of the sub-pipelines that the step is in and that have an `after=`."""
        borders, within = [], self.spec.within
        while within is not None and not within.grafted:
            if within.after:
                borders.append(within.steps)
            within = within.outer
        return tuple(borders)

    # -- the call

    def _template(self) -> CallTemplate:
        sources, keywords = self._in_call_order()
        spec, func = self.spec, self.spec.step.func
        function = self.guards.guarded(func, self._explicit) if self.guards else make_sync(func)
        map_input = ItemColumns(self.items.map_input, tuple(self.items.parts)) if self.items else None
        return CallTemplate(function, sources, keywords, len(spec.several), map_input, spec.has_single_param)

    def _in_call_order(self) -> tuple[tuple[Source, ...], tuple[str, ...]]:
        """Pass by position as far as possible, the rest by keyword."""
        signature = self.signature
        by_position: list[Source] = []
        by_keyword = dict(self.sources)
        for index, name in enumerate(signature.positional):
            if not self._goes_by_position(index):
                break
            default = (VALUE, signature.defaults.get(name))
            by_position.append(by_keyword.pop(name, default))
        return (*by_position, *self.spread, *by_keyword.values()), tuple(by_keyword)

    def _goes_by_position(self, index: int) -> bool:
        """A parameter goes by position if it has a source, or if something after it can go in no other way."""
        signature = self.signature
        if signature.positional[index] in self.sources or self.spread:
            return True
        return any(name in self.sources for name in signature.positional[index + 1 : signature.positional_only])
