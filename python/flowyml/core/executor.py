"""`flowyml.core.executor`, the path of 2.x; the homes of its names are elsewhere."""

from __future__ import annotations

from flowyml.executors.contract import Executor
from flowyml.executors.local import LocalExecutor

__all__ = ["Executor", "LocalExecutor"]
