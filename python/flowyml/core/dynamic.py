"""`flowyml.core.dynamic`, the path of 2.x; the homes of its names are elsewhere."""

from __future__ import annotations

from flowyml.steps.dynamic import dynamic

__all__ = ["dynamic"]
