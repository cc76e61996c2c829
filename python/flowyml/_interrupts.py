"""Ctrl-C during a run.

In the main thread, and only where SIGINT still has Python's own handler, a run notes the signal instead of letting a
`KeyboardInterrupt` hit its bookkeeping half way. Where it waits or runs the user's code (`may_raise`), and at the
second signal anywhere, the exception is raised at once. Elsewhere nothing is installed. The old handler comes back at
the end.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Self


class Interrupts:
    """Notes SIGINT while a run goes on.

    Attributes:
        requested: Whether the signal has come.
    """

    def __init__(self) -> None:
        """Start without a handler."""
        self.requested = False
        self._raises = False
        self._installed = False

    def __enter__(self) -> Self:
        """Install the handler, where that is ours to do."""
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._installed = True
        return self

    def __exit__(self, *_: object) -> None:
        """Bring the old handler back."""
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._installed = False

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if self._raises or again:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def may_raise(self) -> Iterator[None]:
        """Let the signal raise `KeyboardInterrupt` inside this block, also one that came before it."""
        before, self._raises = self._raises, True
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = before
