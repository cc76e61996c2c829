"""Progress as text: a line that is updated on a terminal, or log lines at growing intervals elsewhere.

While the updated line is shown, other output goes above it: the streams of the same terminal are wrapped, the line is
erased before they write, and drawn again with the next sample. While that output has an unfinished line, the progress
line is not drawn.
"""

from __future__ import annotations

import shutil
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.progress.display import Progress

_ERASE = "\r\x1b[2K"
_MAX_NAMES_LENGTH = 40
_FULL, _EMPTY = "█", "─"
_FIRST_LINE_SECONDS, _MAX_PAUSE_SECONDS = 5.0, 300.0


def clock_text(seconds: float) -> str:
    """Return a duration as a clock shows it.

    >>> clock_text(75), clock_text(7384)
    ('1:15', '2:03:04')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count_text(progress: Progress) -> str:
    """Return finished and total calls."""
    return f"{progress.done:,}/{progress.total:,}{'+' if progress.open else ''}"


def trouble_text(progress: Progress) -> str:
    """Return the numbers of failed, cached and given calls; "" if there are none."""
    parts = [(progress.failed, "failed"), *((progress.counts.get(word, 0), word) for word in ("cached", "given"))]
    return ", ".join(f"{count:,} {word}" for count, word in parts if count)


def current_text(progress: Progress, limit: int = _MAX_NAMES_LENGTH) -> str:
    """Return the names of running calls; "" if they are not known."""
    if not progress.current:
        return ""
    more = progress.running - len(progress.current)
    names = ", ".join(progress.current)
    names = names if len(names) <= limit else f"{names[: limit - 1]}…"
    return f"{names} and {more:,} more" if more > 0 else names


def times_text(progress: Progress) -> str:
    """Return the elapsed and the estimated remaining time."""
    left = progress.remaining
    tail = f", {clock_text(left)} left" if left is not None and progress.done < progress.total else ""
    return f"{clock_text(progress.seconds)}{tail}"


def line_of(progress: Progress, width: int) -> str:
    """Return the whole line, cut to `width` characters.

    >>> from flowyml.progress.display import Progress
    >>> line_of(Progress("etl", 4, 2, 1, 0, {}, 2.0, ("load",), open=False), 60)
    'etl ██████────── 2/4 0:02, 0:02 left, load'
    """
    parts = [times_text(progress), trouble_text(progress), current_text(progress)]
    full = progress.done_of(12)
    bar = _FULL * full + _EMPTY * (12 - full)
    line = f"{progress.pipeline} {bar} {count_text(progress)} {', '.join(filter(None, parts))}"
    return line if len(line) <= width else f"{line[: width - 1]}…"


class TerminalLine:
    """A line of the terminal that is updated in place.

    Args:
        draw: Returns the line for a sample and a maximum number of visible characters.
    """

    every = 0.1

    def __init__(self, draw: Callable[[Progress, int], str] = line_of) -> None:
        self._draw = draw
        self._lock = threading.RLock()
        self._out: Any = sys.stderr
        self._is_drawn = False
        self.has_open_line = False
        self._wrapped = [
            (name, _StreamAboveLine(stream, self))
            for name in ("stdout", "stderr")
            if is_tty(stream := getattr(sys, name))
        ]
        for name, above in self._wrapped:
            setattr(sys, name, above)

    def show(self, progress: Progress) -> None:
        """Draw the line, unless other output has an unfinished line."""
        with self._lock:
            if not self.has_open_line:
                self._write(_ERASE + self._draw(progress, shutil.get_terminal_size().columns - 1))
                self._is_drawn = True

    def write_above(self, stream: Any, text: str) -> int:
        """Write other output in place of the line."""
        with self._lock:
            if self._is_drawn:
                self._write(_ERASE)
                self._is_drawn = False
            if text:
                self.has_open_line = not text.endswith("\n")
            return int(stream.write(text) or 0)

    def close(self, progress: Progress) -> None:
        """Draw the line for the last time, and restore the streams."""
        with self._lock:
            self._write("\n" if self.has_open_line else "")
            self.has_open_line = False
            self.show(progress)
            self._write("\n")
            self._is_drawn = False
        for name, above in self._wrapped:
            if getattr(sys, name) is above:  # else another wrapper was installed since
                setattr(sys, name, above.stream)
            above.end()

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


class _StreamAboveLine:
    """A stream of the terminal whose output goes above the line."""

    def __init__(self, stream: Any, view: TerminalLine) -> None:
        self.stream = stream
        self._view: TerminalLine | None = view

    def write(self, text: str) -> int:
        view = self._view
        return int(self.stream.write(text) or 0) if view is None else view.write_above(self.stream, text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def end(self) -> None:
        """Write directly from now on: other code may still hold this stream."""
        self._view = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def is_tty(stream: Any) -> bool:
    """Return True if a stream is a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


class LogProgress:
    """A log line at growing intervals, for logs, pipes and services."""

    def __init__(self) -> None:
        self.every = _FIRST_LINE_SECONDS

    def show(self, progress: Progress) -> None:
        """Write a line."""
        parts = (f"{count_text(progress)} done ({progress.done_of(100)} %)", trouble_text(progress))
        details = ", ".join(filter(None, (*parts, f"after {clock_text(progress.seconds)}")))
        sys.stderr.write(f"{progress.pipeline}: {details}\n")
        sys.stderr.flush()
        self.every = min(_MAX_PAUSE_SECONDS, 2 * self.every)

    def close(self, progress: Progress) -> None:
        """Write nothing: the end of a run is logged elsewhere."""
