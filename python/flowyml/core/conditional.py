"""`flowyml.core.conditional`, the path of 2.x; the homes of its names are elsewhere."""

from __future__ import annotations

from flowyml.steps.conditions import unless, when
from flowyml.steps.control import If, Switch

__all__ = ["If", "Switch", "unless", "when"]
