"""Names that are nearly right: a parameter that keeps its default, a step that was defined and not added."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from flowyml import Pipeline, PipelineValidationError, step


def use(data: int, treshold: float = 0.5) -> float:
    return data * treshold


def threshold() -> float:
    return 0.7


def test_a_default_in_place_of_a_misspelled_step_is_one_warning() -> None:
    pipeline = Pipeline("p").add_step(threshold).add_step(use, params={"data": 1})
    with pytest.warns(
        UserWarning, match="step 'use' of pipeline 'p' keeps the default of 'treshold', and no step reads "
    ):
        pipeline.run()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline.run()


def reads(threshold: float) -> float:
    return threshold


QUIET: dict[str, Any] = {
    "a step that is read": lambda p: p.add_step(threshold).add_step(use, params={"data": 1}).add_step(reads),
    "a parameter that is given": lambda p: p.add_step(threshold).add_step(use, params={"data": 1, "treshold": 1}),
    "a parameter that is wired": lambda p: p.add_step(threshold).add_step(
        use, params={"data": 1}, inputs={"treshold": "threshold"}
    ),
    "a plural": lambda p: p.add_step(lambda: 1, "plots").add_step(lambda plot=True: plot, "draw"),
    "another number": lambda p: p.add_step(lambda: 1, "parameter1").add_step(lambda parameter2=1: parameter2, "b"),
    "another word": lambda p: p.add_step(lambda: 1, "model").add_step(lambda mode=1: mode, "b"),
    "its own name": lambda p: p.add_step(lambda treshold=1: treshold, "threshold"),
}


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.filterwarnings("error")
def test_no_warning_for(name: str) -> None:
    assert QUIET[name](Pipeline("p")).run().success


def test_a_step_that_was_defined_and_not_added_is_named() -> None:
    @step
    def purified(rows: list[int]) -> list[int]:
        return rows

    @step(outputs=["left_half", "right_half"])
    def halved() -> tuple[int, int]:
        return 1, 2

    pipeline = Pipeline("p").add_step(lambda purified: purified, "reads")
    pipeline.add_step(lambda x: x, "declares", inputs=["right_half"])
    with pytest.raises(PipelineValidationError) as caught:
        pipeline.run()
    told = str(caught.value)
    assert "['purified']; step 'purified', which produces it, is defined (" in told
    assert "test_near_names.py:" in told
    assert "and was not added: add_step(purified)" in told
    assert "'right_half'; step 'halved', which produces it, is defined" in told
    assert halved is not None


def test_a_step_that_was_added_under_another_name_is_not_named() -> None:
    @step
    def purified() -> int:
        return 1

    pipeline = Pipeline("p").add_step(purified, "pure").add_step(lambda purified: purified, "reads")
    with pytest.raises(PipelineValidationError) as caught:
        pipeline.run()
    assert "was not added" not in str(caught.value)
