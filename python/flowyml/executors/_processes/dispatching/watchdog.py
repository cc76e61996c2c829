"""Notices that a run on worker processes stands still although something is wrong with it, and writes that to the log.

A long step is nothing wrong, so time alone is no reason. What must not be, and is said once a run when it lasts:

```
steps are ready, a worker has nothing to do, and nothing happens     5 s
steps wait, nothing is running, and no retry is pending               5 s
a worker is dead, or was to be killed, and nobody says it has ended  5 s
a worker with steps was stopped by a signal                         30 s
a worker was given steps and has begun none of them                 30 s
a worker is still at what its step needs: modules, arguments        30 s   (it may import for long)
a worker was asked for and is not up                                60 s
```

It changes nothing: the record has the state of the loop, of the claim words and of the processes, and where in the code
the worker is, for whoever looks.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from flowyml.executors._processes.crossing.stacks import stack_of
from flowyml.executors._processes.guarding.process_table import read_proc
from flowyml.messages.words import counted, listed

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from flowyml.executors._processes.dispatching.member import Member, Verdict
    from flowyml.executors._processes.dispatching.team import ProcessTeam
    from flowyml.running.run import Run

_INTERVAL = 1.0
_BROKEN, _NOT_BEGUN, _NOT_UP = 5.0, 30.0, 60.0

_log = logging.getLogger("flowyml")
clock = time.monotonic


class Watchdog:
    """Looks at the loop of one run once a second, as a watch that never has anybody killed.

    Args:
        team: The workers.
        run: The run.

    Attributes:
        next: When to look.
    """

    def __init__(self, team: ProcessTeam, run: Run) -> None:
        """Look a second from now."""
        self._team = team
        self._run = run
        self._since: dict[Hashable, float] = {}
        self._told: set[Hashable] = set()
        self._sees: bool | None = None
        self.next = clock() + _INTERVAL

    def begin_look(self) -> None:
        """Note what must not be, and write down what has lasted."""
        now = clock()
        self.next = now + _INTERVAL
        if self._sees is None:
            self._sees = bool(read_proc(os.getpid(), "stat"))
        seen: dict[Hashable, float] = {}
        for key, text, patience, where in self._wrong():
            seen[key] = self._since.get(key, now)
            if now - seen[key] >= patience and key not in self._told:
                self._told.add(key)
                words = "\n".join([text, *self._state(now), *_place(where)])
                _log.warning("the run of pipeline %r stands still: %s", self._run.plan.name, words)
        self._since = seen

    def suspects(self, _: Member) -> bool:
        """Suspect nobody of having to be killed."""
        return False

    def verdict(self, _: Member) -> Verdict | None:
        """Have nobody killed."""
        return None

    def _wrong(self) -> Iterator[tuple[Hashable, str, float, Member | None]]:
        """Go through what must not be: a key to know it by again, words, how long it may last, whose stack to show."""
        scheduler = self._run.scheduler
        progress = (self._ready(), scheduler.unfinished)
        if scheduler.next_wakeup() is None and not (scheduler.running or scheduler.ready or scheduler.parked):
            names = listed(self._run.waiting_steps())
            yield ("waiting", progress), f"nothing is running or ready, and steps wait: {names}", _BROKEN, None
        for member in self._team.members:
            who, number = f"worker {member.number}", id(member)
            if member.verdict is not None:
                yield ("doomed", number), f"{who} was to be killed and has not ended", _BROKEN, None
            elif member.postings and (state := self._state_of(member)) in {"", "Z"}:
                yield ("dead", number), f"{who} is dead and nobody says so", _BROKEN, None
            elif member.postings and state == "T":
                yield ("stopped", number), f"{who} was stopped by a signal; kill -CONT lets it go on", _NOT_BEGUN, None
            elif not member.ready:
                yield ("new", number), f"{who} is not up", _NOT_UP, member
            elif member.postings and not member.begun:
                key = ("not begun", number, member.worker.claims.begun())
                yield key, f"{who} has not begun the steps that it was given", _NOT_BEGUN, member
            elif (step := self._loads(member)) is not None:
                what = f"{who} is still at what {step[1]!r} needs: its module, or its arguments"
                yield ("loads", number, step[0]), what, _NOT_BEGUN, member
            elif progress[0] and not member.postings and self._team.has_use_for(member):
                yield ("idle", progress), f"steps are ready and {who} has nothing to do", _BROKEN, None

    def _ready(self) -> int:
        """Return how many steps an idle worker could be given; a device may have to be waited for while others work."""
        scheduler = self._run.scheduler
        if not self._run.devices.names or not any(member.postings for member in self._team.members):
            return scheduler.ready
        return dict(scheduler.device_needs()).get(0, 0)

    def _loads(self, member: Member) -> tuple[int, str] | None:
        """Return slot and name of the step for which a worker is still loading something."""
        running = member.running() if member.postings else None
        return (running[0], self._run.item_name(running[1])) if running and running[2] > clock() else None

    def _state_of(self, member: Member) -> str | None:
        """Return the state of a worker's process; `None` where it is not known."""
        return _process_state(member) if self._sees and member.worker.pid is not None else None

    def _state(self, now: float) -> list[str]:
        """Return what the loop knows, a line for the run and one for each worker."""
        scheduler = self._run.scheduler
        words = [
            counted(getattr(scheduler, name), f"{name} step") for name in ("ready", "parked", "running", "unfinished")
        ]
        wakeup = scheduler.next_wakeup()
        retry = "none" if wakeup is None else f"in {wakeup - now:.1f} s"
        first = f"  {', '.join(words)}; next retry: {retry}; guardian: process {self._team.pool.guardian_pid}"
        return [first, *(f"  {self._line(member, now)}" for member in self._team.members)]

    def _line(self, member: Member, now: float) -> str:
        following, end, _ = member.worker.claims.begun()
        running = member.running()
        step = f"in {self._run.item_name(running[1])!r} for {now - member.began:.1f} s" if running else "in no step"
        marks = [name for name in ("ready", "failed", "full") if getattr(member, name)]
        marks += ["retired"] * (member.retired is not None) + ["doomed"] * (member.verdict is not None)
        posted = ", ".join(f"{each.first}+{each.done}/{each.count}" for each in member.postings) or "nothing"
        return (
            f"worker {member.number}: process {member.worker.pid} (state {_process_state(member) or 'gone'}), {step}, "
            f"slots begun to {following} of {end}, posted {posted}, {counted(len(member.outbox), 'buffer')} to send, "
            f"{', '.join(marks) or 'starting'}"
        )


def _place(member: Member | None) -> list[str]:
    """Return where in the code a worker is, as far as it tells."""
    lines = [] if member is None or member.worker.pid is None else stack_of(member.worker.pid)
    return (
        [f"  worker {member.number} is at (most recent call first):", *(f"    {each}" for each in lines)]
        if member and lines
        else []
    )


def _process_state(member: Member) -> str:
    """Return the letter by which the kernel tells what a process is doing; "" if there is none, or it is not known."""
    fields = read_proc(member.worker.pid or 0, "stat").rpartition(b")")[2].split()
    return fields[0].decode() if fields else ""
