r"""Marks the output of a step with its slot: the worker's side of `driver/output.py`.

fd 1 and fd 2 of a worker are pipes to the driver. `sys.stdout` and `sys.stderr` are text streams over them whose lowest
layer, `_MarkedPipe`, writes a mark (`\0token:SLOT\0`) before the first bytes of a slot. So a step without output costs
nothing, and output is attributed exactly.

- *Lazy* steps (short ones, many in a message): the mark is written with the first write through Python. What C code or
a subprocess writes before that is shown without owner. - *Eager* steps (long ones, and single ones): both pipes are
marked at the beginning, so all output is attributed.

Changes of the streams end with the step: after a step that wrote or changed fd 0, 1 or 2 (three fstat calls, 0.2 us a
step), and before an eager one, fd 0 is /dev/null again, fd 1 and 2 are the pipes and `sys.stdout` and `sys.stderr`
these streams; closing them only flushes. For that each `_MarkedPipe` holds a second descriptor of its pipe, `home`.
Marks are written to `home`, so they never go to a file that a step put in the place of fd 1. A pipe without a reader
becomes /dev/null.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Any, Final

from flowyml._extension import DescriptorCheck

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol, SupportsIndex

    from typing_extensions import Buffer

    class CurrentSlot(Protocol):
        """What a `WorkerCallLoop` knows."""

        slot: int | None  # slot of the step that runs, or ran last; `None` before the first
        written: bool  # whether the step has left something for `OutputCapture` or `ProcessStateGuard` to restore


_SETTINGS: Final[dict[str, Any]] = {
    "encoding": "utf-8",
    "errors": "backslashreplace",
    "line_buffering": True,
    "write_through": False,
}

_STANDARD: Final = (0, 1, 2)


class OutputCapture:
    """The two pipes of a worker, and the slot that writes to them now.

    Args:
        token: The hex digits, from the driver, that open a mark.
        current: The step that runs.

    Attributes:
        files: What the standard descriptors must be.
        stdout: What `sys.stdout` must be.
        stderr: What `sys.stderr` must be.
    """

    __slots__ = ("_eager", "_ends", "_pipes", "current", "files", "stderr", "stdout", "token")

    def __init__(self, token: bytes, current: CurrentSlot) -> None:
        self.token = token
        self.current = current
        self._eager = False  # the pipes may carry the mark of an eager step
        self._pipes = (_MarkedPipe(1, "<stdout>", self), _MarkedPipe(2, "<stderr>", self))
        self.stdout, self.stderr = (_TextStream.over(pipe) for pipe in self._pipes)
        self._put_back()
        self.files = DescriptorCheck(_STANDARD)
        self._ends = self._pipes_now()

    def begin_step(self, slot: int, *, eager: bool) -> None:
        """Attribute output to this slot from now on; if `eager`, mark the pipes at once."""
        self.current.slot = slot
        if eager or self._eager:
            self._begin_marked(slot if eager else None)

    def begin_many(self) -> None:
        """Attribute output to the slots of `current` from now on; remove the mark of an eager step."""
        if self._eager:
            self._begin_marked(None)

    def end_step(self) -> None:
        """Flush the output of the step, and restore the streams."""
        if (
            self.current.written
            or sys.stdout is not self.stdout
            or sys.stderr is not self.stderr
            or not self.files.unchanged()
        ):
            self._settle()

    def _begin_marked(self, slot: int | None) -> None:
        self._eager = slot is not None
        if self._ends.unchanged():
            for pipe in self._pipes:
                pipe.begin(slot)
            return
        for pipe in self._pipes:
            pipe.restore()
            pipe.mark(slot)
        if all(pipe.is_whole for pipe in self._pipes):
            self._ends = self._pipes_now()

    def _pipes_now(self) -> DescriptorCheck:
        return DescriptorCheck([end for pipe in self._pipes for end in pipe.ends])

    def _settle(self) -> None:
        """Flush to where the step wrote, restore, flush the rest, and mark further output as that of no step."""
        _flush((sys.stdout, sys.stderr, self.stdout, self.stderr))
        out, err = self._pipes
        out.restore()
        err.restore()
        self.stdout, self.stderr = _reset(self.stdout, out), _reset(self.stderr, err)
        self._put_back()
        out.mark(None)
        err.mark(None)
        self.current.written = False
        if not self.files.unchanged():
            _open_stdin()
            self.files = DescriptorCheck(_STANDARD)

    def _put_back(self) -> None:
        sys.stdout, sys.stderr = self.stdout, self.stderr
        sys.__stdout__, sys.__stderr__ = self.stdout, self.stderr  # type: ignore[misc]  # final for others


class _MarkedPipe(io.RawIOBase):
    """The raw stream over fd 1 or fd 2 that marks whose bytes follow."""

    def __init__(self, number: int, name: str, capture: OutputCapture) -> None:
        super().__init__()
        self.name = name
        self.mode = "wb"
        self._number = number
        self._capture = capture
        self._home = os.dup(number)
        self._identity = _identity(number)
        self._marked: int | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def close(self) -> None:
        """Stay open: other steps need the pipe."""

    def write(self, data: Buffer, /) -> int:
        self._capture.current.written = True
        if self._marked != self._capture.current.slot:
            self.mark(self._capture.current.slot)
        return self._put(data)

    @property
    def ends(self) -> tuple[int, int]:
        return self._number, self._home

    @property
    def is_whole(self) -> bool:
        return self._is_pipe(self._number) and self._is_pipe(self._home)

    def begin(self, slot: int | None) -> None:
        """Mark the pipe for a step; it must block, which a child may have changed."""
        os.set_blocking(self._home, True)
        if self._marked != slot:
            self._write_mark(slot)

    def mark(self, slot: int | None) -> None:
        if self._marked == slot:
            return
        if not self._is_pipe(self._home):
            self.restore()
        self._write_mark(slot)

    def _write_mark(self, slot: int | None) -> None:
        """Write a mark; marks are shorter than PIPE_BUF and never torn."""
        number = b"" if slot is None else b"%d" % slot
        try:
            _write(self._home, b"\0%b:%b\0" % (self._capture.token, number))
        except OSError:
            self._lose()
        self._marked = slot

    def restore(self) -> None:
        with contextlib.suppress(OSError):  # no descriptor is free, because of the step
            if not self._is_pipe(self._home):
                self._find_home()
            if not self._is_pipe(self._number):
                os.dup2(self._home, self._number)
            os.set_blocking(self._home, True)

    def _put(self, data: Buffer) -> int:
        """Write to the descriptor: where the step has redirected it, but never to a closed one."""
        try:
            return _write(self._number, data)
        except OSError:
            if _identity(self._number) not in {None, self._identity}:
                raise  # the step's own file is full, closed or read-only
        self.restore()
        try:
            return _write(self._number, data)
        except OSError:
            self._lose()
        return memoryview(data).nbytes

    def _is_pipe(self, number: int) -> bool:
        return _identity(number) == self._identity

    def _find_home(self) -> None:
        if self._is_pipe(self._number):
            self._home = os.dup(self._number)
        else:
            self._lose()

    def _lose(self) -> None:
        """Write to /dev/null from now on, since the pipe has no reader."""
        with contextlib.suppress(OSError):
            self._home = os.open(os.devnull, os.O_WRONLY)
            self._identity = _identity(self._home)
            os.dup2(self._home, self._number)


class _BufferedStream(io.BufferedWriter):
    """The buffer under a stream; closing it (a replaced wrapper does, when it is collected) only flushes."""

    raw: _MarkedPipe

    def write(self, data: Buffer, /) -> int:
        self.raw._capture.current.written = True  # noqa: SLF001  the layers of one stream
        return super().write(data)

    def close(self) -> None:
        """Flush: other steps need the stream."""
        self.flush()


class _TextStream(io.TextIOWrapper):
    """The stream that a step sees as `sys.stdout` or `sys.stderr`."""

    capture: OutputCapture
    mode = "w"

    @classmethod
    def over(cls, pipe: _MarkedPipe) -> _TextStream:
        stream = cls(_BufferedStream(pipe), **_SETTINGS)
        stream.capture = pipe._capture  # noqa: SLF001  the layers of one stream
        return stream

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> tuple[Any, ...]:
        """Pickle by name, as each process has its own stream."""
        return getattr, (sys, self.name.strip("<>"))

    def write(self, text: str, /) -> int:
        self.capture.current.written = True
        return super().write(text)

    def detach(self) -> Any:
        self.capture.current.written = True
        return super().detach()

    def reconfigure(self, **settings: Any) -> None:
        self.capture.current.written = True
        super().reconfigure(**settings)

    def close(self) -> None:
        """Flush: other steps need the stream."""
        self.flush()


def _reset(stream: _TextStream, pipe: _MarkedPipe) -> _TextStream:
    """Flush a stream and undo changes of a step; return a new one if it is detached."""
    try:
        io.TextIOWrapper.reconfigure(stream, **_SETTINGS)
    except (OSError, ValueError):
        return _TextStream.over(pipe)
    return stream


def _flush(streams: Iterable[Any]) -> None:
    for stream in streams:
        with contextlib.suppress(Exception):  # closed, or not a stream
            stream.flush()


def _write(number: int, data: Buffer) -> int:
    """Write to a descriptor; a child may have made the shared pipe non-blocking, so wait then."""
    while True:
        try:
            return os.write(number, data)
        except BlockingIOError:
            _wait_writable(number)


def _wait_writable(number: int) -> None:
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    poll.poll()


def _open_stdin() -> None:
    with contextlib.suppress(OSError):  # no descriptor is free
        null = os.open(os.devnull, os.O_RDONLY)
        if null != 0:
            os.dup2(null, 0)
            os.close(null)


def _identity(number: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino
