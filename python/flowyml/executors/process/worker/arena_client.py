"""The worker's side of the arenas: writes its large values, maps those of others, and tracks which it still uses.

A result is copied into the arena at once, so a step that keeps its array and writes to it later changes its own. An
argument is mapped again for each step, copy on write. See `driver/arena_owner.py` for the other side.
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

MAX_UNSYNCED_BYTES = 256 << 20
MAX_OPEN_ARENAS = 64


class _ArenaWriter:
    """An arena of this worker."""

    def __init__(self, pid: int, place: Place) -> None:
        self.number, self._driver_fd, self._end = place
        self._fd = os.open(_path(pid, self._driver_fd), os.O_RDWR | os.O_CLOEXEC)
        self._intact = DescriptorCheck([self._fd])

    def skip_to(self, end: int) -> None:
        """Do not overwrite blocks that the driver knows."""
        self._end = max(self._end, end)

    def write(self, value: PickledValue) -> Block:
        """Append a block. Raises OSError."""
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
        os.fdatasync(self._fd)


class _SpillWriter:
    """Keeps this worker's values within the common budget: what does not fit into memory is written to disk.

    A worker waits for the disk before it continues, so that little data is unsynced.
    """

    def __init__(self, pid: int, memory: _ArenaWriter, disk: _ArenaWriter, room: int) -> None:
        self._memory, self._disk = memory, disk
        self._room = os.open(_path(pid, room), os.O_RDONLY | os.O_CLOEXEC)
        self._left = self._since = self._unsynced = 0

    def write(self, value: PickledValue) -> Block:
        """Write a block to memory or disk. Raises MemoryBudgetError."""
        size = padded(value.size)
        if size <= self._left_now():
            self._since += size
            return self._memory.write(value)
        try:
            block = self._disk.write(value)
            self._unsynced += size
            if self._unsynced >= MAX_UNSYNCED_BYTES:
                self._disk.sync()
                self._unsynced = 0
        except OSError as error:
            raise MemoryBudgetError(size, error.strerror or str(error)) from error
        return block

    def _left_now(self) -> int:
        left = int.from_bytes(os.pread(self._room, 8, 0), "little")
        if left != self._left:
            self._left, self._since = left, 0
        return left - self._since


class ArenaClient:
    """The arenas of this worker, and mappings of others."""

    def __init__(self) -> None:
        self._driver = 0
        self._own: dict[int, _ArenaWriter] = {}
        self._write: Callable[[PickledValue], Block] | None = None
        self._out_of_band = OutOfBandBuffers(1)
        self._sources: dict[int, _MappedArena] = {}
        self._begun: deque[Key] = deque()
        self._ended: deque[Key] = deque()
        self._in_use_counts: dict[Key, int] = {}
        self._reported: set[Key] = set()
        os.register_at_fork(after_in_parent=self._note_fork)

    def set_up(self, terms: ArenaConfig) -> None:
        """Open the arenas that the driver has created for this worker; without them values use the socket."""
        self._write = None
        self._driver, large, memory, disk, room = terms
        self._out_of_band = OutOfBandBuffers(large)
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
        self._own[place[0]].skip_to(place[2])
        return self._own[place[0]]

    # -- results

    def dump(self, value: Any, what: str = "the result") -> Any:
        """Pickle a value for the driver; return the pickle, or the block of the arena that holds it.

        Raises:
            SerializationError: It cannot be pickled.
            MemoryBudgetError: There is no room for it.
        """
        write = self._write
        if write is None:
            return dump_result(value, what)
        apart = self._out_of_band
        if apart.buffers:
            apart.take()  # left by a value that could not be pickled
        stream = dump_result(value, what, apart)
        if not apart.buffers and len(stream) < apart.least:
            return stream
        pickled = PickledValue(stream, apart.take())
        try:
            return write(pickled)
        except OSError:  # no room: the driver may have more memory
            return dump_result(value, what) if pickled.buffers else stream

    # -- arguments

    def load(self, block: Block) -> Any:
        """Return a new object for a value in an arena."""
        return self.borrow(block).load()

    def borrow(self, block: Block) -> ArenaValue:
        """Return the handle of a value in an arena."""
        number, fd, *_ = block
        source = self._sources.get(number)
        if source is None:
            if len(self._sources) >= MAX_OPEN_ARENAS:
                self._sources.clear()
            source = self._sources[number] = _MappedArena(self, _path(self._driver, fd))
        return ArenaValue(source, block)

    def track(self, stored: ArenaValue, mapped: PrivateMap) -> None:
        """Count a mapping as in use until it is freed; any thread of a step may call this."""
        key = stored.block[0], stored.block[2]
        self._begun.append(key)
        weakref.finalize(mapped, self._ended.append, key).atexit = False

    def _note_fork(self) -> None:
        """Count everything that is mapped as in use permanently: a child has it, too, and its end is not noticed."""
        self._update_counts()
        for key in self._in_use_counts:
            self._in_use_counts[key] += 1

    def _update_counts(self) -> None:
        looked_at = self._in_use_counts
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
        """True if a step may have something to report: it uses a block, or has released one."""
        return bool(self._begun or self._ended or self._reported)

    def retention_changes(self) -> tuple[list[Key], list[Key]] | None:
        """Return the blocks that are still in use after a step, and those released; `None` if the driver knows."""
        if not self._begun and not self._ended:
            return None
        self._update_counts()
        kept = [key for key in self._in_use_counts if key not in self._reported]
        returned = [key for key in self._reported if key not in self._in_use_counts]
        self._reported.update(kept)
        self._reported.difference_update(returned)
        return (kept, returned) if kept or returned else None


class _MappedArena:
    """An arena of another process, open for reading."""

    _intact: DescriptorCheck | None = None

    def __init__(self, arenas: ArenaClient, path: str) -> None:
        self._arenas = arenas
        self._path = path
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._intact = DescriptorCheck([self._fd])

    def map(self, stored: ArenaValue) -> PrivateMap:
        if not self._is_intact():  # a step has closed it, and the descriptor may be another file
            self._open()
        mapped = PrivateMap(self._fd, stored.block[2], stored.size)
        self._arenas.track(stored, mapped)
        return mapped

    def free(self, stored: ArenaValue) -> None:
        """Do nothing: the driver frees it."""

    def reduce(self, stored: ArenaValue) -> tuple[Any, ...]:
        return bytes, (dump_result(stored.load()),)

    def __del__(self) -> None:
        if self._is_intact():  # else it was never open, or is closed
            os.close(self._fd)

    def _is_intact(self) -> bool:
        return self._intact is not None and self._intact.unchanged()


def _path(pid: int, fd: int) -> str:
    return f"/proc/{pid}/fd/{fd}"
