"""Items of a map that change an argument which they share: the ERROR record says so, unless each has a copy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import Executor, LocalExecutor, Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

HINT = "items of 'grow' share the argument 'state', and steps change it while others read it: run(debug=True)"


def grow(item: int, state: dict[str, int]) -> None:
    for name in state:
        state[f"{name}{item}"] = item


def grow_object(item: int, state: Any) -> None:
    grow(item, vars(state))


def grow_own(item: int, state: dict[str, int]) -> None:
    grow(item, {"own": 1, **state})


def refuse(item: int, state: dict[str, int]) -> None:
    raise KeyError(item)


def logged(pipeline: Pipeline, executor: Executor, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    assert not pipeline.run(executor=executor)
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    return record.getMessage()


@pytest.mark.parametrize(("function", "state"), [(grow, {"a": 1}), (grow_object, SimpleNamespace(a=1))])
def test_items_that_change_what_they_share_fail_with_a_hint(
    executor: Executor, caplog: pytest.LogCaptureFixture, function: Callable[..., None], state: Any
) -> None:
    told = logged(Pipeline("p").map(function, range(3), name="grow", params={"state": state}), executor, caplog)
    assert "changed size during iteration" in told
    assert (HINT in told) is not executor.keeps_values_serialized  # worker processes have a copy each
    assert ('backend="process"' in told) is not executor.keeps_values_serialized


def test_a_value_of_another_step_is_shared_too(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline("p").add_step(lambda: {"a": 1}, "state").map(grow, [1, 2])
    assert HINT in logged(pipeline, LocalExecutor(), caplog)


@pytest.mark.parametrize(
    ("function", "items"),
    [(grow_own, [1, 2]), (refuse, [1, 2]), (grow, [1])],
    ids=["its own", "another error", "one item"],
)
def test_other_failures_have_no_such_hint(
    caplog: pytest.LogCaptureFixture, function: Callable[..., None], items: list[int]
) -> None:
    pipeline = Pipeline("p").map(function, items, name="grow", params={"state": {"a": 1}})
    assert "share the argument" not in logged(pipeline, LocalExecutor(), caplog)
