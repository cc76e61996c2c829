"""What a step has returned or raised, as it goes to the driver; see `wire.py` for the outcomes.

A worker's way to its driver: small results through shared memory, all else through its socket.

Whole frames, one at a time: threads of steps log through the same socket. So may what interrupts a thread that sends, a
signal handler or a finalizer: it must not wait for the lock that its own thread has, nor begin a frame inside another.
Its frames are put aside, and the thread sends them after its own. The module does not know what steps are.
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


def refuse_to_break(*args: Any, **kwargs: Any) -> Any:
    """Replace `sys.breakpointhook`: pdb would read the end of its input and raise an empty `BdbQuit`.

    If `PYTHONBREAKPOINT` names another debugger, or none, that still holds.

    Raises:
        RuntimeError: If pdb would be called.
    """
    if os.environ.get("PYTHONBREAKPOINT", "") in {"", "pdb.set_trace"}:
        raise RuntimeError(f"breakpoint(): {NO_TERMINAL}")
    return sys.__breakpointhook__(*args, **kwargs)  # noqa: T100  as the user has configured


def raised(error: BaseException) -> tuple[int, Any]:
    """Return what came of a step that raised."""
    if isinstance(error, StepSkipped):
        return wire.SKIPPED, None
    if (type(error).__module__, type(error).__name__, error.args) in _WANTS_TERMINAL:
        error.args = ("; ".join([*error.args, NO_TERMINAL]),)
    return _packed(error)


def _packed(error: BaseException) -> tuple[int, Any]:
    from flowyml.executors.process.protocol.exceptions import pack_exception

    return wire.RAISED, pack_exception(error, dump_result, load_value)


def encoded(  # noqa: PLR0911  each kind of value has its line
    value: Any, outputs: tuple[str, ...] | None, step: str, dump: Callable[[Any], Any] = dump_result
) -> tuple[int, Any]:
    """Return a value as it goes to the driver, output by output where several are declared."""
    try:
        if not outputs and type(value) in wire.ATOMS:
            return wire.RETURNED, value
        if is_pipeline(value):
            from flowyml.steps.dynamic import pickled_pipeline

            return wire.PIPELINE, dump_result(pickled_pipeline(value), f"the pipeline {value.name!r}")
        if not outputs:
            if type(value) in SINGLE_USE_TYPES:
                return wire.ONCE, close_iterator(value)
            data = dump(value)
            return wire.STORED if type(data) is tuple else wire.RETURNED, data
        parts: Any = split_outputs(value, tuple(outputs), step)
        return wire.PARTS, [_kind(parts), [wire.encode(part, dump) for part in parts.parts]]
    except SerializationError as error:
        return wire.UNPICKLABLE, error.reason
    except (FlowymlError, TypeError) as error:  # of what the declared outputs say
        return _packed(error)


def with_content(outcome: int, value: Any, returned: Any) -> tuple[int, Any]:
    """Return a value in the form for the driver, with its content if that takes time to compute.

    It has none here if it holds code of the user's: only the driver knows what that reaches.
    """
    from flowyml.hashing.content import UnhashableError, plain_content

    if outcome not in {wire.RETURNED, wire.STORED, wire.PARTS} or type(returned) in wire.ATOMS:
        return outcome, value
    parts = [returned]
    if outcome == wire.PARTS:
        parts = list(returned.values()) if isinstance(returned, dict) else list(returned)
    try:
        contents = [plain_content(part) for part in parts]
    except UnhashableError:
        return outcome, value
    return (outcome, value) if None in contents else (wire.HASHED, [outcome, value, contents])


def _kind(parts: MultiOutput) -> Any:
    """Return what kind of thing the step returned, for the wire: "tuple", "list" or the keys of a dict."""
    return parts.kind.__name__ if isinstance(parts.kind, type) else list(parts.kind)


clock = time.monotonic

_WAKE = wire.frame(wire.WAKE, None)


class ResultSender:
    """Sends to the driver.

    Args:
        lifeline: The socket, and the worker's view of its results.
    """

    def __init__(self, lifeline: WorkerResources) -> None:
        self._socket = lifeline.socket
        self._caller = lifeline.caller
        self._lock = threading.Lock()
        self._sending: set[int] = set()  # threads that have the lock or wait for it
        self._aside: deque[list[bytes]] = deque()

    def result(self, slot: int, start: float, outcome: int, value: Any, usage: tuple[float, int | None] | None) -> None:
        """Put what is small into shared memory; all else, and what finds no room there, goes through the socket."""
        if outcome == wire.RETURNED and self._caller.put(slot, start, clock(), value, usage):
            if self._caller.must_wake(False):  # noqa: FBT003  positional only
                self.wake()
            return
        if outcome == wire.PARTS and usage is None and self._put_parts(slot, start, value):
            return
        if usage is not None:
            self.send(wire.frame(wire.USAGE, [slot, *usage]))
        segments: list[bytes] = []
        slimmed = value if type(value) in wire.ATOMS else wire.slim(value, segments)
        body = wire.ResultBody(slot, start, clock(), outcome, slimmed)
        self.send(wire.frame(wire.RESULT, tuple(body), segments))

    def _put_parts(self, slot: int, start: float, value: Any) -> bool:
        """Put the values of several outputs into shared memory; return False if they are not small."""
        data = wire.packed_parts(*value)
        if data is None or not self._caller.put_parts(slot, start, clock(), data):
            return False
        if self._caller.must_wake(False):  # noqa: FBT003  positional only
            self.wake()
        return True

    def wake(self) -> None:
        """Wake the driver, which sleeps and wants to know that there are results."""
        self.send(_WAKE)

    def log(self, data: bytes) -> None:
        """Send a log record."""
        self.send(wire.frame(wire.LOG, data))

    def send(self, buffers: list[bytes]) -> None:
        """Send a whole frame; inside another one of the same thread, after that."""
        thread = threading.get_ident()
        if thread in self._sending:
            self._aside.append(buffers)
            return
        try:
            self._sending.add(thread)  # before the lock is there: what comes between the two would wait for it
            with self._lock:
                for buffer in buffers:
                    self._socket.sendall(buffer)
        finally:
            self._sending.discard(thread)
        if self._aside:  # looked at after the thread was taken out: nothing can be put aside unseen
            self._send_aside()

    def _send_aside(self) -> None:
        """Send what was put aside, by whichever thread."""
        buffers: list[bytes] = []
        with contextlib.suppress(IndexError):
            while True:
                buffers += self._aside.popleft()
        self.send(buffers)
