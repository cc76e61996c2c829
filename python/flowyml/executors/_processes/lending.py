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

A block is freed when nobody holds its `Stored`: the run, its result, a message that is under way, objects in the driver
that lie in it. A step may also keep what it was given beyond its own end (in a global, in a thread); its worker says so
with the result, and the block is held in its name until it says otherwise or is gone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from flowyml.store.arenas import Arena, Stored

if TYPE_CHECKING:
    from flowyml.executors._processes.member import Member
    from flowyml.store.arenas import Block, Pickled

LARGE = 1 << 16
"""Encoded values of at least so many bytes lie in arenas (see docs/values.md for how it was measured)."""

Key = tuple[int, int]
Terms = tuple[int, int, int, int, int]


class Lending:
    """The arenas of one team."""

    def __init__(self) -> None:
        """Make none."""
        self._able = may_open_ours()
        self._of_worker: dict[int, Arena | None] = {}
        self._arenas: dict[int, Arena] = {}
        self._arguments: Arena | None = None
        self._stored: WeakValueDictionary[Key, Stored] = WeakValueDictionary()

    def terms(self, worker: int) -> Terms | None:
        """Return what a worker has to know of its arena: pid, number, descriptor, where to go on, what is large."""
        if worker not in self._of_worker:
            self._of_worker[worker] = self._new()
        arena = self._of_worker[worker]
        return None if arena is None else (os.getpid(), arena.number, arena.fd, arena.end, LARGE)

    def _new(self) -> Arena | None:
        if not self._able:
            return None
        try:
            arena = Arena.of_memory()
        except OSError:  # no descriptor is left, or no memory
            return None
        self._arenas[arena.number] = arena
        return arena

    def receive(self, block: Block) -> Stored:
        """Return what stands for a block that a worker has written; once for each."""
        return self._know(self._arenas[block[0]].adopt(block))

    def put(self, value: Pickled) -> Stored | None:
        """Write an argument for workers; `None` if it has to travel through their sockets."""
        if self._arguments is None:
            self._arguments = self._new()
        if self._arguments is None:
            return None
        try:
            return self._know(self._arguments.put(value))
        except OSError:
            return None

    def _know(self, stored: Stored) -> Stored:
        self._stored[stored.block[0], stored.block[2]] = stored
        return stored

    def note(self, member: Member, kept: list[Key], returned: list[Key]) -> None:
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
        arena = self._of_worker.get(worker)
        if arena is not None:
            arena.cut()


def may_open_ours() -> bool:
    """Tell whether other processes of this user may open this one's descriptors by their path."""
    try:
        return hasattr(os, "memfd_create") and os.stat("/proc/self/fd/").st_uid == os.geteuid()  # noqa: PTH116
    except OSError:
        return False
