"""What PIPELINE on the command line names: a file, a module, or a name that a project has registered.

```
daily.py        daily.py:etl        shop.daily:etl        shop.daily        nightly ──▶ pyproject.toml, entry points
```
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from flowyml._containers import NamedTuple
from flowyml.cli.terminal import UsageError
from flowyml.messages.words import nearest

_GROUP = "flowyml.pipelines"


class Target(NamedTuple):
    """Where a pipeline is.

    Attributes:
        file: The file; `None` if it is a module.
        module: The module; "" if it is a file.
        name: Which pipeline in there; `None` if it was not said.
        given: What was given.
    """

    file: Path | None
    module: str
    name: str | None
    given: str

    @property
    def place(self) -> str:
        """The file or module, for messages."""
        return self.module or str(self.file)


def target_of(given: str) -> Target:
    """Return what a word names.

    Raises:
        UsageError: If there is no such file, module or name, with near matches.
    """
    place, name = _parts(given)
    if _looks_like_a_file(place):
        path = Path(place)
        if path.is_dir():
            raise UsageError(f"{place!r} is a directory; give a Python file, or a module that can be imported")
        if not path.is_file():
            raise UsageError(f"there is no file {place!r}{nearest(path.name, _scripts(path.parent))}")
        return Target(path, "", name, given)
    if name is None:
        registered = _registered(place)
        if registered is not None:
            return registered
        for path in (Path(f"{place}.py"), Path("pipelines", f"{place}.py")):
            if path.is_file():
                return Target(path, "", None, given)
    if _is_module(place):
        return Target(None, place, name, given)
    known = [*_pyproject()[0], *_entries(), *(name.removesuffix(".py") for name in _scripts(Path()))]
    what = (
        f"module {place!r}" if name is not None else f"pipeline {place!r}: no file, no module, and no registered name"
    )
    raise UsageError(f"there is no {what}{nearest(place, known)}")


def _parts(given: str) -> tuple[str, str | None]:
    """Take the place and the name apart; a drive is no place."""
    place, sign, name = given.rpartition(":")
    if not sign or len(place) < 2 or "/" in name or "\\" in name:  # noqa: PLR2004  C:\daily.py
        return given, None
    if not name:
        raise UsageError(f"{given!r} names no pipeline behind the colon")
    return place, name


def _looks_like_a_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place or (Path(place).is_file() and not _is_module(place))


def _scripts(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix == ".py" and path.is_file())
    except OSError:
        return []


def _is_module(name: str) -> bool:
    """Tell whether there is a module of that name, as `python -m` would find it."""
    import_here()
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def import_here() -> None:
    """Let modules of the working directory be found, as `python -m` does."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _registered(name: str) -> Target | None:
    names, folder = _pyproject()
    found = names.get(name)
    if found is None:
        entry = _entries().get(name)
        return None if entry is None else target_of(entry)._replace(given=name)
    place, inner = _parts(found)
    if _looks_like_a_file(place):
        path = folder / place
        if not path.is_file():
            raise UsageError(f"{folder / 'pyproject.toml'} says that {name!r} is {found!r}, and there is no such file")
        return Target(path, "", inner, name)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return Target(None, place, inner, name)


def _pyproject() -> tuple[dict[str, str], Path]:
    """Return the table [tool.flowyml.pipelines] of the nearest pyproject.toml, and the folder of that."""
    import tomllib

    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            try:
                tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
            except (OSError, ValueError) as error:
                raise UsageError(f"{path} cannot be read: {error}") from error
            table = tool.get("flowyml", {}).get("pipelines", {})
            if not all(isinstance(each, str) for each in table.values()):
                raise UsageError(f"[tool.flowyml.pipelines] of {path} takes texts like 'daily.py:etl'")
            return dict(table), folder
    return {}, Path.cwd()


def _entries() -> dict[str, str]:
    """Return the pipelines that installed packages have registered."""
    from importlib.metadata import entry_points

    return {each.name: each.value for each in entry_points(group=_GROUP)}
