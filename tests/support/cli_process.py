"""What the tests of the command share: a pipeline in a file, and the command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

DAILY = """
from flowyml import Pipeline, step

@step
def load(day):
    print("loading", day)
    return day

@step
def double(load, factor=2):
    return load * factor

pipeline = Pipeline("daily", context={"day": 1}).add_steps([load, double])
"""


class Done(NamedTuple):
    """What came of a call of the command."""

    code: int
    out: str
    err: str


def called(folder: Path, *words: str) -> Done:
    """Call the command in a process of its own, as from a crontab: no terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "flowyml", *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "NO_COLOR": "1"},
    )
    return Done(done.returncode, done.stdout, done.stderr)
