"""Reducers for objects that cloudpickle omits or handles slowly.

Some objects pickle by name alone, and are not found in a worker if a script defines them: functions under
`functools.cache` and `lru_cache`, `NewType`, `ParamSpec`, `TypeVarTuple`, `type` aliases. Here they are sent by value,
unless a worker finds them by name. `functools.cached_property` has a lock before Python 3.12, and
`functools.singledispatch` a weak dictionary.

A file that is open for reading would arrive as its contents, a `StringIO`: here it is refused like any other file. The
streams of `sys` are sent by name.

cloudpickle searches `sys.modules` for the imported submodules that each function uses (`pd.io.sql`): a quarter of a
millisecond with pandas loaded. Here the names are sorted once, until more modules are loaded.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import typing
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from flowyml.executors.process.protocol.importable import importable, newest_module
from flowyml.store.reduction import reduce_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Reduction = str | tuple[Any, ...]


def is_found_by_name(obj: Any, name: str) -> bool:
    """Return True if a worker that imports the module of an object finds the object there."""
    module = getattr(obj, "__module__", None)
    if not isinstance(module, str) or not importable(module):
        return False
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is obj


def make_cached(func: Callable[..., Any], parameters: dict[str, Any], names: dict[str, Any]) -> Any:
    """Create a cached function with an empty cache."""
    cached = functools.lru_cache(**parameters)(func)
    cached.__dict__.update(names)
    return cached


def _reduce_cached(obj: Any) -> Reduction:
    if is_found_by_name(obj, obj.__qualname__):
        return str(obj.__qualname__)
    names = {name: value for name, value in vars(obj).items() if name not in ("__wrapped__", "cache_parameters")}
    return make_cached, (obj.__wrapped__, obj.cache_parameters(), names)


def make_cached_property(func: Callable[..., Any], name: str | None) -> functools.cached_property[Any]:
    """Create a cached property as a class body does."""
    made = functools.cached_property(func)
    made.attrname = name
    return made


def _reduce_cached_property(obj: Any) -> Reduction:
    return make_cached_property, (obj.func, obj.attrname)


def make_new_type(name: str, supertype: Any, module: str) -> Any:
    """Create a `NewType` of a module."""
    made: Any = typing.NewType(name, supertype)  # type: ignore[misc]  # a checker wants to read the name
    made.__module__ = module
    return made


def _reduce_new_type(obj: Any) -> Reduction:
    if is_found_by_name(obj, obj.__qualname__):
        return str(obj.__qualname__)
    return make_new_type, (obj.__name__, obj.__supertype__, obj.__module__)


def _reduce_by(make: Any, *attributes: str) -> Callable[[Any], Reduction]:
    def reduce(obj: Any) -> Reduction:
        if is_found_by_name(obj, obj.__name__):
            return str(obj.__name__)
        return make, tuple(getattr(obj, attribute) for attribute in attributes)

    return reduce


def _reduce_weak_dictionary(obj: Any) -> Reduction:
    return type(obj), (dict(obj),)


_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


def _reduce_file(obj: Any) -> Reduction:
    """Reduce a stream of `sys` to its name; the worker has its own. Other files are refused."""
    for name in _STREAMS:
        if getattr(sys, name, None) is obj:
            return getattr, (sys, name)
    state = "a closed" if obj.closed else "an open"
    raise pickle.PicklingError(f"cannot pickle {state} file ({getattr(obj, 'name', 'without a name')!r})")


REDUCERS: dict[type, Callable[[Any], Reduction]] = {
    memoryview: reduce_view,
    type(functools.lru_cache(len)): _reduce_cached,
    functools.cached_property: _reduce_cached_property,
    io.TextIOWrapper: _reduce_file,
    WeakKeyDictionary: _reduce_weak_dictionary,
    WeakValueDictionary: _reduce_weak_dictionary,
    typing.NewType: _reduce_new_type,
    typing.ParamSpec: _reduce_by(typing.ParamSpec, "__name__"),
    typing.TypeVarTuple: _reduce_by(typing.TypeVarTuple, "__name__"),
}
if sys.version_info >= (3, 12):
    REDUCERS[typing.TypeAliasType] = _reduce_by(typing.TypeAliasType, "__name__", "__value__")


class _SubmoduleCache:
    """Package to the next name below it to its loaded submodules, each with the names on the path."""

    loaded: tuple[int, str] | None = None
    below: dict[str, dict[str, list[tuple[str, frozenset[str]]]]] = {}  # noqa: RUF012  one for all, on purpose


def find_imported_submodules(code: CodeType, dependencies: Iterable[object]) -> list[ModuleType]:
    """Return the loaded submodules of some packages whose names the code uses.

    Args:
        code: The code of a function.
        dependencies: Its globals and closure; only packages count.
    """
    found = []
    for package in dependencies:
        if isinstance(package, ModuleType) and getattr(package, "__package__", None):
            below = _submodules_of(package.__name__)
            used = [entry for name in code.co_names for entry in below.get(name, ())]
            found += [sys.modules[name] for name, way in used if name in sys.modules and way.issubset(code.co_names)]
    return found


def _submodules_of(package: str) -> dict[str, list[tuple[str, frozenset[str]]]]:
    loaded = newest_module()
    if loaded is None or loaded != _SubmoduleCache.loaded:
        _SubmoduleCache.below.clear()
        _SubmoduleCache.loaded = loaded
    below = _SubmoduleCache.below.get(package)
    if below is None:
        below = _SubmoduleCache.below[package] = {}
        prefix = f"{package}."
        for name in [name for name in list(sys.modules) if name.startswith(prefix)]:
            way = name.removeprefix(prefix).split(".")
            below.setdefault(way[0], []).append((name, frozenset(way)))
    return below
