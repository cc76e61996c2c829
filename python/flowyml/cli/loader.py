"""Loads a pipeline from a file, a module, or a name that a project has registered.

```
daily.py        daily.py:etl        shop.daily:etl        shop.daily        nightly ──▶ pyproject.toml, entry points
```

A file is executed like `python file.py`: as `__main__`, with its directory first on `sys.path` and its own `sys.argv`.
So worker processes get its functions by value, as from any script, and never import it. A file that runs its pipeline
itself calls the installed interceptor (`run_interceptor.py`), which decides whether and how that run happens.
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
_DEFAULT_NAME = "pipeline"
_SUFFIXES = {".py", ".pyw"}
_STORE_OPERATIONS = {"STORE_NAME", "STORE_GLOBAL"}


def execute_target(target: PipelineRef, arguments: Sequence[str], interceptor: RunInterceptor) -> Mapping[str, Any]:
    """Execute a file or import a module, with an interceptor for the runs in it; return its names.

    Raises:
        UserError: If it raises.
        Exit: If it exits.
    """
    try:
        with run_interceptor.install(interceptor):
            if target.file is not None:
                return _execute(target.file, _compiled(target.file), arguments)
            sys.argv[:] = [target.module, *arguments]
            return vars(importlib.import_module(target.module))
    except SystemExit as error:
        raise Exit(_exit_code(error.code)) from None
    except (UsageError, Exit, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(error) from error


def _compiled(path: Path) -> CodeType:
    """Compile a file; errors in a file without a Python suffix mean that it is not Python."""
    source = path.read_bytes()
    try:
        code: CodeType = compile(source, str(path.absolute()), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        if path.suffix in _SUFFIXES:
            raise
        raise UsageError(f"{path} is not a valid Python file{_error_place(error)}") from None
    return code


def _error_place(error: Exception) -> str:
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
        sys.path[0 : int(_has_script_directory())] = [str(absolute.parent)]
    sys.argv[:] = [str(path), *arguments]
    exec(code, names)  # noqa: S102  its purpose
    return names


def _has_script_directory() -> bool:
    """Return True if `sys.path` begins with the directory of the `flowyml` script, useless for a user's file."""
    return bool(sys.path) and Path(sys.path[0]) == Path(sys.argv[0]).parent and Path(sys.argv[0]).stem == "flowyml"


def _exit_code(code: Any) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code
    say(str(code))
    return FAILURE


def find_pipeline(target: PipelineRef, names: Mapping[str, Any]) -> Pipeline:
    """Return the requested pipeline.

    Raises:
        UsageError: If there is none, or if there are several and none was named.
        UserError: If a factory function raises.
    """
    pipelines = {name: value for name, value in list(names.items()) if isinstance(value, Pipeline)}
    if target.name is not None:
        return _named(target, target.name, names, pipelines)
    distinct = {id(pipeline): pipeline for pipeline in pipelines.values()}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if _DEFAULT_NAME in pipelines:
        return pipelines[_DEFAULT_NAME]
    if pipelines:
        choices = ", ".join(f"{target.given}:{name}" for name in list(pipelines)[:10])
        raise UsageError(f"{target.place} has {len(distinct)} pipelines, choose one: {choices}")
    named = registered_pipelines()
    if len(named) == 1:
        return Pipeline(named[0], auto_discover=True)
    if named:
        raise UsageError(
            f"{target.place} has steps for the pipelines {', '.join(named)}; choose one by {target.given}:NAME"
        )
    factories = [name for name, value in names.items() if _is_factory(value)]
    hint = f"; to call a function that returns one, give {target.given}:{factories[0]}" if factories else ""
    raise UsageError(f"{target.place} defines and runs no pipeline{hint}")


def _named(target: PipelineRef, name: str, names: Mapping[str, Any], pipelines: Mapping[str, Pipeline]) -> Pipeline:
    """Return the pipeline of a name: a variable, a factory function, a pipeline's name, or one that steps belong to."""
    if name in pipelines:
        return pipelines[name]
    if name in names and callable(names[name]) and not isinstance(names[name], type):
        return _call_factory(target, name, names[name])
    for pipeline in pipelines.values():
        if pipeline.name == name:
            return pipeline
    if name in registered_pipelines():
        return Pipeline(name, auto_discover=True)
    if name in names:
        raise UsageError(f"{name!r} in {target.place} is not a pipeline but of type {type(names[name]).__name__}")
    known = [*pipelines, *(pipeline.name for pipeline in pipelines.values()), *registered_pipelines()]
    raise _unknown_name(target, name, known)


def _unknown_name(target: PipelineRef, name: str, known: Sequence[str]) -> UsageError:
    hint = did_you_mean(name, known) or (f"; there are {', '.join(dict.fromkeys(known))}" if known else "; it has none")
    return UsageError(f"there is no pipeline {name!r} in {target.place}{hint}")


def _call_factory(target: PipelineRef, name: str, function: Any) -> Pipeline:
    try:
        pipeline = function()
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            raise UsageError(f"{name}() in {target.place} cannot be called without arguments: {error}") from error
        raise UserError(error) from error
    except UsageError:
        raise
    except Exception as error:
        raise UserError(error) from error
    if not isinstance(pipeline, Pipeline):
        raise UsageError(
            f"{name}() in {target.place} must return a pipeline, returned {type(pipeline).__name__} {pipeline!r:.60}"
        )
    return pipeline


def _is_factory(thing: Any) -> bool:
    returns = getattr(thing, "__annotations__", {}).get("return") if callable(thing) else None
    return returns in {Pipeline, "Pipeline"}


def line_of(pipeline: Pipeline, target: PipelineRef, names: Mapping[str, Any]) -> int:
    """Return the line of a module that created a pipeline, or the function that did; 1 if it is not found."""
    import dis

    known = {name for name, value in names.items() if value is pipeline} or {target.name or ""}
    stores = [
        instruction
        for instruction in dis.get_instructions(_body(names))
        if instruction.opname in _STORE_OPERATIONS and instruction.argval in known
    ]
    return next(
        (line for instruction in reversed(stores) if instruction.positions and (line := instruction.positions.lineno)),
        1,
    )


def _body(names: Mapping[str, Any]) -> CodeType:
    """Return the code of a module's current source; empty code if it cannot be read."""
    get = getattr(names.get("__loader__"), "get_source", None)
    try:
        return compile((get and get(names["__name__"])) or "", _file(names), "exec", dont_inherit=True)
    except (ImportError, OSError, KeyError, ValueError, SyntaxError):
        return compile("", _file(names), "exec", dont_inherit=True)


def _file(names: Mapping[str, Any]) -> str:
    return str(names.get("__file__") or names.get("__name__"))


def at_line(line: int, names: Mapping[str, Any], function: Callable[[], object]) -> None:
    """Call a function as if from that line of a module, to which its warnings are then attributed."""
    code = compile("\n" * (line - 1) + "call()", _file(names), "exec", dont_inherit=True)
    exec(code, {"__name__": names.get("__name__"), "call": function})  # noqa: S102  internal code


_ENTRY_POINT_GROUP = "flowyml.pipelines"


class PipelineRef(NamedTuple):
    """A reference to a pipeline.

    Attributes:
        file: The file; `None` for a module.
        module: The module; "" for a file.
        name: Name of the pipeline in it; `None` if none was given.
        given: The argument.
    """

    file: Path | None
    module: str
    name: str | None
    given: str

    @property
    def place(self) -> str:
        """The file or module, for messages."""
        return self.module or str(self.file)


def parse_target(given: str) -> PipelineRef:
    """Return the reference that an argument stands for.

    Raises:
        UsageError: If there is no such file, module or name, with near matches.
    """
    place, name = _split_target(given)
    if _looks_like_a_file(place):
        path = Path(place)
        if path.is_dir():
            raise UsageError(f"{place!r} is a directory; give a Python file, or a module that can be imported")
        if not path.is_file():
            raise UsageError(f"file {place!r} does not exist{did_you_mean(path.name, _scripts(path.parent))}")
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
    known = [*_pyproject()[0], *_entry_points(), *(name.removesuffix(".py") for name in _scripts(Path()))]
    what = (
        f"module {place!r}" if name is not None else f"pipeline {place!r}: no file, no module, and no registered name"
    )
    raise UsageError(f"there is no {what}{did_you_mean(place, known)}")


def _split_target(given: str) -> tuple[str, str | None]:
    """Split an argument at its colon; a Windows drive is not a place."""
    place, sign, name = given.rpartition(":")
    if not sign or len(place) < 2 or "/" in name or "\\" in name:  # noqa: PLR2004  C:\daily.py
        return given, None
    if not name:
        raise UsageError(f"{given!r} has no name after the colon")
    return place, name


def _looks_like_a_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place or (Path(place).is_file() and not _is_module(place))


def _scripts(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix == ".py" and path.is_file())
    except OSError:
        return []


def _is_module(name: str) -> bool:
    """Return True if `python -m` would find a module of that name."""
    import_from_cwd()
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def import_from_cwd() -> None:
    """Let modules of the working directory be imported, as `python -m` does."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _registered(name: str) -> PipelineRef | None:
    names, folder = _pyproject()
    reference = names.get(name)
    if reference is None:
        entry = _entry_points().get(name)
        return None if entry is None else parse_target(entry)._replace(given=name)
    place, inner = _split_target(reference)
    if _looks_like_a_file(place):
        path = folder / place
        if not path.is_file():
            raise UsageError(
                f"{folder / 'pyproject.toml'} maps {name!r} to {reference!r}, but that file does not exist"
            )
        return PipelineRef(path, "", inner, name)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return PipelineRef(None, place, inner, name)


def _pyproject() -> tuple[dict[str, str], Path]:
    """Return the table [tool.flowyml.pipelines] of the nearest pyproject.toml, and its directory."""
    import tomllib

    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            try:
                tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
            except (OSError, ValueError) as error:
                raise UsageError(f"{path} cannot be read: {error}") from error
            table = tool.get("flowyml", {}).get("pipelines", {})
            if not all(isinstance(value, str) for value in table.values()):
                raise UsageError(f"[tool.flowyml.pipelines] of {path} expects strings like 'daily.py:etl'")
            return dict(table), folder
    return {}, Path.cwd()


def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {entry.name: entry.value for entry in entry_points(group=_ENTRY_POINT_GROUP)}
