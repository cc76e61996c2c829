"""Which view a run gets, and the thread that feeds it.

How far a run is: read from the counters of its scheduler, at any time, from any thread.

Progress in a notebook: one output of the cell that changes, as a bar, and as text for those that draw none.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from html import escape
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.progress.terminal import (
    LogProgress,
    TerminalLine,
    count_text,
    current_text,
    line_of,
    times_text,
    trouble_text,
)
from flowyml.state import RUNNING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowyml.runtime.run import Run


# The states of more calls than this are not looked through for those that are running.
_MOST_LOOKED_AT = 2_000_000
# ... and of those that are claimed, some thousands in a batch, no more than these.
_MOST_CLAIMED = 20_000
MOST_NAMED = 3


class Progress(NamedTuple):
    """How far a run is; items of mapped steps count one by one.

    Attributes:
        pipeline: Name of the pipeline.
        total: How many calls there are, as far as that is known.
        done: How many have ended, in whatever state.
        running: How many workers are at one.
        failed: How many failed or were timed out.
        counts: How many are in each state, by its name.
        seconds: How long the run has been going on.
        current: Names of some of the calls that are running.
        open: Whether there may be more calls: the length of some mapped step is not known yet.

    >>> Progress("p", 4, 1, 1, 0, {}, 2.0, ("load",), open=False).remaining
    6.0
    """

    pipeline: str
    total: int
    done: int
    running: int
    failed: int
    counts: Mapping[str, int]
    seconds: float
    current: tuple[str, ...]
    open: bool

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1."""
        return self.done / self.total if self.total else 0.0

    def done_of(self, parts: int) -> int:
        """Return how many of so many equal parts are done: all of them only if nothing is left.

        >>> Progress("p", 500, 499, 1, 0, {}, 2.0, ("load",), open=False).done_of(100)
        99
        """
        whole = bool(self.total) and self.done >= self.total
        parts_done = parts * self.done // self.total if self.total else 0
        return parts - 1 if whole and self.open else parts_done

    @property
    def remaining(self) -> float | None:
        """How many seconds are left if it goes on as it did; `None` if there is nothing to tell it from."""
        free = sum(self.counts.get(state, 0) for state in ("cached", "given", "skipped"))
        worked = self.done - free
        if worked <= 0 or self.open:
            return None
        return self.seconds * (self.total - self.done) / worked


def sampled(run: Run) -> Progress:
    """Look how far a run is."""
    scheduler = run.scheduler
    counts = scheduler.counts()
    total, unfinished = sum(counts.values()), scheduler.unfinished
    current = _current(run) if counts["running"] and total <= _MOST_LOOKED_AT else []
    return Progress(
        pipeline=run.plan.name,
        total=total,
        done=max(0, total - unfinished),
        running=len(current),
        failed=counts["failed"] + counts["timed_out"],
        counts=counts,
        seconds=time.monotonic() - run.started,
        current=tuple(run.item_name(item) for item in current[:MOST_NAMED]),
        open=bool(run.layout.waiting),
    )


def _current(run: Run) -> list[int]:
    """Return for each worker the first call that it has claimed and not ended: the one that it is at."""
    states, workers = run.scheduler.states(), memoryview(run.scheduler.workers()).cast("H")
    first: dict[int, int] = {}
    item, left = states.find(RUNNING), _MOST_CLAIMED
    while item >= 0 and left:
        first.setdefault(workers[item], item)
        item, left = states.find(RUNNING, item + 1), left - 1
    return list(first.values())


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal, Protocol

    from flowyml.runtime.run import Run

    class ProgressDisplay(Protocol):
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
    run.reports_early = True  # what has ended is to be seen, although its batch has not
    feed = _ProgressThread(run, _CallbackDisplay(progress) if callable(progress) else _view())
    try:
        feed.start()
        yield
    finally:
        feed.stop()
        _turn.release()


class _ProgressThread:
    """Looks at a run again and again, and tells a view."""

    def __init__(self, run: Run, view: ProgressDisplay) -> None:
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
        wait = max(_PATIENCE, self._view.every if isinstance(self._view, LogProgress) else 0.0)
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


def _view() -> ProgressDisplay:
    """Return the best view that there is here."""
    if in_notebook():
        return NotebookProgress()
    if not _is_terminal(sys.stderr):
        return LogProgress()
    try:
        from flowyml.progress.rich_renderer import RichRenderer
    except ImportError:
        return TerminalLine()
    return TerminalLine(RichRenderer())


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


class _CallbackDisplay:
    """Hands each sample to a function of the user's."""

    every = 0.2

    def __init__(self, function: Callable[[Progress], object]) -> None:
        self._function = function

    def show(self, progress: Progress) -> None:
        self._function(progress)

    def close(self, progress: Progress) -> None:
        self._function(progress)


class NotebookProgress:
    """A bar below the cell."""

    every = 0.25

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, progress: Progress) -> None:
        """Draw the bar."""
        display = sys.modules["IPython"].display
        shown = {"text/html": _bar(progress), "text/plain": line_of(progress, 100)}
        if self._handle is None:
            self._handle = display.display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def close(self, progress: Progress) -> None:
        """Draw it for the last time."""
        self.show(progress)


def _bar(progress: Progress) -> str:
    told = ", ".join(filter(None, (times_text(progress), trouble_text(progress), current_text(progress))))
    colour = "#d93b36" if progress.failed else "#5b8def"
    return (
        f'<div style="font:13px/1.4 sans-serif"><b>{escape(progress.pipeline)}</b> {count_text(progress)} '
        f'<span style="opacity:.7">{escape(told)}</span><div style="height:6px;border-radius:3px;max-width:480px;'
        f'background:#8883"><div style="height:6px;border-radius:3px;width:{progress.done_of(1000) / 10:.1f}%;'
        f'background:{colour}"></div></div></div>'
    )
