"""A worker process, and the events that happen to it.

Plain classes: this is imported before the first process of a pool can be started, and a dataclass takes half a
millisecond to create.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple

if TYPE_CHECKING:
    import socket

    from flowyml._core import ClaimWords, ResultReader
    from flowyml.executors.process.file_descriptors import FileDescriptor


class WorkerProcess:
    """A worker process, from its request until it is released.

    Args:
        number: Its id in the pool, never reused.
        index: The index of its claim words.
        views: The driver's views of its claim words and of its results.
        socket_: The driver's end of its socket; does not block.
        pipes: The reading ends of its standard output and error; do not block.

    Attributes:
        token: Random hex digits for the marks in its output.
        pid: Its pid, once it is known.
        exitcode: How it exited, negative for a signal; `None` while it runs, and if that is unknown.
        ended: Whether the process has exited.
    """

    __slots__ = (
        "__weakref__",
        "claims",
        "ended",
        "exitcode",
        "id",
        "index",
        "pid",
        "pipes",
        "results",
        "socket",
        "token",
    )

    def __init__(
        self,
        number: int,
        index: int,
        views: tuple[ClaimWords, ResultReader],
        socket_: socket.socket,
        pipes: tuple[FileDescriptor, FileDescriptor],
    ) -> None:
        self.id = number
        self.index = index
        self.claims, self.results = views
        self.socket = socket_
        self.pipes = pipes
        self.token = os.urandom(8).hex()
        self.pid: int | None = None
        self.exitcode: int | None = None
        self.ended = False

    @property
    def stdout(self) -> int:
        """The pipe of its standard output; -1 once it is closed."""
        return self.pipes[0].fd

    @property
    def stderr(self) -> int:
        """The pipe of its standard error; -1 once it is closed."""
        return self.pipes[1].fd

    def close(self) -> None:
        """Close the driver's descriptors; may be called again."""
        self.socket.close()
        for pipe in self.pipes:
            pipe.close()


class WorkerStarted(NamedTuple):
    """A worker has a process; its `pid` is set."""

    worker: WorkerProcess


class WorkerExited(NamedTuple):
    """A worker has exited and was reaped, with the processes it left behind; its `exitcode` is set."""

    worker: WorkerProcess


class SpawnFailed(NamedTuple):
    """A worker could not be started."""

    worker: WorkerProcess
    error: OSError


class SupervisorLost(NamedTuple):
    """The supervisor died, and all workers with it; they have `ended`, with an unknown exit code."""

    reason: str


Event = WorkerStarted | WorkerExited | SpawnFailed | SupervisorLost
