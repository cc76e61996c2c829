"""Results: what they say of a run, how lazily, and how they say what is not there."""

from __future__ import annotations

import copy
import datetime as dt
import gc
import json
import logging
import pickle
import sys
import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from worker_pools import eventually

from flowyml import (
    Executor,
    LocalExecutor,
    ParallelExecutor,
    Pipeline,
    PipelineResult,
    RetryConfig,
    StepError,
    StepNotRunError,
    StepResult,
    StepState,
)
from flowyml.store.value_store import ValueStore


class Refused(Exception):  # noqa: N818
    """What a step of these tests raises."""


def one() -> int:
    return 1


def refuse(why: str = "no luck") -> None:
    raise Refused(why)


def after(refuse: Any) -> Any:
    return refuse


def same(value: Any) -> Any:
    return value


def reciprocal(value: int) -> float:
    return 1 / value


def good() -> PipelineResult:
    return Pipeline("good").add_steps([one]).add_step(same, "two", {"value": 2}, outputs=["second"]).run(run_id="r1")


def bad() -> PipelineResult:
    """Return a run of a success, a failure and a step that did not run."""
    return Pipeline("bad").add_steps([one, refuse, after]).run()


def mapped(*items: int) -> PipelineResult:
    return Pipeline("mapped").map(reciprocal, items, name="over").run()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="flowyml")


# ---- the run -------------------------------------------------------------------------------------------------------


def test_a_result_names_run_and_pipeline() -> None:
    assert (good().run_id, good().pipeline_name) == ("r1", "good")


def test_run_ids_differ_by_default() -> None:
    assert len({bad().run_id for _ in range(10)}) == 10


def test_times_are_utc_and_fit_together() -> None:
    before, result = dt.datetime.now(dt.UTC), good()
    assert before <= result.start_time <= result.end_time <= dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    assert (result.end_time - result.start_time).total_seconds() == pytest.approx(result.duration_seconds, abs=1e-5)


def test_a_run_without_failures_is_a_success() -> None:
    assert (good().success, good().state, good().failed) == (True, "success", [])


def test_a_run_with_a_failure_is_none() -> None:
    assert (bad().success, bad().state, [each.step_name for each in bad().failed]) == (False, "failed", ["refuse"])


def test_the_repr_counts_states() -> None:
    assert repr(bad()) == "<PipelineResult 'bad' failed: 1 success, 1 failed, 1 upstream_failed>"
    assert repr(Pipeline("empty").run()) == "<PipelineResult 'empty' success: no steps>"
    assert repr(Pipeline("p").map(abs, []).run()) == "<PipelineResult 'p' success: no items>"


def test_one_of_a_kind_is_told_as_one() -> None:
    pipeline = Pipeline("one").map(reciprocal, [1], name="over")
    result = pipeline.run()
    over = result.step_results["over"]
    assert [repr(each) for each in (pipeline, result.outputs, result.step_results, result["over"], over.items)] == [
        "<Pipeline 'one' of 1 step>",
        "{'over': <values of 'over': 1 item>}",
        "<step results of 'one': 1 step>",
        "<values of 'over': 1 item>",
        "<results of 'over': 1 item>",
    ]
    assert "over (1 item): " in result.summary()


def test_raise_for_failure_passes_on_success() -> None:
    good().raise_for_failure()


def test_raise_for_failure_raises_the_first_failure() -> None:
    result = Pipeline("p").add_step(refuse, "a").add_step(refuse, "b").add_step(refuse, "c").run()
    wanted = r"step 'a' failed: Refused: no luck \(and 2 more failed\)"
    with pytest.raises(StepError, match=wanted) as caught:
        result.raise_for_failure()
    assert caught.value.__cause__ is result.step_results["a"].exception
    assert (caught.value.step_name, caught.value.state, caught.value.others) == ("a", "failed", 2)


def test_a_failed_run_logs_one_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="flowyml")
    pipeline = Pipeline("noisy")
    for k in range(5):
        pipeline.add_step(refuse, f"bad_{k}")
    pipeline.run()
    (record,) = caplog.records
    message = record.getMessage()
    assert record.levelname == "ERROR"
    assert "result.success is False" in message
    assert [f"bad_{k}" in message for k in range(5)] == [True, True, True, False, False]
    assert "'noisy': 5 steps failed" in message
    assert "2 more" in message


def test_the_error_record_counts_steps_and_items(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="flowyml")
    Pipeline("one").map(reciprocal, [0], name="over").run()
    Pipeline("both").add_step(refuse, params={"why": "x" * 5_000}).map(reciprocal, [0] * 1_200, name="over").run()
    first, second = (record.getMessage().splitlines() for record in caplog.records)
    assert first[0] == "pipeline 'one': 1 item of 1 mapped step failed, result.success is False"
    assert second[0] == "pipeline 'both': 1 step and 1,200 items of 1 mapped step failed, result.success is False"
    assert second[2] == "  over[0] (failed): ZeroDivisionError: division by zero"
    assert second[4] == "  ... and 1,198 more: see result.failed"
    assert max(map(len, second)) <= 300


def test_steps_added_after_a_run_do_not_change_its_result() -> None:
    pipeline = Pipeline("p").add_step(one)
    result = pipeline.run()
    pipeline.add_step(same, "later", {"value": 5})
    assert (list(result.outputs), list(result.step_results), "later" in result) == (["one"], ["one"], False)
    assert pipeline.run()["later"] == 5


def test_a_result_outlives_its_executor() -> None:
    with ParallelExecutor(2, backend="thread") as executor:
        result = Pipeline("p").map(same, range(10), name="m").run(executor=executor)
    assert list(result["m"]) == list(range(10))


# ---- outputs and values --------------------------------------------------------------------------------------------


def test_outputs_are_a_mapping_of_assets_in_add_order() -> None:
    outputs = good().outputs
    assert isinstance(outputs, Mapping)
    assert (list(outputs.items()), list(outputs.values()), len(outputs)) == ([("one", 1), ("second", 2)], [1, 2], 2)
    assert dict(outputs) == {"one": 1, "second": 2}


def test_outputs_are_shown_in_short_form_and_counted_where_they_are_many() -> None:
    few = (
        Pipeline("few")
        .add_step(lambda x: {"x": x}, "a", {"x": 1})
        .add_step(lambda: 1 // 0, "b")
        .add_step(ArithmeticError, "c")
        .run()
    )
    assert repr(few.outputs) == "{'a': {'x': 1}, 'c': <ArithmeticError>}"
    many = Pipeline("many")
    for i in range(21):
        many.add_step(dict, f"s{i}")
    assert repr(many.run().outputs) == "<outputs of 'many': 21 assets>"


def test_several_outputs_each_have_their_value() -> None:
    result = Pipeline("p").add_step(lambda: (1, 2), "split", outputs=["x", "y"]).add_step(one).run()
    assert list(result.outputs.items()) == [("x", 1), ("y", 2), ("one", 1)]
    assert len(result.outputs) == 3


def test_a_subscript_is_an_asset_or_a_steps_whole_value() -> None:
    result = Pipeline("p").add_step(lambda: (1, 2), "split", outputs=["x", "y"]).run()
    assert (result["x"], result["split"], "split" in result, "split" in result.outputs) == (1, (1, 2), True, False)


@pytest.mark.parametrize("of", [lambda r: r, lambda r: r.outputs])
def test_an_unknown_name_is_a_key_error_with_near_matches(of: Any) -> None:
    with pytest.raises(KeyError, match="no asset or step 'secnd' in this run; did you mean 'second'"):
        of(good())["secnd"]


def test_a_name_that_is_no_string_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="no asset or step 3"):
        good()[3]


def test_a_result_is_not_iterable_and_says_what_is() -> None:
    with pytest.raises(TypeError, match=r"iterate over result\.outputs \(values by name\) or result\.step_results"):
        list(Pipeline("p").add_step(one).run())  # type: ignore[call-overload]


def test_a_copy_of_a_result_is_the_result() -> None:
    result = Pipeline("p").add_step(one).run()
    assert copy.copy(result) is result
    assert copy.deepcopy(result) is result


def test_values_pickle_as_what_they_compare_to() -> None:
    result = Pipeline("p").map(abs, [-1, 2], name="m").run()
    assert pickle.loads(pickle.dumps([result["m"], result.outputs])) == [[1, 2], {"m": [1, 2]}]


def test_what_is_left_of_a_result_in_another_process_says_where_its_values_are() -> None:
    """It is not taken for a value by mistake, whatever is asked of it."""

    def nested() -> Any:
        return Pipeline("inner").add_step(one).run()

    with ParallelExecutor(1) as executor:
        elsewhere = Pipeline("outer").add_step(nested).run(executor=executor)["nested"]
    assert repr(elsewhere) == repr(copy.copy(elsewhere)) == "<PipelineResult 'inner' success: 1 success>"
    for ask in (lambda: elsewhere["one"], lambda: len(elsewhere), lambda: list(elsewhere), lambda: "one" in elsewhere):
        with pytest.raises(
            TypeError, match=r"without its values, which are in the process of its run: .* dict\(result\.outputs\)"
        ):
            ask()
    with pytest.raises(AttributeError, match="which are in the process of its run"):
        _ = elsewhere.outputs


def test_get_has_a_default() -> None:
    result = bad()
    assert (result.get("one"), result.get("nothing"), result.get("refuse", 7)) == (1, None, 7)
    assert (result.outputs.get("one"), result.outputs.get("nothing"), result.outputs.get("refuse", 7)) == (1, None, 7)


def test_outputs_hold_only_what_has_a_value() -> None:
    outputs = bad().outputs
    assert (list(outputs), len(outputs), "refuse" in outputs, "after" in outputs) == (["one"], 1, False, False)
    assert list(outputs.items()) == [("one", 1)]


def test_reading_a_failed_step_raises_from_its_exception() -> None:
    result = bad()
    for read in (lambda: result["refuse"], lambda: result.outputs["refuse"]):
        with pytest.raises(
            StepNotRunError, match=r"^refuse has no value: step 'refuse' failed: Refused: no luck$"
        ) as caught:
            read()
        assert isinstance(caught.value.__cause__, Refused)


def test_reading_a_step_that_did_not_run_tells_the_culprits_error() -> None:
    wanted = "^after has no value: it did not run, step 'refuse' failed: Refused: no luck$"
    with pytest.raises(StepNotRunError, match=wanted) as caught:
        bad()["after"]
    assert isinstance(caught.value.__cause__, Refused)


def test_reading_what_did_not_run_names_the_item_that_is_the_reason() -> None:
    result = Pipeline("p").map(reciprocal, [1, 0, 0], name="over").add_step(same, "it", inputs=["over"]).run()
    with pytest.raises(StepNotRunError, match=r"it did not run, step 'over\[1\]' failed: ZeroDivisionError: division"):
        result["it"]


def test_reading_a_cancelled_step_says_so() -> None:
    result = Pipeline("p").add_steps([refuse, one]).run(fail_fast=True)
    with pytest.raises(StepNotRunError, match=r"^one has no value: it was cancelled before it was finished$"):
        result["one"]


def test_reading_a_skipped_step_says_so() -> None:
    result = Pipeline("p").add_step(one, skip_if=lambda: True).run()
    with pytest.raises(StepNotRunError, match=r"^one has no value: it was skipped: its condition, or that of a step"):
        result["one"]


def test_a_long_message_is_cut_where_it_is_told() -> None:
    result = Pipeline("p").add_step(refuse, params={"why": "x" * 5_000 + "\nmore"}).run()
    with pytest.raises(StepNotRunError, match=r"Refused: x+\.\.\.$") as caught:
        result["refuse"]
    assert len(str(caught.value)) < 400
    assert max(map(len, result.summary().splitlines())) < 400


def test_an_output_of_a_failed_step_is_known_without_a_value() -> None:
    result = Pipeline("p").add_step(refuse, outputs=["x"]).run()
    with pytest.raises(StepNotRunError, match="refuse has no value"):
        result["x"]
    assert "x" in result


def test_a_dropped_value_says_so() -> None:
    result = Pipeline("p").add_step(one).add_step(same, "reader", inputs=["one"]).run(keep="leaves")
    assert (list(result.outputs.items()), result.step_results["one"].success) == ([("reader", 1)], True)
    with pytest.raises(
        StepNotRunError, match="one has no value: it was dropped after its last reader, because of keep="
    ):
        result["one"]


def test_names_to_keep_are_kept_beside_the_leaves() -> None:
    pipeline = Pipeline("p").add_step(one, "a").add_step(one, "b")
    pipeline.add_step(lambda a, b: a + b, "c")
    assert list(pipeline.run(keep=["b"]).outputs) == ["b", "c"]


# ---- step results --------------------------------------------------------------------------------------------------


def test_step_results_are_a_mapping_of_all_steps() -> None:
    steps = bad().step_results
    assert isinstance(steps, Mapping)
    assert [(name, each.state) for name, each in steps.items()] == [
        ("one", StepState.SUCCESS),
        ("refuse", StepState.FAILED),
        ("after", StepState.UPSTREAM_FAILED),
    ]
    assert (len(steps), "one" in steps, "x" in steps) == (3, True, False)


def test_a_glob_is_told_where_patterns_are_taken() -> None:
    result = Pipeline("p").add_step(int, "s_1").add_step(int, "s_2").run()
    with pytest.raises(
        KeyError, match=r"'s_\*' in this run; patterns are for inputs=, here pick from the names in \.outputs"
    ):
        result["s_*"]
    with pytest.raises(KeyError, match=r"'s_[12]\[2\]' in this run; step 's_2' is not a mapped step"):
        result["s_2[2]"]


def test_an_unknown_step_is_a_key_error_with_near_matches() -> None:
    with pytest.raises(KeyError, match="no step 'refus' in this run; did you mean 'refuse'"):
        bad().step_results["refus"]


def test_a_success_has_output_times_and_worker() -> None:
    done = good().step_results["one"]
    assert (done.success, done.output, done.error, done.exception, done.error_line) == (True, 1, None, None, None)
    assert (done.attempts, done.retries, done.worker, done.cached, done.skipped) == (1, 0, 0, False, False)
    assert done.duration_seconds >= 0
    assert done.started_at.tzinfo is dt.UTC


def test_a_failure_has_the_exception_and_its_text() -> None:
    failed = bad().step_results["refuse"]
    assert (failed.success, type(failed.exception), failed.error_line) == (False, Refused, "Refused: no luck")
    assert failed.error.startswith("no luck\nTraceback")
    assert "in refuse" in failed.error


def test_an_exception_without_words_is_told_by_its_class() -> None:
    failed = Pipeline("p").add_step(refuse, params={"why": ""}).run().step_results["refuse"]
    assert failed.error_line == "Refused"


def test_an_exception_that_cannot_be_printed_is_told_nevertheless() -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise ValueError

    def fail() -> None:
        raise Mute

    assert "Mute" in Pipeline("p").add_step(fail).run().step_results["fail"].error_line


def test_a_step_that_did_not_run_names_the_culprit() -> None:
    idle = bad().step_results["after"]
    assert (idle.exception, idle.error_line) == (None, "did not run: step 'refuse' failed")
    assert (idle.error, idle.attempts, idle.started_at, idle.duration_seconds, idle.worker) == (
        "did not run: step 'refuse' failed",
        0,
        None,
        0.0,
        None,
    )


def test_the_culprit_of_a_long_chain_is_found_in_one_pass() -> None:
    pipeline = Pipeline("chain").add_step(refuse, "n0")
    for k in range(1, 20_000):
        pipeline.add_step(same, f"n{k}", inputs=[f"n{k - 1}"])
    steps = pipeline.run().to_dict()["steps"]
    assert {each["error"] for name, each in steps.items() if name != "n0"} == {"did not run: step 'n0' failed"}


def test_a_cancelled_step_says_so() -> None:
    cancelled = Pipeline("p").add_steps([refuse, one]).run(fail_fast=True).step_results["one"]
    assert (cancelled.state, cancelled.error_line) == (StepState.CANCELLED, "cancelled before it was finished")


def test_the_repr_of_a_step_names_it_and_its_state() -> None:
    assert repr(bad().step_results["refuse"]) == "<StepResult 'refuse' failed>"


def test_states_compare_with_their_names() -> None:
    assert good().step_results["one"].state == "success"


# ---- mapped steps --------------------------------------------------------------------------------------------------


def test_a_mapped_step_is_a_lazy_sequence() -> None:
    values = mapped(1, 2, 4)["over"]
    assert isinstance(values, Sequence)
    assert (len(values), values[0], values[-1], values[1:], list(values)) == (3, 1.0, 0.25, [0.5, 0.25], [1, 0.5, 0.25])
    assert (0.5 in values, values.index(0.25), list(reversed(values))) == (True, 2, [0.25, 0.5, 1.0])


def test_values_compare_as_a_list_does() -> None:
    values = mapped(1, 2)["over"]
    assert values == [1.0, 0.5]
    assert values == mapped(1, 2)["over"]
    assert values != [1.0]
    assert values != "ab"


def test_an_index_out_of_range_is_an_index_error_that_names_the_step() -> None:
    with pytest.raises(IndexError, match="'over' has 2 items, index 2 is out of range"):
        mapped(1, 2)["over"][2]


def test_an_index_that_is_no_number_is_a_type_error_that_names_the_step() -> None:
    with pytest.raises(TypeError, match=r"items of 'abs': indices must be integers or slices, not 'a'"):
        Pipeline("p").map(abs, [1]).run()["abs"]["a"]


def test_a_failed_item_raises_where_it_is_read() -> None:
    values = mapped(1, 0, 2)["over"]
    assert (values[0], values[2]) == (1.0, 0.5)
    for read in (lambda: values[1], lambda: values[-2], lambda: values[:2], lambda: list(values)):
        with pytest.raises(
            StepNotRunError, match=r"over\[1\] has no value: step 'over\[1\]' failed: ZeroDiv"
        ) as caught:
            read()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_iteration_goes_as_far_as_there_are_values() -> None:
    values = iter(mapped(1, 0)["over"])
    assert next(values) == 1.0
    with pytest.raises(StepNotRunError):
        next(values)


def test_the_repr_of_values_loads_none() -> None:
    assert repr(mapped(1, 0)["over"]) == "<values of 'over': 2 items>"


def test_items_have_results_of_their_own() -> None:
    items = mapped(1, 0, 2).step_results["over"].items
    assert [(item.step_name, item.index, str(item.state)) for item in items] == [
        ("over[0]", 0, "success"),
        ("over[1]", 1, "failed"),
        ("over[2]", 2, "success"),
    ]
    assert [item.step_name for item in items[1:]] == ["over[1]", "over[2]"]
    assert (items[1].error_line, items[2].output) == ("ZeroDivisionError: division by zero", 0.5)


def test_an_item_is_found_by_its_name() -> None:
    result = mapped(1, 0, 2)
    steps = result.step_results
    assert (steps["over[1]"].index, steps["over[1]"].state, steps["over[2]"].output) == (1, "failed", 0.5)
    assert (result["over[2]"], result.get("over[1]", 7), result.get("over[3]", 8)) == (0.5, 7, 8)
    assert (list(steps), len(steps), steps.get("over[3]")) == (["over"], 1, None)
    for each in (result, steps):
        assert [name in each for name in ("over[0]", "over[2]")] == [True, True]
        assert [name in each for name in ("over[3]", "over[-1]", "over[01]", "over[x]", "r[0]")] == [False] * 5


def test_an_item_that_is_not_there_is_a_key_error_that_says_how_many_there_are() -> None:
    result = mapped(1, 2)
    for read in (lambda: result["over[2]"], lambda: result.step_results["over[2]"]):
        with pytest.raises(KeyError, match=r"step 'over\[2\]' in this run; step 'over' has 2 items"):
            read()
    with pytest.raises(KeyError, match=r"no step 'one\[0\]' in this run; step 'one' is not a mapped step"):
        good().step_results["one[0]"]


def test_a_step_that_is_called_like_an_item_goes_first() -> None:
    result = Pipeline("p").map(same, [1, 2], name="m").add_step(same, "m[0]", {"value": 3}).run()
    assert (result["m[0]"], result.step_results["m[0]"].index, result["m[1]"]) == (3, None, 2)


def test_an_ordinary_step_has_no_items() -> None:
    assert len(good().step_results["one"].items) == 0


def test_a_mapped_step_is_as_bad_as_its_worst_item() -> None:
    over = mapped(1, 0, 2, 0).step_results["over"]
    assert (over.state, over.success, over.error_line) == ("failed", False, "ZeroDivisionError: division by zero")
    assert (over.attempts, over.worker) == (1, None)
    assert [each.step_name for each in mapped(1, 0, 2, 0).failed] == ["over[1]", "over[3]"]


def test_a_mapped_step_without_items_is_a_success() -> None:
    result = mapped()
    assert (result.step_results["over"].state, list(result.outputs.items())) == ("success", [("over", [])])


def test_a_mapped_step_without_items_behind_a_failure_did_not_run() -> None:
    result = Pipeline("p").add_step(refuse).map(lambda x, refuse: x, [], name="m").run()
    assert (result.step_results["m"].state, "m" in result.outputs) == ("upstream_failed", False)


def test_a_mapped_step_with_some_values_is_an_output() -> None:
    result = mapped(1, 0)
    assert list(result.outputs) == ["over"]
    assert list(mapped(0).outputs) == []


# ---- words and numbers for others ----------------------------------------------------------------------------------


def test_the_summary_has_a_line_for_each_step() -> None:
    head, steps = bad().summary().split("Steps:\n")
    assert [line.partition(":")[0] for line in head.splitlines()] == ["Pipeline", "Run ID", "Status", "Duration"]
    assert "Status: ✗ FAILED" in head
    assert [line.split(":")[0] for line in steps.splitlines()] == ["  ✓ one", "  ✗ refuse", "  ✗ after"]
    assert "failed: Refused: no luck" in steps


def test_the_summary_of_a_success_says_so() -> None:
    assert "Status: ✓ SUCCESS" in good().summary()


def test_the_summary_counts_the_items_of_a_map() -> None:
    assert "over (2 items): " in mapped(1, 2).summary()


def test_the_retries_of_a_map_are_those_of_all_its_items() -> None:
    begun: dict[int, int] = {}

    def third_time(item: int) -> int:
        begun[item] = begun.get(item, 0) + 1
        if item and begun[item] < 3:
            raise OSError
        return item

    result = Pipeline("p").map(third_time, range(7), name="over", retry=RetryConfig(3, backoff=0)).run()

    done = result.step_results["over"]
    assert "over (7 items): " in result.summary()
    assert "[12 retries]" in result.summary()
    assert (done.attempts, done.retries, done.to_dict()["retries"], done.items[0].retries) == (3, 12, 12, 0)
    assert done.items[1].retries == 2


def test_a_result_is_true_if_the_run_succeeded() -> None:
    assert good()
    assert not bad()
    assert not Pipeline("p").add_step(one).run(dry_run=True)
    assert Pipeline("nothing").run()


def test_the_summary_counts_the_items_that_failed() -> None:
    summary = mapped(*range(-400, 600), *[0] * 333).summary()
    assert "(1,333 items): " in summary
    assert "s failed: 334 of 1,333 items failed, first: over[400]: ZeroDivisionError: division by zero" in summary


def test_the_summary_of_many_steps_puts_those_of_one_function_together() -> None:
    pipeline = Pipeline("many").add_step(one)
    for k in range(1_000):
        pipeline.add_step(same, f"same_{k}", {"value": k})
    for k in range(20):
        pipeline.add_step(refuse, f"refuse_{k}")
    lines = pipeline.map(reciprocal, [1, 0]).run().summary().splitlines()[5:]
    assert lines[:4] == [
        "  ✓ 1 one: 1 success",
        "  ✓ 1,000 same: 1,000 success",
        "  ✗ 20 refuse: 20 failed",
        "  ✗ 2 reciprocal: 1 success, 1 failed",
    ]
    assert len(lines) == 14
    assert "refuse_0" in lines[4]


def test_to_dict_is_json() -> None:
    result = Pipeline("p").add_steps([one, refuse, after]).map(reciprocal, [1, 0]).run()
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (data["pipeline_name"], data["success"], data["state"]) == ("p", False, "failed")
    assert dt.datetime.fromisoformat(data["start_time"]) == result.start_time
    assert list(data["steps"]) == ["one", "refuse", "after", "reciprocal"]
    assert data["steps"]["refuse"] | {"duration": 0} == {
        "state": "failed",
        "success": False,
        "duration": 0,
        "cached": False,
        "given": False,
        "attempts": 1,
        "retries": 0,
        "cpu_seconds": None,
        "max_rss": None,
        "fallback_used": False,
        "items": None,
        "error": "Refused: no luck",
    }
    assert data["steps"]["reciprocal"]["items"] == 2


# ---- laziness ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large() -> PipelineResult:
    pipeline = Pipeline("large")
    for k in range(300_000):
        pipeline.add_step(same, f"same_{k}", {"value": k})
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLOWYML_VERIFY_FAST_PATHS", raising=False)  # it takes seconds for so many
        return pipeline.run()


def test_looking_at_one_of_many_steps_makes_no_object_for_the_others(large: PipelineResult) -> None:
    tracemalloc.start()
    try:
        assert large.success
        assert (large["same_77"], large.step_results["same_78"].output, len(large.outputs)) == (77, 78, 300_000)
        assert large.failed == []
        assert "large" in repr(large)
        assert next(iter(large.outputs.values())) == 0
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_result_holds_its_arrays_and_no_objects(large: PipelineResult) -> None:
    gc.collect()
    assert sum(isinstance(each, StepResult) for each in gc.get_objects()) < 100


def values_alive() -> list[ValueStore]:
    return [each for each in gc.get_objects() if type(each) is ValueStore]


class NewValues:
    """Counts the values of the runs that begin after it was made.

    Those that were alive before are kept, so that no new object gets the address of one of them: a thread that an
    earlier test gave up may hold the values of its run until its step ends.
    """

    def __init__(self) -> None:
        self.before = values_alive()
        self.known = set(map(id, self.before))

    def count(self) -> int:
        return sum(id(each) not in self.known for each in values_alive())


def test_the_values_of_a_run_go_with_its_result(executor: Executor, uncollected: None) -> None:
    """A plain run is in no cycle, so large values do not wait for the garbage collector."""
    new = NewValues()
    # Without a global lock what the event loop has made waits for it, though not beyond the next run.
    late = int("t" in sys.abiflags and getattr(executor, "backend", "") == "async")
    for _ in range(3):
        pipeline = Pipeline("p").map(same, range(9), name="m").add_step(one)
        result = pipeline.run(executor=executor)
        assert result.success
        assert eventually(lambda: 1 <= new.count() <= 1 + late)  # a thread may be on its way out
        del pipeline, result
        assert eventually(lambda: new.count() <= late)


def test_threads_that_are_kept_hold_neither_the_first_run_nor_the_one_around_it(fresh_executor: Executor) -> None:
    seen = []

    def around() -> bool:
        success = Pipeline("inner").add_step(one).run(executor=fresh_executor).success
        seen.append(new.count())
        return success

    def remaining() -> int:
        gc.collect()
        return new.count()

    new = NewValues()
    assert Pipeline("outer").add_step(around).run(executor=LocalExecutor())["around"] is True
    assert seen[0] >= 1
    assert eventually(lambda: remaining() == 0, 5.0)


def test_a_million_items_make_no_objects() -> None:
    result = Pipeline("items").map(same, range(1_000_000), name="m").run()
    tracemalloc.start()
    try:
        values = result["m"]
        assert (len(values), values[999_999], result.step_results["m"].state) == (1_000_000, 999_999, "success")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_value_is_the_same_object_each_time(executor: Executor) -> None:
    result = Pipeline("p").add_step(same, "it", {"value": {"a": 1}}).run(executor=executor)
    assert result["it"] is result["it"]
    assert next(iter(result.outputs.values())) is result["it"]


def test_locally_the_value_is_the_very_object() -> None:
    value = object()
    assert Pipeline("p").add_step(same, "it", {"value": value}).run(executor=LocalExecutor())["it"] is value


def test_all_backends_iterate_alike(executor: Executor) -> None:
    pipeline = Pipeline("p").add_step(same, "bytes", {"value": b"raw"}).add_step(same, "none", {"value": None})
    pipeline.add_step(lambda: (b"x", [1]), "split", outputs=["x", "y"]).map(same, [b"i", "j"], name="m").add_step(
        refuse
    )
    result = pipeline.run(executor=executor)
    wanted = [("bytes", b"raw"), ("none", None), ("x", b"x"), ("y", [1]), ("m", [b"i", "j"])]
    assert list(result.outputs.items()) == wanted
    assert [(name, result[name]) for name in result.outputs] == wanted
    assert list(result["m"]) == [b"i", "j"]


def test_keep_leaves_keeps_what_others_only_wait_for() -> None:
    """`after` reads nothing, so the value has no last reader."""
    pipeline = Pipeline("after").add_step(lambda: [1], name="report").add_step(lambda report: 2, name="reads")
    pipeline.add_step(lambda: [3], name="alone").add_step(lambda: None, name="cleanup", after=["report", "alone"])
    assert dict(pipeline.run(keep="leaves").outputs) == {"reads": 2, "alone": [3], "cleanup": None}
