"""Which loaded modules a new interpreter would find, and which of them are the user's.

A function of an importable module is sent to a worker by name, others by value. *Importable* means: found on the
`sys.path` that is sent, with the file that is loaded here. `pytest --import-mode=importlib`, `exec`, notebooks and
`__main__` create modules that are in `sys.modules` and are not importable.

*User modules* are those outside the standard library, `site-packages` and this package. They may be edited and reloaded
during a session, so their fingerprints are compared from run to run.

Results are cached per module until `sys.path` or `sys.modules` changes, so each run costs a few microseconds and one
`stat` per user module.
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
"""File, modification time (ns), size (bytes) and id of a module."""

_CYTHON = ("_cython_", "cython_runtime")  # created in every extension module that Cython compiled


class _ModuleCache:
    """What is known of the loaded modules, and the state of the interpreter for which it holds."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.importable: dict[str, tuple[int, bool]] = {}
        self.is_user: dict[str, tuple[int, bool]] = {}
        self.seen: tuple[int, str] | None = None
        self.user: tuple[str, ...] = ()
        self.by_value: tuple[str, ...] = ()

    def refresh(self) -> None:
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
        known = self.is_user.get(name)
        if known is None or known[0] != id(module):
            known = self.is_user[name] = (id(module), _is_user(name, module))
        return known[1]


def newest_module() -> tuple[int, str] | None:
    """Return how many modules are loaded, and the last one; `None` if another thread is importing."""
    try:
        return len(sys.modules), next(reversed(sys.modules))
    except RuntimeError:
        return None


def _is_user(name: str, module: object) -> bool:
    """Return True for a user module: created manually, or from a file outside the installed directories."""
    if name in ("__main__", "__mp_main__") or is_package_module(name):
        return False
    file = module_file(module)
    if file is not None:
        return not file.startswith(installed_directories())
    root = name.partition(".")[0]
    by_hand = isinstance(module, ModuleType) and not _has_origin(module) and not name.startswith(_CYTHON)
    return by_hand and (root == name or not importable(root))


def _has_origin(module: ModuleType) -> bool:
    """Return True if the import system created a module without a file: builtin, frozen, a namespace package."""
    return getattr(module, "__spec__", None) is not None


_known = _ModuleCache()


def importable(name: str) -> bool:
    """Return True if a new interpreter with this `sys.path` would load this module under this name.

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
    parent = name.rpartition(".")[0]
    return importable(parent) if parent else _has_origin(module)


def _finds(name: str, path: Any, file: str | None) -> bool:
    """Ask the path finder, then the finders of editable installs, which every interpreter has."""
    for finder in _finders():
        try:
            spec = finder.find_spec(name, path)
        except Exception:  # noqa: BLE001, S112  a finder of other code may raise anything
            continue
        if spec is not None:
            return file is None or _same_file(spec.origin, file)
    return False


def _finders() -> Iterator[Any]:
    yield PathFinder
    for finder in sys.meta_path:
        home = getattr(finder, "__module__", None)
        if isinstance(home, str) and home.rstrip("_").endswith(("_finder", "_editable")):
            yield finder


def _same_file(one: str | None, other: str) -> bool:
    if one is None:
        return False
    try:
        return one == other or os.path.samefile(one, other)  # noqa: PTH121  paths are strings here
    except OSError:
        return False


def by_value_modules() -> tuple[str, ...]:
    """Return the loaded modules, except `__main__`, whose functions must be sent by value."""
    _known.refresh()
    return _known.by_value


def goes_by_value(module: str) -> bool:
    """Return True if the functions of a loaded module must be sent by value."""
    if module in ("__main__", "__mp_main__") or module in by_value_modules():
        return True
    registered = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", None)
    return registered is not None and module in registered()


def user_modules() -> dict[str, Fingerprint]:
    """Return a fingerprint of each loaded user module, zeros if it has no file; a change means new workers."""
    _known.refresh()
    return {name: _fingerprint(sys.modules.get(name)) for name in _known.user}


def _fingerprint(module: ModuleType | None) -> Fingerprint:
    file = module_file(module) or ""
    try:
        stat = os.stat(file)  # noqa: PTH116  a Path costs more than the call
    except OSError:
        return file, 0, 0, id(module)
    return file, stat.st_mtime_ns, stat.st_size, id(module)


def changed_modules(before: dict[str, Fingerprint], after: dict[str, Fingerprint]) -> list[str]:
    """Return the names whose fingerprint has changed: edited, reloaded or imported again.

    >>> changed_modules({"a": ("a.py", 1, 9, 7)}, {"a": ("a.py", 2, 9, 7), "b": ("b.py", 1, 1, 8)})
    ['a']
    """
    return [name for name, old in before.items() if after.get(name, old) != old]
