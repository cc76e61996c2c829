"""Validation: the arguments of public functions, checked before anything else happens.

Every function returns its argument in the form in which the package stores it, or raises a `TypeError` or `ValueError`
that says what was given and what is expected.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from os import PathLike
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.executors.executor import Executor
from flowyml.planning.globs import is_glob
from flowyml.steps.context import CHECKPOINTS, Context
from flowyml.steps.declarations import asset_of
from flowyml.steps.step import Step
from flowyml.store.cache_store import CacheStore, default_directory

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path
    from typing import Literal

# The executor that is meant by a string, by how it begins.
_NAMED_EXECUTORS = {
    "local": "LocalExecutor()",
    "process": 'ParallelExecutor(backend="process")',
    "thread": 'ParallelExecutor(backend="thread")',
}


class JournalConfig(NamedTuple):
    """What a pipeline stores of its runs.

    Attributes:
        kept: Whether each run has a journal.
        folder: Where journals are, and the states that steps save.
        durable: Whether each write waits for the disk.
    """

    kept: bool
    folder: Path
    durable: bool


def checked_cache_store(cache_dir: Any, *, enabled: Any) -> CacheStore | None:
    """Return the store of a pipeline; `None` if it is to have none."""
    checked_flag("enable_cache", enabled)
    if cache_dir is None:
        return CacheStore() if enabled else None
    if not isinstance(cache_dir, (str, PathLike, CacheStore)):
        kind = type(cache_dir).__name__
        raise TypeError(f"cache_dir must be a path of a directory or a CacheStore, got {kind} {cache_dir!r:.60}")
    store = cache_dir if isinstance(cache_dir, CacheStore) else CacheStore(cache_dir)
    return store if enabled else None


def checked_journals(enabled: Any, folder: Any, durability: Any) -> JournalConfig:
    """Return what a pipeline keeps of its runs."""
    checked_flag("enable_checkpointing", enabled)
    if folder is not None and not isinstance(folder, (str, PathLike)):
        raise TypeError(f"checkpoint_dir must be a folder, got {type(folder).__name__} {folder!r:.60}")
    if durability not in {"batch", "always"}:
        raise ValueError(f'durability must be "batch" or "always", got {durability!r:.60}')
    from pathlib import Path

    found = default_directory(CHECKPOINTS) if folder is None else Path(folder)
    return JournalConfig(enabled, found, durability == "always")


def absolute(folder: Path) -> str:
    """Return an absolute path, which steps that change the directory do not affect; unchanged if there is no cwd."""
    text = str(folder)
    with suppress(OSError):
        return os.path.join(os.getcwd(), text)  # noqa: PTH109, PTH118  each run asks
    return text


def checked_resume(resume: Any, run_id: str | None, *, enabled: bool) -> str | bool | None:
    """Return which run is to be continued."""
    if resume is not None and not isinstance(resume, (str, bool)):
        kind = type(resume).__name__
        raise TypeError(f'resume must be "last", the id of a run, False or None, got {kind} {resume!r:.60}')
    if resume and not enabled:
        raise ValueError("run(resume=) needs a pipeline that keeps a journal: Pipeline(..., enable_checkpointing=True)")
    if resume and run_id is not None and run_id != resume:
        raise ValueError(f"run(resume={resume!r}, run_id={run_id!r}) names two runs; give one of them")
    return resume


def checked_progress(progress: Any) -> Any:
    """Return the progress observer of a run: `True`, a function, or `None`."""
    if progress is None or isinstance(progress, bool):
        return progress or None
    if callable(progress):
        return progress
    raise TypeError(f"progress must be True, False or a function, got {type(progress).__name__} {progress!r:.60}")


def checked_flag(name: str, value: Any) -> bool:
    """Return a flag."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__} {value!r:.60}")
    return value


def checked_flags(**values: Any) -> None:
    """Check flags."""
    for name, value in values.items():
        checked_flag(name, value)


def checked_seed(seed: Any) -> int | None:
    """Return a seed as a plain number."""
    if seed is None:
        return None
    if isinstance(seed, bool) or not hasattr(type(seed), "__index__"):
        raise TypeError(f"seed must be a whole number or None, got {type(seed).__name__} {seed!r:.60}")
    return int(seed.__index__())


def checked_mode(validate_types: Any) -> Literal["warn", "error"] | None:
    """Return what to do if types do not fit; `None` if they are not compared."""
    if validate_types is None or validate_types is False:
        return None
    if not isinstance(validate_types, (bool, str)):
        kind = type(validate_types).__name__
        raise TypeError(f'validate_types must be True, False, "warn" or "error", got {kind} {validate_types!r:.60}')
    if validate_types not in {True, "warn", "error"}:
        raise ValueError(f'validate_types must be True, False, "warn" or "error", got {validate_types!r:.60}')
    from importlib.util import find_spec

    if find_spec("beartype") is None:
        remedy = 'pip install beartype, or ".[types]" in a checkout'
        raise ImportError(f"validate_types needs beartype, which the extra `types` installs: {remedy}")
    return "warn" if validate_types == "warn" else "error"


def checked_params(params: Any, step: object) -> Mapping[str, Any]:
    """Return parameter values as a mapping."""
    name = getattr(step, "name", None) or getattr(step, "__name__", None) or repr(step)
    if not isinstance(params, Mapping):
        raise TypeError(f"params of step {name!r} must be a mapping of parameter names to values, got {params!r:.60}")
    for key in params:
        if not isinstance(key, str):
            raise TypeError(f"params of step {name!r} must have parameter names as keys, got {key!r:.60}")
    return params


def checked_values(where: str, values: Any) -> dict[str, Any]:
    """Return named values as a dict of their own."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        got = f"{type(values).__name__} {values!r:.60}"
        hint = "; did you mean executor=?" if isinstance(values, Executor) else ""
        raise TypeError(f"{where} takes a mapping of names to values, got {got}{hint}")
    for key in values:
        if not isinstance(key, str):
            raise TypeError(f"{where} must have names as keys, got {key!r:.60}")
    return dict(values)


def as_context(values: Any) -> Context:
    """Return a context as it is, and a mapping as a new one."""
    return values if isinstance(values, Context) else Context(**checked_values("Pipeline(context=)", values))


def checked_executor(executor: Any) -> Executor | None:
    """Return an executor or `None` as it is."""
    if executor is None or isinstance(executor, Executor):
        return executor
    got = repr(executor)
    if isinstance(executor, type):
        got = f"the class {executor.__name__}; make one: {executor.__name__}()"
    elif isinstance(executor, str):
        meant = [made for name, made in _NAMED_EXECUTORS.items() if executor.lower().startswith(name)]
        got += "".join(f"; use {made}" for made in meant)
    raise TypeError(f"executor must be a LocalExecutor, a ParallelExecutor or another Executor, got {got}")


def shape_of(inputs: Any, parameters: Container[str]) -> tuple[tuple[Any, ...], tuple[str, ...]] | None:
    """Return the part of declared inputs that steps of a loop have in common, and the names that differ.

    Args:
        inputs: The `inputs=` argument.
        parameters: Names of all that the step can take.

    Returns:
        `None` unless every input is one plain name. The shape is the parameters of a mapping, behind `dict`; of a
        list, the inputs that are parameters by name, since those go there, behind `None`. So no inputs, an empty list
        and an empty mapping differ: the latter two take the place of the inputs that a step declares itself.
    """
    if type(inputs) is list and len(inputs) == 1 and type(name := inputs[0]) is str and not is_glob(name):
        return (None, name if name in parameters else None), (name,)  # the most common one: a chain
    if isinstance(inputs, (str, Step)):
        inputs = (inputs,)
    by_name = type(inputs) is dict
    reads = tuple(inputs.values()) if by_name else inputs
    if type(reads) not in {tuple, list}:
        return None
    reads = tuple([name if type(name) is str else asset_of(name) for name in reads])
    for name in reads:
        if type(name) is not str or is_glob(name):
            return None
    if by_name:
        return (dict, *inputs), reads
    return (None, *[name if name in parameters else None for name in reads]), reads
