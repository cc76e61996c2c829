"""`flowyml.core.hooks`, the documentation's path; the home is `flowyml.hooks`.

>>> from flowyml import hooks
>>> from flowyml.core.hooks import on_step_end
>>> on_step_end == hooks.on_step_end
True
"""

from __future__ import annotations

from flowyml.hooks import Hooks, everywhere, on_pipeline_end, on_pipeline_start, on_step_end, on_step_start

__all__ = ["get_global_hooks", "on_pipeline_end", "on_pipeline_start", "on_step_end", "on_step_start"]


def get_global_hooks() -> Hooks:
    """Return the hooks of all pipelines."""
    return everywhere
