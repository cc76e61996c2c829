"""Samples of a run's progress, the thread that takes them, and the choice of the display.

A sample is read from the counters of the scheduler, at any time and from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
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
    is_tty,
    line_of,
    times_text,
    trouble_text,
)
from flowyml.state import RUNNING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowyml.runtime.run import Run


# Running calls are searched among at most this many calls, and at most this many claimed ones (a batch has thousands).
_MAX_CALLS_SCANNED = 2_000_000
_MAX_CLAIMED_SCANNED = 20_000
MAX_NAMES = 3


class Progress(NamedTuple):
    """The progress of a run; items of mapped steps count individually.

    Attributes:
        pipeline: Name of the pipeline.
        total: Number of calls, as far as it is known.
        done: Number of calls that have ended, in any state.
        running: Number of busy workers.
        failed: Number of calls that failed or timed out.
        counts: Number of calls in each state, by its name.
        seconds: Time since the start of the run.
        current: Names of some running calls.
        open: True if the length of a mapped step is not known yet, so that `total` may grow.

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
        """The share of finished calls, from 0 to 1."""
        return self.done / self.total if self.total else 0.0

    def done_of(self, parts: int) -> int:
        """Return the share of finished calls as a number of parts; all of them only if nothing is left.

        >>> Progress("p", 500, 499, 1, 0, {}, 2.0, ("load",), open=False).done_of(100)
        99
        """
        whole = bool(self.total) and self.done >= self.total
        parts_done = parts * self.done // self.total if self.total else 0
        return parts - 1 if whole and self.open else parts_done

    @property
    def remaining(self) -> float | None:
        """Estimated seconds that are left at the same speed; `None` if there is no basis for an estimate."""
        free = sum(self.counts.get(state, 0) for state in ("cached", "given", "skipped"))
        worked = self.done - free
        if worked <= 0 or self.open:
            return None
        return self.seconds * (self.total - self.done) / worked


def sample(run: Run) -> Progress:
    """Return the current progress of a run."""
    scheduler = run.scheduler
    counts = scheduler.counts()
    total, unfinished = sum(counts.values()), scheduler.unfinished
    current = _current(run) if counts["running"] and total <= _MAX_CALLS_SCANNED else []
    return Progress(
        pipeline=run.plan.name,
        total=total,
        done=max(0, total - unfinished),
        running=len(current),
        failed=counts["failed"] + counts["timed_out"],
        counts=counts,
        seconds=time.monotonic() - run.started,
        current=tuple(run.item_name(item) for item in current[:MAX_NAMES]),
        open=bool(run.item_index.waiting),
    )


def _current(run: Run) -> list[int]:
    """Return for each worker the first call that it has claimed and not finished, which is the one it runs."""
    states, workers = run.scheduler.states(), memoryview(run.scheduler.workers()).cast("H")
    first: dict[int, int] = {}
    item, left = states.find(RUNNING), _MAX_CLAIMED_SCANNED
    while item >= 0 and left:
        first.setdefault(workers[item], item)
        item, left = states.find(RUNNING, item + 1), left - 1
    return list(first.values())


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal, Protocol

    from flowyml.runtime.run import Run

    class ProgressDisplay(Protocol):
        """Shows samples."""

        every: float

        def show(self, progress: Progress) -> None:
            """Show a sample in place of the last one."""

        def close(self, progress: Progress) -> None:
            """Show the last sample, and leave it there."""


_log = logging.getLogger("flowyml")
_active = threading.Lock()
_DELAY_SECONDS = 0.15  # shorter runs show nothing


@contextlib.contextmanager
def shown(run: Run, progress: Literal[True] | Callable[[Progress], object]) -> Iterator[None]:
    """Show the progress of a run during a block.

    Args:
        run: The run.
        progress: `True`, or a function that a thread calls with each sample.
    """
    if not _active.acquire(blocking=False):
        yield
        return
    run.reports_early = True  # finished steps show before their batch ends
    thread = _ProgressThread(run, _CallbackDisplay(progress) if callable(progress) else _choose_display())
    try:
        thread.start()
        yield
    finally:
        thread.stop()
        _active.release()


class _ProgressThread:
    """Samples a run periodically for a display."""

    def __init__(self, run: Run, display: ProgressDisplay) -> None:
        self._run = run
        self._display = display
        self._over = threading.Event()
        self._has_shown = False
        self._thread = threading.Thread(target=self._feed, name="flowyml-progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        if self._has_shown:
            self._call(lambda: self._display.close(sample(self._run)))

    def _feed(self) -> None:
        wait = max(_DELAY_SECONDS, self._display.every if isinstance(self._display, LogProgress) else 0.0)
        while not self._over.wait(wait):
            self._has_shown = True
            if not self._call(lambda: self._display.show(sample(self._run))):
                return
            wait = self._display.every

    def _call(self, show: Callable[[], None]) -> bool:
        """Call the display; an exception is logged once and ends the display, not the run."""
        try:
            show()
        except Exception:  # noqa: BLE001  a function of the user, or a closed terminal
            self._has_shown = False
            _log.warning(
                "progress: the display of run %r raised; the run continues without it", self._run.run_id, exc_info=True
            )
            return False
        return True


def _choose_display() -> ProgressDisplay:
    """Return the best display for this environment."""
    if in_notebook():
        return NotebookProgress()
    if not is_tty(sys.stderr) or os.environ.get("TERM") == "dumb":
        return LogProgress()
    try:
        from flowyml.progress.rich_renderer import RichRenderer
    except ImportError:
        return TerminalLine()
    return TerminalLine(RichRenderer())


def in_notebook() -> bool:
    """Return True in a notebook, which is an IPython with a kernel."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if get_ipython is None else get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class _CallbackDisplay:
    every = 0.2

    def __init__(self, function: Callable[[Progress], object]) -> None:
        self._function = function

    def show(self, progress: Progress) -> None:
        self._function(progress)

    def close(self, progress: Progress) -> None:
        self._function(progress)


class NotebookProgress:
    """A bar below the cell: one output that is updated, as HTML and as plain text."""

    every = 0.25

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, progress: Progress) -> None:
        """Draw the bar."""
        display = sys.modules["IPython"].display
        bundle = {"text/html": _bar(progress), "text/plain": line_of(progress, 100)}
        if self._handle is None:
            self._handle = display.display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def close(self, progress: Progress) -> None:
        """Draw the bar for the last time."""
        self.show(progress)


def _bar(progress: Progress) -> str:
    details = ", ".join(filter(None, (times_text(progress), trouble_text(progress), current_text(progress))))
    colour = "#d93b36" if progress.failed else "#5b8def"
    return (
        f'<div style="font:13px/1.4 sans-serif"><b>{escape(progress.pipeline)}</b> {count_text(progress)} '
        f'<span style="opacity:.7">{escape(details)}</span><div style="height:6px;border-radius:3px;max-width:480px;'
        f'background:#8883"><div style="height:6px;border-radius:3px;width:{progress.done_of(1000) / 10:.1f}%;'
        f'background:{colour}"></div></div></div>'
    )
