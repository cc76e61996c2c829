"""The contract between a run and the place where its steps run.

`execute(run)` claims batches from the run, calls the steps somewhere and reports them, until the run is finished. All
policy (which step is ready, what a failure means, which value is kept) is in the run and its scheduler, so every
executor has the same semantics; a new one only calls functions. If it runs nothing, it calls `run.check_progress()`
before it waits, which raises an error if no event can arrive any more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from flowyml._core import Graph
    from flowyml.planning.plan import Plan
    from flowyml.runtime.run import Run
    from flowyml.steps.resources import Capacity


class Executor(ABC):
    """Runs the steps of a run; subclass it to run steps somewhere else.

    Attributes:
        order: Which of the ready steps goes first: as they were added, or by critical path and then as they were added.
        capacity: The resources for steps (see `steps/resources.py`); `None` if one step runs at a time.

    >>> from flowyml import Executor, LocalExecutor, Pipeline
    >>> class Announced(Executor):
    ...     def execute(self, run):
    ...         print("begins")
    ...         LocalExecutor().execute(run)
    >>> Pipeline("one").add_step(max, params={"a": 1, "b": 2}).run(executor=Announced())["max"]
    begins
    2
    """

    order: ClassVar[Literal["critical_path", "add"]] = "critical_path"
    capacity: Capacity | None = None

    @property
    def keeps_values_serialized(self) -> bool:
        """True if a run that it executes now keeps its values as worker processes send them."""
        return False

    def prioritized_graph(self, plan: Plan) -> Graph:
        """Return the graph of a plan, with the order in which its steps are preferred."""
        return plan.graph

    @abstractmethod
    def execute(self, run: Run) -> None:
        """Run all steps of a run; return when none is left."""

    def shutdown(self) -> None:  # noqa: B027  most executors have no workers
        """Release workers; the next run starts new ones."""

    def __enter__(self) -> Self:
        """Use the executor for a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the workers at the end of the block."""
        self.shutdown()
