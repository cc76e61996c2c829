"""The demo: a short year gives the same answer everywhere, and the demo says so where it does not."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

MONTHS = 2
RESAMPLES = 20


@pytest.fixture(scope="module")
def demo(root: Path) -> ModuleType:
    """The demo as a module."""
    spec = importlib.util.spec_from_file_location("flights", root / "examples" / "flights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_short_year(root: Path, tmp_path: Path) -> None:
    script = [str(root / "examples" / "flights.py"), "--months", str(MONTHS), "--resamples", str(RESAMPLES)]
    env = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, *script], env=env, text=True, capture_output=True, timeout=50)

    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert re.search(r"^JetBlue Airways +8530 ", done.stdout, flags=re.MULTILINE)
    assert re.findall(r"^(\w+) +success +[\d.]+$", done.stdout, flags=re.MULTILINE) == ["month_01", "month_02", "year"]
    assert len(re.findall(r" [\d.]+  equal$", done.stdout, flags=re.MULTILINE)) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_different_answer_is_told(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    files = demo.write_months(tmp_path, 1)
    monkeypatch.setattr(demo, "plain_loop", lambda files, _: demo.month_by_carrier(files[0], 1))
    assert not demo.compare(files, resamples=1, workers=1)
    assert capsys.readouterr().out.count("DIFFERENT") == 3
