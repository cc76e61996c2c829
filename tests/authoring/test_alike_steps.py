"""Steps that one line adds share what was decided about the first of them; each still gets its own arguments."""

from __future__ import annotations

from typing import Any

import pytest

from flowyml import Executor, If, Pipeline, step
from flowyml.errors import PipelineValidationError
from flowyml.planning.decision_binding import DecisionBinder


def pair(left: Any, right: Any) -> tuple[Any, Any]:
    return left, right


def keywords(**given: Any) -> dict[str, Any]:
    return given


@step(inputs=["s0"])
def declared(value: str = "default") -> str:
    return value


def two_sources() -> Pipeline:
    return Pipeline("alike").add_step(lambda: "s0", name="s0").add_step(lambda: "s1", name="s1")


def test_steps_of_one_line_may_read_steps_and_run_inputs_in_any_mix(executor: Executor) -> None:
    reads = {"a": ["s0", "d0"], "b": ["s0", "s1"], "c": ["s1", "d1"], "d": ["d1", "s0"], "e": ["d0", "d1"]}
    pipeline = two_sources()
    for name, inputs in reads.items():
        pipeline.add_step(pair, name=name, inputs=inputs)
    result = pipeline.run({"d0": "d0", "d1": "d1"}, executor=executor)
    assert {name: result[name] for name in reads} == {name: tuple(inputs) for name, inputs in reads.items()}


def test_assets_that_become_keyword_arguments_keep_their_own_names() -> None:
    pipeline = two_sources()
    for name in ("s0", "s1"):
        pipeline.add_step(keywords, name=f"of_{name}", inputs=[name])
    result = pipeline.run()
    assert (result["of_s0"], result["of_s1"]) == ({"s0": "s0"}, {"s1": "s1"})


@pytest.mark.parametrize("none", [{}, []], ids=["mapping", "list"])
def test_no_inputs_on_purpose_differ_from_inputs_that_were_not_given(none: Any) -> None:
    pipeline = two_sources()
    for name, inputs in {"own": None, "none": none, "own_again": None}.items():
        pipeline.add_step(declared, name=name, inputs=inputs)
    result = pipeline.run()
    assert [result[name] for name in ("own", "none", "own_again")] == ["s0", "default", "s0"]


def test_a_wrong_mapping_is_refused_also_behind_an_empty_list() -> None:
    def added(*each: Any) -> Pipeline:
        pipeline = Pipeline("alike")
        for number, inputs in enumerate(each):
            pipeline.add_step(declared, name=f"step{number}", inputs=inputs)
        return pipeline

    with pytest.raises(TypeError, match="parameter names as keys"):
        added([], {None: "s0"})


def test_a_middle_pipeline_context_goes_before_steps_around_it_for_each_step_of_a_line() -> None:
    inner = Pipeline("inner")
    for name, asset in {"a": "y", "b": "x"}.items():
        inner.add_step(pair, name=name, params={"right": 0}, inputs=[asset])
    middle = Pipeline("middle", context={"x": "middle"}).add_sub_pipeline(inner)
    root = Pipeline("root").add_step(lambda: "step x", name="x").add_step(lambda: "step y", name="y")
    result = root.add_sub_pipeline(middle).run()
    assert (result["middle.inner.a"], result["middle.inner.b"]) == (("step y", 0), ("middle", 0))


def test_a_list_in_a_sub_pipeline_reads_what_it_was_given_and_no_run_input_of_that_name() -> None:
    inner = Pipeline("inner").add_step(declared.func, name="listed", inputs={"value": ["x"]})
    root = Pipeline("root").add_step(lambda: "step y", name="y").add_sub_pipeline(inner, inputs={"x": "y"})
    root.add_step(pair, name="other", params={"right": 0}, inputs=["x"])
    assert root.run({"x": "of the run"})["inner.listed"] == ["step y"]


def test_steps_of_a_line_wait_for_after_of_their_sub_pipeline_as_each_would_alone() -> None:
    inner = Pipeline("inner").add_step(lambda: 1, name="own")
    for name, asset in {"a": "around", "b": "own", "c": "around"}.items():
        inner.add_step(pair, name=name, params={"right": 0}, inputs=[asset])
    root = Pipeline("root").add_step(lambda: 2, name="around").add_step(lambda: 3, name="first")
    dag = root.add_sub_pipeline(inner, after="first").dag
    assert dag.edges["inner.a"] == dag.edges["inner.c"] == {"around", "first"}
    assert dag.edges["inner.b"] == {"inner.own"}
    assert dag.edges["inner.own"] == {"first"}


def test_a_declared_input_that_the_run_gives_is_no_step_of_the_parameter_name_before_that() -> None:
    pipeline = two_sources().add_step(pair, name="read", inputs={"left": "s0", "right": "d0"})
    pipeline.add_step(lambda: "right", name="right")
    assert pipeline.dag.edges["read"] == {"s0"}
    sources = {argument.parameter: argument.source for argument in pipeline.explain("read").arguments}
    assert sources["right"] == "asset 'd0', which no step produces"
    assert pipeline.run({"d0": "d0"})["read"] == ("s0", "d0")


def test_inputs_keep_their_places_while_one_of_them_is_only_known_to_the_run() -> None:
    def func(a: Any, b: Any, *, c: Any) -> tuple[Any, ...]:
        return a, b, c

    pipeline = two_sources().add_step(func, name="read", inputs=["s0", "b", "s*"])
    assert {each.parameter: each.assets for each in pipeline.explain("read").arguments}["c"] == ("s0", "s1")
    assert pipeline.run({"b": "b"})["read"] == ("s0", "b", ["s0", "s1"])


def test_a_plan_whose_fast_path_differs_from_the_plain_binder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, reads: Any) -> Any:
        return self.references, self.producers

    monkeypatch.setattr("flowyml.planning.binding.BindingResult.with_reads", wrong)
    monkeypatch.setenv("FLOWYML_VERIFY_FAST_PATHS", "1")
    pipeline = two_sources()
    for name, inputs in {"a": ["s0", "s1"], "b": ["s1", "s0"]}.items():
        pipeline.add_step(pair, name=name, inputs=inputs)
    with pytest.raises(AssertionError, match=r"step 'b' .* has other references on the fast path"):
        pipeline.build()
    monkeypatch.delenv("FLOWYML_VERIFY_FAST_PATHS")
    pipeline.build()


def test_decisions_one_after_the_other_share_what_is_known_of_the_steps_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[int] = []
    before = DecisionBinder._visible_step

    def counted(self: DecisionBinder, node: int) -> Any:
        looked_at.append(node)
        return before(self, node)

    monkeypatch.delenv("FLOWYML_VERIFY_FAST_PATHS", raising=False)  # it wires each step once more
    monkeypatch.setattr(DecisionBinder, "_visible_step", counted)
    pipeline = Pipeline("decisions").add_step(lambda: 1, name="first")
    for number in range(20):
        last = f"branch_{number - 1}" if number else "first"
        chosen = step(name=f"branch_{number}")(lambda: 1)
        pipeline.add_control_flow(If(lambda ctx, last=last: ctx[last] == 1, then_step=chosen))
    assert pipeline.run().success
    assert sorted(looked_at) == list(range(39))  # all but the last decision and its branch, once each


def test_an_unknown_step_in_after_is_reported_also_next_to_a_sub_pipeline() -> None:
    inner = Pipeline("inner").add_step(lambda: 1, name="a").add_step(lambda: 1, name="b")
    pipeline = Pipeline("after").add_sub_pipeline(inner).add_step(lambda: 1, name="last", after=["inner", "nothing"])
    with pytest.raises(PipelineValidationError, match="after='nothing' is no step"):
        pipeline.build()


@pytest.mark.parametrize("more", [{}, {"right": 2}], ids=["alone", "among others"])
def test_what_can_be_read_only_once_is_refused_for_each_step_of_a_line(more: dict[str, Any]) -> None:
    pipeline = two_sources()
    for name, value in {"a": [1], "b": (each for each in "xy")}.items():
        pipeline.add_step(pair, name=name, params={"left": value, **more}, inputs=None if more else ["s0"])
    with pytest.raises(PipelineValidationError, match=r"Node 'b' .*generator"):
        pipeline.build()
