"""Steps that were posted to a worker and that it has not begun, returned to the scheduler for others.

Slots are never used again, so a worker that comes to one that was taken back passes it over; see `rust/claims.rs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowyml.executors._processes.dispatching.batching import BatchSizer
    from flowyml.executors._processes.dispatching.member import Member
    from flowyml.running.run import Run

PATIENCE: Final = 0.001
"""Seconds: steps behind one that runs longer, or that take longer together, go to who has nothing to do."""


def most_spare(members: Sequence[Member], sizer: BatchSizer, now: float, *, even_next: bool) -> tuple[Member, int]:
    """Return who has the most steps that another worker may have, and how many they are; see `Member.spare`."""
    found = ((member, _spare(member, sizer, now, even_next=even_next)) for member in members)
    return max(found, key=lambda each: each[1])


def _spare(member: Member, sizer: BatchSizer, now: float, *, even_next: bool) -> int:
    spare = member.spare(even_next=even_next)
    if member.begun:
        stays = now - member.began <= PATIENCE and sizer.seconds(spare) <= PATIENCE
    else:
        stays = now - member.posted <= PATIENCE and sizer.are_brief(spare)
    return 0 if stays else spare


def take_half(run: Run, member: Member, spare: int) -> None:
    """Return half of so many posted steps to the scheduler, not without those that they are chained to."""
    last = member.postings[-1]
    end = last.first + last.count
    take_from(run, member, keep=max(0, member.waiting - (end - member.cut(end - -(-spare // 2)))))


def take_from(run: Run, member: Member, *, keep: int) -> None:
    """Return posted steps to the scheduler, the last ones first."""
    first, count = member.worker.claims.take_back(keep)
    end = first + count
    for posting in list(member.postings):
        start, stop = max(first, posting.first), min(end, posting.first + posting.count)
        if start < stop:
            posting.count = start - posting.first
            member.assigned -= stop - start
            kept = max(posting.count, posting.void)
            if kept < stop - posting.first:
                run.scheduler.give_back(posting.batch, kept, stop - posting.first - kept)
            if posting.done >= posting.count:
                member.finish(posting)
