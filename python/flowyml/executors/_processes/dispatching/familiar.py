"""What workers will import anyway, so that a template may import it once for all of them.

These are the large packages that this process has imported already, whatever the functions of a run use; see
`preloading.py` for why these packages and no others.
"""

from __future__ import annotations

import functools
import sys
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from flowyml._installed import installed_folders, module_file
from flowyml.executors._processes.crossing.importable import importable
from flowyml.executors._processes.working.preloading import BY_VALUE, SEPARATOR
from flowyml.steps.conditions import Guarded

if TYPE_CHECKING:
    from flowyml.running.run import Run

FAMILIAR = ("numpy", "pandas", "scipy", "sklearn")
_PATCHING = ("gevent", "eventlet")
# Functions of a run that are looked at: a million would take too long.
_LOOKED_AT = 1000


def first_imports(run: Run) -> list[str]:
    """Return what the first workers of a run import: familiar modules, and what makes functions that come by value."""
    templates = {id(template): node for node, template in enumerate(run.plan.templates[:_LOOKED_AT])}
    functions = (_plain(run.plan.function_of(node)) for node in templates.values())
    by_value = any(not importable(str(getattr(function, "__module__", ""))) for function in functions)
    return [*([BY_VALUE] if by_value else []), *familiar()]


def familiar() -> list[str]:
    """Return the large packages, and their subpackages, that this process has imported, as words for `preload`."""
    if any(name in sys.modules for name in _PATCHING):  # they want to be imported before everything else
        return []
    packages = tuple(name for name in FAMILIAR if name in sys.modules)
    return _words(packages, len(sys.modules)) if packages else []


@functools.lru_cache(maxsize=1)
def _words(packages: tuple[str, ...], _: int) -> list[str]:
    """Return the words for packages; each run asks for them, and they differ only if the number of modules does."""
    files = {name: module_file(sys.modules[name]) or "" for name in packages}
    found = {name: files[name] for name in packages}
    for name, module in list(sys.modules.items()):
        package, dot, rest = name.partition(".")
        if dot and package in files and rest.isidentifier() and rest[0] != "_" and _is_package(module):
            found[name] = files[package]
    installed = installed_folders()
    return [f"{name}{SEPARATOR}{file}" for name, file in sorted(found.items()) if file.startswith(installed)]


def _is_package(module: Any) -> bool:
    """Return True if a module has submodules; a lazy one is not loaded by that."""
    return isinstance(module, ModuleType) and "__path__" in ModuleType.__getattribute__(module, "__dict__")


def _plain(function: Any) -> object:
    """Return what is called in the end: behind a partial, a bound method, the conditions of a step."""
    while isinstance(function, (functools.partial, MethodType, Guarded)):
        function = function.__func__ if isinstance(function, MethodType) else function.func
    return function
