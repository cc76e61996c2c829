"""Files of the user's modules, which count as a whole if a function cannot be followed name by name.

```
a module as a value, an import inside a function ──▶ Source: the code of its file, and the modules that it imports
importlib.import_module(name), pickle.loads(...) ──▶ Project: all files next to the module that does it
```

Files are found as an import finds them, without importing anything. The code of a file counts, its comments do not.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.user_modules import installed_directories, is_package_module, is_user_module, module_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, ModuleType

_MAIN_NAMES = ("__main__", "__mp_main__")
_MAX_FILES = 2_000
_MAX_BYTES = 64 << 20
_IGNORED_DIRECTORIES = frozenset(["__pycache__", "node_modules", "site-packages", "build", "dist"])


class Source(NamedTuple):
    """The file of a module of the user, which need not be loaded: Python code, or an extension."""

    name: str
    file: str


class Project(NamedTuple):
    """All Python files in a directory and below, any of which may be imported by a computed name."""

    folder: str


def canonical_name(name: str) -> str:
    """Return the name of a module; the script has the name under which it can be imported.

    >>> canonical_name("json.decoder")
    'json.decoder'
    """
    if name not in _MAIN_NAMES:
        return name
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if spec is not None:  # python -m package.module
        spec_name = str(spec.name)
        return spec_name.removesuffix(".__main__") if spec_name not in _MAIN_NAMES else name
    file = module_file(module)
    return name if file is None else _import_name(Path(file).resolve())


@functools.lru_cache(maxsize=64)
def _import_name(file: Path) -> str:
    parts, folder = [file.stem], file.parent
    while folder.name and (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def source_of(name: str) -> Source | None:
    """Return the file of a module of the user without importing anything; `None` for installed and missing modules.

    >>> source_of("json"), source_of("there_is_none")
    (None, None)
    """
    if is_package_module(name):
        return None
    module = sys.modules.get(name)
    if module is not None:
        file = module_file(module)
        return Source(canonical_name(name), str(Path(file).resolve())) if file and is_user_module(name) else None
    file = _find_file(name)
    if file is None or file.startswith(installed_directories()):
        return None
    return Source(name, str(Path(file).resolve()))


def _find_file(name: str) -> str | None:
    parent, _, _ = name.rpartition(".")
    path: Any = None
    if parent:
        loaded = sys.modules.get(parent)
        path = getattr(loaded, "__path__", None)
        if path is None:
            path = _search_path(parent)
            if path is None:
                return None
    try:
        spec = PathFinder.find_spec(name, path)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin if spec is not None and spec.has_location else None


def _search_path(package: str) -> Any:
    parent, _, _ = package.rpartition(".")
    path = None
    if parent:
        path = getattr(sys.modules.get(parent), "__path__", None) or _search_path(parent)
        if path is None:
            return None
    try:
        spec = PathFinder.find_spec(package, path)
    except (ImportError, ValueError, AttributeError):
        return None
    return None if spec is None else spec.submodule_search_locations


def imported(name: str, level: int, names: tuple[str, ...], package: str) -> Iterator[str]:
    """Yield the modules that an import statement may load: its packages, the module, and the names imported from it.

    >>> list(imported("pkg.sub", 0, ("h",), ""))
    ['pkg', 'pkg.sub', 'pkg.sub.h']
    """
    if level:
        try:
            name = importlib.util.resolve_name("." * level + name, package)
        except ImportError:
            return
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    yield from (f"{name}.{attribute}" for attribute in names if attribute != "*")


def code_of(source: Source) -> CodeType | bytes:
    """Return the code of a module's file; its bytes if it is not Python code.

    Raises:
        OSError: If the file is gone.
    """
    about = Path(source.file).stat()
    return _code_of(source.file, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=1024)
def _code_of(file: str, _time: int, _size: int) -> CodeType | bytes:
    data = Path(file).read_bytes()
    if not file.endswith((".py", ".pyw")):
        return data
    try:
        return SourceFileLoader("module", file).source_to_code(data, file)
    except (SyntaxError, ValueError):
        return data


def imports_of(source: Source) -> list[Source]:
    """Return the user's modules that a module imports anywhere in its code."""
    code = code_of(source)
    if isinstance(code, bytes):
        return []
    package = source.name if _is_package(source) else source.name.rpartition(".")[0]
    sources: dict[Source, None] = {}
    for name, level, names in sorted(_statements(code)):
        for module_name in imported(name, level, names, package):
            imported_source = source_of(module_name)
            if imported_source is not None and imported_source.file != source.file:
                sources[imported_source] = None
    return list(sources)


@functools.lru_cache(maxsize=1024)
def _statements(code: CodeType) -> frozenset[tuple[str, int, tuple[str, ...]]]:
    from flowyml.hashing.bytecode import uses

    return uses(code).imports


def project_of(module: str) -> Project | None:
    """Return the directory from which a module of the user is imported; `None` if it has no file."""
    source = source_of(module)
    if source is None:
        return None
    up = source.name.count(".") + _is_package(source)
    return Project(str(Path(source.file).parents[up]))


def _is_package(source: Source) -> bool:
    return Path(source.file).name.startswith("__init__.")


def files_of(project: Project) -> list[str]:
    """Return the Python files of a project, sorted; without hidden directories and virtual environments.

    Raises:
        OverflowError: If there are too many.
    """
    files: list[str] = []
    size, todo = 0, [Path(project.folder)]
    for folder in todo:
        for path in sorted(folder.iterdir()):
            if path.suffix == ".py" and path.is_file():
                files.append(str(path))
                size += path.stat().st_size
            elif not _is_left_out(path) and path.is_dir() and not (path / "pyvenv.cfg").exists():
                todo.append(path)
        if len(files) > _MAX_FILES or size > _MAX_BYTES or len(todo) > _MAX_FILES:
            raise OverflowError(
                f"the code imports modules by computed names, so all Python files in {project.folder} count, and they "
                f"are more than {_MAX_FILES:,} or {_MAX_BYTES >> 20} MB"
            )
    return sorted(files)


def _is_left_out(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _IGNORED_DIRECTORIES or path.is_symlink()


def data_of(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of a loaded module, except those that Python sets."""
    names: dict[str, Any] = dict(vars(module))
    for name in sorted(names):
        if not (name.startswith("__") and name.endswith("__")):
            yield name, names[name]
