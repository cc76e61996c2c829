"""Probes E1 to E6: one step, several outputs."""

from __future__ import annotations

from typing import Any

import pytest

from flowyml import OutputMismatchError, Pipeline


def give(value: Any) -> Any:
    return value


def use(a: Any) -> Any:
    return [a]


def producing(value: Any, *outputs: str) -> Pipeline:
    return Pipeline("p").add_step(give, params={"value": value}, outputs=list(outputs))


@pytest.mark.parametrize("value", [(1, 2), [1, 2], {"b": 2, "a": 1}], ids=["e1_tuple", "e4_list", "dict"])
def test_E1_E4_two_outputs_are_taken_apart(value: Any, executor: Any) -> None:
    result = producing(value, "a", "b").add_step(use).run(executor=executor)
    assert dict(result.outputs) == {"a": 1, "b": 2, "use": [1]}
    assert result["give"] == value


@pytest.mark.parametrize("value", [{"a": 1}, {"a": 1, "b": 2, "c": 3}])
def test_E2_a_dict_with_other_keys_fails_the_step(value: Any, executor: Any) -> None:
    done = producing(value, "a", "b").run(executor=executor).step_results["give"]
    assert isinstance(done.exception, OutputMismatchError)


@pytest.mark.parametrize("value", [(1, 2, 3), [1], 7, None])
def test_E3_a_wrong_number_of_outputs_fails_the_step_and_gives_both(value: Any, executor: Any) -> None:
    result = producing(value, "a", "b").add_step(use).run(executor=executor)
    done = result.step_results["give"]
    assert isinstance(done.exception, OutputMismatchError)
    assert "step 'give' declared 2 outputs ['a', 'b'] but returned" in str(done.error)
    assert result.step_results["use"].state == "upstream_failed"


def test_E3_one_output_is_never_taken_apart(executor: Any) -> None:
    assert producing((1, 2), "a").run(executor=executor)["a"] == (1, 2)


def test_E5_none_is_a_value(executor: Any) -> None:
    result = producing(None, "a").add_step(use).run(executor=executor)
    assert (result["a"], result["use"]) == (None, [None])


def test_E6_a_step_without_outputs_is_an_asset_and_a_missing_name_a_key_error(executor: Any) -> None:
    result = producing(3).run(executor=executor)
    assert (result["give"], result.outputs["give"]) == (3, 3)
    with pytest.raises(KeyError, match=r"'gvie'.*did you mean 'give'"):
        result["gvie"]
    assert result.outputs.get("gvie") is None
