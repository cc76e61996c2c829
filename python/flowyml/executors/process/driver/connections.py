"""The lines from a dispatch loop to its workers: whose a descriptor is, and what waits to be sent.

```
member ──add, listen──▶ its socket and its pipes ──▶ Ears ──hear──▶ descriptors ──▶ whose they are
   └────────send────▶ its outbox; while something is left in that, the loop hears when the socket takes more
```

The module does not know what is said on them.

What the dispatch loop waits for: workers' sockets and the guardian at once, workers' output a little later.

```
sockets, guardian ─▶ near ─┬────────────────────▶ hear()      nothing for 20 ms: near and pipes together
output pipes ──────────────┴─▶ all, a poll, which needs no descriptor where there are few
```

A step that takes a millisecond, or comes alone, marks both pipes of its worker before it begins (`capture.py`), so
that whatever it writes is its own. Each mark would wake a loop that waits for the pipes: twice a step, and for
nothing where steps write nothing. So pipes are looked at once nothing else has been heard for some milliseconds;
while text comes, at once.

Mapping `time.sleep` over 400 times 0.002 on two workers the driver slept 1.3 times a step, where it was 1.8 with pipes
heard at once, and took a tenth less CPU (`getrusage`, medians of four runs each). It knows descriptors, and nothing of
what they are for.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowyml.executors.process.driver.worker_handle import WorkerHandle


class WorkerConnections:
    """The lines of one run."""

    def __init__(self) -> None:
        self._ears = OutputSelector()
        self._sockets: dict[int, WorkerHandle] = {}
        self._pipes: dict[int, WorkerHandle] = {}
        self._unheard: list[WorkerHandle] = []

    def add(self, member: WorkerHandle) -> None:
        """Listen to a worker, from the next `listen` on: then it may be at its first steps meanwhile."""
        self._unheard.append(member)

    def listen(self, guardian: int) -> None:
        """Get ready to hear from the workers that were added, and from the guardian: what is nobody's is its."""
        if not self._ears.hears:
            self._ears.add(guardian)
        for member in self._unheard:
            self._sockets[member.worker.socket.fileno()] = member
            self._ears.add(member.worker.socket.fileno(), writable=bool(member.outbox))
            for pipe in (member.worker.stdout, member.worker.stderr):
                self._pipes[pipe] = member
                self._ears.add_pipe(pipe)
        self._unheard.clear()

    def hear(self, timeout: float) -> list[int]:
        """Wait until something can be read or sent, at most so many seconds; return the descriptors."""
        return self._ears.hear(timeout)

    def at(self, socket: int) -> WorkerHandle | None:
        """Return the worker at a socket, if it is one."""
        return self._sockets.get(socket)

    def send(self, member: WorkerHandle, buffers: list[bytes]) -> None:
        """Send as much as the worker takes now, the rest when it takes more."""
        waited = bool(member.outbox)
        member.outbox.send(buffers)
        if bool(member.outbox) != waited:
            self._watch(member)

    def send_rest(self, member: WorkerHandle) -> None:
        """Go on with what waits, if something does."""
        if member.outbox:
            member.outbox.flush()
            self._watch(member)

    def _watch(self, member: WorkerHandle) -> None:
        """Ask to be told when the socket takes more, while something waits."""
        fd = member.worker.socket.fileno()
        if fd in self._sockets:
            self._ears.change(fd, writable=bool(member.outbox))

    def read_pipe(self, pipe: int) -> bool:
        """Show what a pipe holds; tell whether it is one."""
        member = self._pipes.get(pipe)
        if member is None:
            return False
        if not member.read_pipe(pipe):
            self._ears.remove_pipe(pipe)
            del self._pipes[pipe]
        self._ears.talking |= member.talked
        return True

    def hang_up(self, member: WorkerHandle) -> None:
        """Listen to a worker's socket no more."""
        fd = member.worker.socket.fileno()
        if self._sockets.pop(fd, None):
            self._ears.remove(fd)

    def remove(self, member: WorkerHandle) -> None:
        """Listen to a worker no more."""
        self.hang_up(member)
        for pipe in (member.worker.stdout, member.worker.stderr):
            if self._pipes.pop(pipe, None):
                self._ears.remove_pipe(pipe)

    def close(self) -> None:
        """Let go of everything."""
        self._ears.close()


# A line shows that much later than it was written, at most, if it is the first for a while.
_PAUSE = 0.02

clock = time.monotonic


class OutputSelector:
    """The descriptors of one run.

    Attributes:
        talking: Whether there was text in a pipe when they were last listened to; whoever reads them says so.
        hears: Whether there is a descriptor that is waited for.
    """

    def __init__(self) -> None:
        self.talking = self.hears = False
        self._near = select.epoll()
        self._all = select.poll()
        self._all.register(self._near.fileno(), select.POLLIN)
        self._pipes: set[int] = set()
        self._heard = clock()

    def add(self, fd: int, *, writable: bool = False) -> None:
        """Wait for something to read from a descriptor, and for room to write."""
        self._near.register(fd, _events(writable=writable))
        self.hears = True

    def change(self, fd: int, *, writable: bool) -> None:
        """Wait for room to write, too, or not any more."""
        self._near.modify(fd, _events(writable=writable))

    def remove(self, fd: int) -> None:
        """Forget a descriptor."""
        self._near.unregister(fd)

    def add_pipe(self, fd: int) -> None:
        """Wait for output, with less hurry."""
        self._pipes.add(fd)
        self._all.register(fd, select.POLLIN)

    def remove_pipe(self, fd: int) -> None:
        """Forget a pipe, if it is known."""
        if fd in self._pipes:
            self._pipes.discard(fd)
            self._all.unregister(fd)

    def hear(self, timeout: float) -> list[int]:
        """Wait until something can be read or written, at most so many seconds; return the descriptors."""
        rest = self._heard + _PAUSE - clock()
        if rest > 0 and not self.talking:
            found = self._near.poll(min(timeout, rest))
            if found or timeout <= rest:
                return [fd for fd, _ in found]
            timeout -= rest
        self._heard, self.talking = clock(), False
        return self._hear_all(timeout)

    def _hear_all(self, timeout: float) -> list[int]:
        found, near = [fd for fd, _ in self._all.poll(timeout * 1000)], self._near.fileno()
        if near not in found:
            return found
        return [*(fd for fd, _ in self._near.poll(0)), *(fd for fd in found if fd != near)]

    def close(self) -> None:
        """Let go of everything."""
        self._near.close()


def _events(*, writable: bool) -> int:
    return select.EPOLLIN | (select.EPOLLOUT if writable else 0)
