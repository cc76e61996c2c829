"""Progress as text: one line that changes on a terminal, and a line now and then where nobody watches.

While the changing line stands there, what is printed goes above it: the streams that are the same terminal are wrapped,
the line is wiped before they write, and drawn again at the next sample. While something printed has no end of line yet,
the line waits.
"""

from __future__ import annotations

import shutil
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.progress.display import Progress

_WIPE = "\r\x1b[2K"
_MOST_NAMES = 40
_FULL, _EMPTY = "█", "─"
_FIRST_LINE, _LONGEST_PAUSE = 5.0, 300.0


def clock_text(seconds: float) -> str:
    """Return a time as a clock shows it.

    >>> clock_text(75), clock_text(7384)
    ('1:15', '2:03:04')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count_text(progress: Progress) -> str:
    """Return how much is done of how much."""
    return f"{progress.done:,}/{progress.total:,}{'+' if progress.open else ''}"


def trouble_text(progress: Progress) -> str:
    """Return what failed, what came from the cache and what was given, in words; "" if nothing."""
    parts = [(progress.failed, "failed"), *((progress.counts.get(word, 0), word) for word in ("cached", "given"))]
    return ", ".join(f"{count:,} {word}" for count, word in parts if count)


def current_text(progress: Progress, longest: int = _MOST_NAMES) -> str:
    """Return what is running, in words; "" if that is not known."""
    if not progress.current:
        return ""
    more = progress.running - len(progress.current)
    names = ", ".join(progress.current)
    names = names if len(names) <= longest else f"{names[: longest - 1]}…"
    return f"{names} and {more:,} more" if more > 0 else names


def times_text(progress: Progress) -> str:
    """Return how long it has been going on, and how long it may still take."""
    left = progress.remaining
    tail = f", {clock_text(left)} left" if left is not None and progress.done < progress.total else ""
    return f"{clock_text(progress.seconds)}{tail}"


def line_of(progress: Progress, width: int) -> str:
    """Return the whole line, of at most so many characters.

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
    """One line of a terminal that changes.

    Args:
        draw: Returns the line, of at most so many characters that can be seen.
    """

    every = 0.1

    def __init__(self, draw: Callable[[Progress, int], str] = line_of) -> None:
        """Wrap the streams of this terminal."""
        self._draw = draw
        self._lock = threading.RLock()
        self._out: Any = sys.stderr
        self._there = False
        self.open_end = False
        self._wrapped = [
            (name, _StreamAboveLine(stream, self))
            for name in ("stdout", "stderr")
            if _is_tty(stream := getattr(sys, name))
        ]
        for name, above in self._wrapped:
            setattr(sys, name, above)

    def show(self, progress: Progress) -> None:
        """Draw the line, unless somebody is in the middle of theirs."""
        with self._lock:
            if not self.open_end:
                self._write(_WIPE + self._draw(progress, shutil.get_terminal_size().columns - 1))
                self._there = True

    def write_above(self, stream: Any, text: str) -> int:
        """Write something of somebody else's where the line was."""
        with self._lock:
            if self._there:
                self._write(_WIPE)
                self._there = False
            if text:
                self.open_end = not text.endswith("\n")
            return int(stream.write(text) or 0)

    def close(self, progress: Progress) -> None:
        """Draw it for the last time, and give the streams back."""
        with self._lock:
            self._write("\n" if self.open_end else "")
            self.open_end = False
            self.show(progress)
            self._write("\n")
            self._there = False
        for name, above in self._wrapped:
            if getattr(sys, name) is above:  # who has wrapped it since then has to give it back first
                setattr(sys, name, above.stream)
            above.end()

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


class _StreamAboveLine:
    """A stream of the terminal, whose text goes above the line."""

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
        """Write as the stream does from now on: somebody may have kept this one."""
        self._view = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _is_tty(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


class LogProgress:
    """A line now and then, further and further apart: for logs, pipes and services."""

    def __init__(self) -> None:
        self.every = _FIRST_LINE

    def show(self, progress: Progress) -> None:
        """Write a line."""
        parts = (f"{count_text(progress)} done ({progress.done_of(100)} %)", trouble_text(progress))
        told = ", ".join(filter(None, (*parts, f"after {clock_text(progress.seconds)}")))
        sys.stderr.write(f"{progress.pipeline}: {told}\n")
        sys.stderr.flush()
        self.every = min(_LONGEST_PAUSE, 2 * self.every)

    def close(self, progress: Progress) -> None:
        """Write nothing more: how a run ended is told elsewhere."""
