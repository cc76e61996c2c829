r"""What a step writes, marked with its slot: the worker's side of `output.py`.

fd 1 and fd 2 of a worker are pipes to the driver. `sys.stdout` and `sys.stderr` are text streams over them whose lowest
layer, `_MarkedPipe`, writes a mark (`\0token:SLOT\0`) into the pipe before the first bytes of a slot. So a step that
prints nothing costs nothing, and one that prints is attributed exactly.

- *Lazy* steps (short ones, many in a message): the mark comes with the first write through Python. What C code or a
  subprocess writes before that is shown without owner.
- *Eager* steps (long ones, and one that comes alone): both pipes are marked at the beginning, so everything is
  attributed.

Whatever a step does to its streams ends with it: after a step that wrote or changed fd 0, 1 or 2 (three fstat calls
tell, 0.2 us a step), and before an eager one, fd 0 is /dev/null again, fd 1 and 2 are the pipes and `sys.stdout` and
`sys.stderr` these streams; closing them only flushes. Each `_MarkedPipe` holds a second
descriptor of its pipe, `home`, for that; marks go to `home`, so they never land in a file that a step put in the place
of fd 1. A pipe that nobody reads any more becomes /dev/null.

The module knows nothing of steps, sockets or the run.
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
    from typing import SupportsIndex

    from typing_extensions import Buffer

_SETTINGS: Final[dict[str, Any]] = {
    "encoding": "utf-8",
    "errors": "backslashreplace",
    "line_buffering": True,
    "write_through": False,
}

_STANDARD: Final = (0, 1, 2)


class CurrentSlot:
    """Which step runs, and whether it has written something; a worker's `WorkerCallLoop` knows both, too."""

    slot: int | None = None
    written = False


def install(token: bytes, moment: Any = None) -> OutputCapture:
    """Put marked streams over fd 1 and fd 2 into `sys` and return the object that is told which step runs.

    Args:
        token: Hex digits, given by the driver, that open a mark.
        moment: Keeps `slot` and `written`; a `Moment` by default.
    """
    return OutputCapture(token, CurrentSlot() if moment is None else moment)


class OutputCapture:
    """The two pipes of a worker and the slot that writes to them now.

    Attributes:
        moment: `slot` is the step that runs, or ran last, `None` before the first; `written` tells whether something
            was written since the last step ended (the streams say so).
        files: What the standard descriptors ought to be.
        stdout: What `sys.stdout` ought to be,
        stderr: and `sys.stderr`.
    """

    __slots__ = ("_eager", "_ends", "_pipes", "files", "moment", "stderr", "stdout", "token")

    def __init__(self, token: bytes, moment: Any) -> None:
        """Take over the process's streams."""
        self.token = token
        self.moment = moment
        self._eager = False  # the pipes may carry the mark of an eager step
        self._pipes = (_MarkedPipe(1, "<stdout>", self), _MarkedPipe(2, "<stderr>", self))
        self.stdout, self.stderr = (_TextStream.map_input(pipe) for pipe in self._pipes)
        self._put_back()
        self.files = DescriptorCheck(_STANDARD)
        self._ends = self._pipes_now()

    def begin_step(self, slot: int, *, eager: bool) -> None:
        """What is written from now on belongs to this slot; `eager` marks the pipes at once."""
        self.moment.slot = slot
        if eager or self._eager:
            self._begin_marked(slot if eager else None)

    def begin_many(self) -> None:
        """What is written from now on belongs to the slots that the moment tells; no mark of an eager step is left."""
        if self._eager:
            self._begin_marked(None)

    def end_step(self) -> None:
        """Send what the step wrote and left unfinished; mend what it did to the streams."""
        if (
            self.moment.written
            or sys.stdout is not self.stdout
            or sys.stderr is not self.stderr
            or not self.files.unchanged()
        ):
            self._settle()

    def _begin_marked(self, slot: int | None) -> None:
        """Mend the pipes and mark both: with the eager step, or as nobody's after one."""
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
        """Return what the descriptors of both pipes are, where they are what they ought to be."""
        return DescriptorCheck([end for pipe in self._pipes for end in pipe.ends])

    def _settle(self) -> None:
        """Flush to where the step wrote, mend, flush what that did not take, and mark what follows as nobody's."""
        _flush((sys.stdout, sys.stderr, self.stdout, self.stderr))
        out, err = self._pipes
        out.restore()
        err.restore()
        self.stdout, self.stderr = _reset(self.stdout, out), _reset(self.stderr, err)
        self._put_back()
        out.mark(None)
        err.mark(None)
        self.moment.written = False
        if not self.files.unchanged():
            _open_stdin()
            self.files = DescriptorCheck(_STANDARD)

    def _put_back(self) -> None:
        """Make these streams the process's streams (again)."""
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
        """Say yes: it is what the stream is for."""
        return True

    def fileno(self) -> int:
        """Return the descriptor, which subprocesses may be given."""
        return self._number

    def close(self) -> None:
        """Stay open: other steps need the pipe."""

    def write(self, data: Buffer, /) -> int:
        """Write the mark if another slot wrote last, then what fits of the data."""
        self._capture.moment.written = True
        if self._marked != self._capture.moment.slot:
            self.mark(self._capture.moment.slot)
        return self._put(data)

    @property
    def ends(self) -> tuple[int, int]:
        """The two descriptors of the pipe."""
        return self._number, self._home

    @property
    def is_whole(self) -> bool:
        """Whether both are the pipe."""
        return self._is_pipe(self._number) and self._is_pipe(self._home)

    def begin(self, slot: int | None) -> None:
        """Mark for a step where both descriptors are the pipe: it may not block, where a child has made it so."""
        os.set_blocking(self._home, True)
        if self._marked != slot:
            self._write_mark(slot)

    def mark(self, slot: int | None) -> None:
        """Write whose bytes follow, if that is not known."""
        if self._marked == slot:
            return
        if not self._is_pipe(self._home):
            self.restore()
        self._write_mark(slot)

    def _write_mark(self, slot: int | None) -> None:
        """Write whose bytes follow; marks are shorter than PIPE_BUF and never torn."""
        number = b"" if slot is None else b"%d" % slot
        try:
            _write(self._home, b"\0%b:%b\0" % (self._capture.token, number))
        except OSError:
            self._lose()
        self._marked = slot

    def restore(self) -> None:
        """Make the descriptor the blocking pipe again that it was at the start."""
        with contextlib.suppress(OSError):  # no descriptor is free: the step that took them all has other worries
            if not self._is_pipe(self._home):
                self._find_home()
            if not self._is_pipe(self._number):
                os.dup2(self._home, self._number)
            os.set_blocking(self._home, True)

    def _put(self, data: Buffer) -> int:
        """Write to the descriptor: where the step redirected it, but never into the void of a closed one."""
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
        """Hold the pipe twice again, if the step left one of the two descriptors."""
        if self._is_pipe(self._number):
            self._home = os.dup(self._number)
        else:
            self._lose()

    def _lose(self) -> None:
        """Nobody reads any more: write to /dev/null from now on."""
        with contextlib.suppress(OSError):
            self._home = os.open(os.devnull, os.O_WRONLY)
            self._identity = _identity(self._home)
            os.dup2(self._home, self._number)


class _BufferedStream(io.BufferedWriter):
    """The buffer under a stream; closing it (a replaced wrapper does, when it is collected) only flushes."""

    raw: _MarkedPipe

    def write(self, data: Buffer, /) -> int:
        """Write, and remember that there is something to flush."""
        self.raw._capture.moment.written = True  # noqa: SLF001  the layers of one stream
        return super().write(data)

    def close(self) -> None:
        """Flush: other steps need the stream."""
        self.flush()


class _TextStream(io.TextIOWrapper):
    """The stream that a step sees as `sys.stdout` or `sys.stderr`."""

    capture: OutputCapture
    mode = "w"

    @classmethod
    def map_input(cls, pipe: _MarkedPipe) -> _TextStream:
        """Return a new stream over a pipe."""
        stream = cls(_BufferedStream(pipe), **_SETTINGS)
        stream.capture = pipe._capture  # noqa: SLF001  the layers of one stream
        return stream

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> tuple[Any, ...]:
        """Travel by name, as every stream of `sys` does: who loads it has its own."""
        return getattr, (sys, self.name.strip("<>"))

    def write(self, text: str, /) -> int:
        """Write, and remember that there is something to flush."""
        self.capture.moment.written = True
        return super().write(text)

    def detach(self) -> Any:
        """Remember that the stream is to be mended."""
        self.capture.moment.written = True
        return super().detach()

    def reconfigure(self, **settings: Any) -> None:
        """Remember that the stream is to be mended."""
        self.capture.moment.written = True
        super().reconfigure(**settings)

    def close(self) -> None:
        """Flush: other steps need the stream."""
        self.flush()


def _reset(stream: _TextStream, pipe: _MarkedPipe) -> _TextStream:
    """Flush a stream and undo what a step did to it; a new one if it is beyond that (detached)."""
    try:
        io.TextIOWrapper.reconfigure(stream, **_SETTINGS)
    except (OSError, ValueError):
        return _TextStream.map_input(pipe)
    return stream


def _flush(streams: Iterable[Any]) -> None:
    """Flush our streams and what a step put in their place."""
    for stream in streams:
        with contextlib.suppress(Exception):  # closed, or no stream at all: the step's own business
            stream.flush()


def _write(number: int, data: Buffer) -> int:
    """Write to a descriptor; a child may have made the shared pipe non-blocking, so wait then."""
    while True:
        try:
            return os.write(number, data)
        except BlockingIOError:
            _wait_writable(number)


def _wait_writable(number: int) -> None:
    """Wait until a descriptor takes bytes again."""
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    poll.poll()


def _open_stdin() -> None:
    """Make fd 0 empty again, whatever a step put in its place."""
    with contextlib.suppress(OSError):  # no descriptor is free
        null = os.open(os.devnull, os.O_RDONLY)
        if null != 0:
            os.dup2(null, 0)
            os.close(null)


def _identity(number: int) -> tuple[int, int] | None:
    """Return which file a descriptor is, or `None` if it is closed."""
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino
