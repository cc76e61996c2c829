"""The table of rows is true: every test that it names exists, and every test of a probe stands in it."""

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
    assert NAMED - names_in([*HERE.glob("test_*.py"), *HERE.parent.glob("test_*.py")]) == set()


def test_every_test_of_a_probe_stands_in_the_table() -> None:
    files = [file for file in HERE.glob("test_*.py") if file != Path(__file__)]
    assert names_in(files) - NAMED == set()
