"""LocalExecutor: in this process and thread, one step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from flowyml.executors._inline import Current, Report, call_items, clock
from flowyml.executors.contract import Executor
from flowyml.step_context import telling

if TYPE_CHECKING:
    from flowyml._core import Batch
    from flowyml.run import Run

# Reporting a batch costs about as much as ten calls of the loop; past a few hundred steps nothing more is gained.
_BATCH = 256


class LocalExecutor(Executor):
    """Runs one step at a time in the calling thread, in add order among what is ready; the default.

    >>> from flowyml import LocalExecutor, Pipeline
    >>> Pipeline("one").add_step(max, params={"a": 1, "b": 2}).run(executor=LocalExecutor())["max"]
    2
    """

    order: ClassVar[Literal["critical_path", "add"]] = "add"

    def __repr__(self) -> str:
        """Show it as it is made."""
        return "LocalExecutor()"

    def execute(self, run: Run) -> None:
        """Run all steps, here and now."""
        work = _Work()
        with telling(Current(run, work)):
            while not run.finished:
                work.batch = run.claim(0, 1 if run.fail_fast else _BATCH, clock(), 0.1)
                if work.batch is not None:
                    run.tell()
                    work.report = Report()
                    _call(run, work.batch, work.report)
                    run.tell()


class _Work:
    """The batch at hand, and the report on it."""

    __slots__ = ("batch", "report")

    def __init__(self) -> None:
        self.batch: Batch | None = None
        self.report = Report()


def _call(run: Run, batch: Batch, report: Report) -> None:
    """Call the steps of a batch; what was finished before a Ctrl-C counts."""
    items = batch.items()
    try:
        with run.interrupts.may_raise(items):
            call_items(run, items, report)
    except KeyboardInterrupt:
        report = report.part(0)
        raise
    finally:
        if report.ends:
            run.complete(batch, 0, report)
