"""The states of a run's steps, as texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowyml import PipelineResult


def states(result: PipelineResult) -> dict[str, str]:
    """Return the state of each step, by name."""
    return {name: str(each.state) for name, each in result.step_results.items()}


def states_in_order(result: PipelineResult) -> list[str]:
    """Return the state of each step, in add order."""
    return [str(each.state) for each in result.step_results.values()]
