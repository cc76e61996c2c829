"""How a program ends while a thread of an executor is still in a step, or if one lets a C++ exception through."""

from __future__ import annotations

import ctypes
import signal
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


IN_ITEM = """
import threading, time
from array import array
from types import SimpleNamespace
from flowyml._core import Graph, Scheduler, ThreadCallLoop

inside = threading.Event()

class Table:
    def __getitem__(self, index):
        inside.set()
        while True:
            time.sleep(0.0001)

scheduler, turn = Scheduler(Graph([""], array("I", [3]), array("I"), array("I"))), ThreadCallLoop()
turn.begin(scheduler.claim(0, 3, 1.0), 1.0)
template = SimpleNamespace(direct=False, single=True, function=abs)
steps = ([template], [None], {}, {0: Table()}, None, False)
call = lambda: turn.call(steps, [None] * 3, print, print, 1.0, type(None), frozenset())
threading.Thread(target=call, daemon=True).start()
inside.wait()
"""


def test_a_daemon_thread_that_reads_an_item_does_not_spoil_the_end() -> None:
    """Items of a zip or a product come from methods in Python, which the end of the interpreter may find running."""
    done = subprocess.run([sys.executable, "-c", IN_ITEM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


THROWS = """
import ctypes
from flowyml import LocalExecutor, ParallelExecutor, Pipeline, WorkerLostError

def throws():
    ctypes.PyDLL("libstdc++.so.6")._ZSt17__throw_bad_allocv()

result = Pipeline("p").add_step(throws).add_step(lambda: 1, "other").run(executor={executor})
assert isinstance(result.step_results["throws"].exception, WorkerLostError), result.summary()
assert result["other"] == 1
"""


def _has_libstdcxx() -> bool:
    try:
        return hasattr(ctypes.PyDLL("libstdc++.so.6"), "_ZSt17__throw_bad_allocv")
    except OSError:
        return False


@pytest.mark.skipif(not _has_libstdcxx(), reason="there is no C++ library that throws")
@pytest.mark.parametrize("executor", ["LocalExecutor()", "ParallelExecutor(2, 'thread')"])
def test_a_cxx_exception_in_this_process_ends_it_with_a_message(executor: str) -> None:
    """The interpreter cannot continue, and must not hang with its lock held."""
    done = subprocess.run([sys.executable, "-c", THROWS.format(executor=executor)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGABRT
    assert "a C++ exception left the function of a step" in done.stderr


@pytest.mark.skipif(not _has_libstdcxx(), reason="there is no C++ library that throws")
def test_a_cxx_exception_in_a_worker_process_costs_its_step_alone() -> None:
    done = subprocess.run([sys.executable, "-c", THROWS.format(executor="ParallelExecutor(2)")], capture_output=True)
    assert done.returncode == 0, done.stderr
