"""The modules of functions and classes that a worker received by value.

A worker creates a new module `__main__` for each payload, and one for each other module that it could not import. The
`__dict__` of such a module *is* the globals of its functions: a global assigned in a step is visible to its helpers and
in `sys.modules["__main__"]`, and pickle and `multiprocessing` find classes and functions by name.

    driver  __main__.load, __main__.Point      one pickle of all functions
       │
    worker  begin() ──▶ new __main__ ──▶ namespace("__main__") is the globals of load ──▶ Point is found there by name

A class may arrive many times: in the payload, then with each value that had to carry it. It is filled once: a class
that was defined here, or was filled since `begin()`, is not changed. Pickles refer to the functions of this module by
name.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from types import CodeType, ModuleType
from typing import Any
from weakref import WeakSet, WeakValueDictionary

MAIN = "__main__"


class SyntheticModule(ModuleType):
    """A module made of what was sent by value.

    `multiprocessing` with start method spawn runs the file of `__main__` again in each child. So the *module* has no
    file, while a step that uses its global `__file__` finds it in the dictionary.
    """

    @property
    def __file__(self) -> str:  # type: ignore[override]
        """Hide the file from code that would run it."""
        raise AttributeError("__file__")


_HOOK = "__init_subclass__"
_owned: dict[str, ModuleType] = {}
_at_home: WeakSet[type] = WeakSet()
_arrived: WeakSet[type] = WeakSet()
_filled: WeakSet[type] = WeakSet()
_located: WeakValueDictionary[bytes, Any] = WeakValueDictionary()


def begin() -> None:
    """Remove the modules of the last payload and create a new `__main__`."""
    for name, module in _owned.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _owned.clear()
    _filled.clear()
    _located.clear()
    _install(MAIN, SyntheticModule(MAIN))


def namespace(name: str, start: dict[str, object]) -> dict[str, object]:
    """Return the globals of a module that was sent by value, created at first use.

    Args:
        name: The name of the module.
        start: Entries to add if they are missing (`__package__` and the like).
    """
    module = _owned.get(name)
    if module is None:
        _make_parents(name)
        module = _install(name, SyntheticModule(name))
    for key, value in start.items():
        if module.__dict__.get(key) is None:
            module.__dict__[key] = value
    return module.__dict__


def _install(name: str, module: ModuleType) -> ModuleType:
    _owned[name] = sys.modules[name] = module
    return module


def _make_parents(name: str) -> None:
    """Make `import a.b` work for the parents of a module, which pickle imports before it looks at `sys.modules`."""
    parent = name.rpartition(".")[0]
    if not parent:
        return
    _make_parents(parent)
    try:
        importlib.import_module(parent)
    except ImportError:
        package = _install(parent, SyntheticModule(parent))
        package.__path__ = []


def export(module: str, name: str, thing: object) -> None:
    """Make an object available by name in a module that was sent by value, unless the name is taken."""
    if module in _owned:
        _owned[module].__dict__.setdefault(name, thing)


def make_code(file: str, *arguments: Any) -> CodeType:
    """Create a code object that keeps its file, for tracebacks."""
    return CodeType(*arguments).replace(co_filename=file)


def keep_as_is(cls: type) -> None:
    """Note that a class is sent from this process: copies that come back must not change it."""
    if cls not in _arrived:
        _at_home.add(cls)


def make_class(constructor: type, name: str, bases: tuple[type, ...], body: dict[str, Any], *others: Any) -> type:
    """Create a class that `fill_class` fills.

    `__init_subclass__` of bases that were sent by value is not called: they arrive with its effects, and the keywords
    of the class are not known here. That of imported bases is called.
    """
    from cloudpickle import cloudpickle  # see `fill_class`

    found: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(others[0])  # noqa: SLF001  as in `fill_class`
    if found is not None:
        return found
    above = {each for base in bases for each in getattr(base, "__mro__", ())}
    hooks = {
        each: vars(each)[_HOOK] for each in above if _HOOK in vars(each) and (each in _arrived or each in _at_home)
    }
    try:
        for each in hooks:
            type.__delattr__(each, _HOOK)
        made: type = cloudpickle._make_skeleton_class(constructor, name, bases, body, *others)  # noqa: SLF001
    finally:
        for each, hook in hooks.items():
            type.__setattr__(each, _HOOK, hook)
    return made


def fill_enum(cls: type, state: tuple[Any, dict[str, dict[str, Any]]]) -> None:
    """Set the attributes of an enum that arrived, and of its members, unless they are set."""
    of_class, of_members = state
    if cls not in _at_home and cls not in _filled:
        members: Any = getattr(cls, "__members__", {})
        for name, attributes in of_members.items():
            vars(members[name]).update(attributes)
    fill_class(cls, of_class)


def fill_class(cls: type, state: Any) -> None:
    """Set the attributes of a class that arrived, unless they are set."""
    if cls in _at_home or cls in _filled:
        return
    _filled.add(cls)
    _arrived.add(cls)
    from cloudpickle import cloudpickle  # it wrote the class, so it is installed

    cloudpickle._class_setstate(cls, state)  # noqa: SLF001  the other half of what cloudpickle wrote


def locate(digest: bytes, definition: bytes, module: str, name: str) -> Any:
    """Return the class or function of this digest, created from its definition if it is not here."""
    found = _located.get(digest)
    if found is None:
        found = _located[digest] = pickle.loads(definition)
        if name:
            export(module, name, found)
    return found
