"""Mapped steps over lists that turn out to be empty, and what runs over them in turn: the run ends, on every executor.

Without items a step is complete as soon as its length is known, which lets others know theirs in the same moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from step_states import states

from flowyml import ExecutorError, Pipeline, StepState, dynamic, map_task
from flowyml.runtime.expansion import MapExpansion
from flowyml.runtime.run import Run

if TYPE_CHECKING:
    from pathlib import Path

    from flowyml import Executor

pytestmark = pytest.mark.timeout(60)


def nothing() -> list[int]:
    return []


def pair(x: Any, y: Any) -> tuple[Any, Any]:
    return x, y


def counted(found: list[Any]) -> int:
    return len(found)


def text(part: Any) -> str:
    return str(part)


def combined(over: list[Any], combine: str, **lists: list[int]) -> Pipeline:
    """Return a pipeline in which `pairs` runs over mapped steps, one for each of these lists."""
    pipeline = Pipeline("combined")
    for name, made in lists.items():
        pipeline.add_step(lambda made=made: made, name=f"list_{name}")
        pipeline.map(text, over=f"list_{name}", name=name)
    pipeline.map(pair, over=over, combine=combine, name="pairs")  # type: ignore[call-overload]
    return pipeline.map(text, over="pairs", name="third").add_step(counted, inputs={"found": "third"})


CASES = {
    "product, left empty": (["a", ["x", "y"]], "product", {"a": []}),
    "product, right empty": ([["x", "y"], "a"], "product", {"a": []}),
    "product of two empty": (["a", "b"], "product", {"a": [], "b": []}),
    "product of an empty and a full": (["a", "b"], "product", {"a": [], "b": [1, 2]}),
    "product of a full and an empty": (["a", "b"], "product", {"a": [1, 2], "b": []}),
    "zip of two empty": (["a", "b"], "zip", {"a": [], "b": []}),
    "zip of an empty and an empty list": (["a", []], "zip", {"a": []}),
}


@pytest.mark.parametrize(("over", "combine", "lists"), CASES.values(), ids=CASES)
def test_a_product_or_zip_without_items_ends(executor: Executor, over: Any, combine: str, lists: Any) -> None:
    result = combined(over, combine, **lists).run(executor=executor)
    assert set(states(result).values()) == {"success"}
    assert (list(result["pairs"]), list(result["third"]), result["counted"]) == ([], [], 0)


@pytest.mark.parametrize("over", [["a", [1, 2]], [[1, 2], "a"]], ids=["left", "right"])
def test_a_zip_of_an_empty_map_and_a_list_fails_without_a_hang(executor: Executor, over: Any) -> None:
    result = combined(over, "zip", a=[]).run(executor=executor)
    assert states(result) == {
        "list_a": "success",
        "a": "success",
        "pairs": "failed",
        "third": "upstream_failed",
        "counted": "upstream_failed",
    }
    assert "the lists have different lengths" in str(result.step_results["pairs"].exception)


def test_a_product_of_an_empty_map_and_a_list(executor: Executor) -> None:
    p = Pipeline("p")
    p.add_step(list, name="files")
    p.map(str, over="files", name="loaded")
    p.map(lambda x, y: (x, y), over=["loaded", ["a", "b"]], combine="product", name="both")
    assert list(p.run(executor=executor)["both"]) == []


def test_products_of_products(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each length is known only once the one before it is; that is seen at once and not only before a wait."""
    monkeypatch.setattr(Run, "check_progress", lambda _self: False)
    pipeline = Pipeline("deep").add_step(nothing, name="list").map(text, over="list", name="m0")
    for depth in range(8):
        pipeline.map(pair, over=[f"m{depth}", [1, 2]], combine="product", name=f"m{depth + 1}")
    result = pipeline.run(executor=executor)
    assert set(states(result).values()) == {"success"}
    assert len(result["m8"]) == 0


def test_a_product_that_is_added_before_its_lists(executor: Executor) -> None:
    pipeline = Pipeline("early").map(pair, over=["a", [1]], combine="product", name="pairs")
    pipeline.map(text, over="nothing", name="a").add_step(nothing)
    assert list(pipeline.run(executor=executor)["pairs"]) == []


def test_in_a_sub_pipeline(executor: Executor) -> None:
    inner = Pipeline("inner").add_step(nothing).map(text, over="nothing", name="texts")
    inner.map(pair, over=["texts", [1, 2]], combine="product", name="pairs")
    outer = Pipeline("outer").add_sub_pipeline(inner).add_step(counted, inputs={"found": "inner.pairs"})
    result = outer.run(executor=executor)
    assert (result.success, result["counted"]) == (True, 0)


@dynamic
def grows() -> Pipeline:
    inner = Pipeline("inner").add_step(nothing).map(text, over="nothing", name="texts")
    inner.map(pair, over=["texts", [1, 2]], combine="product", name="pairs")
    return inner.add_step(counted, inputs={"found": "pairs"})


def test_in_what_a_dynamic_step_returns(executor: Executor) -> None:
    result = Pipeline("dynamic").add_step(grows).run(executor=executor)
    assert (result.success, result["grows"]) == (True, 0)


def test_steps_of_a_dynamic_step_over_a_map_that_is_empty_already(executor: Executor) -> None:
    @dynamic
    def later(texts: Any) -> Pipeline:
        inner = Pipeline("inner").map(pair, over=["texts", [1]], combine="product", name="pairs")
        inner.map(pair, over=["pairs", [1]], combine="product", name="more")
        return inner.add_step(counted, inputs={"found": "more"})

    pipeline = Pipeline("dynamic").add_step(nothing).map(text, over="nothing", name="texts").add_step(later)
    result = pipeline.run(executor=executor)
    assert (result.success, result["later"]) == (True, 0)


def test_map_tasks_without_items(executor: Executor) -> None:
    task = map_task(text, fail_fast=True)
    pipeline = Pipeline("tasks").add_step(nothing).map(task, over="nothing", name="texts")
    pipeline.map(pair, over=["nothing", [1, 2]], combine="product", name="pairs")
    pipeline.map(pair, over=["pairs", [1, 2]], combine="product", name="more")
    result = pipeline.run(executor=executor)
    assert (result.success, len(result["more"])) == (True, 0)


@pytest.mark.parametrize("keep", ["all", "leaves"])
def test_values_that_are_released(executor: Executor, keep: str) -> None:
    over, combine, lists = CASES["product of an empty and a full"]
    result = combined(over, combine, **lists).run(executor=executor, keep=keep)  # type: ignore[arg-type]
    assert (result.success, result["counted"]) == (True, 0)


def test_with_a_cache(executor: Executor, tmp_path: Path) -> None:
    def run() -> Any:
        pipeline = Pipeline("cached", cache_dir=tmp_path).add_step(nothing, cache=True)
        pipeline.map(text, over="nothing", name="texts", cache=True)
        pipeline.map(pair, over=["texts", [1, 2]], combine="product", name="pairs", cache=True)
        return pipeline.add_step(counted, inputs={"found": "pairs"}, cache=True).run(executor=executor)

    first, second = run(), run()
    assert (first["counted"], second["counted"]) == (0, 0)
    assert second.step_results["nothing"].state is StepState.CACHED
    assert second.success


def fragile(found: list[Any], folder: str) -> int:
    from pathlib import Path

    if not (Path(folder) / "allowed").exists():
        raise ValueError("not yet")
    return len(found)


def test_a_run_that_is_continued(executor: Executor, tmp_path: Path, folder: Path) -> None:
    """What is taken over makes lengths known as what has run does."""

    def run() -> Any:
        pipeline = Pipeline("resumed", enable_checkpointing=True, cache_dir=tmp_path).add_step(nothing)
        pipeline.map(text, over="nothing", name="texts")
        pipeline.map(pair, over=["texts", [1, 2]], combine="product", name="pairs")
        return pipeline.add_step(fragile, params={"folder": str(folder)}, inputs={"found": "pairs"}).run(
            executor=executor
        )

    assert not run().success
    (folder / "allowed").touch()
    result = run()
    assert (result.success, result["fragile"]) == (True, 0)
    assert result.resumed is not None


# ---- stalled runs --------------------------------------------------------------------------------------------------


def test_a_stalled_run_is_an_error_that_names_the_waiting_steps(
    fresh_executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a defect of the package would cause it: a length that is due and never given."""
    monkeypatch.setattr(MapExpansion, "_expand", lambda _self, _node: None)
    pipeline = Pipeline("lost").add_step(nothing).map(text, over="nothing", name="texts")
    pipeline.add_step(counted, inputs={"found": "texts"})
    with pytest.raises(ExecutorError, match=r"'lost' cannot finish: .*'texts', 'counted'") as raised:
        pipeline.run(executor=fresh_executor)
    partial = raised.value.result
    assert partial is not None
    assert states(partial) == {"nothing": "success", "texts": "cancelled", "counted": "cancelled"}


def test_a_due_length_is_found_before_a_wait(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes a length due: an executor checks for due lengths before it waits."""
    expand, calls = MapExpansion.expand_ready, []

    def once_too_few(expansion: MapExpansion, **options: bool) -> int:
        calls.append(expansion)
        return 0 if len(calls) == 2 else expand(expansion, **options)  # the one after `nothing`

    monkeypatch.setattr(MapExpansion, "expand_ready", once_too_few)
    pipeline = Pipeline("late").add_step(nothing).map(text, over="nothing", name="texts")
    result = pipeline.add_step(counted, inputs={"found": "texts"}).run(executor=executor)
    assert (result.success, result["counted"]) == (True, 0)


def test_a_step_that_waits_for_a_retry_is_no_stall() -> None:
    from flowyml import LocalExecutor, retry

    asked = []
    check = Run.check_progress

    def checking(run: Run) -> bool:
        asked.append(run.scheduler.next_wakeup())
        return check(run)

    tries = []

    def second_time() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once")
        return 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "check_progress", checking)
        pipeline = Pipeline("again").add_step(second_time, retry=retry(2, backoff=0.3))
        assert pipeline.run(executor=LocalExecutor()).success
    assert any(at is not None for at in asked)
