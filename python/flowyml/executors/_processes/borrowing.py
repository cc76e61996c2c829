"""A worker's side of large values: writes its own into its arena, maps those of others, knows what it still looks at.

What a step returns is copied into the arena at once: a step that keeps its array and writes to it later changes its
own. What a step is given is mapped anew for each step, copy on write. See `lending.py` for the other side.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from flowyml._core import OpenFiles, PrivateMap, punch_hole
from flowyml.executors._processes.values import Apart, dump_result
from flowyml.store.arenas import Borrowers, Pickled, Stored, padded, write_block

if TYPE_CHECKING:
    from flowyml.executors._processes.lending import Key, Terms
    from flowyml.store.arenas import Block

# Descriptors of other arenas that are kept open.
_MOST_OPEN = 64


class Shelf:
    """The arena of this worker, and what it has of others."""

    def __init__(self) -> None:
        """Have nothing."""
        self._driver = 0
        self._number = self._fd = self._driver_fd = -1
        self._end = 0
        self._writes = False
        self._apart = Apart(1)
        self._intact = OpenFiles([])
        self._sources: dict[int, _Borrowed] = {}
        self._begun: deque[Key] = deque()
        self._ended: deque[Key] = deque()
        self._looked_at: dict[Key, int] = {}
        self._told: set[Key] = set()
        os.register_at_fork(after_in_parent=self._note_fork)

    def set_up(self, terms: Terms | None) -> None:
        """Take over the arena that the driver has made for this worker; without one values go through the socket."""
        self._writes = terms is not None
        if terms is None:
            return
        self._driver, number, fd, end, large = terms
        Borrowers.borrow = self.borrow
        self._apart = Apart(large)
        if number == self._number:
            self._end = max(self._end, end)
            return
        try:
            self._fd = os.open(_path(self._driver, fd), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            self._writes = False
            return
        self._number, self._driver_fd, self._end = number, fd, end
        self._intact = OpenFiles([self._fd])

    # -- what steps return

    def dump(self, value: Any, what: str = "the result") -> Any:
        """Return a value as it goes to the driver: a pickle, or what stands for it in the arena.

        Raises:
            SerializationError: It does not pickle.
        """
        if not self._writes:
            return dump_result(value, what)
        apart = self._apart
        if apart.buffers:
            apart.take()  # what a value that did not pickle has left
        stream = dump_result(value, what, apart)
        if not apart.buffers and len(stream) < apart.least:
            return stream
        pickled = Pickled(stream, apart.take())
        try:
            return self._write(pickled)
        except OSError:  # no room: the driver may have some
            return dump_result(value, what) if pickled.buffers else stream

    def _write(self, value: Pickled) -> Block:
        """Write a block behind all others.

        Raises:
            OSError: There is no room, or a step has closed the arena.
        """
        if not self._intact.unchanged():
            self._writes = False
            raise OSError("the arena is closed")
        begin, size = self._end, value.size
        try:
            sizes = write_block(self._fd, begin, value)
        except OSError:
            with contextlib.suppress(OSError):
                punch_hole(self._fd, begin, padded(size))
            raise
        self._end = padded(begin + size)
        return self._number, self._driver_fd, begin, len(value.stream), sizes

    # -- what steps are given

    def load(self, block: Block) -> Any:
        """Return a new object of a value."""
        return self.borrow(block).load()

    def borrow(self, block: Block) -> Stored:
        """Return what stands for a value of an arena."""
        number, fd, *_ = block
        source = self._sources.get(number)
        if source is None:
            if len(self._sources) >= _MOST_OPEN:
                self._sources.clear()
            source = self._sources[number] = _Borrowed(self, _path(self._driver, fd))
        return Stored(source, block)

    def watch(self, stored: Stored, mapped: PrivateMap) -> None:
        """Note that something is being looked at, until it is not; any thread of a step may."""
        key = stored.block[0], stored.block[2]
        self._begun.append(key)
        weakref.finalize(mapped, self._ended.append, key).atexit = False

    def _note_fork(self) -> None:
        """A child has what is mapped now, and nobody hears when it ends: so it counts as looked at for ever."""
        self._count()
        for key in self._looked_at:
            self._looked_at[key] += 1

    def _count(self) -> None:
        looked_at = self._looked_at
        while self._begun:
            key = self._begun.popleft()
            looked_at[key] = looked_at.get(key, 0) + 1
        while self._ended:
            key = self._ended.popleft()
            looked_at[key] -= 1
            if not looked_at[key]:
                del looked_at[key]

    def news(self) -> tuple[list[Key], list[Key]] | None:
        """Return what is still looked at after a step, and what is not any more, where the driver does not know it."""
        if not self._begun and not self._ended:
            return None
        self._count()
        kept = [key for key in self._looked_at if key not in self._told]
        returned = [key for key in self._told if key not in self._looked_at]
        self._told.update(kept)
        self._told.difference_update(returned)
        return (kept, returned) if kept or returned else None


class _Borrowed:
    """An arena of another process, open for reading."""

    def __init__(self, shelf: Shelf, path: str) -> None:
        self._shelf = shelf
        self._path = path
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._intact = OpenFiles([self._fd])

    def map(self, stored: Stored) -> PrivateMap:
        if not self._intact.unchanged():  # a step has closed it, and the number may be another file's by now
            self._open()
        mapped = PrivateMap(self._fd, stored.block[2], stored.size)
        self._shelf.watch(stored, mapped)
        return mapped

    def free(self, stored: Stored) -> None:
        """The driver sees to it."""

    def reduce(self, stored: Stored) -> tuple[Any, ...]:
        """The driver does not hold it for us: it goes as a pickle."""
        return bytes, (dump_result(stored.load()),)

    def __del__(self) -> None:
        if self._intact.unchanged():
            os.close(self._fd)


def _path(pid: int, fd: int) -> str:
    return f"/proc/{pid}/fd/{fd}"
