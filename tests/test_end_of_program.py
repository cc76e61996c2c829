"""How a program ends while a thread of an executor is still in a step that was given up."""

from __future__ import annotations

import subprocess
import sys

import pytest

GOES_ON = """
import sys, time
from flowyml import LocalExecutor, ParallelExecutor, Pipeline

def moody(*_):
    while True:
        time.sleep(0.0001)

pipeline = Pipeline("p")
{how}
pipeline.run(executor={executor})
"""
WAYS = {
    "as it was given": "pipeline.add_step(lambda x, y: moody(), 'moody', {'x': 1, 'y': 2}, timeout=0.1)",
    "with a lone parameter": "pipeline.add_step(lambda x: moody(), 'moody', {'x': 1}, timeout=0.1)",
    "with a value": "pipeline.add_step(lambda: 1, name='one').add_step(lambda one: moody(), 'moody', timeout=0.1)",
    "with an item": "pipeline.map(moody, [1], timeout=0.1)",
    "with a condition": "pipeline.add_step(moody, 'moody', condition=lambda: True, timeout=0.1)",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("executor", ["LocalExecutor()", "ParallelExecutor(2, 'thread')"])
def test_a_step_that_was_given_up_and_goes_on_does_not_spoil_the_end(executor: str, way: str) -> None:
    """Its thread finds the interpreter gone, wherever the loop has called it from."""
    script = GOES_ON.format(executor=executor, how=WAYS[way])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
