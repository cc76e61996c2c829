"""Drivers that are killed with SIGKILL at random moments: what had ended never runs again, and the end is the same.

FLOWYML_KILLS=25 kills each kind of executor in each mode so many times (`make soak` does); without it a few must do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import product

import kills
import pytest

KILLS = int(os.environ.get("FLOWYML_KILLS", "3"))
FEW = [
    ("local 1", "window"),
    ("thread 3", "hooks"),
    ("process 1", "always"),
    ("process 3", "window"),
    ("async 3", "cache"),
]
CASES = list(product(kills.KINDS, kills.MODES)) if "FLOWYML_KILLS" in os.environ else FEW


@pytest.mark.timeout(60 + 8 * KILLS)
@pytest.mark.parametrize(("kind", "mode"), CASES)
def test_what_had_ended_never_runs_again_and_the_end_is_the_same(tmp_path, kind, mode):
    tally = kills.campaign(tmp_path, kind, mode, KILLS)
    assert not tally.wrong
    assert tally.kills >= KILLS
    assert tally.runs


@pytest.mark.parametrize("executor", ["LocalExecutor()", "ParallelExecutor(2, 'thread')", "ParallelExecutor(2)"])
def test_what_tiny_steps_have_ended_is_written_though_nothing_follows(tmp_path, executor):
    """They wait to be written together, but not for the step behind them, which takes the driver along."""
    script = f"""
import os, signal, time
from flowyml import *
def tiny(before=0):
    open("log", "a").write(".")
    return before + 1
def deadly(before, driver):
    time.sleep(0.3)
    if not os.path.exists("killed"):
        open("killed", "x").close()
        os.kill(driver, signal.SIGKILL)
        time.sleep(60)
    return before
pipeline = Pipeline("tiny", enable_checkpointing=True).add_step(tiny, "0")
for k in range(1, 100):
    pipeline.add_step(tiny, str(k), inputs=[str(k - 1)])
pipeline.add_step(deadly, inputs=["99"], params={{"driver": os.getpid()}})
with {executor} as executor:
    print(pipeline.run(executor=executor)["deadly"])
"""
    first, second = (
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True) for _ in range(2)
    )
    assert (first.returncode, second.stdout) == (-signal.SIGKILL, "100\n"), second.stderr
    assert (tmp_path / "log").read_text() == "." * 100
