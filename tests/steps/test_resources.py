"""resources= and tag_limits=: what running steps take together is never more than there is."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml import LocalExecutor, ParallelExecutor, Pipeline, PipelineValidationError, Step, step

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKENDS = ["process", "thread", "async"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def work(i: int, folder: str, seconds: float = 0.02) -> int:
    """Note when it begins and ends."""
    began = time.monotonic()
    time.sleep(seconds)
    with Path(folder, f"{os.getpid()}-{i}-{began}").open("w") as file:
        file.write(f"{began} {time.monotonic()}")
    return i


def most_at_once(folder: Path, names: set[int] | None = None) -> int:
    """Return how many were running at the same time at the most."""
    events = []
    for path in folder.iterdir():
        if names is None or int(path.name.split("-")[1]) in names:
            began, ended = map(float, path.read_text().split())
            events += [(began, 1), (ended, -1)]
    running = most = 0
    for _, change in sorted(events):
        running += change
        most = max(most, running)
    return most


def test_a_total_is_never_exceeded(backend: str, tmp_path: Path) -> None:
    """Four workers, two tokens: two at once, and two indeed."""
    with ParallelExecutor(4, backend, resources={"api": 2}) as executor:
        pipeline = Pipeline("p").map(work, range(30), params={"folder": str(tmp_path)}, resources={"api": 1})
        assert list(pipeline.run(executor=executor, raise_on_failure=True)["work"]) == list(range(30))
    assert most_at_once(tmp_path) == 2


def test_steps_that_take_more_leave_room_for_fewer(backend: str, tmp_path: Path) -> None:
    with ParallelExecutor(4, backend, resources={"cpu": 3}) as executor:
        pipeline = Pipeline("p")
        for i in range(20):
            params = {"i": i, "folder": str(tmp_path)}
            pipeline.add_step(work, f"w{i}", params, resources={"cpu": 2 if i % 2 else 1.5})
        assert pipeline.run(executor=executor).success
    assert most_at_once(tmp_path, {i for i in range(20) if i % 2}) == 1
    assert most_at_once(tmp_path) <= 2


def test_tags_are_limited(backend: str, tmp_path: Path) -> None:
    """Only those that have the tag."""
    with ParallelExecutor(4, backend, tag_limits={"db": 1}) as executor:
        pipeline = Pipeline("p")
        for i in range(16):
            params = {"i": i, "folder": str(tmp_path)}
            pipeline.add_step(work, f"w{i}", params, tags=["db"] if i < 8 else ["other"])
        assert pipeline.run(executor=executor).success
    assert most_at_once(tmp_path, set(range(8))) == 1
    assert most_at_once(tmp_path) > 1


def test_coroutines_are_limited(tmp_path: Path) -> None:
    running = most = 0

    async def wait(i: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        return i

    with ParallelExecutor(50, "async", resources={"connection": 5}) as executor:
        result = Pipeline("p").map(wait, range(60), resources={"connection": 1}).run(executor=executor)
    assert list(result["wait"]) == list(range(60))
    assert most == 5


def fail(i: int) -> int:
    if i % 3 == 0:
        raise ValueError(i)
    return i


def test_failures_and_retries_give_back_what_they_took(backend: str) -> None:
    with ParallelExecutor(3, backend, resources={"api": 1}) as executor:
        for _ in range(2):
            result = Pipeline("p").map(fail, range(30), resources={"api": 1}, retry=1).run(executor=executor)
            assert result.step_results["fail"].items[1].success
            assert len(result.failed) == 10


def die(i: int) -> int:
    if i == 5:
        os._exit(1)
    return i


def test_a_crash_gives_back_what_it_took() -> None:
    with ParallelExecutor(2, resources={"api": 1}) as executor:
        result = Pipeline("p").map(die, range(20), resources={"api": 1}).run(executor=executor)
    assert [each.step_name for each in result.failed] == ["die[5]"]


@pytest.mark.parametrize("backend", ["thread", "async"])
def test_a_thread_that_was_left_behind_keeps_what_it_took(backend: str, tmp_path: Path) -> None:
    """Until it really ends: until then what it takes is not there."""
    with ParallelExecutor(3, backend, resources={"api": 1}) as executor:
        pipeline = Pipeline("p")
        params = {"i": 0, "folder": str(tmp_path), "seconds": 0.5}
        pipeline.add_step(work, "slow", params, resources={"api": 1}, timeout=0.1)
        pipeline.add_step(work, "next", {"i": 1, "folder": str(tmp_path)}, resources={"api": 1})
        result = pipeline.run(executor=executor)
    assert str(result.step_results["slow"].state) == "timed_out"
    assert result.step_results["next"].success
    assert most_at_once(tmp_path) == 1


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"cpu": 99}, r"'s' requires 99 cpu, the executor has 2 cpu in all"),
        ({"memory": "8GiB"}, r"requires 8.0 GiB of memory, the executor has 1.0 GiB"),
        ({"cpus": 1}, r"requires 1 cpus, of which the executor has no total; did you mean 'cpu'\?"),
    ],
)
def test_what_can_never_be_had_is_a_build_error(backend: str, resources: Any, words: str) -> None:
    """Before anything runs, with the steps' names."""
    with (
        ParallelExecutor(2, backend, resources={"cpu": 2, "memory": "1GiB"}) as executor,
        pytest.raises(PipelineValidationError, match=words),
    ):
        Pipeline("p").add_step(lambda: 1, "s", resources=resources).run(executor=executor)


def test_cpus_and_memory_are_detected() -> None:
    with ParallelExecutor(2, "thread") as executor:
        step_ = {"cpu": 1, "memory": "1MiB"}
        assert Pipeline("p").add_step(lambda: 1, "s", resources=step_).run(executor=executor).success
        with pytest.raises(PipelineValidationError, match="requires 100000 cpu"):
            Pipeline("p").add_step(lambda: 1, "s", resources={"cpu": 100_000}).run(executor=executor)


def test_the_local_executor_runs_one_step_at_a_time_anyway() -> None:
    assert Pipeline("p").add_step(lambda: 1, "s", resources={"api": 7}).run(executor=LocalExecutor()).success


def test_a_step_tells_what_it_takes() -> None:
    @step(resources={"cpu": 0.5, "memory": "2MB"})
    def train() -> None: ...

    assert train.resources == {"cpu": 0.5, "memory": 2 * (1 << 20)}


@pytest.fixture(scope="module")
def threads() -> Iterator[ParallelExecutor]:
    with ParallelExecutor(4, "thread", resources={"a": 2, "b": 3}, tag_limits={"t": 2}) as executor:
        yield executor


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.booleans(), st.integers(0, 3), st.booleans()),
        min_size=1,
        max_size=25,
    )
)
@settings(max_examples=examples(20, 60))
def test_no_mix_of_demands_deadlocks(threads: ParallelExecutor, steps: list[tuple[int, int, bool, int, bool]]) -> None:
    """Whatever each takes, whatever waits for what, whatever fails: the run ends, with the states of any other."""
    pipeline = Pipeline("p")
    for i, (a, b, tagged, back, fails) in enumerate(steps):
        wants = {name: amount for name, amount in {"a": a, "b": b}.items() if amount}
        after = [f"s{i - back}"] if back and i >= back else []
        params = {"i": 3 if fails else 1}
        pipeline.add_step(fail, f"s{i}", params, after=after, resources=wants or None, tags=["t"] if tagged else None)
    got = pipeline.run(executor=threads)
    wanted = pipeline.run()
    assert {name: each.state for name, each in got.step_results.items()} == {
        name: each.state for name, each in wanted.step_results.items()
    }


def test_amounts_are_read_as_the_pages_of_2_x_write_them() -> None:
    def took(**resources: Any) -> dict[str, float]:
        return Step(abs, resources=resources).resources

    assert took(cpu="500m", memory="16Gi") == {"cpu": 0.5, "memory": 16 << 30}
    assert took(gpu="nvidia-tesla-v100", gpu_count=2) == took(gpu={"gpu_type": "v100", "count": 2}) == {"gpu": 2}
    assert took(gpu="nvidia-tesla-v100", cpu="4") == {"cpu": 4, "gpu": 1}
    assert took(gpu="2", gpu_count=3) == {"gpu": 2, "gpu_count": 3}  # a number is a number, and any name a resource
