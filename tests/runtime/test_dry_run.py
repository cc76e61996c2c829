"""`run(dry_run=True)` and `run(debug=True)`: what would run, and where arguments come from."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import pytest

from flowyml import Pipeline, PipelineValidationError, StepNotRunError, StepState, step

RAN: list[str] = []


@step
def load(path):
    RAN.append(path)
    return path


@step
def count(load, rate, n=3):
    return load, rate, n


@pytest.fixture
def pipeline() -> Pipeline:
    RAN.clear()
    return Pipeline("p", context={"rate": 2}).add_steps([load, count]).map(len, ["a", "bc"], name="sizes")


# -- dry_run


def test_i7_nothing_runs(pipeline, executor):
    result = pipeline.run({"path": "x"}, executor=executor, dry_run=True)
    assert (RAN, result.success, result.state, result.failed, dict(result.outputs)) == ([], False, "dry_run", [], {})


def test_the_plan_is_printed(pipeline, capsys):
    pipeline.run({"path": "x"}, dry_run=True)
    assert capsys.readouterr().out == (
        "Pipeline DAG: p\n\nStep Execution Order:\n  1. load\n  2. count (depends on: load)\n"
        "  3. sizes (2 items of len)\n\n"
        "Dry run: 3 steps (4 calls) would run on LocalExecutor; nothing was run.\n"
    )


def test_run_async_prints_the_same(pipeline, executor, capsys):
    result = asyncio.run(pipeline.run_async({"path": "x"}, executor=executor, dry_run=True))
    told = capsys.readouterr().out
    pipeline.run({"path": "x"}, executor=executor, dry_run=True)
    assert (RAN, result.state, told) == ([], "dry_run", capsys.readouterr().out)


def test_every_step_waits(pipeline):
    result = pipeline.map(len, [], name="none").run({"path": "x"}, dry_run=True)
    assert {each.state for each in result.step_results.values()} == {StepState.WAITING}
    assert [item.state for item in result.step_results["sizes"].items] == [StepState.WAITING] * 2
    assert {each["state"] for each in result.to_dict()["steps"].values()} == {"waiting"}
    assert "· DRY_RUN" in result.summary()
    assert repr(result) == "<PipelineResult 'p' dry_run: 4 waiting>"


def test_no_step_has_a_value(pipeline):
    result = pipeline.run({"path": "x"}, dry_run=True)
    with pytest.raises(StepNotRunError, match="waiting"):
        _ = result["load"]
    assert (result.step_results["load"].error, result.step_results["load"].attempts) == (None, 0)


def test_it_is_no_failure(pipeline, caplog):
    pipeline.run({"path": "x"}, dry_run=True, raise_on_failure=True).raise_for_failure()
    assert caplog.records == []


def test_what_is_wrong_is_raised(pipeline):
    with pytest.raises(PipelineValidationError, match="'path'"):
        pipeline.run(dry_run=True)
    with pytest.raises(ValueError, match="keep names 'laod'"):
        pipeline.run({"path": "x"}, dry_run=True, keep=["laod"])


def test_a_run_afterwards_runs(pipeline):
    pipeline.run({"path": "x"}, dry_run=True)
    assert pipeline.run({"path": "x"})["count"] == ("x", 2, 3)


# -- debug


def lines(caplog, pipeline: Pipeline, **arguments) -> list[str]:
    with caplog.at_level(logging.INFO, logger="flowyml"):
        pipeline.run(debug=True, **arguments)
    return [record.getMessage() for record in caplog.records]


def test_i7_debug_tells_where_each_argument_comes_from(pipeline, caplog):
    implicit = "output of step 'load' (implicit: it has the parameter's name)"
    assert lines(caplog, pipeline, inputs={"path": "x"}) == [
        "step 'load': path: run(inputs=)",
        f"step 'count': load: {implicit}; rate: context; n: default 3",
        "step 'sizes': obj: the item, one of 2",
    ]
    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_debug_knows_the_context_of_the_run(pipeline, caplog):
    told = lines(caplog, pipeline, inputs={"path": "x"}, context={"rate": 5})
    assert "rate: run(context=)" in told[1]


def test_debug_tells_a_declared_run_input(caplog):
    made = Pipeline("p").add_step(len, inputs=["rows"])
    assert lines(caplog, made, inputs={"rows": [1]}) == ["step 'len': obj: run(inputs=), 'rows' (declared input)"]


def test_steps_called_alike_share_a_line(caplog):
    made = Pipeline("p").add_step(dict, name="base")
    for i in range(100):
        made.add_step(abs, name=f"a{i}", params={"x": i})
    for i in range(2):
        made.add_step(len, name=f"l{i}", inputs=["base"])
    told = lines(caplog, made)
    assert told[1:] == [
        "step 'a0' and 99 like it: x: params",
        "step 'l0': obj: output of step 'base' (declared input)",
        "step 'l1': obj: output of step 'base' (declared input)",
    ]


def test_a_step_without_arguments_is_told(caplog):
    assert lines(caplog, Pipeline("p").add_step(lambda: 0, name="a")) == ["step 'a': no arguments"]


def test_no_value_is_logged(caplog):
    made = Pipeline("p", context={"token": "s3cret"}).add_step(lambda token, key: 0, name="a", params={"key": "s3cret"})
    assert "s3cret" not in "".join(lines(caplog, made))


def test_without_logging_set_up_it_stands_on_stderr():
    code = "from flowyml import Pipeline; Pipeline('p').add_step(abs, params={'x': 1}).run(debug=True)"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stderr == "step 'abs': x: params\n"


def test_a_run_without_it_logs_nothing(pipeline, caplog):
    with caplog.at_level(logging.DEBUG, logger="flowyml"):
        pipeline.run({"path": "x"})
    assert caplog.records == []
