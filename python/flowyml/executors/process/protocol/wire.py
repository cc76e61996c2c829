"""The wire between driver and worker: frames, and values in them.

A frame is a header, a body and *segments*: large byte strings that travel beside the body, so that they are not copied
into it and may be larger than 2 GB. Bodies are written by `marshal`, which is several times faster than pickle for what
stands in them (numbers, text, bytes, lists) and can build nothing else; both ends are the same interpreter.

How a value stands in a body, told by its type:

```
None, bool, int, float, str    themselves: immutable, they always load
bytes                          a pickle (the bytes of a user are pickled too, so that this is unambiguous)
list                           a list of such values, for a step that reads many assets
...                            what the step before returned, which is in the same message
([...],)                       the same for a step that takes an iterator: loaded one by one
(n,)                           the pickle in segment n of the frame
(n, True)                      shared value n of the run, sent to each worker once
(a, fd, at, n, (...))          a block of an arena; see `store/arenas.py`
```

The module does not know how a value is pickled and never unpickles one.

What a worker is told of arenas, and how it names blocks of them; `store/arenas.py` has the arenas themselves.
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
"""Number and descriptor of an arena, and where to go on in it."""


class ArenaConfig(NamedTuple):
    """What a worker has to know to write large values.

    Attributes:
        pid: The driver.
        large: The bytes of a large value.
        memory: Its arena of memory; `None` if there is none, and what it writes goes through its socket.
        disk: Its arena of disk, where there is a budget.
        room: The descriptor of the file that says how much memory is left of the budget.
    """

    pid: int
    large: int
    memory: Place | None
    disk: Place | None
    room: int


class RunInfo(NamedTuple):
    """What a worker knows about the run.

    Attributes:
        run_id: The id of the run.
        pipeline: The name of the pipeline.
        seed: The seed of the run, if it has one.
        loading_seconds: How long the arguments of a step may take to load; 0.0 if no step has a time limit.
        checkpoint_dir: Where steps store their checkpoints.
        worker: The number of this worker within the run.
    """

    run_id: str
    pipeline: str
    seed: int | None
    loading_seconds: float
    checkpoint_dir: str
    worker: int


class InitializerCall(NamedTuple):
    """The function that a worker calls before its first step.

    Attributes:
        function: Its index among the functions of the run.
        is_by_name: Whether the function is imported, so that what it sets outlives the payload.
        run: The number of the run within the executor.
        memory_limit: The bytes that a worker may use, which the initializer must not exceed.
    """

    function: int
    is_by_name: bool
    run: int
    memory_limit: int | None


class SetupBody(NamedTuple):
    """The body of SETUP: what a worker needs before the first calls of a run.

    Attributes:
        environment: The pickled `DriverEnvironment`; `None` if the worker has it.
        payload: The functions of the run; `None` if the worker has them.
        function_count: How many functions there are.
        run: A `RunInfo`.
        hashed_functions: The functions whose results are hashed, for the keys of cached steps.
        arenas: An `ArenaConfig`.
        device_variable: The environment variable that restricts the worker to its devices, and its value.
        initializer: An `InitializerCall`, if there is an initializer.
    """

    environment: Any
    payload: Any
    function_count: int
    run: tuple[Any, ...]
    hashed_functions: list[int]
    arenas: tuple[Any, ...]
    device_variable: tuple[str, str] | None
    initializer: tuple[Any, ...] | None


class CallsBody(NamedTuple):
    """The body of CALLS: consecutive slots, in groups of steps that are called alike.

    Attributes:
        slot: The slot of the first call.
        eager: Whether output is marked before each step; `MEASURED` if its resource usage is measured, too.
        groups: An `EncodedGroup` each.
        devices: The devices that the steps use, by name.
    """

    slot: int
    eager: int
    groups: list[Any]
    devices: tuple[str, ...]


class EncodedGroup(NamedTuple):
    """Steps that are called alike, with their arguments.

    Attributes:
        function: The index of the function.
        keywords: The names of the last arguments.
        outputs: The declared outputs of each step, if there are several.
        names: The name of the mapped step; otherwise the names of the steps, joined by `SEPARATOR` if possible.
        first_index: The index of the first item of a mapped step.
        attempts: The attempt of each step; `None` if all are first attempts.
        item_index: How `calls` is written: `LISTS`, `SINGLE` or `RANGE`.
        calls: The arguments of each step.
    """

    function: int
    keywords: tuple[str, ...]
    outputs: list[tuple[str, ...]] | None
    names: str | list[str]
    first_index: int | None
    attempts: list[int] | None
    item_index: int
    calls: Any


class ResultBody(NamedTuple):
    """The body of RESULT.

    Attributes:
        slot: The slot of the step.
        start: When it began (monotonic seconds).
        end: When it ended.
        outcome: One of the outcomes below.
        value: What that outcome carries.
    """

    slot: int
    start: float
    end: float
    outcome: int
    value: Any


ATOMS = frozenset((type(None), bool, int, float, str))

# Kinds of frames: to a worker ...
SETUP, SHARED, CALLS, FUNCTIONS = range(4)
# ... and from a worker.
READY, RESULT, LOG, WAKE = range(4, 8)
USAGE, NO_START, INITIALIZED = 20, 21, 22
MEASURED = 2
"""How eager a message is of which each step is to be measured; see `meter.py`."""

# Outcomes of a call: a value, the values of several declared outputs, an exception, a result that does not pickle, an
# argument that does not load, an argument that did not even pickle in the driver, a condition that did not hold, a
# value with the contents beside it, for the keys of steps that are cached, a pipeline, a value in an arena, any of
# these with the blocks that the worker still looks at, and does not any more, nothing, because the step before has no
# value, and what can be read only once.
RETURNED, PARTS, RAISED, UNPICKLABLE, UNLOADABLE, REFUSED, SKIPPED = range(7)
HASHED, PIPELINE, STORED, LENT, UNCHAINED, ONCE = range(7, 13)

LOADING = 60.0
"""Seconds that the loading of a step's arguments may take where steps have time limits. A claim that is still loading
has the time at which that would be over; once its arguments are there, the time at which the step itself began."""

# How the arguments of a group are written: a list for each call; one small value for each; as a range of numbers.
LISTS, SINGLE, RANGE = range(3)

# Between the names of steps that are written as one text.
SEPARATOR = "\0"

_HEADER = struct.Struct("<BQI")
_LENGTH = struct.Struct("<Q")
# Version 2 of marshal keeps no table of what it has seen: no look-up for each value, equal bytes for equal values.
_VERSION = 2
_SEGMENT = 1 << 16
_SMALL = 1 << 12
_BLOCK = 5
# `sendmsg` takes at most IOV_MAX buffers.
_MOST_BUFFERS = 512
RECEIVE = 1 << 18


def frame(kind: int, body: Any, segments: list[bytes] | None = None) -> list[bytes]:
    """Return the buffers of a frame, to be sent in this order.

    Marshal refuses subclasses of tuple, so a body that is a named tuple is passed as `tuple(body)`.
    """
    data = marshal.dumps(body, _VERSION)
    if not segments:
        return [_HEADER.pack(kind, len(data), 0) + data]
    lengths = b"".join(_LENGTH.pack(len(segment)) for segment in segments)
    return [_HEADER.pack(kind, len(data), len(segments)) + lengths + data, *segments]


def is_stream(value: Any) -> bool:
    """Tell whether a value is one that is loaded one by one."""
    return type(value) is tuple and type(value[0]) is list


def is_block(value: Any) -> bool:
    """Tell whether a value lies in an arena."""
    return type(value) is tuple and len(value) == _BLOCK


def is_segment(value: Any) -> bool:
    """Tell whether a value stands beside the body."""
    return type(value) is tuple and len(value) == 1 and type(value[0]) is int


def slim(value: Any, segments: list[bytes]) -> Any:
    """Return an encoded value as it stands in a body; large pickles become segments."""
    if type(value) is bytes:
        if len(value) < _SEGMENT:
            return value
        segments.append(value)
        return (len(segments) - 1,)
    if type(value) is list:
        return [slim(each, segments) for each in value]
    return value.block if type(value) is ArenaValue else value


def restore(value: Any, segments: list[bytes]) -> Any:
    """Return an encoded value, segments put back: the inverse of `slim`."""
    if is_segment(value):
        return segments[value[0]]
    if type(value) is list:
        return [restore(each, segments) for each in value]
    return value


def packed_parts(kind: str | list[str], parts: list[Any]) -> bytes | None:
    """Return the values of several outputs for the results ring; `None` if one of them is not small."""
    left = _SMALL
    for part in parts:
        its = type(part)
        if its is str or its is bytes:
            left -= len(part)
        elif its not in ATOMS:  # in an arena
            return None
    return marshal.dumps((kind, tuple(parts)), _VERSION) if left >= 0 else None


unpacked_parts: Callable[[bytes], Any] = marshal.loads
"""Return the kind and the parts that `packed_parts` was given; `ResultReader.drain` checks that they are."""


class FrameDecoder:
    """Takes bytes in any portions and gives whole frames.

    >>> reader = FrameDecoder()
    >>> reader.feed(b"".join(frame(CALLS, [1, "a"])))
    >>> list(reader)
    [(2, [1, 'a'], [])]
    """

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        """Take received bytes."""
        self._data += data

    @property
    def pending(self) -> int | None:
        """The kind of the frame of which a part has arrived; `None` where there is none."""
        return self._data[0] if self._data else None

    def __iter__(self) -> Iterator[tuple[int, Any, list[bytes]]]:
        """Yield `(kind, body, segments)` of the frames that are whole, and keep the rest."""
        at, data, size = 0, self._data, len(self._data)
        view = memoryview(data)
        try:
            while size - at >= _HEADER.size:
                kind, length, count = _HEADER.unpack_from(view, at)
                begin = at + _HEADER.size
                if not count:
                    end = begin + length
                    if end > size:
                        break
                    at = end
                    yield kind, marshal.loads(view[begin:end]), []  # noqa: S302  our own processes
                    continue
                lengths = self._lengths(view, begin, count)
                end = begin + _LENGTH.size * count + length + sum(lengths)
                if not lengths or end > size:
                    break
                at = end
                yield kind, *self._parts(view, begin + _LENGTH.size * count, length, lengths)
        finally:
            view.release()
            del data[:at]

    @staticmethod
    def _lengths(view: memoryview, begin: int, count: int) -> list[int]:
        if len(view) - begin < _LENGTH.size * count:
            return []
        return [_LENGTH.unpack_from(view, begin + _LENGTH.size * k)[0] for k in range(count)]

    @staticmethod
    def _parts(view: memoryview, begin: int, length: int, lengths: list[int]) -> tuple[Any, list[bytes]]:
        at = begin + length
        segments = []
        for size in lengths:
            segments.append(bytes(view[at : at + size]))
            at += size
        return marshal.loads(view[begin : begin + length]), segments  # noqa: S302  our own processes


class SendBuffer:
    """Frames on their way through a socket that does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffers: deque[memoryview] = deque()

    def __bool__(self) -> bool:
        """Tell whether something waits."""
        return bool(self._buffers)

    def __len__(self) -> int:
        """Return how many buffers wait."""
        return len(self._buffers)

    def send(self, buffers: list[bytes]) -> None:
        """Send as much as the socket takes and keep the rest."""
        sent = self._send_at_once(buffers) if not self._buffers else 0
        if sent is not None:
            self._buffers.extend(memoryview(each) for each in buffers if each)
            self._drop(sent)
            self.flush()

    def _send_at_once(self, buffers: list[bytes]) -> int | None:
        """Send, where nothing waits; return `None` if that was all, as it nearly always is, else how much it was."""
        if len(buffers) > _MOST_BUFFERS:
            return 0
        try:
            sent = self._socket.sendmsg(buffers)
        except OSError:  # told apart by who sends the rest
            return 0
        return None if sent == sum(map(len, buffers)) else sent

    def flush(self) -> None:
        """Go on sending; a closed socket takes nothing and is noticed by who reads it."""
        while self._buffers:
            first = [self._buffers[k] for k in range(min(_MOST_BUFFERS, len(self._buffers)))]
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
    """Reads frames from a socket.

    Attributes:
        ended: The other side has closed.
        last_read: When something was read last (monotonic seconds).
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(RECEIVE)
        self._view = memoryview(self._buffer)
        self._reader = FrameDecoder()
        self.ended = False
        self.last_read = 0.0

    @property
    def pending(self) -> int | None:
        """The kind of the frame of which a part has been read and the rest has not."""
        return self._reader.pending

    def read(self) -> int:
        """Read once; return how many bytes there were."""
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
        """Yield the whole frames that were read."""
        return iter(self._reader)


def encode(value: Any, dump: Callable[[Any], bytes]) -> Any:
    """Return a value as it stands on the wire: itself, or its pickle."""
    return value if type(value) in ATOMS else dump(value)


def decode(
    value: Any, load: Callable[[bytes], Any], shared: Mapping[int, bytes], load_block: Callable[[Block], Any]
) -> Any:
    """Return the object of an encoded value; each call builds a new one, so that steps share nothing."""
    kind = type(value)
    if kind is bytes:
        return load(value)
    if kind is list:
        return [decode(each, load, shared, load_block) for each in value]
    if kind is tuple:
        return load_block(value) if len(value) == _BLOCK else load(shared[value[0]])
    return value
