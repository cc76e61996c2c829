"""The progress line drawn by rich, if it is installed: a coloured bar that fits the width of the terminal."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flowyml.progress.terminal import count_text, current_text, times_text, trouble_text

if TYPE_CHECKING:
    from flowyml.progress.display import Progress

_MAX_BAR_WIDTH = 40
_MIN_PART_WIDTH = 8  # less room is left empty


class RichRenderer:
    """Renders lines as strings; `TerminalLine` writes them, so printing costs no rendering."""

    def __init__(self) -> None:
        self._colours: Any = Console(file=sys.stderr).color_system

    def __call__(self, progress: Progress, width: int) -> str:
        """Return a line of at most `width` visible characters, with colour codes."""
        console = Console(
            file=io.StringIO(), width=width, force_terminal=True, color_system=self._colours, legacy_windows=False
        )
        bar = ProgressBar(
            total=max(1, progress.total + progress.open), completed=progress.done, width=min(_MAX_BAR_WIDTH, width // 4)
        )
        parts: list[Any] = [Text(progress.pipeline, style="bold"), bar, Text(count_text(progress))]
        left = width - sum(console.measure(part).maximum + 1 for part in parts)
        trouble = Text(trouble_text(progress), style="red" if progress.failed else "cyan")
        for part in (trouble, Text(times_text(progress), style="dim"), Text(current_text(progress, left), style="dim")):
            if part and left > _MIN_PART_WIDTH:
                part.truncate(left, overflow="ellipsis")
                parts.append(part)
                left -= part.cell_len + 1
        table = Table.grid(padding=(0, 1))
        for _ in parts:
            table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_row(*parts)
        with console.capture() as captured:
            console.print(table, end="", overflow="ellipsis", no_wrap=True)
        return captured.get().partition("\n")[0].rstrip(" ")
