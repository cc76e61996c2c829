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

import pytest
from step_states import states

from flowyml import Pipeline, PipelineValidationError, context, retry, step, unless, when


def add(a: int, b: int = 3) -> int:
    return a + b


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("a skipped step's function was called")


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
    assert "/steps/conditions.py" not in (failed.error or "")


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
