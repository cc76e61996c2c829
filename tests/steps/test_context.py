"""Contexts: mappings with attribute access, and which values of them a step gets."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import pytest

from flowyml import Context, Pipeline, context


def rates(rate: float = 0.5) -> float:
    return rate


def whole(context: Any) -> dict[str, Any]:
    return dict(context)


# ---- the mapping ---------------------------------------------------------------------------------------------------


def test_context_makes_a_context() -> None:
    assert isinstance(context(a=1), Context)


def test_a_context_is_a_mapping() -> None:
    ctx = Context(b=1, a=2)
    assert isinstance(ctx, Mapping)
    assert (list(ctx), len(ctx), dict(ctx.items()), ctx.get("c", 3)) == (["b", "a"], 2, {"b": 1, "a": 2}, 3)


def test_values_are_attributes() -> None:
    assert Context(epochs=3).epochs == 3


@pytest.mark.parametrize("name", ["self", "values", "keys", "items", "update", "name"])
def test_any_name_can_be_a_value(name: str) -> None:
    assert Context(**{name: 1})[name] == 1
    assert Context().inherit(**{name: 1})[name] == 1
    assert pickle.loads(pickle.dumps(Context(**{name: 1})))[name] == 1


def test_a_missing_name_is_a_key_error_with_a_near_match() -> None:
    with pytest.raises(KeyError, match="no value 'epoch'; did you mean 'epochs'"):
        Context(epochs=1)["epoch"]


def test_a_missing_attribute_is_an_attribute_error_with_a_near_match() -> None:
    with pytest.raises(AttributeError, match="did you mean 'epochs'"):
        _ = Context(epochs=1).epoch
    assert not hasattr(Context(), "__array__")


def test_in_tells_whether_there_is_a_value() -> None:
    assert "a" in Context(a=None)
    assert "b" not in Context(a=None)


def test_update_changes_a_context() -> None:
    ctx = Context(a=1)
    ctx.update({"b": 2}, c=3)
    assert ctx.to_dict() == {"a": 1, "b": 2, "c": 3}


def test_inherit_leaves_the_context_as_it_is() -> None:
    ctx = Context(a=1)
    assert ctx.inherit(a=2, b=3).to_dict() == {"a": 2, "b": 3}
    assert ctx.to_dict() == {"a": 1}


def test_to_dict_is_a_copy() -> None:
    ctx = Context(a=1)
    ctx.to_dict()["a"] = 2
    assert ctx.a == 1


def test_contexts_compare_as_mappings() -> None:
    assert Context(a=1) == {"a": 1}
    assert Context(a=1) != Context(a=2)


def test_the_repr_can_be_evaluated() -> None:
    assert eval(repr(Context(a=1, b="x")), {"Context": Context}) == Context(a=1, b="x")


# ---- in pipelines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [Context(rate=0.1), {"rate": 0.1}])
def test_a_step_takes_a_value_by_parameter_name(given: Any) -> None:
    assert Pipeline("p", context=given).add_step(rates).run()["rates"] == 0.1


def test_without_a_value_the_default_holds() -> None:
    assert Pipeline("p", context={}).add_step(rates).run()["rates"] == 0.5


def test_a_context_for_one_run_does_not_stay() -> None:
    pipeline = Pipeline("p", context={"rate": 0.1}).add_step(rates)
    assert pipeline.run(context={"rate": 0.9})["rates"] == 0.9
    assert pipeline.run()["rates"] == 0.1


def test_a_later_update_of_the_context_counts() -> None:
    ctx = Context(rate=0.1)
    pipeline = Pipeline("p", context=ctx).add_step(rates)
    ctx.update(rate=0.2)
    assert pipeline.run()["rates"] == 0.2


def test_a_parameter_called_context_gets_all_of_it() -> None:
    pipeline = Pipeline("p", context={"a": 1, "b": 2}).add_step(whole)
    assert pipeline.run(context={"b": 3})["whole"] == {"a": 1, "b": 3}


def test_a_value_called_context_goes_before_the_whole_context() -> None:
    assert Pipeline("p", context={"context": {"own": 1}}).add_step(whole).run()["whole"] == {"own": 1}


def test_a_default_of_a_parameter_called_context_stays() -> None:
    def own(context: Any = "mine") -> Any:
        return context

    assert Pipeline("p", context={"a": 1}).add_step(own).run()["own"] == "mine"


# ---- names that no step takes --------------------------------------------------------------------------------------


def test_a_misspelled_context_value_is_warned_of_once() -> None:
    pipeline = Pipeline("p", context={"raet": 0.1}).add_step(rates)
    with pytest.warns(UserWarning, match="'raet' of Pipeline.*used by no step.*did you mean 'rate'") as caught:
        pipeline.run()
    assert (len(caught), caught[0].filename) == (1, __file__)
    pipeline.run()


def test_a_context_value_that_other_pipelines_use_is_not_warned_of() -> None:
    Pipeline("p", context={"something_else": 1}).add_step(rates).run()


@pytest.mark.parametrize("where", ["context", "inputs"])
def test_a_value_for_this_run_that_no_step_takes_is_warned_of(where: str) -> None:
    with pytest.warns(UserWarning, match=rf"'zzz' of run\({where}=\) is used by no step"):
        Pipeline("p").add_step(rates).run(**{where: {"zzz": 1}})


@pytest.mark.parametrize("where", ["context", "inputs"])
def test_a_value_for_this_run_that_params_override_is_told_so(where: str) -> None:
    pipeline = Pipeline("p").add_step(rates, params={"rate": 0.1})
    with pytest.warns(
        UserWarning, match=rf"'rate' of run\({where}=\) reaches no step of pipeline 'p': params, inputs and outputs"
    ):
        assert pipeline.run(**{where: {"rate": 0.9}})["rates"] == 0.1


def test_a_step_that_takes_the_whole_context_uses_all_of_it() -> None:
    Pipeline("p", context={"a": 1}).add_step(whole).run(context={"b": 2})


def test_a_value_taken_by_one_of_several_alike_steps_is_used() -> None:
    pipeline = Pipeline("p")
    for name in ("rate", "other"):
        pipeline.add_step(rates, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pipeline.run(context={"rate": 0.25})["rate"] == 0.25
