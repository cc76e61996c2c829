"""A step that asks for an iterator gets the values of a fan-in one by one."""

from __future__ import annotations

import functools
import gc
import typing
import weakref
from collections import abc
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import LocalExecutor, ParallelExecutor, Pipeline, ValueLoadError
from flowyml.steps.signature import asks_for_iterator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml import Executor


def number(value: int) -> int:
    return value


def folded(values: Iterator[int], start: int = 0) -> tuple[int, bool]:
    first = next(values)
    return start + first + sum(values), isinstance(values, abc.Iterator)


def block(x: int) -> bytes:
    return bytes([x]) * 200_000


def sizes(blocks: typing.Iterator[bytes]) -> list[tuple[int, int]]:
    return [(each[0], len(each)) for each in blocks]


def test_the_values_of_a_mapped_step(executor: Executor) -> None:
    pipeline = Pipeline("stream").map(number, range(100)).add_step(folded, inputs={"values": "number"})
    assert pipeline.run(executor=executor)["folded"] == (4950, True)


def test_the_values_of_a_mapped_step_whose_length_only_the_run_knows(executor: Executor) -> None:
    pipeline = Pipeline("stream").add_step(lambda: [3, 4], "made").map(number, over="made")
    assert pipeline.add_step(folded, inputs=["number"]).run(executor=executor)["folded"] == (7, True)


def test_a_glob_and_a_list(executor: Executor) -> None:
    pipeline = Pipeline("stream")
    for value in range(4):
        pipeline.add_step(number, f"part_{value}", {"value": value})
    pipeline.add_step(folded, "glob", inputs=["part_*"]).add_step(
        folded, "two", inputs={"values": ["part_3", "part_1"]}
    )
    result = pipeline.run(executor=executor)
    assert (result["glob"], result["two"]) == ((6, True), (4, True))


def test_large_values_pass(executor: Executor) -> None:
    pipeline = Pipeline("stream").map(block, [1, 2, 3]).add_step(sizes, inputs=["block"])
    assert pipeline.run(executor=executor)["sizes"] == [(1, 200_000), (2, 200_000), (3, 200_000)]


def test_an_iterator_of_its_own_for_each_attempt(executor: Executor, tmp_path: Any) -> None:
    mark = tmp_path / "mark"

    def flaky(values: Iterator[int]) -> int:
        total = sum(values)
        if not mark.exists():
            mark.touch()
            raise OSError
        return total

    pipeline = Pipeline("stream").map(number, range(5)).add_step(flaky, inputs=["number"], retry=1)
    pipeline.add_step(folded, inputs=["number"])
    result = pipeline.run(executor=executor)
    assert (result["flaky"], result["folded"]) == (10, (10, True))


def test_a_join_goes_through_what_is_there(executor: Executor) -> None:
    pipeline = Pipeline("stream").map(lambda x: 1 // x, [1, 0, 1], name="some")
    pipeline.map(number, [1, 2]).add_step(number, "one", {"value": 7})
    result = pipeline.add_step(folded, inputs={"values": ["one", "some"]}, run_if="any").run(executor=executor)
    assert result["folded"] == (7, True)


def test_without_the_hint_it_is_a_list(executor: Executor) -> None:
    pipeline = (
        Pipeline("stream").map(number, [1]).add_step(lambda values: type(values).__name__, "kind", inputs=["number"])
    )
    assert pipeline.run(executor=executor)["kind"] == "list"


def test_a_single_asset_is_what_it_is(executor: Executor) -> None:
    def kind(value: Iterator[int]) -> str:
        return type(value).__name__

    pipeline = Pipeline("stream").add_step(number, params={"value": 1}).add_step(kind, inputs=["number"])
    assert pipeline.run(executor=executor)["kind"] == "int"


def test_a_mapped_step_may_go_through_another_list(executor: Executor) -> None:
    def share(x: int, values: Iterator[int]) -> float:
        return x / sum(values)

    pipeline = Pipeline("stream").map(number, [1, 3]).map(share, [2, 4], inputs={"values": "number"})
    assert list(pipeline.run(executor=executor)["share"]) == [0.5, 1.0]


class Tracked:
    alive: typing.ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()

    def __init__(self, x: int) -> None:
        self.x = x
        self.alive.add(self)

    def __reduce__(self) -> Any:
        return Tracked, (self.x,)


def most_alive(values: Iterator[Tracked]) -> int:
    most = 0
    for _ in values:
        del _
        gc.collect()
        most = max(most, len(Tracked.alive))
    return most


def test_a_worker_process_holds_one_value_at_a_time() -> None:
    pipeline = Pipeline("stream").map(Tracked, range(50), name="made").add_step(most_alive, inputs=["made"])
    with ParallelExecutor(1) as executor:
        assert pipeline.run(executor=executor)["most_alive"] <= 1


class Spoiled:
    def __init__(self, x: int) -> None:
        self.x = x

    def __reduce__(self) -> Any:
        return (Spoiled, (self.x,)) if self.x != 1 else (int, ("no number",))


def test_a_value_that_does_not_load_raises_where_it_is_asked_for() -> None:
    def first(values: Iterator[Any]) -> int:
        return next(values).x

    def every(values: Iterator[Any]) -> int:
        return len(list(values))

    pipeline = Pipeline("stream").map(Spoiled, range(3), name="made")
    pipeline.add_step(first, inputs=["made"]).add_step(every, inputs=["made"])
    with ParallelExecutor(1) as executor:
        result = pipeline.run(executor=executor)
    assert result["first"] == 0
    error = result.step_results["every"].exception
    assert isinstance(error, ValueLoadError)
    assert "the value of item 1 of a list does not load: ValueError: invalid literal" in str(error)


def hinted(a: typing.Iterator[int], b: abc.Iterator[int], c: abc.Iterable[int], d: Any, e: abc.Iterator) -> None: ...


class Takes:
    def __init__(self, values: Iterator[int]) -> None: ...

    def __call__(self, values: list[int], more: Iterator[int]) -> None: ...

    def method(self, values: Iterator[int]) -> None: ...


def test_which_hints_ask_for_an_iterator() -> None:
    assert [asks_for_iterator(hinted, name) for name in "abcdef"] == [True, True, False, False, True, False]
    texts = ["Iterator[int]", "'abc.Iterator'", "typing.Iterator[str]", "MyIterator[int]", "list[Iterator[int]]"]
    function: Any = lambda a, b, c, d, e: None  # noqa: E731
    function.__annotations__ = dict(zip("abcde", texts, strict=True))
    assert [asks_for_iterator(function, name) for name in "abcde"] == [True, True, True, False, False]
    assert asks_for_iterator(Takes, "values")
    takes = Takes(iter([]))
    assert not asks_for_iterator(takes, "values")
    assert asks_for_iterator(takes, "more")
    assert asks_for_iterator(takes.method, "values")
    assert asks_for_iterator(functools.partial(folded, start=3), "values")
    assert asks_for_iterator(functools.wraps(folded)(lambda values: folded(values, 1)), "values")
    assert not asks_for_iterator(max, "values")


def test_it_is_explained_and_its_type_is_compared() -> None:
    pipeline = Pipeline("stream", validate_types="error").map(number, range(3)).add_step(folded, inputs=["number"])
    pipeline.build()
    assert "values: iterator over the 3 results of step 'number'" in str(pipeline.explain("folded"))
    wrong = Pipeline("stream", validate_types="error").map(number, range(3)).add_step(sizes, inputs=["number"])
    with pytest.raises(ValueError, match=r"step 'number' outputs int .* expects bytes as 'blocks'"):
        wrong.build()
    assert pipeline.run(executor=LocalExecutor())["folded"] == (3, True)
