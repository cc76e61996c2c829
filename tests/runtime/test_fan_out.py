"""Fan-outs: over lists that only the run knows, over mapped steps, side by side, in all combinations."""

from __future__ import annotations

import logging
import threading
import time
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from flowyml import (
    FanOutError,
    LocalExecutor,
    ParallelExecutor,
    Pipeline,
    PipelineValidationError,
    StepNotRunError,
    ValueLoadError,
    get_context,
    step,
)
from flowyml.planning.map_inputs import ProductSequence, ZipSequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from flowyml import Executor, PipelineResult


def numbers(count: int = 5) -> list[int]:
    return list(range(count))


def double(x: int) -> int:
    return 2 * x


def pair(a: Any, b: Any) -> tuple[Any, Any]:
    return a, b


def reciprocal(x: int) -> float:
    return 1 / x


def states(result: PipelineResult, name: str) -> list[str]:
    """Return the states of a mapped step's items."""
    return [str(item.state) for item in result.step_results[name].items]


# ---- a list that a step produces -----------------------------------------------------------------------------------


def test_the_list_of_a_step(executor: Executor) -> None:
    result = Pipeline("over").add_step(numbers).map(double, over="numbers").run(executor=executor)
    assert list(result["double"]) == [0, 2, 4, 6, 8]
    assert result.success


def test_the_mapped_step_may_be_added_first(executor: Executor) -> None:
    result = Pipeline("over").map(double, over="numbers").add_step(numbers).run(executor=executor)
    assert list(result.outputs) == ["double", "numbers"]
    assert list(result["double"]) == [0, 2, 4, 6, 8]


def test_one_of_several_outputs(executor: Executor) -> None:
    pipeline = Pipeline("over").add_step(lambda: ([1, 2], "rest"), "split", outputs=["head", "tail"])
    assert list(pipeline.map(double, over="head").run(executor=executor)["double"]) == [2, 4]


@pytest.mark.parametrize(
    "made",
    [(1, 2, 3), range(1, 4), np.array([1, 2, 3]), pd.Series([1, 2, 3])],
    ids=lambda made: type(made).__name__,
)
def test_what_counts_as_a_list(executor: Executor, made: Any) -> None:
    pipeline = Pipeline("over").add_step(lambda made: made, "made", {"made": made})
    assert list(pipeline.map(double, over="made").run(executor=executor)["double"]) == [2, 4, 6]


def test_an_empty_list_is_a_success_without_items(executor: Executor) -> None:
    pipeline = Pipeline("over").add_step(numbers, params={"count": 0}).map(double, over="numbers")
    pipeline.map(double, over="double", name="again").add_step(sum, inputs=["again"])
    result = pipeline.run(executor=executor)
    assert (result.success, list(result["double"]), list(result["again"]), result["sum"]) == (True, [], [], 0)
    assert str(result.step_results["double"].state) == "success"


def test_objects_are_items(executor: Executor) -> None:
    pipeline = Pipeline("over").add_step(lambda: [{"x": 1}, {"x": [2]}, None], "made")
    assert list(pipeline.map(lambda item: item and item["x"], over="made", name="x").run(executor=executor)["x"]) == [
        1,
        [2],
        None,
    ]


def test_a_single_item_is_a_list_of_one(executor: Executor) -> None:
    result = Pipeline("over").add_step(lambda: [7], "made").map(double, over="made").run(executor=executor)
    assert list(result["double"]) == [14]
    assert result.step_results["double[0]"].success


def test_other_parameters_are_the_same_for_all_items(executor: Executor) -> None:
    def scaled(x: int, factor: int, shift: int, *, floor: int = 0) -> int:
        return max(floor, x * factor + shift)

    pipeline = Pipeline("over", context={"shift": 1}).add_step(numbers).add_step(lambda: 10, "ten")
    pipeline.map(scaled, over="numbers", inputs={"factor": "ten"}, params={"floor": 20})
    assert list(pipeline.run(executor=executor)["scaled"]) == [20, 20, 21, 31, 41]


def test_a_list_of_the_runs_inputs(executor: Executor) -> None:
    pipeline = Pipeline("over").map(len, over="files", name="sizes")
    assert list(pipeline.run(inputs={"files": ["a", "bc"]}, executor=executor)["sizes"]) == [1, 2]
    assert list(pipeline.run(inputs={"files": []}, executor=executor)["sizes"]) == []


def test_a_list_of_the_context(executor: Executor) -> None:
    pipeline = Pipeline("over", {"files": ["a", "bc"], "n": 3}).map(len, over="files", name="sizes")
    pipeline.map(pair, over=["files", "sizes"], name="both")
    assert list(pipeline.run(executor=executor)["both"]) == [("a", 1), ("bc", 2)]
    assert list(pipeline.run(context={"files": ["abc"]}, executor=executor)["sizes"]) == [3]
    assert list(pipeline.run({"files": []}, executor=executor)["sizes"]) == []
    assert "an item of context, 'files', one of 2" in str(pipeline.explain("sizes"))


def test_a_list_of_the_context_that_is_none() -> None:
    with pytest.raises(
        PipelineValidationError, match=r"runs over 'files', which must be a list of items, and is int 3"
    ):
        Pipeline("over", {"files": 3}).map(len, over="files").build()


def test_a_list_of_a_sub_pipelines_context_goes_before_what_is_around_it() -> None:
    inner = Pipeline("inner", {"files": ["a", "bc"]}).map(len, over="files", name="sizes")
    outer = Pipeline("outer", {"files": []}).add_sub_pipeline(inner).add_step(numbers, outputs=["files"])
    assert list(outer.run()["inner.sizes"]) == [1, 2]
    assert list(outer.run(context={"files": ["abc"]})["inner.sizes"]) == [3]
    given = Pipeline("outer", {"names": ["abcd"]}).add_sub_pipeline(inner, {"files": "names"})
    assert list(given.run()["inner.sizes"]) == [4]


def test_the_parameter_of_the_assets_name_takes_the_items(executor: Executor) -> None:
    def tell(scale: int, numbers: int) -> int:
        return scale * numbers

    pipeline = Pipeline("over", context={"scale": 3}).add_step(numbers).map(tell, over="numbers")
    assert list(pipeline.run(executor=executor)["tell"]) == [0, 3, 6, 9, 12]


def test_a_builtin_takes_items_by_position(executor: Executor) -> None:
    pipeline = Pipeline("over").add_step(numbers).map(pow, over=["numbers", [2, 2, 2, 2, 2]], name="squares")
    assert list(pipeline.run(executor=executor)["squares"]) == [0, 1, 4, 9, 16]
    hypot = Pipeline("over").map(np.hypot, over=[[3.0], [4.0]], name="h").run(executor=executor)
    assert list(hypot["h"]) == [5.0]


def test_the_mapped_step_waits_for_what_it_reads_beside_its_items(executor: Executor) -> None:
    pipeline = Pipeline("over").add_step(numbers).add_step(sum, "total", inputs=["numbers"])
    pipeline.map(lambda x, total: x / total, over="numbers", name="shares")
    assert sum(pipeline.run(executor=executor)["shares"]) == pytest.approx(1.0)


# ---- over steps that are mapped ------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_a_map_over_a_map(executor: Executor, known: bool) -> None:
    pipeline = Pipeline("maps").add_step(numbers)
    pipeline.map(double, range(5)) if known else pipeline.map(double, over="numbers")
    pipeline.map(double, over="double", name="fourfold").map(str, over="fourfold", name="text")
    pipeline.add_step("-".join, "joined", inputs=["text"])
    result = pipeline.run(executor=executor)
    assert list(result["text"]) == ["0", "4", "8", "12", "16"]
    assert result["joined"] == "0-4-8-12-16"


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_a_failed_item_costs_its_own_item_of_a_map_over_it(executor: Executor, known: bool) -> None:
    pipeline = Pipeline("maps").add_step(lambda: [1, 0, 4], "numbers")
    pipeline.map(reciprocal, [1, 0, 4]) if known else pipeline.map(reciprocal, over="numbers")
    pipeline.map(double, over="reciprocal").add_step(sum, inputs=["double"])
    result = pipeline.run(executor=executor)
    assert states(result, "reciprocal") == ["success", "failed", "success"]
    assert states(result, "double") == ["success", "upstream_failed", "success"]
    assert (result["double"][2], str(result.step_results["sum"].state)) == (0.5, "upstream_failed")
    with pytest.raises(StepNotRunError, match="ZeroDivisionError"):
        result["double"][1]
    assert [each.step_name for each in result.failed] == ["reciprocal[1]"]


def test_an_item_starts_when_the_item_it_is_made_of_is_there() -> None:
    passed = threading.Event()

    def first(x: int) -> int:
        if x == 1:
            assert passed.wait(20)  # until item 0 of the next step has run
        return x

    def second(x: int) -> int:
        passed.set()
        return x

    pipeline = Pipeline("flow").add_step(lambda: [0, 1], "made").map(first, over="made").map(second, over="first")
    with ParallelExecutor(2, "thread") as executor:
        assert list(pipeline.run(executor=executor)["second"]) == [0, 1]


def test_a_skipped_item_skips_its_own(executor: Executor) -> None:
    pipeline = Pipeline("skip").add_step(numbers).map(double, over="numbers", condition=lambda x: x % 2)
    pipeline.map(double, over="double", name="again")
    result = pipeline.run(executor=executor)
    assert result.success
    assert states(result, "double") == states(result, "again") == ["skipped", "success"] * 2 + ["skipped"]


def test_an_item_is_tried_again(executor: Executor, tmp_path: Any) -> None:
    def flaky(x: int) -> int:
        mark = tmp_path / str(x)
        if x % 2 and not mark.exists():
            mark.touch()
            raise OSError(x)
        return x

    pipeline = Pipeline("retry").add_step(numbers).map(flaky, over="numbers", retry=1).map(double, over="flaky")
    result = pipeline.run(executor=executor)
    assert list(result["double"]) == [0, 2, 4, 6, 8]
    assert [item.attempts for item in result.step_results["flaky"].items] == [1, 2, 1, 2, 1]


def test_a_step_reads_an_item_and_the_whole_list(executor: Executor) -> None:
    pipeline = Pipeline("both").add_step(numbers).map(double, over="numbers")
    pipeline.map(lambda x, every: x / sum(every), over="double", inputs={"every": "double"}, name="share")
    assert list(pipeline.run(executor=executor)["share"]) == [0, 0.1, 0.2, 0.3, 0.4]


def test_a_value_that_does_not_load_names_the_item_it_comes_from() -> None:
    pipeline = Pipeline("load").add_step(lambda: [0, 1], "made").map(Spoiled, over="made", name="spoiled")
    pipeline.map(type, over="spoiled", name="read")
    with ParallelExecutor(1) as executor:
        result = pipeline.run(executor=executor)
    assert states(result, "read") == ["failed", "failed"]
    error = result.failed[1].exception
    assert isinstance(error, ValueLoadError)
    assert error.producer == "step 'spoiled[1]'"


class Spoiled:
    """Pickles, and does not load."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __reduce__(self) -> Any:
        return _refuse_to_load, (self.x,)


def _refuse_to_load(x: int) -> None:
    raise ValueError(x)


# ---- several lists -------------------------------------------------------------------------------------------------


def test_lists_side_by_side(executor: Executor) -> None:
    pipeline = Pipeline("zip").add_step(numbers).add_step(lambda: "abcde", "letters", {})
    pipeline.add_step(list, inputs=["letters"]).map(pair, over=["numbers", "list"])
    assert list(pipeline.run(executor=executor)["pair"]) == list(enumerate("abcde"))


def test_lists_by_parameter(executor: Executor) -> None:
    pipeline = Pipeline("zip").add_step(numbers).map(pair, over={"b": "numbers", "a": ["vwxyz"] * 5})
    pipeline.map(pair, over={"b": "numbers", "a": list("vwxyz")}, name="right")
    result = pipeline.run(executor=executor)
    assert list(result["right"]) == list(zip("vwxyz", range(5), strict=True))


def test_an_assets_name_goes_to_its_parameter_before_others(executor: Executor) -> None:
    pipeline = Pipeline("zip").add_step(lambda: [1, 2], "b").add_step(lambda: [3, 4], "other")
    assert list(pipeline.map(pair, over=["b", "other"]).run(executor=executor)["pair"]) == [(3, 1), (4, 2)]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_mapped_steps_side_by_side(executor: Executor, known: bool) -> None:
    pipeline = Pipeline("zip").add_step(numbers)
    pipeline.map(double, range(5)) if known else pipeline.map(double, over="numbers")
    pipeline.map(double, over="double", name="again").map(pair, over=["double", "again"])
    assert list(pipeline.run(executor=executor)["pair"]) == [(2 * x, 4 * x) for x in range(5)]


def test_mapped_steps_of_other_origin_are_compared_in_the_run(executor: Executor) -> None:
    pipeline = Pipeline("zip").add_step(numbers, "left").add_step(numbers, "right")
    pipeline.map(double, over="left", name="l").map(double, over="right", name="r").map(pair, over=["l", "r"])
    assert list(pipeline.run(executor=executor)["pair"]) == [(2 * x, 2 * x) for x in range(5)]


def test_a_mapped_step_beside_a_list(executor: Executor) -> None:
    pipeline = Pipeline("zip").add_step(numbers).map(double, over="numbers").map(pair, over=["double", "numbers"])
    assert list(pipeline.run(executor=executor)["pair"]) == [(2 * x, x) for x in range(5)]


def test_all_combinations(executor: Executor) -> None:
    pipeline = Pipeline("product").add_step(lambda: ["a", "b"], "letters").map(double, [1, 2, 3])
    pipeline.map(lambda x, y, z: (x, y, z), over=["letters", "double", range(2)], combine="product", name="all")
    result = pipeline.run(executor=executor)
    assert list(result["all"]) == list(product("ab", [2, 4, 6], range(2)))


def test_combinations_of_known_lists(executor: Executor) -> None:
    pipeline = Pipeline("product").map(pair, over={"a": [1, 2], "b": ["x", "z"]}, combine="product")
    assert list(pipeline.run(executor=executor)["pair"]) == list(product([1, 2], ["x", "z"]))
    assert pipeline.dag.nodes["pair"].items == 4


def test_combinations_with_an_empty_list(executor: Executor) -> None:
    pipeline = Pipeline("product").add_step(numbers, params={"count": 0})
    result = pipeline.map(pair, over=["numbers", [1, 2]], combine="product").run(executor=executor)
    assert (result.success, list(result["pair"])) == (True, [])


def test_a_glob_gives_one_item_a_step(executor: Executor) -> None:
    pipeline = Pipeline("glob")
    for x in range(3):
        pipeline.add_step(double, f"part_{x}", {"x": x})
    result = pipeline.map(double, over="part_*").run(executor=executor)
    assert list(result["double"]) == [0, 4, 8]
    assert pipeline.dag.nodes["double"].items == 3


def test_many_combinations_are_not_written_out() -> None:
    pipeline = Pipeline("large").map(pair, over=[range(10_000), range(10_000)], combine="product")
    begun = time.perf_counter()
    pipeline.build()
    assert pipeline.dag.nodes["pair"].items == 100_000_000
    assert time.perf_counter() - begun < 5


# ---- what is no list -----------------------------------------------------------------------------------------------


def generated() -> Iterator[int]:
    return (x for x in [1, 2])


NO_LISTS: dict[str, tuple[Callable[[], Any], str]] = {
    "a number": (lambda: 3, "'made', which step 'made' has to produce, is int 3"),
    "nothing": (lambda: None, "is NoneType None"),
    "a text": (lambda: "abc", "is one str, 'abc'; its items would be single characters"),
    "a dict": (lambda: {"a": 1}, r"is a dict; make it list\(d.items\(\)\)"),
    "a table": (lambda: pd.DataFrame({"x": [1]}), "is a DataFrame, whose items would be its columns"),
}


@pytest.mark.parametrize("kind", NO_LISTS)
def test_what_is_no_list_fails_the_mapped_step(executor: Executor, kind: str) -> None:
    made, words = NO_LISTS[kind]
    pipeline = Pipeline("no list").add_step(made, "made").map(double, over="made")
    pipeline.map(double, over="double", name="follower").add_step(sum, inputs=["follower"])
    pipeline.add_step(numbers, "beside")
    result = pipeline.run(executor=executor)
    told = {name: str(done.state) for name, done in result.step_results.items()}
    never = "upstream_failed"
    assert told == {"made": "success", "double": "failed", "follower": never, "sum": never, "beside": "success"}
    error = result.step_results["double"].exception
    assert isinstance(error, FanOutError)
    with pytest.raises(FanOutError, match=words):
        raise error
    assert [each.step_name for each in result.failed] == ["double"]


@pytest.mark.parametrize("backend", ["thread", "async"])
def test_a_generator_is_no_list(backend: Any) -> None:
    pipeline = Pipeline("no list").add_step(generated, "made").map(double, over="made")
    with ParallelExecutor(2, backend) as executor:
        failed = pipeline.run(executor=executor).failed
    assert "step 'made' returned a generator, which can be read only once; return list(...)" in str(failed[0].exception)


def test_lists_of_different_lengths_fail_the_mapped_step(executor: Executor) -> None:
    pipeline = Pipeline("zip").add_step(numbers).map(pair, over=["numbers", [1, 2]])
    result = pipeline.run(executor=executor)
    text = "step 'pair' cannot be mapped: the lists have different lengths: 'numbers' has 5 items, list 2 has 2 items"
    assert str(result.failed[0].exception) == text
    assert result.step_results["pair"].error_line == f"FanOutError: {text}"


def test_a_mapped_step_without_items_says_why_it_has_no_value(executor: Executor) -> None:
    pipeline = Pipeline("no list").add_step(lambda: 3, "made").map(double, over="made").add_step(sum, inputs=["double"])
    result = pipeline.run(executor=executor)
    for name in ("double", "sum"):
        with pytest.raises(StepNotRunError, match="cannot be mapped") as caught:
            result[name]
        assert isinstance(caught.value.__cause__, FanOutError)
    assert list(result.outputs) == ["made"]
    assert "double: 0.00s failed: FanOutError: step 'double' cannot be mapped" in result.summary()
    assert repr(result).endswith("failed: 1 success, 1 failed, 1 upstream_failed>")


def test_a_failed_producer_leaves_no_items(executor: Executor) -> None:
    pipeline = Pipeline("failed").add_step(reciprocal, params={"x": 0}).map(double, over="reciprocal")
    result = pipeline.run(executor=executor)
    assert str(result.step_results["double"].state) == "upstream_failed"
    with pytest.raises(StepNotRunError, match="ZeroDivisionError"):
        result["double"]


def test_a_skipped_producer_leaves_no_items(executor: Executor) -> None:
    pipeline = Pipeline("skipped").add_step(numbers, condition=lambda: False).map(double, over="numbers")
    result = pipeline.run(executor=executor)
    assert (result.success, str(result.step_results["double"].state)) == (True, "skipped")


def test_a_join_needs_what_it_is_mapped_over(executor: Executor) -> None:
    pipeline = Pipeline("join").add_step(lambda: 1 / 0, "made").add_step(lambda: 1, "other")
    pipeline.map(double, over="made", after="other", run_if="any")
    result = pipeline.run(executor=executor)
    assert str(result.step_results["double"].state) == "failed"
    assert "'made', which step 'made' has to produce, is not there" in str(result.step_results["double"].exception)


def test_fail_fast_ends_at_what_is_no_list() -> None:
    pipeline = Pipeline("fast").add_step(lambda: 3, "made").map(double, over="made").add_step(numbers, after="made")
    result = pipeline.run(fail_fast=True)
    assert [str(done.state) for done in result.step_results.values()] == ["success", "failed", "cancelled"]


def test_what_failed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "flowyml"):
        Pipeline("log").add_step(lambda: 3, "made").map(double, over="made").run()
    assert "1 step failed" in caplog.text
    assert "double (failed): FanOutError: step 'double' cannot be mapped" in caplog.text


# ---- what a run shows, and keeps -----------------------------------------------------------------------------------


def test_before_a_run_the_length_is_not_known() -> None:
    pipeline = Pipeline("shown").add_step(numbers).map(double, over="numbers")
    assert "2. double (items known at run time) (depends on: numbers)" in pipeline.visualize()
    assert "items known at run time" in pipeline.visualize("mermaid")
    told = pipeline.explain("double")
    assert (told.mapped, told.items) == (True, None)
    assert "Mapped: runs once for each item of a list known at run time" in str(told)
    assert "x: an item of asset 'numbers', a list known at run time" in str(told)
    assert pipeline.dag.edges["double"] == {"numbers"}
    assert pipeline.dag.asset_consumers["numbers"] == {"double"}


def test_after_a_run_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = Pipeline("shown").add_step(numbers).map(double, over="numbers")
    assert "double (5 items)" in pipeline.run().summary()
    steps = pipeline.run().to_dict()["steps"]
    assert (steps["numbers"]["items"], steps["double"]["items"]) == (None, 5)
    assert pipeline.run(dry_run=True).step_results["double"].state == "waiting"
    assert "2 steps (at least 1 call) would run" in capsys.readouterr().out


def test_a_pipeline_runs_again_with_other_lengths(executor: Executor) -> None:
    pipeline = Pipeline("again").add_step(lambda n: list(range(n)), "made").map(double, over="made")
    assert [len(pipeline.run(inputs={"n": n}, executor=executor)["double"]) for n in (3, 0, 7)] == [3, 0, 7]


def test_an_item_knows_its_index(executor: Executor) -> None:
    def where(x: int) -> tuple[int, str, int | None, Mapping[str, Any]]:
        here = get_context()
        return x, here.step_name, here.index, dict(here.params)

    result = Pipeline("index").add_step(lambda: [4, 5], "made").map(where, over="made").run(executor=executor)
    assert list(result["where"]) == [(4, "where[0]", 0, {"x": 4}), (5, "where[1]", 1, {"x": 5})]


def test_the_only_item_of_a_map_has_an_index_and_a_seed_of_its_own(executor: Executor) -> None:
    def draw(x: int) -> tuple[str, int | None, float]:
        here = get_context()
        return here.step_name, here.index, here.rng.random()

    result = Pipeline("one").map(draw, [0]).run(seed=3, executor=executor)
    twice = Pipeline("one").map(draw, [0, 1]).run(seed=3, executor=executor)
    assert result["draw"][0] == twice["draw"][0]
    assert result["draw"][0][:2] == ("draw[0]", 0)


def test_values_go_after_their_last_reader(executor: Executor) -> None:
    pipeline = Pipeline("keep").add_step(numbers).map(double, over="numbers").map(double, over="double", name="again")
    result = pipeline.run(keep="leaves", executor=executor)
    assert list(result["again"]) == [0, 4, 8, 12, 16]
    with pytest.raises(StepNotRunError, match="was dropped"):
        result["numbers"]
    with pytest.raises(StepNotRunError, match="was dropped"):
        result["double"][3]


def test_a_list_that_is_changed_later_was_copied() -> None:
    made = [1, 2, 3]

    def shrink(made: list[int]) -> int:
        made.clear()
        return 0

    pipeline = Pipeline("copy").add_step(lambda: made, "made").map(double, over="made").add_step(shrink, after="made")
    assert list(pipeline.run(executor=LocalExecutor())["double"]) == [2, 4, 6]


def test_a_step_that_is_declared_is_mapped(executor: Executor) -> None:
    @step(name="tripled", retry=1)
    def triple(x: int) -> int:
        return 3 * x

    result = Pipeline("step").add_step(numbers).map(triple, over="numbers").run(executor=executor)
    assert list(result["tripled"]) == [0, 3, 6, 9, 12]


def test_types_are_compared_with_the_elements() -> None:
    def words() -> list[str]:
        return []

    pipeline = Pipeline("types", validate_types="error").add_step(words).map(double, over="words")
    with pytest.raises(PipelineValidationError, match=r"step 'words' outputs str .* step 'double' expects int as 'x'"):
        pipeline.build()
    Pipeline("types", validate_types="error").add_step(numbers).map(double, over="numbers").map(
        double, over="double", name="again"
    ).build()


def test_items_of_lists_that_only_the_run_knows_are_cached(executor: Executor, tmp_path: Path) -> None:
    def run() -> PipelineResult:
        pipeline = Pipeline("cached", cache_dir=tmp_path).add_step(numbers, after="last")
        pipeline.map(double, over="numbers", cache=True).map(double, over="double", name="again", cache=True)
        pipeline.map(pair, over=["again", "numbers"], combine="product", cache=True)
        pipeline.add_step(max, inputs=["pair"], cache=True).add_step(numbers, "last")
        return pipeline.run(executor=executor)

    first, second = run(), run()
    assert first["max"] == second["max"] == (16, 4)
    for name in ("double", "again", "pair"):
        assert "success" in states(first, name)  # some have values that others have stored just before
        assert set(states(second, name)) == {"cached"}


# ---- large ---------------------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_a_million_items_of_a_list_cost_what_given_items_cost() -> None:
    million = 1_000_000

    def timed(pipeline: Pipeline) -> float:
        with ParallelExecutor(2, "thread") as executor:
            result = pipeline.run(executor=executor)
        assert result["abs"][million - 1] == million - 1
        return result.duration_seconds

    given = min(timed(Pipeline("given").map(abs, range(million))) for _ in range(2))
    over = min(timed(Pipeline("over").add_step(range, "all", {"stop": million}).map(abs, over="all")) for _ in range(2))
    assert over < 3 * given + 0.5


def test_a_long_chain_of_maps(executor: Executor) -> None:
    pipeline = Pipeline("chain").add_step(numbers, "m0")
    for place in range(1, 300):
        pipeline.map(abs, over=f"m{place - 1}", name=f"m{place}")
    assert list(pipeline.run(executor=executor)["m299"]) == [0, 1, 2, 3, 4]


def test_cancelled_items_are_in_the_result() -> None:
    def fail(x: int) -> int:
        raise ValueError(x)

    pipeline = Pipeline("fast").add_step(numbers).map(fail, over="numbers").map(double, over="fail")
    result = pipeline.run(fail_fast=True)
    assert states(result, "fail") == ["failed"] + ["cancelled"] * 4
    assert states(result, "double") == ["upstream_failed"] + ["cancelled"] * 4


def test_a_sub_pipeline_maps_over_what_the_pipeline_around_gives(executor: Executor) -> None:
    inner = Pipeline("inner").map(double, over="numbers").map(double, over="double", name="again")
    outer = Pipeline("outer").add_step(numbers).add_sub_pipeline(inner).map(str, over="inner.again", name="texts")
    assert list(outer.run(executor=executor)["texts"]) == ["0", "4", "8", "12", "16"]
    renamed = Pipeline("outer").add_step(numbers, "all").add_sub_pipeline(inner, inputs={"numbers": "all"})
    assert list(renamed.run(executor=executor)["inner.again"]) == [0, 4, 8, 12, 16]


def test_a_time_limit_holds_for_each_item(executor: Executor) -> None:
    def slow(x: int) -> int:
        time.sleep(20 if x == 1 else 0)
        return x

    pipeline = Pipeline("limit").add_step(lambda: [0, 1, 2], "made").map(slow, over="made", timeout=0.3)
    result = pipeline.run(executor=executor)
    assert states(result, "slow") == ["success", "timed_out", "success"]


@pytest.mark.parametrize("made", [ZipSequence([[1, 2, 3], "abc"]), ProductSequence([[1, 2], "abc"])])
def test_the_items_of_several_lists_are_read_like_those_of_one(made: Any) -> None:
    alike, bounds = list(iter(made)), [None, *range(-8, 9)]
    assert all(made[at] == alike[at] for at in range(-len(alike), len(alike)))
    for part in (slice(a, b, c) for a in bounds for b in bounds for c in (None, -2, -1, 1, 2)):
        assert made[part] == alike[part], part
    for at in (len(alike), -len(alike) - 1):
        with pytest.raises(IndexError):
            made[at]
