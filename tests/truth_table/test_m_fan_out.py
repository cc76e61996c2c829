"""Probes M1 to M3, and the rows of section 1.12: fan-out and nesting."""

from __future__ import annotations

from typing import Any

from flowyml import Pipeline, map_task


def double(x: int) -> int:
    return 2 * x


def numbers() -> list[int]:
    return [1, 2, 3]


def test_M1_a_map_calls_its_function_for_each_item(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(numbers).map(double, over="numbers").add_step(sum, inputs=["double"])
    result = pipeline.map(double, [4, 5], name="given").run(executor=executor)
    assert (list(result["double"]), result["sum"], list(result["given"])) == ([2, 4, 6], 12, [8, 10])


@map_task(concurrency=2, retries=1, retry_delay=0.0, min_success_ratio=0.5, timeout_per_item=60)
def halve(x: int) -> int:
    if x % 2:
        raise ValueError(x)
    return x // 2


def test_M1_a_map_task_calls_its_function_for_each_item_of_its_input(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(lambda: [2, 3, 4], name="x").add_step(halve).add_step(sum, inputs=["halve"])
    result = pipeline.run(executor=executor)
    done = result["halve"]
    assert (result["sum"], list(done), done.results) == (3, [1, 2], [1, None, 2])
    assert (done.successes, done.failures, done.total, list(done.errors)) == (2, 1, 3, [1])
    assert done.success_ratio == 2 / 3


def test_M1_a_map_task_is_called_with_a_list() -> None:
    assert list(halve([2, 4])) == [1, 2]


def test_M3_the_steps_of_a_sub_pipeline_are_steps_of_the_whole(executor: Any) -> None:
    child = Pipeline("child").add_step(lambda raw: [2 * row for row in raw], name="clean")
    pipeline = (
        Pipeline("p").add_step(numbers, outputs=["raw"]).add_sub_pipeline(child, inputs=["raw"], outputs=["clean"])
    )
    result = pipeline.add_step(sum, inputs=["clean"]).run(executor=executor)
    assert (list(result.step_results), result["sum"]) == (["numbers", "child.clean", "sum"], 12)


def test_M3_the_names_of_2_x_map_inputs_and_outputs(executor: Any) -> None:
    child = Pipeline("child").add_step(sum, name="total", inputs=["rows"])
    pipeline = Pipeline("p").add_step(numbers)
    pipeline.add_sub_pipeline(child, input_mapping={"numbers": "rows"}, output_mapping={"total": "answer"})
    assert pipeline.add_step(double, inputs=["answer"]).run(executor=executor)["double"] == 12
