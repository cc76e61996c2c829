"""What workers will import for some functions anyway, so that a template may import it once for all of them.

Found by looking at what the functions refer to, never by importing or running anything; see `preloading.py` for what
becomes of it, and why these modules and no others.
"""

from __future__ import annotations

import sys
from dis import get_instructions
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from flowyml._installed import installed_folders, module_file
from flowyml.executors._processes.crossing.importable import importable
from flowyml.executors._processes.working.preloading import BY_VALUE, SEPARATOR
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

    A function that goes by name brings all that its module has imported; one that goes by value what it names; either
    brings what it, or a function that it calls, imports when it is called, if this process has that already.

    >>> familiar([len, familiar])
    []
    """
    if any(name in sys.modules for name in _PATCHING):
        return []
    plain = [_plain(function) for function in functions]
    found = {name for name in (*_modules_of(plain), *_imported_within(plain)) if name.partition(".")[0] in FAMILIAR}
    return [word for name in sorted(found) if (word := _word(name)) is not None]


def _word(name: str) -> str | None:
    """Return a module with the file of its package, so that no other is taken for it."""
    file = module_file(sys.modules.get(name.partition(".")[0]))
    known = name in sys.modules and file is not None and file.startswith(installed_folders())
    return f"{name}{SEPARATOR}{file}" if known else None


def _imported_within(functions: Iterable[object]) -> Iterator[str]:
    """Go through what functions import when they are called, and the functions of the user's that they name."""
    todo = [function for function in functions if isinstance(function, FunctionType)]
    seen: set[int] = set()
    while todo and len(seen) < _MOST:
        function = todo.pop()
        if id(function) in seen or _is_installed(function.__module__):
            continue
        seen.add(id(function))
        yield from _imports(function.__code__)
        named = [function.__globals__.get(name) for name in _names(function.__code__)]
        todo += [each for each in named if type(each) is FunctionType]  # `isinstance` would ask the others


def _imports(code: CodeType) -> Iterator[str]:
    """Go through the names after `import` and `from` in code, that of functions within it included."""
    if any(name.partition(".")[0] in FAMILIAR for name in code.co_names):
        yield from (str(each.argval) for each in get_instructions(code) if each.opname == "IMPORT_NAME")
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imports(constant)


def _is_installed(name: str) -> bool:
    return name != _MAIN and (module_file(sys.modules.get(name)) or "").startswith(installed_folders())


def _modules_of(functions: Iterable[object]) -> Iterator[str]:
    """Go through the modules that some functions and their modules refer to."""
    todo = list(functions)
    seen: set[int] = set()
    while todo and len(seen) < _MOST:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        name = _home(thing)
        module = sys.modules.get(name)
        yield name
        if not _is_installed(name):
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
