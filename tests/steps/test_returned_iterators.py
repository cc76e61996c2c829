"""What can be read only once is no value of a step and no argument, on every executor; the error says what to do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import Pipeline, PipelineValidationError, Step, dynamic

if TYPE_CHECKING:
    from collections.abc import Callable

READ_ONCE = "which can be read only once; return list(...) of it"


async def soon(rows: list[int]) -> Any:
    for row in rows:
        await asyncio.sleep(0)
        yield row


def rows_of(rows: list[int]) -> Any:
    yield from rows


async def fetched() -> int:
    return 1


RETURNED: dict[str, tuple[Callable[..., Any], str]] = {
    "a generator": (lambda rows: (row for row in rows), f"returned a generator, {READ_ONCE}"),
    "a generator of another function": (lambda rows: rows_of(rows), f"returned a generator, {READ_ONCE}"),  # noqa: PLW0108
    "a map object": (lambda rows: map(str, rows), f"returned a map object, {READ_ONCE}"),
    "a zip object": (lambda rows: zip(rows, rows, strict=True), f"returned a zip object, {READ_ONCE}"),
    "an enumerate object": (lambda rows: enumerate(rows), f"returned an enumerate object, {READ_ONCE}"),  # noqa: PLW0108
    "an async generator": (
        lambda rows: soon(rows),  # noqa: PLW0108
        "returned an async generator, which can be read only once; return [each async for each in ...] of it",
    ),
    "a coroutine": (lambda rows: fetched(), "returned a coroutine that nobody has awaited; make the step `async def`"),
}


@pytest.mark.parametrize("case", RETURNED)
def test_a_step_that_returns_it_fails_and_says_what_to_return(executor: Any, case: str) -> None:
    returns, says = RETURNED[case]
    pipeline = Pipeline("p").add_step(returns, "made", {"rows": [1, 2]}).add_step(len, inputs=["made"])
    result = pipeline.add_step(max, "other", {"a": 1, "b": 2}).run(executor=executor)
    step = result.step_results["made"]
    assert isinstance(step.exception, TypeError)
    assert f"step 'made' {says}" in str(step.exception)
    assert [str(each.state) for each in result.step_results.values()] == ["failed", "upstream_failed", "success"]


def test_an_item_and_an_output_and_a_step_that_came_later_too(executor: Any) -> None:
    @dynamic
    def grows() -> Pipeline:
        return Pipeline("more").add_step(rows_of_some, "late")

    def rows_of_some() -> Any:
        return rows_of([1])

    pipeline = Pipeline("p").map(lambda n: rows_of([n]) if n else n, [0, 1], name="mapped").add_step(grows)
    pipeline.add_step(lambda: (rows_of([1]), 2), "two", outputs=["a", "b"])
    result = pipeline.run(executor=executor)
    assert [str(item.state) for item in result.step_results["mapped"].items] == ["success", "failed"]
    assert "step 'mapped[1]' returned a generator" in str(result.step_results["mapped"].items[1].exception)
    assert "step 'grows.late' returned a generator" in str(result.step_results["grows.late"].exception)
    assert "step 'two' returned a generator for output 'a'" in str(result.step_results["two"].exception)


def test_one_that_fails_when_it_is_closed_fails_its_step_alone(executor: Any) -> None:
    def rows() -> Any:
        try:
            yield 1
        finally:
            raise ValueError

    def begun() -> Any:
        made = rows()
        next(made)
        return made

    result = Pipeline("p").add_step(begun).add_step(abs, params={"x": -1}).run(executor=executor)
    assert "step 'begun' returned a generator" in str(result.step_results["begun"].exception)
    assert result["abs"] == 1


@pytest.mark.parametrize("count", [1, 3])
def test_it_is_found_among_values_of_other_types(executor: Any, count: int) -> None:
    """Also where the same function returned a value before."""

    def some(i: int) -> Any:
        return [i, str(i), None, (each for each in [i])][i % 4]

    result = Pipeline("p").map(some, range(4 * count), name="some").run(executor=executor)
    states = [str(each.state) for each in result.step_results["some"].items]
    assert states == ["success", "success", "success", "failed"] * count


@pytest.mark.parametrize(
    ("make", "source"),
    [
        (lambda rows: Pipeline("p").add_step(list, params={"iterable": rows}), "params"),
        (lambda rows: Pipeline("p", {"iterable": rows}).add_step(list), "the context"),
        (lambda rows: Pipeline("p").map(pow, [1], params={"exp": rows}), "params"),
    ],
)
def test_an_argument_that_is_one_is_found_before_anything_runs(make: Any, source: str) -> None:
    with pytest.raises(PipelineValidationError, match=rf"gets a generator from {source}, which can .* make it list\("):
        make(rows_of([1])).run()


def test_a_value_of_the_run_that_is_one_is_found_before_anything_runs() -> None:
    pipeline = Pipeline("p").add_step(sorted, inputs=["rows"])
    with pytest.raises(PipelineValidationError, match=r"gets a map object from run\(inputs=\), which"):
        pipeline.run({"rows": map(str, [1])})
    with pytest.raises(PipelineValidationError, match=r"gets an async generator from run\(inputs=\).*\[each async for"):
        pipeline.run({"rows": soon([1])})


def test_generator_functions_are_told_by_their_kind() -> None:
    with pytest.raises(TypeError, match=r"'rows_of' is a generator function, .* return list\(\.\.\.\) of it"):
        Step(rows_of)
    with pytest.raises(TypeError, match=r"'soon' is an async generator function, .* return \[each async for"):
        Step(soon)
