"""`@map_task`: a function of one item as a step over a list; probe M1 of the truth table, turned round."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from worker_pools import eventually

from flowyml import (
    FanOutError,
    If,
    LocalExecutor,
    MapTask,
    MapTaskError,
    MapTaskResult,
    ParallelExecutor,
    Pipeline,
    PipelineValidationError,
    StepError,
    StepNotRunError,
    map_task,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flowyml import Executor


def numbers() -> list[int]:
    return [1, 2, 3]


def mixed() -> list[int]:
    return [1, 0, 4, 5]


@map_task(concurrency=4)
def double(x: int) -> int:
    return 2 * x


@map_task(min_success_ratio=0.5, inputs=["mixed"])
def reciprocal(x: int) -> float:
    return 1 / x


@map_task(inputs="mixed")
def strict(x: int) -> float:
    return 1 / x


def use(reciprocal: Any) -> tuple[list[float], list[Any], dict[int, str], int, int, int, float]:
    done = reciprocal
    return list(done), done.results, done.errors, done.successes, done.failures, done.total, done.success_ratio


OUTCOME = ([1.0, 0.25, 0.2], [1.0, None, 0.25, 0.2], {1: "ZeroDivisionError: division by zero"}, 3, 1, 4, 0.75)


# ---- in a pipeline -------------------------------------------------------------------------------------------------


def test_m1_the_items_go_to_the_function_not_the_list(executor: Executor) -> None:
    pipeline = Pipeline("m1").add_step(numbers).add_step(double, inputs=["numbers"]).add_step(sum, inputs=["double"])
    result = pipeline.run(executor=executor)
    assert (list(result["double"]), result["sum"]) == ([2, 4, 6], 12)
    assert isinstance(result["double"], MapTaskResult)
    assert [item.step_name for item in result.step_results["double"].items] == ["double[0]", "double[1]", "double[2]"]


def test_without_inputs_the_list_has_the_name_of_the_parameter(executor: Executor) -> None:
    pipeline = Pipeline("implicit").add_step(numbers, "x").add_step(double)
    assert result_of(pipeline, executor) == [2, 4, 6]
    assert list(Pipeline("implicit").add_step(double).run(inputs={"x": [5]}, executor=executor)["double"]) == [10]
    assert list(Pipeline("implicit", context={"x": (7,)}).add_step(double).run(executor=executor)["double"]) == [14]


def result_of(pipeline: Pipeline, executor: Executor | None = None) -> list[Any]:
    return list(pipeline.run(executor=executor)["double"])


def test_params_may_be_the_list() -> None:
    assert result_of(Pipeline("params").add_step(double, params={"x": [1, 5]})) == [2, 10]
    assert result_of(Pipeline("params").add_step(double, params={"x": range(3)})) == [0, 2, 4]


def test_the_other_parameters_are_the_same_for_all_items(executor: Executor) -> None:
    @map_task
    def scaled(x: int, factor: int, shift: int) -> int:
        return x * factor + shift

    pipeline = Pipeline("others", context={"shift": 1}).add_step(numbers).add_step(lambda: 10, "ten")
    pipeline.add_step(scaled, "a", inputs=["numbers", "ten"]).add_step(
        scaled, "b", inputs={"x": "numbers", "factor": "ten"}
    )
    pipeline.add_step(scaled, "c", inputs=["numbers"], params={"factor": 2})
    result = pipeline.run(executor=executor)
    assert [list(result[name]) for name in "abc"] == [[11, 21, 31], [11, 21, 31], [3, 5, 7]]


def test_a_map_task_over_a_map_task(executor: Executor) -> None:
    pipeline = Pipeline("twice").add_step(mixed).add_step(reciprocal)
    pipeline.add_step(map_task(min_success_ratio=0.7, inputs="reciprocal")(round), "rounded").add_step(use)
    result = pipeline.run(executor=executor)
    assert result.success
    assert (result["use"], list(result["rounded"])) == (OUTCOME, [1, 0, 0])
    assert result["rounded"].errors == {1: "did not run: a step before it failed"}


@pytest.mark.parametrize("declared", [["numbers", "ten"], {"x": "numbers", "factor": "ten"}, None])
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"items": [5, 6]}, [50, 60]),
        ({"over": "others"}, [70, 80]),
        ({"over": "numbers"}, [10, 20, 30]),
        ({"items": [5], "inputs": ["two"]}, [10]),
        ({"items": [5], "inputs": {"factor": "two"}}, [10]),
        ({"over": {"factor": "numbers"}, "inputs": {"x": "two"}}, [2, 4, 6]),
    ],
)
def test_map_says_what_a_map_task_runs_over(declared: Any, given: dict[str, Any], wanted: list[int]) -> None:
    """In the place of the first of its declared inputs; the others stay, unless `map` says what all items read."""
    task = map_task(inputs=declared, name="task")(lambda x, factor: x * factor)
    pipeline = Pipeline("map").add_step(numbers).add_step(lambda: [7, 8], "others").add_step(lambda: 2, "two")
    pipeline.add_step(lambda: 10, "ten").map(task, **given)
    context = {} if declared or "inputs" in given else {"factor": 10}
    assert list(pipeline.run(context=context)["task"]) == wanted


def test_map_takes_a_map_task(executor: Executor) -> None:
    pipeline = Pipeline("map").map(reciprocal, [1, 0], name="given").add_step(mixed).map(reciprocal, over="mixed")
    result = pipeline.run(executor=executor)
    assert (list(result["given"]), list(result["reciprocal"])) == ([1.0], [1.0, 0.25, 0.2])
    assert result.success


def test_a_declared_output_is_the_asset(executor: Executor) -> None:
    task = map_task(inputs=["numbers"], outputs=["doubled"], name="task")(lambda x: 2 * x)
    result = (
        Pipeline("output").add_step(numbers).add_step(task).add_step(max, inputs=["doubled"]).run(executor=executor)
    )
    assert (dict(result.outputs)["doubled"], result["max"]) == ([2, 4, 6], 6)


def test_steps_and_handles_stand_for_map_tasks() -> None:
    pipeline = Pipeline("handles").add_step(numbers, "x").add_step(double).add_step(sum, inputs=double)
    assert pipeline.add_step(max, inputs=pipeline["double"]).run()["max"] == 6


def test_add_steps_and_branches_take_map_tasks() -> None:
    pipeline = Pipeline("steps").add_steps([numbers, map_task(inputs="numbers", name="doubled")(double.func)])
    pipeline.add_control_flow(If(lambda ctx: len(ctx["doubled"]) == 3, map_task(inputs="numbers")(abs)))
    result = pipeline.run()
    assert (list(result["doubled"]), list(result["abs"])) == ([2, 4, 6], [1, 2, 3])


def test_in_a_loop_each_has_its_own_list() -> None:
    pipeline = Pipeline("loop")
    for size in range(3):
        pipeline.add_step(double, f"d{size}", params={"x": list(range(size))})
    assert [list(pipeline.run()[f"d{size}"]) for size in range(3)] == [[], [0], [0, 2]]


def test_an_empty_list_is_a_success(executor: Executor) -> None:
    result = Pipeline("empty").add_step(list, "mixed").add_step(reciprocal).add_step(use).run(executor=executor)
    assert result["use"] == ([], [], {}, 0, 0, 0, 1.0)


def test_what_is_no_list_fails_the_task(executor: Executor) -> None:
    result = Pipeline("none").add_step(lambda: 3, "mixed").add_step(reciprocal).run(executor=executor)
    assert isinstance(result.step_results["reciprocal"].exception, FanOutError)


# ---- how many must succeed -----------------------------------------------------------------------------------------


def test_a_task_survives_failures(executor: Executor) -> None:
    pipeline = Pipeline("some").add_step(mixed).add_step(reciprocal).add_step(use)
    result = pipeline.run(executor=executor)
    assert (result.success, result.failed, result["use"]) == (True, [], OUTCOME)
    done = result.step_results["reciprocal"]
    assert (str(done.state), done.exception, done.error) == ("success", None, None)
    assert [str(item.state) for item in done.items] == ["success", "failed", "success", "success"]
    assert "✓ reciprocal (4 items): " in result.summary()
    assert "1 of 4 items failed, first: reciprocal[1]: ZeroDivisionError" in result.summary()
    assert result["reciprocal"].results == OUTCOME[1]
    result.raise_for_failure()


def test_too_few_successes_fail_it_with_both_ratios_and_the_first_error(executor: Executor) -> None:
    pipeline = Pipeline("few").add_step(lambda: [0, 2, 0, 0], "mixed").add_step(reciprocal).add_step(use)
    result = pipeline.run(executor=executor)
    states = {name: str(done.state) for name, done in result.step_results.items()}
    assert states == {"mixed": "success", "reciprocal": "failed", "use": "upstream_failed"}
    error = result.step_results["reciprocal"].exception
    assert isinstance(error, MapTaskError)
    assert str(error) == (
        "map task 'reciprocal': 1 of 4 items succeeded (25.0%), at least 50.0% have to; "
        "first error: reciprocal[0]: ZeroDivisionError: division by zero"
    )
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert [each.step_name for each in result.failed] == ["reciprocal[0]", "reciprocal[2]", "reciprocal[3]"]
    assert list(result["reciprocal"]) == [0.5]
    with pytest.raises(StepNotRunError, match="1 of 4 items succeeded"):
        result["use"]


def test_by_default_all_must_succeed(executor: Executor) -> None:
    result = Pipeline("strict").add_step(mixed).add_step(strict).run(executor=executor)
    assert "3 of 4 items succeeded (75.0%), at least 100.0% have to" in str(result.step_results["strict"].exception)


def test_the_only_item_may_fail(executor: Executor) -> None:
    task = map_task(min_success_ratio=0.0)(reciprocal.func)
    pipeline = (
        Pipeline("one").map(task, [0], name="known").add_step(lambda: [0], "made").map(task, over="made", name="late")
    )
    pipeline.add_step(lambda known, late: (len(known), len(late)), "use")
    result = pipeline.run(executor=executor)
    assert (result.success, result["use"]) == (True, (0, 0))
    assert str(result.step_results["known"].state) == "success"


def test_attempts_come_before_failures(executor: Executor, tmp_path: Path) -> None:
    @map_task(retries=2, retry_delay=0.01)
    def flaky(x: int) -> int:
        with (tmp_path / str(x)).open("a") as tries:
            tries.write("x")
        if (tmp_path / str(x)).stat().st_size <= x:
            raise OSError(x)
        return x

    result = Pipeline("flaky").map(flaky, [0, 1, 2, 3]).run(executor=executor)
    assert [item.attempts for item in result.step_results["flaky"].items] == [1, 2, 3, 3]
    assert list(result["flaky"]) == [0, 1, 2]
    assert flaky.retry is not None
    assert [flaky.retry.delay(attempt) for attempt in (1, 2)] == [0.01, 0.01]


def test_an_item_has_its_time(executor: Executor) -> None:
    @map_task(timeout_per_item=0.2, min_success_ratio=0.5)
    def slow(x: int) -> int:
        time.sleep(20 * x)
        return x

    result = Pipeline("slow").map(slow, [0, 1]).run(executor=executor)
    assert result.success
    assert result["slow"].errors == {1: "StepTimeoutError: step 'slow[1]' took longer than its timeout of 0.2 s"}


def test_a_skipped_item_counts_neither_way(executor: Executor) -> None:
    task = map_task(min_success_ratio=0.5)(when(lambda x: x != 2)(lambda x: 1 / x))
    result = Pipeline("skip").map(task, [1, 2, 0, 4], name="task").run(executor=executor)
    done = result["task"]
    assert (result.success, list(done), done.failures, done.total) == (True, [1.0, 0.25], 1, 4)
    assert done.success_ratio == pytest.approx(2 / 3)


def test_the_first_failure_ends_a_task_that_is_told_so() -> None:
    seen = []

    @map_task(fail_fast=True, min_success_ratio=0.1)
    def careful(x: int) -> int:
        seen.append(x)
        return 1 // x

    pipeline = Pipeline("fast").map(careful, [1, 0, 1, 1, 1]).add_step(numbers)
    result = pipeline.run(executor=LocalExecutor())
    assert seen == [1, 0]
    assert [str(item.state) for item in result.step_results["careful"].items] == [
        "success",
        "failed",
        *["cancelled"] * 3,
    ]
    assert str(result.step_results["numbers"].state) == "success"
    assert isinstance(result.step_results["careful"].exception, MapTaskError)


def test_the_first_failure_ends_it_on_every_executor(executor: Executor, tmp_path: Path) -> None:
    """Those that are under way when it comes go on to their ends."""
    failed = tmp_path / "failed"

    @map_task(fail_fast=True)
    def careful(x: int) -> float:
        if x == 0:
            failed.touch()
            return 1 / x
        assert eventually(failed.exists)
        time.sleep(0.2)  # it is being told
        return x

    result = Pipeline("fast").add_step(lambda: [0] + [1] * 500, "made").map(careful, over="made").run(executor=executor)
    states = [str(item.state) for item in result.step_results["careful"].items]
    assert states[0] == "failed"
    assert states.count("cancelled") > 400


# ---- who reads it --------------------------------------------------------------------------------------------------


READERS: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "its values": (list, ["reciprocal"], [1.0, 0.25, 0.2]),
    "a list of several": (lambda values: [len(each) for each in values], {"values": ["reciprocal", "mixed"]}, [3, 4]),
    "as arguments": (lambda *values: values, ["reciprocal"], (1.0, 0.25, 0.2)),
    "errors": (lambda done: done.errors[1], ["reciprocal"], "ZeroDivisionError: division by zero"),
    "by index": (lambda done: (done[0], done[-1], done[1:]), ["reciprocal"], (1.0, 0.2, [0.25, 0.2])),
}


@pytest.mark.parametrize("kind", READERS)
def test_what_a_reader_gets(executor: Executor, kind: str) -> None:
    reader, inputs, wanted = READERS[kind]
    pipeline = Pipeline("reader").add_step(mixed).add_step(reciprocal).add_step(reader, "reader", inputs=inputs)
    assert pipeline.run(executor=executor)["reader"] == wanted


def test_an_iterator_goes_through_the_values_there_are(executor: Executor) -> None:
    def total(values: Iterator[float]) -> float:
        return next(values) + sum(values)

    pipeline = Pipeline("stream").add_step(mixed).add_step(reciprocal).add_step(total, inputs=["reciprocal"])
    assert pipeline.run(executor=executor)["total"] == pytest.approx(1.45)


def test_a_decision_sees_it(executor: Executor) -> None:
    pipeline = Pipeline("decision").add_step(mixed).add_step(reciprocal)
    pipeline.add_control_flow(If(lambda ctx: ctx["reciprocal"].success_ratio > 0.7, numbers))
    assert pipeline.run(executor=executor)["numbers"] == [1, 2, 3]


def test_combinations_fail_where_an_item_is_not_there(executor: Executor) -> None:
    pipeline = Pipeline("product").add_step(mixed).add_step(reciprocal)
    task = map_task(min_success_ratio=0.5)(lambda a, b: a * b)
    pipeline.map(task, over=["reciprocal", [1, 10]], combine="product", name="all")
    result = pipeline.run(executor=executor)
    assert list(result["all"]) == [1.0, 10.0, 0.25, 2.5, 0.2, 2.0]
    assert result["all"].errors[2].startswith("StepNotRunError: what this item is made of has no value")


def test_values_that_are_large_or_objects_pass(executor: Executor) -> None:
    task = map_task(min_success_ratio=0.5)(lambda x: {"n": x, "data": bytes(100_000 // x)})
    pipeline = Pipeline("large").map(task, [1, 0, 2], name="task")
    pipeline.add_step(lambda task: [(each["n"], len(each["data"])) for each in task], "sizes")
    assert pipeline.run(executor=executor)["sizes"] == [(1, 100_000), (2, 50_000)]


def test_values_go_after_their_last_reader() -> None:
    pipeline = Pipeline("keep").add_step(mixed).add_step(reciprocal).add_step(use)
    result = pipeline.run(keep="leaves")
    assert result["use"] == OUTCOME
    with pytest.raises(StepNotRunError, match="dropped"):
        result["reciprocal"]


def test_one_that_failed_tells_its_error_though_its_values_went_after_their_last_reader() -> None:
    pipeline = Pipeline("keep").add_step(mixed).add_step(strict).map(round, over="strict")
    result = pipeline.run(keep="leaves")
    error: Any = result.step_results["strict"].exception
    assert isinstance(error, MapTaskError)
    assert (error.successes, error.result.successes, list(error.result.errors)) == (3, 3, [1])
    assert "map task 'strict': 3 of 4 items succeeded" in result.summary()
    assert "3 of 4 items succeeded" in result.to_dict()["steps"]["strict"]["error"]
    with pytest.raises(StepNotRunError, match="dropped"):
        list(error.result)


def test_results_pickle_and_compare() -> None:
    done = reciprocal(mixed())
    copy = pickle.loads(pickle.dumps(done))
    assert (copy, copy.errors, copy.results, copy.successful_results) == (done, done.errors, done.results, list(done))
    assert done == [1.0, 0.25, 0.2]
    assert done != [1.0]
    assert done != 3
    assert repr(done) == "<MapTaskResult: 3 of 4 items succeeded>"


# ---- called directly -----------------------------------------------------------------------------------------------


def test_a_direct_call_runs_here() -> None:
    assert double([1, 2, 3]) == [2, 4, 6]
    assert double(x for x in (1, 2)) == [2, 4]
    assert double(range(0)) == []
    assert double.func(4) == 8


def test_a_direct_call_runs_on_so_many_threads() -> None:
    together = threading.Barrier(3, timeout=20)

    @map_task(concurrency=3)
    def meet(x: int) -> int:
        together.wait()
        return x

    assert meet([1, 2, 3]) == [1, 2, 3]


def test_a_direct_call_takes_the_other_parameters() -> None:
    @map_task
    def scaled(x: int, factor: int = 1) -> int:
        return x * factor

    assert scaled([1, 2], factor=5) == [5, 10]


def test_a_direct_call_of_a_coroutine_function() -> None:
    @map_task
    async def later(x: int) -> int:
        return x + 1

    assert later([1, 2]) == [2, 3]


def test_a_direct_call_of_a_coroutine_function_has_all_items_under_way_at_once() -> None:
    """Each waits for the last one: side by side, not one by one on as many threads as there are CPUs."""
    begun = []

    @map_task(timeout_per_item=20)
    async def meet(x: int, event: asyncio.Event) -> int:
        begun.append(x)
        if len(begun) == 20:
            event.set()
        await event.wait()
        return len(begun)

    assert meet(range(20), event=asyncio.Event()) == [20] * 20


def test_a_direct_call_raises_where_too_few_succeed() -> None:
    with pytest.raises(MapTaskError, match=r"3 of 4 items succeeded \(75\.0%\)") as caught:
        strict(mixed())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.result is not None
    assert list(caught.value.result) == [1.0, 0.25, 0.2]


class Scaler:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @map_task(min_success_ratio=0.5)
    def scale(self, x: int) -> float:
        return self.factor / x


def test_a_method_is_bound(executor: Executor) -> None:
    assert Scaler(4).scale([1, 0, 2]) == [4.0, 2.0]
    pipeline = Pipeline("method").add_step(mixed).add_step(Scaler(4).scale, inputs=["mixed"])
    result = pipeline.run(executor=executor)
    assert (result.success, list(result["scale"])) == (True, [4.0, 1.0, 0.8])


def test_it_is_a_step_like_others() -> None:
    assert isinstance(double, MapTask)
    assert (double.name, double.__name__, repr(double)) == ("double", "double", "<MapTask 'double' of double>")
    assert pickle.loads(pickle.dumps(double)) is double
    assert (Scaler(4).scale.terms.min_success_ratio, Scaler(4).scale([2])) == (0.5, [2.0])


def test_it_is_drawn_and_explained() -> None:
    pipeline = Pipeline("drawn").add_step(mixed).add_step(reciprocal).add_step(double)
    assert "reciprocal (items known at run time) (depends on: mixed)" in pipeline.visualize()
    assert "x: an item of asset 'mixed', a list known at run time" in str(pipeline.explain("reciprocal"))
    assert "x: an item of 'x', which has no source yet" in str(pipeline.explain("double"))
    assert pipeline.explain("double").missing == ("x",)
    pipeline.build()


# ---- wrong uses ----------------------------------------------------------------------------------------------------


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a word for concurrency": (
        lambda: map_task(concurrency="4"),
        TypeError,
        "concurrency must be a whole number or None",
    ),
    "no concurrency": (lambda: map_task(concurrency=0), ValueError, "concurrency must be at least 1, got 0"),
    "negative retries": (lambda: map_task(retries=-1), ValueError, "must not be below 0, got -1"),
    "half a retry": (lambda: map_task(retries=0.5), TypeError, "retries must be a whole number, got 0.5"),
    "a word for a delay": (lambda: map_task(retry_delay="1s"), TypeError, "retry_delay must be a number of seconds"),
    "a percentage": (
        lambda: map_task(min_success_ratio=90),
        ValueError,
        "min_success_ratio must be from 0 to 1, got 90",
    ),
    "a word for a ratio": (
        lambda: map_task(min_success_ratio="all"),
        TypeError,
        "must be a number from 0 to 1, got 'all'",
    ),
    "a number for fail_fast": (lambda: map_task(fail_fast=1), TypeError, "fail_fast must be True or False, got 1"),
    "no time": (lambda: map_task(timeout_per_item=0)(abs), ValueError, "must be more than 0 seconds, got 0"),
    "an unknown keyword": (lambda: map_task(retry=2), TypeError, "unknown keyword 'retry'; did you mean 'retries'"),
    "a name without its keyword": (lambda: map_task("task"), TypeError, "use @map_task\\(name='task'\\)"),
    "two outputs": (
        lambda: Pipeline("p").add_step(map_task(outputs=["a", "b"])(abs)),
        ValueError,
        "a mapped step has one output",
    ),
    "no parameter": (lambda: Pipeline("p").add_step(map_task(lambda: 1)), TypeError, "has no parameter for its items"),
    "one number for params": (
        lambda: Pipeline("p").add_step(double, params={"x": 3}),
        TypeError,
        "takes an iterable of",
    ),
    "several lists": (
        lambda: Pipeline("p").add_step(double, inputs={"x": ["a", "b"]}),
        TypeError,
        "runs over one list, got inputs\\['x'\\]=\\('a', 'b'\\)",
    ),
    "no list anywhere": (
        lambda: Pipeline("p").add_step(double).run(),
        PipelineValidationError,
        "Missing required parameters: \\['x'\\]",
    ),
    "an unknown list": (
        lambda: Pipeline("p").add_step(mixed).add_step(double, inputs="mixd").build(),
        PipelineValidationError,
        "requires undefined asset 'mixd'; did you mean 'mixed'",
    ),
    "one number to a direct call": (lambda: double(3), TypeError, "takes an iterable of items, got int 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_use_gets_its_error(case: str) -> None:
    use_it, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        use_it()


def test_two_tasks_run_side_by_side() -> None:
    """The failures of one are not the other's."""
    pipeline = Pipeline("two").add_step(mixed).add_step(reciprocal).add_step(strict).add_step(use)
    pipeline.add_step(len, inputs=["strict"])
    with ParallelExecutor(2, "thread") as executor:
        result = pipeline.run(executor=executor)
    assert result["use"] == OUTCOME
    assert [each.step_name for each in result.failed] == ["strict[1]"]
    assert str(result.step_results["len"].state) == "upstream_failed"


@pytest.mark.parametrize("backend", ["thread", "process", "async"])
def test_no_more_items_run_at_once_than_it_says(backend: Any, tmp_path: Path) -> None:
    @map_task(concurrency=2)
    def busy(x: int) -> int:
        mark = tmp_path / str(x)
        mark.touch()
        time.sleep(0.02)
        running = len(list(tmp_path.iterdir()))
        mark.unlink()
        return running

    pipeline = Pipeline("busy").map(busy, range(20)).map(abs, range(10_000), name="beside")
    with ParallelExecutor(4, backend) as executor:
        result = pipeline.run(executor=executor)
    assert result.success
    assert 1 < max(result["busy"]) <= 2


def test_it_says_how_many_and_the_executor_has_fewer_workers(executor: Executor) -> None:
    task = map_task(concurrency=50)(double.func)
    assert list(Pipeline("more").map(task, range(100)).run(executor=executor)["double"]) == list(range(0, 200, 2))


def test_what_was_survived_and_costs_others_is_the_failure() -> None:
    pipeline = Pipeline("cost").add_step(mixed).add_step(reciprocal).map(round, over="reciprocal")
    result = pipeline.run()
    assert (result.success, [each.step_name for each in result.failed]) == (False, ["reciprocal[1]"])
    with pytest.raises(StepError, match=r"'reciprocal\[1\]' failed: ZeroDivisionError"):
        result.raise_for_failure()
    with pytest.raises(StepNotRunError, match=r"step 'reciprocal\[1\]' failed"):
        result["round"][1]


def test_its_terms_are_told_with_its_options() -> None:
    pipeline = Pipeline("told").add_step(mixed).add_step(reciprocal)
    assert pipeline.explain("reciprocal").options == {"min_success_ratio": 0.5}
    (_, defined) = pipeline.to_definition()["steps"]
    assert (defined["mapped"], defined["items"], defined["options"]) == (True, None, {"min_success_ratio": 0.5})


def test_a_reader_may_say_that_it_takes_the_result_or_a_list() -> None:
    def read(reciprocal: MapTaskResult[float], strict: list[float]) -> int:
        return len(reciprocal) + len(strict)

    pipeline = Pipeline("types", validate_types="error").add_step(mixed).add_steps([reciprocal, strict, read])
    pipeline.build()

    def upper(text: str) -> str:
        return text.upper()

    with pytest.raises(PipelineValidationError, match="step 'reciprocal' outputs float"):
        pipeline.map(upper, over="reciprocal").build()
