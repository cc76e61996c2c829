"""flowyml: run graphs of plain Python functions in parallel.

Public names and modules are imported on first access, so that `import flowyml` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowyml.caching.checkpoint import PipelineCheckpoint as PipelineCheckpoint
    from flowyml.errors import CircuitOpenError as CircuitOpenError
    from flowyml.errors import CycleError as CycleError
    from flowyml.errors import ExecutorError as ExecutorError
    from flowyml.errors import FanOutError as FanOutError
    from flowyml.errors import FlowymlError as FlowymlError
    from flowyml.errors import MapTaskError as MapTaskError
    from flowyml.errors import MemoryBudgetError as MemoryBudgetError
    from flowyml.errors import MemoryLimitError as MemoryLimitError
    from flowyml.errors import OutputMismatchError as OutputMismatchError
    from flowyml.errors import PipelineValidationError as PipelineValidationError
    from flowyml.errors import RemoteError as RemoteError
    from flowyml.errors import RunInterrupted as RunInterrupted
    from flowyml.errors import SerializationError as SerializationError
    from flowyml.errors import StepError as StepError
    from flowyml.errors import StepNotRunError as StepNotRunError
    from flowyml.errors import StepTimeoutError as StepTimeoutError
    from flowyml.errors import StoreError as StoreError
    from flowyml.errors import ValueLoadError as ValueLoadError
    from flowyml.errors import WorkerLostError as WorkerLostError
    from flowyml.executors.executor import Executor as Executor
    from flowyml.executors.local_executor import LocalExecutor as LocalExecutor
    from flowyml.executors.parallel_executor import ParallelExecutor as ParallelExecutor
    from flowyml.hashing.file import File as File
    from flowyml.map_tasks import MapTask as MapTask
    from flowyml.map_tasks import map_task as map_task
    from flowyml.pipeline import Pipeline as Pipeline
    from flowyml.planning.sub_pipelines import sub_pipeline as sub_pipeline
    from flowyml.results.result import PipelineResult as PipelineResult
    from flowyml.results.step_result import StepResult as StepResult
    from flowyml.state import StepState as StepState
    from flowyml.steps.circuit_breaker import CircuitBreaker as CircuitBreaker
    from flowyml.steps.conditions import unless as unless
    from flowyml.steps.conditions import when as when
    from flowyml.steps.context import Context as Context
    from flowyml.steps.context import context as context
    from flowyml.steps.context import get_context as get_context
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

_HOMES = {
    "flowyml.steps.circuit_breaker": "CircuitBreaker",
    "flowyml.caching.checkpoint": "PipelineCheckpoint",
    "flowyml.steps.conditions": "unless when",
    "flowyml.steps.context": "Context context get_context",
    "flowyml.steps.control_flow": "If Switch",
    "flowyml.steps.dynamic": "dynamic",
    "flowyml.errors": (
        "CircuitOpenError CycleError ExecutorError FanOutError FlowymlError MapTaskError MemoryBudgetError "
        "MemoryLimitError OutputMismatchError PipelineValidationError RemoteError RunInterrupted "
        "SerializationError StepError StepNotRunError StepTimeoutError StoreError ValueLoadError WorkerLostError"
    ),
    "flowyml.executors.executor": "Executor",
    "flowyml.executors.local_executor": "LocalExecutor",
    "flowyml.executors.parallel_executor": "ParallelExecutor",
    "flowyml.steps.fallback": "on_failure",
    "flowyml.hashing.file": "File",
    "flowyml.map_tasks": "MapTask map_task",
    "flowyml.pipeline": "Pipeline",
    "flowyml.results.result": "PipelineResult",
    "flowyml.steps.retry": "ExponentialBackoff RetryConfig retry",
    "flowyml.state": "StepState",
    "flowyml.results.step_result": "StepResult",
    "flowyml.steps.decorator": "step",
    "flowyml.steps.step": "Step",
    "flowyml.steps.map_task": "MapTaskResult",
    "flowyml.planning.sub_pipelines": "sub_pipeline",
    "flowyml.store.cache_store": "CacheStore",
    "flowyml.utils.parallel": "parallel_map",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  one list of names, above
_MODULES = ("core", "errors", "hooks", "utils", "visualize")


def __getattr__(name: str) -> Any:
    """Import a public name or module on first access."""
    if name == "__version__":
        return _version()
    module = _HOME_OF.get(name)
    if module is None and _is_module(name):
        if name.startswith("_"):
            raise AttributeError(name)  # internal: `from flowyml import _core` calls this, then imports the module
        return importlib.import_module(f"{__name__}.{name}")
    if module is None:
        from flowyml.diagnostics.text import did_you_mean
        from flowyml.diagnostics.tracebacks import hide_internal_frames

        hint = "" if name.startswith("_") else did_you_mean(name, [*__all__, *_MODULES])

        try:  # the decorator would have to be imported with the package
            raise AttributeError(f"module 'flowyml' has no attribute {name!r}{hint}")  # noqa: TRY301
        except AttributeError as error:
            hide_internal_frames(error)
            raise
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def _is_module(name: str) -> bool:
    """Return True if the package has a module of this name."""
    from importlib.machinery import PathFinder

    return PathFinder.find_spec(f"{__name__}.{name}", __path__) is not None


def _version() -> str:
    """Return the version of the distribution, which is that in Cargo.toml."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flowyml")
    except PackageNotFoundError:
        remedy = "`make develop` in a checkout, or `pip install .`"
        raise ImportError(
            f"flowyml is not installed in this environment, so its version is unknown; use {remedy}"
        ) from None


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
