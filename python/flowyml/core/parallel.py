"""`flowyml.core.parallel`, the path of 2.x; the homes of its names are elsewhere."""

from __future__ import annotations

from flowyml.executors.parallel import ParallelExecutor
from flowyml.utils.parallel import parallel_map

__all__ = ["ParallelExecutor", "parallel_map"]
