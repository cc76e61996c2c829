"""The lines from a dispatch loop to its workers: whose a descriptor is, and what waits to be sent.

```
member ──add, listen──▶ its socket and its pipes ──▶ Ears ──hear──▶ descriptors ──▶ whose they are
   └────────send────▶ its outbox; while something is left in that, the loop hears when the socket takes more
```

The module does not know what is said on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.executors._processes.dispatching.listening import Ears

if TYPE_CHECKING:
    from flowyml.executors._processes.dispatching.member import Member


class Lines:
    """The lines of one run."""

    def __init__(self) -> None:
        self._ears = Ears()
        self._sockets: dict[int, Member] = {}
        self._pipes: dict[int, Member] = {}
        self._unheard: list[Member] = []

    def add(self, member: Member) -> None:
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

    def at(self, socket: int) -> Member | None:
        """Return the worker at a socket, if it is one."""
        return self._sockets.get(socket)

    def send(self, member: Member, buffers: list[bytes]) -> None:
        """Send as much as the worker takes now, the rest when it takes more."""
        waited = bool(member.outbox)
        member.outbox.send(buffers)
        if bool(member.outbox) != waited:
            self._watch(member)

    def send_rest(self, member: Member) -> None:
        """Go on with what waits, if something does."""
        if member.outbox:
            member.outbox.flush()
            self._watch(member)

    def _watch(self, member: Member) -> None:
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

    def hang_up(self, member: Member) -> None:
        """Listen to a worker's socket no more."""
        fd = member.worker.socket.fileno()
        if self._sockets.pop(fd, None):
            self._ears.remove(fd)

    def remove(self, member: Member) -> None:
        """Listen to a worker no more."""
        self.hang_up(member)
        for pipe in (member.worker.stdout, member.worker.stderr):
            if self._pipes.pop(pipe, None):
                self._ears.remove_pipe(pipe)

    def close(self) -> None:
        """Let go of everything."""
        self._ears.close()
