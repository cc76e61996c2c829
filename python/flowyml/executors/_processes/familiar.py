"""What workers will import for some functions anyway, so that a template may import it once for all of them.

Found by looking at what the functions refer to, never by importing or running anything; see `preloading.py` for what
becomes of it, and why these modules and no others.
"""

from __future__ import annotations

import sys
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from flowyml._installed import INSTALLED, module_file
from flowyml.executors._processes.importable import importable
from flowyml.executors._processes.preloading import BY_VALUE, SEPARATOR
from flowyml.steps.conditions import Guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flowyml.running.run import Run

FAMILIAR = frozenset({"numpy", "pandas", "scipy", "sklearn"})
_PATCHING = ("gevent", "eventlet")
_MAIN = "__main__"
# Objects looked at for one list of functions: a namespace with more is no module of steps.
_MOST = 10_000
# Functions of a run that are looked at: a million would take too long.
_LOOKED_AT = 1000


def first_imports(run: Run) -> list[str]:
    """Return what the first workers of a run import: familiar modules, and what makes functions that come by value."""
    functions = functions_of(run)
    by_value = any(not importable(str(getattr(_plain(function), "__module__", ""))) for function in functions)
    return [*([BY_VALUE] if by_value else []), *familiar(functions)]


def functions_of(run: Run) -> list[Callable[..., Any]]:
    """Return the functions of the first steps of a run, each once."""
    templates = run.plan.templates[:_LOOKED_AT]
    nodes = {id(template): node for node, template in enumerate(templates)}
    return [run.plan.function_of(node) for node in nodes.values()]


def familiar(functions: Iterable[object]) -> list[str]:
    """Return the familiar modules that workers will import for these functions, as words for `preload`.

    A function that goes by name brings all that its module has imported; one that goes by value what it names.

    >>> familiar([len, familiar])
    []
    """
    if any(name in sys.modules for name in _PATCHING):
        return []
    found = {name for name in _modules_of(functions) if name.partition(".")[0] in FAMILIAR}
    return [word for name in sorted(found) if (word := _word(name)) is not None]


def _word(name: str) -> str | None:
    """Return a module with the file of its package, so that no other is taken for it."""
    file = module_file(sys.modules.get(name.partition(".")[0]))
    known = name in sys.modules and file is not None and file.startswith(INSTALLED)
    return f"{name}{SEPARATOR}{file}" if known else None


def _modules_of(functions: Iterable[object]) -> Iterator[str]:
    """Go through the modules that some functions and their modules refer to."""
    todo = [_plain(function) for function in functions]
    seen: set[int] = set()
    while todo and len(seen) < _MOST:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        name = _home(thing)
        module = sys.modules.get(name)
        yield name
        if name == _MAIN or not (module_file(module) or "").startswith(INSTALLED):
            todo += _named_by(thing, module)


def _plain(function: Any) -> object:
    """Return what is called in the end: behind a partial, a bound method, the conditions of a step."""
    while isinstance(function, (partial, MethodType, Guarded)):
        function = function.__func__ if isinstance(function, MethodType) else function.func
    return function


def _home(thing: object) -> str:
    """Return the module of a thing; of one that may answer with anything when it is asked, that of its class."""
    if isinstance(thing, ModuleType):
        return str(thing.__name__)
    asked = thing if isinstance(thing, (type, FunctionType, BuiltinFunctionType)) else type(thing)
    return str(asked.__module__)


def _named_by(thing: Any, module: ModuleType | None) -> Iterable[object]:
    """Return what a thing of a user's module refers to: all that an imported module has, of others what is used."""
    if isinstance(thing, ModuleType):
        return vars(thing).values()
    if module is not None and module is not sys.modules.get(_MAIN):
        return [module]
    if not isinstance(thing, FunctionType):
        return []
    wrapped = vars(thing).get("__wrapped__")
    cells = [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
    return [wrapped, *cells, *(thing.__globals__.get(name) for name in _names(thing.__code__))]


def _names(code: CodeType) -> Iterator[str]:
    """Go through the names that code uses, that of functions within it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
