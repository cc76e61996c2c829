"""flowyml: graphs of plain Python functions, run in parallel.

The public names, loaded when they are first used: `import flowyml` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowyml.breakers import CircuitBreaker as CircuitBreaker
    from flowyml.checkpoints import PipelineCheckpoint as PipelineCheckpoint
    from flowyml.conditions import unless as unless
    from flowyml.conditions import when as when
    from flowyml.contexts import Context as Context
    from flowyml.contexts import context as context
    from flowyml.control import If as If
    from flowyml.control import Switch as Switch
    from flowyml.dynamic_steps import dynamic as dynamic
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
    from flowyml.executors.contract import Executor as Executor
    from flowyml.executors.local import LocalExecutor as LocalExecutor
    from flowyml.executors.parallel import ParallelExecutor as ParallelExecutor
    from flowyml.fallbacks import on_failure as on_failure
    from flowyml.map_tasks import MapTask as MapTask
    from flowyml.map_tasks import map_task as map_task
    from flowyml.pipeline import Pipeline as Pipeline
    from flowyml.result import PipelineResult as PipelineResult
    from flowyml.retries import ExponentialBackoff as ExponentialBackoff
    from flowyml.retries import RetryConfig as RetryConfig
    from flowyml.retries import retry as retry
    from flowyml.state import StepState as StepState
    from flowyml.step_context import get_context as get_context
    from flowyml.step_decorator import step as step
    from flowyml.step_result import StepResult as StepResult
    from flowyml.steps import Step as Step
    from flowyml.store.cache import CacheStore as CacheStore
    from flowyml.sub_pipelines import sub_pipeline as sub_pipeline
    from flowyml.tasks import MapTaskResult as MapTaskResult
    from flowyml.utils.parallel import parallel_map as parallel_map

_HOMES = {
    "flowyml.breakers": ("CircuitBreaker",),
    "flowyml.checkpoints": ("PipelineCheckpoint",),
    "flowyml.conditions": ("unless", "when"),
    "flowyml.contexts": ("Context", "context"),
    "flowyml.control": ("If", "Switch"),
    "flowyml.dynamic_steps": ("dynamic",),
    "flowyml.errors": (
        "CircuitOpenError",
        "CycleError",
        "ExecutorError",
        "FanOutError",
        "FlowymlError",
        "MapTaskError",
        "MemoryBudgetError",
        "MemoryLimitError",
        "OutputMismatchError",
        "PipelineValidationError",
        "RemoteError",
        "RunInterrupted",
        "SerializationError",
        "StepError",
        "StepNotRunError",
        "StepTimeoutError",
        "StoreError",
        "ValueLoadError",
        "WorkerLostError",
    ),
    "flowyml.executors.contract": ("Executor",),
    "flowyml.executors.local": ("LocalExecutor",),
    "flowyml.executors.parallel": ("ParallelExecutor",),
    "flowyml.fallbacks": ("on_failure",),
    "flowyml.map_tasks": ("MapTask", "map_task"),
    "flowyml.pipeline": ("Pipeline",),
    "flowyml.result": ("PipelineResult",),
    "flowyml.retries": ("ExponentialBackoff", "RetryConfig", "retry"),
    "flowyml.state": ("StepState",),
    "flowyml.step_context": ("get_context",),
    "flowyml.step_result": ("StepResult",),
    "flowyml.step_decorator": ("step",),
    "flowyml.steps": ("Step",),
    "flowyml.tasks": ("MapTaskResult",),
    "flowyml.sub_pipelines": ("sub_pipeline",),
    "flowyml.store.cache": ("CacheStore",),
    "flowyml.utils.parallel": ("parallel_map",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  one list of names, above


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name == "__version__":
        return _version()
    module = _HOME_OF.get(name)
    if module is None:
        from flowyml._words import nearest

        hint = "" if name.startswith("_") else nearest(name, __all__)
        raise AttributeError(f"module 'flowyml' has no attribute {name!r}{hint}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def _version() -> str:
    """Return the version of the distribution, which has it from Cargo.toml."""
    from importlib.metadata import version

    return version("flowyml")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
