"""Type hints at run time: what a function says it takes and returns, and whether two hints contradict each other.

```
hints_of(func) ──▶ hints by parameter and "return"      assignable(source, target), fits(value, hint) ──▶ yes │ no
```

"No" means: a type checker would refuse it, too. Whatever cannot be judged is a yes: a name that does not resolve,
`Any`, `object`, a type variable, what differs in a way that rarely matters at run time (invariance, a missing parameter
of a generic, numpy's numbers for Python's). A false alarm costs more than a miss.

No library answers that question. `beartype.door.is_subhint` (0.23) knows "subhint" and all else: it refuses `int` for
`float` and `list` for `list[int]`, raises for strings, protocols, and `dict[str, int]` for `Iterable[str]`, and takes
100 ms to import. `typeguard` and `pydantic` look at values only. The module knows nothing of steps or pipelines.
"""

from __future__ import annotations

import abc
import collections
import collections.abc as abcs
import functools
import inspect
import numbers
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, NewType, Union, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_LONGEST = 100

# What stands for a number where the hint is the class, beside its subclasses.
_NUMBERS: dict[type, type] = {int: numbers.Integral, float: numbers.Real, complex: numbers.Complex}
_MAPPINGS = {dict, collections.defaultdict, collections.OrderedDict, abcs.Mapping, abcs.MutableMapping}
# Generics whose first parameter is the type of what iterating gives, and that are asked for nothing else.
_ITERABLES = {
    *(list, set, frozenset, tuple, collections.deque, *_MAPPINGS),
    *(abcs.Iterable, abcs.Iterator, abcs.Generator, abcs.Reversible, abcs.Collection, abcs.Container),
    *(abcs.Sequence, abcs.MutableSequence, abcs.Set, abcs.MutableSet),
}
_UNCOMPARED: set[Any] = {abcs.Callable}  # what its parameters mean is another matter
_UNKNOWN = {Any, object, typing.Never, typing.NoReturn, inspect.Parameter.empty}


# ---- what a function says ------------------------------------------------------------------------------------------


def hints_of(func: Any) -> dict[str, Any]:
    """Return the hints of a callable's parameters, and under "return" that of its result; what is unknown is left out.

    >>> def half(n: int, by: "Unheard" = None) -> "float": ...
    >>> hints_of(half)
    {'n': <class 'int'>, 'return': <class 'float'>}
    """
    while isinstance(func, functools.partial):
        func = func.func
    if inspect.isclass(func):
        return _hints_of_class(func)
    if not inspect.isroutine(func):
        func = type(func).__call__
    return _resolved(func)


def _hints_of_class(cls: type) -> dict[str, Any]:
    """Return what a class takes; what it returns is itself, unless it was made to return something else."""
    if type(cls) not in {type, abc.ABCMeta} or inspect.isfunction(cls.__new__):
        return {}
    return {**_resolved(inspect.getattr_static(cls, "__init__")), "return": cls}


def _resolved(func: Any) -> dict[str, Any]:
    """Resolve all annotations at once, or where that fails each by itself."""
    try:
        return typing.get_type_hints(func)
    except Exception:  # noqa: BLE001  whatever an annotation raises, it says nothing
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
    """Tell whether a map may run over a value of this type, as far as the hint says; in doubt it may.

    >>> may_be_items(list[int]), may_be_items(int), may_be_items(str), may_be_items(list | None)
    (True, False, False, True)
    """
    return any(map(_may_be_items, _members(_plain(hint))))


def _may_be_items(hint: Any) -> bool:
    hint = _plain(hint)
    cls = get_origin(hint) or hint
    if cls is Any or not isinstance(cls, type) or _is_protocol(cls):
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


def told(hint: Any) -> str:
    """Return a hint as it would be written.

    >>> told(list[int]), told(None), told(Union[int, None])
    ('list[int]', 'None', 'int | None')
    """
    if hint is type(None):
        hint = None
    union = _members(hint)
    text = " | ".join(map(told, union)) if len(union) > 1 else inspect.formatannotation(hint)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


# ---- whether hints contradict each other ---------------------------------------------------------------------------


def assignable(source: Any, target: Any) -> bool:
    """Tell whether a value of one type may be used as another, as far as the hints say; in doubt it may.

    >>> assignable(int, float), assignable(list[int], list[str]), assignable(str | None, str), assignable("Foo", int)
    (True, False, False, True)
    """
    try:
        return _assignable(source, target)
    except Exception:  # noqa: BLE001  hints are anybody's objects; recursive ones end here, too
        return True


def _assignable(source: Any, target: Any) -> bool:
    source, target = _plain(source), _plain(target)
    if source is Any or target is Any or source == target:
        return True
    sources, targets = _members(source), _members(target)
    if len(sources) > 1:
        return all(_assignable(each, target) for each in sources)
    if len(targets) > 1:
        return any(_assignable(source, each) for each in targets)
    if get_origin(source) is Literal:
        return all(_fits(value, target) for value in get_args(source))
    if get_origin(target) is Literal:
        return any(_assignable(type(value), source) for value in get_args(target))
    return _class_assignable(source, target)


def _class_assignable(source: Any, target: Any) -> bool:
    cls, wanted = get_origin(source) or source, get_origin(target) or target
    if not isinstance(cls, type) or not isinstance(wanted, type):
        return True
    if _is_protocol(wanted):
        return all(hasattr(cls, name) for name in _methods(wanted)) or hasattr(cls, "__getattr__")
    if not _is_kind_of(cls, wanted):
        return False
    return _arguments_assignable(cls, get_args(source), wanted, get_args(target))


def _is_kind_of(cls: type, wanted: type) -> bool:
    """Tell whether one class stands for another: a subclass, a number, or what was the same class before a reload."""
    if wanted.__module__ == "typing" or issubclass(cls, wanted):  # `typing.IO` is no base of any file
        return True
    if issubclass(cls, _NUMBERS.get(wanted, ())) or (wanted is bool and cls.__module__ == "numpy"):
        return True
    if wanted is bytes:
        return issubclass(cls, (bytearray, memoryview))
    return any(_place(base) == _place(wanted) for base in cls.__mro__)


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _arguments_assignable(cls: type, given: tuple[Any, ...], wanted: type, asked: tuple[Any, ...]) -> bool:
    """Compare the parameters of two generics, each as if it were covariant, where it is known which are which."""
    if not given or not asked or wanted in _UNCOMPARED or _has_unpacked((*given, *asked)):
        return True
    if cls is tuple and wanted is tuple:
        return _tuple_assignable(given, asked)
    if cls is wanted or (cls in _MAPPINGS and wanted in _MAPPINGS):
        pairs = zip(given, asked, _covariant(cls, len(asked)), strict=False)
        return all(_assignable(mine, other) for mine, other, known in pairs if known)
    if cls in _ITERABLES and wanted in _ITERABLES:
        elements = given if cls is tuple else given[:1]
        return all(_assignable(each, asked[0]) for each in elements if each is not ...)
    return True


def _tuple_assignable(given: tuple[Any, ...], asked: tuple[Any, ...]) -> bool:
    if ... in asked or ... in given:
        pairs = ((mine, other) for mine in given for other in asked if mine is not ... and other is not ...)
    elif len(given) == len(asked):
        pairs = ((mine, other) for mine, other in zip(given, asked, strict=True))
    else:
        return False
    return all(_assignable(mine, other) for mine, other in pairs)


def _covariant(cls: type, count: int) -> list[bool]:
    """Tell which parameters of a class may be compared as if they were covariant."""
    variables = getattr(cls, "__parameters__", ())
    if not variables:
        return [True] * count
    contravariant = ("__contravariant__", "__infer_variance__")
    return [not any(getattr(each, name, False) for name in contravariant) for each in variables]


def _has_unpacked(arguments: Collection[Any]) -> bool:
    return any(get_origin(each) is typing.Unpack or getattr(each, "__unpacked__", False) for each in arguments)


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type, as far as its class says: what is inside of it is not looked at.

    >>> fits(3, float), fits("3", int), fits(None, int | None), fits(["a"], list[int]), fits("b", Literal["a"])
    (True, False, True, True, False)
    """
    try:
        return _fits(value, hint)
    except Exception:  # noqa: BLE001  comparing and asking for a class run the user's code
        return True


def _fits(value: Any, hint: Any) -> bool:
    hint = _plain(hint)
    if hint is Any:
        return True
    union = _members(hint)
    if len(union) > 1:
        return any(_fits(value, each) for each in union)
    return value in get_args(hint) if get_origin(hint) is Literal else _is_a(value, hint)


def _is_a(value: Any, hint: Any) -> bool:
    wanted = get_origin(hint) or hint
    if not isinstance(wanted, type):
        return True
    if wanted is type:
        return isinstance(value, type) or get_origin(value) is not None
    if _is_protocol(wanted):
        return all(hasattr(value, name) for name in _methods(wanted))
    return _is_kind_of(type(value), wanted) or isinstance(value, wanted) or _is_mock(value)


def _is_mock(value: Any) -> bool:
    return any(base.__module__ == "unittest.mock" for base in type(value).__mro__)


# ---- hints in plain form -------------------------------------------------------------------------------------------


def _plain(hint: Any) -> Any:
    """Return a hint as a class, a generic, a union or a literal; `Any` for all that says nothing here."""
    while True:
        if isinstance(hint, NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        elif type(get_origin(hint)).__name__ == "TypeAliasType":
            hint = _substituted(get_origin(hint), get_args(hint))
        elif get_origin(hint) is typing.Annotated:
            hint = get_args(hint)[0]
        else:
            break
    for special, plain in ((None, type(None)), (typing.LiteralString, str)):
        if hint is special:
            return plain
    if typing.is_typeddict(hint):
        return dict
    return Any if _says_nothing(hint, get_origin(hint)) else hint


def _substituted(alias: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what a generic alias stands for with its parameters filled; `Any` where it has others than types."""
    value, by_parameter = alias.__value__, dict(zip(alias.__type_params__, arguments, strict=False))
    parameters = getattr(value, "__parameters__", ())
    if not all(isinstance(each, typing.TypeVar) for each in (*alias.__type_params__, *parameters)):
        return Any
    return value[tuple(by_parameter[each] for each in parameters)] if parameters else value


def _says_nothing(hint: Any, origin: Any) -> bool:
    if origin is not None:
        return not (origin in {Union, types.UnionType, Literal} or isinstance(origin, type)) or origin in _AWAITED
    return not isinstance(hint, type) or hint in _UNKNOWN or hint in _AWAITED


_AWAITED = {abcs.Awaitable, abcs.Coroutine}  # what a step that returns one has for a value is another type


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, of anything else itself."""
    return get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)


def _is_protocol(cls: type) -> bool:
    return bool(getattr(cls, "_is_protocol", False))


def _methods(protocol: type) -> set[str]:
    """Return the methods of a protocol; its other members may stand on instances alone."""
    bases = [base for base in protocol.__mro__ if _is_protocol(base)]
    made = {"__init__", "__new__", "__class_getitem__", "__init_subclass__", "__subclasshook__"}
    return {name for base in bases for name, value in vars(base).items() if _is_method(value)} - made


def _is_method(value: Any) -> bool:
    return isinstance(value, (types.FunctionType, classmethod, staticmethod))
