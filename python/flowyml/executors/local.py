"""LocalExecutor: in this process, one step at a time; in the caller's thread, but for steps that have a time limit."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, ClassVar, Literal

from flowyml.executors._claimed import Claimed
from flowyml.executors._courier import Courier
from flowyml.executors._helper import Helper
from flowyml.executors._inline import Current, Report, call_items, clock
from flowyml.executors.contract import Executor
from flowyml.step_context import telling

if TYPE_CHECKING:
    from flowyml._core import Batch
    from flowyml.run import Run
    from flowyml.timeouts import Limits

# Reporting a batch costs about as much as ten calls of the loop; past a few hundred steps nothing more is gained.
_BATCH = 256


class LocalExecutor(Executor):
    """Runs one step at a time in the calling thread, in add order among what is ready; the default.

    Steps that have a `timeout` run in a helper thread, one at a time as well, while the calling thread waits.

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
        work, limits = _Work(), run.limits
        if run.prompt and limits is None:
            _run_promptly(run)
            return
        with telling(Current(run, work)):
            if limits is not None:
                _run_with_limits(run, work, limits)
                return
            while not run.finished:
                work.take(run.claim(0, 1 if run.fail_fast else _BATCH, clock(), 0.1))
                if work.batch is not None:
                    run.tell()
                    _call(run, work, work.batch.items())
                    run.tell()


class _Work:
    """The batch at hand, and the report on it."""

    __slots__ = ("batch", "report")

    def __init__(self) -> None:
        self.take(None)

    def take(self, batch: Batch | None) -> None:
        """Begin with another batch."""
        self.batch = batch
        self.report = Report()


def _call(run: Run, work: _Work, items: list[int]) -> None:
    """Call the first steps of a batch; what was finished before a Ctrl-C counts."""
    report = work.report
    try:
        with run.interrupts.may_raise(items):
            call_items(run, items, report)
    except KeyboardInterrupt:
        report = report.part(0)
        raise
    finally:
        if report.ends and work.batch is not None:
            run.complete(work.batch, 0, report)


def _run_promptly(run: Run) -> None:
    """Run all steps, and report each soon after its end, whatever comes behind it in its batch."""
    claimed = Claimed()
    with telling(Current(run, claimed)), Courier(run, claimed):
        while not run.finished:
            batch = run.claim(0, 1 if run.fail_fast else _BATCH, clock(), 0.1)
            if batch is None:
                continue
            run.tell()
            claimed.begin(batch)
            try:
                with run.interrupts.may_raise(batch.items()):
                    claimed.call(run)
            finally:
                claimed.deliver(run)
            run.tell()


def _run_with_limits(run: Run, work: _Work, limits: Limits) -> None:
    """Run all steps, those with a time limit in a helper thread; what is called elsewhere goes back first."""
    helper, size = Helper(run, limits), 1
    try:
        while not run.finished:
            batch = run.claim(0, 1 if run.fail_fast else size, clock(), 0.1)
            if batch is None:
                continue
            run.tell()
            items = _alike(batch.items(), limits)
            if len(items) < len(batch):
                run.scheduler.give_back(batch, len(items), len(batch) - len(items))
            size = 1 if run.prompt else min(_BATCH, 2 * len(items))
            if limits.of(items[0]) < math.inf:
                helper.call(batch, items)
            else:
                work.take(batch)
                _call(run, work, items)
                work.take(None)
            run.tell()
    finally:
        helper.close()


def _alike(items: list[int], limits: Limits) -> list[int]:
    """Return the first items: those with a time limit, or those without one."""
    if limits.everywhere:
        return items
    limited = limits.of(items[0]) < math.inf
    return list(itertools.takewhile(lambda item: (limits.of(item) < math.inf) is limited, items))
