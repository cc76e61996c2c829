"""`flowyml.core.map_task`, the path of 2.x; the homes of its names are elsewhere."""

from __future__ import annotations

from flowyml.map_tasks import map_task
from flowyml.steps.tasks import MapTaskResult

__all__ = ["MapTaskResult", "map_task"]
