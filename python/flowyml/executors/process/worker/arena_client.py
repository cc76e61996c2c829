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

from flowyml._extension import DescriptorCheck, PrivateMap, punch_hole
from flowyml.errors import MemoryBudgetError
from flowyml.executors.process.protocol.value_pickle import OutOfBandBuffers, dump_result
from flowyml.store.arenas import ArenaOpener, ArenaValue, PickledValue, padded, write_block

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.executors.process.protocol.wire import ArenaConfig, Key, Place
    from flowyml.store.arenas import Block

# Bytes that a worker has written to disk and that may not be there yet.
_MOST_UNSYNCED = 256 << 20
# Descriptors of other arenas that are kept open.
_MOST_OPEN = 64


class _ArenaWriter:
    """An arena of this worker."""

    def __init__(self, pid: int, place: Place) -> None:
        self.number, self._driver_fd, self._end = place
        self._fd = os.open(_path(pid, self._driver_fd), os.O_RDWR | os.O_CLOEXEC)
        self._intact = DescriptorCheck([self._fd])

    def go_on(self, end: int) -> None:
        """Leave what the driver has heard of as it is."""
        self._end = max(self._end, end)

    def write(self, value: PickledValue) -> Block:
        """Write a block behind all others.

        Raises:
            OSError: There is no room, or a step has closed the arena.
        """
        if not self._intact.unchanged():
            raise OSError("a step has closed the arena")
        begin, size = self._end, value.size
        try:
            sizes = write_block(self._fd, begin, value)
        except OSError:
            with contextlib.suppress(OSError):
                punch_hole(self._fd, begin, padded(size))
            raise
        self._end = padded(begin + size)
        return self.number, self._driver_fd, begin, len(value.stream), sizes

    def sync(self) -> None:
        """Wait until all is on the disk."""
        os.fdatasync(self._fd)


class _SpillWriter:
    """Keeps this worker's values within the budget of all: what has no room in memory goes to disk.

    A worker waits for the disk before it goes on to further steps, so that what is not on it yet stays small.
    """

    def __init__(self, pid: int, memory: _ArenaWriter, disk: _ArenaWriter, room: int) -> None:
        self._memory, self._disk = memory, disk
        self._room = os.open(_path(pid, room), os.O_RDONLY | os.O_CLOEXEC)
        self._left = self._since = self._unsynced = 0

    def write(self, value: PickledValue) -> Block:
        """Write a block where there is room.

        Raises:
            MemoryBudgetError: There is none.
        """
        size = padded(value.size)
        if size <= self._left_now():
            self._since += size
            return self._memory.write(value)
        try:
            block = self._disk.write(value)
            self._unsynced += size
            if self._unsynced >= _MOST_UNSYNCED:
                self._disk.sync()
                self._unsynced = 0
        except OSError as error:
            raise MemoryBudgetError(size, error.strerror or str(error)) from error
        return block

    def _left_now(self) -> int:
        """Return what is left, as the driver last said, without what was written since."""
        left = int.from_bytes(os.pread(self._room, 8, 0), "little")
        if left != self._left:
            self._left, self._since = left, 0
        return left - self._since


class ArenaClient:
    """The arenas of this worker, and what it has of others."""

    def __init__(self) -> None:
        self._driver = 0
        self._own: dict[int, _ArenaWriter] = {}
        self._write: Callable[[PickledValue], Block] | None = None
        self._apart = OutOfBandBuffers(1)
        self._sources: dict[int, _MappedArena] = {}
        self._begun: deque[Key] = deque()
        self._ended: deque[Key] = deque()
        self._looked_at: dict[Key, int] = {}
        self._told: set[Key] = set()
        os.register_at_fork(after_in_parent=self._note_fork)

    def set_up(self, terms: ArenaConfig) -> None:
        """Take over the arenas that the driver has made for this worker; without them values go through the socket."""
        self._write = None
        self._driver, large, memory, disk, room = terms
        self._apart = OutOfBandBuffers(large)
        ArenaOpener.borrow = self.borrow
        if memory is None:
            return
        try:
            writer = self._writer(memory)
            self._write = (
                writer.write if disk is None else _SpillWriter(self._driver, writer, self._writer(disk), room).write
            )
        except OSError:
            if disk is not None:
                raise

    def _writer(self, place: Place) -> _ArenaWriter:
        if place[0] not in self._own:
            self._own[place[0]] = _ArenaWriter(self._driver, place)
        self._own[place[0]].go_on(place[2])
        return self._own[place[0]]

    # -- what steps return

    def dump(self, value: Any, what: str = "the result") -> Any:
        """Return a value as it goes to the driver: a pickle, or what stands for it in an arena.

        Raises:
            SerializationError: It does not pickle.
            MemoryBudgetError: It has no room.
        """
        write = self._write
        if write is None:
            return dump_result(value, what)
        apart = self._apart
        if apart.buffers:
            apart.take()  # what a value that did not pickle has left
        stream = dump_result(value, what, apart)
        if not apart.buffers and len(stream) < apart.least:
            return stream
        pickled = PickledValue(stream, apart.take())
        try:
            return write(pickled)
        except OSError:  # no room: the driver may have some
            return dump_result(value, what) if pickled.buffers else stream

    # -- what steps are given

    def load(self, block: Block) -> Any:
        """Return a new object of a value."""
        return self.borrow(block).load()

    def borrow(self, block: Block) -> ArenaValue:
        """Return what stands for a value of an arena."""
        number, fd, *_ = block
        source = self._sources.get(number)
        if source is None:
            if len(self._sources) >= _MOST_OPEN:
                self._sources.clear()
            source = self._sources[number] = _MappedArena(self, _path(self._driver, fd))
        return ArenaValue(source, block)

    def watch(self, stored: ArenaValue, mapped: PrivateMap) -> None:
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

    @property
    def in_use(self) -> bool:
        """Whether a step may have something to tell: it looks at a block, or does not any more."""
        return bool(self._begun or self._ended or self._told)

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


class _MappedArena:
    """An arena of another process, open for reading."""

    _intact: DescriptorCheck | None = None

    def __init__(self, shelf: ArenaClient, path: str) -> None:
        self._shelf = shelf
        self._path = path
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._intact = DescriptorCheck([self._fd])

    def map(self, stored: ArenaValue) -> PrivateMap:
        if not self._is_intact():  # a step has closed it, and the number may be another file's by now
            self._open()
        mapped = PrivateMap(self._fd, stored.block[2], stored.size)
        self._shelf.watch(stored, mapped)
        return mapped

    def free(self, stored: ArenaValue) -> None:
        """The driver sees to it."""

    def reduce(self, stored: ArenaValue) -> tuple[Any, ...]:
        """The driver does not hold it for us: it goes as a pickle."""
        return bytes, (dump_result(stored.load()),)

    def __del__(self) -> None:
        if self._is_intact():  # else it was never open, or is no more
            os.close(self._fd)

    def _is_intact(self) -> bool:
        return self._intact is not None and self._intact.unchanged()


def _path(pid: int, fd: int) -> str:
    return f"/proc/{pid}/fd/{fd}"
