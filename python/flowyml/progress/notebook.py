"""Progress in a notebook: one output of the cell that changes, as a bar, and as text for those that draw none."""

from __future__ import annotations

import sys
from html import escape
from typing import TYPE_CHECKING, Any

from flowyml.progress.lines import count_text, current_text, line_of, times_text, trouble_text

if TYPE_CHECKING:
    from flowyml.progress.sampling import Progress


class NotebookView:
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
