"""Probes A1 to A9: what the page promises and 2.2.1 does not do."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pandas as pd
import pytest

import flowyml
from flowyml import Executor, LocalExecutor, ParallelExecutor, Pipeline, parallel_map, step


@step
def process_chunk(chunk_id: int) -> str:
    return f"processed_{chunk_id}"


def five_chunks(**keywords: Any) -> Pipeline:
    pipeline = Pipeline("parallel_processing", **keywords)
    for i in range(5):
        pipeline.add_step(process_chunk, name=f"chunk_{i}", params={"chunk_id": i})
    return pipeline


def where() -> tuple[int, int]:
    time.sleep(0.05)
    return os.getpid(), threading.get_ident()


def slow_square(x: int) -> int:
    time.sleep(0.02 * (4 - x))
    return x * x


def test_A1_one_step_is_added_many_times_by_name_with_params(executor: Any) -> None:
    result = five_chunks().run(executor=executor)
    assert dict(result.outputs) == {f"chunk_{i}": f"processed_{i}" for i in range(5)}


def test_A1_wrong_params_and_names_are_errors() -> None:
    with pytest.raises(flowyml.PipelineValidationError, match="unknown parameter 'chunk' in params; did you mean"):
        Pipeline("p").add_step(process_chunk, params={"chunk": 1}).build()
    with pytest.raises(flowyml.PipelineValidationError, match="Missing required parameters: \\['chunk_id'\\]"):
        Pipeline("p").add_step(process_chunk).run()
    with pytest.raises(flowyml.PipelineValidationError, match=r"'chunk_0' was added already at .* and again at"):
        five_chunks().add_step(process_chunk, name="chunk_0", params={"chunk_id": 0})


@pytest.mark.parametrize(("backend", "elsewhere"), [("process", 0), ("thread", 1)])
def test_A2_the_executor_of_run_is_the_one_that_runs(backend: Any, elsewhere: int) -> None:
    pipeline = Pipeline("p", executor=LocalExecutor()).add_step(where)
    here = pipeline.run()["where"]
    assert here == (os.getpid(), threading.get_ident())
    with ParallelExecutor(2, backend=backend) as executor:
        there = pipeline.run(executor=executor)["where"]
    assert there[elsewhere] != here[elsewhere]


def test_A2_an_executor_is_used_again() -> None:
    with ParallelExecutor(1) as executor:
        pids = {Pipeline("p").add_step(where).run(executor=executor)["where"][0] for _ in range(3)}
    assert len(pids) == 1


def test_A3_the_parallel_executor_is_an_executor_of_processes_by_default() -> None:
    executor = ParallelExecutor()
    assert isinstance(executor, Executor)
    assert (executor.backend, executor.max_workers) == ("process", len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("workers", [0, -1])
def test_A3_less_than_one_worker_is_an_error(workers: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ParallelExecutor(max_workers=workers)


def test_A3_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'process', 'thread', 'async', got 'inline'"):
        ParallelExecutor(backend="inline")  # type: ignore[arg-type]


def test_A4_parallel_map_has_both_paths() -> None:
    from flowyml.utils.parallel import parallel_map as of_the_page

    assert of_the_page is parallel_map


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_A5_parallel_map_keeps_the_order_of_its_items(backend: Any) -> None:
    assert parallel_map(slow_square, iter(range(4)), max_workers=4, backend=backend) == [0, 1, 4, 9]


def test_A6_num_workers_is_another_name_of_max_workers() -> None:
    assert parallel_map(slow_square, [1, 2], num_workers=2) == [1, 4]


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_A7_parallel_map_raises_the_first_error_or_returns_it(backend: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        parallel_map((10).__floordiv__, [1, 0, 5], backend=backend)
    one, error, two = parallel_map((10).__floordiv__, [1, 0, 5], backend=backend, on_error="return")
    assert (one, type(error), two) == (10, ZeroDivisionError, 2)


@pytest.mark.parametrize("backend", ["process", "thread"])
def test_A8_independent_steps_run_at_the_same_time(backend: Any, tmp_path: Any) -> None:
    def meet(me: int) -> int:
        (tmp_path / str(me)).touch()
        while len(list(tmp_path.iterdir())) < 3:
            time.sleep(0.005)
        return me

    pipeline = Pipeline("p")
    for i in range(3):
        pipeline.add_step(meet, name=f"meet_{i}", params={"me": i})
    with ParallelExecutor(3, backend=backend) as executor:
        assert list(pipeline.run(executor=executor).outputs.values()) == [0, 1, 2]


def test_A8_results_are_in_add_order_whatever_ends_first(executor: Any) -> None:
    pipeline = Pipeline("p")
    for i in range(4):
        pipeline.add_step(slow_square, name=f"square_{i}", params={"x": i})
    assert list(pipeline.run(executor=executor).outputs.items()) == [(f"square_{i}", i * i) for i in range(4)]


def test_A9_a_pipeline_has_an_executor_of_its_own() -> None:
    with ParallelExecutor(2, backend="thread") as executor:
        assert five_chunks(executor=executor).run()["chunk_3"] == "processed_3"


def nested(x: int) -> list[int]:
    return parallel_map(abs, [-x, x])


def test_a_row_parallel_map_inside_a_step_ends(executor: Any) -> None:
    assert list(Pipeline("p").map(nested, range(4)).run(executor=executor)["nested"]) == [[i, i] for i in range(4)]


def means(seed: int) -> pd.Series:
    frame = pd.DataFrame({"a": [seed, 2.0], "b": [1.0, 3.0]})
    return frame.mean()


def test_a_row_a_step_returns_any_type(executor: Any) -> None:
    result = Pipeline("p").add_step(means, params={"seed": 4}).run(executor=executor)
    pd.testing.assert_series_equal(result["means"], pd.Series({"a": 3.0, "b": 2.0}))
