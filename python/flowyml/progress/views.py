"""Which view a run gets, and the thread that feeds it."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

from flowyml.progress.lines import LineView, LogView
from flowyml.progress.sampling import sampled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal, Protocol

    from flowyml.progress.sampling import Progress
    from flowyml.running.run import Run

    class View(Protocol):
        """Shows how far a run is."""

        every: float

        def show(self, progress: Progress) -> None:
            """Show it anew."""

        def close(self, progress: Progress) -> None:
            """Show it for the last time, and leave it there."""


_log = logging.getLogger("flowyml")
_turn = threading.Lock()
# What ends sooner is not worth a bar.
_PATIENCE = 0.15


@contextlib.contextmanager
def shown(run: Run, progress: Literal[True] | Callable[[Progress], object]) -> Iterator[None]:
    """Show how far a run is as long as the block lasts.

    Args:
        run: The run.
        progress: `True`, or a function that is called with each sample, in a thread.
    """
    if not _turn.acquire(blocking=False):
        yield
        return
    run.prompt = True  # what has ended is to be seen, although its batch has not
    feed = _Feed(run, _FunctionView(progress) if callable(progress) else _view())
    try:
        feed.start()
        yield
    finally:
        feed.stop()
        _turn.release()


class _Feed:
    """Looks at a run again and again, and tells a view."""

    def __init__(self, run: Run, view: View) -> None:
        self._run = run
        self._view = view
        self._over = threading.Event()
        self._showing = False
        self._thread = threading.Thread(target=self._feed, name="flowyml-progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        if self._showing:
            self._guarded(lambda: self._view.close(sampled(self._run)))

    def _feed(self) -> None:
        wait = max(_PATIENCE, self._view.every if isinstance(self._view, LogView) else 0.0)
        while not self._over.wait(wait):
            self._showing = True
            if not self._guarded(lambda: self._view.show(sampled(self._run))):
                return
            wait = self._view.every

    def _guarded(self, show: Callable[[], None]) -> bool:
        """Call a view; one that raises is told once, and is not called again: the run goes on."""
        try:
            show()
        except Exception:  # noqa: BLE001  of a function of the user's, or of a terminal that is gone
            self._showing = False
            _log.warning(
                "progress: the view of run %r raised; the run goes on without it", self._run.run_id, exc_info=True
            )
            return False
        return True


def _view() -> View:
    """Return the best view that there is here."""
    if in_notebook():
        from flowyml.progress.notebook import NotebookView

        return NotebookView()
    if not _is_terminal(sys.stderr):
        return LogView()
    try:
        from flowyml.progress.rich_bar import RichLine
    except ImportError:
        return LineView()
    return LineView(RichLine())


def _is_terminal(stream: Any) -> bool:
    import os

    try:
        return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # a stream of somebody else, or one that is closed
        return False


def in_notebook() -> bool:
    """Tell whether this is a notebook: an IPython with a kernel."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if get_ipython is None else get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class _FunctionView:
    """Hands each sample to a function of the user's."""

    every = 0.2

    def __init__(self, function: Callable[[Progress], object]) -> None:
        self._function = function

    def show(self, progress: Progress) -> None:
        self._function(progress)

    def close(self, progress: Progress) -> None:
        self._function(progress)
