"""Runs with dynamic steps: hooks, seeds, values that go, the cache, limits, threads; what processes are sent."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from dynamic_pipelines import add, error, making, numbers, refuse, same, total
from step_states import states

from flowyml import (
    ParallelExecutor,
    Pipeline,
    PipelineValidationError,
    RetryConfig,
    SerializationError,
    dynamic,
    get_context,
    map_task,
)

if TYPE_CHECKING:
    from pathlib import Path

    from flowyml import Executor


def test_hooks_and_handlers_hear_of_every_step(executor: Executor) -> None:
    heard: list[str] = []

    def build() -> Pipeline:
        return Pipeline("p").add_step(same, "fine", {"value": 1}).add_step(refuse, "bad")

    whole = making(build)
    whole.hooks.on_step_start(lambda step, _: heard.append(f"{step.name} began"))
    whole.hooks.on_step_end(lambda step, done: heard.append(f"{step.name} {done.state}"))
    whole.run(executor=executor)
    assert heard.count("made began") == 1
    assert sorted(heard) == [
        "made began",
        "made upstream_failed",
        "made.bad began",
        "made.bad failed",
        "made.fine began",
        "made.fine success",
    ]


def test_on_failure_inside_is_called() -> None:
    heard: list[str] = []

    def build() -> Pipeline:
        return Pipeline("p").add_step(refuse, on_failure=lambda error: heard.append(str(error)))

    making(build).run()
    assert heard == ["refused"]


def test_a_step_knows_itself_by_its_whole_name(executor: Executor) -> None:
    result = making(lambda: Pipeline("p").add_step(lambda: get_context().step_name, "who")).run(executor=executor)
    assert result["made"] == "made.who"


def draw() -> float:
    return get_context().rng.random()


def test_a_seed_gives_the_same_numbers(executor: Executor) -> None:
    def build() -> Pipeline:
        return Pipeline("p").add_step(draw)

    wanted = making(build).run(seed=1)["made"]
    assert making(build).run(seed=1, executor=executor)["made"] == wanted


@pytest.mark.parametrize("keep", ["leaves", ["raw"]])
def test_values_go_after_their_last_reader(keep: Any, executor: Executor) -> None:
    def build() -> Pipeline:
        return Pipeline("p").add_step(lambda raw: raw + 1, "one").add_step(lambda one: one + 1, "two")

    whole = Pipeline("whole").add_step(same, "raw", {"value": 1}).add_step(dynamic(build), "made", after="raw")
    result = whole.add_step(same, "last", inputs=["made"]).run(keep=keep, executor=executor)
    assert list(result.outputs) == ["raw", "last"]
    assert result["last"] == 3


def test_a_value_that_is_gone_cannot_be_read_any_more(executor: Executor) -> None:
    @dynamic
    def build(reader: int) -> Pipeline:
        return Pipeline("p").add_step(same, "late", inputs=["raw"])

    whole = (
        Pipeline("whole").add_step(same, "raw", {"value": 1}).add_step(same, "reader", inputs=["raw"]).add_step(build)
    )
    result = whole.run(keep="leaves", executor=executor)
    assert isinstance(error(result, "build"), PipelineValidationError)
    assert "'raw'" in str(error(result, "build"))
    assert whole.run(executor=executor)["build"] == 1


def test_steps_inside_are_cached_and_the_step_itself_is_not(executor: Executor, tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    def traced(value: int, runs: Path = runs) -> int:
        with runs.open("a") as file:
            file.write("x")
        return value + 1

    def build(count: int) -> Any:
        made = Pipeline("p").add_step(traced, "one", {"value": count}, cache=True)
        return made.add_step(add, "two", {"right": 1}, inputs=["one"], cache=True) if count else "none"

    whole = (
        Pipeline("whole", cache_dir=tmp_path / "cache")
        .add_step(dynamic(cache=True)(build))
        .add_step(traced, "last", inputs=["build"], cache=True)
    )
    for _ in range(2):
        result = whole.run({"count": 1}, executor=executor)
        assert (result["build"], result["last"]) == (3, 4)
    assert states(result) == {"build": "success", "build.one": "cached", "build.two": "cached", "last": "cached"}
    assert runs.read_text() == "xx"
    whole = Pipeline("whole", cache_dir=tmp_path / "cache").add_step(dynamic(cache=True)(build))
    assert [states(whole.run({"count": 0}, executor=executor))["build"] for _ in range(2)] == ["success", "cached"]


def test_what_refused_steps_give_on_has_its_name_again_at_the_next_attempt(tmp_path: Path) -> None:
    def build() -> Pipeline:
        tried = tmp_path / "tried"
        inner = Pipeline("inner").add_step(lambda: 1, "load", outputs=["raw"])
        made = Pipeline("made").add_sub_pipeline(inner, outputs=None if tried.exists() else ["raw"])
        if not tried.exists():
            made.add_step(same, "a", {"value": 1}, after=["b"]).add_step(same, "b", {"value": 1}, after=["a"])
        tried.touch()
        return made

    result = making(build, retry=RetryConfig(2, backoff=0)).run()
    assert result.step_results["made"].attempts == 2
    assert dict(result.outputs) == {"made": 1, "made.inner.raw": 1}


def test_a_step_after_refused_ones_is_cached_as_it_says(executor: Executor, tmp_path: Path) -> None:
    """It has the number that one of these had."""

    @dynamic
    def refused() -> Pipeline:
        made = Pipeline("refused").add_step(same, "cached", {"value": 1}, cache=True, after=["cycle"])
        return made.add_step(same, "cycle", {"value": 1}, after=["cached"])

    @dynamic
    def fine() -> Pipeline:
        return Pipeline("fine").add_step(same, "plain", {"value": 2})

    whole = Pipeline("whole", cache_dir=tmp_path).add_step(same, "kept", {"value": 0}, cache=True)
    whole.add_step(refused).add_step(fine, after=["refused", "kept"], run_if="any")
    results = [whole.run(executor=executor) for _ in range(3)]
    assert "cycle" in str(error(results[0], "refused"))
    assert [states(each)["fine.plain"] for each in results] == ["success"] * 3


@pytest.mark.parametrize("backend", ["thread", "process", "async"])
def test_resources_hold_for_steps_inside(backend: Any, tmp_path: Path) -> None:
    def alone(number: int, place: Path = tmp_path) -> int:
        (place / f"{number}").touch()
        time.sleep(0.02)
        most = len(list(place.iterdir()))
        (place / f"{number}").unlink()
        return most

    def build() -> Pipeline:
        made = Pipeline("p")
        for number in range(6):
            made.add_step(alone, f"n{number}", {"number": number}, resources={"api": 1}, tags="db")
        return made

    with ParallelExecutor(3, backend=backend, resources={"api": 1}) as limited:
        assert set(making(build).run(executor=limited)["made"].values()) == {1}
        result = making(lambda: Pipeline("p").add_step(same, "a", {"value": 1}, resources={"api": 2})).run(
            executor=limited
        )
        assert isinstance(error(result), PipelineValidationError)
        assert "api" in str(error(result))


@pytest.mark.parametrize("backend", ["thread", "process", "async"])
def test_steps_that_were_refused_leave_nothing_behind(backend: Any) -> None:
    """What they take, and what holds for their items, is nothing to those that come after them."""

    @dynamic
    def refused() -> Pipeline:
        made = Pipeline("refused").map(map_task(concurrency=1)(same), [1, 2], name="m")
        made.add_step(same, "fits", {"value": 1}, resources={"db": 1})
        return made.add_step(same, "does not", {"value": 1}, resources={"api": 2})

    @dynamic
    def fine() -> Pipeline:
        made = Pipeline("fine").map(same, [1, 2], name="m")
        return made.add_step(same, "fits", {"value": 3}, resources={"db": 1})

    with ParallelExecutor(2, backend=backend, resources={"api": 1, "db": 1}) as limited:
        whole = Pipeline("whole").add_step(refused).add_step(fine)
        whole.add_step(fine, "later", after=["fine"])
        result = whole.run(executor=limited)
    assert "requires 2 api" in str(error(result, "refused"))
    for name in ("fine", "later"):
        assert result.step_results[name].success, error(result, name)
        assert (list(result[name]["m"]), result[name]["fits"]) == ([1, 2], 3)


def test_fail_fast_cancels_what_is_left(executor: Executor) -> None:
    def build() -> Pipeline:
        made = Pipeline("p").add_step(refuse, "bad")
        for number in range(50):
            made.add_step(same, f"n{number}", inputs=["bad"])
        return made

    result = making(build).run(fail_fast=True, executor=executor)
    assert states(result)["made.bad"] == "failed"
    assert states(result)["made"] in {"upstream_failed", "cancelled"}


def test_a_dry_run_expands_nothing() -> None:
    assert states(making(lambda: Pipeline("p").add_step(refuse)).run(dry_run=True)) == {"made": "waiting"}


def test_a_pipeline_runs_again_as_if_for_the_first_time(executor: Executor) -> None:
    whole = Pipeline("whole").add_step(numbers)
    for count in (2, 0, 3):
        assert len(whole.run({"count": count}, executor=executor)["numbers"]) == count
    assert len(whole) == 1
    assert list(whole.dag.nodes) == ["numbers"]


def test_many_dynamic_steps_at_once(executor: Executor) -> None:
    whole = Pipeline("whole")
    for number in range(60):
        whole.add_step(numbers, f"d{number}", {"count": 2 + number % 7})
    whole.add_step(lambda *all_of_them: sum(map(len, all_of_them)), "sum", inputs=["d*"])
    result = whole.run(executor=executor)
    assert result["sum"] == sum(2 + number % 7 for number in range(60))
    assert all(len(result[f"d{number}"]) == 2 + number % 7 for number in range(60))


def test_a_large_pipeline(executor: Executor) -> None:
    def build() -> Pipeline:
        made = Pipeline("p")
        for number in range(3000):
            made.add_step(same, f"n{number}", {"value": number})
        return made.add_step(total, inputs={"numbers": "n*"})

    began = time.monotonic()
    assert making(build).run(executor=executor)["made"] == sum(range(3000))
    assert time.monotonic() - began < 20


def test_two_threads_expand_at_the_same_time() -> None:
    barrier = threading.Barrier(2, timeout=20)

    def build() -> Pipeline:
        barrier.wait()
        return numbers(200)

    whole = Pipeline("whole").add_step(dynamic(name="a")(build)).add_step(dynamic(name="b")(build))
    with ParallelExecutor(2, backend="thread") as executor:
        result = whole.run(executor=executor)
    assert result["a"] == result["b"] == {f"n{number}": number for number in range(200)}


# ---- processes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes() -> Any:
    with ParallelExecutor(2) as warm:
        yield warm


def test_closures_classes_and_partials_travel_there_and_back(processes: Executor) -> None:
    def build() -> Pipeline:
        class Point:
            def __init__(self, x: int) -> None:
                self.x = x

        factor = 3

        def helper(x: int) -> Point:
            return Point(x * factor)

        return (
            Pipeline("p")
            .add_step(lambda: helper(2), "point")
            .add_step(lambda point: point.x, "x")
            .add_step(len, "size", inputs=["point"], condition=lambda: False)
        )

    result = making(build, outputs=["x"]).run(executor=processes)
    assert result["x"] == 6


def test_what_does_not_pickle_is_the_steps_failure(processes: Executor) -> None:
    result = making(lambda: Pipeline("p").add_step(same, params={"value": threading.Lock()})).run(executor=processes)
    assert isinstance(error(result), SerializationError)
    assert "the result of step 'made'" in str(error(result))


def test_what_does_not_load_behind_it_does_not_call_its_fallback(processes: Executor) -> None:
    class Broken:
        def __reduce__(self) -> tuple[Any, ...]:
            return refuse, ()

    whole = making(lambda: Pipeline("p").add_step(Broken, "x").add_step(same, "y", {"value": 1}), fallback=refuse)
    result = whole.run(executor=processes)
    assert states(result) == {"made": "failed", "made.x": "success", "made.y": "success"}
    assert "'made.x' does not load" in str(error(result))
    assert result.step_results["made"].fallback_error is None


def test_a_worker_that_takes_the_place_of_another_gets_the_functions(processes: Executor) -> None:
    def build() -> Pipeline:
        def die_once() -> int:
            if get_context().attempt == 1:
                os._exit(3)
            return get_context().attempt

        made = Pipeline("p").add_step(die_once, retry=RetryConfig(2, backoff=0))
        for number in range(8):
            made.add_step(lambda die_once, number=number: die_once + number, f"n{number}")
        return made

    for _ in range(2):
        assert making(build).run(executor=processes)["made"] == {f"n{number}": number + 2 for number in range(8)}


def test_functions_of_one_run_do_not_stay_for_the_next(processes: Executor) -> None:
    def first() -> Pipeline:
        return Pipeline("p").add_step(lambda: "first", "x")

    def second() -> Pipeline:
        return Pipeline("p").add_step(lambda: "second", "x").add_step(lambda x: x * 2, "y")

    @dynamic
    def either(which: str) -> Pipeline:
        return first() if which == "first" else second()

    whole = Pipeline("whole").add_step(either)
    for _ in range(3):
        assert whole.run({"which": "first"}, executor=processes)["either"] == "first"
        assert whole.run({"which": "second"}, executor=processes)["either"] == "secondsecond"


SCRIPT = """
from flowyml import ParallelExecutor, Pipeline, dynamic, step

calls = []

class Model:
    def __init__(self, rate):
        self.rate = rate

def helper(rate):
    return Model(rate * 10)

@step
def train(rate):
    calls.append(rate)
    return helper(rate)

KNOWN = Pipeline("known")

@dynamic
def search(rates):
    made = Pipeline("made")
    for rate in rates:
        made.add_step(train, name=f"at_{rate}", params={"rate": rate})
    return made

@dynamic
def known():
    return KNOWN

result = Pipeline("p").add_step(search, params={"rates": [1, 2]}).run(executor=ParallelExecutor(2))
print({name: (type(model) is Model, model.rate) for name, model in result["search"].items()})
print(Pipeline("p").add_step(known).run(executor=ParallelExecutor(1)).step_results["known"].error_line)
"""


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, text=True, capture_output=True, timeout=50)
    lines = done.stdout.splitlines()
    assert lines[0] == "{'at_1': (True, 10), 'at_2': (True, 20)}", done.stderr
    assert "came to a worker by its name alone" in lines[1]
