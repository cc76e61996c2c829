"""The process backend as an executor has it: runs, one after the other, on the same workers.

```
ParallelExecutor ── execute(run) ──▶ Backend ──▶ a Dispatch for the run ──▶ the team, as long as the executor
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.executors._processes.dispatching.ending import wait_if_ending
from flowyml.executors._processes.dispatching.team import ProcessTeam

if TYPE_CHECKING:
    from flowyml.running.run import Run


class Backend(ProcessTeam):
    """A team of worker processes that runs what it is given."""

    def execute(self, run: Run) -> None:
        """Run all steps of a run; whatever goes wrong beyond a step ends all workers."""
        if run.finished:
            return
        try:
            # First the processes: they start while this one imports and pickles.
            self.begin_processes(run)
            from flowyml.executors._processes.dispatching.dispatch import Dispatch

            Dispatch(self, run).run()
        except BaseException:
            wait_if_ending()
            self.shutdown(grace=0)
            raise
