"""Dynamic steps: a step returns a pipeline, and its steps run in its place, on every executor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import (
    CircuitBreaker,
    If,
    LocalExecutor,
    OutputMismatchError,
    ParallelExecutor,
    Pipeline,
    PipelineResult,
    PipelineValidationError,
    RetryConfig,
    SerializationError,
    Switch,
    dynamic,
    get_context,
    map_task,
    step,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowyml import Executor


def same(value: Any) -> Any:
    return value


def add(left: int, right: int) -> int:
    return left + right


def total(numbers: Any) -> int:
    return sum(numbers)


def refuse(*_: object) -> None:
    raise ValueError("refused")


@dynamic
def numbers(count: int) -> Pipeline:
    made = Pipeline("made")
    for number in range(count):
        made.add_step(same, f"n{number}", {"value": number})
    return made


@dynamic
def tower(height: int) -> Any:
    if not height:
        return 1
    return (
        Pipeline("floor")
        .add_step(tower, "up", {"height": height - 1})
        .add_step(add, params={"right": 1}, inputs=["up"])
    )


def making(build: Callable[[], Any], **options: Any) -> Pipeline:
    """Return a pipeline whose step "made" returns what a function builds."""
    return Pipeline("whole").add_step(dynamic(name="made", **options)(build))


def states(result: PipelineResult) -> dict[str, str]:
    return {name: str(done.state) for name, done in result.step_results.items()}


def error(result: PipelineResult, name: str = "made") -> Any:
    return result.step_results[name].exception


# ---- values and names ----------------------------------------------------------------------------------------------


def test_its_steps_stand_behind_its_name_and_after_it(executor: Executor) -> None:
    whole = Pipeline("whole").add_step(numbers, params={"count": 3}).add_step(len, inputs=["numbers"])
    result = whole.run(executor=executor)
    assert list(result.step_results) == ["numbers", "numbers.n0", "numbers.n1", "numbers.n2", "len"]
    assert set(states(result).values()) == {"success"}
    assert dict(result.outputs) == {
        "numbers": {"n0": 0, "n1": 1, "n2": 2},
        "numbers.n0": 0,
        "numbers.n1": 1,
        "numbers.n2": 2,
        "len": 3,
    }
    assert result["numbers.n1"] == result.step_results["numbers.n1"].output == 1


def test_the_order_of_results_is_that_of_the_pipeline(executor: Executor) -> None:
    whole = Pipeline("whole")
    for name in ("first", "second", "third"):
        whole.add_step(numbers, name, {"count": 2})
    names = [f"{name}{part}" for name in ("first", "second", "third") for part in ("", ".n0", ".n1")]
    assert list(whole.run(executor=executor).step_results) == names


def test_of_one_last_asset_it_has_the_value(executor: Executor) -> None:
    def build() -> Pipeline:
        return Pipeline("p").map(add, [1, 2, 3], name="plus", params={"right": 10}).add_step(total, inputs=["plus"])

    result = making(build).run(executor=executor)
    assert (result["made"], list(result["made.plus"]), result["made.plus[1]"]) == (36, [11, 12, 13], 12)


def test_a_mapped_step_at_the_end_is_a_list(executor: Executor) -> None:
    result = (
        making(lambda: Pipeline("p").map(abs, [-1, -2], name="sizes"))
        .add_step(total, inputs=["made"])
        .run(executor=executor)
    )
    assert (list(result["made"]), result["total"]) == ([1, 2], 3)


def test_several_outputs_of_a_last_step_are_several_values(executor: Executor) -> None:
    def build() -> Pipeline:
        return Pipeline("p").add_step(lambda: (1, 2), "two", outputs=["low", "high"])

    assert making(build).run(executor=executor)["made"] == {"low": 1, "high": 2}


def test_declared_outputs_are_assets_of_the_pipeline(executor: Executor) -> None:
    def build() -> Pipeline:
        made = Pipeline("p").add_step(lambda: (1, 2), "two", outputs=["low", "high"])
        return made.add_step(lambda low: low + 10, "end").add_step(same, "other", {"value": 0})

    one = making(build, outputs=["end"]).add_step(same, "last", inputs=["end"]).run(executor=executor)
    assert (one["end"], one["made"], one["last"]) == (11, 11, 11)
    several = making(build, outputs=["end", "high"]).add_step(add, "sum", inputs=["end", "high"]).run(executor=executor)
    assert (several["end"], several["high"], several["made"], several["sum"]) == (11, 2, (11, 2), 13)
    error_ = error(making(build, outputs=["end", "hihg"]).run(executor=executor))
    assert isinstance(error_, PipelineValidationError)
    assert re.search(r"'made' declares output 'hihg', which .* does not produce; did you mean 'high'\?", str(error_))
    named = making(build, outputs=["all"]).add_step(len, inputs=["all"]).run(executor=executor)
    assert (named["all"], named["len"]) == ({"end": 11, "other": 0}, 2)


def test_whatever_else_it_returns_is_its_value(executor: Executor) -> None:
    assert making(lambda: 7).run(executor=executor)["made"] == 7
    assert making(lambda: None).run(executor=executor)["made"] is None
    result = making(lambda: (1, 2), outputs=["a", "b"]).run(executor=executor)
    assert (result["a"], result["b"]) == (1, 2)
    assert isinstance(error(making(lambda: 7, outputs=["a", "b"]).run(executor=executor)), OutputMismatchError)


def test_a_pipeline_without_steps_gives_no_values(executor: Executor) -> None:
    assert making(lambda: Pipeline("none")).run(executor=executor)["made"] == {}


def test_a_dynamic_step_may_return_another(executor: Executor) -> None:
    result = Pipeline("whole").add_step(tower, params={"height": 4}).run(executor=executor)
    assert result["tower"] == 5
    assert result["tower.up.up.up.up"] == 1
    assert len(result.step_results) == 9


def test_coroutines_and_methods_may_be_dynamic(executor: Executor) -> None:
    class Maker:
        def __init__(self, count: int) -> None:
            self.count = count

        @dynamic
        def make(self) -> Pipeline:
            return Pipeline("p").add_step(same, "count", {"value": self.count})

    @dynamic
    async def soon(count: int) -> Pipeline:
        return Pipeline("p").add_step(same, "count", {"value": count})

    whole = Pipeline("whole").add_step(Maker(3).make).add_step(soon, params={"count": 4})
    result = whole.run(executor=executor)
    assert (result["make"], result["soon"]) == (3, 4)


def test_above_step_and_with_its_options() -> None:
    @dynamic
    @step(name="other", outputs=["x"], retry=2)
    def build() -> Pipeline:
        return Pipeline("p").add_step(same, "x", {"value": 1})

    assert (build.name, build.outputs, build.retry) == ("other", ("x",), RetryConfig(3))
    assert build().name == "p"
    assert Pipeline("whole").add_step(build).run()["x"] == 1
    assert "dynamic=True" in str(Pipeline("whole").add_step(build).explain("other"))


# ---- what its steps see --------------------------------------------------------------------------------------------


def test_what_they_lack_is_looked_for_around(executor: Executor) -> None:
    @dynamic
    def build() -> Pipeline:
        made = Pipeline("p", context={"own": 1}).add_step(lambda raw, own, far, given: (raw, own, far, given), "all")
        return made.add_step(same, "declared", inputs=["raw"])

    whole = Pipeline("whole", context={"own": 9, "far": 2}).add_step(same, "raw", {"value": 0}).add_step(build)
    result = whole.run({"given": 3}, executor=executor)
    assert result["build"] == {"all": (0, 1, 2, 3), "declared": 0}


def test_inside_a_sub_pipeline_that_is_what_is_inside(executor: Executor) -> None:
    inner = (
        Pipeline("inner", context={"far": 1})
        .add_step(same, "raw", {"value": 5})
        .add_step(dynamic(lambda: Pipeline("p").add_step(lambda raw, far: raw + far, "sum")), name="made")
    )
    whole = Pipeline("whole", context={"far": 9}).add_step(same, "raw", {"value": 0}).add_sub_pipeline(inner)
    result = whole.run(executor=executor)
    assert (result["inner.made"], result["inner.made.sum"]) == (6, 6)


def test_steps_of_other_dynamic_steps_are_not_seen(executor: Executor) -> None:
    @dynamic
    def build(numbers: object) -> Pipeline:
        return Pipeline("p").add_step(same, "reads", inputs=["numbers.n0"])

    result = Pipeline("whole").add_step(numbers, params={"count": 1}).add_step(build).run(executor=executor)
    assert "requires undefined asset 'numbers.n0'" in str(error(result, "build"))


def test_a_step_that_reads_what_waits_for_it_is_a_cycle(executor: Executor) -> None:
    whole = making(lambda: Pipeline("p").add_step(same, "reads", inputs=["after"])).add_step(lambda made: made, "after")
    result = whole.run(executor=executor)
    assert isinstance(error(result), PipelineValidationError)
    assert "Pipeline contains cycles! " in str(error(result))
    assert states(result) == {"made": "failed", "after": "upstream_failed"}


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: Pipeline("p").add_step(same, inputs=["nothing"]),
            "Node 'made.same' requires undefined asset 'nothing'",
        ),
        (lambda: Pipeline("p").add_step(same), r"Missing required parameters: \['value'\]"),
        (lambda: Pipeline("p").add_step(same, "taken", {"value": 1}), "there is a step 'made.taken' already"),
        (
            lambda: Pipeline("p").add_step(same, "a", inputs=["b"]).add_step(same, "b", inputs=["a"]),
            "Pipeline contains cycles! made.a → made.b → made.a",
        ),
    ],
    ids=["undefined", "missing", "taken", "cycle"],
)
def test_what_is_wrong_with_the_pipeline_is_the_steps_failure(build: Any, words: str, executor: Executor) -> None:
    whole = making(build).add_step(same, "made.taken", {"value": 1}).add_step(same, "beside", {"value": 1})
    result = whole.run(executor=executor)
    assert isinstance(error(result), PipelineValidationError)
    assert re.search(words, str(error(result)))
    assert states(result) == {"made": "failed", "made.taken": "success", "beside": "success"}


# ---- kinds of steps inside -----------------------------------------------------------------------------------------


def test_maps_whose_lengths_only_the_run_tells(executor: Executor) -> None:
    def build() -> Pipeline:
        made = Pipeline("p").add_step(lambda: [1, 2, 3], "raw").map(add, over="raw", name="plus", params={"right": 1})
        made.map(add, over="plus", name="again", params={"right": 1}).map(
            add, over="outer", name="far", params={"right": 1}
        )
        made.map(add, over="mapped", name="items", params={"right": 1})
        return made.add_step(lambda again, far, items: (list(again), list(far), list(items)), "all")

    whole = making(build).add_step(lambda: [7, 8], "outer").map(abs, over="outer", name="mapped")
    whole.map(abs, over="made", name="back")
    result = whole.run(executor=executor)
    assert result["made"] == ([3, 4, 5], [8, 9], [8, 9])
    assert states(result)["back"] == "failed"


def test_items_inside_fail_one_by_one(executor: Executor) -> None:
    def build() -> Pipeline:
        made = Pipeline("p").map(lambda n: 1 // n, [1, 0], name="halves", retry=RetryConfig(2, backoff=0))
        return made.map(same, over="halves", name="again")

    result = making(build).run(executor=executor)
    assert [str(item.state) for item in result.step_results["made.again"].items] == ["success", "upstream_failed"]
    assert result.step_results["made.halves[1]"].attempts == 2
    assert states(result)["made"] == "upstream_failed"


def test_map_tasks_inside(executor: Executor) -> None:
    @map_task(min_success_ratio=0.5)
    def halves(n: int) -> int:
        return 12 // n

    @map_task(fail_fast=True, concurrency=1)
    def strict(n: int) -> int:
        return 12 // n

    def build() -> Pipeline:
        made = Pipeline("p").map(halves, [1, 0, 3]).add_step(total, inputs={"numbers": "halves"})
        return made.map(strict, [1, 0, *range(1, 30)])

    result = making(build, outputs=["total"]).run(executor=executor)
    assert (result["total"], list(result["made.halves"])) == (16, [12, 4])
    assert states(result)["made.strict"] == "failed"
    assert str(result.step_results["made.strict"].items[-1].state) == "cancelled"


def test_sub_pipelines_inside(executor: Executor) -> None:
    def build() -> Pipeline:
        child = Pipeline("child").add_step(lambda raw: raw + 1, "next")
        return (
            Pipeline("p")
            .add_sub_pipeline(child, outputs=["next"])
            .add_sub_pipeline(child, {"raw": "next"}, name="more", after="child")
        )

    result = making(build).add_step(same, "raw", {"value": 1}).run(executor=executor)
    assert (result["made"], result["made.child.next"], result["made.next"], result["made.more.next"]) == (3, 2, 2, 3)


def test_decisions_inside_see_what_is_inside(executor: Executor) -> None:
    def build() -> Pipeline:
        made = Pipeline("p", context={"limit": 2}).add_step(same, "size", {"value": 3})
        made.add_control_flow(
            If(
                lambda ctx: ctx["size"] > ctx.params["limit"],
                step(lambda: "yes", name="yes"),
                step(lambda: "no", name="no"),
            )
        )
        made.add_control_flow(
            Switch(lambda ctx: ctx.steps["size"].outputs["size"], after="size").case(3, step(lambda: 3, name="three"))
        )
        return made.add_step(lambda yes=None, no=None: yes or no, "join", run_if="any").add_step(
            same, "three_again", inputs=["three"]
        )

    result = making(build).run(executor=executor)
    assert result["made"] == {"join": "yes", "three_again": 3}
    assert states(result)["made.no"] == "skipped"


def test_a_decision_may_choose_a_dynamic_step(executor: Executor) -> None:
    whole = Pipeline("whole").add_step(same, "size", {"value": 3})
    whole.add_control_flow(
        If(lambda ctx: ctx["size"] > 2, dynamic(name="many")(numbers_of), step(lambda: 0, name="none"))
    )
    result = whole.run({"count": 2}, executor=executor)
    assert result["many"] == {"n0": 0, "n1": 1}


def numbers_of(count: int) -> Pipeline:
    return numbers(count)


def test_a_skipped_step_at_the_end_skips_it_unless_it_is_joined(executor: Executor) -> None:
    def build() -> Pipeline:
        return (
            Pipeline("p")
            .add_step(same, "a", {"value": 1}, condition=lambda value: value > 1)
            .add_step(same, "b", {"value": 1})
        )

    result = making(build).run(executor=executor)
    assert states(result) == {"made": "skipped", "made.a": "skipped", "made.b": "success"}
    result = making(lambda: build().add_step(lambda a=0, b=0: a + b, "join", run_if="any")).run(executor=executor)
    assert result["made"] == 1


def test_a_dynamic_step_may_be_skipped(executor: Executor) -> None:
    whole = Pipeline("whole").add_step(
        dynamic(when(lambda count: count > 5)(lambda count: count), name="lambda"), params={"count": 1}
    )
    assert states(whole.run(executor=executor)) == {"lambda": "skipped"}


def test_a_failure_inside_costs_what_depends_on_it(executor: Executor) -> None:
    def build() -> Pipeline:
        return (
            Pipeline("p")
            .add_step(refuse, "bad")
            .add_step(same, "behind", inputs=["bad"])
            .add_step(same, "fine", {"value": 1})
        )

    whole = making(build).add_step(same, "after", inputs=["made"]).add_step(same, "beside", {"value": 2})
    result = whole.run(executor=executor)
    assert states(result) == {
        "made": "upstream_failed",
        "made.bad": "failed",
        "made.behind": "upstream_failed",
        "made.fine": "success",
        "after": "upstream_failed",
        "beside": "success",
    }
    assert [failed.step_name for failed in result.failed] == ["made.bad"]
    assert "step 'made.behind' failed" not in str(result.step_results["after"].error_line)
    assert "'made.bad'" in str(result.step_results["after"].error_line)
    result = making(build, outputs=["fine"]).run(executor=executor)
    assert (result["fine"], result.success) == (1, False)


def test_retries_of_the_step_and_inside(executor: Executor) -> None:
    def second_time() -> int:
        if get_context().attempt < 2:
            raise ValueError("not yet")
        return get_context().attempt

    @dynamic(retry=RetryConfig(3, backoff=0))
    def build() -> Pipeline:
        second_time()
        return Pipeline("p").add_step(second_time, retry=RetryConfig(2, backoff=0))

    result = Pipeline("whole").add_step(build).run(executor=executor)
    assert result["build"] == 2
    assert [result.step_results[name].attempts for name in ("build", "build.second_time")] == [2, 2]


def test_fallbacks_inside_and_of_the_step(executor: Executor) -> None:
    result = making(lambda: Pipeline("p").add_step(refuse, fallback=lambda: 5)).run(executor=executor)
    assert result["made"] == 5
    assert making(refuse, fallback=lambda: 6).run(executor=executor)["made"] == 6
    wrong = making(lambda: Pipeline("p").add_step(same), fallback=lambda: 7)
    assert wrong.run(executor=executor)["made"] == 7


def test_circuit_breakers_inside(executor: Executor) -> None:
    def build() -> Pipeline:
        breaker = CircuitBreaker(failure_threshold=2, timeout=60)
        made = Pipeline("p")
        for number in range(4):
            made.add_step(refuse, f"n{number}", circuit_breaker=breaker, after=[f"m{number - 1}"] if number else None)
            made.add_step(same, f"m{number}", {"value": 1}, run_if="any", after=[f"n{number}", "root"])
        return made.add_step(same, "root", {"value": 0})

    result = making(build).run(executor=executor)
    kinds = [type(error(result, f"made.n{number}")).__name__ for number in range(4)]
    assert kinds == ["ValueError", "ValueError", "CircuitOpenError", "CircuitOpenError"]


def test_time_limits_inside(executor: Executor) -> None:
    def build() -> Pipeline:
        return Pipeline("p").add_step(sleep_long, "long", timeout=0.1).add_step(same, "short", {"value": 1})

    result = making(build).run(executor=executor)
    if isinstance(executor, LocalExecutor):
        assert states(result)["made.long"] in {"timed_out", "success"}
    else:
        assert states(result) == {"made": "upstream_failed", "made.long": "timed_out", "made.short": "success"}


def sleep_long() -> None:
    time.sleep(0.6)


# ---- runs ----------------------------------------------------------------------------------------------------------


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


# ---- who returns a pipeline without saying so ----------------------------------------------------------------------


def test_a_step_that_is_not_dynamic_fails(executor: Executor) -> None:
    def build() -> Pipeline:
        return Pipeline("p")

    whole = Pipeline("whole").add_step(build).add_step(build, "two", outputs=["a", "b"])
    whole.map(lambda n: build() if n else n, [0, 1], name="items").add_step(len, inputs=["build"])
    result = whole.run(executor=executor)
    assert states(result) == {"build": "failed", "two": "failed", "items": "failed", "len": "upstream_failed"}
    for name in ("build", "two", "items"):
        assert isinstance(error(result, name), TypeError)
        assert re.search(r"step '[a-z]+(\[1\])?' returned the pipeline 'p': with @dynamic", str(error(result, name)))
    assert result["items"][0] == 0


def test_a_dynamic_step_cannot_be_mapped() -> None:
    with pytest.raises(TypeError, match="step 'numbers' is dynamic, so it cannot be mapped"):
        Pipeline("p").map(numbers, [1, 2])


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
