"""Values that raise whatever they are asked: nobody on their way asks them more than their type."""

from __future__ import annotations

from typing import Any

import pytest

from flowyml import OutputMismatchError, Pipeline


class Refusing:
    """It has no attribute for anybody, its class included."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} for you")


def kind(made: Any) -> str:
    return type(made).__name__


async def awaited() -> Refusing:
    return Refusing()


@pytest.fixture
def others() -> list[Pipeline]:
    """Pipelines that live: a step might return one, so what it returns is looked at."""
    return [Pipeline("one"), Pipeline("two")]


@pytest.mark.parametrize("returns", [Refusing, awaited])
@pytest.mark.usefixtures("others")
def test_such_a_value_is_handed_on_or_does_not_pickle(executor: Any, returns: Any) -> None:
    """Where values stay in the process it is a value as any other; else it says why not, and its worker lives on."""
    pipeline = Pipeline("p").add_step(returns, "made").add_step(kind)
    result = pipeline.add_step(max, "other", {"a": 1, "b": 2}).run(executor=executor)
    made = result.step_results["made"]
    assert result["other"] == 2
    if made.exception is None:
        assert result["kind"] == "Refusing"
    else:
        assert "the result of step 'made' cannot be pickled: no " in str(made.exception)


@pytest.mark.parametrize("returns", [Refusing, awaited])
def test_such_a_value_is_no_tuple_of_outputs(executor: Any, returns: Any) -> None:
    result = Pipeline("p").add_step(returns, "made", outputs=["a", "b"]).run(executor=executor)
    error = result.step_results["made"].exception
    assert isinstance(error, OutputMismatchError)
    assert "returned one value of type Refusing" in str(error)
