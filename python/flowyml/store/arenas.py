"""Arenas: anonymous files for large encoded values, outside the heap of any process.

An arena is a file in memory (a memfd), or on disk for spilled values. One process at a time writes it, from start to
end without using an offset twice; any process may map a value of it. It occupies the memory of the blocks that are
written and not freed, so one descriptor is enough for any number of values, and no offset has to be used again:

```
 0                                                            end
 ├─ block ──┬─ freed: a hole ─┬─ block ─┬─ ... ───────────────┤┄┄┄┄ nothing yet
 │ stream │ buffer │ buffer │
```

A *block* is one value: the stream of its pickle, then the buffers that pickle protocol 5 keeps apart from it (arrays,
columns, `bytes`), each aligned. It is written once, by `write(2)`, which fails with `ENOSPC` or `ENOMEM` when a map
would raise SIGBUS, and saves the kernel the zeroing of pages. It is read through a private map: all readers share its
pages until one of them writes, and the others do not see the change.

An `ArenaValue` refers to a block; when the last one is deleted the block becomes a hole. The module does not know which
processes write and read, or how a value is pickled.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml._containers import NamedTuple

if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from flowyml._core import PrivateMap

    class BlockHolder(Protocol):
        """Holds the blocks of `ArenaValue` objects: an arena of this process or of another one."""

        def map(self, stored: ArenaValue) -> PrivateMap:
            """Return the memory of a block."""

        def free(self, stored: ArenaValue) -> None:
            """Free a block whose last `ArenaValue` was deleted."""

        def reduce(self, stored: ArenaValue) -> tuple[Any, ...]:
            """Reduce the `ArenaValue` of a block for another process."""


_ALIGNED = 64
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
# A write blocks other processes that make a hole in the same file, so values are written in portions.
_PORTION = 1 << 20
_EVERYTHING = (1 << 63) - 1

Block: TypeAlias = "tuple[int, int, int, int, tuple[int, ...]]"
"""Number and descriptor of an arena, offset, length of the stream, lengths of the buffers (negative: read only)."""


class PickledValue(NamedTuple):
    """A value as its pickle and its out-of-band buffers.

    >>> PickledValue(b"1234", [memoryview(bytes(100))]).size
    164
    """

    stream: bytes
    buffers: Sequence[memoryview]

    @property
    def size(self) -> int:
        """The bytes of its block."""
        return block_size(len(self.stream), [len(buffer) for buffer in self.buffers])


class ArenaValue:
    """A value in an arena.

    Args:
        arena: The arena.
        block: Its block, by which processes refer to it.
    """

    __slots__ = ("__weakref__", "arena", "block")

    def __init__(self, arena: BlockHolder, block: Block) -> None:
        self.arena = arena
        self.block = block

    @property
    def size(self) -> int:
        """The bytes of the block."""
        return block_size(self.block[3], self.block[4])

    def load(self) -> Any:
        """Return a new object of the value; changes to it are not visible to other readers."""
        import pickle

        _, _, _, stream, sizes = self.block
        with memoryview(self.arena.map(self)) as view:  # type: ignore[arg-type]  # a buffer, for types since 3.12
            return pickle.loads(view[:stream], buffers=_buffers(view, stream, sizes))

    def inline(self) -> bytes:
        """Return a pickle of the value for a file, without loading it; any process with flowyml can load the pickle."""
        import pickle

        _, _, _, stream, sizes = self.block
        with memoryview(self.arena.map(self)) as view:  # type: ignore[arg-type]
            buffers = [pickle.PickleBuffer(part) for part in _buffers(view, stream, sizes)]
            return pickle.dumps(_InlineValue(bytes(view[:stream]), buffers), 5)

    def __del__(self) -> None:
        """Free the block."""
        self.arena.free(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle in the form that the receiver can load."""
        return self.arena.reduce(self)

    def __repr__(self) -> str:
        return f"<a stored value of {self.size} bytes>"


class _InlineValue:
    """Pickles as a value whose buffers are in the pickle."""

    def __init__(self, stream: bytes, buffers: list[pickle.PickleBuffer]) -> None:
        self._parts = stream, buffers

    def __reduce__(self) -> tuple[Any, ...]:
        return put_together, self._parts


def put_together(stream: bytes, buffers: list[Any]) -> Any:
    """Load a value from its parts."""
    import pickle

    return pickle.loads(stream, buffers=buffers)


class ArenaOpener:
    """The function that opens arenas of other processes in this one, if there is any."""

    borrow: Callable[[Block], ArenaValue] | None = None


def borrowed(block: Block) -> ArenaValue:
    """Return the `ArenaValue` of a block of another process."""
    if ArenaOpener.borrow is None:
        raise OSError("stored values are for the workers of their run")
    return ArenaOpener.borrow(block)


ENCODED = frozenset({bytes, ArenaValue})
"""The types of values that have to be loaded if a run keeps its values encoded."""


class Arena:
    """An arena in the driver.

    Args:
        fd: The file; closed with the last value in it.
        freed: Called with the size of each block that is freed, in any thread.

    Attributes:
        number: Its id among all arenas of this process.
        end: The end of the last known block.
    """

    __slots__ = ("_freed", "_owner", "_punch_hole", "end", "fd", "number")

    _numbers = itertools.count()

    def __init__(self, fd: int, freed: Callable[[int], None] | None = None) -> None:
        from flowyml._extension import punch_hole

        self._punch_hole = punch_hole  # the last blocks are freed when imports are no longer possible
        self.fd = fd
        self._freed = freed
        self.number = next(Arena._numbers)
        self.end = 0
        self._owner = os.getpid()

    @classmethod
    def of_memory(cls, freed: Callable[[int], None] | None = None) -> Arena:
        """Return an arena in anonymous memory that cannot be truncated: see `PrivateMap`.

        Raises:
            OSError: There is none to be had.
        """
        import fcntl

        fd = os.memfd_create("flowyml-values", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        arena = cls(fd, freed)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return arena

    @classmethod
    def of_disk(cls, folder: str) -> Arena:
        """Return an arena in a file without a name.

        Raises:
            OSError: There is none to be had.
        """
        try:
            return cls(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except (OSError, AttributeError):  # not every file system has files without a name
            import tempfile

            fd, name = tempfile.mkstemp(dir=folder)
            os.unlink(name)  # noqa: PTH108
            return cls(fd)

    def adopt(self, block: Block) -> ArenaValue:
        """Return the `ArenaValue` of a block that another process has written; called once per block."""
        _, _, offset, stream, sizes = block
        self.end = max(self.end, padded(offset + block_size(stream, sizes)))
        return ArenaValue(self, block)

    def put(self, value: PickledValue) -> ArenaValue:
        """Write a block.

        Raises:
            OSError: There is no room for it.
        """
        try:
            sizes = write_block(self.fd, self.end, value)
        except OSError:
            self.cut()
            raise
        return self.adopt((self.number, self.fd, self.end, len(value.stream), sizes))

    @property
    def counts(self) -> bool:
        """Whether its bytes count as memory of a budget."""
        return self._freed is not None

    def cut(self) -> None:
        """Free everything after the last known block: its writer has died."""
        self._punch(self.end, _EVERYTHING - self.end)

    def map(self, stored: ArenaValue) -> PrivateMap:
        """Return the memory of a block; the map keeps the block alive."""
        from flowyml._extension import PrivateMap

        return PrivateMap(self.fd, stored.block[2], stored.size, stored)

    def free(self, stored: ArenaValue) -> None:
        """Free a block."""
        if os.getpid() != self._owner:  # in a forked child the arena is the parent's
            return
        size = padded(stored.size)
        self._punch(stored.block[2], size)
        if self._freed is not None:
            self._freed(size)

    def reduce(self, stored: ArenaValue) -> tuple[Any, ...]:
        """Reduce to the block, which a worker can open; the run keeps it alive meanwhile."""
        return borrowed, (stored.block,)

    def _punch(self, offset: int, length: int) -> None:
        """Make a hole; some file systems do not support holes."""
        with contextlib.suppress(OSError):
            self._punch_hole(self.fd, offset, length)

    def __del__(self) -> None:
        """Close the file; its memory is freed with its last map."""
        os.close(self.fd)


def write_block(fd: int, offset: int, value: PickledValue) -> tuple[int, ...]:
    """Write a block; return the lengths of its buffers as they are in `Block`.

    Raises:
        OSError: There is no room; the caller has to free the part that was written.
    """
    _write(fd, offset, memoryview(value.stream))
    at, sizes = len(value.stream), []
    for buffer in value.buffers:
        at = aligned(at)
        _write(fd, offset + at, buffer)
        at += len(buffer)
        sizes.append(-len(buffer) if buffer.readonly else len(buffer))
    return tuple(sizes)


def _write(fd: int, offset: int, view: memoryview) -> None:
    while view:
        written = os.pwrite(fd, view[:_PORTION], offset)
        offset, view = offset + written, view[written:]


def _buffers(view: memoryview, stream: int, sizes: Sequence[int]) -> list[memoryview]:
    found, at = [], stream
    for size in sizes:
        at = aligned(at)
        part = view[at : at + abs(size)]
        found.append(part if size > 0 else part.toreadonly())
        at += abs(size)
    return found


def block_size(stream: int, sizes: Sequence[int]) -> int:
    """Return the bytes of a block."""
    at = stream
    for size in sizes:
        at = aligned(at) + abs(size)
    return at


def aligned(offset: int) -> int:
    """Return the next offset at which a buffer may begin."""
    return -(-offset // _ALIGNED) * _ALIGNED


def padded(length: int) -> int:
    """Return the bytes of whole pages.

    >>> padded(1) == padded(_PAGE)
    True
    """
    return -(-length // _PAGE) * _PAGE
