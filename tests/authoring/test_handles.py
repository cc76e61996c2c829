"""Handles: `pipeline["name"]` and steps stand for names wherever a step names another."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from flowyml import Executor, If, Pipeline, PipelineValidationError, Step, step


@step
def load() -> list[int]:
    return [1, 2, 3]


@step(outputs=["low", "high"])
def bounds(load: list[int]) -> tuple[int, int]:
    return min(load), max(load)


@step(outputs=["total"])
def add_up(values: list[int]) -> int:
    return sum(values)


def double(x: int) -> int:
    return 2 * x


def begun() -> Pipeline:
    return Pipeline("handles").add_step(load, "raw").add_step(bounds, inputs=["raw"]).add_step(add_up, inputs=["raw"])


def test_a_handle_is_the_name() -> None:
    handle = begun()["raw"]
    assert (handle, f"{handle}", {handle: 1}["raw"]) == ("raw", "raw", 1)
    assert type(pickle.loads(pickle.dumps(handle))) is str


def test_a_handle_is_an_input(executor: Executor) -> None:
    pipeline = begun()
    pipeline.add_step(double, inputs=pipeline["total"]).add_step(double, "twice", inputs=[pipeline["low"]])
    pipeline.add_step(lambda a, b: (a, b), "both", inputs={"a": pipeline["high"], "b": [pipeline["low"], "total"]})
    result = pipeline.run(executor=executor)
    assert (result["double"], result["twice"], result["both"]) == (12, 2, (3, [1, 6]))


def test_a_step_is_an_input(executor: Executor) -> None:
    pipeline = Pipeline("steps").add_step(load).add_step(add_up, inputs=load).add_step(double, inputs=[add_up])
    assert pipeline.run(executor=executor)["double"] == 12
    declared = Step(double, inputs={"x": add_up})
    assert declared.inputs == {"x": "total"}


def test_the_handle_of_a_step_reads_its_one_output() -> None:
    pipeline = begun()
    assert pipeline.add_step(double, inputs=pipeline["add_up"]).run()["double"] == 12


def test_handles_and_steps_are_what_a_map_runs_over(executor: Executor) -> None:
    pipeline = begun()
    pipeline.map(double, over=pipeline["raw"], name="one").map(max, over=[pipeline["raw"], pipeline["one"]], name="two")
    pipeline.add_step(load).map(double, over=load, name="three").map(double, over={"x": load}, name="four")
    result = pipeline.run(executor=executor)
    assert [list(result[name]) for name in ("one", "two", "three", "four")] == [[2, 4, 6]] * 4


def test_handles_and_steps_are_waited_for() -> None:
    pipeline = begun()
    pipeline.add_step(double, params={"x": 1}, after=[pipeline["total"], bounds])
    pipeline.add_step(double, "again", params={"x": 1}, after=bounds)
    assert pipeline.dag.edges["double"] == {"add_up", "bounds"}
    assert pipeline.dag.edges["again"] == {"bounds"}


def test_a_decision_waits_for_a_handle() -> None:
    pipeline = begun()
    pipeline.add_control_flow(If(lambda ctx: ctx["total"] > 5, double, after=pipeline["total"]))
    assert pipeline.run(inputs={"x": 4})["double"] == 8


def test_assets_of_sub_pipelines_have_handles() -> None:
    inner = Pipeline("inner").add_step(load).add_step(add_up, inputs=["load"])
    pipeline = Pipeline("outer").add_sub_pipeline(inner, outputs={"total": "sum"})
    pipeline.add_step(double, inputs=pipeline["sum"]).add_step(double, "b", inputs=pipeline["inner.total"])
    pipeline.add_step(double, "c", params={"x": 1}, after=pipeline["inner"])
    result = pipeline.run()
    assert (result["double"], result["b"]) == (12, 12)
    assert "inner.add_up" in pipeline.dag.get_all_dependencies("c")


def test_steps_in_a_loop_that_read_handles_share_a_form() -> None:
    pipeline = Pipeline("loop").add_step(load, "s0")
    for place in range(1, 50):
        pipeline.add_step(list, f"s{place}", inputs=[pipeline[f"s{place - 1}"]])
    assert len({id(spec) for spec in pipeline._builder.table.specs}) == 2
    assert pipeline.run()["s49"] == [1, 2, 3]


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "a misspelled step": (
        lambda p: p["rwa"],
        KeyError,
        "no step or asset 'rwa' in pipeline 'handles'; did you mean 'raw'",
    ),
    "a misspelled asset": (lambda p: p["totl"], KeyError, "did you mean 'total'"),
    "a number": (lambda p: p[0], KeyError, "no step or asset 0"),
    "several outputs": (
        lambda p: p.add_step(double, inputs=p["bounds"]),
        ValueError,
        "step 'bounds' has several outputs, name one of them: 'low', 'high'",
    ),
    "a step of several outputs": (lambda p: p.map(double, over=bounds), ValueError, "name one of them: 'low', 'high'"),
    "a sub-pipeline to read": (
        lambda p: p.add_step(double, inputs=p.add_sub_pipeline(Pipeline("sub").add_step(load))["sub"]),
        ValueError,
        "'sub' is a sub-pipeline and no asset",
    ),
    "a step that was not added": (
        lambda p: p.add_step(double, inputs=load).build(),
        PipelineValidationError,
        "requires undefined asset 'load'",
    ),
    "a step as an output": (lambda p: p.add_step(double, outputs=load), TypeError, "outputs of step 'double' must be"),
    "going through a pipeline": (list, TypeError, "not iterable"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_name_gets_its_error(case: str) -> None:
    use, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        use(begun())


def test_a_pipeline_tells_what_was_added() -> None:
    pipeline = begun()
    assert "raw" in pipeline
    assert "high" in pipeline
    assert "load" not in pipeline
    assert 3 not in pipeline
