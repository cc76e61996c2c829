"""The first runs of a process, several at once: what they need is still being imported by one of them.

Each script runs in a fresh interpreter whose threads change as often as they can.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import asyncio, sys, threading
from flowyml import ParallelExecutor, Pipeline

sys.setswitchinterval(1e-6)

def one():
    return 1
"""

THREADS = """
told = []
gate = threading.Barrier(4)

def run():
    gate.wait()
    with ParallelExecutor(2, backend=BACKEND) as executor:
        told.append(Pipeline("p").add_step(one).run(executor=executor)["one"])

threads = [threading.Thread(target=run) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert told == [1] * 4, told
"""

GATHERED = """
async def all_at_once():
    executors = [ParallelExecutor(2, backend=BACKEND) for _ in range(4)]
    runs = [Pipeline("p").add_step(one).run_async(executor=executor) for executor in executors]
    told = [result["one"] for result in await asyncio.gather(*runs)]
    for executor in executors:
        executor.shutdown()
    assert told == [1] * 4, told

asyncio.run(all_at_once())
"""


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("script", [THREADS, GATHERED], ids=["threads", "gathered"])
def test_the_first_runs_may_begin_at_once(script: str, backend: str) -> None:
    code = f"BACKEND = {backend!r}\n{BEGIN}{script}"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
