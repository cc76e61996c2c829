"""What the workers of a run write: under which name it is shown, and with which step it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowyml.executors._processes.dispatching.member import Member
    from flowyml.executors._processes.dispatching.team import ProcessTeam
    from flowyml.running.run import Run


def show(run: Run, team: ProcessTeam, member: Member) -> None:
    """Show and keep what a worker writes from now on; a name stands before it where others may write, too."""

    def label(slot: int) -> str | None:
        item = member.item_at(slot) if team.several else None
        return None if item is None else run.item_name(item)

    member.open_pipes(label, lambda slot, text: keep(run, member, slot, text))


def keep(run: Run, member: Member, slot: int, text: str) -> None:
    """Keep what the step in a slot has written."""
    item = member.item_at(slot)
    if item is not None:
        run.usage.keep(item, text)
