"""`max_tasks_per_worker`: workers that leak are replaced after so many steps, and no step is lost over it."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import worker_pools

from flowyml import ParallelExecutor, Pipeline


def pid_of(_: Any) -> int:
    return os.getpid()


@pytest.mark.parametrize(("most", "workers"), [(1, 2), (7, 1), (50, 3)])
def test_no_worker_runs_more_steps_and_none_is_lost(mark: str, most: int, workers: int) -> None:
    count = 20 * most if most < 10 else 400

    def work(i: int) -> tuple[int, int]:
        return i, os.getpid()

    with ParallelExecutor(workers, max_tasks_per_worker=most) as executor:
        result = Pipeline("renewal").map(work, range(count), name="w").run(executor=executor)
    values = list(result["w"])
    assert [i for i, _ in values] == list(range(count))
    assert {item.attempts for item in result.step_results["w"].items} == {1}
    assert max(Counter(pid for _, pid in values).values()) == most
    assert {item.worker for item in result.step_results["w"].items} <= set(range(workers))
    assert mark


def test_it_counts_over_several_runs() -> None:
    with ParallelExecutor(1, max_tasks_per_worker=3) as executor:
        pids = [Pipeline("p").add_step(pid_of, "pid", {"_": 0}).run(executor=executor)["pid"] for _ in range(7)]
    assert [len(set(pids[k : k + 3])) for k in (0, 3, 6)] == [1, 1, 1]
    assert len(set(pids)) == 3


def test_a_worker_ends_by_itself(tmp_path: Path) -> None:
    """What a step registered with `atexit` runs, as at the end of any process."""

    def registers(i: int, folder: str) -> int:
        atexit.register(Path(folder, str(i)).touch)
        return i

    with ParallelExecutor(2, max_tasks_per_worker=1) as executor:
        pipeline = Pipeline("p").map(registers, range(4), name="m", params={"folder": str(tmp_path)})
        assert list(pipeline.run(executor=executor)["m"]) == [0, 1, 2, 3]
        assert worker_pools.eventually(lambda: len(list(tmp_path.iterdir())) == 4)


def test_a_worker_that_does_not_end_is_killed(mark: str) -> None:
    def leaves_a_thread(_: int) -> int:
        threading.Thread(target=time.sleep, args=(1_000,), daemon=False).start()
        return os.getpid()

    with ParallelExecutor(1, max_tasks_per_worker=1) as executor:
        pids = list(Pipeline("p").map(leaves_a_thread, range(3), name="m").run(executor=executor)["m"])
        again = Pipeline("p").map(leaves_a_thread, range(3), name="m").run(executor=executor)
        assert len({*pids, *again["m"]}) == 6
    assert mark


def test_crashes_and_timeouts_count_as_ever(tmp_path: Path) -> None:
    def work(i: int, folder: str) -> int:
        with Path(folder, str(i)).open("a") as file:
            file.write("x")
        if i % 10 == 3:
            os._exit(1)
        if i % 10 == 7:
            time.sleep(60)
        return i

    with ParallelExecutor(2, max_tasks_per_worker=4, timeout=0.5) as executor:
        pipeline = Pipeline("p").map(work, range(40), name="m", params={"folder": str(tmp_path)})
        result = pipeline.run(executor=executor)
    states = [str(item.state) for item in result.step_results["m"].items]
    assert states == [{3: "failed", 7: "timed_out"}.get(i % 10, "success") for i in range(40)]
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {1}
