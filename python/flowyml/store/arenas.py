"""Arenas: where large encoded values lie, in no heap of any process.

An arena is an anonymous file: of memory (a memfd), or of disk where values are spilled. One process at a time writes
it, from its beginning on and no place twice; any process may map a value of it. It takes the memory of what is written
and not freed, so that one descriptor does for any number of values, and no place has to be used again:

```
 0                                                            end
 ├─ block ──┬─ freed: a hole ─┬─ block ─┬─ ... ───────────────┤┄┄┄┄ nothing yet
 │ stream │ buffer │ buffer │
```

A *block* is one value: the stream of its pickle, then the buffers that pickle protocol 5 keeps apart from it (arrays,
columns, `bytes`), each aligned. It is written once, by `write(2)`, which says `ENOSPC` or `ENOMEM` where a map would be
a SIGBUS, and spares the kernel the zeroing of pages. It is read through a private map: pages are shared by all who read
them until one of them writes, and then nobody else sees it.

`ArenaValue` stands for a block; when the last one is gone the block becomes a hole. The module does not know who
writes, who reads, or how a value is pickled.
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
        """What holds blocks, as a `ArenaValue` sees it: an arena of this process, or one of another."""

        def map(self, stored: ArenaValue) -> PrivateMap:
            """Return the memory of a block."""

        def free(self, stored: ArenaValue) -> None:
            """Nobody holds a block any more."""

        def reduce(self, stored: ArenaValue) -> tuple[Any, ...]:
            """Reduce what stands for a block, for another process."""


_ALIGNED = 64
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
# While somebody writes, nobody else can make a hole in the same file: so it is done in portions.
_PORTION = 1 << 20
_EVERYTHING = (1 << 63) - 1

Block: TypeAlias = "tuple[int, int, int, int, tuple[int, ...]]"
"""Number and descriptor of an arena, offset, length of the stream, lengths of the buffers (negative: read only)."""


class PickledValue(NamedTuple):
    """A value as its pickle, and the buffers that lie beside it.

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
    """A value that lies in an arena.

    Args:
        arena: Where it lies.
        block: What stands for it between processes.
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
        """Return a new object of the value; what it holds of the block is its own to change."""
        import pickle

        _, _, _, stream, sizes = self.block
        with memoryview(self.arena.map(self)) as view:  # type: ignore[arg-type]  # a buffer, for types since 3.12
            return pickle.loads(view[:stream], buffers=_buffers(view, stream, sizes))

    def inline(self) -> bytes:
        """Return a pickle of the value for a file, without loading it; everybody who has flowyml can load that."""
        import pickle

        _, _, _, stream, sizes = self.block
        with memoryview(self.arena.map(self)) as view:  # type: ignore[arg-type]
            buffers = [pickle.PickleBuffer(part) for part in _buffers(view, stream, sizes)]
            return pickle.dumps(_InlineValue(bytes(view[:stream]), buffers), 5)

    def __del__(self) -> None:
        """Give the block back."""
        self.arena.free(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as what the receiver can load."""
        return self.arena.reduce(self)

    def __repr__(self) -> str:
        """Show the size."""
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
    """Who opens arenas of other processes in this one, if anybody does."""

    borrow: Callable[[Block], ArenaValue] | None = None


def borrowed(block: Block) -> ArenaValue:
    """Return what stands for a block of another process."""
    if ArenaOpener.borrow is None:
        raise OSError("stored values are for the workers of their run")
    return ArenaOpener.borrow(block)


ENCODED = frozenset({bytes, ArenaValue})
"""The types of values that have to be loaded, where a run keeps its values encoded."""


class Arena:
    """An arena as the driver has it.

    Args:
        fd: The file; closed with the last value in it.
        freed: Told the bytes of each block that is given back, in whatever thread that happens.

    Attributes:
        number: Its own among all arenas of this process.
        end: Where the last block ends that is known.
    """

    __slots__ = ("_freed", "_owner", "_punch_hole", "end", "fd", "number")

    _numbers = itertools.count()

    def __init__(self, fd: int, freed: Callable[[int], None] | None = None) -> None:
        from flowyml._extension import punch_hole

        self._punch_hole = punch_hole  # the last blocks are given back when nothing can be imported any more
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
        """Return an arena of a file that has no name any more, or never had one.

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
        """Return what stands for a block that another process has written; once for each."""
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
        """Give back what lies behind the last block that is known: whoever wrote it is dead."""
        self._punch(self.end, _EVERYTHING - self.end)

    def map(self, stored: ArenaValue) -> PrivateMap:
        """Return the memory of a block; whoever looks at it holds the block."""
        from flowyml._extension import PrivateMap

        return PrivateMap(self.fd, stored.block[2], stored.size, stored)

    def free(self, stored: ArenaValue) -> None:
        """Give a block back."""
        if os.getpid() != self._owner:  # in a forked child the arena is the parent's
            return
        size = padded(stored.size)
        self._punch(stored.block[2], size)
        if self._freed is not None:
            self._freed(size)

    def reduce(self, stored: ArenaValue) -> tuple[Any, ...]:
        """Let a worker find the block; the run holds it meanwhile."""
        return borrowed, (stored.block,)

    def _punch(self, offset: int, length: int) -> None:
        """Make a hole; some file systems have none."""
        with contextlib.suppress(OSError):
            self._punch_hole(self.fd, offset, length)

    def __del__(self) -> None:
        """Close the file: the memory goes with the last map of it."""
        os.close(self.fd)


def write_block(fd: int, offset: int, value: PickledValue) -> tuple[int, ...]:
    """Write a block; return the lengths of its buffers as they stand for it.

    Raises:
        OSError: There is no room; what was written of it is the caller's to give back.
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
    """Return where a buffer may begin."""
    return -(-offset // _ALIGNED) * _ALIGNED


def padded(length: int) -> int:
    """Return the bytes of whole pages.

    >>> padded(1) == padded(_PAGE)
    True
    """
    return -(-length // _PAGE) * _PAGE
