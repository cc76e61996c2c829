"""The limits of a run's steps that the dispatch loop keeps by looking at its workers, each at its own time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.executors._processes.dispatching.deadlines import Deadlines
from flowyml.executors._processes.dispatching.memory import MemoryWatch
from flowyml.executors._processes.dispatching.watchdog import Watchdog

if TYPE_CHECKING:
    from typing import Protocol

    from flowyml.executors._processes.dispatching.member import Member, Verdict
    from flowyml.executors._processes.dispatching.team import ProcessTeam
    from flowyml.running.run import Run

    class Watch(Protocol):
        """Keeps one kind of limit."""

        @property
        def next(self) -> float:
            """When to look."""

        def begin_look(self) -> None:
            """Look at all workers now."""

        def suspects(self, member: Member) -> bool:
            """Tell whether a worker may have to be killed; what it has not begun is taken back then."""

        def verdict(self, member: Member) -> Verdict | None:
            """Say what becomes of it, now that it can begin nothing any more."""


def watches(team: ProcessTeam, run: Run) -> list[Watch]:
    """Return what keeps the limits that there are, and what notices that the run stands still."""
    found: list[Watch] = [Watchdog(team, run)]
    if run.limits is not None:
        found.append(Deadlines(run.limits))
    if team.memory_limit is not None:
        found.append(MemoryWatch(run, team.memory_limit))
    return found
