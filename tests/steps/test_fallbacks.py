"""What stands in for a step that has failed for good, and who is told: the same on every executor (H4)."""

from __future__ import annotations

import functools
import json
import logging
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pipelines import planned
from worker_pools import under_load

from flowyml import (
    If,
    ParallelExecutor,
    Pipeline,
    StepError,
    StepTimeoutError,
    WorkerLostError,
    get_context,
    on_failure,
    retry,
    step,
    unless,
    when,
)
from flowyml.runtime.run import Run


def count(folder: str, name: str = "tries") -> int:
    """Note an attempt in a file, and return how many there were."""
    path = Path(folder, name)
    with path.open("a") as file:
        file.write("x")
    return path.stat().st_size


def refuse(x: int = 1, kind: type[BaseException] = ValueError) -> int:
    raise kind(x)


def value_of(executor: Any, func: Any = refuse, params: dict[str, Any] | None = None, **options: Any) -> Any:
    """Run one step and return its value."""
    result = Pipeline("one").add_step(func, "s", params, **options).run(executor=executor)
    result.raise_for_failure()
    return result["s"]


# ---- the value


def test_the_value_of_the_fallback_is_the_value_of_the_step(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(refuse, "s", fallback=lambda: 7).add_step(lambda s: s + 1, name="reads")
    result = pipeline.run(executor=executor)
    assert result.success
    assert (result["s"], result["reads"]) == (7, 8)
    done = result.step_results["s"]
    assert (str(done.state), done.fallback_used, done.attempts, done.retries) == ("success", True, 1, 0)
    assert isinstance(done.fallback_error, ValueError)
    assert (done.exception, done.error) == (None, None)
    reads = result.step_results["reads"]
    assert (reads.fallback_used, reads.fallback_error) == (False, None)
    json.dumps(result.to_dict())


def test_it_is_called_after_the_last_attempt_and_once(executor: Any, tmp_path: Path) -> None:
    def flaky(folder: str) -> int:
        raise OSError(count(folder))

    def stand_in(folder: str) -> tuple[int, int]:
        return count(folder, "fallback"), get_context().attempt

    params = {"folder": str(tmp_path)}
    result = Pipeline("p").add_step(flaky, "s", params, retry=2, fallback=stand_in).run(executor=executor)
    assert result["s"] == (1, 3)
    assert (tmp_path / "tries").stat().st_size == 3
    assert result.step_results["s"].attempts == 3
    assert str(result.step_results["s"].fallback_error) == "3"


def test_a_step_that_succeeds_needs_none(executor: Any) -> None:
    result = Pipeline("p").add_step(lambda: 1, name="s", fallback=lambda: 2).run(executor=executor)
    assert (result["s"], result.step_results["s"].fallback_used) == (1, False)


def test_fallback_on_chooses_the_failures(executor: Any) -> None:
    pipeline = Pipeline("p")
    for name, kind in (("caught", ConnectionResetError), ("exact", KeyError), ("other", ValueError)):
        pipeline.add_step(refuse, name, {"kind": kind}, fallback=lambda: 0, fallback_on=[ConnectionError, KeyError])
    result = pipeline.run(executor=executor)
    states = {name: (str(done.state), done.fallback_used) for name, done in result.step_results.items()}
    assert states == {"caught": ("success", True), "exact": ("success", True), "other": ("failed", False)}


def test_a_fallback_that_fails_fails_the_step_and_says_for_what_it_stood(executor: Any, tmp_path: Path) -> None:
    def worse(folder: str) -> None:
        raise LookupError(count(folder))

    def bad(folder: str) -> None:
        raise ValueError("first")

    pipeline = Pipeline("p").add_step(bad, "s", {"folder": str(tmp_path)}, retry=1, fallback=worse)
    done = pipeline.run(executor=executor).step_results["s"]
    assert isinstance(done.exception, LookupError)
    assert done.exception.__notes__[-1] == "raised by the fallback, which stood in for: ValueError: first"
    assert isinstance(done.fallback_error, ValueError)
    assert (done.fallback_used, done.attempts) == (False, 2)
    assert (tmp_path / "tries").stat().st_size == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_it_stands_in_for_whatever_was_raised(executor: Any, kind: type[BaseException]) -> None:
    assert value_of(executor, params={"kind": kind}, fallback=lambda: "stayed") == "stayed"


def test_fail_fast_does_not_count_what_a_fallback_saved(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(refuse, "s", fallback=lambda: 1).add_step(lambda s: s, name="later")
    assert pipeline.run(executor=executor, fail_fast=True)["later"] == 1


def test_items_of_a_map_fall_back_one_by_one(executor: Any) -> None:
    def reciprocal(i: int, scale: int) -> float:
        return scale / i

    pipeline = Pipeline("p").map(
        reciprocal, [0, 1, 2, 0, 4], name="m", params={"scale": 4}, fallback=lambda i: f"no {i}"
    )
    result = pipeline.run(executor=executor)
    assert list(result["m"]) == ["no 0", 4.0, 2.0, "no 0", 1.0]
    assert [item.fallback_used for item in result.step_results["m"].items] == [True, False, False, True, False]
    assert result.step_results["m"].fallback_used
    assert result.step_results["m"].attempts == 1


def test_many_items_in_batches_fall_back(executor: Any) -> None:
    def odd(i: int) -> int:
        if i % 3 == 0:
            raise ValueError(i)
        return i

    result = Pipeline("p").map(odd, range(3_000), name="m", fallback=lambda i: -i).run(executor=executor)
    assert list(result["m"]) == [i if i % 3 else -i for i in range(3_000)]


def test_many_steps_in_batches_fall_back(executor: Any) -> None:
    def odd(i: int, j: int = 0) -> int:
        if i % 3 == 0:
            raise ValueError(i)
        return i + j

    pipeline = Pipeline("p")
    for i in range(600):
        params = {"i": i} if i % 2 else {"i": i, "j": 1}
        pipeline.add_step(odd, f"s{i}", params, fallback=lambda i, j: (i, j))
    result = pipeline.run(executor=executor)
    expected = [(i, 1 - i % 2) if i % 3 == 0 else i + 1 - i % 2 for i in range(600)]
    assert [result[f"s{i}"] for i in range(600)] == expected


def test_several_outputs_come_from_the_fallback(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(refuse, "s", outputs=["a", "b"], fallback=lambda: {"b": 2, "a": 1})
    pipeline.add_step(refuse, "t", outputs=["c", "d"], fallback=lambda: 3)
    result = pipeline.run(executor=executor)
    assert (result["a"], result["b"]) == (1, 2)
    assert "declared 2 outputs" in (result.step_results["t"].error_line or "")


def test_values_that_a_fallback_reads_stay_until_then(executor: Any) -> None:
    def bad(load: list[int]) -> int:
        raise ValueError(load)

    pipeline = Pipeline("p").add_step(lambda: [1, 2], name="load").add_step(bad, "s", fallback=sum)
    assert pipeline.run(executor=executor, keep="leaves")["s"] == 3


def test_the_context_is_that_of_the_step(executor: Any) -> None:
    def stand_in() -> tuple[str, dict[str, Any], int]:
        here = get_context()
        return here.step_name, dict(here.params), here.attempt

    assert value_of(executor, params={"x": 5}, fallback=stand_in) == ("s", {"x": 5}, 1)


def test_random_numbers_of_a_fallback_are_reproducible(executor: Any) -> None:
    def draw() -> float:
        import random

        return random.random()

    pipeline = Pipeline("p").add_step(refuse, "s", fallback=draw)
    assert pipeline.run(executor=executor, seed=3)["s"] == pipeline.run(seed=3)["s"]


# ---- what it is called with


async def soon(x: int) -> int:
    import asyncio

    await asyncio.sleep(0)
    return x * 10


class Store:
    def __init__(self, value: int) -> None:
        self.value = value

    def latest(self, x: int) -> int:
        return self.value + x


TAKES: dict[str, tuple[Any, Any]] = {
    "nothing": (lambda: "none", "none"),
    "some by name": (lambda y: y, 2),
    "all by name": (lambda x, y, z: (x, y, z), (1, 2, 3)),
    "in another order": (lambda z, x: (z, x), (3, 1)),
    "by keyword": (lambda *, y, x=9: (y, x), (2, 1)),
    "with more of its own": (lambda x, more=4: (x, more), (1, 4)),
    "by position": (lambda a, b: (a, b), (1, 2)),
    "one": (lambda value: value, 1),
    "any": (lambda *values: values, (1, 2)),
    "any by name": (lambda **values: dict(sorted(values.items())), {"x": 1, "y": 2, "z": 3}),
    "positional only": (lambda x, /, z: (x, z), (1, 3)),
    "a builtin": (max, 2),
    "a class": (range, range(1, 2)),
    "a partial": (functools.partial(divmod, 7), (3, 1)),
    "defaults of its own": (lambda default=5: default, 5),
    "a method": (Store(5).latest, 6),
    "a coroutine": (soon, 10),
}


@pytest.mark.parametrize("case", TAKES)
def test_it_takes_what_it_has_parameters_for(executor: Any, case: str) -> None:
    def three(x: int, y: int, *, z: int = 3) -> None:
        raise ValueError(x)

    fallback, expected = TAKES[case]
    assert value_of(executor, three, {"x": 1, "y": 2}, fallback=fallback) == expected


def test_arguments_from_everywhere(executor: Any) -> None:
    def bad(a: int, *rest: int, key: int, **others: int) -> None:
        raise ValueError(a)

    pipeline = Pipeline("p", context={"key": 30}).add_step(lambda: 1, name="one").map(abs, [-2, 3], name="m")
    inputs = {"a": "one", "rest": ["m"], "more": "one"}
    by_name = pipeline.add_step(bad, "named", inputs=inputs, fallback=lambda key, a: (a, key))
    by_name.add_step(bad, "same", inputs=inputs, fallback=lambda *args, **kwargs: (args, kwargs))
    result = pipeline.run(executor=executor)
    assert result["named"] == (1, 30)
    assert result["same"] == ((1, 2, 3), {"key": 30, "more": 1})


def test_a_builtin_step_that_tells_no_signature(executor: Any) -> None:
    result = Pipeline("p").add_step(max, "s", {"a": 1, "b": "x"}, fallback=lambda a, b: (b, a)).run(executor=executor)
    assert result["s"] == ("x", 1)


def test_conditions_are_not_asked_again_and_keep_their_own_arguments(executor: Any) -> None:
    @step(fallback=lambda x: -x)
    @when(lambda flag: flag)
    @unless(lambda x: x > 5)
    def guarded(x: int) -> int:
        raise ValueError(x)

    pipeline = Pipeline("p", context={"flag": True})
    pipeline.add_step(guarded, "runs", {"x": 1}).add_step(guarded, "skipped", {"x": 6})
    result = pipeline.run(executor=executor)
    assert result["runs"] == -1
    assert str(result.step_results["skipped"].state) == "skipped"


def test_a_condition_that_raises_is_a_failure_like_any_other(executor: Any) -> None:
    assert value_of(executor, params={"x": 1}, condition=lambda x: x / 0, fallback=lambda x: x) == 1


def test_a_branch_may_fall_back(executor: Any) -> None:
    pipeline = Pipeline("p").add_step(lambda: 1, name="load")
    pipeline.add_control_flow(If(lambda ctx: ctx["load"] == 1, then_step=step(refuse, fallback=lambda: 3)))
    assert pipeline.run(executor=executor)["refuse"] == 3


def test_an_async_step_falls_back(executor: Any) -> None:
    async def bad(x: int) -> int:
        raise ValueError(x)

    pipeline = (
        Pipeline("p").add_step(bad, "a", {"x": 2}, fallback=soon).add_step(bad, "b", {"x": 2}, fallback=lambda: 0)
    )
    result = pipeline.run(executor=executor)
    assert (result["a"], result["b"]) == (20, 0)


# ---- where the step did not come back


def test_a_crash_falls_back_in_another_process(tmp_path: Path) -> None:
    def dies(folder: str) -> None:
        count(folder)
        os.kill(os.getpid(), signal.SIGKILL)

    with ParallelExecutor(2) as executor:
        pipeline = Pipeline("p").add_step(dies, "s", {"folder": str(tmp_path)}, retry=1, fallback=os.getpid)
        pipeline.map(lambda i: i, range(50), name="m")
        result = pipeline.run(executor=executor)
    assert result.success
    assert result["s"] != os.getpid()
    assert isinstance(result.step_results["s"].fallback_error, WorkerLostError)
    assert result.step_results["s"].attempts == 2
    assert (tmp_path / "tries").stat().st_size == 2
    assert list(result["m"]) == list(range(50))


def test_a_fallback_that_crashes_is_the_failure(tmp_path: Path) -> None:
    with ParallelExecutor(1) as executor:
        pipeline = Pipeline("p").add_step(refuse, "s", fallback=lambda: os._exit(3))
        done = pipeline.run(executor=executor).step_results["s"]
    assert isinstance(done.exception, WorkerLostError)
    assert isinstance(done.fallback_error, ValueError)


def test_a_result_that_does_not_pickle_falls_back() -> None:
    with ParallelExecutor(1) as executor:
        assert value_of(executor, threading.Lock, fallback=lambda: "none") == "none"


def test_a_fallback_that_does_not_pickle_is_told_before_anything_runs() -> None:
    from flowyml import SerializationError

    lock = threading.Lock()
    pipeline = Pipeline("p").add_step(refuse, "s", fallback=lambda: lock)
    with ParallelExecutor(1) as executor, pytest.raises(SerializationError, match=r"'s'.*lock"):
        pipeline.run(executor=executor)


def test_an_importable_step_with_its_fallback_goes_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stages_of_fallback.py").write_text(
        "from flowyml import step\n"
        "def cached(): return 'cached'\n"
        "@step(fallback=cached)\n"
        "def live(): raise OSError('down')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import stages_of_fallback

    with ParallelExecutor(1) as executor:
        assert value_of(executor, stages_of_fallback.live) == "cached"
    assert pickle.loads(pickle.dumps(stages_of_fallback.live)) is stages_of_fallback.live
    del sys.modules["stages_of_fallback"]


def test_a_step_that_takes_too_long_falls_back(fresh_executor: Any) -> None:
    def slow(x: int) -> int:
        time.sleep(60)
        return x

    began = time.monotonic()
    pipeline = Pipeline("p").add_step(slow, "s", {"x": 2}, timeout=under_load(0.3), retry=1, fallback=lambda x: -x)
    result = pipeline.run(executor=fresh_executor)
    assert result["s"] == -2
    assert isinstance(result.step_results["s"].fallback_error, StepTimeoutError)
    assert result.step_results["s"].attempts == 2
    assert time.monotonic() - began < under_load(10)


def test_a_fallback_has_the_time_limit_for_itself(fresh_executor: Any) -> None:
    pipeline = Pipeline("p").add_step(refuse, "s", timeout=under_load(0.3), fallback=lambda: time.sleep(60))
    done = pipeline.run(executor=fresh_executor).step_results["s"]
    assert str(done.state) == "timed_out"
    assert isinstance(done.fallback_error, ValueError)


# ---- who is told


def test_one_warning_names_what_comes_from_fallbacks(executor: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "flowyml"):
        Pipeline("p").map(refuse, range(5), name="m", fallback=lambda: 0).run(executor=executor)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].split("\n") == [
        "pipeline 'p': 5 values come from fallbacks",
        "  m[0]: ValueError: 0",
        "  m[1]: ValueError: 1",
        "  m[2]: ValueError: 2",
        "  ... and 2 more",
    ]


def test_the_summary_marks_them() -> None:
    summary = (
        Pipeline("p").add_step(refuse, "s", retry=1, fallback=lambda: 0).add_step(lambda: 1, name="t").run().summary()
    )
    assert "s [1 retry] [fallback]" in " ".join(summary.replace(": 0.00s", "").split("\n")[5].split())
    assert "fallback" not in summary.split("\n")[6]


def test_on_failure_gets_the_exception_in_the_thread_of_run(executor: Any) -> None:
    told: list[Any] = []
    pipeline = Pipeline("p").add_step(
        refuse, "s", {"x": 4}, retry=1, on_failure=lambda e: told.append((type(e), str(e)))
    )
    pipeline.add_step(refuse, "t", on_failure=lambda e: told.append(threading.current_thread()))
    pipeline.add_step(lambda: 1, name="fine", on_failure=told.append)
    pipeline.run(executor=executor)
    assert len(told) == 2
    assert (ValueError, "4") in told
    assert threading.current_thread() in told


def test_on_failure_gets_the_result_if_it_takes_two(executor: Any) -> None:
    told: list[Any] = []

    def tell(error: BaseException, result: Any) -> None:
        told.append((str(error), result.step_name, str(result.state), result.attempts, result.error_line))

    Pipeline("p").map(refuse, [0, 1], name="m", retry=1, on_failure=tell).run(executor=executor)
    lines = [(f"{i}", f"m[{i}]", "failed", 2, f"ValueError: {i}") for i in (0, 1)]
    assert sorted(told) == lines


def test_on_failure_with_a_default_of_its_own_gets_one(executor: Any) -> None:
    told: list[Any] = []

    def tell(error: BaseException, channel: str = "#alerts") -> None:
        told.append(channel)

    Pipeline("p").add_step(refuse, "s", on_failure=tell).run(executor=executor)
    assert told == ["#alerts"]


def test_on_failure_is_told_although_a_fallback_stood_in(executor: Any) -> None:
    told: list[Any] = []

    def tell(error: BaseException, result: Any) -> None:
        told.append((type(error).__name__, result.success, result.fallback_used))

    def worse() -> None:
        raise LookupError

    pipeline = Pipeline("p").add_step(refuse, "saved", fallback=lambda: 1, on_failure=tell)
    pipeline.add_step(refuse, "lost", fallback=worse, on_failure=tell)
    pipeline.run(executor=executor)
    assert sorted(told) == [("LookupError", False, False), ("ValueError", True, True)]


def test_on_failure_that_raises_is_logged(executor: Any, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline("p").add_step(refuse, "s", on_failure=lambda error: error.nothing)  # type: ignore[attr-defined]
    with caplog.at_level(logging.ERROR, "flowyml"):
        result = pipeline.run(executor=executor)
    assert isinstance(result.step_results["s"].exception, ValueError)
    assert "on_failure of step 's' of pipeline 'p' raised AttributeError; the run goes on" in caplog.messages[0]


def test_steps_with_handlers_stay_in_batches(executor: Any) -> None:
    told: list[str] = []

    def odd(i: int) -> int:
        if i % 1000 == 999:
            raise ValueError(i)
        return i

    pipeline = Pipeline("p").map(odd, range(3_000), name="m", on_failure=lambda error: told.append(str(error)))
    pipeline.run(executor=executor)
    assert sorted(told) == ["1999", "2999", "999"]


def test_without_a_fallback_steps_are_called_as_ever() -> None:
    pipeline = Pipeline("p").add_step(lambda: 1, name="s", retry=1)
    run = Run(planned(pipeline))
    run.attach_hooks(pipeline, pipeline.hooks)
    assert (run.has_fallbacks, list(run.extensions), run.single_item_batches) == (False, [], False)
    assert run.call.__qualname__.startswith("StepCaller._plain")


# ---- how it is said


def test_the_decorator_of_the_documentation() -> None:
    """`@step` over `@retry(...)` over `@on_failure(...)`, and the step can still be called."""

    @step
    @retry(max_attempts=2)
    @on_failure(lambda: {"status": "unavailable"})
    def fetch() -> dict[str, str]:
        raise OSError("down")

    result = Pipeline("p").add_step(fetch).run()
    assert result["fetch"] == {"status": "unavailable"}
    assert result.step_results["fetch"].attempts == 2
    with pytest.raises(OSError, match="down"):
        fetch()


def test_above_the_step_and_at_add_step() -> None:
    @on_failure(lambda: 1)
    @retry(3)
    @step
    def fetch() -> int:
        raise OSError

    assert fetch.fallback() == 1
    assert fetch.retry.max_attempts == 3
    pipeline = Pipeline("p").add_step(fetch, "own").add_step(fetch, "other", fallback=lambda: 2)
    result = pipeline.run()
    assert (result["own"], result["other"]) == (1, 2)


def test_a_step_may_stand_in_for_another(executor: Any) -> None:
    @step
    def cached(x: int) -> int:
        return -x

    assert value_of(executor, params={"x": 3}, fallback=cached) == -3


def test_notifications_of_2_x_are_logged_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.warns(UserWarning, match="'slack'.*sends nothing"):
        notify = on_failure(action="slack", recipients=["#ml-alerts"], include_logs=True)
    with caplog.at_level(logging.ERROR, "flowyml"):
        Pipeline("p").add_step(refuse, "s", on_failure=notify).add_step(refuse, "t", on_failure=on_failure()).run()
    assert caplog.messages[:2] == ["step 's' failed: ValueError: 1", "step 't' failed: ValueError: 1"]


def test_raise_for_failure_has_the_fallbacks_exception_as_its_cause() -> None:
    def worse() -> None:
        raise LookupError("gone")

    with pytest.raises(StepError) as caught:
        value_of(None, fallback=worse)
    assert isinstance(caught.value.__cause__, LookupError)


def test_items_that_only_the_run_knows_fall_back(executor: Any) -> None:
    def reciprocal(i: int) -> float:
        return 1 / i

    pipeline = Pipeline("p").add_step(lambda: [2, 0, 4], name="load")
    pipeline.map(reciprocal, over="load", name="m", fallback=lambda i: f"no {i}")
    pipeline.map(refuse, over="m", name="n", fallback=lambda x: [x])
    result = pipeline.run(executor=executor)
    assert list(result["m"]) == [0.5, "no 0", 0.25]
    assert list(result["n"]) == [[0.5], ["no 0"], [0.25]]


def test_on_failure_is_told_of_a_map_without_a_list(executor: Any) -> None:
    told: list[Any] = []
    pipeline = Pipeline("p").add_step(lambda: 3, name="load")
    pipeline.map(refuse, over="load", name="m", on_failure=lambda error: told.append(type(error).__name__))
    assert not pipeline.run(executor=executor).success
    assert told == ["FanOutError"]
