"""Tables and cells of the page. Every string of the user is escaped here."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MINUTE, _HOUR = 60, 3600


class Cell(NamedTuple):
    """A table cell.

    Attributes:
        html: Its content.
        kind: Its CSS class: "n" for numbers, which are right-aligned, "note" for longer strings.
    """

    html: str
    kind: str = ""


def text(value: object) -> Cell:
    """Return a cell with an escaped string."""
    return Cell(escape(str(value)))


def number(value: object) -> Cell:
    """Return a right-aligned cell."""
    return Cell(escape(str(value)), "n")


def note(value: object) -> Cell:
    """Return a cell for a longer string."""
    return Cell(escape(str(value)), "note")


def bar(share: float) -> Cell:
    """Return a cell with a bar of that share of the full width."""
    return Cell(f'<div class="bar"><i style="width:{100 * min(1.0, max(0.0, share)):.1f}%"></i></div>')


def state(word: str) -> Cell:
    """Return a cell with a state in its colour."""
    return Cell(f'<span class="{escape(word)}">{escape(word.replace("_", " "))}</span>')


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    """Yield the lines of a table; columns whose heading starts with ">" are right-aligned."""
    yield '<div class="scroll"><table><thead><tr>'
    yield "".join(
        f'<th class="n">{escape(head[1:])}</th>' if head[:1] == ">" else f"<th>{escape(head)}</th>" for head in heads
    )
    yield "</tr></thead><tbody>"
    for row in rows:
        cells = (f'<td class="{cell.kind}">{cell.html}</td>' if cell.kind else f"<td>{cell.html}</td>" for cell in row)
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def facts(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a row of highlighted values, each given as (label, value)."""
    yield '<div class="facts">'
    for label, value in pairs:
        yield f"<div><b>{escape(value)}</b><span>{escape(label)}</span></div>"
    yield "</div>"


def seconds(value: float) -> str:
    """Return a duration in units that suit its size.

    >>> seconds(0.0000032), seconds(0.0123), seconds(7.5), seconds(75.2), seconds(7384.0)
    ('3 µs', '12.3 ms', '7.50 s', '1 min 15 s', '2 h 03 min')
    """
    if value != value:  # noqa: PLR0124  NaN: it never ran
        return ""
    if value < 1e-3:  # noqa: PLR2004
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.1f} ms" if value < 0.1 else f"{value * 1e3:.0f} ms"  # noqa: PLR2004
    if value < _MINUTE:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"  # noqa: PLR2004
    whole = round(value)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
