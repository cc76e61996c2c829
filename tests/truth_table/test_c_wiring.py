"""Probes C1 to C8, and the rows of section 1.4: how values reach parameters."""

from __future__ import annotations

from typing import Any

import pytest

from flowyml import Pipeline, PipelineValidationError, step


@step(outputs=["data/raw"])
def fetch() -> list[int]:
    return [1, 2]


@step(inputs=["data/raw"])
def clean(data: list[int]) -> list[int]:
    return [2 * row for row in data]


def load() -> int:
    return 20


def use(load: int) -> int:
    return load + 1


def two(first: Any, second: Any) -> tuple[Any, Any]:
    return first, second


def test_C1_an_input_that_is_no_parameter_fills_the_next_free_one(executor: Any) -> None:
    assert Pipeline("p").add_step(fetch).add_step(clean).run(executor=executor)["clean"] == [2, 4]


@pytest.mark.parametrize("order", [[load, use], [use, load]], ids=["c2_in_order", "c3_reversed"])
def test_C2_C3_a_parameter_that_is_another_steps_output_is_an_edge(order: Any, executor: Any) -> None:
    pipeline = Pipeline("p").add_steps(order)
    assert pipeline.dag.edges["use"] == {"load"}
    assert pipeline.run(executor=executor)["use"] == 21


def test_C4_C8_a_step_without_outputs_is_read_by_its_name(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(load).add_step(two, inputs=["load", "fetch"]).add_step(fetch.func)
    assert pipeline.run(executor=executor)["two"] == (20, [1, 2])


def test_C5_an_input_that_is_left_over_is_an_error() -> None:
    with pytest.raises(PipelineValidationError, match="no parameter is left for input 'data/raw'"):
        Pipeline("p").add_step(load).add_step(fetch).add_step(use, inputs=["load", "data/raw"]).build()


def test_C5_names_go_first_then_the_others_left_to_right(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(load).add_step(load, name="second").add_step(load, name="other")
    pipeline.add_step(two, inputs=["other", "second"])
    assert pipeline.explain("two").arguments[0].assets == ("other",)
    assert pipeline.run(executor=executor)["two"] == (20, 20)


def test_C6_a_value_by_step_name_waits_for_its_step() -> None:
    assert Pipeline("p").add_step(use).add_step(load).dag.topological_sort()[0].name == "load"


def test_C7_a_pipeline_that_says_nothing_is_told_what_is_missing() -> None:
    def extract() -> int:
        return 1

    def validate(readings: int) -> int:
        return readings

    with pytest.raises(PipelineValidationError, match=r"\['readings'\]; give params, inputs=\['extract'\], run"):
        Pipeline("golden").add_steps([extract, validate]).run()


def test_c_row_order_without_data(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(load, after=["fetch"]).add_step(fetch)
    assert pipeline.dag.edges["load"] == {"fetch"}
    assert pipeline.run(executor=executor).success


def test_c_row_fan_in_of_many_steps_by_glob_list_rest_and_map(executor: Any) -> None:
    def several(*values: int) -> int:
        return sum(values)

    pipeline = Pipeline("p")
    for k in range(3):
        pipeline.add_step(abs, name=f"part_{k}", params={"x": -k})
    pipeline.map(abs, [-1, -2, -3], name="mapped")
    pipeline.add_step(sum, name="glob", inputs=["part_*"]).add_step(sum, name="map", inputs=["mapped"])
    pipeline.add_step(several, name="rest", inputs=["part_*"])
    pipeline.add_step(two, inputs={"first": ["part_1", "part_2"], "second": "part_0"})
    result = pipeline.run(executor=executor)
    assert [result[name] for name in ("glob", "map", "rest", "two")] == [3, 6, 3, ([1, 2], 0)]


def test_c_row_two_producers_of_one_asset_are_an_error() -> None:
    with pytest.raises(PipelineValidationError, match=r"Multiple nodes produce asset 'data/raw': 'fetch' .*'again'"):
        Pipeline("p").add_step(fetch).add_step(fetch, name="again").build()
