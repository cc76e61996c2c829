"""`flowyml.core.pipeline`, the path of 2.x; the homes of its names are elsewhere."""

from __future__ import annotations

from flowyml.pipeline import Pipeline
from flowyml.results.result import PipelineResult

__all__ = ["Pipeline", "PipelineResult"]
