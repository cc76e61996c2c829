"""The driver's side of large values: the arenas of a team, what lies in them, and which of it workers still look at.

```
worker 3 ──writes──▶ arena 3 ◀──maps── any worker, and the driver where somebody looks at a result
driver   ──writes──▶ arena of arguments: what many steps read lies there once
```

Each worker has an arena that it alone writes; the driver makes it, so that what was returned outlives the worker, and a
worker that takes the place of another goes on behind the last block that arrived. Others open it by its path under
`/proc` of the driver, for reading only: a worker cannot change what another one has returned (a descriptor that comes
by `SCM_RIGHTS` would be the writer's own). Where a process may not look at its driver's descriptors, values travel
through the sockets.

A block is freed when nobody holds its `ArenaValue`: the run, its result, a message that is under way, objects in the
driver
that lie in it. A step may also keep what it was given beyond its own end (in a global, in a thread); its worker says so
with the result, and the block is held in its name until it says otherwise or is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from flowyml.errors import ExecutorError
from flowyml.executors.process.protocol.wire import ArenaConfig
from flowyml.store.arenas import Arena, ArenaValue, padded

if TYPE_CHECKING:
    from flowyml.executors.process.driver.worker_handle import WorkerHandle
    from flowyml.executors.process.protocol.wire import Key
    from flowyml.store.arenas import Block, PickledValue

LARGE = 1 << 16
"""Encoded values of at least so many bytes lie in arenas; at half of it a socket costs as much, at 1 MiB twice."""


class MemoryBudget:
    """How much memory the large values of a team may take, and how much is left; workers read that from a file.

    What workers have written and the driver has not heard of is not in it: so each may go beyond it by a value.

    Args:
        size: Bytes.
    """

    def __init__(self, size: int) -> None:
        self.left = size
        self.folder = spill_folder()
        self.fd = os.memfd_create("flowyml-budget", os.MFD_CLOEXEC)
        self._lock = threading.RLock()
        self.give(0)

    def give(self, size: int) -> None:
        """Note that so many bytes are free again (taken, if negative); a collector may call this anywhere."""
        with self._lock:
            self.left += size
            with contextlib.suppress(OSError):  # the interpreter ends
                os.pwrite(self.fd, max(0, self.left).to_bytes(8, "little"), 0)

    def __del__(self) -> None:
        """Close the file."""
        os.close(self.fd)


class ArenaOwner:
    """The arenas of one team.

    Args:
        budget: Bytes of memory that all of them may take together; beyond that they lie on disk.
    """

    def __init__(self, budget: int | None = None) -> None:
        self._budget = None if budget is None else MemoryBudget(budget)
        self._of_worker: dict[int, tuple[Arena, Arena | None] | None] = {}
        self._arenas: dict[int, Arena] = {}
        self._arguments: tuple[Arena, Arena | None] | None = None
        self._stored: WeakValueDictionary[Key, ArenaValue] = WeakValueDictionary()

    def terms(self, worker: int) -> ArenaConfig:
        """Return what a worker has to know of arenas, its own and, to read them, those of others."""
        if worker not in self._of_worker:
            self._of_worker[worker] = self._new()
        arenas = self._of_worker[worker] or (None, None)
        memory, disk = (None if each is None else (each.number, each.fd, each.end) for each in arenas)
        return ArenaConfig(os.getpid(), LARGE, memory, disk, -1 if self._budget is None else self._budget.fd)

    def _new(self) -> tuple[Arena, Arena | None] | None:
        """Make an arena of memory, and with a budget one of disk.

        Raises:
            ExecutorError: There is a budget, and it cannot be kept.
        """
        budget = self._budget
        try:
            check_able()
            memory = Arena.of_memory(None if budget is None else budget.give)
            disk = None if budget is None else Arena.of_disk(budget.folder)
        except OSError as error:
            if budget is None:  # values travel through sockets
                return None
            raise ExecutorError(f"memory_budget cannot be kept by this process: {error}") from error
        self._arenas.update((each.number, each) for each in (memory, disk) if each is not None)
        return memory, disk

    def receive(self, block: Block) -> ArenaValue:
        """Return what stands for a block that a worker has written; once for each."""
        return self._know(self._arenas[block[0]].adopt(block))

    def put(self, value: PickledValue) -> ArenaValue | None:
        """Write an argument for workers; `None` if it has to travel through their sockets."""
        if self._arguments is None:
            self._arguments = self._new()
        if self._arguments is None:
            return None
        memory, disk = self._arguments
        full = self._budget is not None and self._budget.left < padded(value.size)
        try:
            return self._know((disk if full and disk is not None else memory).put(value))
        except OSError:
            return None

    def _know(self, stored: ArenaValue) -> ArenaValue:
        if self._budget is not None and stored.arena.counts:  # type: ignore[attr-defined]
            self._budget.give(-padded(stored.size))
        self._stored[stored.block[0], stored.block[2]] = stored
        return stored

    def note(self, member: WorkerHandle, kept: list[Key], returned: list[Key]) -> None:
        """Hold what a worker goes on looking at, and let go of what it does not any more."""
        for key in returned:
            member.keeps.pop(key, None)
        for key in kept:
            stored = self._stored.get(key)
            if stored is not None:
                member.keeps[key] = stored

    def bury_all(self) -> None:
        """Give back what workers had begun to write; all of them are dead."""
        for worker in self._of_worker:
            self.bury(worker)

    def bury(self, worker: int) -> None:
        """Give back what a worker that is dead had begun to write."""
        for arena in self._of_worker.get(worker) or ():
            if arena is not None:
                arena.cut()


def spill_folder() -> str:
    """Return where values go that have no room in memory: not to /tmp unasked, which may be memory itself."""
    named, usual = os.environ.get("TMPDIR"), "/var/tmp"  # noqa: S108
    if named or os.access(usual, os.W_OK):
        return named or usual
    import tempfile

    return tempfile.gettempdir()


def check_able() -> None:
    """See whether other processes of this user may open this one's descriptors by their path.

    Raises:
        OSError: They may not.
    """
    if os.stat("/proc/self/fd/").st_uid != os.geteuid():  # noqa: PTH116  as it is without a dump, or with capabilities
        raise PermissionError(errno.EACCES, "its descriptors are not for others", "/proc/self/fd")
