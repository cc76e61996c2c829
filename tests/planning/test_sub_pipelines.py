"""A pipeline as part of another: whose names hold where, what goes across the border, and that nothing else does."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from step_states import states

from flowyml import (
    If,
    LocalExecutor,
    OutputMismatchError,
    Pipeline,
    PipelineValidationError,
    Switch,
    dynamic,
    get_context,
    step,
    sub_pipeline,
)

if TYPE_CHECKING:
    from pathlib import Path

    from flowyml import Executor


def load() -> list[int]:
    return [3, 1, 2]


def clean(raw: list[int], scale: int = 1) -> list[int]:
    return sorted(scale * each for each in raw)


def size(clean: list[int]) -> int:
    return len(clean)


def same(value: Any) -> Any:
    return value


def add(left: int, right: int) -> int:
    return left + right


def total(numbers: list[int]) -> int:
    return sum(numbers)


def refuse(*_: object) -> None:
    raise ValueError("refused")


def etl(**keywords: Any) -> Pipeline:
    return Pipeline("etl", **keywords).add_step(clean).add_step(size)


def around(child: Pipeline, *arguments: Any, **keywords: Any) -> Pipeline:
    """Return a pipeline that loads and has a child."""
    return Pipeline("whole").add_step(load, name="raw").add_sub_pipeline(child, *arguments, **keywords)


def values(pipeline: Pipeline, *arguments: Any, **keywords: Any) -> dict[str, Any]:
    result = pipeline.run(*arguments, **keywords)
    result.raise_for_failure()
    return dict(result.outputs)


def problems(pipeline: Pipeline) -> str:
    with pytest.raises(PipelineValidationError) as caught:
        pipeline.build()
    return str(caught.value)


# ---- names ---------------------------------------------------------------------------------------------------------


def test_steps_and_assets_stand_behind_the_name_in_add_order(executor: Executor) -> None:
    whole = around(etl()).add_step(same, "last", inputs=["etl.size"])
    result = whole.run(executor=executor)
    assert dict(result.outputs) == {"raw": [3, 1, 2], "etl.clean": [1, 2, 3], "etl.size": 3, "last": 3}
    assert list(result.step_results) == ["raw", "etl.clean", "etl.size", "last"]
    assert result["etl.clean"] == result.step_results["etl.clean"].output == [1, 2, 3]


def test_inside_its_own_names_hold() -> None:
    whole = around(etl()).add_step(lambda: "another", "clean").add_step(same, "last", inputs=["clean"])
    assert values(whole)["etl.size"] == 3
    assert values(whole)["last"] == "another"


def test_outside_only_the_prefixed_names_are_there() -> None:
    assert "Node 'last' requires undefined asset 'size'" in problems(
        around(etl()).add_step(same, "last", inputs=["size"])
    )
    assert "size" not in around(etl()).run()


def test_a_step_outside_whose_name_has_the_prefix_is_not_seen_inside() -> None:
    child = Pipeline("etl").add_step(same, "reads", inputs=["extra"])
    whole = Pipeline("whole").add_step(load, "etl.extra").add_sub_pipeline(child)
    assert "Node 'etl.reads' requires undefined asset 'extra'" in problems(whole)


def test_the_same_pipeline_twice_under_two_names(executor: Executor) -> None:
    child = Pipeline("child").add_step(same, "double", inputs=["word"]).add_step(str.upper, "loud", inputs=["double"])
    whole = Pipeline("whole")
    for word in ("yes", "no"):
        whole.add_sub_pipeline(child, {"word": word}, name=f"of_{word}", outputs={"loud": word.upper()})
    assert dict(whole.run({"yes": "y", "no": "n"}, executor=executor).outputs) == {
        "of_yes.double": "y",
        "YES": "Y",
        "of_no.double": "n",
        "NO": "N",
    }


def test_sub_pipelines_of_sub_pipelines(executor: Executor) -> None:
    middle = (
        Pipeline("middle")
        .add_step(load, "raw")
        .add_sub_pipeline(etl(), outputs=["size"])
        .add_step(same, "n", inputs=["size"])
    )
    whole = Pipeline("whole").add_sub_pipeline(middle, outputs={"etl.clean": "cleaned", "size": "count"})
    whole.add_step(lambda cleaned, count: (cleaned, count), "both")
    result = whole.run(executor=executor)
    assert list(result.outputs) == ["middle.raw", "cleaned", "count", "middle.n", "both"]
    assert result["both"] == ([1, 2, 3], 3)
    assert result["middle.etl.size"] == result["middle.size"] == result["count"] == result["middle.n"] == 3


def test_four_levels_hand_a_value_down_and_another_up(executor: Executor) -> None:
    whole = Pipeline("p0").add_step(same, "up", inputs=["down"])
    for level in range(1, 4):
        whole = Pipeline(f"p{level}").add_sub_pipeline(whole, ["down"], ["up"])
    whole = Pipeline("top").add_step(load, "down").add_sub_pipeline(whole, outputs=["up"])
    result = whole.run(executor=executor)
    assert list(result.step_results) == ["down", "p3.p2.p1.p0.up"]
    assert result["up"] == result["p3.p2.p1.p0.up"] == result["p3.p2.up"] == [3, 1, 2]


def test_what_is_added_later_does_not_show() -> None:
    child = etl(context={"scale": 10})
    whole = around(child)
    child.add_step(same, "later", inputs=["size"])
    child.context.update(scale=100)
    assert list(values(whole)) == ["raw", "etl.clean", "etl.size"]
    assert values(whole)["etl.clean"] == [10, 20, 30]
    assert list(values(child, {"raw": [1]})) == ["clean", "size", "later"]


def test_a_pipeline_that_holds_an_older_copy_of_this_one_may_be_added() -> None:
    first = Pipeline("first").add_step(load)
    second = Pipeline("second").add_sub_pipeline(first)
    assert list(values(first.add_sub_pipeline(second))) == ["load", "second.first.load"]


def test_an_empty_pipeline_adds_nothing() -> None:
    assert list(values(around(Pipeline("empty")))) == ["raw"]
    assert "sub-pipeline 'empty' does not need input 'raw'" in problems(around(Pipeline("empty"), ["raw"]))


def test_as_a_step_of_add_step_and_add_steps() -> None:
    whole = Pipeline("whole").add_steps([load, sub_pipeline(etl(), {"raw": "load"}, name="first")])
    whole.add_step(sub_pipeline(etl(), {"raw": "load"}), name="second")
    assert list(values(whole)) == ["load", "first.clean", "first.size", "second.clean", "second.size"]


def test_many_like_steps_share_one_new_form() -> None:
    child = Pipeline("child")
    for number in range(1000):
        child.add_step(same, f"n{number}", {"value": number})
    whole = Pipeline("whole").add_sub_pipeline(child, name="a").add_sub_pipeline(child, name="b")
    assert len({id(spec) for spec in whole._builder.table.specs}) == 2
    assert whole._builder.table.rows[1999] is child._builder.table.rows[999]


# ---- what goes in --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"inputs": ["raw"]},
        {"inputs": "raw"},
        {"inputs": {"raw": "raw"}},
        {"input_mapping": {"raw": "raw"}},
        {"inputs": ["raw"], "input_mapping": {"raw": "raw"}},
    ],
    ids=str,
)
def test_a_value_goes_in_under_its_own_name(arguments: dict[str, Any]) -> None:
    assert values(around(etl(), **arguments))["etl.size"] == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"inputs": {"raw": "load"}},
        {"input_mapping": {"load": "raw"}},
        {"inputs": ["load"], "input_mapping": {"load": "raw"}},
    ],
    ids=str,
)
def test_a_value_goes_in_under_another_name(arguments: dict[str, Any], executor: Executor) -> None:
    whole = Pipeline("whole").add_step(load).add_sub_pipeline(etl(), **arguments)
    assert values(whole, executor=executor)["etl.clean"] == [1, 2, 3]


def test_names_that_were_given_are_the_only_ones() -> None:
    whole = around(etl(), []).add_step(lambda: 7, "scale")
    with pytest.raises(PipelineValidationError, match=r"Missing required parameters: \['raw'\]"):
        whole.run()
    assert values(whole, {"raw": [2]})["etl.clean"] == [2]
    assert values(around(etl(), ["raw"]).add_step(lambda: 7, "scale"))["etl.clean"] == [1, 2, 3]


def test_without_names_an_asset_of_the_same_name_goes_in_before_a_default() -> None:
    assert values(around(etl()).add_step(lambda: 7, "scale"))["etl.clean"] == [7, 14, 21]


def test_its_own_context_goes_before_an_asset_that_was_not_asked_for() -> None:
    whole = around(etl(context={"scale": 10})).add_step(lambda: 7, "scale")
    assert values(whole)["etl.clean"] == [10, 20, 30]


def test_what_was_given_goes_before_its_own_context() -> None:
    whole = around(etl(context={"scale": 10}), ["raw", "scale"]).add_step(lambda: 7, "scale")
    assert values(whole)["etl.clean"] == [7, 14, 21]


def test_its_own_context_goes_before_the_one_around_and_both_behind_the_runs() -> None:
    def whole(**own: int) -> Pipeline:
        return Pipeline("whole", context={"scale": 2}).add_step(load, "raw").add_sub_pipeline(etl(context=own))

    assert values(whole())["etl.clean"] == [2, 4, 6]
    assert values(whole(scale=3))["etl.clean"] == [3, 6, 9]
    assert values(whole(scale=3), context={"scale": 4})["etl.clean"] == [4, 8, 12]
    assert values(whole(scale=3), {"scale": 5}, context={"scale": 4})["etl.clean"] == [5, 10, 15]


def test_each_pipeline_around_adds_its_context() -> None:
    def show(context: Any) -> dict[str, int]:
        return dict(context)

    inner = Pipeline("inner", context={"a": 3}).add_step(show)
    middle = Pipeline("middle", context={"a": 2, "b": 2}).add_sub_pipeline(inner)
    whole = Pipeline("whole", context={"a": 1, "b": 1, "c": 1}).add_sub_pipeline(middle)
    assert values(whole, context={"d": 0}) == {"middle.inner.show": {"a": 3, "b": 2, "c": 1, "d": 0}}


def test_run_inputs_and_context_values_can_be_given(executor: Executor) -> None:
    whole = Pipeline("whole", context={"factor": 2}).add_sub_pipeline(etl(), {"raw": "numbers", "scale": "factor"})
    assert values(whole, {"numbers": [5, 4]}, executor=executor)["etl.clean"] == [8, 10]
    assert values(whole, {"numbers": [5, 4]}, context={"factor": 3}, executor=executor)["etl.clean"] == [12, 15]


def test_a_declared_input_that_nothing_gives_is_missing_from_outside() -> None:
    child = Pipeline("child").add_step(same, inputs=["row"])
    assert "Node 'child.same' requires undefined asset 'row'; did you mean 'raw'?" in problems(around(child))


def test_one_wrong_name_in_inputs_is_one_problem_of_the_sub_pipeline() -> None:
    reads = "sub-pipeline 'etl' requires undefined asset 'rwa', given as 'raw'; did you mean 'raw'?"
    for child, given, says in (
        (etl(), {"raw": "rwa", "scale": "raw"}, reads),
        (etl().add_step(same, inputs=["raw"]), {"raw": "rwa", "scale": "raw"}, reads),
        (
            etl(),
            {"rwa": "raw", "scale": "raw"},
            "does not need input 'rwa', none of its steps takes that; did you mean 'raw'",
        ),
        (
            Pipeline("child").add_step(same, inputs=["row"]),
            {"row": "r*a"},
            "asset 'r*a', given as 'row': the glob matches",
        ),
    ):
        with pytest.raises(PipelineValidationError) as caught:
            around(child, given).run()
        told = caught.value.problems
        assert len(told) == 1, told
        assert says in told[0]
        assert re.search(r"test_sub_pipelines\.py:\d+\)$", told[0])


def test_a_name_in_the_place_of_inputs_is_told_where_names_go() -> None:
    pipeline = Pipeline("p").add_sub_pipeline(Pipeline("child").add_step(lambda: 1, "one"), "first")
    assert "does not need input 'first', none of its steps takes that" in problems(pipeline)
    assert "to call it so write name='first'" in problems(pipeline)


def test_what_a_wrong_name_does_not_explain_is_told_beside_it() -> None:
    child = Pipeline("child").add_step(lambda a, b: a + b, "sum")
    with pytest.raises(PipelineValidationError) as caught:
        around(child, {"aa": "raw"}).run()
    told = str(caught.value)
    assert "Missing required parameters: ['a', 'b']" in told
    assert "does not need input 'aa'" in told


def test_a_name_that_it_does_not_need_is_an_error_with_the_nearest() -> None:
    told = problems(around(etl(), ["raw", "scales"]))
    assert re.search(r"sub-pipeline 'etl' does not need input 'scales'.*did you mean 'scale'\? \(.*\.py:\d+\)", told)
    told = problems(around(etl(), ["raw", "clean"]))
    assert "sub-pipeline 'etl' does not need input 'clean', it produces that itself" in told


def test_a_parameter_that_params_fill_needs_nothing() -> None:
    child = Pipeline("child").add_step(same, params={"value": 1})
    assert "does not need input 'value'" in problems(around(child, {"value": "raw"}))


def test_several_assets_go_in_as_a_list(executor: Executor) -> None:
    child = Pipeline("child").add_step(total)
    whole = Pipeline("whole")
    for number in range(3):
        whole.add_step(same, f"part_{number}", {"value": number + 1})
    whole.add_sub_pipeline(child, {"numbers": "part_*"}, name="glob")
    whole.add_sub_pipeline(child, {"numbers": ["part_0", "part_2"]}, name="list")
    declared = Pipeline("child").add_step(lambda *all_of_them: sum(all_of_them), "total", inputs=["numbers", "one"])
    whole.add_sub_pipeline(declared, {"numbers": "part_*", "one": "part_0"}, name="declared")
    result = values(whole, executor=executor)
    assert (result["glob.total"], result["list.total"], result["declared.total"]) == (6, 4, 7)


def test_a_glob_fits_what_is_inside_else_what_is_around() -> None:
    child = Pipeline("child").add_step(total, inputs={"numbers": "part_*"})
    whole = Pipeline("whole").add_step(same, "part_a", {"value": 10}).add_step(same, "part_b", {"value": 20})
    assert values(whole.add_sub_pipeline(child))["child.total"] == 30
    child.add_step(same, "part_c", {"value": 1})
    assert values(whole.add_sub_pipeline(child, name="own"))["own.total"] == 1


def test_a_glob_around_it_does_not_give_it_its_own_assets() -> None:
    child = Pipeline("child").add_step(total)
    whole = Pipeline("whole").add_step(same, "one", {"value": 1}).add_sub_pipeline(child, {"numbers": "*"})
    assert values(whole)["child.total"] == 1


def test_what_it_exports_is_not_what_it_lacks() -> None:
    child = Pipeline("child").add_step(lambda: 1, "made").add_step(same, "reads", inputs=["value"])
    whole = Pipeline("whole").add_sub_pipeline(child, outputs={"made": "value"})
    assert "Node 'child.reads' requires undefined asset 'value'" in problems(whole)


def test_a_step_reads_from_around_what_has_its_own_name() -> None:
    child = Pipeline("child").add_step(lambda raw: raw[:1], "raw").add_step(same, "rest", inputs=["raw"])
    assert values(around(child))["child.rest"] == [3]


def test_many_steps_that_each_read_another_asset(executor: Executor) -> None:
    whole, child = Pipeline("whole"), Pipeline("child")
    for number in range(20):
        whole.add_step(same, f"n{number}", {"value": number})
        child.add_step(same, f"copy{number}", inputs=[f"n{number}"])
        child.add_step(add, f"sum{number}", {"right": 100}, inputs=[f"copy{number}"])
    result = values(whole.add_sub_pipeline(child), executor=executor)
    assert [result[f"child.sum{number}"] for number in range(20)] == list(range(100, 120))


# ---- what comes out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"outputs": {"clean": "tidy"}},
        {"output_mapping": {"clean": "tidy"}},
        {"outputs": ["tidy"], "output_mapping": {"clean": "tidy"}},
    ],
    ids=str,
)
def test_an_asset_comes_out_under_another_name_and_is_listed_once(arguments: dict[str, Any]) -> None:
    result = around(etl(), **arguments).add_step(same, "last", inputs=["tidy"]).run()
    assert list(result.outputs) == ["raw", "tidy", "etl.size", "last"]
    assert result["tidy"] == result["etl.clean"] == result["last"]
    assert dict(result.outputs)["tidy"] == [1, 2, 3]


def test_an_exported_name_takes_part_in_globs_once() -> None:
    whole = around(etl(), outputs={"size": "out_1"}).add_step(lambda: 4, "out_2")
    whole.add_step(total, "sum", inputs={"numbers": "out_*"}).add_step(
        total, "all", inputs={"numbers": ["etl.s*", "out_2"]}
    )
    assert (values(whole)["sum"], values(whole)["all"]) == (7, 7)
    assert values(whole.add_step(len, "both", inputs=["*[1z]*"]))["both"] == 1


@pytest.mark.parametrize("taken", ["step", "asset", "export"])
def test_an_exported_name_that_is_taken_is_an_error_with_both_places(taken: str) -> None:
    whole = around(etl(), outputs={"size": "model"})
    if taken == "step":
        whole.add_step(load, "model")
    elif taken == "asset":
        whole.add_step(load, "other", outputs=["model"])
    else:
        whole.add_sub_pipeline(etl(), outputs={"clean": "model"}, name="other")
    told = problems(whole)
    assert re.search(
        r"Multiple nodes produce asset 'model': .*\.py:\d+\), sub-pipeline '\w+' exports it \(.*\.py:\d+\)", told
    )


def test_what_it_does_not_produce_cannot_come_out() -> None:
    assert "sub-pipeline 'etl' produces no asset 'sizes' to export; did you mean 'size'?" in problems(
        around(etl(), outputs=["sizes"])
    )


def test_one_of_several_outputs(executor: Executor) -> None:
    @step(outputs=["low", "high"])
    def split(raw: list[int]) -> dict[str, int]:
        return {"high": max(raw), "low": min(raw)}

    child = Pipeline("child").add_step(split).add_step(add, "sum", inputs=["low", "high"])
    whole = around(child, outputs=["high"]).add_step(add, "again", inputs=["high", "child.low"])
    result = whole.run(executor=executor)
    assert list(result.outputs) == ["raw", "child.low", "high", "child.sum", "again"]
    assert (result["child.sum"], result["again"], result["child.high"], result["high"]) == (4, 4, 3, 3)
    assert result["child.split"] == {"high": 3, "low": 1}


def test_a_wrong_number_of_outputs_is_told_with_the_names_of_the_declaration(executor: Executor) -> None:
    child = Pipeline("child").add_step(lambda: (1, 2, 3), "split", outputs=["low", "high"])
    error = Pipeline("whole").add_sub_pipeline(child).run(executor=executor).step_results["child.split"].exception
    assert isinstance(error, OutputMismatchError)
    assert "step 'child.split' declared 2 outputs ['low', 'high']" in str(error)


def test_values_are_kept_by_all_their_names() -> None:
    whole = around(etl(), outputs={"clean": "tidy"}).add_step(same, "last", inputs=["etl.size"])
    for name in ("tidy", "etl.clean"):
        result = whole.run(keep=[name])
        assert list(result.outputs) == ["tidy", "last"]


# ---- steps of all kinds inside -------------------------------------------------------------------------------------


def test_mapped_steps(executor: Executor) -> None:
    child = (
        Pipeline("child")
        .map(add, [1, 2, 3], name="plus", inputs={"right": "by"})
        .add_step(total, inputs={"numbers": "plus"})
    )
    whole = Pipeline("whole").add_step(lambda: 10, "by").add_sub_pipeline(child)
    whole.add_step(total, "again", inputs={"numbers": "child.plus"})
    result = whole.run(executor=executor)
    assert (list(result["child.plus"]), result["child.total"], result["again"]) == ([11, 12, 13], 36, 36)
    assert result["child.plus[1]"] == 12


def test_conditions_read_what_they_name(executor: Executor) -> None:
    child = Pipeline("child").add_step(same, "kept", {"value": 1}, condition=lambda raw: len(raw) == 3)
    child.add_step(same, "left", {"value": 1}, skip_if=lambda kept: kept == 1).add_step(same, "after", inputs=["left"])
    result = around(child).run(executor=executor)
    assert states(result) == {
        "raw": "success",
        "child.kept": "success",
        "child.left": "skipped",
        "child.after": "skipped",
    }


def test_retries(executor: Executor) -> None:
    def second_time() -> int:
        if get_context().attempt == 1:
            raise ValueError("not yet")
        return get_context().attempt

    child = Pipeline("child").add_step(second_time, retry=2)
    assert Pipeline("whole").add_sub_pipeline(child).run(executor=executor)["child.second_time"] == 2


def test_a_failure_costs_what_depends_on_it_inside_and_outside(executor: Executor) -> None:
    child = Pipeline("child").add_step(refuse, "bad", inputs=["raw"]).add_step(same, "behind", inputs=["bad"])
    child.add_step(same, "beside", inputs=["raw"])
    result = around(child, outputs=["behind"]).add_step(same, "last", inputs=["behind"]).run(executor=executor)
    assert states(result) == {
        "raw": "success",
        "child.bad": "failed",
        "child.behind": "upstream_failed",
        "child.beside": "success",
        "last": "upstream_failed",
    }


def test_a_join_inside_runs_with_what_is_there_outside(executor: Executor) -> None:
    child = Pipeline("child").add_step(lambda a=0, b=0: a + b, "join", run_if="any")
    whole = Pipeline("whole").add_step(refuse, "a").add_step(lambda: 5, "b").add_sub_pipeline(child)
    assert whole.run(executor=executor)["child.join"] == 5


def test_a_step_knows_itself_by_its_whole_name(executor: Executor) -> None:
    child = Pipeline("child").add_step(lambda: get_context().step_name, "who")
    assert Pipeline("whole").add_sub_pipeline(child).run(executor=executor)["child.who"] == "child.who"


def test_after_inside_names_steps_inside() -> None:
    child = Pipeline("child").add_step(refuse, "bad").add_step(load, "second", after="bad")
    result = Pipeline("whole").add_step(load, "bad").add_sub_pipeline(child).run()
    assert states(result) == {"bad": "success", "child.bad": "failed", "child.second": "upstream_failed"}
    child = Pipeline("child").add_step(load, "second", after="raw")
    assert "Node 'child.second' is not wired: after='raw' is no step" in problems(around(child))


def test_after_makes_its_first_steps_wait() -> None:
    whole = around(etl(), after="first").add_step(load, "first")
    assert whole.dag.edges["etl.clean"] == {"raw", "first"}
    assert whole.dag.edges["etl.size"] == {"etl.clean"}
    middle = Pipeline("middle").add_step(load, "raw").add_sub_pipeline(etl(), after="raw")
    whole = Pipeline("whole").add_step(load, "first").add_sub_pipeline(middle, after=["first"])
    assert whole.dag.edges["middle.raw"] == {"first"}
    assert whole.dag.edges["middle.etl.clean"] == {"middle.raw"}
    assert "Node 'etl.clean' is not wired: after='frist' is no step" in problems(around(etl(), after="frist"))


def test_after_a_whole_sub_pipeline() -> None:
    whole = around(etl()).add_step(load, "last", after="etl").add_sub_pipeline(etl(), name="second", after="etl")
    assert whole.dag.edges["last"] == {"etl.clean", "etl.size"}
    assert whole.dag.edges["second.clean"] == {"raw", "etl.clean", "etl.size"}


# ---- decisions -----------------------------------------------------------------------------------------------------


def decided(executor: Executor, ask: Any, *arguments: Any, **keywords: Any) -> bool:
    """Return the answer of a decision inside a child."""
    child = etl(context={"limit": 2}).add_control_flow(
        If(ask, step(load, name="yes"), step(load, name="no"), **keywords)
    )
    result = around(child, *arguments).run({"given": 7}, context={"more": 8}, executor=executor)
    answer: bool = result["etl.if_1"]
    assert states(result)["etl.yes"] == ("success" if answer else "skipped")
    assert states(result)["etl.no"] == ("skipped" if answer else "success")
    return answer


@pytest.mark.filterwarnings("ignore:'(given|more)' of run")
def test_a_decision_inside_sees_the_names_inside(executor: Executor) -> None:
    assert decided(
        executor, lambda ctx: ctx.steps["size"].outputs["size"] == 3 and list(ctx.steps) == ["clean", "size"]
    )
    assert decided(executor, lambda ctx: ctx["clean"] == [1, 2, 3] and ctx["size"] > ctx.params["limit"])
    assert decided(executor, lambda ctx: (ctx["limit"], ctx["given"], ctx["more"]) == (2, 7, 8))
    assert decided(executor, lambda ctx: ctx["size"] == 3, after=["size"])
    assert not decided(executor, lambda ctx: "etl.size" in ctx.steps)


@pytest.mark.filterwarnings("ignore:'(given|more)' of run")
def test_a_decision_inside_sees_what_goes_in(executor: Executor) -> None:
    for arguments in ((), (["raw"],), ({"raw": "raw"},)):
        assert decided(executor, lambda ctx: ctx["raw"] == ctx.params["raw"] == [3, 1, 2], *arguments)
    assert decided(executor, lambda ctx: ctx["numbers"] == [[3, 1, 2]], {"raw": "raw", "numbers": ["raw"]})
    assert decided(executor, lambda ctx: ctx["seven"] == 7, {"raw": "raw", "seven": "given"})


def test_a_decision_outside_sees_all_names(executor: Executor) -> None:
    @step(outputs=["low", "high"])
    def split(raw: list[int]) -> tuple[int, int]:
        return min(raw), max(raw)

    def ask(ctx: Any) -> bool:
        outputs = ctx.steps["child.split"].outputs
        return bool(
            ctx["best"] == ctx["child.high"] == outputs["high"] == outputs["best"] == 3
            and ctx["child.low"] == outputs["low"] == 1
            and list(outputs) == ["child.low", "best"]
        )

    whole = around(Pipeline("child").add_step(split), outputs={"high": "best"})
    whole.add_control_flow(If(ask, step(load, name="yes")))
    whole.add_control_flow(If(ask, step(load, name="too"), after="child"))
    whole.add_control_flow(If(lambda ctx: ctx["low"], step(load, name="never"), after="child"))
    result = whole.run(executor=executor)
    assert (result["if_1"], result["if_2"]) == (True, True)
    assert "'low' is no output of the steps before this decision" in str(result.step_results["if_3"].exception)


def test_a_switch_inside(executor: Executor) -> None:
    switch = Switch(lambda ctx: ctx["size"]).case(3, step(load, name="three")).default(step(load, name="other"))
    result = around(etl().add_control_flow(switch).add_step(total, inputs={"numbers": "three"})).run(executor=executor)
    assert (result["etl.switch_1"], result["etl.total"], states(result)["etl.other"]) == (3, 6, "skipped")


# ---- what is told --------------------------------------------------------------------------------------------------


def test_a_misspelled_value_of_its_context_is_warned_of() -> None:
    whole = around(etl(context={"scael": 2}))
    with pytest.warns(
        UserWarning, match="'scael' of the context of sub-pipeline 'etl' is used by no step of .* 'scale'"
    ):
        whole.run()
    whole.run()


def test_an_explanation_tells_the_way_in() -> None:
    def source(whole: Pipeline, parameter: str, name: str = "etl.clean") -> str:
        told = {argument.parameter: argument.source for argument in whole.explain(name).arguments}
        return told[parameter]

    whole = Pipeline("whole", context={"scale": 2}).add_step(load).add_step(load, name="raw")
    whole.add_sub_pipeline(etl(), {"raw": "load", "scale": "scale"}).add_sub_pipeline(
        etl(context={"scale": 1}), name="own"
    )
    assert source(whole, "raw") == "output of step 'load' (given to sub-pipeline 'etl' as 'raw')"
    assert source(whole, "scale") == "a value of the run (given to sub-pipeline 'etl' as 'scale')"
    assert source(whole, "raw", "own.clean") == "output of step 'raw' (sub-pipeline 'own' takes 'raw' from around it)"
    assert source(whole, "scale", "own.clean") == "context of sub-pipeline 'own'"
    assert source(whole, "clean", "own.size") == "output of step 'own.clean' (implicit: it has the parameter's name)"
    outer = (
        Pipeline("outer")
        .add_step(load, "data")
        .add_sub_pipeline(whole.add_sub_pipeline(etl(), {"raw": "data"}, name="far"))
    )
    assert source(outer, "raw", "whole.far.clean") == (
        "output of step 'data' (given to sub-pipeline 'whole.far' as 'raw', "
        "sub-pipeline 'whole' takes 'data' from around it)"
    )


def test_views_of_the_graph_have_the_names_of_the_result() -> None:
    whole = around(etl(), outputs={"clean": "tidy"}).add_step(same, "last", inputs=["etl.clean"])
    dag = whole.dag
    assert list(dag.nodes) == ["raw", "etl.clean", "etl.size", "last"]
    assert (dag.nodes["etl.clean"].inputs, dag.nodes["etl.clean"].outputs) == (["raw"], ["tidy"])
    assert dag.nodes["etl.size"].inputs == dag.nodes["last"].inputs == ["tidy"]
    assert dag.asset_producers["tidy"] == dag.asset_producers["etl.clean"] == "etl.clean"
    assert dag.asset_consumers["tidy"] == dag.asset_consumers["etl.clean"] == {"etl.size", "last"}
    assert whole.explain("tidy").step_name == "etl.clean"


def test_a_graph_that_is_looked_at_is_new_after_an_empty_sub_pipeline() -> None:
    whole = Pipeline("whole").add_step(load)
    assert whole.dag.validate() == ([], [])
    assert "does not need input 'load'" in whole.add_sub_pipeline(Pipeline("none"), ["load"]).dag.validate()[0][0]


def test_a_dry_run_has_all_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert states(around(etl()).run(dry_run=True)) == {"raw": "waiting", "etl.clean": "waiting", "etl.size": "waiting"}
    assert "2. etl.clean (depends on: raw)" in capsys.readouterr().out


# ---- what a pipeline says of its runs -------------------------------------------------------------------------------


def test_a_sub_pipeline_without_a_cache_is_not_cached(tmp_path: Path, executor: Executor) -> None:
    @dynamic
    def later() -> Pipeline:
        return Pipeline("later", enable_cache=False).add_step(same, params={"value": 1}, cache=True)

    inner = Pipeline("inner", enable_cache=False).add_step(same, params={"value": 1}, cache=True)
    whole = Pipeline("whole", cache_dir=tmp_path).add_sub_pipeline(inner).add_step(later)
    whole.add_step(same, "own", params={"value": 2}, cache=True)
    results = [whole.run(executor=executor).step_results for _ in range(2)]
    assert [str(step.state) for step in results[1].values()] == ["success", "success", "success", "cached"]


def test_what_counts_only_where_it_is_run_itself_is_warned_of(tmp_path: Path) -> None:
    inner = Pipeline("inner", enable_checkpointing=True, cache_dir=tmp_path).add_step(same, cache=True)
    inner.hooks.on_step_end(lambda step, result: None)
    with pytest.warns(
        UserWarning, match="hooks, enable_checkpointing, cache_dir of pipeline 'inner' count only"
    ) as told:
        Pipeline("whole").add_sub_pipeline(inner)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pipeline("whole", enable_checkpointing=True, cache_dir=tmp_path).add_sub_pipeline(etl(executor=LocalExecutor()))
