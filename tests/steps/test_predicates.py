"""What the conditions of steps are asked with, on every executor: arguments, assets, context; what is refused."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from step_states import states

from flowyml import Pipeline, PipelineValidationError, context, step, unless, when


def add(a: int, b: int = 3) -> int:
    return a + b


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("a skipped step's function was called")


def test_ctx_shows_the_steps_that_the_step_waits_for(executor: Any) -> None:
    pipeline = Pipeline("seen", context=context(limit=0.5)).add_step(lambda: 0.8, "rate", outputs=["accuracy"])
    pipeline.add_step(lambda: "model", name="train")

    def good_enough(ctx: Any, limit: float) -> bool:
        return bool(ctx.steps["rate"].outputs["accuracy"] == ctx["accuracy"] > limit)

    pipeline.add_step(str.upper, "ship", inputs=["train"], after="rate", condition=good_enough)
    pipeline.add_step(str.upper, "alone", inputs=["train"], condition=lambda ctx: ctx.steps["rate"])
    result = pipeline.run(executor=executor)
    assert result["ship"] == "MODEL"
    assert "step 'rate' is not before this decision (before it: 'train')" in str(result.step_results["alone"].error)
    assert result.step_results["ship"].state == "success"


def test_ctx_of_steps_added_alike_is_each_ones_own(executor: Any) -> None:
    def odd(ctx: Any) -> bool:
        (seen,) = ctx.steps
        return bool(ctx[seen] % 2)

    pipeline = Pipeline("alike").map(abs, range(4), name="many", skip_if=lambda ctx, x: ctx.params["off"] and x > 1)
    for i in range(4):
        pipeline.add_step(abs, f"a{i}", {"x": i}).add_step(abs, f"b{i}", inputs=[f"a{i}"], condition=odd)
    result = pipeline.run({"off": True}, executor=executor)
    assert [str(result.step_results[f"b{i}"].state) for i in range(4)] == ["skipped", "success"] * 2
    assert [str(item.state) for item in result.step_results["many"].items] == [
        "success",
        "success",
        "skipped",
        "skipped",
    ]


def test_ctx_is_the_steps_own_parameter_or_a_value_of_that_name_first() -> None:
    pipeline = Pipeline("own", context=context(ctx=7)).add_step(lambda ctx: ctx, "own", {"ctx": 3})
    pipeline.add_step(lambda: 1, "named", condition=lambda ctx: ctx == 7)
    pipeline.add_step(lambda ctx: ctx, "same", {"ctx": 3}, condition=lambda ctx: ctx == 3)
    assert dict(pipeline.run().outputs) == {"own": 3, "named": 1, "same": 3}


def test_predicates_take_parameters_of_the_step_by_name_in_any_order(executor: Any) -> None:
    pipeline = Pipeline("names").add_step(add, "s", {"a": 1}, condition=lambda b, a: (a, b) == (1, 3))
    assert pipeline.run(executor=executor)["s"] == 4


def test_an_asset_adds_an_edge_and_does_not_reach_the_function(executor: Any) -> None:
    pipeline = Pipeline("edge").add_step(add, "s", {"a": 1}, condition=lambda a, quality: a + quality > 10)
    pipeline.add_step(lambda: 0.5, name="other", outputs="quality")
    result = pipeline.run(executor=executor)
    assert states(result) == {"s": "skipped", "other": "success"}
    pipeline = Pipeline("alone").add_step(add, "s", {"a": 1}, condition=lambda quality: quality > 10)
    pipeline.add_step(lambda: 11, name="other", outputs="quality")
    assert pipeline.run(executor=executor)["s"] == 4


def test_one_of_several_outputs_may_be_asked(executor: Any) -> None:
    train = step(lambda: ("model", 0.9), name="train", outputs=["model", "accuracy"])
    pipeline = Pipeline("outputs").add_step(train)
    pipeline.add_step(lambda model: model, name="ship", condition=lambda accuracy: accuracy > 0.8)
    pipeline.add_step(never, "warn", inputs="model", skip_if=lambda accuracy: accuracy > 0.8)
    assert states(pipeline.run(executor=executor)) == {"train": "success", "ship": "success", "warn": "skipped"}


def test_all_outputs_of_a_skipped_step_are_missing(executor: Any) -> None:
    pipeline = Pipeline("several").add_step(never, name="s", outputs=["x", "y"], condition=lambda: False)
    pipeline.add_step(never, "one", inputs="x").add_step(never, "two", inputs="y")
    result = pipeline.run(executor=executor)
    assert set(states(result).values()) == {"skipped"}
    assert dict(result.outputs) == {}


def test_run_inputs_and_context_may_be_asked(executor: Any) -> None:
    pipeline = Pipeline("values", context=context(limit=5))
    pipeline.add_step(add, "s", {"a": 1}, condition=lambda a, limit: a < limit)
    pipeline.add_step(add, "t", {"a": 1}, condition=lambda a, extra: a == extra)
    pipeline.add_step(add, "u", {"a": 1}, condition=lambda context: context["limit"] == 0)
    assert states(pipeline.run({"extra": 1}, executor=executor)) == {"s": "success", "t": "success", "u": "skipped"}
    again = pipeline.run({"extra": 2}, context={"limit": 0}, executor=executor)
    assert states(again) == {"s": "skipped", "t": "skipped", "u": "success"}


def test_params_may_give_what_a_predicate_wants(executor: Any) -> None:
    pipeline = Pipeline("params")
    for limit in (0, 5):
        pipeline.add_step(add, f"below_{limit}", {"a": 1, "limit": limit}, condition=lambda a, limit: a < limit)
    assert states(pipeline.run(executor=executor)) == {"below_0": "skipped", "below_5": "success"}


def test_a_predicate_has_defaults_like_a_step(executor: Any) -> None:
    pipeline = Pipeline("defaults").add_step(add, "s", {"a": 1}, condition=lambda value, limit=0: value > limit)
    assert states(pipeline.run(executor=executor)) == {"s": "success"}
    assert states(pipeline.run({"limit": 1}, executor=executor)) == {"s": "skipped"}


def test_a_lone_parameter_may_be_a_key_of_an_argument(executor: Any) -> None:
    """The documentation's own example: a condition on a figure in the metrics that the step reads, and no others."""
    pipeline = Pipeline("keys").add_step(lambda: {"quality_score": 0.85}, name="load_data")
    pipeline.add_step(lambda: {"quality_score": 0.92}, name="metrics")
    pipeline.add_step(lambda metrics: metrics, name="deploy", condition=lambda quality_score: quality_score > 0.9)
    assert states(pipeline.run(executor=executor))["deploy"] == "success"


def test_extra_positional_and_keyword_arguments_may_be_asked(executor: Any) -> None:
    pipeline = Pipeline("star").add_step(lambda: 1, name="one").add_step(lambda: 2, name="two")
    pipeline.add_step(lambda *parts: sum(parts), "s", inputs=["one", "two"], condition=lambda parts: len(parts) == 2)
    pipeline.add_step(lambda **kw: kw, "k", {"x": 1}, condition=lambda x, one: x == one)
    pipeline.add_step(lambda *, x: x, "o", {"x": 1}, condition=lambda first: first == 1)
    result = pipeline.run(executor=executor)
    assert (result["s"], result["k"], result["o"]) == (3, {"x": 1}, 1)


def test_functions_without_a_signature_may_have_conditions(executor: Any) -> None:
    pipeline = Pipeline("ufunc", context=context(limit=3))
    pipeline.add_step(np.add, "s", {"a": 1, "b": 2}, condition=lambda x: x == 1)
    pipeline.add_step(np.add, "t", {"a": 1, "b": 2}, skip_if=lambda limit: limit == 3)
    assert states(pipeline.run(executor=executor)) == {"s": "success", "t": "skipped"}
    pipeline.add_step(np.add, "u", {"a": 1, "b": 2}, skip_if=lambda x, limit: x == limit)
    with pytest.raises(PipelineValidationError, match=r"Missing required parameters: \['x'\]"):
        pipeline.run(executor=executor)


def test_builtins_and_bound_methods_may_be_predicates(executor: Any) -> None:
    pipeline = Pipeline("builtins").add_step(add, "s", {"a": 0}, condition=operator.truth)
    pipeline.add_step(add, "t", {"a": 1}, condition={1}.__contains__).add_step(add, "u", {"a": 1}, condition=bool)
    assert states(pipeline.run(executor=executor)) == {"s": "skipped", "t": "success", "u": "success"}


def test_a_parameter_without_a_name_for_callers_gets_the_first_argument(executor: Any) -> None:
    """As newer Pythons tell the signature of `bool`; a name by keyword would not reach it."""

    def positive(x: int = 0, /) -> bool:
        return x > 0

    pipeline = Pipeline("unnamed")
    for a in (0, 1):
        pipeline.add_step(add, f"s{a}", {"a": a}, condition=positive)
    assert states(pipeline.run(executor=executor)) == {"s0": "skipped", "s1": "success"}


def test_coroutine_functions_may_have_conditions(executor: Any) -> None:
    async def wait(x: int) -> int:
        return x

    pipeline = Pipeline("async")
    for x in (0, 1):
        pipeline.add_step(wait, f"s{x}", {"x": x}, condition=lambda x: x)
    result = pipeline.run(executor=executor)
    assert (states(result), result["s1"]) == ({"s0": "skipped", "s1": "success"}, 1)


# ---- wrong uses ------------------------------------------------------------------------------------------------------


def test_what_a_predicate_wants_must_be_there() -> None:
    pipeline = Pipeline("missing").add_step(add, "s", {"a": 1}, condition=lambda a, limti: a < limti)
    pipeline.build()
    wanted = r"Missing required parameters: \['limti'\]; run\(context=\) has 'limit'"
    with pytest.raises(PipelineValidationError, match=wanted):
        pipeline.run(context={"limit": 5})


def test_a_predicate_that_would_close_a_cycle_is_an_error() -> None:
    pipeline = Pipeline("cycle").add_step(lambda: 1, name="a", condition=lambda b: b).add_step(lambda a: a, name="b")
    with pytest.raises(PipelineValidationError, match="contains cycles"):
        pipeline.build()


async def an_answer() -> bool:
    return True


def answers() -> Any:
    yield True


@pytest.mark.parametrize(
    ("predicate", "words"),
    [
        (True, "condition of step 'add' must be a function that can be asked, got bool True"),
        ("a > 1", "condition of step 'add' must be a function that can be asked, got str"),
        (an_answer, "condition of step 'add' must be a plain function"),
        (answers, "condition of step 'add' must be a plain function"),
    ],
)
def test_what_is_no_predicate_is_refused(predicate: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        step(add, condition=predicate)
    with pytest.raises(TypeError, match=words):
        Pipeline("refused").add_step(add, condition=predicate)


def test_decorators_refuse_what_they_cannot_use() -> None:
    with pytest.raises(TypeError, match="@when must be a function"):
        when(True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="decorates a function, got int 3"):
        unless(bool)(3)
