"""`flowyml.core.checkpoint`, the path of 2.x; the homes of its names are elsewhere."""

from __future__ import annotations

from flowyml.reuse.checkpoints import PipelineCheckpoint

__all__ = ["PipelineCheckpoint"]
