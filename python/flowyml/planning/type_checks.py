"""Type checks: the type hints of what a step returns and of what the next one takes.

```
Plan ──▶ arguments of each step, with their hints ──▶ producer's hint or value ──beartype──▶ problems or a warning
```

Loaded only for `Pipeline(validate_types=...)`. Three things are compared with the hint of a parameter: the return hint
of the step whose output it reads; the class of a value from `params`, run inputs or a context; the items of a map.
Steps that were added alike share one sentence. If beartype cannot decide, nothing is reported.
"""

from __future__ import annotations

import abc
import collections
import collections.abc as abcs
import inspect
import logging
import numbers
import sys
import types
import typing
from functools import lru_cache, partial
from itertools import compress
from typing import TYPE_CHECKING, Any, Literal, NewType, Union, get_args, get_origin

from flowyml._containers import NamedTuple
from flowyml.diagnostics.tracebacks import warn_caller
from flowyml.planning.call_template import ASSET, CHOICE, ITEM, KEPT, PARAM, SPREAD, VALUE
from flowyml.planning.namespaces import types_mode
from flowyml.planning.plan import Plan
from flowyml.planning.problems import TYPE_MISMATCH, Problem, Problems
from flowyml.steps.conditions import GuardSet
from flowyml.steps.control_flow import Decision
from flowyml.steps.map_task import MapTaskResult
from flowyml.store.value_store import IteratorRef, ListRef, MappedRef, OptionalRef, OutputRef

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from flowyml.planning.call_template import CallTemplate
    from flowyml.planning.call_template import ItemColumns as Over
    from flowyml.planning.item_index import ItemIndex
    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.step_spec import StepColumns, StepSpec

_log = logging.getLogger("flowyml")

_LONGEST = 100
_MAPPINGS = {dict, collections.defaultdict, collections.OrderedDict, abcs.Mapping, abcs.MutableMapping}
# Generics whose first parameter is the type of what iterating gives; mappings have a second one.
_ITERABLES = {
    *(list, set, frozenset, tuple, collections.deque, *_MAPPINGS),
    *(abcs.Iterable, abcs.Iterator, abcs.Generator, abcs.Reversible, abcs.Collection, abcs.Container),
    *(abcs.Sequence, abcs.MutableSequence, abcs.Set, abcs.MutableSet),
}
# What a parameter of a class takes in addition to its subclasses; numpy's numbers are registered.
_WIDER: dict[Any, Any] = {
    int: Union[int, numbers.Integral],  # noqa: UP007
    float: Union[float, numbers.Real],  # noqa: UP007
    complex: Union[complex, numbers.Complex],  # noqa: UP007
    bytes: Union[bytes, bytearray, memoryview],  # noqa: UP007
}
_FILES: set[Any] = {typing.IO, typing.TextIO, typing.BinaryIO}  # no class of files is a subclass of these
_UNKNOWN: set[Any] = {Any, object, abcs.Awaitable, abcs.Coroutine}  # an awaitable's value is of another type


class TypedArgument(NamedTuple):
    """An argument whose parameter has a hint: the hint, and its source as in `Template.sources`."""

    parameter: str
    hint: Any
    kind: int
    which: Any


class ValueOrigin(NamedTuple):
    """Where an argument's value comes from: a step, which of its outputs, and how many lists there are around it.

    There are -1 where the value is an element of what the step returns.
    """

    node: int
    part: int | None
    lists: int


def checked_plan(
    name: str,
    columns: StepColumns,
    scope: Scope,
    mode: Literal["warn", "error"] | None,
    *,
    strict: bool,
) -> Plan:
    """Return the plan of a pipeline after its types were compared; a mismatch is a problem or a warning.

    Args:
        name: As for `Plan`, like `columns`, `scope` and `strict`.
        columns: What was added.
        scope: The named values.
        mode: What a mismatch is; a plan that is not strict keeps errors as problems and ignores warnings. Sub-pipelines
            may set another mode for their steps.
        strict: Raise the problems.

    Raises:
        PipelineValidationError: With everything that is wrong.
    """
    plan = Plan(name, columns, scope, strict=False)
    warnings = Problems(plan.names, plan.specs)
    TypeChecker(plan, scope, plan.item_index, mode, errors=plan.problems, warnings=warnings).check(
        range(len(plan.names))
    )
    if strict:
        plan.problems.raise_all(name)
        if warnings:
            warn_caller("\n".join([f"types of pipeline {name!r} do not fit:", *warnings.sentences()]))
    return plan


def check_new_steps(
    plan: Plan,
    scope: Scope,
    item_index: ItemIndex,
    steps: range,
    mode: Literal["warn", "error"] | None,
    *,
    problems: Problems,
) -> None:
    """Check steps that come during a run: log the mismatches that are warnings, add the others to the problems."""
    warnings = Problems(plan.names, plan.specs)
    TypeChecker(plan, scope, item_index, mode, errors=problems, warnings=warnings).check(steps)
    if warnings:  # logged: the code that runs in this thread need not be the code that defines the pipeline
        _log.warning("types of pipeline %r do not fit:\n%s", plan.name, "\n".join(warnings.sentences()))


class TypeChecker:
    """Where the types of a plan contradict each other.

    Args:
        plan: The plan, valid or not.
        scope: Values of the run's inputs and the contexts, to say where a value comes from.
        item_index: Which items each step has.
        mode: What a mismatch is, unless a sub-pipeline sets its own mode; `None`: types are not compared.
        errors: Collects the mismatches that are errors.
        warnings: Collects the mismatches that are warnings.
    """

    def __init__(
        self,
        plan: Plan,
        scope: Scope,
        item_index: ItemIndex,
        mode: Literal["warn", "error"] | None,
        *,
        errors: Problems,
        warnings: Problems,
    ) -> None:
        self._plan, self._scope, self._item_index, self._mode = plan, scope, item_index, mode
        self._problems = {"error": errors, "warn": warnings}
        self._hints: dict[int, dict[str, Any]] = {}
        self._fits: dict[Any, bool] = {}

    def check(self, steps: range) -> None:
        """Compare the types of every argument of some steps."""
        plan = self._plan
        arguments: dict[int, list[TypedArgument]] = {}
        for node in steps:
            template = plan.templates[node]
            if template is None or self._mode_of(node) is None:
                continue
            if id(template) not in arguments:
                arguments[id(template)] = list(self._arguments(plan.specs[node], template))
                self._check_values(node, template, arguments[id(template)])
            if template.map_input is not None:
                self._check_lists(node, template.map_input)
            for argument in arguments[id(template)]:
                self._check_argument(node, argument)

    def _mode_of(self, node: int) -> Literal["warn", "error"] | None:
        return types_mode(self._plan.specs[node].within, self._mode)

    # -- what there is to compare

    def _hints_of(self, spec: StepSpec) -> dict[str, Any]:
        func = spec.step.func
        if isinstance(func, Decision):
            return {}
        if id(func) not in self._hints:
            self._hints[id(func)] = hints_of(func)
        return self._hints[id(func)]

    def _arguments(self, spec: StepSpec, template: CallTemplate) -> Iterator[TypedArgument]:
        """Yield the arguments of a call whose parameters have hints."""
        hints, signature = self._hints_of(spec), spec.step.signature
        if not hints or not signature.readable:
            return
        guards = spec.options.guards
        positional = (GuardSet(guards, signature).signature if guards else signature).positional
        count = len(template.sources) - len(template.keywords)
        for index, (kind, which) in enumerate(template.sources):
            name = positional[index] if index < min(count, len(positional)) else signature.var_positional
            name = template.keywords[index - count] if index >= count else name
            if name in hints and name != "return":
                default = signature.defaults.get(name, hints)
                hint = optional(hints[name]) if default is None else hints[name]
                yield TypedArgument(name, hint, kind, which)

    def _given(self, reference: Any) -> Iterator[ValueOrigin]:
        """Yield the values that a reference stands for."""
        if isinstance(reference, (OptionalRef, IteratorRef)):
            yield from self._given(reference.reference)
        elif isinstance(reference, ListRef):
            for part in reference.references:
                for node, output, lists in self._given(part):
                    yield ValueOrigin(node, output, lists + 1)
        elif isinstance(reference, MappedRef):
            yield ValueOrigin(reference.node, None, 1)
        elif isinstance(reference, OutputRef):
            yield ValueOrigin(self._item_index.node_at(reference.item), reference.part, 0)
        elif isinstance(reference, int):
            yield ValueOrigin(self._item_index.node_at(reference), None, 0)

    def _hint(self, given: ValueOrigin, wrapper: type = list) -> Any:
        """Return the hint of a value that a step gives; the values of a mapped step are wrapped in a list."""
        spec = self._plan.specs[given.node]
        if spec.options.dynamic:  # it returns a pipeline, whose output has no hint
            return Any
        hint = self._hints_of(spec).get("return", Any)
        if given.part is not None:
            hint = part_of(hint, given.part, spec.parts[given.part], len(spec.outputs))
        if given.lists < 0:
            hint = element_of(hint)
        for depth in range(given.lists):
            hint = types.GenericAlias(list if depth else wrapper, (hint,))
        return hint

    # -- comparing

    def _check_values(self, node: int, template: CallTemplate, arguments: list[TypedArgument]) -> None:
        """Compare the values that all steps of a spec share."""
        defaults = self._plan.specs[node].step.signature.defaults
        for argument in arguments:
            if argument.kind == VALUE and argument.which is not defaults.get(argument.parameter, self):
                if not is_instance(argument.which, argument.hint):
                    self._add_value(node, argument, self._origin(node, argument.parameter), argument.which)
            elif argument.kind == ITEM:
                self._check_items(node, template, argument)

    def _check_items(self, node: int, template: CallTemplate, argument: TypedArgument) -> None:
        """Compare the items of a map, one of each class."""
        part = template.map_input.parts[argument.which or 0] if template.map_input else ()
        items = () if isinstance(part, int) or part is None else part
        firsts = {int: 0} if isinstance(items, range) and items else dict(zip(map(type, items), items, strict=True))
        for item in firsts.values():
            if not is_instance(item, argument.hint):
                self._add_value(node, argument, "items", item)

    def _check_lists(self, node: int, map_input: Over) -> None:
        """Check that a map runs over lists."""
        for part in map_input.parts:
            for given in self._given(self._plan.references[node][part]) if isinstance(part, int) else ():
                if given.lists == 0 and not may_be_items(self._hint(given)):
                    key = id(self._plan.specs[given.node]), given.part, id(self._plan.specs[node])
                    self._add(node, key, partial(self._no_list, node, given))

    def _no_list(self, node: int, given: ValueOrigin) -> Problem:
        asset, outputs = self._outputs(given)
        runs = f"step {self._plan.names[node]!r} runs over it, so it must be a list ({self._plan.specs[node].place})"
        return Problem(TYPE_MISMATCH, name=asset, found=outputs, expected=runs)

    def _check_argument(self, node: int, argument: TypedArgument) -> None:
        """Compare what differs from step to step."""
        if argument.kind == PARAM:
            value = self._plan.row(node)[argument.which]
            if not is_instance(value, argument.hint):
                self._add_value(node, argument, "params", value)
            return
        which = argument.which[0] if argument.kind == CHOICE else argument.which
        template = self._plan.templates[node]
        if argument.kind in {ITEM, KEPT} and template is not None and template.map_input is not None:
            which = template.map_input.parts[argument.which or 0]
        if argument.kind not in {ASSET, CHOICE, SPREAD, ITEM, KEPT} or not isinstance(which, int):
            return
        reference = self._plan.references[node][which]
        if isinstance(reference, IteratorRef):
            argument = argument._replace(hint=element_of(argument.hint))
        for given in self._given(reference):
            lists = given.lists - (isinstance(reference, IteratorRef) or argument.kind in {SPREAD, ITEM, KEPT})
            self._check_edge(node, argument, given._replace(lists=lists))

    def _check_edge(self, node: int, argument: TypedArgument, given: ValueOrigin) -> None:
        producer, template = id(self._plan.specs[given.node]), id(self._plan.templates[node])
        key = producer, given.part, given.lists, template, argument.parameter
        if key not in self._fits:
            task = given.lists > 0 and self._plan.specs[given.node].step.terms is not None
            wrappers = (list, MapTaskResult) if task else (list,)  # it may be read as either
            self._fits[key] = any(is_assignable(self._hint(given, each), argument.hint) for each in wrappers)
        if not self._fits[key]:
            self._add_edge(node, argument, given)

    def _origin(self, node: int, name: str) -> str:
        """Return where a value comes from; a declared input of another name can only be a run input."""
        scope = self._scope.inside(self._plan.specs[node].within)
        known = name in scope.inputs or name in scope.context or name == "context"
        return scope.origin(name).removesuffix(f" has {name!r}") if known else "run(inputs=)"

    def _add_value(self, node: int, argument: TypedArgument, origin: str, value: Any) -> None:
        gives = "give" if origin in {"params", "items"} else "gives"
        found = f"{origin} {gives} {format_hint(type(value))}"
        key = id(self._plan.specs[node]), argument.parameter, found

        def mismatch() -> Problem:
            return Problem(TYPE_MISMATCH, name=argument.parameter, found=found, expected=self._expects(node, argument))

        self._add(node, key, mismatch)

    def _add_edge(self, node: int, argument: TypedArgument, given: ValueOrigin) -> None:
        specs = self._plan.specs
        key = id(specs[given.node]), given.part, id(specs[node]), argument.parameter
        self._add(node, key, partial(self._edge, node, argument, given))

    def _edge(self, node: int, argument: TypedArgument, given: ValueOrigin) -> Problem:
        asset, outputs = self._outputs(given)
        spread = argument.parameter == self._plan.specs[node].step.signature.var_positional
        parameter = f"{'*' * spread}{argument.parameter}"
        expects = self._expects(node, argument, f" as {parameter!r}" * (parameter != asset))
        return Problem(TYPE_MISMATCH, name=asset, found=outputs, expected=expects)

    def _outputs(self, given: ValueOrigin) -> tuple[str, str]:
        """Return the name of an asset, and its hint in words."""
        plan, spec = self._plan, self._plan.specs[given.node]
        outputs = f"step {plan.names[given.node]!r} outputs {format_hint(self._hint(given))} ({spec.place})"
        return plan.assets_of(given.node)[given.part or 0], outputs

    def _expects(self, node: int, argument: TypedArgument, where: str = "") -> str:
        name, place = self._plan.names[node], self._plan.specs[node].place
        return f"step {name!r} expects {format_hint(argument.hint)}{where} ({place})"

    def _add(self, node: int, key: Any, mismatch: Callable[[], Problem]) -> None:
        mode = self._mode_of(node)
        assert mode is not None  # noqa: S101  the types of the step are compared
        self._problems[mode].count(key, TYPE_MISMATCH, mismatch)


# ---- what a function says ------------------------------------------------------------------------------------------


def hints_of(func: Any) -> dict[str, Any]:
    """Return the hints of a callable's parameters, and under "return" that of its result; what is unknown is left out.

    >>> def half(n: int, by: "Unheard" = None) -> "float": ...
    >>> hints_of(half)
    {'n': <class 'int'>, 'return': <class 'float'>}
    """
    while isinstance(func, partial):
        func = func.func
    if inspect.isclass(func):
        return _hints_of_class(func)
    if not inspect.isroutine(func):
        func = type(func).__call__
    return _resolved(func)


def _hints_of_class(cls: type) -> dict[str, Any]:
    """Return the hints of a class's constructor; it returns the class unless that is customized."""
    if type(cls) not in {type, abc.ABCMeta} or inspect.isfunction(cls.__new__):
        return {}
    return {**_resolved(inspect.getattr_static(cls, "__init__")), "return": cls}


def _resolved(func: Any) -> dict[str, Any]:
    """Resolve all annotations at once, or each by itself if that fails."""
    try:
        return typing.get_type_hints(func)
    except Exception:  # noqa: BLE001  an annotation may raise anything; it is no hint then
        return dict(_one_by_one(func))


def _one_by_one(func: Any) -> Iterator[tuple[str, Any]]:
    names = getattr(inspect.unwrap(func), "__globals__", {})
    local = {each.__name__: each for each in getattr(func, "__type_params__", ())}
    for name, hint in _annotations(func).items():
        try:
            yield from typing.get_type_hints(types.SimpleNamespace(__annotations__={name: hint}), names, local).items()
        except Exception:  # noqa: BLE001, S112  as above
            continue


def _annotations(func: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(func, format=annotationlib.Format.FORWARDREF)
    return getattr(func, "__annotations__", {})


def part_of(hint: Any, part: int, name: str, count: int) -> Any:
    """Return the hint of one of several outputs: a part of a tuple, list or dict; `Any` where it is not said.

    >>> part_of(tuple[int, str], 1, "label", 2), part_of(dict[str, float], 0, "low", 2), part_of(tuple, 0, "a", 2)
    (<class 'str'>, <class 'float'>, typing.Any)
    """
    if typing.is_typeddict(hint):
        return _resolved(hint).get(name, Any)
    hint = _plain(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and arguments[-1:] != (...,):
        return arguments[part] if len(arguments) == count else Any
    if origin in {tuple, list}:
        return arguments[0]
    if origin in _MAPPINGS:
        return arguments[-1]
    return _field(hint, part)


def _field(hint: Any, part: int) -> Any:
    """Return the hint of a field of a named tuple."""
    fields = getattr(hint, "_fields", None)
    if inspect.isclass(hint) and isinstance(fields, tuple) and part < len(fields):
        return _resolved(hint).get(fields[part], Any)
    return Any


def element_of(hint: Any) -> Any:
    """Return the hint of what iterating gives, `Any` where it is not said.

    >>> element_of(list[int]), element_of(dict[str, int]), element_of(tuple[int, ...]), element_of(list)
    (<class 'int'>, <class 'str'>, <class 'int'>, typing.Any)
    """
    hint = _plain(hint)
    arguments = get_args(hint)
    if get_origin(hint) not in _ITERABLES or not arguments:
        return Any
    if get_origin(hint) is not tuple:
        return arguments[0]
    return Any if _has_unpacked(arguments) else Union[tuple(each for each in arguments if each is not ...)]  # noqa: UP007


def may_be_items(hint: Any) -> bool:
    """Return False if a map cannot run over a value of this type, as far as the hint says; in doubt True.

    >>> may_be_items(list[int]), may_be_items(int), may_be_items(str), may_be_items(list | None)
    (True, False, False, True)
    """
    return any(_may_be_items(_class_of(each)) for each in _members(hint))


def _may_be_items(cls: Any) -> bool:
    if cls is Any or _is_protocol(cls):
        return True
    if issubclass(cls, (str, bytes, bytearray, abcs.Mapping, abcs.Iterator, abcs.AsyncIterator)):
        return False
    return hasattr(cls, "__iter__") or hasattr(cls, "__getitem__")


def optional(hint: Any) -> Any:
    """Return a hint of what may be `None`, too; a parameter with the default `None` means that.

    >>> optional(int) == (int | None)
    True
    """
    try:
        return Union[hint, None]  # noqa: UP007
    except TypeError:
        return Any


def format_hint(hint: Any) -> str:
    """Return a hint as it would be written.

    >>> format_hint(list[int]), format_hint(None), format_hint(Union[int, None])
    ('list[int]', 'None', 'int | None')
    """
    if hint is type(None):
        hint = None
    text = " | ".join(map(format_hint, get_args(hint))) if _is_union(hint) else inspect.formatannotation(hint)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


# ---- whether hints contradict each other ---------------------------------------------------------------------------
#
# beartype knows which classes are subtypes, and what it refuses beyond that is often right at run time or for a type
# checker (`int` for `float`, `list` for `list[int]`, `str` for `Sequence[str]`). So it compares the classes of two
# hints, and their parameters one by one. Where it raises (strings, protocols), nothing is refused.


def is_assignable(source: Any, target: Any) -> bool:
    """Return False if no value of one type can be used as another, as far as beartype can judge; in doubt True.

    >>> is_assignable(int, float), is_assignable(list[int], list[str]), is_assignable("Foo", int)
    (True, False, True)
    >>> is_assignable(str | None, str), is_assignable(str, str | None)
    (False, True)
    """
    try:
        return _is_assignable(source, target)
    except Exception:  # noqa: BLE001  hints are the user's objects; recursive ones end here, too
        return True


def _is_assignable(source: Any, target: Any) -> bool:
    return all(any(_is_member_assignable(each, other) for other in _members(target)) for each in _members(source))


def _is_member_assignable(source: Any, target: Any) -> bool:
    if get_origin(source) is Literal:
        return all(_is_instance(value, target) for value in get_args(source))
    if get_origin(target) is Literal:
        return any(_is_assignable(type(value), source) for value in get_args(target))
    cls, wanted = _class_of(source), _class_of(target)
    if cls is Any or wanted is Any:
        return True
    return _is_subclass(cls, wanted) and _are_arguments_assignable(cls, get_args(source), wanted, get_args(target))


@lru_cache(maxsize=1024)  # of a million values most are of few classes; beartype takes 10 us
def _is_subclass(cls: Any, wanted: Any) -> bool:
    """Return True if one class can be used as another: a subtype, a number, or the same class before a reload."""
    from beartype.door import is_subhint  # optional: this module is also imported by runs that compare no types

    if is_subhint(cls, _WIDER.get(wanted, wanted)) or (wanted is bool and cls.__module__ == "numpy"):
        return True
    if wanted in _FILES or (_is_protocol(wanted) and hasattr(cls, "__getattr__")):
        return True
    name = wanted.__module__, wanted.__qualname__
    return any((base.__module__, base.__qualname__) == name for base in cls.__mro__)


def _are_arguments_assignable(cls: Any, given: tuple[Any, ...], wanted: Any, asked: tuple[Any, ...]) -> bool:
    """Compare the parameters of two generics, each as if it were covariant, if it is known which are which."""
    if not given or not asked or wanted is abcs.Callable or _has_unpacked((*given, *asked)):
        return True
    if cls is tuple and (wanted is not tuple or ... in (*given, *asked)):
        pairs = [(mine, other) for mine in given for other in asked if ... not in (mine, other)]
    elif cls is tuple and len(given) != len(asked):
        return False
    else:
        pairs = list(zip(given, asked, strict=False))
    if cls is wanted:
        pairs = list(compress(pairs, _are_covariant(cls, len(pairs))))
    elif not {cls, wanted} <= _ITERABLES:
        return True
    return all(_is_assignable(mine, other) for mine, other in pairs)


def _are_covariant(cls: Any, count: int) -> list[bool]:
    """Return which parameters of a class can be compared as if they were covariant."""
    contravariant = ("__contravariant__", "__infer_variance__")
    variables = getattr(cls, "__parameters__", ()) or (None,) * count
    return [not any(getattr(each, name, False) for name in contravariant) for each in variables]


def _has_unpacked(arguments: Collection[Any]) -> bool:
    return any(get_origin(each) is typing.Unpack or getattr(each, "__unpacked__", False) for each in arguments)


def is_instance(value: Any, hint: Any) -> bool:
    """Return False if a value is not of a type, as far as its class says: what is inside of it is not looked at.

    >>> is_instance(3, float), is_instance("3", int), is_instance(None, int | None), is_instance(["a"], list[int])
    (True, False, True, True)
    """
    try:
        return any(_is_instance(value, each) for each in _members(hint))
    except Exception:  # noqa: BLE001  comparing values and asking for their class run the user's code
        return True


def _is_instance(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    from beartype.door import is_bearable

    cls: Any = type(value)
    wanted = _class_of(hint)
    if wanted is Any or _is_subclass(cls, wanted) or is_bearable(value, wanted):
        return True
    return (wanted is type and get_origin(value) is not None) or cls.__module__ == "unittest.mock"


def _is_protocol(cls: Any) -> bool:
    return bool(getattr(cls, "_is_protocol", False))


def _class_of(hint: Any) -> Any:
    """Return the class of a hint, or of a generic; `Any` if it says nothing."""
    cls = get_origin(hint) or hint
    return cls if isinstance(cls, type) and cls not in _UNKNOWN else Any


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, also of those inside of it; of anything else itself."""
    hint = _plain(hint)
    return tuple(member for each in get_args(hint) for member in _members(each)) if _is_union(hint) else (hint,)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in {Union, types.UnionType}


def _plain(hint: Any) -> Any:
    """Return the hint that an alias, a `NewType`, an annotated or a typed dictionary is at run time."""
    while True:
        if isinstance(hint, NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        elif get_origin(hint) is typing.Annotated:
            hint = get_args(hint)[0]
        elif typing.is_typeddict(hint):
            return dict
        elif hint is None or hint is typing.LiteralString:
            return str if hint else type(None)
        else:
            return hint
