"""The command in this process, in an empty folder; what executing a file changes is put back."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest
from cli_process import DAILY, Done

from flowyml.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Command = Callable[..., Done]


@pytest.fixture
def command(tmp_path: Path, monkeypatch, capsys) -> Iterator[Command]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    log, modules = logging.getLogger("flowyml"), set(sys.modules)

    def call(*words: str) -> Done:
        code = main(words)
        return Done(code, *capsys.readouterr())

    yield call
    log.filters.clear()
    for name in set(sys.modules) - modules:
        if not name.startswith("flowyml") and str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def daily(tmp_path: Path) -> str:
    (tmp_path / "daily.py").write_text(DAILY)
    return "daily.py"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    def written(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return name

    return written
