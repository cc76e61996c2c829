"""Steps that one line adds share what was decided about the first of them; each still gets its own arguments."""

from __future__ import annotations

from typing import Any

import pytest

from flowyml import Executor, Pipeline, step


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
