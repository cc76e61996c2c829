"""Which loaded modules a fresh interpreter would find again, and which of them are the user's.

A function of an importable module goes to a worker by name; all others go by value. *Importable* means: found on the
`sys.path` that is sent, with the file that is loaded here. `pytest --import-mode=importlib`, `exec`, notebooks and
`__main__` make modules which are in `sys.modules` and are not importable.

*User modules* are those outside the standard library, `site-packages` and this package: they are edited and reloaded
while a session lives, so their fingerprints are compared from run to run.

Everything is remembered per module. What is known is forgotten when `sys.path` changes and looked at again when
`sys.modules` has grown, so asking at each run costs a few microseconds and one `stat` a user module.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flowyml.user_modules import installed_directories, is_package_module, module_file

if TYPE_CHECKING:
    from collections.abc import Iterator

Fingerprint = tuple[str, int, int, int]
"""File, time of change (ns), size (bytes) and id of a module."""

_CYTHON = ("_cython_", "cython_runtime")  # made by hand, in every extension module that Cython compiled


class _ModuleCache:
    """What was found out about the loaded modules, and of which state of the interpreter it holds."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.importable: dict[str, tuple[int, bool]] = {}
        self.is_user: dict[str, tuple[int, bool]] = {}
        self.seen: tuple[int, str] | None = None
        self.user: tuple[str, ...] = ()
        self.by_value: tuple[str, ...] = ()

    def refresh(self) -> None:
        """Look again where `sys.path` or `sys.modules` has changed."""
        if self.path != sys.path:
            self.path = list(sys.path)
            self.importable.clear()
            self.seen = None
        if self.seen is None or self.seen != newest_module():
            modules = sys.modules.copy()  # another thread may be importing
            now = (len(modules), next(reversed(modules)))
            self.user = tuple(name for name, module in modules.items() if self._user(name, module))
            self.by_value = tuple(name for name in self.user if not importable(name))
            self.seen = now

    def _user(self, name: str, module: ModuleType) -> bool:
        """Tell whether a module is the user's, from memory where that is possible."""
        known = self.is_user.get(name)
        if known is None or known[0] != id(module):
            known = self.is_user[name] = (id(module), _is_user(name, module))
        return known[1]


def newest_module() -> tuple[int, str] | None:
    """Return how many modules are loaded, and which came last; `None` where another thread is importing."""
    try:
        return len(sys.modules), next(reversed(sys.modules))
    except RuntimeError:
        return None


def _is_user(name: str, module: object) -> bool:
    """Tell whether a module is the user's: made by hand, or from a file outside the installed folders."""
    if name in ("__main__", "__mp_main__") or is_package_module(name):
        return False
    file = module_file(module)
    if file is not None:
        return not file.startswith(installed_directories())
    root = name.partition(".")[0]
    by_hand = isinstance(module, ModuleType) and not _has_origin(module) and not name.startswith(_CYTHON)
    return by_hand and (root == name or not importable(root))


def _has_origin(module: ModuleType) -> bool:
    """Tell whether the import system made a module that has no file: built in, frozen, a namespace package."""
    return getattr(module, "__spec__", None) is not None


_known = _ModuleCache()


def importable(name: str) -> bool:
    """Tell whether a fresh interpreter with this `sys.path` would load this very module under this name.

    >>> importable("os"), importable("__main__")
    (True, False)
    """
    module = sys.modules.get(name)
    known = _known.importable.get(name)
    if known is None or known[0] != id(module):
        found = name not in ("__main__", "__mp_main__") and module is not None and _is_found(name, module)
        known = _known.importable[name] = (id(module), found)
    return known[1]


def _is_found(name: str, module: ModuleType) -> bool:
    """Look a module up as the import system of a worker will."""
    file = module_file(module)
    if file is not None and file.startswith(installed_directories()):
        return True
    if file is None and not hasattr(module, "__path__"):
        return _is_made_by_another(name, module)
    parent = name.rpartition(".")[0]
    if not parent:
        return _finds(name, None, file)
    path = getattr(sys.modules.get(parent), "__path__", None)
    return path is not None and importable(parent) and _finds(name, path, file)


def _is_made_by_another(name: str, module: ModuleType) -> bool:
    """Tell whether a module without a file comes with the interpreter or with the package above it."""
    parent = name.rpartition(".")[0]
    return importable(parent) if parent else _has_origin(module)


def _finds(name: str, path: Any, file: str | None) -> bool:
    """Ask the path finder, then the finders of editable installs: those are there in every interpreter."""
    for finder in _finders():
        try:
            spec = finder.find_spec(name, path)
        except Exception:  # noqa: BLE001, S112  a finder of somebody else: whatever it raises, it has not found
            continue
        if spec is not None:
            return file is None or _same_file(spec.origin, file)
    return False


def _finders() -> Iterator[Any]:
    """Yield the finders that a fresh interpreter has too."""
    yield PathFinder
    for finder in sys.meta_path:
        home = getattr(finder, "__module__", None)
        if isinstance(home, str) and home.rstrip("_").endswith(("_finder", "_editable")):
            yield finder


def _same_file(one: str | None, other: str) -> bool:
    """Tell whether two paths are one file; a file that is gone is no file."""
    if one is None:
        return False
    try:
        return one == other or os.path.samefile(one, other)  # noqa: PTH121  paths are strings here
    except OSError:
        return False


def by_value_modules() -> tuple[str, ...]:
    """Return the names of the loaded modules, `__main__` aside, whose functions must go by value."""
    _known.refresh()
    return _known.by_value


def goes_by_value(module: str) -> bool:
    """Tell whether the functions of a loaded module must go by value."""
    if module in ("__main__", "__mp_main__") or module in by_value_modules():
        return True
    registered = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", None)
    return registered is not None and module in registered()


def user_modules() -> dict[str, Fingerprint]:
    """Return a fingerprint of each loaded user module; a change between two runs means new workers.

    Returns:
        Name to (file, time of change in ns, size in bytes, id of the module); zeros where there is no file.
    """
    _known.refresh()
    return {name: _fingerprint(sys.modules.get(name)) for name in _known.user}


def _fingerprint(module: ModuleType | None) -> Fingerprint:
    """Look at a module and its file."""
    file = module_file(module) or ""
    try:
        stat = os.stat(file)  # noqa: PTH116  a Path costs more than the call
    except OSError:
        return file, 0, 0, id(module)
    return file, stat.st_mtime_ns, stat.st_size, id(module)


def changed_modules(before: dict[str, Fingerprint], after: dict[str, Fingerprint]) -> list[str]:
    """Return the names whose fingerprint was known and is another now: edited, reloaded, imported anew.

    >>> changed_modules({"a": ("a.py", 1, 9, 7)}, {"a": ("a.py", 2, 9, 7), "b": ("b.py", 1, 1, 8)})
    ['a']
    """
    return [name for name, old in before.items() if after.get(name, old) != old]
