"""Wiring: where each parameter gets its value from. The rules are those of "Wiring" in the contract, one test each.

Most tests run a pipeline in this process and look at what a step returned; what is wrong at build time is in
test_build_errors.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flowyml import CycleError, Pipeline, PipelineValidationError, step

if TYPE_CHECKING:
    from collections.abc import Callable


def one() -> int:
    return 1


def two() -> int:
    return 2


def three() -> int:
    return 3


def pair(a: Any, b: Any) -> tuple[Any, Any]:
    return a, b


def same(value: Any) -> Any:
    return value


def everything(*values: Any) -> tuple[Any, ...]:
    return values


def named(**values: Any) -> dict[str, Any]:
    return values


def numbers(**context: Any) -> Pipeline:
    """Return a pipeline with the assets `one`, `two` and `three`."""
    return Pipeline("numbers", context=context).add_steps([one, two, three])


def outcome(pipeline: Pipeline, name: str = "it", **run: Any) -> Any:
    result = pipeline.run(**run)
    result.raise_for_failure()
    return result[name]


# ---- precedence ----------------------------------------------------------------------------------------------------


def source(value: str = "default") -> str:
    return value


def asset() -> str:
    return "asset"


LAYERS: dict[str, Callable[[Pipeline, dict[str, Any], dict[str, Any]], None]] = {
    "default": lambda pipeline, add, run: None,
    "pipeline context": lambda pipeline, add, run: pipeline.context.update(value="pipeline context"),
    "run context": lambda pipeline, add, run: run.update(context={"value": "run context"}),
    "run input": lambda pipeline, add, run: run.update(inputs={"value": "run input"}),
    "asset": lambda pipeline, add, run: pipeline.add_step(asset, outputs=["value"]) and None,
    "params": lambda pipeline, add, run: add.update(params={"value": "params"}),
}


@pytest.mark.parametrize("strongest", LAYERS)
@pytest.mark.filterwarnings("ignore:.*reaches no step")  # what is covered by a stronger source
def test_the_first_source_that_has_a_value_wins(strongest: str) -> None:
    pipeline, add, run = Pipeline("layers"), {}, {}
    names = list(LAYERS)
    for name in names[: names.index(strongest) + 1]:
        LAYERS[name](pipeline, add, run)
    if strongest in {"asset", "params"}:  # an input of the run that a step produces is refused
        del run["inputs"]
    assert outcome(pipeline.add_step(source, "it", **add), **run) == strongest


def test_a_declared_input_goes_before_an_undeclared_one() -> None:
    pipeline = numbers().add_step(same, "it", inputs={"value": "two"}).add_step(asset, outputs=["value"])
    assert outcome(pipeline) == 2


@pytest.mark.parametrize("inputs", [["value"], {"value": "two"}, "value"])
def test_params_go_before_a_declared_input(inputs: Any) -> None:
    pipeline = numbers().add_step(same, "it", {"value": "given"}, inputs=inputs)
    assert outcome(pipeline) == "given"


def test_an_input_that_params_override_fills_no_other_parameter() -> None:
    def keep(data: Any, rate: Any = "default") -> Any:
        return data, rate

    reading = step(inputs=["data"])(keep)
    pipeline = Pipeline("p").add_step(one, outputs=["data"]).add_step(reading, "it", {"data": "given"})
    assert outcome(pipeline) == ("given", "default")


def test_a_params_value_of_none_is_a_value() -> None:
    assert outcome(Pipeline("p", context={"value": 1}).add_step(source, "it", {"value": None})) is None


def test_params_are_copied() -> None:
    params = {"value": 1}
    pipeline = Pipeline("p").add_step(same, "it", params)
    params["value"] = 2
    assert outcome(pipeline) == 1


# ---- declared inputs: names ----------------------------------------------------------------------------------------


def test_an_input_goes_to_the_parameter_of_its_name() -> None:
    pipeline = Pipeline("p").add_step(one, outputs=["b"]).add_step(two, outputs=["a"])
    assert outcome(pipeline.add_step(pair, "it", inputs=["b", "a"])) == (2, 1)


def test_other_inputs_fill_the_other_parameters_left_to_right() -> None:
    assert outcome(numbers().add_step(pair, "it", inputs=["two", "one"])) == (2, 1)


def test_names_first_then_left_to_right() -> None:
    pipeline = Pipeline("p").add_step(one, outputs=["a"]).add_step(two)
    assert outcome(pipeline.add_step(pair, "it", inputs=["two", "a"])) == (1, 2)


def test_a_parameter_that_params_give_is_not_filled() -> None:
    assert outcome(numbers().add_step(pair, "it", {"a": "given"}, inputs=["two"])) == ("given", 2)


def test_an_input_may_be_a_single_string() -> None:
    assert outcome(numbers().add_step(same, "it", inputs="two")) == 2


def test_inputs_may_be_given_by_parameter() -> None:
    assert outcome(numbers().add_step(pair, "it", inputs={"b": "one", "a": "two"})) == (2, 1)


def test_a_name_with_a_slash_is_an_asset_like_any_other() -> None:
    pipeline = Pipeline("p").add_step(one, outputs=["data/raw"]).add_step(same, "it", inputs=["data/raw"])
    assert outcome(pipeline) == 1


def test_inputs_of_add_step_replace_those_of_the_step() -> None:
    reading = step(inputs=["one"])(same)
    assert outcome(numbers().add_step(reading, "it", inputs=["two"])) == 2


def test_an_empty_list_of_inputs_declares_none() -> None:
    reading = step(inputs=["one"])(source)
    assert outcome(numbers().add_step(reading, "it", inputs=[])) == "default"


def test_one_asset_may_fill_several_parameters() -> None:
    assert outcome(numbers().add_step(pair, "it", inputs=["two", "two"])) == (2, 2)


def test_steps_may_be_added_before_what_they_read() -> None:
    pipeline = Pipeline("p").add_step(same, "it", inputs=["one"]).add_step(one)
    assert outcome(pipeline) == 1


def test_steps_added_in_a_loop_each_have_their_own_inputs() -> None:
    pipeline = Pipeline("p").add_step(one, "n0")
    for k in range(1, 50):
        pipeline.add_step(lambda before: before + 1, f"n{k}", inputs={"before": f"n{k - 1}"})
    assert outcome(pipeline, "n49") == 50


INPUTS_IN_A_LOOP: dict[str, Callable[[int], Any]] = {
    "by parameter": lambda k: {"a": f"n{k}", "b": "n0"},
    "by position": lambda k: [f"n{k}", "n0"],
    "by name, then by position": lambda k: ["n0", f"n{k}"] if k % 2 else ["a", f"n{k}"],
    "a run input among them": lambda k: [f"n{k}" if k % 3 else "given", "n0"],
    "a mapped step among them": lambda k: [f"n{k}" if k % 3 else "mapped", "n0"],
    "a list among them": lambda k: {"a": [f"n{k}", "n0"] if k % 2 else f"n{k}", "b": "n0"},
    "a glob among them": lambda k: {"a": f"n{k}" if k % 2 else f"n[{k}]", "b": "n0"},
    "an output among several": lambda k: {"a": f"n{k}" if k % 2 else "right", "b": "left"},
    "one more": lambda k: ["n0", f"n{k}"] if k % 2 else {"a": f"n{k}", "b": "n1"},
}


@pytest.mark.parametrize("kind", INPUTS_IN_A_LOOP)
def test_a_loop_gives_what_steps_added_one_by_one_give(kind: str) -> None:
    """Steps of one line share their wiring; `eval` gives each a line of its own, which shares nothing."""

    def build(*, shared: bool) -> dict[str, Any]:
        pipeline = Pipeline("p").map(same, [7, 8], name="mapped").add_step(two, outputs=["a"])
        pipeline.add_step(lambda: (5, 6), "split", outputs=["left", "right"])
        for k in range(8):
            pipeline.add_step(same, f"n{k}", {"value": k})
        for k in range(8):
            inputs = INPUTS_IN_A_LOOP[kind](k)
            if shared:
                pipeline.add_step(pair, f"it{k}", inputs=inputs)
            else:
                eval("pipeline.add_step(pair, name, inputs=inputs)", {**globals(), **locals(), "name": f"it{k}"})
        result = pipeline.run(inputs={"given": "given"} if "run input" in kind else None, raise_on_failure=True)
        return {f"it{k}": result[f"it{k}"] for k in range(8)}

    assert build(shared=True) == build(shared=False)


# ---- declared inputs: globs and lists ------------------------------------------------------------------------------


def chunks(count: int) -> Pipeline:
    pipeline = Pipeline("chunks")
    for k in reversed(range(count)):
        pipeline.add_step(same, f"chunk_{k}", {"value": k})
    return pipeline


def test_a_glob_gives_the_values_in_add_order() -> None:
    assert outcome(chunks(12).add_step(same, "it", inputs={"value": "chunk_*"})) == list(reversed(range(12)))


def test_a_glob_of_one_is_a_list_of_one() -> None:
    assert outcome(chunks(1).add_step(same, "it", inputs={"value": "chunk_*"})) == [0]


@pytest.mark.parametrize("inputs", ["chunk_*", ["chunk_*"], {"value": "chunk_?"}, {"value": "chunk_[0-2]"}])
def test_globs_stand_wherever_a_name_does(inputs: Any) -> None:
    assert outcome(chunks(3).add_step(same, "it", inputs=inputs)) == [2, 1, 0]


def test_a_glob_matches_assets_not_steps() -> None:
    pipeline = Pipeline("p").add_step(one, "part_a", outputs=["x"]).add_step(two, "other", outputs=["part_b"])
    assert outcome(pipeline.add_step(same, "it", inputs={"value": "part_*"})) == [2]


def test_a_glob_matches_some_of_several_outputs() -> None:
    pipeline = Pipeline("p").add_step(lambda: (1, 2, 3), "split", outputs=["x_0", "y", "x_1"])
    assert outcome(pipeline.add_step(same, "it", inputs={"value": "x_*"})) == [1, 3]


def test_a_glob_takes_steps_that_are_added_later() -> None:
    pipeline = Pipeline("p").add_step(same, "it", inputs={"value": "part_*"})
    assert outcome(pipeline.add_step(one, "part_0").add_step(two, "part_1")) == [1, 2]


def test_a_glob_never_matches_its_own_step() -> None:
    assert outcome(chunks(3).add_step(same, "chunk_all", inputs={"value": "chunk_*"}), "chunk_all") == [2, 1, 0]


def test_a_glob_that_steps_share_leaves_each_out_for_itself_only() -> None:
    gather = step(inputs={"value": "part_*"})(lambda value: value)
    pipeline = Pipeline("p").add_step(one, "part_0")
    for name in ("part_1", "outside"):
        pipeline.add_step(gather, name)
    result = pipeline.run()
    assert (result["part_1"], result["outside"]) == ([1], [1, [1]])


def test_a_step_called_like_a_pattern_is_read_by_that_name() -> None:
    pipeline = Pipeline("p").add_step(one, "chunk[0]").add_step(two, "chunk0")
    assert outcome(pipeline.add_step(same, "it", inputs={"value": "chunk[0]"})) == 1


def test_a_list_for_a_parameter_gives_a_list() -> None:
    assert outcome(numbers().add_step(pair, "it", inputs={"a": ["three", "one"], "b": "two"})) == ([3, 1], 2)


def test_a_list_may_hold_globs() -> None:
    pipeline = chunks(2).add_step(one)
    assert outcome(pipeline.add_step(same, "it", inputs={"value": ["one", "chunk_*"]})) == [1, 1, 0]


def test_a_mapped_step_gives_the_list_of_its_values() -> None:
    assert outcome(Pipeline("p").map(same, ["ab"], name="m").add_step(same, "it", inputs=["m"])) == ["ab"]


@pytest.mark.parametrize("wanted", ["m_*", {"value": ["m_0"]}, {"value": "m_?"}], ids=["glob", "list", "named"])
def test_a_glob_or_list_with_one_mapped_step_in_it_is_a_list_of_its_list(wanted: Any) -> None:
    assert outcome(Pipeline("p").map(same, [1, 2], name="m_0").add_step(same, "it", inputs=wanted)) == [[1, 2]]


def test_a_map_over_a_glob_has_one_item_for_each_asset_also_if_the_only_one_is_a_map() -> None:
    pipeline = Pipeline("p").map(same, [1, 2], name="m_0").map(same, over="m_*", name="it")
    assert outcome(pipeline) == [[1, 2]]


def test_an_empty_list_of_inputs_is_an_empty_list() -> None:
    assert outcome(Pipeline("p").add_step(same, "it", inputs={"value": []})) == []


def test_a_mapped_step_among_others_is_one_value() -> None:
    pipeline = Pipeline("p").map(same, [1, 2], name="m_0").add_step(three, "m_1")
    assert outcome(pipeline.add_step(same, "it", inputs="m_*")) == [[1, 2], 3]


# ---- *args, **kwargs, positional-only, builtins ----------------------------------------------------------------------


def test_args_take_the_inputs_that_are_left() -> None:
    def func(first: int, *rest: int) -> Any:
        return first, rest

    assert outcome(numbers().add_step(func, "it", inputs=["three", "one", "two"])) == (3, (1, 2))


def test_args_take_each_value_of_a_glob() -> None:
    assert outcome(chunks(3).add_step(everything, "it", inputs="chunk_*")) == (2, 1, 0)


def test_args_take_each_value_of_a_mapped_step() -> None:
    assert outcome(Pipeline("p").map(same, [1, 2], name="m").add_step(everything, "it", inputs="m")) == (1, 2)


def test_args_can_be_named() -> None:
    def func(first: int, *rest: int, last: int = 0) -> Any:
        return first, rest, last

    pipeline = numbers().add_step(func, "it", inputs={"rest": ["two", "three"], "last": "one", "first": "one"})
    assert outcome(pipeline) == (1, (2, 3), 1)


def test_args_take_a_run_input() -> None:
    pipeline = numbers().add_step(everything, "it", inputs=["one", "given"])
    assert outcome(pipeline, inputs={"given": "run"}) == (1, "run")


def test_a_default_before_args_is_passed_when_args_are_filled() -> None:
    def func(first: str = "default", *rest: int) -> Any:
        return first, rest

    assert outcome(numbers().add_step(func, "it", inputs={"rest": ["one"]})) == ("default", (1,))


def test_kwargs_take_params_of_any_name() -> None:
    assert outcome(Pipeline("p").add_step(named, "it", {"x": 1, "values": 2})) == {"x": 1, "values": 2}


def test_kwargs_take_the_inputs_that_are_left_by_name() -> None:
    assert outcome(numbers().add_step(named, "it", inputs=["one", "two"])) == {"one": 1, "two": 2}


def test_kwargs_take_inputs_by_parameter() -> None:
    assert outcome(numbers().add_step(named, "it", inputs={"x": "one", "y": ["one", "two"]})) == {"x": 1, "y": [1, 2]}


def test_kwargs_without_inputs_are_empty() -> None:
    assert outcome(numbers(one=1).add_step(named, "it")) == {}


def test_positional_only_parameters_are_passed_by_position() -> None:
    def func(a: int, b: int = 5, c: int = 6, /, d: int = 7, *, e: int = 8) -> Any:
        return a, b, c, d, e

    assert outcome(numbers().add_step(func, "it", {"c": 0, "e": 9}, inputs={"a": "one"})) == (1, 5, 0, 7, 9)


def test_keyword_only_parameters_are_passed_by_keyword() -> None:
    def func(*, a: int, b: int = 5) -> Any:
        return a, b

    assert outcome(numbers().add_step(func, "it", inputs=["one"])) == (1, 5)


def test_a_builtin_without_signature_takes_params_in_order() -> None:
    assert outcome(Pipeline("p").add_step(range, "it", {"start": 1, "stop": 4})) == range(1, 4)


def test_a_builtin_without_signature_takes_inputs_after_params() -> None:
    assert outcome(numbers().add_step(range, "it", {"start": 1}, inputs=["three", "two"])) == range(1, 3, 2)


def test_a_builtin_without_signature_takes_a_glob_as_one_list() -> None:
    assert outcome(chunks(1).add_step(max, "it", inputs="chunk_*")) == 0
    assert outcome(chunks(3).add_step(max, "it", inputs="chunk_*")) == 2


def test_a_ufunc_takes_inputs_in_order() -> None:
    assert outcome(numbers().add_step(np.subtract, "it", inputs=["three", "one"])) == 2


def test_a_class_is_wired_as_its_constructor() -> None:
    class Point:
        def __init__(self, one: int, y: int = 0) -> None:
            self.place = (one, y)

    assert outcome(numbers().add_step(Point, "it")).place == (1, 0)


# ---- undeclared inputs -----------------------------------------------------------------------------------------------


def test_a_parameter_equal_to_an_output_makes_an_edge() -> None:
    def it(one: int) -> int:
        return one

    assert outcome(Pipeline("p").add_step(it).add_step(one)) == 1


def test_an_undeclared_input_goes_before_the_default() -> None:
    def it(two: int = 0) -> int:
        return two

    assert outcome(numbers().add_step(it)) == 2


def test_an_undeclared_input_is_never_the_step_itself() -> None:
    def own(own: str = "default") -> str:
        return own

    assert outcome(Pipeline("p").add_step(own), "own") == "default"


def test_steps_that_share_a_function_each_leave_out_only_themselves() -> None:
    def func(x: int = 0) -> int:
        return x + 1

    pipeline = Pipeline("p")
    for name in ("x", "y", "z"):
        pipeline.add_step(func, name)
    result = pipeline.run()
    assert [result[name] for name in "xyz"] == [1, 2, 2]


def test_a_step_with_declared_outputs_is_no_asset() -> None:
    def it(one: int = 0) -> int:
        return one

    assert outcome(Pipeline("p").add_step(one, outputs=["other"]).add_step(it)) == 0


def test_an_undeclared_input_may_be_one_of_several_outputs() -> None:
    pipeline = Pipeline("p").add_step(lambda: {"left": 1, "right": 2}, "split", outputs=["left", "right"])
    assert outcome(pipeline.add_step(lambda right: right, "it")) == 2


def test_mutual_undeclared_inputs_are_a_cycle() -> None:
    pipeline = Pipeline("p").add_step(lambda b: b, "a").add_step(lambda a: a, "b")
    with pytest.raises(CycleError):
        pipeline.build()


# ---- outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [(1, 2), [1, 2], {"y": 2, "x": 1}])
def test_several_outputs_are_taken_apart(returned: Any) -> None:
    pipeline = Pipeline("p").add_step(same, "split", {"value": returned}, outputs=["x", "y"])
    result = pipeline.add_step(pair, "it", inputs=["y", "x"]).run()
    assert (result["it"], result["split"]) == ((2, 1), returned)
    assert type(result["split"]) is type(returned)


def test_one_output_is_not_taken_apart() -> None:
    pipeline = Pipeline("p").add_step(same, "made", {"value": (1, 2)}, outputs=["x"])
    assert outcome(pipeline.add_step(same, "it", inputs=["x"])) == (1, 2)


def test_outputs_of_add_step_replace_those_of_the_step() -> None:
    writing = step(outputs=["x"])(one)
    assert dict(Pipeline("p").add_step(writing, outputs=["y"]).run().outputs) == {"y": 1}


def test_an_empty_list_of_outputs_is_the_steps_own_name() -> None:
    writing = step(outputs=["x"])(one)
    assert dict(Pipeline("p").add_step(writing, outputs=[]).run().outputs) == {"one": 1}


def test_an_output_may_have_the_steps_own_name() -> None:
    pipeline = Pipeline("p").add_step(lambda: (1, 2), "a", outputs=["a", "b"]).add_step(same, "it", inputs=["a"])
    assert outcome(pipeline) == 1


def test_none_is_a_value() -> None:
    pipeline = Pipeline("p").add_step(lambda: None, "nothing").add_step(same, "it", inputs=["nothing"])
    assert outcome(pipeline) is None


# ---- run inputs and after --------------------------------------------------------------------------------------------


def test_a_run_input_fills_a_parameter_of_its_name() -> None:
    assert outcome(Pipeline("p").add_step(same, "it"), inputs={"value": 5}) == 5


@pytest.mark.parametrize("inputs", [["raw"], {"value": "raw"}, "raw", {"value": ["raw"]}])
def test_a_run_input_is_an_asset_for_declared_inputs(inputs: Any) -> None:
    got = outcome(Pipeline("p").add_step(same, "it", inputs=inputs), inputs={"raw": 5})
    assert got == ([5] if inputs == {"value": ["raw"]} else 5)


def test_run_inputs_are_for_one_run() -> None:
    pipeline = Pipeline("p").add_step(source, "it")
    assert outcome(pipeline, inputs={"value": 1}) == 1
    assert outcome(pipeline) == "default"


def test_run_inputs_and_assets_in_one_list_are_refused() -> None:
    pipeline = numbers().add_step(same, "it", inputs={"value": ["one", "raw"]})
    with pytest.raises(PipelineValidationError, match="requires undefined asset 'raw'; run inputs and outputs"):
        pipeline.run(inputs={"raw": 1})


def test_build_leaves_missing_parameters_to_run() -> None:
    Pipeline("p").add_step(same, "it").build()


def test_build_takes_the_inputs_that_run_will_get() -> None:
    pipeline = Pipeline("p").add_step(same, "it", inputs=["raw"])
    pipeline.build(inputs={"raw": 1})
    with pytest.raises(PipelineValidationError, match="requires undefined asset 'raw'"):
        pipeline.build()


@pytest.mark.parametrize("after", ["last", ["last"], ("last",)])
def test_after_orders_without_data(after: Any) -> None:
    seen: list[str] = []
    pipeline = Pipeline("p").add_step(lambda: seen.append("first"), "first", after=after)
    pipeline.add_step(lambda: seen.append("last"), "last").run()
    assert seen == ["last", "first"]


def test_after_names_steps_not_assets() -> None:
    seen: list[str] = []
    pipeline = Pipeline("p").add_step(lambda: seen.append("first"), "first", after="last")
    pipeline.add_step(lambda: seen.append("last"), "last", outputs=["x"]).run()
    assert seen == ["last", "first"]


# ---- maps ------------------------------------------------------------------------------------------------------------


def test_an_item_goes_to_the_first_free_parameter() -> None:
    pipeline = Pipeline("p").map(pair, [1, 2], name="it", params={"a": "given"})
    assert list(outcome(pipeline)) == [("given", 1), ("given", 2)]


def test_an_item_leaves_parameters_of_named_inputs_free() -> None:
    pipeline = numbers().map(pair, [1, 2], name="it", inputs={"a": "three"})
    assert list(outcome(pipeline)) == [(3, 1), (3, 2)]


def test_other_inputs_fill_what_the_item_leaves() -> None:
    assert list(outcome(numbers().map(pair, ["xy"], name="it", inputs=["three"]))) == [("xy", 3)]


def test_an_item_may_go_to_args() -> None:
    def func(*items: int, scale: int = 1) -> Any:
        return items, scale

    assert list(outcome(Pipeline("p").map(func, [5, 6], name="it"))) == [((5,), 1), ((6,), 1)]


def test_an_item_may_go_to_a_keyword_only_parameter() -> None:
    def func(*, item: int) -> int:
        return item

    assert list(outcome(Pipeline("p").map(func, [5], name="it"))) == [5]


def test_items_of_a_builtin_without_signature_go_by_position() -> None:
    assert list(outcome(Pipeline("p").map(range, [1, 2], name="it", params={"start": 0}))) == [range(1), range(2)]


def test_items_are_not_taken_apart() -> None:
    assert list(outcome(Pipeline("p").map(same, [(1, 2)], name="it"))) == [(1, 2)]


@pytest.mark.parametrize(
    "items", [[1, 2], (1, 2), range(1, 3), {1: "a", 2: "b"}.keys(), (k for k in (1, 2)), np.array([1, 2])]
)
def test_items_come_from_any_iterable(items: Any) -> None:
    assert list(outcome(Pipeline("p").map(same, items, name="it"))) == [1, 2]


def test_items_are_copied() -> None:
    items = [1]
    pipeline = Pipeline("p").map(same, items, name="it")
    items.append(2)
    assert list(outcome(pipeline)) == [1]


def test_a_mapped_step_reads_assets_and_context() -> None:
    def func(item: int, two: int, rate: int) -> int:
        return item * two * rate

    assert list(outcome(numbers(rate=10).map(func, [1, 2], name="it"))) == [20, 40]


def test_a_mapped_step_may_name_its_output() -> None:
    result = Pipeline("p").map(same, [1], name="m", outputs=["values"]).add_step(same, "it", inputs=["values"]).run()
    assert (result["it"], list(result["values"]), list(result["m"])) == ([1], [1], [1])


# -- rows of steps that were added alike are wired in one go


@pytest.mark.parametrize("odd", [0, 1, 7, 8, 9, 30, 49])
def test_one_of_a_row_that_reads_something_else_is_wired_by_itself(odd: int) -> None:
    """A list among single values, wherever it stands in the row."""
    pipeline = Pipeline("p").map(str, range(2), name="many")
    for k in range(50):
        pipeline.add_step(same, name=f"one_{k}", params={"value": str(k)})
    for k in range(50):
        pipeline.add_step(same, name=f"seen_{k}", inputs=["many" if k == odd else f"one_{k}"])
    outputs = pipeline.run().outputs
    expected = [["0", "1"] if k == odd else str(k) for k in range(50)]
    assert [outputs[f"seen_{k}"] for k in range(50)] == expected


@pytest.mark.parametrize("odd", [0, 1, 8, 30, 49])
def test_one_of_a_row_that_reads_nothing_known_is_named(odd: int) -> None:
    pipeline = Pipeline("p").add_step(one, name="first")
    for k in range(50):
        pipeline.add_step(same, name=f"seen_{k}", inputs=["missing" if k == odd else f"seen_{k - 1}" if k else "first"])
    with pytest.raises(PipelineValidationError, match=f"Node 'seen_{odd}' requires undefined asset 'missing'"):
        pipeline.build()


def test_what_one_line_adds_may_differ_from_step_to_step():
    """Steps that a loop adds share what they have in common, and nothing else."""
    given: list[dict[str, Any]] = [
        {"params": {"a": 1, "b": 2}},
        {"params": {"a": 3, "b": 4}},
        {"params": {"b": 5, "a": 6}},
        {"params": {"a": 7}, "inputs": {"b": "0"}},
        {"params": {"a": 8}, "inputs": {"b": "1"}},
        {"params": {"a": 9}, "inputs": ["1"]},
        {"inputs": ["0", "1"]},
        {"inputs": ["1", "0"]},
        {"params": {"a": 1, "b": 2}, "tags": "kept"},
        {"params": {"a": 0, "b": 0}},
    ]
    pipeline = Pipeline("p")
    for number, each in enumerate(given):
        pipeline.add_step(_pair, name=str(number), **each)
    wanted = [(1, 2), (3, 4), (6, 5), (7, (1, 2)), (8, (3, 4)), (9, (3, 4))]
    wanted += [((1, 2), (3, 4)), ((3, 4), (1, 2)), (1, 2), (0, 0)]
    result = pipeline.run()
    assert [result[str(number)] for number in range(len(given))] == wanted


def test_what_one_line_adds_after_a_run_does_not_change_its_result():
    pipeline, results = Pipeline("p"), []
    for number in range(4):
        pipeline.add_step(_pair, name=str(number), params={"a": number, "b": (number,)})
        results.append(pipeline.run())
    assert [list(each.outputs) for each in results] == [["0"], ["0", "1"], ["0", "1", "2"], ["0", "1", "2", "3"]]
    assert results[-1]["3"] == (3, (3,))


def test_what_one_line_adds_twice_is_an_error_that_names_it():
    pipeline = Pipeline("p")

    def add(name: Any) -> None:
        pipeline.add_step(_pair, name=name, params={"a": 1, "b": 2})

    add("0")
    add("1")
    with pytest.raises(ValueError, match=r"'1' was added already at .*, and again at"):
        add("1")
    for name in ("", 7):
        with pytest.raises((TypeError, ValueError), match="the name of a step"):
            add(name)
    assert len(pipeline) == 2


def _pair(a: Any, b: Any) -> Any:
    return a, b
