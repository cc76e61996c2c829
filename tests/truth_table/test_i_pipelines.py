"""Probes I1 to I9, N2 to N4, P1, and the rows of sections 1.6 and 1.7: pipelines, results, the graph."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import (
    CycleError,
    If,
    LocalExecutor,
    ParallelExecutor,
    Pipeline,
    PipelineValidationError,
    StepError,
    StepState,
    step,
)

if TYPE_CHECKING:
    from pathlib import Path


def load_data() -> list[int]:
    return [3, 4]


def preprocess(load_data: list[int]) -> list[int]:
    return [2 * row for row in load_data]


def broken(load_data: list[int]) -> None:
    raise ValueError(len(load_data))


def pipeline() -> Pipeline:
    return Pipeline("training").add_steps([load_data, preprocess])


# ---- the graph -----------------------------------------------------------------------------------------------------


def test_I1_the_picture_has_the_documented_lines() -> None:
    expected = [
        *["Pipeline DAG: training", "", "Step Execution Order:"],
        *["  1. load_data", "  2. preprocess (depends on: load_data)"],
    ]
    assert pipeline().visualize().splitlines() == expected
    assert pipeline().dag.visualize() == pipeline().visualize()


def test_I1_many_like_steps_are_one_line() -> None:
    many = Pipeline("p")
    for k in range(1_000):
        many.add_step(load_data, name=f"chunk_{k}")
    assert "chunk_0 ... chunk_999 (1,000 x load_data)" in many.visualize()


@pytest.mark.parametrize(("kind", "begins"), [("mermaid", "flowchart"), ("dot", "digraph"), ("svg", "<svg")])
def test_I1_other_formats_are_text_and_a_notebook_draws(kind: Any, begins: str) -> None:
    assert pipeline().visualize(kind).startswith(begins)
    assert set(pipeline()._repr_mimebundle_()) == {"text/plain", "image/svg+xml"}


def test_I2_a_cycle_is_told_with_its_path() -> None:
    made = Pipeline("p").add_step(lambda b: b, name="a").add_step(lambda a: a, name="b")
    with pytest.raises(CycleError, match=r"Pipeline contains cycles! a → b → a: 'a' \(.*:\d+\), 'b'"):
        made.build()


def test_I2_an_undefined_asset_is_told_with_the_nearest_one() -> None:
    with pytest.raises(PipelineValidationError, match="Node 'b' requires undefined asset 'load_dat'; did you mean"):
        pipeline().add_step(len, name="b", inputs=["load_dat"]).build()


def test_I3_two_producers_of_one_asset_are_told_with_both_places() -> None:
    made = Pipeline("p").add_step(load_data, outputs=["a"]).add_step(load_data, name="again", outputs=["a"])
    with pytest.raises(PipelineValidationError, match=r"Multiple nodes produce asset 'a': 'load_data' \(.*'again' \("):
        made.build()


def test_I8_the_graph_has_the_documented_views_and_queries() -> None:
    dag = pipeline().dag
    assert (dag.nodes["preprocess"].name, dag.nodes["preprocess"].inputs) == ("preprocess", ["load_data"])
    assert (dag.nodes["preprocess"].step.func, dag.nodes["preprocess"].outputs) == (preprocess, ["preprocess"])
    assert (dag.edges["preprocess"], dag.reverse_edges["load_data"]) == ({"load_data"}, {"preprocess"})
    assert (dag.asset_producers["load_data"], dag.asset_consumers["load_data"]) == ("load_data", {"preprocess"})
    assert [node.name for node in dag.topological_sort()] == ["load_data", "preprocess"]
    assert (dag.get_dependencies("preprocess"), dag.get_dependents("load_data")) == ({"load_data"}, {"preprocess"})
    assert dag.get_all_dependencies("preprocess") == {"load_data"}
    assert dag.get_all_dependents("load_data") == {"preprocess"}
    assert dag.validate() == ([], [])
    assert list(dag.to_networkx().edges) == [("load_data", "preprocess")]


def test_I9_show_is_at_its_documented_path(capsys: pytest.CaptureFixture[str]) -> None:
    from flowyml.visualize import show

    show(pipeline())
    assert capsys.readouterr().out.startswith("Pipeline DAG: training")


# ---- pipelines -----------------------------------------------------------------------------------------------------


def test_I4_an_empty_pipeline_is_a_success(executor: Any) -> None:
    result = Pipeline("empty").run(executor=executor)
    assert (result.success, dict(result.outputs), dict(result.step_results)) == (True, {}, {})


def test_I7_a_dry_run_prints_the_plan_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[int] = []
    made = pipeline().add_step(ran.append, name="third", params={"object": 1})
    for result in (made.dry_run(), made.run(dry_run=True)):
        assert (result.success, result.state, result.failed) == (False, "dry_run", [])
        assert result.step_results["preprocess"].state == StepState.WAITING
    assert capsys.readouterr().out.count("3 steps (3 calls) would run on LocalExecutor") == 2
    assert ran == []


def test_I7_debug_tells_where_each_argument_comes_from(caplog: pytest.LogCaptureFixture) -> None:
    pipeline().run(debug=True)
    assert "step 'preprocess': load_data: output of step 'load_data'" in caplog.text


def test_i_row_keywords_out_of_scope_are_one_warning_and_unknown_ones_an_error() -> None:
    with pytest.warns(UserWarning, match="ignores enable_experiment_tracking, project_name, stack, version") as caught:
        Pipeline("p", stack=None, version="1", project_name="x", enable_experiment_tracking=True)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=r"run\(\) ignores auto_start_ui, docker_config"):
        pipeline().run(auto_start_ui=True, docker_config=None)
    with pytest.warns(UserWarning, match=r"run\(\) ignores resources: .* in ParallelExecutor\(resources=\)"):
        pipeline().run(resources={"cpu": 2})
    with pytest.raises(TypeError, match="'contxt'; did you mean 'context'"):
        Pipeline("p", contxt={})


def test_i_row_decisions_are_added_as_steps_are() -> None:
    made = pipeline().add_step(If(lambda ctx: ctx["preprocess"][0] > 5, then_step=step(len, inputs=["preprocess"])))
    assert made.run()["len"] == 2


def test_i_row_steps_in_one_go_and_the_documented_attributes() -> None:
    made = Pipeline.from_steps(load_data, preprocess, name="p", context={"a": 1})
    made.build()
    assert [each.name for each in made.steps] == ["load_data", "preprocess"]
    assert (made.name, made.context.a) == ("p", 1)


def test_i_row_a_pipeline_describes_itself() -> None:
    definition = json.loads(json.dumps(pipeline().to_definition()))
    assert definition["dag"]["edges"] == [{"source": "load_data", "target": "preprocess"}]
    assert definition["steps"][0]["source_code"] == inspect.getsource(load_data)


def test_N2_groups_are_ignored_with_a_warning(executor: Any) -> None:
    with pytest.warns(UserWarning, match="ignores execution_group"):
        grouped = [step(execution_group="prepare")(each) for each in (load_data, preprocess)]
    made = Pipeline("p").add_steps(grouped)
    assert made.run(executor=executor)["preprocess"] == [6, 8]


def test_N3_resources_are_never_exceeded_and_an_unknown_one_is_an_error(tmp_path: Path) -> None:
    def alone() -> int:
        (tmp_path / "lock").mkdir()
        time.sleep(0.01)
        (tmp_path / "lock").rmdir()
        return 1

    made = Pipeline("p")
    for k in range(4):
        made.add_step(alone, name=f"alone_{k}", resources={"api": 1})
    with ParallelExecutor(4, backend="thread", resources={"api": 1}) as executor:
        assert made.run(executor=executor).success
    with (
        ParallelExecutor(2, backend="thread") as executor,
        pytest.raises(PipelineValidationError, match="requires 1 api, of which"),
    ):
        made.run(executor=executor)


def test_N4_steps_are_found_by_the_name_of_their_pipeline() -> None:
    found = step(name="found", pipeline="truth table n4")(load_data)
    made = Pipeline("truth table n4", auto_discover=True)
    result = made.run(targets="found")
    assert (result["found"], found in made.steps) == ([3, 4], True)


def test_P1_a_step_costs_little() -> None:
    made = Pipeline("p").map(abs, range(2_000))
    began = time.process_time()
    assert made.run(executor=LocalExecutor()).success
    assert (time.process_time() - began) / 2_000 < 1e-3  # 2.2.1: 10 ms


# ---- results -------------------------------------------------------------------------------------------------------


def test_I5_a_result_has_the_documented_attributes(executor: Any) -> None:
    result = pipeline().run(executor=executor, run_id="mine")
    assert (result.run_id, result.pipeline_name, result.success, result.state) == ("mine", "training", True, "success")
    assert dict(result.outputs) == {"load_data": [3, 4], "preprocess": [6, 8]}
    assert result["preprocess"] == [6, 8]
    assert result.end_time >= result.start_time
    assert result.duration_seconds >= 0
    assert result.failed == []
    keys = {"run_id", "pipeline_name", "success", "state", "start_time", "end_time", "duration_seconds", "steps"}
    told = json.loads(json.dumps(result.to_dict()))
    assert keys == set(told)
    assert {"success", "duration", "cached", "retries", "error"} <= set(told["steps"]["preprocess"])


def test_I5_what_came_of_a_step_has_the_documented_attributes(executor: Any) -> None:
    done = pipeline().run(executor=executor).step_results["preprocess"]
    assert (done.step_name, done.success, done.output, done.error) == ("preprocess", True, [6, 8], None)
    assert (done.cached, done.skipped, done.retries, done.attempts) == (False, False, 0, 1)
    assert (done.state, done.exception) == (StepState.SUCCESS, None)
    assert done.duration_seconds >= 0
    assert done.started_at is not None


def test_I6_the_summary_has_the_documented_headings(executor: Any) -> None:
    result = Pipeline("p").add_step(load_data).add_step(broken, retry=1).run(executor=executor)
    first, second, third, fourth, fifth, *steps = result.summary().splitlines()
    assert (first, fifth) == ("Pipeline: p", "Steps:")
    assert [line.split(":")[0] for line in (second, third, fourth)] == ["Run ID", "Status", "Duration"]
    assert steps[0].startswith("  ✓ load_data: ")
    assert "retry" not in steps[0]
    assert "✗ broken: " in steps[1]
    assert "[1 retry]" in steps[1]


def test_i_row_what_failed_can_be_raised(executor: Any) -> None:
    result = Pipeline("p").add_step(load_data).add_step(broken).run(executor=executor)
    assert [done.step_name for done in result.failed] == ["broken"]
    with pytest.raises(StepError, match="broken"):
        result.raise_for_failure()
    with pytest.raises(StepError):
        Pipeline("p").add_steps([load_data, broken]).run(executor=executor, raise_on_failure=True)


def test_Q8_a_plain_run_leaves_no_file_and_opens_no_port(tmp_path: Path) -> None:
    code = (
        "import socket; from flowyml import Pipeline\n"
        "def refuse(*_): raise AssertionError\n"
        "socket.socket.bind = refuse\n"
        "for _ in range(2): assert Pipeline('p').add_step(dict).run().success\n"
    )
    subprocess.run([sys.executable, "-B", "-c", code], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
