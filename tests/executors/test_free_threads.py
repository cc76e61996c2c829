"""Nothing needs Python's global lock: what threads share holds without it, and where it is off it stays off."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowyml import step
from flowyml.planning.item_index import ItemIndex
from flowyml.registry import registered
from flowyml.store.value_store import ValueStore

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()

EVERYWHERE = """
import sys
from flowyml import LocalExecutor, ParallelExecutor, Pipeline

executors = [LocalExecutor(), *(ParallelExecutor(2, backend=each) for each in ("thread", "async", "process"))]
for executor in executors:
    with executor:
        assert list(Pipeline("p").map(abs, range(-500, 0)).run(executor=executor)["abs"]) == list(range(500, 0, -1))
    assert not sys._is_gil_enabled(), executor
"""


@pytest.mark.skipif(not FREE_THREADED, reason="this Python has a global lock")
def test_the_lock_stays_off():
    done = subprocess.run([sys.executable, "-W", "error", "-c", EVERYWHERE], text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_that_look_at_a_value_at_once_get_one_object():
    values, both = ValueStore(ItemIndex(1, None)), threading.Barrier(2)
    values.raw[0] = b"encoded"

    def decode(_raw, _item):
        both.wait(10)
        return object()

    values.decode = decode
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(values.read, [0, 0])
    assert first is second is values.read(0)


def test_steps_may_be_made_in_any_thread():
    def made(thread):
        return [step(lambda: None, name=f"made_{thread}_{k}", pipeline="of threads") for k in range(800)]

    with ThreadPoolExecutor(4) as pool:
        kept = [each for some in pool.map(made, range(4)) for each in some]
    assert set(registered("of threads")) >= set(kept)


def test_a_layout_that_grows_is_kept_in_lists():
    """Other threads read it meanwhile, and an `array` moves its memory when it grows."""
    grown = ItemIndex(2, None).of_run(grows=True)
    before = grown.firsts
    grown.add([3] * 100, range(2, 102))
    assert (type(before), before is grown.firsts, grown.items_of(101)) == (list, True, range(299, 302))
