"""A worker process as its pool tells of it: its descriptors, and what happens to it.

Plain classes: this is imported before the first process of a pool can be started, and a dataclass takes half a
millisecond to make.
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
    """A worker process, from the moment it was asked for until it is released.

    Args:
        number: Its id: number of the worker in its pool, never reused.
        index: Place of its claim words.
        views: The driver's views of its claim words and of its results.
        socket_: The driver's end of its socket; does not block.
        pipes: Reading ends of the pipes that are its descriptors 1 and 2; do not block.

    Attributes:
        token: Random text known to this worker alone, for marks in its output.
        pid: Its process, once it is known.
        exitcode: How it ended, negative for a signal; `None` while it runs, and where nobody knows.
        ended: The process is gone.
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
        """The pipe that is its descriptor 1; -1 once it is closed."""
        return self.pipes[0].fd

    @property
    def stderr(self) -> int:
        """The pipe that is its descriptor 2; -1 once it is closed."""
        return self.pipes[1].fd

    def close(self) -> None:
        """Close the driver's descriptors; more than once is fine."""
        self.socket.close()
        for pipe in self.pipes:
            pipe.close()


class WorkerStarted(NamedTuple):
    """A worker has a process; its `pid` is known."""

    worker: WorkerProcess


class WorkerExited(NamedTuple):
    """A worker's process is gone and reaped, with what it left behind; `exitcode` is set."""

    worker: WorkerProcess


class SpawnFailed(NamedTuple):
    """A worker could not be started."""

    worker: WorkerProcess
    error: OSError


class SupervisorLost(NamedTuple):
    """The guardian died, and all workers with it; they are `ended` with an unknown exit code."""

    reason: str


Event = WorkerStarted | WorkerExited | SpawnFailed | SupervisorLost
