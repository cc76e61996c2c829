"""What is wrong with a pipeline's structure: everything in one error, in words that name step, place and near match."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from flowyml import Context, CycleError, FlowymlError, Pipeline, PipelineValidationError, registry, step

HERE = Path(__file__)


@pytest.fixture(autouse=True)
def no_other_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages name steps that were defined and not added, also those of other tests."""
    monkeypatch.setattr(registry, "_registry", registry._StepRegistry())


def load() -> int:
    return 1


def use(data: Any) -> Any:
    return data


def both(left: Any, right: Any) -> Any:
    return left, right


def problems(pipeline: Pipeline, **run: Any) -> list[str]:
    """Return what is wrong; nothing may have run."""
    with pytest.raises(PipelineValidationError) as caught:
        pipeline.run(**run)
    return caught.value.problems


def refusal(pipeline: Pipeline) -> Any:
    with pytest.raises(PipelineValidationError) as caught:
        pipeline.build()
    return caught.value


def line_of(mark: str) -> int:
    """Return the line of this file that ends in a comment."""
    return next(k for k, line in enumerate(HERE.read_text().splitlines(), 1) if line.endswith(f"# {mark}"))


# ---- the error -------------------------------------------------------------------------------------------------------


def test_the_error_is_a_value_error_with_a_headline() -> None:
    with pytest.raises(ValueError, match=r"^Pipeline validation failed:\n  - Node 'use' ") as caught:
        Pipeline("p").add_step(use, inputs=["nothing"]).build()
    assert isinstance(caught.value, FlowymlError)
    assert caught.value.pipeline == "p"


def test_all_problems_come_in_one_error_in_add_order() -> None:
    pipeline = Pipeline("p").add_step(load, "a", outputs=["x"]).add_step(load, "b", outputs=["x"])
    pipeline.add_step(use, "c", inputs=["nowhere"])
    pipeline.add_step(use, "d", {"dta": 1})
    pipeline.add_step(use, "e")
    pipeline.add_step(both, "f", inputs=["x", "c", "d"])
    pipeline.add_step(use, "g", inputs={"data": "h"}).add_step(use, "h", inputs={"data": "g"})
    pipeline.add_step(load, "i", after=["j"])
    found = problems(pipeline)
    parts = ["Multiple nodes", "'c' requires", "'d' is not", "'e' is not", "'f' is not", "'i' is not", "cycles"]
    assert len(found) == len(parts)
    for part, sentence in zip(parts, found, strict=True):
        assert part in sentence


def test_nothing_runs_when_something_is_wrong() -> None:
    ran: list[int] = []
    with pytest.raises(PipelineValidationError):
        Pipeline("p").add_step(lambda: ran.append(1), "fine").add_step(use, inputs=["x"]).run()
    assert ran == []


def test_the_error_pickles() -> None:
    error = refusal(Pipeline("p").add_step(use, inputs=["x"]))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.problems, copy.pipeline, str(copy)) == (type(error), error.problems, "p", str(error))


def test_a_pipeline_can_be_mended_after_an_error() -> None:
    pipeline = Pipeline("p").add_step(use, inputs=["load"])
    refusal(pipeline)
    assert pipeline.add_step(load).run()["use"] == 1


# ---- places ----------------------------------------------------------------------------------------------------------


def test_a_problem_names_file_and_line() -> None:
    pipeline = Pipeline("p")
    pipeline.add_step(use, inputs=["x"])  # one line
    assert problems(pipeline)[0].endswith(f"({HERE}:{line_of('one line')})")


def test_the_place_of_several_steps_is_the_line_that_added_them() -> None:
    pipeline = Pipeline("p")
    pipeline.add_steps([use])  # add_steps
    assert f"{HERE}:{line_of('add_steps')}" in problems(pipeline)[0]
    pipeline = Pipeline.from_steps(use)  # from_steps
    assert f"{HERE}:{line_of('from_steps')}" in problems(pipeline)[0]


def test_the_place_of_a_mapped_step_is_its_line() -> None:
    pipeline = Pipeline("p")
    pipeline.map(load, [1])  # a map
    assert f"{HERE}:{line_of('a map')}" in problems(pipeline)[0]


def test_steps_of_one_line_share_a_sentence() -> None:
    pipeline = Pipeline("p")
    for k in range(1_000):
        pipeline.add_step(use, f"use_{k}", {"dat": k}, inputs=["load"])
    (found,) = problems(pipeline.add_step(load))
    assert re.search(r"^Node 'use_0' .*did you mean 'data'\? \(.*\), and 999 others like it$", found)


def test_a_thousand_different_problems_are_told_in_time() -> None:
    pipeline = Pipeline("p")
    for k in range(20_000):
        pipeline.add_step(load, f"a_step_with_a_long_name_{k}")
    for k in range(1_000):
        pipeline.add_step(use, f"use_{k}", inputs=[f"a_stpe_with_a_long_name_{k}"])
    assert problems(pipeline)[-1].endswith(", and 980 others like it")


def many(kind: str, count: int) -> Pipeline:
    """Return a pipeline with so many problems of one kind, each about names of its own."""
    pipeline = Pipeline("many", context={"left": 1, "right": 2})
    for k in range(count):
        name, other = f"s_{k}", f"s_{k}_"
        if kind == "undefined":
            pipeline.add_step(use, name, inputs={"data": f"t_{k}"})
        elif kind == "undefined beside another":
            pipeline.add_step(load, other).add_step(both, name, inputs=[other, f"t_{k}"])
        elif kind == "after":
            pipeline.add_step(load, name, after=[f"t_{k}"])
        elif kind == "parameters":
            pipeline.add_step(load, name, params={f"t_{k}": 1})
        elif kind == "producers":
            pipeline.add_step(load, name, outputs=[f"t_{k}"]).add_step(load, other, outputs=[f"t_{k}"])
        elif kind == "cycles":
            pipeline.add_step(use, name, inputs={"data": other}).add_step(use, other, inputs={"data": name})
        elif kind == "exports":
            pipeline.add_sub_pipeline(Pipeline(name).add_step(load), outputs=[f"t_{k}"])
        elif kind == "given in vain":
            pipeline.add_sub_pipeline(Pipeline(name).add_step(load), {f"t_{k}": "left"})
    return pipeline


KINDS = [
    *("undefined", "undefined beside another", "after", "parameters"),
    *("producers", "cycles", "exports", "given in vain"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_many_problems_of_one_kind_are_told_by_the_first_few_and_their_number(kind: str) -> None:
    error = refusal(many(kind, 75))
    assert len(error.problems) == 20
    assert [each for each in error.problems if "like it" in each] == error.problems[-1:]
    assert error.problems[-1].endswith(", and 55 others like it")
    assert len(str(error).splitlines()) == 21


@pytest.mark.parametrize("kind", KINDS)
def test_up_to_twenty_problems_of_one_kind_are_told_one_by_one(kind: str) -> None:
    error = refusal(many(kind, 20))
    assert len(error.problems) == 20
    assert "like it" not in str(error)


def test_each_kind_of_problem_is_told_beside_many_of_another() -> None:
    pipeline = many("undefined", 30).add_step(load, "late", after=["laod"]).add_step(load)
    pipeline.add_step(use, "again", inputs={"data": "again"})
    found = problems(pipeline)
    assert len(found) == 22
    assert found[19].endswith(", and 10 others like it")
    assert "after='laod' is no step" in found[20]
    assert "again → again" in found[21]


def test_a_wrong_loop_tells_as_many_of_steps_with_two_inputs() -> None:
    pipeline = Pipeline("p")
    for k in range(30):
        pipeline.add_step(both, f"s_{k}", inputs=[f"t_{k}", f"u_{k}"])
    found = problems(pipeline)
    assert len(found) == 20
    assert found[-1].endswith(", and 40 others like it")


def test_the_right_steps_of_a_wrong_loop_are_not_counted() -> None:
    pipeline = Pipeline("p").add_step(load, "t_31")
    for k in range(40):
        pipeline.add_step(use, f"s_{k}", inputs={"data": f"t_{k}"})
    with pytest.raises(PipelineValidationError, match=r", and 16 others like it$"):
        pipeline.run(inputs={"t_32": 1, "t_39": 2, "t_1": 3})


def test_a_cycle_behind_many_other_problems_is_told() -> None:
    pipeline = Pipeline("p")
    for k in range(40):
        pipeline.add_step(use, f"s_{k}", inputs={"data": f"t_{k}"}, after=["end"])
    assert "cycles" in problems(pipeline.add_step(load, "end", after=["s_39"]))[-1]


def test_the_graph_tells_many_problems_as_briefly() -> None:
    errors, _ = many("undefined", 75).dag.validate()
    assert len(errors) == 20
    assert errors[-1].endswith(", and 55 others like it")


# ---- undefined assets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", ["dta", ["dta"], {"data": "dta"}, {"data": ["dta"]}, {"data": "dta*"}])
def test_an_undefined_asset_is_named_with_a_near_match(inputs: Any) -> None:
    found = problems(Pipeline("p").add_step(load, outputs=["data"]).add_step(use, "b", inputs=inputs))
    wanted = "dta*" if inputs == {"data": "dta*"} else "dta"
    glob = ": the glob matches nothing" if "*" in wanted else ""
    assert found[0].startswith(f"Node 'b' requires undefined asset {wanted!r}{glob}; did you mean 'data'? (")


def test_a_near_match_is_told_once() -> None:
    found = problems(Pipeline("p").add_step(load, outputs=["load"]).add_step(use, inputs=["laod"]))
    assert "'laod'; did you mean 'load'? (" in found[0]


def test_a_step_name_that_is_no_asset_is_explained() -> None:
    pipeline = Pipeline("p").add_step(load, outputs=["x", "y"]).add_step(use, inputs=["load"])
    assert "undefined asset 'load'; 'load' is a step, its outputs are 'x', 'y'" in problems(pipeline)[0]


def test_a_misspelled_run_input_is_a_near_match() -> None:
    pipeline = Pipeline("p").add_step(use, inputs=["raw_table"])
    with pytest.raises(PipelineValidationError, match="'raw_table'; did you mean 'raw_tabel'"):
        pipeline.run(inputs={"raw_tabel": 1})


def test_a_glob_that_matches_only_its_own_step_is_undefined() -> None:
    assert "undefined asset 'part_*'" in problems(Pipeline("p").add_step(use, "part_all", inputs=["part_*"]))[0]


def test_every_undefined_asset_of_a_step_is_told() -> None:
    found = problems(Pipeline("p").add_step(both, inputs=["x", "y"]))
    assert [re.search("'.'", each).group() for each in found] == ["'x'", "'y'"]


# ---- producers -------------------------------------------------------------------------------------------------------


def test_two_producers_of_one_asset_are_both_named() -> None:
    pipeline = Pipeline("p").add_step(load, "a", outputs=["x"])  # first producer
    pipeline.add_step(load, "b", outputs=["x"])  # second producer
    first, second = line_of("first producer"), line_of("second producer")
    wanted = f"Multiple nodes produce asset 'x': 'a' ({HERE}:{first}), 'b' ({HERE}:{second})"
    assert problems(pipeline) == [f"{wanted}; give one of them another name, or other outputs="]


def test_many_producers_of_one_asset_are_one_problem() -> None:
    pipeline = Pipeline("p")
    for k in range(1_000):
        pipeline.add_step(load, f"step_{k}", outputs=["x"])
    (found,) = problems(pipeline)
    assert "and 997 more; give one of them another name, or other outputs=" in found


def test_an_output_that_another_step_is_called_has_two_producers() -> None:
    pipeline = Pipeline("p").add_step(load, "a", outputs=["b"]).add_step(load, "b")
    assert problems(pipeline)[0].startswith("Multiple nodes produce asset 'b': 'b' (")


def test_an_output_with_the_name_of_a_step_that_has_outputs_is_an_error() -> None:
    pipeline = Pipeline("p").add_step(load, "a", outputs=["b"]).add_step(load, "b", outputs=["x"])
    assert problems(pipeline)[0].startswith("asset 'b' has the name of another step, whose outputs are 'x': 'b' (")


# ---- parameters ------------------------------------------------------------------------------------------------------


def test_missing_parameters_are_listed() -> None:
    pipeline = Pipeline("p").add_step(both)
    sentence = "Node 'both' is not wired: Missing required parameters: ['left', 'right']; give params, inputs, "
    assert problems(pipeline)[0].startswith(sentence)


NEARLY: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "the context": ({"dtaa": 1}, {}, "the context has 'dtaa'"),
    "a context of the run": ({"other": 1}, {"context": {"dtaa": 1}}, "run(context=) has 'dtaa'"),
    "an input of the run": ({}, {"inputs": {"dtaa": 1}}, "run(inputs=) has 'dtaa'"),
}


@pytest.mark.parametrize("where", NEARLY)
def test_a_missing_parameter_with_a_near_match_says_who_has_it(where: str) -> None:
    context, run, wanted = NEARLY[where]
    (found,) = problems(Pipeline("p", context=context).add_step(use), **run)
    assert f"Missing required parameters: ['data']; {wanted} (" in found


@pytest.mark.parametrize(
    ("adding", "wanted"),
    [
        ({"name": "dtaa"}, "there is a step 'dtaa'"),
        ({"outputs": ["dtaa"]}, "step 'load' produces 'dtaa'"),
        ({"name": "data", "outputs": ["x"]}, "'data' is a step, its outputs are 'x'"),
    ],
)
def test_a_missing_parameter_with_a_near_asset_names_its_step(adding: dict[str, Any], wanted: str) -> None:
    (found,) = problems(Pipeline("p").add_step(load, **adding).add_step(use))
    assert f"['data']; {wanted} (" in found


@pytest.mark.parametrize("adding", [{"name": "data"}, {"outputs": ["data"]}])
def test_a_step_with_a_parameter_of_its_own_name_is_told_that_it_does_not_read_itself(adding: dict[str, Any]) -> None:
    (found,) = problems(Pipeline("p").add_step(use, **adding))
    assert "'data' is the step's own output, which it does not read: rename the parameter or give it in params" in found


def test_an_unknown_parameter_has_a_near_match() -> None:
    found = problems(Pipeline("p").add_step(use, params={"dat": 1, "data": 2}))
    assert "unknown parameter 'dat' in params; did you mean 'data'?" in found[0]


def test_an_unknown_parameter_without_a_near_match_gets_the_list() -> None:
    found = problems(Pipeline("p").add_step(both, params={"zzz": 1, "left": 1, "right": 2}))
    assert "unknown parameter 'zzz' in params; it takes 'left', 'right'" in found[0]


def test_a_parameter_of_a_function_without_any_is_unknown() -> None:
    assert "; it takes no parameters" in problems(Pipeline("p").add_step(load, params={"x": 1}))[0]


def test_params_for_args_are_refused_with_the_way_to_go() -> None:
    found = problems(Pipeline("p").add_step(lambda *parts: parts, "it", {"parts": [1]}))
    assert "unknown parameter 'parts' in params; *parts takes inputs: inputs={'parts': [...]}" in found[0]


def test_an_unknown_parameter_in_inputs_has_a_near_match() -> None:
    found = problems(Pipeline("p").add_step(load).add_step(use, inputs={"dat": "load"}))
    assert any("unknown parameter 'dat' in inputs; did you mean 'data'?" in each for each in found)


def test_an_unknown_parameter_does_not_bring_a_missing_one_on_top() -> None:
    assert len(problems(Pipeline("p").add_step(use, params={"dat": 1}))) == 1


def test_inputs_that_are_left_over_are_named() -> None:
    pipeline = Pipeline("p").add_step(load).add_step(use, inputs=["load", "load"])
    assert "Node 'use' is not wired: no parameter is left for input 'load'" in problems(pipeline)[0]


def test_items_without_a_parameter_are_an_error() -> None:
    assert "no parameter is left for the items of the map" in problems(Pipeline("p").map(load, [1]))[0]


def test_inputs_by_parameter_need_a_signature() -> None:
    pipeline = Pipeline("p").add_step(load).add_step(range, inputs={"start": "load"})
    assert "does not tell its parameters: give inputs as a list" in problems(pipeline)[0]


def test_an_unknown_step_in_after_has_a_near_match() -> None:
    found = problems(Pipeline("p").add_step(load).add_step(load, "it", after=["laod"]))
    assert "after='laod' is no step; did you mean 'load'?" in found[0]


# ---- cycles ----------------------------------------------------------------------------------------------------------


def ring(*names: str) -> Pipeline:
    pipeline = Pipeline("ring")
    for k, name in enumerate(names):
        pipeline.add_step(use, name, inputs={"data": names[k - 1]})
    return pipeline


def test_a_cycle_is_told_by_its_path() -> None:
    with pytest.raises(CycleError, match="Pipeline contains cycles! a → b → a: 'a' ") as caught:
        ring("a", "b").build()
    assert caught.value.cycle == ["a", "b", "a"]


def test_the_arrows_of_a_path_follow_the_data() -> None:
    with pytest.raises(CycleError) as caught:
        ring("a", "b", "c").build()
    assert caught.value.cycle == ["a", "b", "c", "a"]


def test_a_step_that_reads_itself_is_a_cycle() -> None:
    with pytest.raises(CycleError, match="cycles! a → a: 'a'"):
        Pipeline("p").add_step(use, "a", inputs=["a"]).build()


def test_a_step_after_itself_is_a_cycle() -> None:
    with pytest.raises(CycleError, match="a → a"):
        Pipeline("p").add_step(load, "a", after=["a"]).build()


def test_every_cycle_is_told() -> None:
    pipeline = ring("a", "b")
    for name, other in (("c", "d"), ("d", "c")):
        pipeline.add_step(use, name, inputs=[other])
    with pytest.raises(CycleError) as caught:
        pipeline.build()
    assert len(caught.value.problems) == 2


def test_a_cycle_beside_another_problem_is_a_validation_error() -> None:
    with pytest.raises(PipelineValidationError) as caught:
        ring("a", "b").add_step(use, inputs=["x"]).build()
    assert type(caught.value) is PipelineValidationError
    assert len(caught.value.problems) == 2


def test_a_cycle_through_a_step_with_another_problem_is_told() -> None:
    pipeline = Pipeline("p").add_step(both, "a", inputs={"left": "b", "right": "x"}).add_step(use, "b", inputs=["a"])
    assert ["cycles" in each for each in problems(pipeline)] == [False, True]


def test_a_cycle_error_pickles_with_its_path() -> None:
    error = refusal(ring("a", "b"))
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.cycle, copy.problems, str(copy)) == (error.cycle, error.problems, str(error))


def test_a_long_cycle_is_told_in_short() -> None:
    with pytest.raises(CycleError) as caught:
        ring(*(f"n{k}" for k in range(100_000))).build()
    assert len(caught.value.cycle) == 100_001
    assert "n9 → (99990 more) → n0" in str(caught.value)
    assert len(str(caught.value)) < 10_000


# ---- names -----------------------------------------------------------------------------------------------------------


def test_a_name_that_is_taken_names_both_places() -> None:
    pipeline = Pipeline("p").add_step(load)  # taken first
    with pytest.raises(PipelineValidationError) as caught:
        pipeline.add_step(step(load))  # taken again
    first, second = line_of("taken first"), line_of("taken again")
    assert f"step 'load' was added already at {HERE}:{first}, and again at {HERE}:{second}" in str(caught.value)


def test_a_name_that_one_line_takes_twice_hints_at_notebooks() -> None:
    pipeline = Pipeline("p")

    def add() -> None:
        pipeline.add_step(load)

    add()
    with pytest.raises(ValueError, match=r"; in a notebook re-create the Pipeline in the same cell"):
        add()


def test_a_name_that_a_loop_takes_twice_is_told_with_the_way_to_go() -> None:
    pipeline = Pipeline("p")
    words = r"which is the same line; in a loop .* name=f\"load_\{i\}\", or pipeline\.map\(step, items\)"
    with pytest.raises(PipelineValidationError, match=words):  # noqa: PT012  the loop is what is told of
        for k in range(2):
            pipeline.add_step(use, name="load", params={"data": k})


def test_a_refused_step_leaves_the_pipeline_as_it_was() -> None:
    pipeline = Pipeline("p").add_step(load)
    with pytest.raises(ValueError, match="already"):
        pipeline.add_step(load)
    assert (len(pipeline), pipeline.run()["load"]) == (1, 1)


# -- what `build()` has made is used by the run that follows, unless something may have changed


def test_a_run_after_build_sees_what_was_added_since() -> None:
    pipeline = Pipeline("p").add_step(load)
    pipeline.build()
    result = pipeline.add_step(use, name="later", inputs=["load"]).run()
    assert result.outputs == {"load": 1, "later": 1}
    assert pipeline.run().outputs == result.outputs


def test_build_leaves_missing_parameters_to_the_run() -> None:
    pipeline = Pipeline("p").add_step(use)
    pipeline.build()
    assert "Missing required parameters: ['data']" in problems(pipeline)[0]
    pipeline.build()
    assert pipeline.run(context={"data": 3}).outputs == {"use": 3}
    pipeline.build()
    assert pipeline.run(inputs={"data": 4}).outputs == {"use": 4}


def test_a_run_after_build_reads_the_context_as_it_is_then() -> None:
    pipeline = Pipeline("p", context={"data": 1}).add_step(use)
    pipeline.build()
    pipeline.context = Context(data=2)
    assert pipeline.run()["use"] == 2


def test_runs_after_one_build_share_nothing() -> None:
    pipeline = Pipeline("p").add_step(load).add_step(use, inputs=["load"])
    pipeline.build()
    first, second = pipeline.run(), pipeline.run()
    assert first.outputs == second.outputs == {"load": 1, "use": 1}
    assert first.run_id != second.run_id


@pytest.mark.parametrize(
    "file", ["<ipython-input-3-abc>", "/tmp/ipykernel_4711/123.py", "C:\\Temp\\ipykernel_4711\\123.py"]
)
def test_two_cells_of_a_notebook_are_told_what_to_do_there(file: str) -> None:
    cell = {"pipeline": Pipeline("cells")}
    code = compile("pipeline.add_step(abs, params={'x': 1})", file, "exec")
    again = compile("\npipeline.add_step(abs, params={'x': 1})", file, "exec")
    exec(code, cell)
    with pytest.raises(PipelineValidationError, match="in a notebook re-create the Pipeline in the same cell"):
        exec(again, cell)
