"""docs/command-line.md is true: its commands run, in order, beside the file that it shows."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_the_commands_of_the_page_run(command, write, root: Path):
    page = (root / "docs" / "command-line.md").read_text(encoding="utf-8")
    write("daily.py", re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1])
    commands = re.findall(r"^\$ flowyml (.*)$", page, re.MULTILINE)
    for words in commands:
        done = command(*shlex.split(words.replace("--workers 2", "--backend thread --workers 2")))
        assert (words, done.code) == (words, 0), done.err
    assert len(commands) > 10


def test_every_option_of_run_is_in_the_page(command, root: Path):
    page = (root / "docs" / "command-line.md").read_text(encoding="utf-8")
    options = set(re.findall(r"(--[a-z-]+)", command("run", "--help").out)) - {"--help"}
    assert [option for option in sorted(options) if option not in page] == []
