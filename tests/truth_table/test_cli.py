"""The rows of the command line; all of it is in tests/cli/."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PIPE = """
from flowyml import Pipeline
def load(k, n=1):
    return k, n
pipeline = Pipeline("pipe").add_step(load, cache=True)
"""


@pytest.fixture
def flowyml(tmp_path):
    (tmp_path / "pipe.py").write_text(PIPE)

    def call(*words):
        command = [sys.executable, "-m", "flowyml", *words]
        env = {**os.environ, "NO_COLOR": "1"}
        return subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=30)

    return call


def test_row_cli_a_file_is_run_with_the_documented_options(flowyml):
    """2.2.1 takes names only: "Looked in pipelines/pipe.py.py, pipe.py.py"."""
    rehearsed = flowyml("run", "pipe.py", "--context", "k=v", "--dry-run")
    assert (rehearsed.returncode, "Dry run: 1 step (1 call) would run" in rehearsed.stdout) == (0, True)
    done = flowyml("run", "pipe.py:pipeline", "--param", "k=v")
    assert (done.returncode, "Status: ✓ SUCCESS" in done.stderr) == (0, True)


def test_row_cli_cached_values_are_told_and_cleared(flowyml):
    flowyml("run", "pipe.py", "-c", "k=1")
    assert flowyml("cache", "stats").stdout.startswith(".flowyml/cache: 1 value, ")
    assert flowyml("cache", "clear", "--yes").stdout == "1 value removed from .flowyml/cache\n"
