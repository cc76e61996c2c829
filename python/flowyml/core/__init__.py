"""`flowyml.core` and the modules in it: the paths of 2.x. The homes of the names are elsewhere.

All are imported at once, as in 2.x: what has the name of its module (`step`, `context`, `dynamic`, `map_task`) must be
the function here, whichever path was imported first.
"""

from __future__ import annotations

from flowyml.core.cache import CacheStore
from flowyml.core.checkpoint import PipelineCheckpoint
from flowyml.core.conditional import If, Switch, unless, when
from flowyml.core.context import Context, context
from flowyml.core.dynamic import dynamic
from flowyml.core.error_handling import (
    CircuitBreaker,
    CircuitOpenError,
    ExponentialBackoff,
    RetryConfig,
    on_failure,
    retry,
)
from flowyml.core.executor import Executor, LocalExecutor
from flowyml.core.map_task import MapTaskResult, map_task
from flowyml.core.parallel import ParallelExecutor, parallel_map
from flowyml.core.pipeline import Pipeline, PipelineResult
from flowyml.core.step import Step, step
from flowyml.core.subpipeline import sub_pipeline

__all__ = [
    "CacheStore",
    "CircuitBreaker",
    "CircuitOpenError",
    "Context",
    "Executor",
    "ExponentialBackoff",
    "If",
    "LocalExecutor",
    "MapTaskResult",
    "ParallelExecutor",
    "Pipeline",
    "PipelineCheckpoint",
    "PipelineResult",
    "RetryConfig",
    "Step",
    "Switch",
    "context",
    "dynamic",
    "map_task",
    "on_failure",
    "parallel_map",
    "retry",
    "step",
    "sub_pipeline",
    "unless",
    "when",
]
