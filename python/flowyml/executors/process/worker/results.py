"""Results of steps on their way to the driver: small ones in shared memory, others through the socket.

Messages are sent whole, one at a time, since threads of steps log through the same socket. A signal handler or a
finalizer may interrupt a thread that is sending: it must not wait for the lock of its own thread, nor begin a message
inside another. Its messages are queued, and the thread sends them after its own. See `wire.py` for the outcomes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from flowyml.errors import FlowymlError, SerializationError
from flowyml.executors.process.protocol import wire
from flowyml.executors.process.protocol.value_pickle import dump_result, load_value
from flowyml.steps.outcomes import SINGLE_USE_TYPES, StepSkipped, close_iterator, is_pipeline
from flowyml.store.value_store import MultiOutput, split_outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.executors.process.worker.bootstrap import WorkerResources


NO_TERMINAL = (
    "a worker process has no terminal and no standard input; to debug a step or let it ask, run it in this process: "
    "run(executor=LocalExecutor())"
)
_WANTS_TERMINAL = (
    ("builtins", "EOFError", ("EOF when reading a line",)),  # input()
    ("bdb", "BdbQuit", ()),  # pdb.set_trace()
)


def refuse_breakpoint(*args: Any, **kwargs: Any) -> Any:
    """Replace `sys.breakpointhook`: pdb would read the end of its input and raise an empty `BdbQuit`.

    If `PYTHONBREAKPOINT` names another debugger, or none, that is respected.

    Raises:
        RuntimeError: If pdb would be called.
    """
    if os.environ.get("PYTHONBREAKPOINT", "") in {"", "pdb.set_trace"}:
        raise RuntimeError(f"breakpoint(): {NO_TERMINAL}")
    return sys.__breakpointhook__(*args, **kwargs)  # noqa: T100  as the user has configured


def encode_exception(error: BaseException) -> tuple[int, Any]:
    """Return outcome and value of a step that raised."""
    if isinstance(error, StepSkipped):
        return wire.SKIPPED, None
    if (type(error).__module__, type(error).__name__, error.args) in _WANTS_TERMINAL:
        error.args = ("; ".join([*error.args, NO_TERMINAL]),)
    return _packed(error)


def _packed(error: BaseException) -> tuple[int, Any]:
    from flowyml.executors.process.protocol.exceptions import pack_exception

    return wire.RAISED, pack_exception(error, dump_result, load_value)


def encode_result(  # noqa: PLR0911  each kind of value has its line
    value: Any, outputs: tuple[str, ...] | None, step: str, dump: Callable[[Any], Any] = dump_result
) -> tuple[int, Any]:
    """Return outcome and value of a step that returned; several declared outputs are encoded one by one."""
    try:
        if not outputs and type(value) in wire.ATOMS:
            return wire.RETURNED, value
        if is_pipeline(value):
            from flowyml.steps.dynamic import pickled_pipeline

            return wire.SUBGRAPH, dump_result(pickled_pipeline(value), f"the pipeline {value.name!r}")
        if not outputs:
            if type(value) in SINGLE_USE_TYPES:
                return wire.SINGLE_USE, close_iterator(value)
            data = dump(value)
            return wire.STORED if type(data) is tuple else wire.RETURNED, data
        parts: Any = split_outputs(value, tuple(outputs), step)
        return wire.MULTI_OUTPUT, [_kind(parts), [wire.encode(part, dump) for part in parts.parts]]
    except SerializationError as error:
        return wire.UNPICKLABLE, error.reason
    except (FlowymlError, TypeError) as error:  # of the declared outputs
        return _packed(error)


def add_content_hashes(outcome: int, value: Any, returned: Any) -> tuple[int, Any]:
    """Add the content hash of a result, if computing it takes time.

    There is none for values that contain user code: only the driver knows what that depends on.
    """
    from flowyml.hashing.content import UnhashableError, plain_content

    if outcome not in {wire.RETURNED, wire.STORED, wire.MULTI_OUTPUT} or type(returned) in wire.ATOMS:
        return outcome, value
    parts = [returned]
    if outcome == wire.MULTI_OUTPUT:
        parts = list(returned.values()) if isinstance(returned, dict) else list(returned)
    try:
        contents = [plain_content(part) for part in parts]
    except UnhashableError:
        return outcome, value
    return (outcome, value) if None in contents else (wire.HASHED, [outcome, value, contents])


def _kind(parts: MultiOutput) -> Any:
    return parts.kind.__name__ if isinstance(parts.kind, type) else list(parts.kind)


clock = time.monotonic

_WAKE = wire.frame(wire.WAKE, None)


class ResultSender:
    """Sends to the driver."""

    def __init__(self, resources: WorkerResources) -> None:
        self._socket = resources.socket
        self._caller = resources.caller
        self._lock = threading.Lock()
        self._sending: set[int] = set()  # threads that hold the lock or wait for it
        self._aside: deque[list[bytes]] = deque()

    def result(self, slot: int, start: float, outcome: int, value: Any, usage: tuple[float, int | None] | None) -> None:
        """Send a result: through shared memory if it is small and there is room, else through the socket."""
        if outcome == wire.RETURNED and self._caller.put(slot, start, clock(), value, usage):
            if self._caller.must_wake(False):  # noqa: FBT003  positional only
                self.wake()
            return
        if outcome == wire.MULTI_OUTPUT and usage is None and self._put_parts(slot, start, value):
            return
        if usage is not None:
            self.send(wire.frame(wire.USAGE, [slot, *usage]))
        segments: list[bytes] = []
        slimmed = value if type(value) in wire.ATOMS else wire.extract_segments(value, segments)
        body = wire.ResultBody(slot, start, clock(), outcome, slimmed)
        self.send(wire.frame(wire.RESULT, tuple(body), segments))

    def _put_parts(self, slot: int, start: float, value: Any) -> bool:
        data = wire.pack_outputs(*value)
        if data is None or not self._caller.put_parts(slot, start, clock(), data):
            return False
        if self._caller.must_wake(False):  # noqa: FBT003  positional only
            self.wake()
        return True

    def wake(self) -> None:
        """Wake the driver, which is waiting for results."""
        self.send(_WAKE)

    def log(self, data: bytes) -> None:
        """Send a log record."""
        self.send(wire.frame(wire.LOG, data))

    def send(self, buffers: list[bytes]) -> None:
        """Send a whole message; inside another one of the same thread, after that."""
        thread = threading.get_ident()
        if thread in self._sending:
            self._aside.append(buffers)
            return
        try:
            self._sending.add(thread)  # before the lock is taken: an interrupt in between would wait for it
            with self._lock:
                for buffer in buffers:
                    self._socket.sendall(buffer)
        finally:
            self._sending.discard(thread)
        if self._aside:  # checked after the thread was removed, so that no message is missed
            self._send_aside()

    def _send_aside(self) -> None:
        buffers: list[bytes] = []
        with contextlib.suppress(IndexError):
            while True:
                buffers += self._aside.popleft()
        self.send(buffers)
