"""`If`, `Switch` and joins, on every executor: which branch runs, what a decision sees, who reads the branches.

The tests `test_f...` are the probes of the table of what 2.2.1 did, one each.
"""

from __future__ import annotations

from collections.abc import Iterator  # noqa: TC003  the hint is read
from typing import TYPE_CHECKING, Any

import pytest
from step_states import states

from flowyml import If, Pipeline, PipelineValidationError, StepNotRunError, Switch, context, map_task, step

if TYPE_CHECKING:
    from collections.abc import Callable


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("a skipped step's function was called")


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


def inverse(x: int) -> int:
    return 1 // x


def nothing() -> int:
    return 1 // 0


# How a step "m" of several items may end: without a value, with some of its items or with all of them.
LISTS: dict[str, tuple[Callable[[Pipeline], Pipeline], list[int] | None]] = {
    "an item failed": (lambda p: p.map(inverse, [1, 0], name="m"), None),
    "all items failed": (lambda p: p.map(inverse, [0, 0], name="m"), None),
    "an item was skipped": (lambda p: p.map(inverse, [1, 0], name="m", condition=bool), None),
    "all items were skipped": (lambda p: p.map(inverse, [0, 0], name="m", condition=bool), None),
    "its list failed": (lambda p: p.add_step(nothing).map(inverse, over="nothing", name="m"), None),
    "its list was skipped": (
        lambda p: p.add_step(nothing, skip_if=lambda: True).map(abs, over="nothing", name="m"),
        None,
    ),
    "its list is none": (lambda p: p.add_step(lambda: 3, "three").map(abs, over="three", name="m"), None),
    "it has no items": (lambda p: p.map(inverse, [], name="m"), []),
    "it has no items, which the run tells": (lambda p: p.add_step(list, "none").map(abs, over="none", name="m"), []),
    "all items succeeded": (lambda p: p.map(inverse, [1, 1], name="m"), [1, 1]),
    "enough items succeeded": (lambda p: p.map(map_task(inverse, min_success_ratio=0.5), [1, 0], name="m"), [1]),
    "too few items succeeded": (lambda p: p.map(map_task(inverse, min_success_ratio=0.8), [1, 0], name="m"), None),
    "an item failed and one was skipped": (
        lambda p: p.map(map_task(inverse, min_success_ratio=0.3), [1, 0, 2], name="m", skip_if=lambda x: x == 2),
        None,
    ),
}


@pytest.mark.parametrize("ended", LISTS)
def test_a_join_reads_a_map_as_it_reads_a_step(executor: Any, ended: str) -> None:
    """All of the list, without failures that a map task tolerates, or the parameter's default."""

    def streamed(m: Iterator[int] = iter(())) -> list[int]:  # noqa: B008
        return list(m)

    add, value = LISTS[ended]
    pipeline = add(Pipeline("lists").add_step(lambda: "other", name="other"))
    pipeline.add_step(lambda m="no m": m, "reads", run_if="any", after="other")
    pipeline.add_step(streamed, run_if="any", after="other")
    pipeline.add_step(lambda *m: m, "spreads", inputs=["other", "m"], run_if="any")
    pipeline.add_step(lambda both: both, "gathers", inputs={"both": ["m", "other"]}, run_if="any")
    pipeline.map(lambda x, m="no m": (x, m), [5], name="each", run_if="any", after="other")
    pipeline.add_step(lambda m="no m": m, "alone", run_if="any")

    result = pipeline.run(executor=executor)

    reads = "no m" if value is None else value
    assert (result["reads"], result["streamed"], list(result["each"])) == (reads, value or [], [(5, reads)])
    assert result["spreads"] == ("other", *(value or []))
    assert result["gathers"] == (["other"] if value is None else [value, "other"])
    assert result.get("alone", "no value") == ("no value" if value is None else value)


@pytest.mark.parametrize("ended", LISTS)
def test_a_decision_sees_a_map_as_it_sees_a_step(executor: Any, ended: str) -> None:
    add, value = LISTS[ended]
    pipeline = add(Pipeline("lists").add_step(lambda: "other", name="other"))
    chosen = If(lambda ctx: bool(ctx.steps["m"].outputs["m"]), step(name="full")(str), name="looks")
    pipeline.add_control_flow(chosen)
    pipeline.add_control_flow(If(lambda ctx: ctx["other"] == "other", step(name="here")(str), name="looks_elsewhere"))
    pipeline.add_step(lambda: 1, "guarded", run_if="any", after=["m", "other"], condition=lambda ctx: not ctx["m"])

    result = pipeline.run(executor=executor)

    assert result["looks_elsewhere"] is True
    if value is None:
        failed = result.step_results["looks"], result.step_results["guarded"]
        assert [(each.state, type(each.exception)) for each in failed] == [("failed", StepNotRunError)] * 2
        assert "m has no value: it was skipped or failed, or some of its items were" in str(failed[0].exception)
    else:
        assert result["looks"] is bool(value)
        assert result.step_results["guarded"].state == ("skipped" if value else "success")


def test_a_map_task_that_skipped_an_item_is_skipped_whatever_else_failed(executor: Any) -> None:
    add, _ = LISTS["an item failed and one was skipped"]
    assert states(add(Pipeline("lists")).run(executor=executor)) == {"m": "skipped"}


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

    pipeline = Pipeline("sees").map(lambda x: [x], range(3), name="m")
    pipeline.add_step(step(lambda: ([1], b"two"), outputs=["x", "y"]), "pair")
    pipeline.add_step(lambda: {"f1": 0.5}, name="metrics").add_control_flow(Switch(ask).case(0, good).default(bad))
    result = pipeline.run(executor=executor)
    assert result["switch_1"] == [[[0], [1], [2]], [1], {"x": [1], "y": b"two"}, 0.5, 3]


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


# ---- what a decision sees is no value --------------------------------------------------------------------------------

WHOLE = "the argument of this decision is not a value"
ONE = "step 'n', as a decision sees it, is not its value"
NO_VALUES = {
    "greater": (lambda ctx: ctx > 1, WHOLE),
    "equal": (lambda ctx: ctx == 3, WHOLE),
    "itself": (lambda ctx: ctx, WHOLE),
    "a sum": (lambda ctx: sum([ctx]), WHOLE),
    "an attribute": (lambda ctx: ctx.n, WHOLE),
    "all steps": (lambda ctx: ctx.steps > 1, WHOLE),
    "a step greater": (lambda ctx: ctx.steps["n"] > 1, ONE),
    "a step equal": (lambda ctx: ctx.steps["n"] == 3, ONE),
    "a step unequal": (lambda ctx: ctx.steps["n"] != 3, ONE),
    "a step itself": (lambda ctx: ctx.steps["n"], ONE),
    "a step's value": (lambda ctx: ctx.steps["n"].value, ONE),
    "its outputs": (lambda ctx: ctx.steps["n"].outputs > 1, ONE),
}


@pytest.mark.parametrize("kind", NO_VALUES)
def test_a_decision_that_uses_a_seen_step_as_a_value_fails_with_a_hint(executor, kind):
    """Equality and truth, too: they would take the same branch whatever the value is."""
    predicate, told = NO_VALUES[kind]
    pipeline = Pipeline("decisions").add_step(lambda: 3, name="n")
    pipeline.add_control_flow(If(predicate, step(never, name="yes"), step(never, name="no")))
    (failed,) = pipeline.run(executor=executor).failed
    assert type(failed.exception) in {TypeError, AttributeError}
    assert told in failed.error_line
    assert failed.error_line.endswith("write ctx['n'], or ctx.steps['n'].outputs['n']")
