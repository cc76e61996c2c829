"""Dynamic steps and small functions for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml import Pipeline, PipelineResult, dynamic

if TYPE_CHECKING:
    from collections.abc import Callable


def same(value: Any) -> Any:
    return value


def add(left: int, right: int) -> int:
    return left + right


def total(numbers: Any) -> int:
    return sum(numbers)


def refuse(*_: object) -> None:
    raise ValueError("refused")


@dynamic
def numbers(count: int) -> Pipeline:
    made = Pipeline("made")
    for number in range(count):
        made.add_step(same, f"n{number}", {"value": number})
    return made


@dynamic
def tower(height: int) -> Any:
    if not height:
        return 1
    return (
        Pipeline("floor")
        .add_step(tower, "up", {"height": height - 1})
        .add_step(add, params={"right": 1}, inputs=["up"])
    )


def making(build: Callable[[], Any], **options: Any) -> Pipeline:
    """Return a pipeline whose step "made" returns what a function builds."""
    return Pipeline("whole").add_step(dynamic(name="made", **options)(build))


def error(result: PipelineResult, name: str = "made") -> Any:
    return result.step_results[name].exception
