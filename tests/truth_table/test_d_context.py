"""Probes D1 to D13, and the rows of section 1.5: the context."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest

from flowyml import Context, Pipeline, PipelineValidationError, context, get_context, step


def scale(rate: float = 0.5, epochs: int = 1) -> tuple[float, int]:
    return rate, epochs


def read(context: Mapping[str, Any]) -> dict[str, Any]:
    return dict(context)


def use(x: Any) -> Any:
    return x


def who() -> tuple[str, str, int]:
    here = get_context()
    here.logger.debug("asked")
    return here.run_id, here.step_name, here.attempt


def test_D1_precedence_is_params_upstream_inputs_run_context_context_default(executor: Any) -> None:
    def value(x: str = "default") -> str:
        return x

    def given(*names: str) -> str:
        pipeline = Pipeline("p", context={"x": "context"} if "context" in names else {})
        pipeline.add_step(value, params={"x": "params"} if "params" in names else None)
        if "upstream" in names:
            pipeline.add_step(lambda: "upstream", name="x")
        inputs, overlay = {} if "upstream" in names else {"x": "inputs"}, {"x": "run context"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is not used is told
            return pipeline.run(
                inputs if "inputs" in names else None,
                context=overlay if "run context" in names else None,
                executor=executor,
            )["value"]

    order = ["params", "upstream", "inputs", "run context", "context", "default"]
    assert [given(*order[k:]) for k in range(6)] == order


def test_D2_a_context_value_goes_before_the_default(executor: Any) -> None:
    pipeline = Pipeline("p", context=context(rate=0.1)).add_step(scale)
    assert pipeline.run(executor=executor)["scale"] == (0.1, 1)


def test_D3_the_context_of_a_run_is_for_that_run(executor: Any) -> None:
    pipeline = Pipeline("p", context=context(epochs=10)).add_step(scale)
    assert pipeline.run(context={"epochs": 20}, executor=executor)["scale"] == (0.5, 20)
    assert pipeline.run(executor=executor)["scale"] == (0.5, 10)
    assert pipeline.context.to_dict() == {"epochs": 10}


def test_D4_a_parameter_called_context_gets_all_of_it(executor: Any) -> None:
    pipeline = Pipeline("p", context=context(a=1)).add_step(read)
    assert pipeline.run(context={"b": 2}, executor=executor)["read"] == {"a": 1, "b": 2}
    named = Pipeline("p", context={"context": {"mine": 3}}).add_step(read)
    assert named.run(executor=executor)["read"] == {"mine": 3}


def test_D5_in_asks_for_a_name() -> None:
    assert "a" in context(a=1)
    assert "b" not in context(a=1)
    assert 0 not in context(a=1)


def test_D6_a_context_is_a_mapping_with_attributes() -> None:
    ctx = Context(a=1, b=2)
    assert isinstance(ctx, Mapping)
    assert (ctx["a"], ctx.a, ctx.get("c", 3), list(ctx), len(ctx)) == (1, 1, 3, ["a", "b"], 2)
    assert (list(ctx.keys()), list(ctx.items()), ctx.to_dict()) == (["a", "b"], [("a", 1), ("b", 2)], {"a": 1, "b": 2})
    ctx.update({"b": 5})
    assert ctx.inherit(c=6).to_dict() == {"a": 1, "b": 5, "c": 6}
    assert ctx.to_dict() == {"a": 1, "b": 5}


def test_D7_what_is_missing_is_told_in_the_documented_words_before_anything_runs() -> None:
    ran: list[int] = []

    def needs(required_param: int) -> int:
        return required_param

    pipeline = Pipeline("p").add_step(lambda: ran.append(1), name="first").add_step(needs)
    with pytest.raises(PipelineValidationError, match=r"Missing required parameters: \['required_param'\]"):
        pipeline.run()
    assert ran == []


def test_D8_D10_types_of_the_context_and_of_edges_are_compared_on_request() -> None:
    @step
    def a() -> str:
        return "text"

    @step
    def b(a: int, k: int = 0) -> int:
        return a + k

    pipeline = Pipeline("p", context={"k": "3"}, validate_types=True).add_steps([a, b])
    with pytest.raises(PipelineValidationError) as caught:
        pipeline.build()
    of_value, of_edge = caught.value.problems
    assert "the context gives str → step 'b' expects int" in of_value
    assert "Type mismatch on 'a': step 'a' outputs str" in of_edge
    assert "→ step 'b' expects int" in of_edge


def test_D9_get_context_tells_the_step_about_itself(executor: Any) -> None:
    result = Pipeline("p").add_step(who).run(executor=executor, run_id="mine")
    assert result["who"] == ("mine", "who", 1)


def test_D11_a_declared_input_may_come_from_run(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(use, inputs=["raw"])
    assert pipeline.run({"raw": 3}, executor=executor)["use"] == 3
    with pytest.raises(PipelineValidationError, match="requires undefined asset 'raw'"):
        pipeline.run()


def test_D12_a_run_input_reaches_the_parameter_of_its_name(executor: Any) -> None:
    assert Pipeline("p").add_step(use).run({"x": 3}, executor=executor)["use"] == 3


def test_D13_a_misspelled_key_is_told_once() -> None:
    def learn(learning_rate: float = 0.1) -> float:
        return learning_rate

    pipeline = Pipeline("p", context={"learn_rate": 0.2}).add_step(learn)
    with pytest.warns(UserWarning, match="'learn_rate' .* is used by no step.*did you mean 'learning_rate'"):
        pipeline.run()
    assert pipeline.run()["learn"] == 0.1
