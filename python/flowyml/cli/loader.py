"""From a file or a module to a pipeline.

A file is executed as `python file.py` executes it: as `__main__`, its folder first on `sys.path`, `sys.argv` its own.
So worker processes get its functions by value, as from any script, and never import it. A file that runs its pipeline
itself meets the command there (`commands.py`): it decides whether and how that runs.

What PIPELINE on the command line names: a file, a module, or a name that a project has registered.

```
daily.py        daily.py:etl        shop.daily:etl        shop.daily        nightly ──▶ pyproject.toml, entry points
```
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from flowyml import run_interceptor
from flowyml._containers import NamedTuple
from flowyml.cli.console import FAILURE, Exit, UsageError, UserError, say
from flowyml.diagnostics.text import did_you_mean
from flowyml.pipeline import Pipeline
from flowyml.registry import pipelines as registered_pipelines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowyml.run_interceptor import RunInterceptor


MAIN = "__main__"
_USUAL = "pipeline"
_ENDINGS = {".py", ".pyw"}
_BINDS = {"STORE_NAME", "STORE_GLOBAL"}


def executed(target: PipelineRef, arguments: Sequence[str], command: RunInterceptor) -> Mapping[str, Any]:
    """Execute a file, or import a module, with a command above the runs in it; return its names.

    Raises:
        UserError: With what it has raised.
        Ended: If it exits.
    """
    try:
        with run_interceptor.install(command):
            if target.file is not None:
                return _execute(target.file, _compiled(target.file), arguments)
            sys.argv[:] = [target.module, *arguments]
            return vars(importlib.import_module(target.module))
    except SystemExit as error:
        raise Exit(_code(error.code)) from None
    except (UsageError, Exit, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(error) from error


def _compiled(path: Path) -> CodeType:
    """Compile a file.

    Raises:
        UsageError: If it is no Python file.
        SyntaxError: If it is one, and wrong.
    """
    source = path.read_bytes()
    try:
        code: CodeType = compile(source, str(path.absolute()), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        if path.suffix in _ENDINGS:
            raise
        raise UsageError(f"{path} is no Python file{_place(error)}") from None
    return code


def _place(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    return (f"; line {line}" if line else "") + f": {getattr(error, 'msg', error)}"


def _execute(path: Path, code: CodeType, arguments: Sequence[str]) -> dict[str, Any]:
    absolute = path.absolute()
    module = ModuleType(MAIN)
    names = vars(module)
    names["__file__"], names["__builtins__"] = str(absolute), __builtins__
    names["__loader__"], names["__spec__"] = SourceFileLoader(MAIN, str(absolute)), None
    names["__annotations__"] = {}
    sys.modules[MAIN] = module
    if not sys.flags.safe_path:
        sys.path[0 : int(_has_our_folder())] = [str(absolute.parent)]
    sys.argv[:] = [str(path), *arguments]
    exec(code, names)  # noqa: S102  it is asked for
    return names


def _has_our_folder() -> bool:
    """Tell whether `sys.path` begins with the folder of the script `flowyml`, which has nothing for a user's file."""
    return bool(sys.path) and Path(sys.path[0]) == Path(sys.argv[0]).parent and Path(sys.argv[0]).stem == "flowyml"


def _code(code: Any) -> int:
    """Return an exit code as Python makes it of `sys.exit(code)`."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code
    say(str(code))
    return FAILURE


def found(target: PipelineRef, names: Mapping[str, Any]) -> Pipeline:
    """Return the pipeline that is meant.

    Raises:
        UsageError: If there is none, or several and none was named.
        UserError: If a function that was to return it raised.
    """
    pipelines = {name: each for name, each in list(names.items()) if isinstance(each, Pipeline)}
    if target.name is not None:
        return _named(target, target.name, names, pipelines)
    distinct = {id(each): each for each in pipelines.values()}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if _USUAL in pipelines:
        return pipelines[_USUAL]
    if pipelines:
        told = ", ".join(f"{target.given}:{name}" for name in list(pipelines)[:10])
        raise UsageError(f"{target.place} has {len(distinct)} pipelines, say which one: {told}")
    named = registered_pipelines()
    if len(named) == 1:
        return Pipeline(named[0], auto_discover=True)
    if named:
        raise UsageError(f"{target.place} has steps for the pipelines {', '.join(named)}; say {target.given}:NAME")
    makers = [name for name, each in names.items() if _may_make(each)]
    hint = f"; a function that returns one is named like {target.given}:{makers[0]}" if makers else ""
    raise UsageError(f"{target.place} has no pipeline among its names, and has run none{hint}")


def _named(target: PipelineRef, name: str, names: Mapping[str, Any], pipelines: Mapping[str, Pipeline]) -> Pipeline:
    """Return the pipeline of a name: a variable, a function that returns one, the name of one, steps made for it."""
    if name in pipelines:
        return pipelines[name]
    if name in names and callable(names[name]) and not isinstance(names[name], type):
        return _made(target, name, names[name])
    for each in pipelines.values():
        if each.name == name:
            return each
    if name in registered_pipelines():
        return Pipeline(name, auto_discover=True)
    if name in names:
        raise UsageError(f"{name!r} in {target.place} is no pipeline, it is of type {type(names[name]).__name__}")
    known = [*pipelines, *(each.name for each in pipelines.values()), *registered_pipelines()]
    raise _unknown(target, name, known)


def _unknown(target: PipelineRef, name: str, known: Sequence[str]) -> UsageError:
    hint = did_you_mean(name, known) or (f"; there are {', '.join(dict.fromkeys(known))}" if known else "; it has none")
    return UsageError(f"there is no pipeline {name!r} in {target.place}{hint}")


def _made(target: PipelineRef, name: str, function: Any) -> Pipeline:
    try:
        made = function()
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            raise UsageError(f"{name}() in {target.place} cannot be called without arguments: {error}") from error
        raise UserError(error) from error
    except UsageError:
        raise
    except Exception as error:
        raise UserError(error) from error
    if not isinstance(made, Pipeline):
        raise UsageError(f"{name}() in {target.place} returned no pipeline, but {type(made).__name__} {made!r:.60}")
    return made


def _may_make(thing: Any) -> bool:
    """Tell whether a function says that it returns a pipeline."""
    returns = getattr(thing, "__annotations__", {}).get("return") if callable(thing) else None
    return returns in {Pipeline, "Pipeline"}


def line_of(pipeline: Pipeline, target: PipelineRef, names: Mapping[str, Any]) -> int:
    """Return the line of a module that made a pipeline, or the function that did; 1 if that is not to be seen."""
    import dis

    known = {name for name, each in names.items() if each is pipeline} or {target.name or ""}
    bound = [each for each in dis.get_instructions(_body(names)) if each.opname in _BINDS and each.argval in known]
    return next((line for each in reversed(bound) if each.positions and (line := each.positions.lineno)), 1)


def _body(names: Mapping[str, Any]) -> CodeType:
    """Return the code of a module as its file is now; that of an empty one if there is none that can be read."""
    get = getattr(names.get("__loader__"), "get_source", None)
    try:
        return compile((get and get(names["__name__"])) or "", _file(names), "exec", dont_inherit=True)
    except (ImportError, OSError, KeyError, ValueError, SyntaxError):
        return compile("", _file(names), "exec", dont_inherit=True)


def _file(names: Mapping[str, Any]) -> str:
    return str(names.get("__file__") or names.get("__name__"))


def at_line(line: int, names: Mapping[str, Any], function: Callable[[], object]) -> None:
    """Call a function as that line of a module would: it is the user's line to which its warnings belong."""
    code = compile("\n" * (line - 1) + "call()", _file(names), "exec", dont_inherit=True)
    exec(code, {"__name__": names.get("__name__"), "call": function})  # noqa: S102  it is ours


_GROUP = "flowyml.pipelines"


class PipelineRef(NamedTuple):
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


def target_of(given: str) -> PipelineRef:
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
            raise UsageError(f"there is no file {place!r}{did_you_mean(path.name, _scripts(path.parent))}")
        return PipelineRef(path, "", name, given)
    if name is None:
        registered = _registered(place)
        if registered is not None:
            return registered
        for path in (Path(f"{place}.py"), Path("pipelines", f"{place}.py")):
            if path.is_file():
                return PipelineRef(path, "", None, given)
    if _is_module(place):
        return PipelineRef(None, place, name, given)
    known = [*_pyproject()[0], *_entries(), *(name.removesuffix(".py") for name in _scripts(Path()))]
    what = (
        f"module {place!r}" if name is not None else f"pipeline {place!r}: no file, no module, and no registered name"
    )
    raise UsageError(f"there is no {what}{did_you_mean(place, known)}")


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


def _registered(name: str) -> PipelineRef | None:
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
        return PipelineRef(path, "", inner, name)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return PipelineRef(None, place, inner, name)


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
