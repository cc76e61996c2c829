"""What ends a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.errors.root import FlowymlError

if TYPE_CHECKING:
    from flowyml.results.result import PipelineResult


class ExecutorError(FlowymlError, RuntimeError):
    """An executor cannot do its work (no worker starts, its helper process was killed, it is shut down).

    Attributes:
        result: Where that ended a run: its partial result, as `RunInterrupted` has it.
    """

    result: PipelineResult | None = None


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a run; workers are gone, what was finished is kept.

    Args:
        result: The partial result: finished steps with their values, all others cancelled.
    """

    def __init__(self, result: PipelineResult | None = None) -> None:
        """Keep the partial result."""
        super().__init__("the run was interrupted; .result holds what was finished")
        self.result = result
