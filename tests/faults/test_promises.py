"""docs/reliability.md names tests for each promise: they exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_each_promise_names_tests_that_exist(root: Path) -> None:
    """A test that is renamed or removed must not leave a promise behind that nothing holds."""
    text = (root / "docs" / "reliability.md").read_text()
    known = {
        name
        for path in (root / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    }
    promises = re.split(r"^\d+\. ", text.partition("\n## ")[0], flags=re.MULTILINE)[1:]
    assert len(promises) >= 17
    for promise in promises:
        named = set(re.findall(r"`(test_\w+)`", promise))
        assert named, promise
        assert named <= known, named - known
