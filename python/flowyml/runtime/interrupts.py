"""Ctrl-C during a run.

In the main thread, and only where SIGINT still has Python's own handler, a run notes the signal instead of letting a
`KeyboardInterrupt` interrupt its bookkeeping. Where it waits or runs the user's code (`may_raise`), and at the
second signal anywhere but where descriptors are made (`held_back`), the exception is raised at once; what was noted
elsewhere is raised at the next such place, at the latest at the end of the run. Elsewhere nothing is installed. The old
handler comes back at the end.

A run within a step of a run in the same thread has a handler of its own, which tells the outer one: the signal ends
both.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes enums of handlers, which takes longer than the call
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType
    from typing import Protocol, Self

    class Cancellable(Protocol):
        """Steps that may still begin."""

        def clear(self) -> None:
            """Let nothing of it begin."""


class InterruptHandler:
    """Notes SIGINT during a run.

    Attributes:
        requested: Whether the signal has come.
        raises: Whether it raises at once.
        waits: Whether it raises nowhere, be it the second.
        pending: Steps that the signal removes.
    """

    def __init__(self) -> None:
        self.requested = False
        self.raises = self.waits = False
        self.pending: Cancellable | None = None
        self._before: Any = None

    def __enter__(self) -> Self:
        """Install the handler, in the main thread, unless the user has one."""
        if threading.current_thread() is threading.main_thread():
            handler = _signal.getsignal(_signal.SIGINT)
            if handler is _signal.default_int_handler or _run_of(handler) is not None:
                self._before = handler
                _signal.signal(_signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Bring the old handler back."""
        self._bring_back()
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if the signal has come."""
        if self.requested:
            raise KeyboardInterrupt

    def may_raise(self, pending: Cancellable | None = None) -> _SignalsEnabled:
        """Let the signal raise `KeyboardInterrupt` inside this block, also one that came before it.

        Args:
            pending: What is being called in this thread; the signal clears it, so that a step which swallows the
                exception is the last one.
        """
        return _SignalsEnabled(self, pending)

    def held_back(self) -> _SignalsDeferred:
        """Let no signal raise inside this block, which is short: descriptors get their owners in it."""
        return _SignalsDeferred(self)

    def _bring_back(self) -> None:
        if self._before is not None:
            _signal.signal(_signal.SIGINT, self._before)
            self._before = None

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        again = self.requested
        self.request()
        if self.waits:
            return
        if again:  # may hit `__exit__` before it has done anything
            self._bring_back()
        if self.raises or again:
            raise KeyboardInterrupt

    def request(self) -> None:
        """End the run as the signal does; from any thread."""
        self.requested = True
        if self.pending is not None:
            self.pending.clear()
        outer = _run_of(self._before)
        if outer is not None:
            outer.request()


class _SignalsEnabled:
    """A block in which the signal raises; `contextlib` would leave its frames in the traceback."""

    __slots__ = ("_before", "_interrupts", "_pending")

    def __init__(self, interrupts: InterruptHandler, pending: Cancellable | None) -> None:
        self._interrupts = interrupts
        self._pending = pending

    def __enter__(self) -> None:
        interrupts = self._interrupts
        self._before, interrupts.pending = interrupts.raises, self._pending
        try:
            interrupts.raises = True
            interrupts.check()
        except KeyboardInterrupt:
            interrupts.raises = self._before
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._interrupts.check()
        finally:
            self._interrupts.raises = self._before


class _SignalsDeferred:
    """A block in which no signal raises; not one in another."""

    __slots__ = ("_interrupts",)

    def __init__(self, interrupts: InterruptHandler) -> None:
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._interrupts.waits = True

    def __exit__(self, *_: object) -> None:
        self._interrupts.waits = False


def _run_of(handler: Any) -> InterruptHandler | None:
    """Return whose handler it is, if it is that of a run."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, InterruptHandler) else None
