"""Which worker uses more memory than it may, and which step is the one that took it.

What counts is what a worker has for itself: its anonymous memory and that of the processes it has started; mapped files
and shared memory do not. The dispatch loop looks at all workers twenty times a second.

```
within the limit ──▶ note which step was begun last
above it ──▶ what is not begun is taken back
             ├─ no step runs: the worker is replaced, nobody is to blame; one that never began a step started in vain
             ├─ the step ran when the memory was last within the limit, or is the only one since: its fault
             └─ several steps since: one before may have left it behind; it is a fault only if the step takes more still
```
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError, MemoryLimitError
from flowyml.executors._initializing import too_large
from flowyml.executors._processes.dispatching.member import Verdict
from flowyml.executors._processes.guarding.process_table import anonymous

if TYPE_CHECKING:
    from flowyml.executors._processes.dispatching.member import Member
    from flowyml.running.run import Run

_INTERVAL = 0.05
# What a step may take beyond what it found above the limit, as a share of the limit; and how much it may be in all.
_MORE = 1 / 16
_MOST = 1.25

clock = time.monotonic


class MemoryWatch:
    """The memory limit of a team's workers, as the dispatch loop keeps it.

    Args:
        run: The run, for names.
        limit: Bytes that a worker may have.

    Attributes:
        next: When to look.
    """

    def __init__(self, run: Run, limit: int) -> None:
        """Look at once.

        Raises:
            ExecutorError: If this system does not tell how much memory a process has.
        """
        if not anonymous(os.getpid()):
            raise ExecutorError("memory_limit needs /proc/PID/statm, which cannot be read here")
        self._run = run
        self._limit = limit
        self.next = 0.0

    def begin_look(self) -> None:
        """Look at all workers now."""
        self.next = clock() + _INTERVAL

    def suspects(self, member: Member) -> bool:
        """Tell whether a worker has more than it may; note it if not."""
        if member.worker.pid is None or member.verdict is not None:
            return False
        member.full = used(member.worker.pid, self._limit) > self._limit
        if not member.full:
            member.calm, member.found = member.worker.claims.last_claimed(), None
        return member.full

    def verdict(self, member: Member) -> Verdict | None:
        """Say what becomes of a worker that has more than it may, and that can begin nothing any more."""
        size = used(member.worker.pid or 0, self._limit)
        running = member.running()
        if size <= self._limit or (running is None and member.begun):
            return None
        if running is None:
            return Verdict(None, None if member.has_worked else too_large(self._limit, size))
        slot, item, _ = running
        guilty = Verdict(slot, MemoryLimitError(self._run.item_name(item), self._limit, size))
        if member.slot_before(slot) <= (-1 if member.calm is None else member.calm):
            return guilty
        if member.found is None or member.found[0] != slot:
            member.found = slot, size
        return guilty if size > min(member.found[1] + _MORE * self._limit, _MOST * self._limit) else None


def used(pid: int, limit: int) -> int:
    """Return the bytes that a process and those it has started have for themselves.

    What forked processes share counts several times at first; only where the sum is above the limit it is worth a
    closer look.
    """
    family = [pid]
    for each in family:
        family += _children(each)
    size = sum(map(anonymous, family))
    return sum(map(_proportional, family)) if size > limit and len(family) > 1 else size


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):  # it is gone
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  twenty times a second
        return [int(child) for each in threads for child in _read(f"/proc/{pid}/task/{each}/children").split()]
    return []


def _proportional(pid: int) -> int:
    """Return the same, with what several processes share divided among them."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        name, _, rest = line.partition(":")
        if name == "Pss_Anon":
            return int(rest.split()[0]) * 1024
    return anonymous(pid)


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
