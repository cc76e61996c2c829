"""Inside a step `get_context()` tells run, step, attempt and parameters, on every executor."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import FlowymlError, LocalExecutor, ParallelExecutor, Pipeline, get_context, step

if TYPE_CHECKING:
    from pathlib import Path


def told(**_: Any) -> Any:
    """Return all that is told."""
    here = get_context()
    assert get_context() is here
    return here


def test_it_tells_run_pipeline_step_and_parameters(executor: Any) -> None:
    pipeline = Pipeline("shop").add_step(told, "s", params={"a": 1, "b": "x"})
    result = pipeline.run(executor=executor, run_id="r1")
    here = result["s"]
    assert (here.run_id, here.pipeline_name, here.step_name, here.index) == ("r1", "shop", "s", None)
    assert (here.attempt, dict(here.params)) == (1, {"a": 1, "b": "x"})
    assert here.worker == result.step_results["s"].worker


def test_each_of_many_steps_is_told_its_own(executor: Any) -> None:
    def name_and_value(value: Any) -> Any:
        here = get_context()
        return here.step_name, here.params["value"] is value, here.index

    pipeline = Pipeline("many")
    names = [f"s{i}" for i in range(500)]
    for i, name in enumerate(names):
        pipeline.add_step(name_and_value, name, {"value": i if i % 3 else [i]})
    result = pipeline.run(executor=executor)
    assert [result[name] for name in names] == [(name, True, None) for name in names]


def test_items_of_a_mapped_step_have_an_index(executor: Any) -> None:
    def which(x: int) -> Any:
        here = get_context()
        return here.step_name, here.index, dict(here.params)

    pipeline = Pipeline("map").add_step(max, "first", {"a": 1, "b": 2}).map(which, [10, 20, 30], name="m")
    assert list(pipeline.run(executor=executor)["m"]) == [(f"m[{i}]", i, {"x": 10 * (i + 1)}) for i in range(3)]


def test_parameters_of_every_kind_have_their_names(executor: Any) -> None:
    def wide(first: int, /, second: int, *rest: int, last: int = 4, other: int = 5) -> Any:
        return dict(get_context().params)

    pipeline = Pipeline("wide").add_step(abs, "one", inputs=["x"]).add_step(abs, "two", inputs=["x"])
    pipeline.add_step(wide, params={"first": 1, "last": 9}, inputs={"second": "one", "rest": ["two", "one"]})
    given = {"first": 1, "second": 7, "rest": (7, 7), "last": 9}
    assert pipeline.run(inputs={"x": -7}, executor=executor)["wide"] == given


def test_parameters_are_read_only_and_the_very_objects(executor: Any) -> None:
    def same(data: list[int]) -> bool:
        with pytest.raises(TypeError):
            get_context().params["data"] = []  # type: ignore[index]
        return get_context().params["data"] is data

    assert Pipeline("same").add_step(same, params={"data": [1, 2]}).run(executor=executor)["same"] is True


def test_what_only_a_condition_asks_for_is_no_parameter(executor: Any) -> None:
    def guarded(x: int) -> Any:
        return dict(get_context().params)

    pipeline = Pipeline("guards").add_step(guarded, params={"x": 1}, condition=lambda x, quality: quality > x)
    assert pipeline.run(context={"quality": 3}, executor=executor)["guarded"] == {"x": 1}


def test_a_method_does_not_show_its_object(executor: Any) -> None:
    assert Pipeline("method").add_step(Shop().sell, params={"count": 3}).run(executor=executor)["sell"] == {"count": 3}


class Shop:
    def sell(self, count: int) -> Any:
        return dict(get_context().params)


def test_attempts_are_counted(executor: Any) -> None:
    def third(x: int) -> Any:
        here = get_context()
        if here.attempt < 3:
            raise ValueError(here.attempt)
        return here.step_name, here.attempt

    pipeline = Pipeline("again").add_step(third, params={"x": 0}, retry=4).map(third, [1, 2], name="m", retry=2)
    result = pipeline.run(executor=executor)
    assert (result["third"], list(result["m"])) == (("third", 3), [("m[0]", 3), ("m[1]", 3)])


def test_coroutines_and_their_threads_belong_to_the_step(executor: Any) -> None:
    @step
    async def soon() -> Any:
        await asyncio.sleep(0)
        names = await asyncio.gather(asyncio.to_thread(_name), _name_soon())
        return [get_context().step_name, *names]

    assert Pipeline("async").add_step(soon).run(executor=executor)["soon"] == ["soon"] * 3


def _name() -> str:
    return get_context().step_name


async def _name_soon() -> str:
    return get_context().step_name


@pytest.mark.skipif(getattr(sys.flags, "thread_inherit_context", 0), reason="Python hands the context on to threads")
def test_a_thread_of_its_own_belongs_to_no_step(executor: Any) -> None:
    def starts() -> Any:
        found: list[str] = []

        def ask() -> None:
            try:
                get_context()
            except FlowymlError as error:
                found.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return found

    [message] = Pipeline("threads").add_step(starts).run(executor=executor)["starts"]
    assert message.startswith("get_context() was called outside a step")


def test_a_run_inside_a_step_has_its_own(executor: Any) -> None:
    def outer() -> Any:
        before = get_context().step_name
        inner = Pipeline("inner").add_step(_name, "inside").run(executor=LocalExecutor())["inside"]
        return before, inner, get_context().step_name

    assert Pipeline("outer").add_step(outer).run(executor=executor)["outer"] == ("outer", "inside", "outer")


def test_outside_a_step_it_is_an_error(executor: Any) -> None:
    Pipeline("one").add_step(_name).run(executor=executor)
    with pytest.raises(FlowymlError, match=r"get_context\(\) was called outside a step"):
        get_context()


def test_names_may_hold_anything(executor: Any) -> None:
    names = ["plain", "a\0b", "\0", "ümläut", "x[3]"]
    pipeline = Pipeline("names")
    for name in names:
        pipeline.add_step(_name, name)
    result = pipeline.run(executor=executor)
    assert [result[name] for name in names] == names


def test_two_outputs_are_no_obstacle(executor: Any) -> None:
    def pair() -> Any:
        return get_context().step_name, get_context().attempt

    result = Pipeline("two").add_step(pair, outputs=["name", "attempt"]).run(executor=executor)
    assert dict(result.outputs) == {"name": "pair", "attempt": 1}


def test_the_logger_says_which_step_it_was(executor: Any, caplog: pytest.LogCaptureFixture) -> None:
    def speaks() -> None:
        get_context().logger.warning("cold %s", "here")

    Pipeline("logs").add_step(speaks).run(executor=executor, run_id="r7")
    [record] = [each for each in caplog.records if each.name == "flowyml.step"]
    assert (record.getMessage(), record.levelno) == ("cold here", logging.WARNING)
    assert (record.step_name, record.run_id, record.attempt) == ("speaks", "r7", 1)  # type: ignore[attr-defined]


def test_it_pickles_and_cannot_be_changed() -> None:
    here = Pipeline("p").add_step(told, params={"a": [1]}).run()["told"]
    copy = pickle.loads(pickle.dumps(here))
    assert copy == here
    assert dict(copy.params) == {"a": [1]}
    with pytest.raises(AttributeError):
        here.attempt = 5


def test_a_value_that_was_asked_for_is_let_go(tmp_path: Path) -> None:
    """What a step asked does not keep its arguments in the worker."""

    def alive(folder: str, index: int, big: Any = None) -> Any:
        import gc

        if big is not None:
            assert get_context().params["big"] is big
        return sum(type(each).__name__ == "_Marked" for each in gc.get_objects())

    with ParallelExecutor(1) as executor:
        pipeline = Pipeline("big")
        for i in range(4):
            params = {"folder": str(tmp_path), "index": i, "big": _Marked([i])}
            pipeline.add_step(alive, f"s{i}", params, after=f"s{i - 1}" if i else None)
        pipeline.add_step(alive, "last", {"folder": str(tmp_path), "index": 9}, after="s3")
        result = pipeline.run(executor=executor)
    assert [result[name] for name in ("s0", "s1", "s2", "s3", "last")] == [1, 1, 1, 1, 0]


class _Marked(list):  # type: ignore[type-arg]
    __slots__ = ()
