"""`flowyml.core` and its modules: the import paths of flowyml 2.x, as one table of aliases.

```
flowyml.core.step ──▶ _NAMES["step"] ──▶ "Step step" ──first use──▶ flowyml.Step, flowyml.step
```

The modules have no files: they are created when this package is imported, and resolve a name on first access. `step`,
`context`, `dynamic` and `map_task` name both modules and functions; as attributes of this package they are the
functions. Type checkers know the names of `flowyml.core`, not its modules.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.tracebacks import hides_internal_frames

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from flowyml.caching.checkpoint import PipelineCheckpoint as PipelineCheckpoint
    from flowyml.errors import CircuitOpenError as CircuitOpenError
    from flowyml.executors.executor import Executor as Executor
    from flowyml.executors.local_executor import LocalExecutor as LocalExecutor
    from flowyml.executors.parallel_executor import ParallelExecutor as ParallelExecutor
    from flowyml.hooks import Hooks
    from flowyml.map_tasks import map_task as map_task
    from flowyml.pipeline import Pipeline as Pipeline
    from flowyml.planning.sub_pipelines import SubPipeline
    from flowyml.planning.sub_pipelines import sub_pipeline as sub_pipeline
    from flowyml.results.result import PipelineResult as PipelineResult
    from flowyml.steps.circuit_breaker import CircuitBreaker as CircuitBreaker
    from flowyml.steps.conditions import unless as unless
    from flowyml.steps.conditions import when as when
    from flowyml.steps.context import Context as Context
    from flowyml.steps.context import context as context
    from flowyml.steps.control_flow import If as If
    from flowyml.steps.control_flow import Switch as Switch
    from flowyml.steps.decorator import step as step
    from flowyml.steps.dynamic import dynamic as dynamic
    from flowyml.steps.fallback import on_failure as on_failure
    from flowyml.steps.map_task import MapTaskResult as MapTaskResult
    from flowyml.steps.retry import ExponentialBackoff as ExponentialBackoff
    from flowyml.steps.retry import RetryConfig as RetryConfig
    from flowyml.steps.retry import retry as retry
    from flowyml.steps.step import Step as Step
    from flowyml.store.cache_store import CacheStore as CacheStore
    from flowyml.utils.parallel import parallel_map as parallel_map

# The names of each module. They are imported from `flowyml`, unless `_HOMES` names another module.
_NAMES = {
    "cache": "CacheStore",
    "checkpoint": "PipelineCheckpoint",
    "conditional": "If Switch unless when",
    "context": "Context context",
    "dynamic": "dynamic",
    "error_handling": "CircuitBreaker CircuitOpenError ExponentialBackoff RetryConfig on_failure retry",
    "executor": "Executor LocalExecutor",
    "hooks": "get_global_hooks on_pipeline_end on_pipeline_start on_step_end on_step_start",
    "map_task": "MapTaskResult map_task",
    "parallel": "ParallelExecutor parallel_map",
    "pipeline": "Pipeline PipelineResult",
    "step": "Step step",
    "subpipeline": "SubPipelineStep sub_pipeline",
}
_HOMES = {
    "flowyml.core": "SubPipelineStep get_global_hooks",
    "flowyml.hooks": "on_pipeline_end on_pipeline_start on_step_end on_step_start",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted({*" ".join(_NAMES.values()).split()} - {*_HOME_OF})  # noqa: PLE0605  one list of names, above


@hides_internal_frames
def __getattr__(name: str) -> Any:
    """Import a name on first access."""
    return _load(sys.modules[__name__], name)


def __dir__() -> list[str]:
    """Return the names and the modules."""
    return sorted({*__all__, *_NAMES})


@hides_internal_frames
def _load(module: ModuleType, name: str) -> Any:
    """Return a name of a module from its home, and store it in the module."""
    if name not in module.__all__:
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF.get(name, "flowyml")), name)
    setattr(module, name, value)
    return value


class _AliasImporter:
    """Finder and loader of the modules of the table; supports `importlib.reload`."""

    @staticmethod
    def find_spec(fullname: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        package, _, module = fullname.rpartition(".")
        if package != __name__ or module not in _NAMES:
            return None
        return ModuleSpec(fullname, _AliasImporter)  # type: ignore[arg-type]  # no base: importlib.abc is slow

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        names = _NAMES[module.__name__.rpartition(".")[2]].split()
        module.__doc__ = f"`{module.__name__}`, an import path of flowyml 2.x."
        vars(module).update(__all__=names, __getattr__=partial(_load, module), __dir__=lambda: names)


def _make_modules() -> None:
    """Create the modules now: a later import would replace a function by the module of the same name."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__module__", None) != __name__]
    sys.meta_path.append(_AliasImporter)
    for name in _NAMES:
        globals()[name] = importlib.import_module(f"{__name__}.{name}")
        if name in __all__:
            del globals()[name]


_make_modules()


def get_global_hooks() -> Hooks:
    """Return the hooks of all pipelines, `flowyml.hooks.everywhere`, under their name in 2.x.

    >>> from flowyml import hooks
    >>> from flowyml.core.hooks import get_global_hooks, on_step_end
    >>> get_global_hooks() is hooks.everywhere, on_step_end == hooks.on_step_end
    (True, True)
    """
    from flowyml.hooks import everywhere

    return everywhere


@hides_internal_frames
def SubPipelineStep(  # noqa: N802, PLR0917  a class with these arguments in 2.x
    sub_pipeline: Pipeline,
    name: str | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    input_mapping: Mapping[str, str] | None = None,
    output_mapping: Mapping[str, str] | None = None,
) -> SubPipeline:
    """Return a pipeline as a step of another, for `add_step`: `flowyml.sub_pipeline` under its name in 2.x.

    >>> from flowyml import Pipeline
    >>> from flowyml.core.subpipeline import SubPipelineStep
    >>> words = Pipeline("words").add_step(str.upper, "loud", inputs=["word"])
    >>> parent = Pipeline("parent").add_step(SubPipelineStep(sub_pipeline=words, name="w", outputs=["loud"]))
    >>> parent.run({"word": "yes"})["loud"]
    'YES'
    """
    from flowyml.planning import sub_pipelines

    mappings: dict[str, Any] = {"input_mapping": input_mapping, "output_mapping": output_mapping}
    return sub_pipelines.sub_pipeline(sub_pipeline, inputs, outputs, name=name, **mappings)
