"""The driver's side of the arenas: files in memory or on disk that hold large values.

```
worker 3 ──writes──▶ arena 3 ◀──maps── any worker, and the driver when a result is read
driver   ──writes──▶ argument arena: arguments that many steps read, stored once
```

The driver creates one arena for each worker, which alone writes to it, so results outlive the worker. A replacement
continues after the last block that arrived. Other workers open the arena by its path under `/proc` of the driver, for
reading only; a descriptor sent by `SCM_RIGHTS` would be writable. If `/proc` forbids that, values travel through the
sockets.

A block is freed with its last `ArenaValue`: in the run, its result, a message, or objects of the driver that share its
memory. If a step keeps an argument in a global or a thread, its worker reports that with the result, and the driver
retains the block until the worker releases it or exits.
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

MIN_ARENA_BYTES = 1 << 16
"""Larger encoded values are stored in arenas; at half of it a socket costs as much, at 1 MiB twice as much."""


class MemoryBudget:
    """The memory that large values may use together. Workers read the remaining bytes from a file.

    A value that a worker has written and not reported is not counted, so each worker may exceed the budget by one.
    """

    def __init__(self, size: int) -> None:
        self.left = size
        self.folder = spill_directory()
        self.fd = os.memfd_create("flowyml-budget", os.MFD_CLOEXEC)
        self._lock = threading.RLock()
        self.give(0)

    def give(self, size: int) -> None:
        """Add bytes to the budget (negative: use them). The garbage collector may call this at any time."""
        with self._lock:
            self.left += size
            with contextlib.suppress(OSError):  # the interpreter exits
                os.pwrite(self.fd, max(0, self.left).to_bytes(8, "little"), 0)

    def __del__(self) -> None:
        os.close(self.fd)


class ArenaOwner:
    """The arenas of one backend; `budget` limits the bytes in memory, further values are stored on disk."""

    def __init__(self, budget: int | None = None) -> None:
        self._budget = None if budget is None else MemoryBudget(budget)
        self._of_worker: dict[int, tuple[Arena, Arena | None] | None] = {}
        self._arenas: dict[int, Arena] = {}
        self._arguments: tuple[Arena, Arena | None] | None = None
        self._stored: WeakValueDictionary[Key, ArenaValue] = WeakValueDictionary()

    def config_for(self, worker: int) -> ArenaConfig:
        """Return what a worker needs to write to its arena and to read others."""
        if worker not in self._of_worker:
            self._of_worker[worker] = self._new()
        arenas = self._of_worker[worker] or (None, None)
        memory, disk = (None if each is None else (each.number, each.fd, each.end) for each in arenas)
        return ArenaConfig(os.getpid(), MIN_ARENA_BYTES, memory, disk, -1 if self._budget is None else self._budget.fd)

    def _new(self) -> tuple[Arena, Arena | None] | None:
        """Create an arena in memory and, given a budget, one on disk; return None if values must use the sockets."""
        budget = self._budget
        try:
            check_fd_access()
            memory = Arena.of_memory(None if budget is None else budget.give)
            disk = None if budget is None else Arena.of_disk(budget.folder)
        except OSError as error:
            if budget is None:  # values travel through sockets
                return None
            raise ExecutorError(f"memory_budget cannot be kept by this process: {error}") from error
        self._arenas.update((each.number, each) for each in (memory, disk) if each is not None)
        return memory, disk

    def receive(self, block: Block) -> ArenaValue:
        """Return the handle of a block that a worker has written; to be called once for each block."""
        return self._know(self._arenas[block[0]].adopt(block))

    def put(self, value: PickledValue) -> ArenaValue | None:
        """Store an argument for workers; return None if it must travel through their sockets."""
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

    def note_retained(self, worker: WorkerHandle, kept: list[Key], returned: list[Key]) -> None:
        """Retain the blocks that a worker still uses, and release those that it has returned."""
        for key in returned:
            worker.retained_blocks.pop(key, None)
        for key in kept:
            stored = self._stored.get(key)
            if stored is not None:
                worker.retained_blocks[key] = stored

    def discard_all_unfinished(self) -> None:
        """Free the unreported blocks of all workers, which have exited."""
        for worker in self._of_worker:
            self.discard_unfinished(worker)

    def discard_unfinished(self, worker: int) -> None:
        """Free the unreported blocks of a worker that has exited."""
        for arena in self._of_worker.get(worker) or ():
            if arena is not None:
                arena.cut()


def spill_directory() -> str:
    """Return the directory for values that exceed the budget; /tmp only as a last resort, since it may be in memory."""
    named, usual = os.environ.get("TMPDIR"), "/var/tmp"  # noqa: S108
    if named or os.access(usual, os.W_OK):
        return named or usual
    import tempfile

    return tempfile.gettempdir()


def check_fd_access() -> None:
    """Raise OSError unless other processes of this user may open this process's descriptors by path."""
    if os.stat("/proc/self/fd/").st_uid != os.geteuid():  # noqa: PTH116  as it is without a dump, or with capabilities
        raise PermissionError(errno.EACCES, "its descriptors are not for others", "/proc/self/fd")
