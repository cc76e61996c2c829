"""`flowyml.core.context`, the path of 2.x; the homes of its names are elsewhere."""

from __future__ import annotations

from flowyml.steps.contexts import Context, context

__all__ = ["Context", "context"]
