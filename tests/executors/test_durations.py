"""The order of a second run follows what was measured in the first one."""

from __future__ import annotations

import time

import pytest

from flowyml import ParallelExecutor, Pipeline

SHORT, LONG = 0.002, 0.03


def wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def waits(name: str, *seconds: float) -> Pipeline:
    """A step for each of these, named by its place."""
    pipeline = Pipeline(name)
    for place, each in enumerate(seconds):
        pipeline.add_step(wait, f"s{place}", {"seconds": each})
    return pipeline


def begun(pipeline: Pipeline, executor: ParallelExecutor) -> list[str]:
    """Run it; return the names of the steps in the order in which they began."""
    results = pipeline.run(executor=executor).step_results
    return sorted(results, key=lambda name: results[name].started_at)


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_what_took_long_goes_first_the_next_time(backend):
    pipeline = waits("mixed", SHORT, SHORT, LONG)
    with ParallelExecutor(1, backend) as executor:
        assert begun(pipeline, executor) == ["s0", "s1", "s2"]
        assert begun(pipeline, executor)[0] == "s2"


def test_time_counts_to_the_end_of_what_waits_for_it():
    pipeline = waits("chain", SHORT, SHORT)
    pipeline.add_step(wait, "behind", {"seconds": LONG}, after=["s1"])
    pipeline.add_step(wait, "also", {"seconds": SHORT}, after=["s0"])
    with ParallelExecutor(1, "thread") as executor:
        assert begun(pipeline, executor)[0] == "s0"
        assert begun(pipeline, executor)[:2] == ["s1", "behind"]


def test_a_step_that_is_new_counts_as_the_mean():
    with ParallelExecutor(1, "thread") as executor:
        begun(waits("grows", SHORT, LONG), executor)
        assert begun(waits("grows", SHORT, LONG, 0.0), executor) == ["s1", "s2", "s0"]


def test_another_executor_and_another_pipeline_know_nothing_of_it():
    with ParallelExecutor(1, "thread") as executor, ParallelExecutor(1, "thread") as other:
        begun(waits("one", SHORT, LONG), executor)
        assert begun(waits("other", SHORT, LONG), executor) == ["s0", "s1"]
        assert begun(waits("one", SHORT, LONG), other) == ["s0", "s1"]


def test_steps_that_take_no_time_are_not_remembered():
    with ParallelExecutor(1, "thread") as executor:
        begun(waits("quick", *[0.0] * 1000), executor)
        assert executor._durations._seconds == {}
