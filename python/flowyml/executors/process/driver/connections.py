"""The sockets and output pipes of the workers of a run, and the selector for them.

```
sockets, supervisor ─▶ urgent (epoll) ─┬──────────▶ poll()     if nothing came for 20 ms: both together
output pipes ──────────────────────────┴─▶ all (poll), which needs no descriptor while there are few
```

A step that takes a millisecond, or is sent alone, marks both pipes of its worker before it begins
(`worker/output_capture.py`), so that all its output is attributed to it. Each mark would wake a loop that waits for
pipes: twice a step, and in vain if steps write nothing. So pipes are polled after some milliseconds without other
events, and at once while there is output. Mapping `time.sleep` over 400 times 0.002 on two workers the driver slept 1.3
times a step, 1.8 if pipes were always polled, and took a tenth less CPU (`getrusage`, medians of four runs each).
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowyml.executors.process.driver.worker_handle import WorkerHandle


class WorkerConnections:
    """The connections to the workers of one run; what a socket does not accept waits in the buffer of its worker."""

    def __init__(self) -> None:
        self._selector = OutputSelector()
        self._sockets: dict[int, WorkerHandle] = {}
        self._pipes: dict[int, WorkerHandle] = {}
        self._unregistered: list[WorkerHandle] = []

    def add(self, worker: WorkerHandle) -> None:
        """Add a worker; it is polled from the next `listen` on, so that it can begin to work first."""
        self._unregistered.append(worker)

    def listen(self, supervisor: int) -> None:
        """Begin to poll the added workers and the supervisor."""
        if not self._selector.is_used:
            self._selector.add(supervisor)
        for worker in self._unregistered:
            self._sockets[worker.process.socket.fileno()] = worker
            self._selector.add(worker.process.socket.fileno(), writable=bool(worker.outbox))
            for pipe in (worker.process.stdout, worker.process.stderr):
                self._pipes[pipe] = worker
                self._selector.add_pipe(pipe)
        self._unregistered.clear()

    def poll(self, timeout: float) -> list[int]:
        """Wait up to `timeout` seconds until something can be read or written; return the descriptors."""
        return self._selector.poll(timeout)

    def owner_of(self, socket: int) -> WorkerHandle | None:
        """Return the worker with this socket, if there is one."""
        return self._sockets.get(socket)

    def send(self, worker: WorkerHandle, buffers: list[bytes]) -> None:
        """Send as much as the socket accepts now, the rest later."""
        waited = bool(worker.outbox)
        worker.outbox.send(buffers)
        if bool(worker.outbox) != waited:
            self._watch(worker)

    def flush(self, worker: WorkerHandle) -> None:
        """Send what is left in the buffer of a worker."""
        if worker.outbox:
            worker.outbox.flush()
            self._watch(worker)

    def _watch(self, worker: WorkerHandle) -> None:
        fd = worker.process.socket.fileno()
        if fd in self._sockets:
            self._selector.change(fd, writable=bool(worker.outbox))

    def read_pipe(self, pipe: int) -> bool:
        """Show the output in a pipe; return False if the descriptor is not a pipe."""
        worker = self._pipes.get(pipe)
        if worker is None:
            return False
        if not worker.read_pipe(pipe):
            self._selector.remove_pipe(pipe)
            del self._pipes[pipe]
        self._selector.had_output |= worker.had_output
        return True

    def disconnect(self, worker: WorkerHandle) -> None:
        """Stop polling the socket of a worker."""
        fd = worker.process.socket.fileno()
        if self._sockets.pop(fd, None):
            self._selector.remove(fd)

    def remove(self, worker: WorkerHandle) -> None:
        """Stop polling a worker."""
        self.disconnect(worker)
        for pipe in (worker.process.stdout, worker.process.stderr):
            if self._pipes.pop(pipe, None):
                self._selector.remove_pipe(pipe)

    def close(self) -> None:
        """Close the selector."""
        self._selector.close()


# The first output after a while is shown at most so much later than it was written.
PIPE_DELAY_SECONDS = 0.02

clock = time.monotonic


class OutputSelector:
    """The descriptors of one run.

    Attributes:
        had_output: Whether the last read of a pipe had output; set by the reader.
        is_used: Whether a descriptor is registered.
    """

    def __init__(self) -> None:
        self.had_output = self.is_used = False
        self._urgent = select.epoll()
        self._all = select.poll()
        self._all.register(self._urgent.fileno(), select.POLLIN)
        self._pipes: set[int] = set()
        self._last_pipe_poll = clock()

    def add(self, fd: int, *, writable: bool = False) -> None:
        """Wait until a descriptor can be read or, if `writable`, written."""
        self._urgent.register(fd, _events(writable=writable))
        self.is_used = True

    def change(self, fd: int, *, writable: bool) -> None:
        """Change whether to wait until a descriptor can be written."""
        self._urgent.modify(fd, _events(writable=writable))

    def remove(self, fd: int) -> None:
        """Unregister a descriptor."""
        self._urgent.unregister(fd)

    def add_pipe(self, fd: int) -> None:
        """Register an output pipe."""
        self._pipes.add(fd)
        self._all.register(fd, select.POLLIN)

    def remove_pipe(self, fd: int) -> None:
        """Unregister an output pipe, if it is registered."""
        if fd in self._pipes:
            self._pipes.discard(fd)
            self._all.unregister(fd)

    def poll(self, timeout: float) -> list[int]:
        """Wait up to `timeout` seconds until something can be read or written; return the descriptors."""
        rest = self._last_pipe_poll + PIPE_DELAY_SECONDS - clock()
        if rest > 0 and not self.had_output:
            found = self._urgent.poll(min(timeout, rest))
            if found or timeout <= rest:
                return [fd for fd, _ in found]
            timeout -= rest
        self._last_pipe_poll, self.had_output = clock(), False
        return self._poll_all(timeout)

    def _poll_all(self, timeout: float) -> list[int]:
        found, near = [fd for fd, _ in self._all.poll(timeout * 1000)], self._urgent.fileno()
        if near not in found:
            return found
        return [*(fd for fd, _ in self._urgent.poll(0)), *(fd for fd in found if fd != near)]

    def close(self) -> None:
        """Close the descriptor of the selector."""
        self._urgent.close()


def _events(*, writable: bool) -> int:
    return select.EPOLLIN | (select.EPOLLOUT if writable else 0)
