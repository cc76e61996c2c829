"""The table of rows is true: every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
NAMED = set(re.findall(r"`(test_\w+)`", (HERE / "README.md").read_text(encoding="utf-8")))


def names_in(files: list[Path]) -> set[str]:
    """Return the names of the tests of some files."""
    return {
        name
        for file in files
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_every_test_that_the_table_names_exists() -> None:
    assert NAMED - names_in([*HERE.parent.rglob("test_*.py")]) == set()
