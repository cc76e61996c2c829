"""What a function or class is made of: its code, and what it brings along beside its arguments.

```
function ──parts_of()──▶ code · defaults · closure · global names: helpers, classes, constants ──▶ content.py
```

Parts are labelled in words, so that a change can be told ("clean() is another"). What the user wrote is looked into:
helpers, their helpers, methods, what decorators wrap. What is installed (the standard library, `site-packages`) is
known by its name. The module takes things apart and hashes nothing.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml._installed import is_written_here
from flowyml.keys import bytecode

if TYPE_CHECKING:
    from collections.abc import Iterator

Part: TypeAlias = "tuple[str, Any]"
"""A label in words, and an object."""

# Names in a class body that Python, dataclasses and the like put there.
_MADE = frozenset(
    [
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__annotations__"),
        *("__static_attributes__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__abstractmethods__"),
        *("_abc_impl", "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__slots__", "__hash__"),
        *("__classdictcell__", "__parameters__", "__orig_bases__"),
    ]
)
_MADE_PREFIXES = ("__pydantic_", "__attrs_")
_CHANGED = "something that the function itself changes"


def installed_name(obj: Any) -> str | None:
    """Return the full name of a function or class that is installed and found under it, else `None`.

    >>> import json
    >>> installed_name(json.dumps), installed_name(lambda: 0)
    ('json.dumps', None)
    """
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if isinstance(obj, FunctionType):
        module = obj.__globals__.get("__name__")
    if isinstance(obj, BuiltinFunctionType) and not isinstance(obj.__self__, ModuleType | None):
        return None
    if not isinstance(module, str) or not isinstance(name, str) or is_written_here(module):
        return None
    return f"{module}.{name}" if _found(module, name) is obj else None


def _found(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def parts_of(function: FunctionType, *, follow: bool) -> Iterator[Part]:
    """Go through what a function is made of.

    Args:
        function: A Python function.
        follow: Also what it reads of the globals of its module.
    """
    code = function.__code__
    uses = bytecode.uses(code)
    yield "its code", bytecode.plain(code)
    yield from _defaults(function)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield _label("closure value", name, value := _closed(cell)), _CHANGED if name in uses.changed else value
    wrapped = function.__dict__.get("__wrapped__")
    if wrapped is not None:
        yield "what it wraps", wrapped
    if follow and is_written_here(function.__globals__.get("__name__")):
        yield from _globals(function, uses)


def _defaults(function: FunctionType) -> Iterator[Part]:
    values = function.__defaults__ or ()
    code = function.__code__
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    for name, value in (*zip(names, values, strict=True), *sorted((function.__kwdefaults__ or {}).items())):
        yield f"default of {name!r}", value


def _closed(cell: Any) -> Any:
    """Return what a closure holds; it may hold nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return "nothing yet"


def _globals(function: FunctionType, uses: bytecode.Uses) -> Iterator[Part]:
    names = function.__globals__
    for name in sorted(uses.names):
        if name not in names:
            if not hasattr(builtins, name):
                yield f"global {name!r}", "not defined"
            continue
        value = names[name]
        yield _label("global", name, value), _CHANGED if name in uses.changed else value
        if isinstance(value, ModuleType) and is_written_here(value.__name__):
            yield from _attributes(name, value, uses)


def _attributes(name: str, module: ModuleType, uses: bytecode.Uses) -> Iterator[Part]:
    """Go through what code uses of a module that the user wrote: `helpers.clean(x)`."""
    for of, attribute in sorted(uses.attributes):
        if of == name and attribute in vars(module):
            value = vars(module)[attribute]
            yield _label("global", f"{name}.{attribute}", value), value


def _label(kind: str, name: str, value: Any) -> str:
    if isinstance(value, type):
        return f"class {name}"
    return f"{name}()" if callable(value) else f"{kind} {name!r}"


def parts_of_class(cls: type, *, follow: bool) -> Iterator[Part]:
    """Go through what a class is made of: its bases, its methods, and with `follow` its other attributes."""
    yield "bases", cls.__bases__
    for name, value in sorted(vars(cls).items()):
        if name in _MADE or name.startswith(_MADE_PREFIXES):
            continue
        function = _function_in(value)
        if function is not None:
            yield f"{cls.__name__}.{name}()", function
        elif follow and not inspect.ismemberdescriptor(value) and not inspect.isgetsetdescriptor(value):
            yield f"{cls.__name__}.{name}", value


def _function_in(value: Any) -> Any:
    """Return the function or functions behind what stands in a class body; `None` if there are none."""
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    if isinstance(value, property):
        return (value.fget, value.fset, value.fdel)
    if isinstance(value, functools.cached_property):
        return value.func
    return value if isinstance(value, FunctionType) else None


def unwrapped(obj: Any) -> tuple[tuple[Any, ...], Any] | None:
    """Return what goes around a function in an object, and the function: a method, a partial, what wraps it.

    `None` if the object is no such thing. Only what is no plain function is looked at.
    """
    if isinstance(obj, MethodType):
        return ("method", obj.__self__), obj.__func__
    if isinstance(obj, functools.partial):
        return ("partial", obj.args, obj.keywords), obj.func
    if isinstance(obj, (type, FunctionType)) or not callable(obj):
        return None
    wrapped = getattr(obj, "__dict__", {}).get("__wrapped__")
    return None if wrapped is None else (("wrapped", f"{type(obj).__module__}.{type(obj).__qualname__}"), wrapped)


def labelled(function: Any) -> Iterator[Part]:
    """Go through the parts of anything that can be a step, labelled for people."""
    while (inner := unwrapped(function)) is not None:
        around, function = inner
        yield _AROUND[around[0]], around[1:]
    if isinstance(function, FunctionType) and installed_name(function) is None:
        yield from parts_of(function, follow=True)
    else:
        yield "its code", function


_AROUND = {
    "method": "the object that it is bound to",
    "partial": "the arguments of the partial",
    "wrapped": "its decorator",
}
