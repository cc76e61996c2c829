"""`flowyml.core.step`, the path of 2.x; the homes of its names are elsewhere."""

from __future__ import annotations

from flowyml.steps.config import StepConfig
from flowyml.steps.decorator import step
from flowyml.steps.step import Step

__all__ = ["Step", "StepConfig", "step"]
