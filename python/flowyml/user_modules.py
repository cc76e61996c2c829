"""Which modules are the user's, and which are installed: the standard library, `site-packages`, this package.

What is installed is known by its name; what the user wrote may change at any time.
"""

from __future__ import annotations

import functools
import os
import site
import sys
import threading
from types import ModuleType
from typing import Any

_ENTRY = ("__main__", "__mp_main__")
_asking = threading.Lock()


@functools.cache
def installed_folders() -> tuple[str, ...]:
    """Return the folders of the standard library and of installed packages, each with its last separator."""
    import sysconfig  # takes milliseconds, and many processes never ask

    with _asking:  # before 3.13 it reads what another thread's first call is still filling in
        paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders.update(site.getsitepackages(), [site.getusersitepackages()])
    folders.update([os.path.realpath(folder) for folder in folders])
    return tuple(sorted(folder.rstrip(os.sep) + os.sep for folder in folders))


def module_file(module: object) -> str | None:
    """Return the file of a module without waking a lazy one."""
    if not isinstance(module, ModuleType):
        return None
    names: dict[str, Any] = ModuleType.__getattribute__(module, "__dict__")
    file = names.get("__file__")
    return file if isinstance(file, str) else None


def is_own(name: str) -> bool:
    """Tell whether a module is one of this package."""
    return name == "flowyml" or name.startswith("flowyml.")


def is_written_here(name: object) -> bool:
    """Tell whether a module is the user's: a script, a notebook, made by hand, or from a file that is not installed.

    >>> is_written_here("__main__"), is_written_here("json"), is_written_here("flowyml.steps.step")
    (True, False, False)
    """
    if not isinstance(name, str) or name in _ENTRY:
        return True
    if is_own(name):
        return False
    module = sys.modules.get(name)
    file = module_file(module)
    if file is not None:
        return not file.startswith(installed_folders())
    return getattr(module, "__spec__", None) is None
