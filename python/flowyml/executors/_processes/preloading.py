"""What a template imports for its workers beside flowyml, and whether it may still be forked then.

A worker that pandas has been imported for starts in milliseconds instead of half a second, and shares its pages. But a
process may only be forked if nothing in it is lost by that: threads are (with whatever they hold), and a descriptor
would be shared by all workers. So modules are imported and nothing else, and after that the template looks at itself:
with a new thread or descriptor it is given up, and a bare one takes its place.

* *By name*: `ParallelExecutor(preload=["torch"])`, for the user to decide.
* *Familiar ones*: numpy, pandas, scipy and scikit-learn, where the functions of the first run use them (workers would
  import them at once, each on its own). These, because it is known of them that they can be imported in one process and
  used in its children, and because they are what takes long. Others are left to the user: a library may read something
  when it is imported that is different in a worker, or want to be patched before (as gevent does).

User modules are never imported here unless they are named: they may be edited at any time, and may do anything.

```text
 driver  familiar(functions) ──▶ "pandas=/.../pandas/__init__.py" ──command line──▶ template  preload(words)
```
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from flowyml._installed import INSTALLED, module_file
from flowyml._loading import loading
from flowyml.steps.conditions import Guarded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FAMILIAR = frozenset({"numpy", "pandas", "scipy", "sklearn"})
_PATCHING = ("gevent", "eventlet")
_MAIN = "__main__"
_SEPARATOR = "="
# Objects looked at for one list of functions: a namespace with more is no module of steps.
_MOST = 10_000


# ---- in the driver ----------------------------------------------------------------------------------------------


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
    return f"{name}{_SEPARATOR}{file}" if known else None


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


# ---- in the template --------------------------------------------------------------------------------------------


def preload(path: str = "", *words: str) -> str | None:
    """Import modules.

    Args:
        path: The driver's `sys.path`, as one text.
        words: Names; those of `familiar` with a file, which are left out where they are not found there.

    Returns:
        Why this process must not be forked now; `None` if it may be.
    """
    if words:
        sys.path[:] = path.split(os.pathsep)
    before = _descriptors()
    for word in words:
        name, _, file = word.partition(_SEPARATOR)
        try:
            with loading():  # a module that runs a pipeline when it is imported is refused by name
                if not file or _is_found(name, file):
                    import_module(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001  a module may raise anything
            if not file:
                return f"{name} cannot be imported: {type(error).__name__}: {error}"
    if new := _descriptors() - before:
        return f"they leave descriptors open: {', '.join(sorted(new))}"
    return "they leave threads running" if _has_threads() else None


def _is_found(name: str, file: str) -> bool:
    """Tell whether this process finds a module's package where the driver has it from."""
    spec = find_spec(name.partition(".")[0])
    return spec is not None and spec.origin == file


def _descriptors() -> set[str]:
    """Return the open descriptors, each with what it is."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            found.add(f"{entry.name}: {entry.readlink()}")
    return found


def _has_threads() -> bool:
    """Tell whether there are threads that a fork would lose: those of OpenBLAS end by themselves before one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads: that is what is to be found out
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return len([*Path("/proc/self/task").iterdir()]) > 1
