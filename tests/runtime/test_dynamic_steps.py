"""The kinds of steps that a dynamic step may bring, on every executor: maps, parts, decisions, options."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from dynamic_pipelines import add, error, making, numbers, refuse, same, total
from step_states import states

from flowyml import (
    CircuitBreaker,
    If,
    LocalExecutor,
    Pipeline,
    RetryConfig,
    Switch,
    dynamic,
    get_context,
    map_task,
    step,
    when,
)

if TYPE_CHECKING:
    from pathlib import Path

    from flowyml import Executor


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


def test_maps_over_a_map_task_inside_have_items_once(executor: Executor) -> None:
    @map_task(min_success_ratio=0.5, inputs=["same"])
    def halves(n: int) -> int:
        return 12 // n

    @map_task(inputs=["halves"])
    def doubled(n: int) -> int:
        return 2 * n

    def build() -> Pipeline:
        made = Pipeline("p").map(same, [1, 0, 3]).add_step(halves).add_step(doubled)
        return made.map(str, over="halves", name="texts").map(len, over="texts", name="lengths")

    plain, result = build().run(executor=executor), making(build, outputs=["texts"]).run(executor=executor)
    for name in ("same", "halves", "doubled", "texts", "lengths"):
        inside = result.step_results[f"made.{name}"]
        assert [each.state for each in inside.items] == [each.state for each in plain.step_results[name].items], name
    assert [each.success for each in result.step_results["made.lengths"].items] == [True, False, True]
    assert [each.step_name for each in result.failed] == ["made.halves[1]"]
    assert len(result.timeline()) == 1 + len(plain.timeline())
    assert result.to_dict()
    assert result.summary()


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


def test_a_fallback_may_return_a_pipeline(executor: Executor, tmp_path: Path) -> None:
    def instead(count: int) -> Pipeline:
        with (tmp_path / "calls").open("a") as calls:
            calls.write("called ")
        return Pipeline("p").add_step(same, "one", {"value": 1}).add_step(same, "count", {"value": count})

    @dynamic(fallback=instead, outputs=["one", "count"])
    def made(count: int) -> None:
        raise ValueError(count)

    whole = Pipeline("whole").add_step(made, params={"count": 5}).add_step(lambda one, count: one + count, "sum")
    result = whole.run(executor=executor)
    assert set(states(result).values()) == {"success"}
    assert (result["made.one"], result["made.count"], result["sum"]) == (1, 5, 6)
    fallen = result.step_results["made"]
    assert (fallen.fallback_used, repr(fallen.fallback_error), fallen.attempts) == (True, "ValueError(5)", 1)
    assert (tmp_path / "calls").read_text() == "called "


def test_a_failure_behind_a_fallback_that_returned_a_pipeline(executor: Executor) -> None:
    result = making(refuse, fallback=lambda: Pipeline("p").add_step(refuse, "again")).run(executor=executor)
    assert states(result) == {"made": "upstream_failed", "made.again": "failed"}
    assert not result.step_results["made"].fallback_used


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


@pytest.mark.parametrize("bring", ["breaker", "fail_fast"])
def test_what_is_asked_about_first_may_come_into_a_run_with_chains(executor: Executor, bring: str) -> None:
    """Steps that are asked about before they begin are claimed otherwise than chains."""

    @map_task(fail_fast=True)
    def strict(n: int) -> int:
        return n

    def build() -> Pipeline:
        if bring == "fail_fast":
            return Pipeline("p").map(strict, [1, 2])
        return Pipeline("p").add_step(same, "one", {"value": [1, 2]}, circuit_breaker=CircuitBreaker())

    pipeline = (
        making(build).add_step(sum, "all", inputs=["made"]).add_step(lambda all_: all_ + 1, "more", inputs=["all"])
    )
    assert pipeline.run(executor=executor)["more"] == 4


def test_a_breaker_that_comes_during_the_run_is_asked_before_each_step(executor: Executor, tmp_path: Path) -> None:
    """A worker process is given one step at a time from then on."""

    def fail(number: int) -> None:
        (tmp_path / str(number)).touch()
        time.sleep(0.02)
        raise ValueError(number)

    def build() -> Pipeline:
        breaker, made = CircuitBreaker(failure_threshold=1, timeout=60), Pipeline("p")
        for number in range(6):
            made.add_step(fail, f"n{number}", {"number": number}, circuit_breaker=breaker)
        return made

    making(build).run(executor=executor)
    workers = getattr(executor, "max_workers", 1)
    assert len(list(tmp_path.iterdir())) <= workers


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
