"""A worker's way to its driver: small results through shared memory, all else through its socket.

Whole frames, one at a time: threads of steps log through the same socket. So may what interrupts a thread that sends, a
signal handler or a finalizer: it must not wait for the lock that its own thread has, nor begin a frame inside another.
Its frames are put aside, and the thread sends them after its own. The module does not know what steps are.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from flowyml.executors._processes.crossing import wire

if TYPE_CHECKING:
    from flowyml.executors._processes.working.lifeline import Lifeline

clock = time.monotonic

_WAKE = wire.frame(wire.WAKE, None)


class Sender:
    """Sends to the driver.

    Args:
        lifeline: The socket, and the worker's view of its results.
    """

    def __init__(self, lifeline: Lifeline) -> None:
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
        self.send(wire.frame(wire.RESULT, [slot, start, clock(), outcome, slimmed], segments))

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
