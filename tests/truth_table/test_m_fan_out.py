"""Probes M1 to M3, and the rows of section 1.12: fan-out and nesting."""

from __future__ import annotations

from typing import Any

from flowyml import Pipeline, dynamic, map_task, step


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


@dynamic
def search(rates: list[int]) -> Pipeline:
    tries = Pipeline("tries")
    for rate in rates:
        tries.add_step(double, name=f"at_{rate}", params={"x": rate})
    return tries.add_step(lambda *found: max(found), name="best", inputs=["at_*"])


def test_M2_what_a_dynamic_step_returns_is_expanded(executor: Any) -> None:
    result = (
        Pipeline("p").add_step(search).add_step(double, inputs=["search"]).run({"rates": [1, 3]}, executor=executor)
    )
    assert list(result.step_results) == ["search", "search.at_1", "search.at_3", "search.best", "double"]
    assert (result["search"], result["double"]) == (6, 12)


@dynamic(outputs=["best_model"])
def hyperparameter_search(config: dict[str, list[float]]) -> Pipeline:
    sub = Pipeline("hp_search")
    for lr in config["learning_rates"]:

        @step(outputs=[f"model_{lr}"])
        def train(learning_rate: float = lr) -> float:
            return learning_rate * 2

        sub.add_step(train, name=f"train_{lr}")
    return sub


def test_M2_a_dynamic_step_of_2_x_gives_all_its_values(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(hyperparameter_search).add_step(max, inputs=["best_model"])
    result = pipeline.run({"config": {"learning_rates": [0.1, 0.2]}}, executor=executor)
    assert result["best_model"] == {"model_0.1": 0.2, "model_0.2": 0.4}
    assert result["max"] == "model_0.2"


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
