"""Hooks are told what happens, in order, in the thread that called `run()`, and stop nothing, on every executor."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from pipelines import planned

from flowyml import (
    ParallelExecutor,
    Pipeline,
    RunInterrupted,
    SerializationError,
    StepNotRunError,
    hooks,
    parallel_map,
    step,
)
from flowyml.runtime.run import Run


@pytest.fixture(autouse=True)
def nothing_stays() -> Any:
    """What a test registers for all pipelines is gone after it."""
    with hooks.scope():
        yield


def listened(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    """Register all four hooks, and return the list that they write to."""
    told: list[tuple[Any, ...]] = []
    at = pipeline.hooks
    at.on_pipeline_start(lambda pipeline: told.append(("pipeline", pipeline.name, "")))
    at.on_step_start(lambda step, inputs: told.append(("start", step.name, dict(inputs))))
    at.on_step_end(lambda step, result: told.append(("end", step.name, str(result.state))))
    at.on_pipeline_end(lambda pipeline, result: told.append(("over", pipeline.name, result.state)))
    return told


def load(n: int = 2) -> int:
    return n


def double(load: int) -> int:
    return 2 * load


def refuse(double: int) -> None:
    raise ValueError(double)


def never(refuse: None) -> None: ...


def plus(i: int, load: int) -> int:
    return i + load


def test_a_chain_is_told_in_order(executor: Any) -> None:
    pipeline = Pipeline("chain").add_step(load, params={"n": 3}).add_step(double)
    told = listened(pipeline)
    assert pipeline.run(executor=executor)["double"] == 6
    assert told == [
        ("pipeline", "chain", ""),
        ("start", "load", {"n": 3}),
        ("end", "load", "success"),
        ("start", "double", {"load": 3}),
        ("end", "double", "success"),
        ("over", "chain", "success"),
    ]


def test_every_step_ends_once_and_what_began_was_told_before(executor: Any) -> None:
    pipeline = Pipeline("states").add_steps([load, double, refuse, never])
    pipeline.map(plus, [10, 20], name="m")
    pipeline.add_step(lambda load: load, name="skipped", condition=lambda load: load > 5)
    pipeline.add_step(lambda skipped: skipped, name="with_it")
    told = listened(pipeline)
    pipeline.run(executor=executor)
    ends = {name: state for kind, name, state in told if kind == "end"}
    assert ends == {
        "load": "success",
        "double": "success",
        "refuse": "failed",
        "never": "upstream_failed",
        "m[0]": "success",
        "m[1]": "success",
        "skipped": "skipped",
        "with_it": "skipped",
    }
    assert sum(kind == "end" for kind, *_ in told) == len(ends)
    began = [name for kind, name, _ in told[1:] if kind == "start"]
    assert sorted(began) == ["double", "load", "m[0]", "m[1]", "refuse", "skipped"]
    at = {(kind, name): place for place, (kind, name, *_) in enumerate(told)}
    assert all(at["start", name] < at["end", name] for name in began)
    assert at["end", "load"] < at["start", "double"] < at["end", "double"] < at["start", "refuse"]
    assert [name for _, name, _ in told[-3:]] == ["never", "with_it", "states"]
    assert (told[0], told[-1]) == (("pipeline", "states", ""), ("over", "states", "failed"))


def test_all_hooks_are_called_in_the_thread_that_called_run(executor: Any) -> None:
    pipeline = Pipeline("threads").add_step(load).add_step(double)
    threads: set[int] = set()
    at = pipeline.hooks
    for register in (at.on_pipeline_start, at.on_pipeline_end, at.on_step_start, at.on_step_end):
        register(lambda *_: threads.add(threading.get_ident()))
    pipeline.run(executor=executor)
    assert threads == {threading.get_ident()}


def test_a_retried_step_begins_and_ends_once(executor: Any, tmp_path: Any) -> None:
    def flaky(folder: str) -> int:
        tries = len(list(Path(folder).iterdir()))
        Path(folder, str(tries)).touch()
        if tries < 2:
            raise OSError(tries)
        return tries

    pipeline = Pipeline("retried").add_step(flaky, params={"folder": str(tmp_path)}, retry=5)
    told = listened(pipeline)
    attempts: list[int] = []
    pipeline.hooks.on_step_end(lambda step, result: attempts.append(result.attempts))
    assert pipeline.run(executor=executor)["flaky"] == 2
    assert [kind for kind, *_ in told] == ["pipeline", "start", "end", "over"]
    assert attempts == [3]


def test_the_attempts_of_a_step_that_failed_for_good(executor: Any) -> None:
    pipeline = (
        Pipeline("failed").add_step(refuse, params={"double": 1}, retry=2).add_step(refuse, "once", {"double": 1})
    )
    attempts: dict[str, int] = {}
    pipeline.hooks.on_step_end(lambda step, result: attempts.update({step.name: result.attempts}))
    pipeline.run(executor=executor)
    assert attempts == {"refuse": 3, "once": 1}


def test_the_result_of_a_step_is_that_of_the_run(executor: Any) -> None:
    pipeline = Pipeline("results").add_step(load).add_step(double).add_step(refuse).map(plus, range(3), name="m")
    seen: dict[str, Any] = {}
    pipeline.hooks.on_step_end(lambda step, result: seen.update({step.name: result}))
    result = pipeline.run(executor=executor)
    for name, told in seen.items():
        final = result.step_results[name]
        assert told.to_dict() == final.to_dict()
        assert (told.step_name, told.started_at, told.worker) == (name, final.started_at, final.worker)
        assert (told.error, told.index) == (final.error, final.index)
        assert not told.success or told.output == final.output


def test_inputs_are_named_and_loaded(executor: Any) -> None:
    def pair() -> tuple[int, list[str]]:
        return 1, ["x"]

    def gather(*parts: Any, flag: bool, **others: Any) -> int:
        return len(parts)

    pipeline = (
        Pipeline("inputs").add_step(pair, outputs=["one", "many"]).map(plus, range(2), name="m", params={"load": 1})
    )
    pipeline.add_step(gather, inputs={"parts": ["m", "many"], "flag": "one"})
    inputs: dict[str, Any] = {}
    pipeline.hooks.on_step_start(lambda step, given: inputs.update({step.name: given}))
    pipeline.run(executor=executor)
    assert dict(inputs["gather"]) == {"parts": (1, 2, ["x"]), "flag": 1}
    assert dict(inputs["m[1]"]) == {"i": 1, "load": 1}
    assert dict(inputs["pair"]) == {}
    with pytest.raises(TypeError):
        inputs["m[1]"]["i"] = 2


def test_inputs_that_go_after_their_last_reader_were_there(executor: Any) -> None:
    pipeline = Pipeline("keep").add_step(lambda: [1, 2], name="load").add_step(sum, name="total", inputs=["load"])
    sums: list[int] = []
    pipeline.hooks.on_step_start(lambda step, inputs: sums.append(sum(inputs["iterable"])) if inputs else None)
    assert pipeline.run(executor=executor, keep="leaves")["total"] == 3
    assert sums == [3]


def test_what_is_looked_at_after_its_last_reader_is_gone_and_says_so(executor: Any) -> None:
    pipeline = Pipeline("late").add_step(lambda: [1, 2], name="load").add_step(sum, name="total", inputs=["load"])
    held: list[Any] = []
    pipeline.hooks.on_step_start(lambda step, inputs: held.append(inputs))
    pipeline.hooks.on_step_end(lambda step, result: held.append(result))
    pipeline.run(executor=executor, keep="leaves")
    with pytest.raises(StepNotRunError, match="load has no value: it was dropped after its last reader"):
        _ = held[1].output
    if isinstance(executor, ParallelExecutor) and executor.backend == "process":
        with pytest.raises(StepNotRunError, match="an argument of total has no value: it was dropped"):
            dict(held[2])
    else:
        assert dict(held[2]) == {"iterable": [1, 2]}


def test_the_step_is_as_it_stands_in_the_pipeline(executor: Any) -> None:
    @step(outputs=["own"])
    def work(x: int) -> int:
        return x

    pipeline = Pipeline("named").add_step(work, name="first", params={"x": 1}, outputs=["other"], retry=2)
    seen: list[Any] = []
    pipeline.hooks.on_step_start(lambda step, inputs: seen.append(step))
    pipeline.run(executor=executor)
    assert (seen[0].name, seen[0].outputs, seen[0].retry.max_attempts) == ("first", ("other",), 3)
    assert seen[0](4) == 4
    assert (work.name, work.outputs) == ("work", ("own",))


def test_steps_in_batches_end_once_each(executor: Any) -> None:
    """Who only wants the ends does not make steps travel one by one."""
    pipeline = Pipeline("many").map(lambda i: i, range(3_000), name="m")
    ended: list[str] = []
    pipeline.hooks.on_step_end(lambda step, result: ended.append(step.name))
    pipeline.run(executor=executor)
    assert sorted(ended) == sorted(f"m[{i}]" for i in range(3_000))


def test_mapped_steps_without_items_end_themselves(executor: Any) -> None:
    pipeline = Pipeline("empty").add_step(lambda: 3, name="number").add_step(list, name="nothing")
    pipeline.map(plus, over="number", name="refused", params={"load": 1})
    pipeline.map(plus, over="nothing", name="none", params={"load": 1})
    pipeline.map(plus, [], name="empty", params={"load": 1})
    told = listened(pipeline)
    pipeline.run(executor=executor)
    assert [tuple(each) for each in told[-4:-1]] == [
        ("end", "refused", "failed"),
        ("end", "none", "success"),
        ("end", "empty", "success"),
    ]
    assert not {"refused", "none", "empty"} & {name for kind, name, _ in told if kind == "start"}


def test_a_hook_that_raises_is_logged_and_stops_nothing(executor: Any, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline("broken").add_step(load).add_step(double)
    after: list[str] = []

    @pipeline.hooks.on_step_end
    def divides(step: Any, result: Any) -> None:
        1 / 0  # noqa: B018

    @pipeline.hooks.on_pipeline_start
    def leaves(pipeline: Any) -> None:
        raise SystemExit(3)

    pipeline.hooks.on_step_end(lambda step, result: after.append(step.name))
    with caplog.at_level(logging.ERROR, "flowyml"):
        result = pipeline.run(executor=executor)
    assert result.success
    assert after == ["load", "double"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert "leaves' of on_pipeline_start of pipeline 'broken' raised SystemExit; the run goes on" in said[0]
    assert "divides' of on_step_end of pipeline 'broken' raised ZeroDivisionError" in said[1]
    assert "1 / 0" in (caplog.records[1].exc_text or logging.Formatter().format(caplog.records[1]))
    assert "events.py" not in logging.Formatter().format(caplog.records[1])


def test_a_hook_that_always_raises_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline("loud").map(lambda i: i, range(50), name="m")
    pipeline.hooks.on_step_end(lambda step, result: step.nothing)
    with caplog.at_level(logging.ERROR, "flowyml"):
        assert pipeline.run().success
    assert len(caplog.records) == 3
    assert caplog.records[-1].getMessage().endswith("what else it raises in this run is not logged")


def test_ctrl_c_in_a_hook_ends_the_run(fresh_executor: Any) -> None:
    pipeline = Pipeline("stopped").add_step(load).add_step(double)
    told = listened(pipeline)
    pipeline.hooks.on_step_end(lambda step, result: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(RunInterrupted) as caught:
        pipeline.run(executor=fresh_executor)
    assert caught.value.result.state == "cancelled"
    assert told[-1] == ("over", "stopped", "cancelled")
    assert sum(kind == "over" for kind, *_ in told) == 1


def test_ctrl_c_in_a_step_is_told_at_the_end_alone() -> None:
    pipeline = Pipeline("step").add_step(lambda: os.kill(os.getpid(), signal.SIGINT), name="s").add_step(load)
    told = listened(pipeline)
    with pytest.raises(RunInterrupted):
        pipeline.run()
    assert told == [("pipeline", "step", ""), ("start", "s", {}), ("over", "step", "cancelled")]


def test_a_run_that_cannot_begin_is_told_as_over() -> None:
    lock = threading.Lock()
    pipeline = Pipeline("locked").map(lambda x: (lock, x), [1], name="s")
    told = listened(pipeline)
    with ParallelExecutor(1) as executor, pytest.raises(SerializationError):
        pipeline.run(executor=executor)
    assert told == [("pipeline", "locked", ""), ("over", "locked", "cancelled")]


def test_ctrl_c_in_the_last_hook_calls_it_once() -> None:
    pipeline = Pipeline("last").add_step(load)
    calls: list[str] = []

    @pipeline.hooks.on_pipeline_end
    def last(pipeline: Any, result: Any) -> None:
        calls.append(result.state)
        raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        pipeline.run()
    assert calls == ["success"]


def test_fail_fast_tells_what_was_cancelled(executor: Any) -> None:
    pipeline = Pipeline("fast").add_step(refuse, params={"double": 1}).add_step(load, after="refuse")
    pipeline.add_step(double)
    told = listened(pipeline)
    pipeline.run(executor=executor, fail_fast=True)
    assert {name: state for kind, name, state in told if kind == "end"}["refuse"] == "failed"
    assert sum(kind == "end" for kind, *_ in told) == 3


def test_hooks_of_all_pipelines_go_before_those_of_one() -> None:
    told: list[str] = []
    pipeline = Pipeline("both").add_step(load)
    pipeline.hooks.on_step_end(lambda step, result: told.append("own"))
    hooks.on_step_end(lambda step, result: told.append("all"))
    pipeline.run()
    Pipeline("other").add_step(load).run()
    assert told == ["all", "own", "all"]


def test_what_is_registered_during_a_run_counts_from_the_next_on() -> None:
    told: list[str] = []
    pipeline = Pipeline("late").add_step(load)
    pipeline.hooks.on_pipeline_start(lambda pipeline: pipeline.hooks.on_step_end(late))

    def late(step: Any, result: Any) -> None:
        told.append(step.name)

    pipeline.run()
    assert told == []
    pipeline.run()
    assert told == ["load"]


def test_registering_gives_the_function_back_and_removing_forgets_it() -> None:
    def tell(pipeline: Any, result: Any) -> None:
        told.append(1)

    told: list[int] = []
    pipeline = Pipeline("removed").add_step(load)
    assert pipeline.hooks.on_pipeline_end(tell) is tell
    assert "1 on_pipeline_end" in repr(pipeline.hooks)
    pipeline.hooks.remove(tell)
    pipeline.run()
    assert told == []
    with pytest.raises(ValueError, match="not registered"):
        pipeline.hooks.remove(tell)


def test_a_cell_that_is_run_again_replaces_its_hook() -> None:
    told: list[int] = []
    cell = "def tell(step, result):\n    told.append({})\nhooks.on_step_end(tell)"
    for number in (1, 2):
        exec(cell.format(number), {"__name__": "__main__", "told": told, "hooks": hooks})
    hooks.on_step_end(len_of := (lambda step, result: told.append(3)))
    hooks.on_step_end(lambda step, result: told.append(4))
    hooks.on_step_end(len_of)
    Pipeline("cell").add_step(load).run()
    assert told == [2, 3, 4]


def test_the_path_of_2_x() -> None:
    from flowyml.core.hooks import get_global_hooks, on_pipeline_start

    told: list[str] = []

    @on_pipeline_start
    def begin(pipeline: Any) -> None:
        told.append(pipeline.name)

    Pipeline("old").add_step(load).run()
    get_global_hooks().remove(begin)
    Pipeline("old").add_step(load).run()
    assert told == ["old"]


def test_run_async_calls_them_in_its_thread() -> None:
    pipeline = Pipeline("async").add_step(load)
    told = listened(pipeline)
    asyncio.run(pipeline.run_async())
    assert [kind for kind, *_ in told] == ["pipeline", "start", "end", "over"]


def test_a_rehearsal_and_parallel_map_tell_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    hooks.on_pipeline_start(lambda pipeline: told.append(pipeline.name))
    hooks.on_step_end(lambda step, result: told.append(step.name))
    Pipeline("dry").add_step(load).run(dry_run=True)
    assert parallel_map(abs, [1, -1]) == [1, 1]
    assert told == []


def test_a_run_inside_a_step_is_told_like_any_other() -> None:
    told: list[str] = []
    hooks.on_pipeline_end(lambda pipeline, result: told.append(pipeline.name))
    inner = Pipeline("inner").add_step(load)
    Pipeline("outer").add_step(lambda: inner.run().success, name="s").run()
    assert told == ["inner", "outer"]


def test_without_hooks_nothing_is_watched() -> None:
    """A run that tells nobody takes the same way as ever."""
    pipeline = Pipeline("quiet").add_step(load)
    run = Run(planned(pipeline))
    run.attach_hooks(pipeline, pipeline.hooks)
    assert (list(run.extensions), run.single_item_batches, run.poll_interval(0.1)) == ([], False, 0.1)
    assert run.claim == run.scheduler.claim


def test_a_decision_is_a_step_without_inputs() -> None:
    from flowyml import If

    pipeline = Pipeline("if").add_step(load)
    pipeline.add_control_flow(If(lambda ctx: ctx["load"] > 1, then_step=step(lambda load: load, name="yes")))
    told = listened(pipeline)
    with ParallelExecutor(1) as executor:
        pipeline.run(executor=executor)
    starts = [(name, inputs) for kind, name, inputs in told[1:-1] if kind == "start"]
    assert starts[0] == ("load", {})
    assert starts[1][1] == {}
    assert starts[2] == ("yes", {"load": 2})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: hooks.on_step_end("tell"), "expects a callable, got str"),
        (lambda: hooks.on_step_end(lambda result: None), r"on_step_end\(step, result\), but"),
        (lambda: hooks.on_step_start(lambda: None), r"on_step_start\(step, inputs\), but"),
        (lambda: hooks.on_pipeline_end(lambda pipeline, result, more: None), r"on_pipeline_end\(pipeline, result\)"),
        (lambda: hooks.on_pipeline_start(asyncio.sleep), "is a coroutine or generator function"),
    ],
)
def test_what_cannot_be_called_is_refused_at_once(make: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()
