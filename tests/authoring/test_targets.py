"""A part of a pipeline: the steps that `targets=` names, by name, glob or tag, and what they need."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import cloudpickle
import pytest

from flowyml import If, Pipeline, PipelineValidationError, StepState, dynamic, step


def graph() -> Pipeline:
    """Return load > clean > mean, total, and a step beside them that lacks a value."""
    pipeline = Pipeline("graph").add_step(lambda: [1, 2, 3], name="load", outputs=["rows"], tags=["daily"])
    pipeline.add_step(lambda rows: rows, name="clean")
    pipeline.add_step(lambda clean: sum(clean) / len(clean), name="mean", tags={"team": "ml", "daily": ""})
    pipeline.add_step(lambda clean: max(clean) * 2, name="total", tags={"team": "sales"})
    pipeline.add_step(lambda nowhere: nowhere, name="unfinished")
    return pipeline


@pytest.mark.parametrize(
    ("targets", "ran"),
    [
        ("mean", ["load", "clean", "mean"]),
        (["mean", "total"], ["load", "clean", "mean", "total"]),
        ("rows", ["load"]),
        (("clean",), ["load", "clean"]),
        ("t?tal", ["load", "clean", "total"]),
        ("r*", ["load"]),
        ("tag:daily", ["load", "clean", "mean"]),
        ("tag:team", ["load", "clean", "mean", "total"]),
        ("tag:team=sales", ["load", "clean", "total"]),
        (["tag:team=sales", "load"], ["load", "clean", "total"]),
    ],
)
def test_what_is_asked_for_runs_with_what_it_needs(targets: Any, ran: list[str]) -> None:
    result = graph().run(targets=targets)
    assert result.success
    assert list(result.step_results) == ran


def test_every_backend_runs_a_part(executor: Any) -> None:
    pipeline = graph().map(pow, range(4), name="powers", params={"exp": 2}).add_step(sum, inputs=["powers"])
    result = pipeline.run(executor=executor, targets=["sum", "mean"])
    assert list(result.step_results) == ["load", "clean", "mean", "powers", "sum"]
    assert (result["sum"], result["mean"]) == (14, 2.0)


def test_what_is_left_out_need_not_be_valid_and_what_is_chosen_must() -> None:
    with pytest.raises(PipelineValidationError, match="nowhere"):
        graph().run()
    with pytest.raises(PipelineValidationError, match="nowhere"):
        graph().run(targets="unfinished")


def test_values_for_what_is_left_out_are_no_reason_to_warn() -> None:
    assert graph().run({"nowhere": 1}, targets="load").success


def test_order_without_data_and_globs_are_followed() -> None:
    pipeline = Pipeline("p")
    for k in range(3):
        pipeline.add_step(lambda: 1, name=f"part_{k}")
    pipeline.add_step(sum, name="whole", inputs=["part_*"], after=["prepare"])
    pipeline.add_step(lambda: None, name="prepare").add_step(lambda: 2, name="other")
    result = pipeline.run(targets="whole")
    assert list(result.step_results) == ["part_0", "part_1", "part_2", "whole", "prepare"]
    assert result["whole"] == 3


def test_a_branch_needs_its_decision_and_what_that_sees() -> None:
    pipeline = Pipeline("p").add_step(lambda: 3, name="measure").add_step(lambda: 4, name="other")
    pipeline.add_control_flow(If(lambda ctx: ctx["measure"] > 2, then_step=step(print, name="yes"), else_step=len))
    result = pipeline.run(targets="yes")
    assert list(result.step_results) == ["measure", "other", *list(result.step_results)[2:]]
    assert result.step_results["yes"].state == StepState.SUCCESS
    assert "len" not in result.step_results


def test_the_pipeline_stays_as_it_is() -> None:
    pipeline = graph()
    first = pipeline.run(targets="load")
    pipeline.add_step(lambda rows: rows[0], name="size")
    assert list(first.step_results) == ["load"]
    assert list(pipeline.run(targets="size").step_results) == ["load", "size"]
    assert len(pipeline) == 6


def test_a_dry_run_and_an_awaited_run_of_a_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert graph().dry_run(targets="clean").state == "dry_run"
    assert "Dry run: 2 steps (2 calls) would run" in capsys.readouterr().out
    assert list(asyncio.run(graph().run_async(targets="clean")).step_results) == ["load", "clean"]


def test_a_part_of_a_cycle_free_part() -> None:
    pipeline = graph().add_step(lambda b: b, name="a").add_step(lambda a: a, name="b")
    assert pipeline.run(targets="mean").success
    with pytest.raises(PipelineValidationError, match="cycles"):
        pipeline.run(targets="a")


@pytest.mark.parametrize("given", ["nightly", ["nightly"], {"nightly"}, {"nightly": ""}])
def test_tags_are_words_with_or_without_values(given: Any) -> None:
    @step(tags=given)
    def load() -> int:
        return 1

    assert load.tags == {"nightly": ""}
    pipeline = Pipeline("p").add_step(load).add_step(load, name="again", tags={"team": "ml", "level": 3})
    assert pipeline.dag.nodes["load"].tags == {"nightly": ""}
    assert pipeline.dag.nodes["again"].tags == {"team": "ml", "level": 3}
    assert list(pipeline.run(targets="tag:level=3").step_results) == ["again"]


def test_a_step_without_tags_has_none() -> None:
    assert step(len).tags == {}
    assert graph().dag.nodes["clean"].tags == {}


def test_tags_travel_with_their_step() -> None:
    tagged = step(tags=["a"])(lambda: 1)
    assert cloudpickle.loads(cloudpickle.dumps(tagged)).tags == {"a": ""}
    assert "tags={'a': ''}" in str(Pipeline("p").add_step(tagged).explain("lambda"))


WRONG = {
    "an unknown name": ("maen", ValueError, "'maen' is no step, sub-pipeline or asset; did you mean 'mean'"),
    "an unknown tag": ("tag:dayly", ValueError, "no step has the tag 'dayly'; did you mean 'daily'"),
    "a glob that fits nothing": (["mean", "x*"], ValueError, "'x\\*' is no step, sub-pipeline or asset"),
    "no target": ([], ValueError, "targets names no step; leave it out"),
    "a number": (3, TypeError, "must be names of steps or assets, got int 3"),
    "a step": ([len], TypeError, "must be names of steps or assets, got builtin_function_or_method"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_targets_are_told(wrong: str) -> None:
    targets, error, words = WRONG[wrong]
    with pytest.raises(error, match=words):
        graph().run(targets=targets)


def nested() -> Pipeline:
    """Return seed > outer(first > inner(make > grow), last) > use, each pipeline with a step that nobody needs."""
    inner = (
        Pipeline("inner").add_step(lambda first: first + 1, name="make").add_step(lambda make: make * 2, name="grow")
    )
    inner.add_step(lambda other: other, name="spare")
    outer = Pipeline("outer", context={"by": 10}).add_step(lambda seed, by: seed * by, name="first", outputs=["a"])
    outer.add_sub_pipeline(inner, inputs={"first": "a", "other": "seed"}, outputs=["grow", "spare"])
    outer.add_step(lambda grow: grow + 1, name="last").add_step(lambda spare: spare, name="idle")
    pipeline = Pipeline("nested").add_step(lambda: 3, name="seed").add_step(lambda: 4, name="lone")
    pipeline.add_sub_pipeline(outer, inputs=["seed"], outputs=["last", "idle"], after=["lone"])
    return pipeline.add_step(lambda last: last, name="use").add_step(lambda idle: idle, name="unused")


@pytest.mark.parametrize(
    ("targets", "ran"),
    [
        ("use", ["seed", "lone", "outer.first", "outer.inner.make", "outer.inner.grow", "outer.last", "use"]),
        ("outer.inner.make", ["seed", "lone", "outer.first", "outer.inner.make"]),
        ("outer.inner.spare", ["seed", "lone", "outer.inner.spare"]),
        ("idle", ["seed", "lone", "outer.inner.spare", "outer.idle"]),
        ("lone", ["lone"]),
        ("outer.inner", ["seed", "lone", "outer.first", "outer.inner.make", "outer.inner.grow", "outer.inner.spare"]),
    ],
)
def test_a_part_of_sub_pipelines(targets: str, ran: list[str], executor: Any) -> None:
    whole, part = nested().run(executor=executor), nested().run(executor=executor, targets=targets)
    assert list(part.step_results) == ran
    assert {name: whole[name] for name in ran} == {name: part[name] for name in ran}


def test_steps_and_handles_stand_for_their_names() -> None:
    @step
    def load() -> list[int]:
        return [1]

    pipeline = Pipeline("p").add_step(load).add_step(len, inputs=[load]).add_step(dict, name="other", inputs={})
    assert list(pipeline.run(targets=load).step_results) == ["load"]
    assert list(pipeline.run(targets=[pipeline["len"]]).step_results) == ["load", "len"]
    whole = nested()
    assert list(whole.run(targets=whole["outer"]).step_results)[-2:] == ["outer.last", "outer.idle"]


def test_a_part_with_lists_that_only_the_run_knows(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(lambda: [1, 2, 3], name="numbers").add_step(lambda: 0, name="lone")
    pipeline.map(abs, over="numbers").map(float, over="abs").add_step(sum, inputs=["float"]).map(str, over="numbers")
    result = pipeline.run(executor=executor, targets="sum")
    assert list(result.step_results) == ["numbers", "abs", "float", "sum"]
    assert result["sum"] == 6.0


def test_a_part_with_steps_that_a_step_returns(executor: Any) -> None:
    @dynamic
    def spread() -> Pipeline:
        return Pipeline("two").add_step(lambda: 1, name="a").add_step(lambda: 2, name="b")

    pipeline = Pipeline("p").add_step(spread).add_step(len, inputs=["spread"]).add_step(lambda: 0, name="lone")
    result = pipeline.run(executor=executor, targets="len")
    assert list(result.step_results) == ["spread", "spread.a", "spread.b", "len"]


def test_a_part_is_continued_by_the_whole(tmp_path: Any) -> None:
    ran: list[str] = []

    def load() -> int:
        ran.append("load")
        return 1

    def save(load: int) -> int:
        ran.append("save")
        if len(ran) < 3:
            raise OSError(load)
        return load

    pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path).add_step(load).add_step(save)
    pipeline.add_step(lambda: 2, name="lone")
    part, whole = pipeline.run(targets="save"), pipeline.run()
    assert (part.success, whole.success, ran) == (False, True, ["load", "save", "save"])
    assert list(whole.step_results) == ["load", "save", "lone"]


def test_a_misspelled_sub_pipeline_is_told_with_the_nearest_also_in_a_glob() -> None:
    inner = Pipeline("etl").add_step(dict, name="clean")
    whole = Pipeline("whole").add_sub_pipeline(inner).add_step(list, name="load")
    assert list(whole.run(targets="etl").outputs) == ["etl.clean"]
    for target, near in (("elt", "etl"), ("elt.*", "etl.clean"), ("laod", "load")):
        with pytest.raises(
            ValueError, match=f"'{re.escape(target)}' is no step, sub-pipeline or asset; did you mean '{near}'"
        ):
            whole.run(targets=target)
