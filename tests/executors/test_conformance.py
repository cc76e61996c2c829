"""What every executor must do alike: the same outputs, the same states, in the same order.

Each test takes the fixture `executor` of conftest.py and so runs on all of them; a new executor joins there, by one
line. Steps depend on their arguments alone, as the contract asks for. Outcomes are compared as `facts`: each step in
add order, with its state and its value, or the type of what it raised. Drawn graphs: test_conformance_graphs.py.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from flowyml import (
    Executor,
    LocalExecutor,
    OutputMismatchError,
    Pipeline,
    PipelineResult,
    StepError,
    StepNotRunError,
    dynamic,
    map_task,
    parallel_map,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def facts(result: PipelineResult) -> list[tuple[str, str, Any]]:
    """Return what came of each step, in the order of the result."""
    return [
        (name, str(done.state), done.output if done.success else type(done.exception).__name__)
        for name, done in result.step_results.items()
    ]


def never(name: str, state: str) -> tuple[str, str, str]:
    """Return the facts of a step that did not run."""
    return (name, state, "NoneType")


# ---- steps ---------------------------------------------------------------------------------------------------------


class Refused(Exception):  # noqa: N818
    """An error with data, made from two arguments."""

    def __init__(self, who: str, code: int) -> None:
        super().__init__(who, code)
        self.who, self.code = who, code


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class Point:
    x: float
    y: float

    def moved(self, by: float) -> Point:
        return Point(self.x + by, self.y)


@step
def number(value: int) -> int:
    return value


@step
def add(left: int, right: int) -> int:
    return left + right


@step
def total(*numbers: int) -> int:
    return sum(numbers)


@step
def same(value: Any) -> Any:
    return value


@step
def refuse(who: str = "b", code: int = 7) -> None:
    raise Refused(who, code)


@step
def raise_it(error: BaseException) -> None:
    raise error


@step
def reciprocal(value: int) -> float:
    return 1 / value


@step
async def soon(value: int) -> int:
    import asyncio

    await asyncio.sleep(0)
    return value + 1


# ---- graphs --------------------------------------------------------------------------------------------------------


def test_a_diamond(executor: Executor) -> None:
    pipeline = Pipeline("diamond")
    pipeline.add_step(number, "a", {"value": 1})
    pipeline.add_step(add, "b", {"right": 10}, inputs={"left": "a"})
    pipeline.add_step(add, "c", {"right": 100}, inputs={"left": "a"})
    pipeline.add_step(add, "d", inputs=["b", "c"])
    wanted = [("a", "success", 1), ("b", "success", 11), ("c", "success", 101), ("d", "success", 112)]
    assert facts(pipeline.run(executor=executor)) == wanted


def test_a_long_chain(executor: Executor) -> None:
    pipeline = Pipeline("chain").add_step(number, "n0", {"value": 0})
    for place in range(1, 2_000):
        pipeline.add_step(add, f"n{place}", {"right": 1}, inputs={"left": f"n{place - 1}"})
    assert pipeline.run(executor=executor)["n1999"] == 1_999


def test_a_wide_fan_out_and_fan_in(executor: Executor) -> None:
    pipeline = Pipeline("wide")
    for value in range(5_000):
        pipeline.add_step(number, f"part_{value}", {"value": value})
    pipeline.add_step(total, inputs="part_*")
    result = pipeline.run(executor=executor)
    assert list(result.outputs.values())[:-1] == list(range(5_000))
    assert result["total"] == sum(range(5_000))


def test_an_executor_is_used_again_after_a_failure(executor: Executor) -> None:
    assert not Pipeline("bad").add_step(refuse).run(executor=executor).success
    pipeline = Pipeline("good").add_step(number, params={"value": 3})
    assert [facts(pipeline.run(executor=executor)) for _ in range(3)] == [[("number", "success", 3)]] * 3


def test_an_empty_pipeline_succeeds(executor: Executor) -> None:
    result = Pipeline("empty").run(executor=executor)
    assert (result.success, facts(result)) == (True, [])


# ---- values and callables ------------------------------------------------------------------------------------------


VALUES = {
    "none": None,
    "false": False,
    "big integer": 1 << 200,
    "text": "naïve ☂ \0",
    "bytes": bytes(range(256)) * 40_000,
    "nested": {"a": [1, (2, {3})], None: frozenset({4})},
    "dataclass": Point(1.0, 2.0),
    "enum": Colour.RED,
    "decimal": decimal.Decimal("0.1"),
    "time": dt.datetime(2013, 1, 1, tzinfo=dt.UTC),
    "class": Point,
    "function": facts,
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_passes_through_two_steps(executor: Executor, name: str) -> None:
    pipeline = Pipeline("values").add_step(same, "first", {"value": VALUES[name]})
    pipeline.add_step(same, "second", inputs={"value": "first"})
    result = pipeline.run(executor=executor)
    assert result["second"] == VALUES[name]
    assert type(result["second"]) is type(VALUES[name])


def test_arrays_and_frames_pass(executor: Executor) -> None:
    frame = pd.DataFrame({"x": [1, 2], "y": ["a", None]})
    pipeline = Pipeline("arrays").add_step(same, "array", {"value": np.arange(300_000.0)})
    pipeline.add_step(same, "frame", {"value": frame})
    pipeline.add_step(np.sum, "sum", inputs={"a": "array"})
    result = pipeline.run(executor=executor)
    assert np.array_equal(result["array"], np.arange(300_000.0))
    assert result["frame"].equals(frame)
    assert result["sum"] == 300_000 * 299_999 / 2


def test_an_exception_is_a_value_like_any_other(executor: Executor) -> None:
    result = Pipeline("returned").add_step(same, params={"value": ValueError("kept")}).run(executor=executor)
    assert result.success
    assert result["same"].args == ("kept",)


@dataclass
class Plus:
    """A callable object."""

    by: int

    def __call__(self, value: int) -> int:
        return value + self.by


CALLABLES: dict[str, tuple[Callable[..., Any], dict[str, Any], Any]] = {
    "a lambda": (lambda value: value * 2, {"value": 4}, 8),
    "a partial": (functools.partial(operator.mul, 3), {"b": 4}, 12),
    "a builtin": (divmod, {"x": 7, "y": 2}, (3, 1)),
    "a bound method": (Point(1.0, 2.0).moved, {"by": 1.0}, Point(2.0, 2.0)),
    "a class": (Point, {"x": 1.0, "y": 2.0}, Point(1.0, 2.0)),
    "a coroutine function": (soon, {"value": 1}, 2),
    "a ufunc": (np.hypot, {"x1": 3.0, "x2": 4.0}, 5.0),
    "a callable object": (Plus(2), {"value": 1}, 3),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_what_can_be_called_can_be_a_step(executor: Executor, kind: str) -> None:
    func, params, value = CALLABLES[kind]
    assert facts(Pipeline("one").add_step(func, "it", params).run(executor=executor)) == [("it", "success", value)]


def test_a_closure_sees_its_variables(executor: Executor) -> None:
    offset = 40

    @step
    def shifted(value: int) -> int:
        return helper(value) + offset

    def helper(value: int) -> int:
        return value * 2

    assert Pipeline("closure").add_step(shifted, params={"value": 1}).run(executor=executor)["shifted"] == 42


# ---- wiring --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [(3, 1), [3, 1], {"rest": 1, "whole": 3}], ids=["tuple", "list", "dict"])
def test_declared_outputs_are_assets(executor: Executor, returned: Any) -> None:
    pipeline = Pipeline("outputs").add_step(same, "split", {"value": returned}, outputs=["whole", "rest"])
    pipeline.add_step(lambda whole, rest: whole - rest, "joined")
    result = pipeline.run(executor=executor)
    assert dict(result.outputs) == {"whole": 3, "rest": 1, "joined": 2}
    assert result["split"] == returned


def test_a_wrong_number_of_outputs_fails_the_step(executor: Executor) -> None:
    pipeline = Pipeline("outputs").add_step(same, "split", {"value": (1, 2, 3)}, outputs=["a", "b"])
    failed = pipeline.run(executor=executor).failed[0]
    assert isinstance(failed.exception, OutputMismatchError)
    assert "declared 2 outputs" in str(failed.exception)
    assert "3 values" in str(failed.exception)


def test_every_source_of_a_parameter(executor: Executor) -> None:
    def gather(given: int, asset: int, run_input: int, run_context: int, own_context: int, default: int = 6) -> tuple:
        return given, asset, run_input, run_context, own_context, default

    pipeline = Pipeline("sources", context={"own_context": 5, "run_context": 0})
    pipeline.add_step(number, "asset", {"value": 2}).add_step(gather, params={"given": 1})
    result = pipeline.run(inputs={"run_input": 3}, context={"run_context": 4}, executor=executor)
    assert result["gather"] == (1, 2, 3, 4, 5, 6)


def test_after_orders_without_data(executor: Executor, tmp_path: Any) -> None:
    mark = tmp_path / "mark"
    pipeline = Pipeline("after").add_step(mark.read_text, "second", after=["first"])
    pipeline.add_step(mark.write_text, "first", {"data": "written"})
    assert pipeline.run(executor=executor)["second"] == "written"


# ---- failures ------------------------------------------------------------------------------------------------------


def test_a_failure_costs_itself_and_its_dependents(executor: Executor) -> None:
    pipeline = Pipeline("failing").add_step(number, "a", {"value": 1}).add_step(refuse, "b")
    pipeline.add_step(add, "c", {"right": 1}, inputs={"left": "b"})
    pipeline.add_step(add, "d", {"right": 1}, inputs={"left": "c"})
    pipeline.add_step(add, "e", {"right": 1}, inputs={"left": "a"})
    result = pipeline.run(executor=executor)
    assert facts(result) == [
        ("a", "success", 1),
        ("b", "failed", "Refused"),
        never("c", "upstream_failed"),
        never("d", "upstream_failed"),
        ("e", "success", 2),
    ]
    assert (result.success, [each.step_name for each in result.failed]) == (False, ["b"])


def test_an_exception_arrives_whole(executor: Executor) -> None:
    failed = Pipeline("whole").add_step(refuse).run(executor=executor).failed[0]
    assert (failed.exception.who, failed.exception.code) == ("b", 7)
    assert "Refused" in failed.error
    assert "in refuse" in failed.error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(4)], ids=repr)
def test_no_exception_of_a_step_gets_out(executor: Executor, error: BaseException) -> None:
    pipeline = Pipeline("out").add_step(raise_it, params={"error": error}).add_step(number, params={"value": 1})
    wanted = [("raise_it", "failed", type(error).__name__), ("number", "success", 1)]
    assert facts(pipeline.run(executor=executor)) == wanted


def test_raise_on_failure_has_the_cause(executor: Executor) -> None:
    with pytest.raises(StepError, match="'refuse'") as caught:
        Pipeline("raising").add_step(refuse).run(executor=executor, raise_on_failure=True)
    assert isinstance(caught.value.__cause__, Refused)


def test_fail_fast_starts_nothing_new(executor: Executor) -> None:
    pipeline = Pipeline("fast").add_step(refuse)
    for value in range(3_000):
        pipeline.add_step(number, f"after_{value}", {"value": value}, after="refuse")
        pipeline.add_step(number, f"beside_{value}", {"value": value})
    states = [str(done.state) for done in pipeline.run(executor=executor, fail_fast=True).step_results.values()]
    assert states[0] == "failed"
    assert states[-1] == "cancelled"
    assert set(states) <= {"failed", "success", "cancelled", "upstream_failed"}


# ---- mapped steps --------------------------------------------------------------------------------------------------


def test_a_mapped_step_keeps_the_order_of_its_items(executor: Executor) -> None:
    pipeline = Pipeline("mapped").map(number, range(3_000)).add_step(sum, "sum", inputs={"iterable": "number"})
    result = pipeline.run(executor=executor)
    assert list(result["number"]) == list(range(3_000))
    assert result["sum"] == sum(range(3_000))


def test_a_failed_item_raises_when_it_is_read(executor: Executor) -> None:
    result = Pipeline("mapped").map(reciprocal, [1, 0, 2], name="over").run(executor=executor)
    values = result["over"]
    assert (values[0], values[2], len(values)) == (1.0, 0.5, 3)
    with pytest.raises((StepNotRunError, ZeroDivisionError)):
        values[1]
    assert [each.step_name for each in result.failed] == ["over[1]"]


def test_a_consumer_of_a_failed_item_does_not_run(executor: Executor) -> None:
    pipeline = Pipeline("mapped").map(reciprocal, [1, 0], name="over").add_step(sum, "sum", inputs={"iterable": "over"})
    result = pipeline.run(executor=executor)
    assert [str(done.state) for done in result.step_results.values()] == ["failed", "upstream_failed"]


def test_no_items_are_an_empty_list(executor: Executor) -> None:
    pipeline = Pipeline("mapped").map(number, []).add_step(sum, "sum", inputs={"iterable": "number"})
    result = pipeline.run(executor=executor)
    assert (list(result["number"]), result["sum"], result.success) == ([], 0, True)


def test_a_list_that_a_step_produces_is_mapped(executor: Executor) -> None:
    pipeline = Pipeline("mapped").add_step(same, "made", {"value": [4, 0, 2]}).map(reciprocal, over="made", name="over")
    pipeline.map(number, over="over", name="again").map(add, over=["made", [1, 2]], combine="product", name="pairs")
    result = pipeline.run(executor=executor)
    states = {name: [str(item.state) for item in result.step_results[name].items] for name in ("over", "again")}
    assert states["over"] == ["success", "failed", "success"]
    assert states["again"] == ["success", "upstream_failed", "success"]
    assert (result["again"][2], list(result["pairs"])) == (0.5, [5, 6, 1, 2, 3, 4])


def test_a_map_task_survives_what_it_may(executor: Executor) -> None:
    task = map_task(min_success_ratio=0.5)(reciprocal.func)
    pipeline = (
        Pipeline("task").add_step(same, "value", {"value": [4, 0, 2]}).add_step(task).add_step(sum, inputs=[task])
    )
    result = pipeline.run(executor=executor)
    assert facts(result)[1:] == [("reciprocal", "success", [0.25, 0.5]), ("sum", "success", 0.75)]
    assert result.success


# ---- time and nesting ----------------------------------------------------------------------------------------------


def test_a_dependent_starts_after_its_dependency_ended(executor: Executor) -> None:
    pipeline = Pipeline("times").add_step(number, "a", {"value": 1})
    pipeline.add_step(add, "b", {"right": 1}, inputs={"left": "a"})
    first, second = pipeline.run(executor=executor).step_results.values()
    assert first.duration_seconds >= 0
    rounded = dt.timedelta(microseconds=2)
    assert second.started_at + rounded >= first.started_at + dt.timedelta(seconds=first.duration_seconds)


def test_a_pipeline_in_a_pipeline(executor: Executor) -> None:
    child = Pipeline("child").add_step(add, "sum", {"right": 1}, inputs=["left"]).add_step(refuse, "bad")
    child.add_step(same, "behind", inputs=["bad"])
    whole = Pipeline("whole").add_step(number, "a", {"value": 1})
    for name, source in (("first", "a"), ("second", "first.sum")):
        whole.add_sub_pipeline(child, {"left": source}, name=name)
    assert facts(whole.run(executor=executor)) == [
        ("a", "success", 1),
        ("first.sum", "success", 2),
        ("first.bad", "failed", "Refused"),
        never("first.behind", "upstream_failed"),
        ("second.sum", "success", 3),
        ("second.bad", "failed", "Refused"),
        never("second.behind", "upstream_failed"),
    ]


def test_steps_that_come_during_the_run(executor: Executor) -> None:
    @dynamic
    def grow(size: int) -> Any:
        made = Pipeline("made").add_step(reciprocal, "part", {"value": size})
        return made.add_step(grow, "rest", {"size": size - 1}) if size else made

    whole = Pipeline("whole").add_step(grow, params={"size": 1}).add_step(number, "a", {"value": 1})
    assert facts(whole.run(executor=executor)) == [
        never("grow", "upstream_failed"),
        ("grow.part", "success", 1.0),
        never("grow.rest", "upstream_failed"),
        ("grow.rest.part", "failed", "ZeroDivisionError"),
        ("a", "success", 1),
    ]


def test_a_step_may_run_a_pipeline(executor: Executor) -> None:
    def inner(value: int) -> int:
        pipeline = Pipeline("inner").add_step(number, params={"value": value})
        return pipeline.run(executor=LocalExecutor())["number"] + 1

    assert Pipeline("outer").add_step(inner, params={"value": 1}).run(executor=executor)["inner"] == 2


def test_a_step_may_use_parallel_map(executor: Executor) -> None:
    def squares(count: int) -> list[int]:
        return parallel_map(lambda value: value * value, range(count), max_workers=2)

    assert Pipeline("inside").add_step(squares, params={"count": 4}).run(executor=executor)["squares"] == [0, 1, 4, 9]
