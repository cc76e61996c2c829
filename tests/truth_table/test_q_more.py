"""Probes Q1 to Q13: what else 2.2.1 does that a user would not expect."""

from __future__ import annotations

from typing import Any

import pytest

from flowyml import ParallelExecutor, Pipeline, step


@step
def add(x: int, y: int = 1) -> int:
    return x + y


@step(outputs=["data", "quality_score"])
def load_data() -> tuple[list[int], float]:
    return [1], 0.85


@step(outputs=["cleaned", "score"])
def clean(data: list[int]) -> dict[str, Any]:
    return {"cleaned": data, "score": 0.92}


class OddError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"{value} is odd")
        self.value = value


def halve(value: int) -> int:
    if value % 2:
        raise OddError(value)
    return value // 2


def generate() -> Any:
    yield 1


def test_Q1_a_step_runs_in_a_worker_process(executor: Any) -> None:
    assert Pipeline("p").add_step(add, params={"x": 1}).run(executor=executor)["add"] == 2


def test_Q2_lambdas_and_closures_run_in_a_worker_process(executor: Any) -> None:
    factor = 3
    pipeline = Pipeline("p").add_step(lambda x: x * factor, name="times", params={"x": 2})
    assert pipeline.run(executor=executor)["times"] == 6


def test_Q3_a_condition_sees_the_asset_that_it_names(executor: Any) -> None:
    seen = Pipeline("p").add_steps([load_data, clean])
    seen.add_step(add, params={"x": 1}, condition=lambda score: score > 0.9)
    seen.add_step(add, name="other", params={"x": 1}, condition=lambda quality_score: quality_score > 0.9)
    result = seen.run(executor=executor)
    assert [str(result.step_results[name].state) for name in ("add", "other")] == ["success", "skipped"]


def test_Q6_a_failure_in_a_group_costs_its_dependents_only(executor: Any) -> None:
    with pytest.warns(UserWarning, match="ignores execution_group"):
        grouped = step(execution_group="g")(halve)
    pipeline = Pipeline("p").add_step(grouped, name="bad", params={"value": 3})
    pipeline.add_step(grouped, name="good", params={"value": 4}).add_step(add, inputs={"x": "bad"})
    states = {name: str(done.state) for name, done in pipeline.run(executor=executor).step_results.items()}
    assert states == {"bad": "failed", "good": "success", "add": "upstream_failed"}


def test_Q7_wrong_signatures_are_told_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="unknown parameter 'z' in params"):
        Pipeline("p").add_step(add, params={"z": 1}).build()


def test_Q11_a_generator_function_is_an_error_with_advice() -> None:
    with pytest.raises(TypeError, match=r"is a generator function, .*; return list\(\.\.\.\) of it"):
        step(generate)


def test_Q12_the_exception_is_the_object_with_the_workers_traceback(executor: Any) -> None:
    done = Pipeline("p").add_step(halve, params={"value": 3}).run(executor=executor).step_results["halve"]
    assert isinstance(done.exception, OddError)
    assert done.exception.value == 3
    assert "3 is odd" in str(done.error)
    if isinstance(executor, ParallelExecutor) and executor.backend == "process":
        assert "halve" in str(done.exception.__cause__)
    else:
        assert done.exception.__traceback__ is not None


def test_Q13_outputs_have_one_name_each(executor: Any) -> None:
    result = Pipeline("p").add_steps([load_data, clean]).run(executor=executor)
    assert list(result.outputs) == ["data", "quality_score", "cleaned", "score"]
    assert result["load_data"] == ([1], 0.85)
