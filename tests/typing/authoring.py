"""What a type checker sees of the public names: read by mypy and pyright in `make lint`, never run.

`assert_type` fails the lint where an inferred type is not the one written down here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, assert_type

from flowyml import (
    CircuitBreaker,
    File,
    MapTaskResult,
    Pipeline,
    PipelineResult,
    Step,
    StepResult,
    StepState,
    dynamic,
    map_task,
    on_failure,
    parallel_map,
    retry,
    step,
    sub_pipeline,
)


@step
def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


@step(name="half", outputs=["halved"])
def halve(number: int) -> float:
    """Return half the number."""
    return number / 2


def check_steps_keep_their_signature() -> None:
    """A step is called as its function is."""
    assert_type(double(2), int)
    assert_type(halve(number=2), float)
    bare: Step[[int], int] = double


@dynamic
def expand(count: int) -> Pipeline:
    """Return further steps."""
    return Pipeline("steps").map(double, range(count))


@dynamic(name="other", outputs=["double"], retry=2)
def expand_again(count: int) -> Pipeline:
    """Return further steps."""
    return expand(count)


def check_pipelines_in_pipelines() -> None:
    """A dynamic step is called as its function is; a sub-pipeline is added like a step."""
    assert_type(expand(2), Pipeline)
    other: Step[[int], Pipeline] = expand_again
    whole = Pipeline("whole").add_step(expand, params={"count": 2}).add_step(sub_pipeline(expand(2), name="part"))
    assert_type(whole.add_sub_pipeline(expand(3), inputs={"a": "b"}, outputs=["double"], after="part"), Pipeline)


@step
@retry(max_attempts=3)
@on_failure(lambda: 0)
@CircuitBreaker(failure_threshold=5)
def fetch(page: str) -> int:
    """Return the length of a page."""
    return len(page)


def check_decorators_keep_signatures() -> None:
    """What stands below `@step` changes nothing in what a type checker sees."""
    assert_type(fetch("a"), int)
    assert_type(CircuitBreaker().call(len, "abc"), int)


def check_hooks() -> None:
    """Registering a hook gives the function back."""
    pipeline = Pipeline("typed")

    @pipeline.hooks.on_step_end
    def tell(one: Step[..., object], result: StepResult) -> str:
        return f"{one.name}: {result.state}"

    told: str = tell(fetch, Pipeline("typed").run().step_results["fetch"])
    pipeline.hooks.on_pipeline_start(lambda: None)  # type: ignore[type-var]


def check_authoring_chains() -> None:
    """What adds a step returns the pipeline; a run returns its result."""
    pipeline = Pipeline("typed").add_step(double, params={"number": 1})
    assert_type(pipeline, Pipeline)
    assert_type(pipeline.run(), PipelineResult)
    assert_type(pipeline.run(targets=["double", "tag:nightly"]), PipelineResult)
    assert_type(pipeline.run(given={"double": 4}), PipelineResult)
    assert_type(pipeline.dry_run(targets="double"), PipelineResult)
    assert_type(pipeline.steps[0].tags["team"], Any)
    Pipeline("typed", validate_types="warn")
    Pipeline("typed", validate_types="strict")  # type: ignore[arg-type]


@map_task(concurrency=4)
def parsed(text: str) -> int:
    """Return a number."""
    return int(text)


def check_fan_out() -> None:
    """A map runs over names, steps and lists; a map task called directly gives a result of its function's type."""
    pipeline = Pipeline("typed").add_step(double).map(parsed, over="double").map(halve, over=[double, [1, 2]])
    assert_type(pipeline.map(halve, over={"number": pipeline["double"]}, combine="product"), Pipeline)
    pipeline.add_step(parsed, inputs=[double], after=pipeline["double"]).map(halve, range(3))
    assert_type(parsed(["1", "2"]), MapTaskResult[int])
    assert_type(parsed(["1"])[0], int)
    assert_type(parsed(["1"]).results, list[int | None])
    assert_type(Account().rate([1]), MapTaskResult[float])
    Pipeline("typed").map(halve, over="double", combine="cross")  # type: ignore[arg-type]


class Account:
    """A class with a step among its methods."""

    @map_task
    def rate(self, amount: int) -> float:
        """Return a rate."""
        return 1 / amount

    @step
    def interest(self, amount: int) -> float:
        """Return some interest."""
        return amount * 0.01


def check_methods_bind() -> None:
    """A step of a class loses `self` where it is bound, as a method does."""
    assert_type(Account().interest(3), float)
    bound: Step[[int], float] = Account().interest


def check_results() -> None:
    """What a result holds has a type, but for values."""
    result = Pipeline("typed").add_steps([double, len]).run()
    one = result.step_results["double"]
    assert_type(one, StepResult)
    assert_type(one.state, StepState)
    assert_type(result.failed, list[StepResult])


def check_the_graph() -> None:
    """Views are mappings by name, pictures are text."""
    pipeline = Pipeline("typed").add_steps([double, len])
    assert_type(list(pipeline.dag.nodes), list[str])
    assert_type(pipeline.dag.nodes["double"].items, int | None)
    assert_type("double" in pipeline.dag.edges["len"], bool)
    assert_type(pipeline.dag.validate(), tuple[list[str], list[str]])
    assert_type(pipeline.visualize("svg"), str)
    assert_type(pipeline.explain("len").missing, tuple[str, ...])
    pipeline.visualize("png")  # type: ignore[arg-type]


def check_parallel_map() -> None:
    """The results have the type of the function's."""
    assert_type(parallel_map(double, [1, 2]), list[int])
    assert_type(parallel_map(halve, (1, 2), max_workers=2), list[float])
    assert_type(parallel_map(double, [1], on_error="return"), list[int | BaseException])


def check_files() -> None:
    """A file is a path, whose path is text."""
    file = File(Path("a.csv"))
    assert_type(file.path, str)
    assert_type(os.fspath(file), str)
    assert_type(Path(file), Path)
    file.path = "b.csv"  # type: ignore[misc]
    File(b"a.csv")  # type: ignore[arg-type]


def check_wrong_uses_are_found() -> None:
    """What a type checker must refuse; an ignore that is not needed is an error, too."""
    double("2")  # type: ignore[arg-type]
    parallel_map(double, ["a"])  # type: ignore[arg-type]
    parallel_map(double, [1], backend="proces")  # type: ignore[call-overload]
