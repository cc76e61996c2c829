"""Notes that steps leave of having run, in a file, which processes share."""

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
