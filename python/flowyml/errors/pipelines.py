"""What is wrong with a pipeline before anything of it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.errors.root import FlowymlError

if TYPE_CHECKING:
    from collections.abc import Sequence


class PipelineValidationError(FlowymlError, ValueError):
    """A pipeline is not valid; nothing of it has run.

    Args:
        problems: One sentence for each problem, in the order in which the steps were added. Steps of one line that are
            wrong in the same way share one, and of one kind of problem there are 20 at most: the last of them ends in
            ", and 39,980 others like it".
        pipeline: Name of the pipeline, if there is one.
    """

    def __init__(self, problems: Sequence[str], pipeline: str | None = None) -> None:
        """Keep the problems and say them all in the message."""
        super().__init__(problems, pipeline)
        self.problems: list[str] = list(problems)
        self.pipeline = pipeline

    def __str__(self) -> str:
        """Return the headline and one line for each problem."""
        return "\n".join(["Pipeline validation failed:", *(f"  - {problem}" for problem in self.problems)])


class CycleError(PipelineValidationError):
    """A pipeline's only problem is a cycle.

    Args:
        problems: One sentence for each cycle.
        pipeline: Name of the pipeline, if there is one.
        cycle: Step names along the first cycle, the first repeated last (as in `graphlib.CycleError`).
    """

    def __init__(self, problems: Sequence[str], pipeline: str | None = None, cycle: Sequence[str] = ()) -> None:
        """Keep the path beside the problems."""
        super().__init__(problems, pipeline)
        self.args = (problems, pipeline, cycle)
        self.cycle: list[str] = list(cycle)


class GraphError(FlowymlError, ValueError):
    """What the core found wrong with a graph, as data; `planning/plan.py` puts it into words.

    Args:
        problems: Tuples such as `("cycle", [0, 2, 0])`; `flowyml._core.Graph` lists them.
    """

    def __init__(self, problems: Sequence[tuple[Any, ...]]) -> None:
        """Keep the problems."""
        super().__init__(problems)
        self.problems: list[tuple[Any, ...]] = list(problems)
