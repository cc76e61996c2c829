"""`run(given=)`: steps whose values the caller of the run gives do not run, on any executor."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from step_states import states

from flowyml import (
    Executor,
    If,
    ParallelExecutor,
    Pipeline,
    PipelineValidationError,
    SerializationError,
    StepState,
    map_task,
    step,
)

if TYPE_CHECKING:
    from pathlib import Path


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("a given step's function was called")


def double(x: Any) -> Any:
    return 2 * x


@step(outputs=["train", "test"])
def split(rows: list[int]) -> tuple[list[int], list[int]]:
    return never(rows)


def both(train: list[int], test: list[int]) -> list[int]:
    return [*train, 0, *test]


def lists() -> Pipeline:
    """Return a list, a map over it, a map over that, and what reads both."""
    pipeline = Pipeline("lists").add_step(never, name="load").map(never, over="load", name="halves")
    pipeline.map(double, over="halves", name="doubles")
    return pipeline.add_step(lambda halves, doubles: (list(halves), list(doubles)), name="end")


# ---- what can be given ---------------------------------------------------------------------------------------------


def test_a_given_step_does_not_run_and_its_value_is_used(executor: Executor) -> None:
    pipeline = Pipeline("p").add_step(never, name="load", inputs=["path"], retry=2, timeout=1, condition=never)
    result = pipeline.add_step(double, inputs=["load"]).run(given={"load": [1]}, executor=executor)
    assert (states(result), result["double"], result["load"]) == ({"load": "given", "double": "success"}, [1, 1], [1])
    done = result.step_results["load"]
    assert (done.state, done.given, done.success, done.attempts, done.cached) == (StepState.GIVEN, True, True, 0, False)
    assert bool(result)


def test_none_is_a_value_like_any_other(executor: Executor) -> None:
    pipeline = Pipeline("p").add_step(never, name="load").add_step(repr, inputs=["load"])
    assert pipeline.run(given={"load": None}, executor=executor)["repr"] == "None"


def test_a_large_array_is_given(executor: Executor) -> None:
    pipeline = Pipeline("p").add_step(never, name="load").map(lambda k, load: float(load[k]), range(3), name="each")
    assert list(pipeline.run(given={"load": np.arange(300_000.0)}, executor=executor)["each"]) == [0, 1, 2]


@pytest.mark.parametrize(
    "given",
    [{"split": ([1], [2])}, {"split": {"test": [2], "train": [1]}}, {"test": [2], "train": [1]}],
    ids=["a tuple", "a dict", "each"],
)
def test_a_step_with_several_outputs_is_given_as_a_whole_or_by_each(executor: Executor, given: Any) -> None:
    result = Pipeline("p").add_step(split).add_step(both).run(given=given, executor=executor)
    assert (states(result)["split"], result["both"], result["train"]) == ("given", [1, 0, 2], [1])


def test_a_single_output_is_given_by_its_name_or_the_steps(executor: Executor) -> None:
    pipeline = Pipeline("p").add_step(never, name="fit", outputs=["model"]).add_step(double, inputs=["model"])
    for name in ("fit", "model"):
        assert pipeline.run(given={name: 4}, executor=executor)["double"] == 8


def test_a_given_map_has_a_list_of_the_values_of_its_items(executor: Executor) -> None:
    result = lists().run(given={"load": "unread", "halves": (1, 2)}, executor=executor)
    assert result["end"] == ([1, 2], [2, 4])
    assert [str(item.state) for item in result.step_results["halves"].items] == ["given", "given"]
    assert states(result) == {"load": "given", "halves": "given", "doubles": "success", "end": "success"}


def test_a_given_map_may_have_no_items(executor: Executor) -> None:
    result = lists().run(given={"load": [], "halves": []}, executor=executor)
    assert (result["end"], states(result)["halves"]) == (([], []), "given")


def test_a_given_list_says_how_many_items_a_map_has(executor: Executor) -> None:
    pipeline = Pipeline("p").add_step(never, name="load").map(double, over="load")
    assert list(pipeline.run(given={"load": [1, 2, 3]}, executor=executor)["double"]) == [2, 4, 6]


def test_a_given_map_task_is_read_as_its_result(executor: Executor) -> None:
    task = map_task(never, min_success_ratio=0.5)
    pipeline = Pipeline("p").add_step(never, name="rows").add_step(task, "task", inputs=["rows"])
    pipeline.add_step(lambda task: (list(task), task.total), name="end")
    assert pipeline.run(given={"rows": [], "task": [1, 2]}, executor=executor)["end"] == ([1, 2], 2)


def test_steps_of_sub_pipelines_are_given_by_their_whole_name(executor: Executor) -> None:
    inner = Pipeline("etl").add_step(never, name="load", inputs=["path"]).add_step(double, inputs=["load"])
    outer = Pipeline("p").add_step(lambda: "x", name="where").add_step(lambda: 1, name="first")
    outer.add_sub_pipeline(inner, inputs={"path": "where"}, outputs={"double": "rows"}, after=["first"])
    outer.add_step(double, "end", inputs=["rows"])
    result = outer.run(given={"etl.load": 2}, executor=executor)
    assert (result["end"], states(result)["etl.load"]) == (8, "given")
    assert outer.run(given={"rows": 3}, targets="end", executor=executor)["end"] == 6


def test_a_given_decision_chooses_its_branch(executor: Executor) -> None:
    pipeline = Pipeline("p").add_step(lambda: 1, name="load")
    pipeline.add_control_flow(If(never, step(name="yes")(lambda: "yes"), step(name="no")(lambda: "no"), name="large"))
    result = pipeline.run(given={"large": False}, executor=executor)
    assert states(result) == {"load": "success", "large": "given", "yes": "skipped", "no": "success"}


def test_a_join_and_a_decision_read_a_given_step(executor: Executor) -> None:
    pipeline = Pipeline("p").map(never, [1], name="m").add_step(never, name="load")
    pipeline.add_step(lambda m=None, load=None: (m, load), "join", run_if="any")
    pipeline.add_control_flow(If(lambda ctx: ctx["m"] == [5], step(name="yes")(str), name="asks"))
    result = pipeline.run(given={"m": [5], "load": 6}, executor=executor)
    assert (result["join"], result["asks"]) == (([5], 6), True)


# ---- what else runs ------------------------------------------------------------------------------------------------


def test_what_a_given_step_needs_runs_unless_targets_leave_it_out(executor: Executor) -> None:
    pipeline = Pipeline("p").add_step(lambda: 1, name="before").add_step(never, name="load", inputs=["before"])
    pipeline.add_step(double, inputs=["load"])
    assert states(pipeline.run(given={"load": 2}, executor=executor))["before"] == "success"
    assert list(states(pipeline.run(given={"load": 2}, targets="double", executor=executor))) == ["load", "double"]


def test_a_given_step_waits_for_nothing(executor: Executor) -> None:
    pipeline = Pipeline("p").add_step(lambda: 1 // 0, name="fails").add_step(never, name="load", inputs=["fails"])
    pipeline.add_step(double, inputs=["load"]).add_step(never, name="after", after="fails")
    result = pipeline.run(given={"load": 2, "after": 1}, executor=executor)
    assert states(result) == {"fails": "failed", "load": "given", "double": "success", "after": "given"}


def test_what_a_given_step_lacks_is_no_problem() -> None:
    pipeline = Pipeline("p").add_step(lambda absent: absent, "load", inputs=["nowhere"], resources={"api": 1})
    assert pipeline.add_step(double, inputs=["load"]).run(given={"load": 2})["double"] == 4


def test_given_values_are_released_after_their_last_reader(executor: Executor) -> None:
    pipeline = Pipeline("p").add_step(never, name="load").add_step(double, inputs=["load"])
    result = pipeline.run(given={"load": 2}, keep="leaves", executor=executor)
    assert dict(result.outputs) == {"double": 4}


def test_a_run_of_given_steps_only_has_nothing_to_do(executor: Executor) -> None:
    assert dict(Pipeline("p").add_step(never, "a").run(given={"a": 1}, executor=executor).outputs) == {"a": 1}


async def _awaited() -> Any:
    pipeline = Pipeline("p").add_step(never, name="load").add_step(double, inputs=["load"])
    return await pipeline.run_async(given={"load": 2})


def test_a_run_that_is_awaited_takes_given_values() -> None:
    import asyncio

    assert asyncio.run(_awaited())["double"] == 4


def test_a_dry_run_counts_given_steps_apart(capsys: pytest.CaptureFixture[str]) -> None:
    result = lists().run(given={"load": [1], "halves": [1, 2]}, dry_run=True)
    told = capsys.readouterr().out
    assert "Dry run: 2 steps (3 calls) would run on LocalExecutor" in told
    assert "Given: 'load', 'halves'." in told
    assert states(result) == {"load": "given", "halves": "given", "doubles": "waiting", "end": "waiting"}
    assert Pipeline("p").add_step(never, "a").dry_run(given={"a": 1}).state == "dry_run"


# ---- what is stored ------------------------------------------------------------------------------------------------


def test_keys_of_what_reads_a_given_value_count_the_value(executor: Executor, tmp_path: Path) -> None:
    pipeline = Pipeline("p", cache_dir=tmp_path).add_step(lambda: [1], name="load", cache=True)
    pipeline.add_step(double, inputs=["load"], cache=True)
    assert list(states(pipeline.run(executor=executor)).values()) == ["success", "success"]
    again = pipeline.run(given={"load": [1]}, executor=executor)
    other = pipeline.run(given={"load": [2]}, executor=executor)
    assert (list(states(again).values()), again["double"]) == (["given", "cached"], [1, 1])
    assert (list(states(other).values()), other["double"]) == (["given", "success"], [2, 2])
    assert list(states(pipeline.run(executor=executor)).values()) == ["cached", "cached"], "what is given is not stored"


def test_a_continued_run_takes_over_what_was_made_of_the_same_value(executor: Executor, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()

    def end(x: Any, broken: str) -> Any:
        import pathlib

        if pathlib.Path(broken).exists():
            raise OSError
        return x

    def made() -> Pipeline:
        pipeline = Pipeline("p", enable_checkpointing=True, checkpoint_dir=tmp_path / "runs", enable_cache=False)
        pipeline.add_step(lambda: [1], name="load").add_step(double, inputs=["load"])
        return pipeline.add_step(end, params={"broken": str(broken)}, inputs={"x": "double"})

    first = made().run(given={"load": [5]}, executor=executor)
    assert list(states(first).values()) == ["given", "success", "failed"]
    broken.unlink()
    other = made().run(given={"load": [6]}, resume=first.run_id, executor=executor)
    assert (list(states(other).values()), other["end"]) == (["given", "success", "success"], [6, 6])
    assert "load" not in str(other.resumed)


# ---- how it is shown ------------------------------------------------------------------------------------------------


def test_hooks_are_notified_of_a_given_step_as_of_one_that_did_not_run(executor: Executor) -> None:
    pipeline, told = Pipeline("p").add_step(never, name="load").add_step(double, inputs=["load"]), []
    pipeline.hooks.on_step_start(lambda step, _: told.append(("start", step.name)))
    pipeline.hooks.on_step_end(lambda step, done: told.append((str(done.state), step.name)))
    pipeline.run(given={"load": 2}, executor=executor)
    assert sorted(told) == [("given", "load"), ("start", "double"), ("success", "double")]


def test_reports_show_the_state(tmp_path: Path) -> None:
    result = lists().run(given={"load": [1], "halves": [1, 2]})
    assert "load: 0.00s given" in result.summary()
    assert "3 given" in repr(result)
    assert json.loads(json.dumps(result.to_dict()))["steps"]["halves"]["given"] is True
    frame = result.to_dataframe()
    assert list(frame["state"].astype(str)) == ["given"] * 3 + ["success"] * 3
    assert frame["duration"].isna().tolist() == [True] * 3 + [False] * 3
    result.to_html(tmp_path / "page.html")
    result.to_trace(tmp_path / "trace.json")
    assert "given" in (tmp_path / "page.html").read_text()
    assert "halves" not in (tmp_path / "trace.json").read_text()
    assert [str(call.state) for call in result.timeline()][:3] == ["given"] * 3


def test_progress_counts_given_calls_apart() -> None:
    from flowyml.progress.display import Progress
    from flowyml.progress.terminal import trouble_text

    progress = Progress("p", 6, 3, 1, 0, {"given": 3}, 2.0, (), open=False)
    assert (trouble_text(progress), progress.remaining) == ("3 given", None)


# ---- what is refused -----------------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelled name": ({"lod": 1}, "given: 'lod' is no step or asset of this pipeline; did you mean 'load'?"),
    "an input of the run": ({"weather": 1}, "'weather' is no step or asset .*; what no step produces is given as run"),
    "one item": ({"halves[0]": 1}, r"'halves\[0\]' is one item; give the list of the values of all items as 'halves'"),
    "a map as a number": ({"halves": 3}, "the mapped step 'halves' must be a list with .*, got int 3"),
    "a map as a dict": ({"halves": {}}, "the mapped step 'halves' must be a list with .*, got a dict; make it"),
    "a generator": ({"load": (n for n in [1])}, "'load' is a generator, which can be read only once; make it a list"),
    "an output that is a generator": (
        {"split": (1, (n for n in [2]))},
        "an output in the value of step 'split' can be read only once; make it a list",
    ),
    "one of two outputs": ({"train": 1}, "step 'split' has 2 outputs, 'test' is not given; give all of them"),
    "a wrong number of outputs": (
        {"split": (1, 2, 3)},
        r"step 'split' must be a tuple or list of 2 values, .* keys \['train', 'test'\], got 3 values",
    ),
    "a value twice": ({"split": (1, 2), "test": 2}, "the value of step 'split' is given twice, .* as 'test'"),
    "a sub-pipeline": ({"etl": 1}, "'etl' is a sub-pipeline; give values of its steps, as in 'etl.step'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_given_is_refused_before_anything_runs(name: str) -> None:
    given, words = REFUSED[name]
    pipeline = lists().add_step(split, inputs={"rows": "load"}).add_step(step(never, name="ran"))
    pipeline.add_sub_pipeline(Pipeline("etl").add_step(never, name="clean"))
    with pytest.raises(PipelineValidationError, match=words):
        pipeline.run(given=given)


def test_all_that_is_wrong_with_given_values_comes_at_once() -> None:
    with pytest.raises(PipelineValidationError) as caught:
        lists().run(given={"lod": 1, "halves[1]": 2})
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("targets", [None, "end"])
def test_an_input_that_a_step_produces_is_refused_and_names_given(targets: Any) -> None:
    pipeline = lists().add_step(step(never, name="ran"))
    words = r"run\(inputs=\) gives 'load', which step 'load' produces .*; run\(given=\{'load': \.\.\.\}\) takes"
    with pytest.raises(PipelineValidationError, match=words):
        pipeline.run({"load": [1]}, targets=targets)
    with pytest.raises(PipelineValidationError, match=words):
        pipeline.build({"load": [1]})
    with pytest.raises(PipelineValidationError, match="both give 'load'; leave it out of inputs"):
        pipeline.run({"load": [1]}, given={"load": [1]})


def test_a_given_value_that_no_target_needs_is_a_warning() -> None:
    pipeline = lists().add_step(double, params={"x": 1})
    with pytest.warns(UserWarning, match=r"run\(given=\) gives 'load', which no step of targets= needs"):
        assert pipeline.run(given={"load": [1]}, targets="double")["double"] == 2


def test_a_given_value_that_does_not_pickle_is_named() -> None:
    pipeline = Pipeline("p").add_step(never, name="load").add_step(repr, inputs=["load"])
    with ParallelExecutor(1) as executor, pytest.raises(SerializationError, match="the given value of step 'load'"):
        pipeline.run(given={"load": threading.Lock()}, executor=executor)
