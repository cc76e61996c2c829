"""Notes that steps leave of having run, in a file, which processes share.

A module of its own, without imports, since each worker that runs such a step imports it.
"""

from __future__ import annotations

from pathlib import Path

LOG = "log"


def note(folder: str, what: object) -> None:
    """Note something."""
    with (Path(folder) / LOG).open("a") as file:
        file.write(f"{what}\n")


def ran(folder: Path) -> list[str]:
    """Return what has run since the last question, in any order."""
    log = folder / LOG
    lines = sorted(log.read_text().splitlines()) if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def noted(folder: str, i: int) -> int:
    """Note a number and return it."""
    note(folder, i)
    return i


def kept(i: int, folder: str) -> int:
    """Note a number and return it, as the function of a mapped step."""
    return noted(folder, i)


def executions(folder: Path) -> list[int]:
    """Return the numbers that were noted, in order, once for each execution."""
    return sorted(map(int, ran(folder)))
