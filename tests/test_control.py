"""Conditions of steps, on every executor: what runs, what is skipped, what the others see of it.

The tests `test_f...` are the probes of the table of what 2.2.1 did, one each.
"""

from __future__ import annotations

import operator
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowyml import If, Pipeline, PipelineValidationError, Switch, context, retry, step, unless, when


def add(a: int, b: int = 3) -> int:
    return a + b


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("a skipped step's function was called")


def states(result: Any) -> dict[str, str]:
    return {name: each.state.value for name, each in result.step_results.items()}


def test_f1_consumers_of_a_skipped_step_are_skipped_far_and_near(executor: Any) -> None:
    pipeline = Pipeline("f1").add_step(never, name="a", condition=lambda: False)
    pipeline.add_step(never, "b", inputs="a").add_step(never, "c", inputs="b")
    pipeline.add_step(never, name="late", after="a").add_step(lambda: 1, name="free")
    result = pipeline.run(executor=executor)
    assert states(result) == {"a": "skipped", "b": "skipped", "c": "skipped", "late": "skipped", "free": "success"}
    assert result.success
    assert dict(result.outputs) == {"free": 1}
    assert result.failed == []
    assert result.step_results["a"].skipped
    assert result.step_results["a"].error is None
    with pytest.raises(Exception, match="a has no value: it was skipped"):
        _ = result["a"]


def test_f2_a_condition_that_raises_fails_its_step_with_its_own_traceback(executor: Any) -> None:
    def broken_condition(a: int) -> bool:
        raise LookupError(f"no {a}")

    pipeline = Pipeline("f2").add_step(add, "s", {"a": 1}, condition=broken_condition)
    result = pipeline.add_step(lambda s: s, name="reads").run(executor=executor)
    assert states(result) == {"s": "failed", "reads": "upstream_failed"}
    failed = result.step_results["s"]
    assert isinstance(failed.exception, LookupError)
    assert "in broken_condition" in (failed.error or "")
    assert "conditions.py" not in (failed.error or "")


def test_f3_a_condition_may_call_its_parameter_as_it_likes(executor: Any) -> None:
    @step
    @when(lambda x: x > 100)
    def process(value: int) -> int:
        return value

    pipeline = Pipeline("f3").add_step(process, "small", {"value": 99}).add_step(process, "large", {"value": 101})
    assert states(pipeline.run(executor=executor)) == {"small": "skipped", "large": "success"}


def test_a_misspelled_parameter_of_a_condition_is_warned_of() -> None:
    def process(data: int, quality: int) -> int:
        return data + quality

    def run(condition: Any) -> Any:
        pipeline = Pipeline("f3").add_step(process, params={"data": 1, "quality": 5}, condition=condition)
        return [states(pipeline.run()) for _ in range(2)][1]["process"]

    with pytest.warns(
        UserWarning, match=r"for 'qualty', which is none of its .* did you mean 'quality'\?.*'data'"
    ) as told:
        assert run(lambda qualty: qualty > 1) == "skipped"
    assert (len(told), told[0].filename) == (1, __file__)
    assert [run(lambda x: x == 1), run(lambda quality_of_all: quality_of_all == 1)] == [
        "success"
    ] * 2  # means the first, and no other


def test_f4_no_sentinel_reaches_a_function(executor: Any) -> None:
    @step
    @unless(lambda value: value < 0)
    def root(value: float) -> float:
        return value**0.5

    pipeline = Pipeline("f4").add_step(root, params={"value": -1.0}).add_step(never, "all", inputs="root")
    assert states(pipeline.run(executor=executor)) == {"root": "skipped", "all": "skipped"}


def test_f5_skip_if_is_the_opposite_of_condition(executor: Any) -> None:
    pipeline = Pipeline("f5")
    for answer in (True, False):
        pipeline.add_step(add, f"condition_{answer}", {"a": 1, "b": answer}, condition=lambda b: b)
        pipeline.add_step(add, f"skip_if_{answer}", {"a": 1, "b": answer}, skip_if=lambda b: b)
    assert states(pipeline.run(executor=executor)) == {
        "condition_True": "success",
        "skip_if_True": "skipped",
        "condition_False": "skipped",
        "skip_if_False": "success",
    }


def test_f5_a_condition_may_ask_for_ctx_as_a_decision_does(executor: Any) -> None:
    pipeline = Pipeline("upload", context=context(dry_run=True)).add_step(lambda: [1, 2], name="data")
    pipeline.add_step(sum, "upload", inputs=["data"], skip_if=lambda ctx: ctx.params["dry_run"] is True)
    assert states(pipeline.run(executor=executor)) == {"data": "success", "upload": "skipped"}
    assert pipeline.run(context={"dry_run": False}, executor=executor)["upload"] == 3


# ---- what a predicate is asked with ----------------------------------------------------------------------------------


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


def test_coroutine_functions_may_have_conditions(executor: Any) -> None:
    async def wait(x: int) -> int:
        return x

    pipeline = Pipeline("async")
    for x in (0, 1):
        pipeline.add_step(wait, f"s{x}", {"x": x}, condition=lambda x: x)
    result = pipeline.run(executor=executor)
    assert (states(result), result["s1"]) == ({"s0": "skipped", "s1": "success"}, 1)


# ---- several, and where they stand -----------------------------------------------------------------------------------


def test_all_conditions_must_hold_and_the_first_that_does_not_ends_the_questions(executor: Any) -> None:
    @step(condition=lambda a: a < 10)
    @when(lambda a: a > 0)
    @unless(lambda a: a / (a != 3) == 0)
    def picky(a: int) -> int:
        return a

    pipeline = Pipeline("all")
    for a in (-1, 1, 3, 11):
        pipeline.add_step(picky, f"s{a}", {"a": a})
    assert states(pipeline.run(executor=executor)) == {
        "s-1": "skipped",
        "s1": "success",
        "s3": "failed",
        "s11": "skipped",
    }


def test_when_stands_above_or_below_step() -> None:
    @when(lambda a: a > 0)
    @step(name="above")
    def above(a: int) -> int:
        return a

    assert above(-1) == -1, "calling a step runs the plain function"
    pipeline = Pipeline("above").add_step(above, params={"a": -1}).add_step(above, "again", {"a": 1})
    assert states(pipeline.run()) == {"above": "skipped", "again": "success"}


def test_a_condition_of_add_step_replaces_the_steps_own() -> None:
    picky = step(add, condition=lambda a: a > 0)
    pipeline = Pipeline("own").add_step(picky, "own", {"a": -1})
    pipeline.add_step(picky, "other", {"a": -1}, condition=lambda a: a < 0)
    assert states(pipeline.run()) == {"own": "skipped", "other": "success"}
    assert picky.condition is not None
    assert picky.skip_if is None


def test_methods_may_have_conditions(executor: Any) -> None:
    class Shop:
        @step
        @when(lambda price: price > 1)
        def sell(self, price: int) -> int:
            return price

    pipeline = Pipeline("method").add_step(Shop().sell, "a", {"price": 1}).add_step(Shop().sell, "b", {"price": 2})
    assert states(pipeline.run(executor=executor)) == {"a": "skipped", "b": "success"}


def test_steps_with_conditions_pickle() -> None:
    guarded = pickle.loads(pickle.dumps(step(add, condition=operator.truth)))
    assert states(Pipeline("pickled").add_step(guarded, params={"a": 0}).run()) == {"add": "skipped"}


def test_chains_with_conditions_share_their_form(executor: Any) -> None:
    pipeline = Pipeline("chain").add_step(lambda: 0, name="s0").add_step(lambda: 3, name="limit")
    grow = step(lambda value: value + 1, name="grow", condition=lambda value, limit: value < limit)
    for k in range(1, 6):
        pipeline.add_step(grow, f"s{k}", inputs=[f"s{k - 1}"])
    expected = ["success"] * 4 + ["skipped"] * 2
    assert [states(pipeline.run(executor=executor))[f"s{k}"] for k in range(6)] == expected


def test_a_named_input_may_be_the_predicates_alone() -> None:
    @step
    @when(lambda data, quality: quality > data)
    def use(data: int) -> int:
        return data

    pipeline = Pipeline("named").add_step(lambda: 1, name="one").add_step(lambda: 2, name="quality")
    pipeline.add_step(use, "good", inputs=["one", "quality"])
    pipeline.add_step(use, "bad", inputs=["one", "one"])
    with pytest.raises(PipelineValidationError, match="no parameter is left for input 'one'"):
        pipeline.run()


# ---- maps, retries, fail_fast, keep ----------------------------------------------------------------------------------


def test_items_of_a_map_are_skipped_one_by_one(executor: Any) -> None:
    pipeline = Pipeline("map").map(lambda x: 2 * x, range(6), name="m", condition=lambda x: x % 2)
    result = pipeline.add_step(never, "reads", inputs="m").run(executor=executor)
    items = [each.state.value for each in result.step_results["m"].items]
    assert items == ["skipped", "success"] * 3
    assert [result["m"][k] for k in (1, 3, 5)] == [2, 6, 10]
    assert result.step_results["m"].state == "skipped"
    assert (result.step_results["reads"].state, result.success) == ("skipped", True)


def test_a_map_of_many_skipped_items(executor: Any) -> None:
    result = Pipeline("many").map(lambda x: x, range(5000), name="m", skip_if=lambda x: x != 7).run(executor=executor)
    assert result.to_dict()["steps"]["m"]["state"] == "skipped"
    assert [each.index for each in result.step_results["m"].items if each.success] == [7]


def test_a_skipped_step_is_not_tried_again_and_a_failed_question_is(executor: Any, tmp_path: Path) -> None:
    def asked(name: str, folder: str) -> bool:
        path = Path(folder, name)
        with path.open("a") as file:
            file.write("x")
        if name == "flaky" and path.stat().st_size < 3:
            raise OSError(name)
        return name == "flaky"

    pipeline = Pipeline("retry")
    for name in ("skipped", "flaky"):
        params = {"name": name, "folder": str(tmp_path)}
        pipeline.add_step(lambda name, folder: name, name, params, condition=asked, retry=retry(max_attempts=3))
    result = pipeline.run(executor=executor)
    assert states(result) == {"skipped": "skipped", "flaky": "success"}
    assert [(tmp_path / name).stat().st_size for name in ("skipped", "flaky")] == [1, 3]
    assert result.step_results["skipped"].retries == 0


def test_skips_do_not_stop_a_run_that_fails_fast(executor: Any) -> None:
    pipeline = Pipeline("fast").map(lambda x: x, range(100), name="m", condition=lambda x: x > 50)
    pipeline.add_step(lambda: 1, name="last", after=[])
    result = pipeline.run(executor=executor, fail_fast=True)
    assert result.success
    assert result["last"] == 1


def test_values_that_only_skipped_steps_would_read_are_let_go(executor: Any) -> None:
    pipeline = Pipeline("keep").add_step(lambda: [1], name="a")
    pipeline.add_step(never, "b", inputs="a", condition=lambda: False)
    result = pipeline.run(executor=executor, keep="leaves")
    assert states(result) == {"a": "success", "b": "skipped"}
    assert dict(result.outputs) == {}


def test_a_failure_beside_a_skip_wins(executor: Any) -> None:
    pipeline = Pipeline("both").add_step(lambda: 1 // 0, name="bad").add_step(never, name="no", condition=lambda: False)
    pipeline.add_step(never, "reads", inputs=["bad", "no"])
    assert states(pipeline.run(executor=executor))["reads"] == "upstream_failed"


def test_steps_of_a_module_keep_their_identity(executor: Any, tmp_path: Path) -> None:
    """Functions that a worker imports by name, behind a condition, in a script without a guard."""
    (tmp_path / "house.py").write_text(
        textwrap.dedent(
            """
            from flowyml import step, when

            class Room:
                pass

            @step
            @when(lambda yes: yes)
            def build(yes):
                return Room()

            @step(condition=lambda build: isinstance(build, Room))
            def enter(build):
                assert type(build) is Room
                return "in"
            """
        )
    )
    script = """
import house
from flowyml import ParallelExecutor, Pipeline

for backend in ("process", "thread"):
    pipeline = Pipeline("house").add_step(house.build, params={"yes": 1}).add_step(house.enter)
    result = pipeline.run(executor=ParallelExecutor(2, backend))
    print(result["enter"], type(result["build"]) is house.Room)
"""
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, text=True, capture_output=True, timeout=50)
    assert done.stdout.split() == ["in", "True"] * 2, done.stderr


# ---- joins -----------------------------------------------------------------------------------------------------------


def branches(**skipped: bool) -> Pipeline:
    """Return steps that have their name as value, some of them skipped."""
    pipeline = Pipeline("branches")
    for name, out in skipped.items():
        pipeline.add_step(lambda name, out: name, name, {"name": name, "out": out}, skip_if=lambda out: out)
    return pipeline


def both(a: str = "no a", b: str = "no b") -> tuple[str, str]:
    return a, b


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [(False, True, ("a", "no b")), (True, False, ("no a", "b")), (False, False, ("a", "b"))],
)
def test_a_join_runs_with_what_is_there_and_defaults(executor: Any, a: bool, b: bool, value: Any) -> None:
    result = branches(a=a, b=b).add_step(both, run_if="any").run(executor=executor)
    assert result["both"] == value


def test_a_join_of_nothing_is_skipped_and_so_is_what_reads_it(executor: Any) -> None:
    pipeline = branches(a=True, b=True).add_step(both, run_if="any").add_step(never, "reads", inputs="both")
    assert set(states(pipeline.run(executor=executor)).values()) == {"skipped"}


def test_lists_of_a_join_hold_what_is_there(executor: Any) -> None:
    pipeline = branches(p0=False, p1=True, p2=False)
    pipeline.add_step(lambda parts: parts, "glob", inputs={"parts": "p*"}, run_if="any")
    pipeline.add_step(lambda parts: parts, "list", inputs={"parts": ["p1", "p2"]}, run_if="any")
    pipeline.add_step(lambda *parts: parts, "args", inputs=["p1", "p0", "p2"], run_if="any")
    pipeline.add_step(max, "max", inputs=["p?"], run_if="any")
    result = pipeline.run(executor=executor)
    assert (result["glob"], result["list"], result["args"]) == (["p0", "p2"], ["p2"], ("p0", "p2"))
    assert result["max"] == "p2"


def test_a_join_of_a_map_reads_the_items_that_are_there(executor: Any) -> None:
    def odd(x: int) -> int:
        return 1 // (x % 4) * x if x != 3 else 3

    pipeline = Pipeline("items").map(odd, range(6), name="m", condition=lambda x: x % 2 or x == 4)
    pipeline.add_step(lambda m: m, name="reads", run_if="any")
    pipeline.add_step(lambda *m: m, "spreads", inputs="m", run_if="any")
    pipeline.map(lambda x, m: (x, m), range(2), name="each", run_if="any")
    result = pipeline.run(executor=executor)
    assert [each.state.value for each in result.step_results["m"].items].count("failed") == 1
    assert (result["reads"], result["spreads"]) == ([1, 3, 5], (1, 3, 5))
    assert list(result["each"]) == [(0, [1, 3, 5]), (1, [1, 3, 5])]
    assert not result.success


def test_one_of_several_outputs_may_be_missing(executor: Any) -> None:
    pair = step(lambda out: ("x", "y"), outputs=["a", "b"], skip_if=lambda out: out)
    for out, value in ((True, ("no a", "no b")), (False, ("a", "b"))):
        pipeline = Pipeline("outputs").add_step(pair, "pair", {"out": out}).add_step(lambda: 1, name="one")
        result = pipeline.add_step(both, run_if="any", after="one").run(executor=executor)
        assert result["both"] == (("x", "y") if value[0] == "a" else value)


def test_a_join_waits_for_all_and_runs_beside_a_failure(executor: Any) -> None:
    pipeline = branches(a=False).add_step(lambda: 1 // 0, name="b").add_step(both, run_if="any")
    result = pipeline.run(executor=executor)
    assert result["both"] == ("a", "no b")
    assert not result.success
    pipeline = branches(a=True).add_step(lambda: 1 // 0, name="b").add_step(both, run_if="any")
    assert states(pipeline.run(executor=executor)) == {"a": "skipped", "b": "failed", "both": "upstream_failed"}


def test_a_value_of_none_is_there(executor: Any) -> None:
    pipeline = branches(b=True).add_step(lambda: None, name="a").add_step(both, run_if="any")
    assert pipeline.run(executor=executor)["both"] == (None, "no b")


def test_a_join_may_have_a_condition(executor: Any) -> None:
    pipeline = branches(a=False, b=True).add_step(both, "one", run_if="any", condition=lambda b: b == "no b")
    pipeline.add_step(both, "two", run_if="any", skip_if=lambda b: b == "no b")
    assert list(states(pipeline.run(executor=executor)).values())[2:] == ["success", "skipped"]


def test_values_are_let_go_after_a_join(executor: Any) -> None:
    result = branches(a=False, b=True).add_step(both, run_if="any").run(executor=executor, keep="leaves")
    assert dict(result.outputs) == {"both": ("a", "no b")}


def test_run_if_is_an_option_of_a_step_that_add_step_may_replace() -> None:
    join = step(both, run_if="any")
    assert join.run_if == "any"
    assert branches(a=True, b=False).add_step(join).run().success
    strict = branches(a=True, b=False).add_step(join, run_if="all").run()
    assert strict.step_results["both"].skipped


def test_explain_tells_of_the_default() -> None:
    pipeline = branches(a=True, b=False).add_step(both, run_if="any")
    assert "output of step 'a'" in str(pipeline.explain("both"))
    assert "else its default 'no a'" in str(pipeline.explain("both"))


def test_a_single_parameter_of_a_join_needs_a_default() -> None:
    pipeline = branches(a=True, b=False).add_step(lambda a, b=1: (a, b), "join", run_if="any")
    with pytest.raises(PipelineValidationError, match=r"'join' requires a default for parameter 'a', or a list"):
        pipeline.build()
    pipeline = branches(a=True, b=False).add_step(max, "join", inputs=["a", "b"], run_if="any")
    with pytest.raises(PipelineValidationError, match="the function does not tell its parameters"):
        pipeline.build()


@pytest.mark.parametrize("wrong", ["some", True, 1])
def test_run_if_is_all_or_any(wrong: Any) -> None:
    with pytest.raises(ValueError, match='run_if of step \'both\' must be "all" or "any"'):
        step(both, run_if=wrong)


# ---- If and Switch --------------------------------------------------------------------------------------------------


def good() -> str:
    return "good"


def bad() -> str:
    return "bad"


def fails() -> None:
    raise OSError("a branch")


@pytest.mark.parametrize("accuracy", [0.95, 0.5])
def test_f6_if_runs_one_of_its_branches(executor: Any, accuracy: float) -> None:
    train = step(lambda: accuracy, name="train", outputs=["accuracy"])
    pipeline = Pipeline("f6").add_step(train)
    pipeline.add_control_flow(
        If(condition=lambda ctx: ctx.steps["train"].outputs["accuracy"] > 0.9, then_step=good, else_step=bad)
    )
    result = pipeline.run(executor=executor)
    ran, other = ("good", "bad") if accuracy > 0.9 else ("bad", "good")
    assert states(result) == {"train": "success", "if_1": "success", ran: "success", other: "skipped"}
    assert result["if_1"] is (accuracy > 0.9)
    assert result[ran] == ran


def test_f7_an_asset_is_an_item_of_the_context(executor: Any) -> None:
    pipeline = Pipeline("f7", context=context(limit=3)).add_step(lambda: 5, name="make", outputs="accuracy")
    pipeline.add_step(If(lambda ctx: ctx["accuracy"] > ctx["limit"] == ctx.params["limit"]).then(good).else_(bad))
    assert pipeline.run(executor=executor)["good"] == "good"
    assert pipeline.run(context={"limit": 7}, executor=executor).step_results["good"].skipped


@pytest.mark.parametrize(("value", "runs"), [("a", "good"), ("b", "bad"), (None, "both")])
def test_f8_switch_runs_the_case_of_its_value(executor: Any, value: Any, runs: str) -> None:
    pipeline = Pipeline("f8").add_step(lambda value: value, "read", {"value": value})
    pipeline.add_control_flow(Switch(lambda ctx: ctx["read"]).case("a", good).case("b", bad).default(both))
    result = pipeline.run(executor=executor)
    assert [name for name in ("good", "bad", "both") if result.step_results[name].success] == [runs]
    assert result["switch_1"] == value
    assert result.success


def test_f9_a_failing_branch_fails_the_run(executor: Any) -> None:
    result = Pipeline("f9").add_control_flow(If(lambda _: True, fails, good)).run(executor=executor)
    assert states(result) == {"if_1": "success", "fails": "failed", "good": "skipped"}
    assert not result.success


def test_f10_branches_can_be_read_and_joined(executor: Any) -> None:
    for answer in (True, False):
        pipeline = Pipeline("f10").add_step(lambda answer: answer, "ask", {"answer": answer})
        pipeline.add_control_flow(If(lambda ctx: ctx["ask"], good, bad))
        pipeline.add_step(lambda good: good, name="reads")
        pipeline.add_step(lambda either: either, "joins", inputs={"either": ["good", "bad"]}, run_if="any")
        result = pipeline.run(executor=executor)
        assert result["joins"] == ["good" if answer else "bad"]
        assert result.step_results["reads"].skipped is not answer


def test_a_decision_that_raises_fails_with_its_own_traceback(executor: Any) -> None:
    def broken_question(ctx: Any) -> bool:
        raise ArithmeticError(len(ctx.steps))

    pipeline = Pipeline("broken").add_step(good, "one").add_control_flow(If(broken_question, good, bad))
    result = pipeline.run(executor=executor)
    assert states(result) == {"one": "success", "if_1": "failed", "good": "upstream_failed", "bad": "upstream_failed"}
    assert isinstance(result.step_results["if_1"].exception, ArithmeticError)
    assert "in broken_question" in (result.step_results["if_1"].error or "")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda ctx: ctx.steps["late"].outputs, "step 'late' is not before this decision .*'one'"),
        (lambda ctx: ctx.steps["on"].outputs, "did you mean 'one'"),
        (lambda ctx: ctx["late"], "'late' is no output of the steps before this decision"),
        (lambda ctx: ctx.steps["one"].outputs["two"], "step 'one' has no output 'two'"),
        (lambda ctx: ctx["never"], "never has no value: it was skipped or failed"),
    ],
)
def test_reading_what_is_not_there_names_it(executor: Any, ask: Any, words: str) -> None:
    pipeline = Pipeline("reads").add_step(good, "one").add_step(never, condition=lambda: False)
    pipeline.add_control_flow(If(ask, good)).add_step(lambda: 1, name="late")
    result = pipeline.run(executor=executor)
    assert result.step_results["if_1"].state == "failed"
    with pytest.raises(LookupError if "never has" not in words else Exception, match=words):
        raise result.step_results["if_1"].exception


def test_after_says_what_a_decision_waits_for(executor: Any) -> None:
    pipeline = Pipeline("after").add_step(lambda: 1 // 0, name="broken").add_step(lambda: 2, name="two")
    pipeline.add_control_flow(
        If(lambda ctx: list(ctx.steps) == ["late"] and ctx["late"], good, after="late", name="gate")
    )
    pipeline.add_step(lambda: 3, name="late")
    result = pipeline.run(executor=executor)
    assert (result["gate"], result["good"]) == (True, "good")
    assert pipeline.dag is not None


def test_a_decision_sees_maps_several_outputs_and_keys(executor: Any) -> None:
    def ask(ctx: Any) -> Any:
        return [ctx["m"], ctx["x"], dict(ctx.steps["pair"].outputs), ctx.steps["metrics"].outputs["f1"], len(ctx.steps)]

    pipeline = Pipeline("sees").map(lambda x: [x], range(3), name="m", skip_if=lambda x: x == 1)
    pipeline.add_step(step(lambda: ([1], b"two"), outputs=["x", "y"]), "pair")
    pipeline.add_step(lambda: {"f1": 0.5}, name="metrics").add_control_flow(Switch(ask).case(0, good).default(bad))
    result = pipeline.run(executor=executor)
    assert result["switch_1"] == [[[0], [2]], [1], {"x": [1], "y": b"two"}, 0.5, 3]


def test_values_are_loaded_when_they_are_looked_at(executor: Any) -> None:
    pipeline = Pipeline("lazy").add_step(lambda: Grenade(), name="g").add_step(lambda: 1, name="one")  # noqa: PLW0108
    pipeline.add_control_flow(If(lambda ctx: ctx["one"] == 1, good))
    assert pipeline.run(executor=executor)["good"] == "good"


class Grenade:
    """Cannot be loaded."""

    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    raise MemoryError


def test_decisions_follow_each_other_and_skipped_branches_stop_none(executor: Any) -> None:
    pipeline = Pipeline("chain").add_step(lambda: 1, name="one")
    pipeline.add_steps([If(lambda ctx: ctx["one"] > 1, fails), If(lambda ctx: ctx["if_1"], good).else_(bad)])
    result = pipeline.run(executor=executor)
    assert states(result) == {
        "one": "success",
        "if_1": "success",
        "fails": "skipped",
        "if_2": "success",
        "good": "skipped",
        "bad": "success",
    }


def test_a_branch_may_read_join_and_have_a_condition_of_its_own(executor: Any) -> None:
    picky = step(lambda one: one + 1, name="picky", skip_if=lambda one: one > 1)
    joins = step(both, name="joins", run_if="any")
    pipeline = branches(a=False, b=True).add_step(lambda: 1, name="one")
    pipeline.add_control_flow(If(lambda _: True, picky, joins))
    pipeline.add_control_flow(If(lambda _: False, good, step(both, run_if="any")))
    result = pipeline.run(executor=executor)
    assert (result["picky"], result["both"]) == (2, ("a", "no b"))
    assert result.step_results["joins"].skipped


def test_wrong_branchings_are_refused() -> None:
    with pytest.raises(TypeError, match=r"the condition of If must be a function"):
        If(True, good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"If has .* already for the answer True"):
        If(bool, good).then(bad)
    with pytest.raises(ValueError, match="Switch has a case 1 already"):
        Switch(bool).case(1, good).case(1, bad)
    with pytest.raises(ValueError, match="must be an identifier"):
        If(bool, good, name="no name")
    pipeline = Pipeline("refused")
    with pytest.raises(ValueError, match="If has no branch"):
        pipeline.add_control_flow(If(bool))
    with pytest.raises(TypeError, match=r"add_control_flow\(\) takes an If or a Switch, got function"):
        pipeline.add_control_flow(good)
    with pytest.raises(TypeError, match="takes a name only"):
        pipeline.add_step(If(bool, good), params={"a": 1})
    with pytest.raises(PipelineValidationError, match="'bad' was added already"):
        pipeline.add_step(bad).add_step(If(bool, good, bad), "gate")
    with pytest.raises(PipelineValidationError, match="after='nothing' is no step"):
        Pipeline("after").add_control_flow(If(bool, good, after="nothing")).build()


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
