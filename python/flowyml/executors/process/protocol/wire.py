"""Messages between driver and worker: their bodies, values in them, and reading and writing them on a socket.

A message (frame) is a header, a body and *segments*: large byte strings outside the body, so that they are not copied
into it and may be larger than 2 GB. Bodies are written by `marshal`, which is several times faster than pickle for
numbers, strings, bytes and lists, and can create nothing else; both ends run the same interpreter.

An encoded value in a body, by its type:

```
None, bool, int, float, str    themselves: immutable, they always load
bytes                          a pickle (the user's bytes are pickled too, so that this is unambiguous)
list                           a list of such values, for a step that reads many assets
...                            the value of the step before, in the same message
([...],)                       a list for a step that takes an iterator: loaded one by one
(n,)                           the pickle in segment n of the message
(n, True)                      shared value n of the run, sent to each worker once
(a, fd, at, n, (...))          a block of an arena; see `store/arenas.py`
```

The module never pickles or unpickles a value.
"""

from __future__ import annotations

import marshal
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.store.arenas import ArenaValue

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

    from flowyml.store.arenas import Block


Key = tuple[int, int]
Place = tuple[int, int, int]
"""Id and descriptor of an arena, and the offset of the next block."""


class ArenaConfig(NamedTuple):
    """What a worker needs to write large values."""

    pid: int  # of the driver
    large: int  # the size of a large value in bytes
    memory: Place | None  # its arena in memory; None if its values use the socket
    disk: Place | None  # its arena on disk, if there is a budget
    room: int  # the descriptor of the file with the remaining bytes of the budget


class RunInfo(NamedTuple):
    """What a worker knows about the run."""

    run_id: str
    pipeline: str
    seed: int | None
    loading_seconds: float  # how long arguments may take to load; 0.0 if no step has a time limit
    checkpoint_dir: str
    worker: int  # the number of this worker within the run


class InitializerCall(NamedTuple):
    """The function that a worker calls before its first step."""

    function: int  # its index among the functions of the run
    is_by_name: bool  # it is imported, so that what it sets outlives the payload
    run: int  # the number of the run within the executor
    memory_limit: int | None  # in bytes; the initializer must not exceed it


class SetupBody(NamedTuple):
    """The body of SETUP: what a worker needs before the first calls of a run; None for what it has already."""

    environment: Any  # a pickled `DriverEnvironment`
    payload: Any  # the functions of the run
    function_count: int
    run: tuple[Any, ...]  # a `RunInfo`
    hashed_functions: list[int]  # those whose results are hashed, for the keys of cached steps
    arenas: tuple[Any, ...]  # an `ArenaConfig`
    device_variable: tuple[str, str] | None  # the environment variable that restricts the worker to its devices
    initializer: tuple[Any, ...] | None  # an `InitializerCall`


class CallsBody(NamedTuple):
    """The body of CALLS: consecutive slots, in groups of steps that are called alike."""

    slot: int  # of the first call
    eager: int  # whether output is marked before each step; `MEASURED` if its resource usage is measured, too
    groups: list[Any]  # an `EncodedGroup` each
    devices: tuple[str, ...]  # those of the steps, by name


class EncodedGroup(NamedTuple):
    """Steps that are called alike, with their arguments."""

    function: int  # its index
    keywords: tuple[str, ...]  # the names of the last arguments
    outputs: list[tuple[str, ...]] | None  # the declared outputs of each step, if there are several
    names: str | list[str]  # of the mapped step, or of the steps, joined by `SEPARATOR` if possible
    first_index: int | None  # of the items of a mapped step
    attempts: list[int] | None  # of each step; None if all are first attempts
    layout: int  # how `calls` is written: LISTS, SINGLE or RANGE
    calls: Any  # the arguments of each step


class ResultBody(NamedTuple):
    """The body of RESULT."""

    slot: int
    start: float  # monotonic seconds
    end: float
    outcome: int  # one of the outcomes below
    value: Any


ATOMS = frozenset((type(None), bool, int, float, str))

# Messages to a worker ...
SETUP, SHARED, CALLS, FUNCTIONS = range(4)
# ... and from a worker.
READY, RESULT, LOG, WAKE = range(4, 8)
USAGE, INITIALIZER_FAILED, INITIALIZED = 20, 21, 22
MEASURED = 2
"""Value of `CallsBody.eager` if each step is measured; see `usage_meter.py`."""

# Outcomes of a call: a value; the values of several declared outputs; an exception; a result that cannot be pickled; an
# argument that cannot be loaded; one that could not be pickled in the driver; a condition that did not hold; ...
RETURNED, MULTI_OUTPUT, RAISED, UNPICKLABLE, UNLOADABLE, REFUSED, SKIPPED = range(7)
# ... a value with content hashes, for the keys of cached steps; a pipeline; a value in an arena; any of these with the
# blocks that the worker still uses and those it has released; nothing, since the step before has no value; an iterator.
HASHED, SUBGRAPH, STORED, RETAINED_BLOCKS, CHAIN_BROKEN, SINGLE_USE = range(7, 13)

MAX_LOADING_SECONDS = 60.0
"""How long the arguments of a step may take to load if steps have time limits. Until then the claim has the time at
which that is over; afterwards, the time at which the step itself began."""

# The arguments of a group: a list for each call; one atom for each; a range of integers.
LISTS, SINGLE, RANGE = range(3)
SEPARATOR = "\0"
"""Separates the names of steps in one string."""

_HEADER = struct.Struct("<BQI")
_LENGTH = struct.Struct("<Q")
# Version 2 of marshal has no table of references: no look-up for each value, equal bytes for equal values.
MARSHAL_VERSION = 2
MIN_SEGMENT_BYTES = 1 << 16
MAX_RING_BYTES = 1 << 12
BLOCK_LENGTH = 5
# `sendmsg` takes at most IOV_MAX buffers.
MAX_BUFFERS = 512
RECEIVE_BYTES = 1 << 18


def frame(kind: int, body: Any, segments: list[bytes] | None = None) -> list[bytes]:
    """Return the buffers of a message, to be sent in this order.

    Marshal refuses subclasses of tuple, so a body that is a named tuple is passed as `tuple(body)`.
    """
    data = marshal.dumps(body, MARSHAL_VERSION)
    if not segments:
        return [_HEADER.pack(kind, len(data), 0) + data]
    lengths = b"".join(_LENGTH.pack(len(segment)) for segment in segments)
    return [_HEADER.pack(kind, len(data), len(segments)) + lengths + data, *segments]


def is_stream(value: Any) -> bool:
    """Return True for a list that is loaded one by one."""
    return type(value) is tuple and type(value[0]) is list


def is_block(value: Any) -> bool:
    """Return True for a value in an arena."""
    return type(value) is tuple and len(value) == BLOCK_LENGTH


def is_segment(value: Any) -> bool:
    """Return True for a value outside the body."""
    return type(value) is tuple and len(value) == 1 and type(value[0]) is int


def extract_segments(value: Any, segments: list[bytes]) -> Any:
    """Return an encoded value as it is written in a body; large pickles are appended to the segments."""
    if type(value) is bytes:
        if len(value) < MIN_SEGMENT_BYTES:
            return value
        segments.append(value)
        return (len(segments) - 1,)
    if type(value) is list:
        return [extract_segments(each, segments) for each in value]
    return value.block if type(value) is ArenaValue else value


def insert_segments(value: Any, segments: list[bytes]) -> Any:
    """The inverse of `extract_segments`."""
    if is_segment(value):
        return segments[value[0]]
    if type(value) is list:
        return [insert_segments(each, segments) for each in value]
    return value


def pack_outputs(kind: str | list[str], parts: list[Any]) -> bytes | None:
    """Return the values of several outputs for the results ring; `None` if they are not small."""
    left = MAX_RING_BYTES
    for part in parts:
        its = type(part)
        if its is str or its is bytes:
            left -= len(part)
        elif its not in ATOMS:  # in an arena
            return None
    return marshal.dumps((kind, tuple(parts)), MARSHAL_VERSION) if left >= 0 else None


unpack_outputs: Callable[[bytes], Any] = marshal.loads
"""The inverse of `pack_outputs`; `ResultReader.drain` checks the result."""


class FrameDecoder:
    """Splits received bytes into messages.

    >>> reader = FrameDecoder()
    >>> reader.feed(b"".join(frame(CALLS, [1, "a"])))
    >>> list(reader)
    [(2, [1, 'a'], [])]
    """

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        """Add received bytes."""
        self._data += data

    @property
    def pending(self) -> int | None:
        """The kind of the message that has arrived in part; `None` if there is none."""
        return self._data[0] if self._data else None

    def __iter__(self) -> Iterator[tuple[int, Any, list[bytes]]]:
        """Yield `(kind, body, segments)` of each complete message."""
        offset, data, size = 0, self._data, len(self._data)
        view = memoryview(data)
        try:
            while size - offset >= _HEADER.size:
                kind, length, count = _HEADER.unpack_from(view, offset)
                begin = offset + _HEADER.size
                if not count:
                    end = begin + length
                    if end > size:
                        break
                    offset = end
                    yield kind, marshal.loads(view[begin:end]), []  # noqa: S302  our own processes
                    continue
                lengths = self._lengths(view, begin, count)
                end = begin + _LENGTH.size * count + length + sum(lengths)
                if not lengths or end > size:
                    break
                offset = end
                yield kind, *self._parts(view, begin + _LENGTH.size * count, length, lengths)
        finally:
            view.release()
            del data[:offset]

    @staticmethod
    def _lengths(view: memoryview, begin: int, count: int) -> list[int]:
        if len(view) - begin < _LENGTH.size * count:
            return []
        return [_LENGTH.unpack_from(view, begin + _LENGTH.size * k)[0] for k in range(count)]

    @staticmethod
    def _parts(view: memoryview, begin: int, length: int, lengths: list[int]) -> tuple[Any, list[bytes]]:
        offset = begin + length
        segments = []
        for size in lengths:
            segments.append(bytes(view[offset : offset + size]))
            offset += size
        return marshal.loads(view[begin : begin + length]), segments  # noqa: S302  our own processes


class SendBuffer:
    """Messages that a non-blocking socket has not accepted yet."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffers: deque[memoryview] = deque()

    def __bool__(self) -> bool:
        """Return True if there are any."""
        return bool(self._buffers)

    def __len__(self) -> int:
        """Return the number of buffers."""
        return len(self._buffers)

    def send(self, buffers: list[bytes]) -> None:
        """Send as much as the socket accepts, and keep the rest."""
        sent = self._send_at_once(buffers) if not self._buffers else 0
        if sent is not None:
            self._buffers.extend(memoryview(each) for each in buffers if each)
            self._drop(sent)
            self.flush()

    def _send_at_once(self, buffers: list[bytes]) -> int | None:
        """Send without copying; return `None` if that was all, as it nearly always is, else the number of bytes."""
        if len(buffers) > MAX_BUFFERS:
            return 0
        try:
            sent = self._socket.sendmsg(buffers)
        except OSError:  # `flush` handles it
            return 0
        return None if sent == sum(map(len, buffers)) else sent

    def flush(self) -> None:
        """Send the rest; an error of a closed socket is left to its reader."""
        while self._buffers:
            first = [self._buffers[k] for k in range(min(MAX_BUFFERS, len(self._buffers)))]
            try:
                sent = self._socket.sendmsg(first)
            except BlockingIOError:
                return
            except OSError:
                self._buffers.clear()
                return
            self._drop(sent)

    def _drop(self, sent: int) -> None:
        while sent:
            first = self._buffers[0]
            if len(first) > sent:
                self._buffers[0] = first[sent:]
                return
            sent -= len(first)
            self._buffers.popleft()


class FrameReader:
    """Reads messages from a socket.

    Attributes:
        ended: Whether the other side has closed.
        last_read: When something was read last (monotonic seconds).
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(RECEIVE_BYTES)
        self._view = memoryview(self._buffer)
        self._reader = FrameDecoder()
        self.ended = False
        self.last_read = 0.0

    @property
    def pending(self) -> int | None:
        """The kind of the message that has arrived in part."""
        return self._reader.pending

    def read(self) -> int:
        """Read once; return the number of bytes."""
        try:
            size = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return 0
        except OSError:
            size = 0
        self.ended = not size
        self.last_read = time.monotonic()
        self._reader.feed(self._view[:size])
        return size

    def frames(self) -> Iterator[tuple[int, Any, list[bytes]]]:
        """Yield the complete messages."""
        return iter(self._reader)


def encode(value: Any, dump: Callable[[Any], bytes]) -> Any:
    """Return a value as it is written in a body: itself, or its pickle."""
    return value if type(value) in ATOMS else dump(value)


def decode(
    value: Any, load: Callable[[bytes], Any], shared: Mapping[int, bytes], load_block: Callable[[Block], Any]
) -> Any:
    """Return the object of an encoded value; each call creates a new one, so that steps share nothing."""
    kind = type(value)
    if kind is bytes:
        return load(value)
    if kind is list:
        return [decode(each, load, shared, load_block) for each in value]
    if kind is tuple:
        return load_block(value) if len(value) == BLOCK_LENGTH else load(shared[value[0]])
    return value
