"""Distinguishes the user's modules, which may change at any time, from installed ones."""

from __future__ import annotations

import functools
import os
import site
import sys
import threading
from types import ModuleType
from typing import Any

_MAIN_NAMES = ("__main__", "__mp_main__")
_lock = threading.Lock()


@functools.cache
def installed_directories() -> tuple[str, ...]:
    """Return the directories of the standard library and of installed packages, each with a trailing separator."""
    import sysconfig  # takes milliseconds, and many processes do not need it

    with _lock:  # before 3.13 a concurrent first call sees incomplete data
        paths = sysconfig.get_paths()
    directories = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    directories.update(site.getsitepackages(), [site.getusersitepackages()])
    directories.update([os.path.realpath(directory) for directory in directories])
    return tuple(sorted(directory.rstrip(os.sep) + os.sep for directory in directories))


def module_file(module: object) -> str | None:
    """Return the file of a module without triggering a lazy import."""
    if not isinstance(module, ModuleType):
        return None
    names: dict[str, Any] = ModuleType.__getattribute__(module, "__dict__")
    file = names.get("__file__")
    return file if isinstance(file, str) else None


def is_package_module(name: str) -> bool:
    """Return True if a module belongs to flowyml."""
    return name == "flowyml" or name.startswith("flowyml.")


def is_user_module(name: object) -> bool:
    """Return True for a module of the user: a script, a notebook, made in memory, or in a file that is not installed.

    >>> is_user_module("__main__"), is_user_module("json"), is_user_module("flowyml.steps.step")
    (True, False, False)
    """
    if not isinstance(name, str) or name in _MAIN_NAMES:
        return True
    if is_package_module(name):
        return False
    module = sys.modules.get(name)
    file = module_file(module)
    if file is not None:
        return not file.startswith(installed_directories())
    return getattr(module, "__spec__", None) is None
