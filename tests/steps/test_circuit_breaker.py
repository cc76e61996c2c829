"""Circuit breakers: what keeps failing is left alone for a while, by hand and in runs, on every executor (H4)."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flowyml import CircuitBreaker, CircuitOpenError, ParallelExecutor, Pipeline, WorkerLostError, retry, step
from flowyml.steps.circuit_breaker import Circuit


def calls(folder: Path) -> int:
    """Return how often a step noted that it was called."""
    path = folder / "calls"
    return path.stat().st_size if path.exists() else 0


def note(folder: str) -> None:
    with Path(folder, "calls").open("a") as file:
        file.write("x")


def down(i: int, folder: str) -> int:
    """Fail, always."""
    note(folder)
    raise ConnectionError(f"no answer to {i}")


def states(result: Any, name: str = "m") -> list[str]:
    return [str(item.state) for item in result.step_results[name].items]


# ---- the machine


def test_it_opens_after_failures_in_a_row_and_tries_once() -> None:
    circuit = Circuit(CircuitBreaker(3, timeout=10), "api")
    for now in range(3):
        assert circuit.admit("a", now) is None
        assert circuit.state(now) == "closed"
        circuit.record("a", OSError(now), now)
    assert circuit.state(2) == "open"
    refusal = circuit.admit("b", 5)
    assert refusal is not None
    assert (refusal.breaker, refusal.failures, refusal.last, refusal.retry_after) == ("api", 3, "OSError: 2", 7)
    assert circuit.state(12) == "half_open"
    assert circuit.admit("b", 12) is None
    assert circuit.admit("b", 12) is None  # the trial may ask again
    assert "under way" in str(circuit.admit("c", 13))
    circuit.record("b", None, 14)
    assert circuit.state(14) == "closed"
    assert circuit.failures == 0


def test_a_trial_that_fails_opens_it_again() -> None:
    circuit = Circuit(CircuitBreaker(1, timeout=10), "api")
    circuit.record("a", OSError(), 0)
    assert circuit.admit("b", 10) is None
    circuit.record("b", OSError(), 11)
    assert circuit.refuses("c", 20)
    assert not circuit.refuses("c", 21)


def test_a_value_in_between_begins_the_count_anew() -> None:
    circuit = Circuit(CircuitBreaker(2), "api")
    for error in (OSError(), None, OSError(), None, OSError()):
        circuit.record("a", error, 0)
    assert circuit.state(0) == "closed"


def test_what_began_before_it_opened_no_longer_counts() -> None:
    circuit = Circuit(CircuitBreaker(1, timeout=10), "api")
    circuit.record("a", OSError("first"), 0)
    circuit.record("late", None, 1)
    circuit.record("later", OSError("other"), 9)
    assert circuit.state(1) == "open"
    assert not circuit.refuses("b", 10)
    assert str(circuit.last_error) == "first"


def test_other_exceptions_are_answers() -> None:
    circuit = Circuit(CircuitBreaker(2, expected_exceptions=[OSError]), "api")
    for error in (ConnectionError(), ValueError(), ConnectionError()):
        circuit.record("a", error, 0)
    assert circuit.state(0) == "closed"
    circuit.record("a", FileNotFoundError(), 0)
    assert circuit.state(0) == "open"


def test_a_recovery_is_wary() -> None:
    circuit = Circuit(CircuitBreaker(3, timeout=1, recovery_timeout=100), "api")
    for _ in range(3):
        circuit.record("a", OSError(), 0)
    assert circuit.admit("b", 2) is None
    circuit.record("b", None, 2)
    circuit.record("c", OSError(), 50)
    assert circuit.state(50) == "open"
    assert circuit.admit("d", 52) is None
    circuit.record("d", None, 52)
    circuit.record("e", OSError(), 151)
    assert circuit.state(151) == "closed"


def test_a_trial_that_was_not_made_leaves_its_place() -> None:
    circuit = Circuit(CircuitBreaker(1, timeout=1), "api")
    circuit.record("a", OSError(), 0)
    assert circuit.admit("b", 2) is None
    assert circuit.refuses("c", 2)
    circuit.release("b")
    assert circuit.admit("c", 2) is None


# ---- by hand


def test_by_hand_it_calls_and_then_refuses() -> None:
    breaker = CircuitBreaker(failure_threshold=2, timeout=60, expected_exceptions=ConnectionError)
    made: list[int] = []

    def fetch(n: int, *, fails: bool) -> int:
        made.append(n)
        if fails:
            raise ConnectionError(n)
        return n

    assert breaker.call(fetch, 1, fails=False) == 1
    for n in (2, 3):
        with pytest.raises(ConnectionError):
            breaker.call(fetch, n, fails=True)
    assert (breaker.state, breaker.failure_count) == ("open", 2)
    with pytest.raises(
        CircuitOpenError, match=r"'fetch' is open after 2 failures in a row.*ConnectionError: 3"
    ) as caught:
        breaker.call(fetch, 4, fails=False)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert made == [1, 2, 3]
    breaker.reset()
    assert breaker.call(fetch, 5, fails=False) == 5


def test_it_closes_after_its_time() -> None:
    breaker = CircuitBreaker(1, timeout=0.05)
    with pytest.raises(ValueError, match="invalid"):
        breaker.call(int, "x")
    time.sleep(0.06)
    assert breaker.state == "half_open"
    assert breaker.call(int, "7") == 7
    assert breaker.state == "closed"


def test_it_guards_a_plain_function() -> None:
    @CircuitBreaker(1, name="the service")
    def fetch() -> None:
        """Fetch."""
        raise OSError("down")

    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch.")
    with pytest.raises(OSError, match="down"):
        fetch()
    with pytest.raises(CircuitOpenError, match="'the service'"):
        fetch()


def test_it_guards_coroutines() -> None:
    @CircuitBreaker(1)
    async def fetch() -> None:
        await asyncio.sleep(0)
        raise OSError("down")

    async def both() -> None:
        with pytest.raises(OSError, match="down"):
            await fetch()
        with pytest.raises(CircuitOpenError):
            await fetch()

    asyncio.run(both())


def test_a_coroutine_that_is_cancelled_says_nothing() -> None:
    breaker = CircuitBreaker(1)

    async def cancelled() -> None:
        task = asyncio.create_task(breaker.call(asyncio.sleep, 10))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert breaker.state == "closed"


def test_a_copy_begins_closed() -> None:
    breaker = CircuitBreaker(1, 2, 3, [OSError], name="api")
    with pytest.raises(FileNotFoundError):
        breaker.call(open, "none/none")
    copy = pickle.loads(pickle.dumps(breaker))
    assert (repr(copy), copy.state, breaker.state) == (repr(breaker), "closed", "open")
    assert copy.expected_exceptions == (OSError,)


# ---- in a run


def test_after_so_many_failures_nothing_is_called(executor: Any, tmp_path: Path) -> None:
    pipeline = Pipeline("p").map(
        down, range(50), name="m", params={"folder": str(tmp_path)}, circuit_breaker=CircuitBreaker(5, timeout=60)
    )
    result = pipeline.run(executor=executor)
    assert states(result) == ["failed"] * 50
    errors = [item.exception for item in result.step_results["m"].items]
    refused = [error for error in errors if isinstance(error, CircuitOpenError)]
    # Whatever the others are at when the fifth fails still ends: one more on two workers.
    assert 5 <= calls(tmp_path) <= 6
    assert len(refused) == 50 - calls(tmp_path)
    assert "the circuit of 'down' is open after 5 failures in a row" in str(refused[0])
    assert "ConnectionError: no answer to" in str(refused[0])
    assert isinstance(refused[0].last_error, ConnectionError)


def test_what_is_refused_was_not_begun(executor: Any, tmp_path: Path) -> None:
    again = retry(max_attempts=4, on=[ConnectionError, CircuitOpenError])
    pipeline = Pipeline("p").map(
        down, range(5), name="m", params={"folder": str(tmp_path)}, circuit_breaker=CircuitBreaker(3), retry=again
    )
    told = []
    pipeline.hooks.on_step_end(lambda step, result: told.append((result.step_name, result.attempts)))
    items = pipeline.run(executor=executor).step_results["m"].items
    assert sum(item.attempts for item in items) == calls(tmp_path)
    assert min(item.attempts for item in items) == 0
    assert sorted(told) == [(item.step_name, item.attempts) for item in items]


def test_steps_share_a_circuit_by_their_breaker(executor: Any, tmp_path: Path) -> None:
    api = CircuitBreaker(2, timeout=60, name="api")

    @step(circuit_breaker=api)
    def other(folder: str) -> None:
        note(folder)

    params = {"folder": str(tmp_path)}
    pipeline = Pipeline("p").map(down, [1, 2], name="m", params=params, circuit_breaker=api, fallback=lambda: 0)
    pipeline.add_step(other, params=params, after="m")
    pipeline.add_step(down, "own", {"i": 3, **params}, after="m", circuit_breaker=CircuitBreaker(2))
    result = pipeline.run(executor=executor)
    assert isinstance(result.step_results["other"].exception, CircuitOpenError)
    assert "'api'" in (result.step_results["other"].error_line or "")
    assert isinstance(result.step_results["own"].exception, ConnectionError)
    assert calls(tmp_path) == 3


def test_other_steps_go_on_in_batches(executor: Any, tmp_path: Path) -> None:
    params = {"folder": str(tmp_path)}
    pipeline = Pipeline("p").map(lambda i: i, range(2_000), name="free")
    pipeline.map(down, range(300), name="m", params=params, circuit_breaker=CircuitBreaker(3, timeout=60))
    for i in range(300):
        pipeline.add_step(lambda x: x, name=f"s{i}", params={"x": i}, circuit_breaker=None)
    result = pipeline.run(executor=executor)
    assert list(result["free"]) == list(range(2_000))
    assert [result[f"s{i}"] for i in range(300)] == list(range(300))
    assert calls(tmp_path) <= 4
    assert states(result) == ["failed"] * 300


def test_after_its_time_one_step_is_tried(executor: Any, tmp_path: Path) -> None:
    def recovering(i: int, folder: str) -> int:
        note(folder)
        if not Path(folder, "up").exists():
            raise ConnectionError(i)
        return i

    def repair(folder: str) -> None:
        Path(folder, "up").touch()
        time.sleep(0.3)

    params = {"i": 1, "folder": str(tmp_path)}
    api = CircuitBreaker(1, timeout=0.25)
    pipeline = Pipeline("p")
    for name, after in (("first", None), ("refused", "first"), ("trial", "repair"), ("closed", "trial")):
        pipeline.add_step(recovering, name, params, after=after, circuit_breaker=api, fallback=lambda: 0)
    pipeline.add_step(repair, params={"folder": str(tmp_path)}, after="refused")
    result = pipeline.run(executor=executor)
    errors = [type(result.step_results[name].fallback_error) for name in ("first", "refused", "trial", "closed")]
    assert errors == [ConnectionError, CircuitOpenError, type(None), type(None)]
    assert (result["trial"], result["closed"]) == (1, 1)
    assert calls(tmp_path) == 3


def test_each_run_begins_closed(executor: Any, tmp_path: Path) -> None:
    params = {"i": 0, "folder": str(tmp_path)}
    pipeline = Pipeline("p").add_step(down, params=params, circuit_breaker=CircuitBreaker(1, timeout=60))
    for _ in range(2):
        pipeline.run(executor=executor)
    assert calls(tmp_path) == 2


def test_refused_steps_fall_back(executor: Any, tmp_path: Path) -> None:
    """Also where the fallback is for what opened the circuit."""
    pipeline = Pipeline("p").map(
        down,
        range(40),
        name="m",
        params={"folder": str(tmp_path)},
        circuit_breaker=CircuitBreaker(2, timeout=60),
        fallback=lambda i: -i,
        fallback_on=ConnectionError,
    )
    result = pipeline.run(executor=executor)
    assert list(result["m"]) == [-i for i in range(40)]
    assert calls(tmp_path) <= 3
    assert isinstance(result.step_results["m"].items[39].fallback_error, CircuitOpenError)


def test_attempts_count_and_an_open_circuit_is_not_tried_again(executor: Any, tmp_path: Path) -> None:
    params = {"i": 0, "folder": str(tmp_path)}
    breaker = CircuitBreaker(2, timeout=60)
    done = Pipeline("p").add_step(down, "s", params, retry=5, circuit_breaker=breaker).run(executor=executor)
    assert isinstance(done.step_results["s"].exception, CircuitOpenError)
    assert calls(tmp_path) == 2


def test_a_retry_may_wait_for_the_circuit(executor: Any, tmp_path: Path) -> None:
    def second(folder: str) -> int:
        note(folder)
        if calls(Path(folder)) < 2:
            raise ConnectionError
        return 1

    pipeline = Pipeline("p").add_step(
        second,
        params={"folder": str(tmp_path)},
        retry=retry(9, backoff=0.1, on=[ConnectionError, CircuitOpenError]),
        circuit_breaker=CircuitBreaker(1, timeout=0.25),
    )
    assert pipeline.run(executor=executor)["second"] == 1


def test_skipped_steps_say_nothing(executor: Any, tmp_path: Path) -> None:
    def skips(i: int) -> bool:
        return i % 2 == 0

    pipeline = Pipeline("p").map(
        down,
        range(6),
        name="m",
        params={"folder": str(tmp_path)},
        condition=skips,
        circuit_breaker=CircuitBreaker(10, timeout=60),
    )
    result = pipeline.run(executor=executor)
    assert states(result) == ["failed", "skipped"] * 3
    assert calls(tmp_path) == 3


def test_fail_fast_counts_refused_steps(executor: Any, tmp_path: Path) -> None:
    pipeline = Pipeline("p").map(
        down, range(10), name="m", params={"folder": str(tmp_path)}, circuit_breaker=CircuitBreaker(1, timeout=60)
    )
    result = pipeline.run(executor=executor, fail_fast=True)
    assert result.state == "failed"
    assert "cancelled" in states(result)


def test_hooks_hear_of_refused_steps(executor: Any, tmp_path: Path) -> None:
    pipeline = Pipeline("p").map(
        down, range(20), name="m", params={"folder": str(tmp_path)}, circuit_breaker=CircuitBreaker(1, timeout=60)
    )
    began: list[str] = []
    ended: list[str] = []
    pipeline.hooks.on_step_start(lambda step, inputs: began.append(step.name))
    pipeline.hooks.on_step_end(lambda step, result: ended.append(step.name))
    pipeline.run(executor=executor)
    assert sorted(ended) == sorted(f"m[{i}]" for i in range(20))
    assert len(began) == calls(tmp_path) <= 2


def test_crashes_count() -> None:
    def dies(i: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with ParallelExecutor(1) as executor:
        pipeline = Pipeline("p").map(dies, range(6), name="m", circuit_breaker=CircuitBreaker(2, timeout=60))
        errors = [item.exception for item in pipeline.run(executor=executor).step_results["m"].items]
    assert [type(error) for error in errors] == [WorkerLostError] * 2 + [CircuitOpenError] * 4


def test_steps_that_take_too_long_count(fresh_executor: Any) -> None:
    pipeline = Pipeline("p").map(
        lambda i: time.sleep(20), range(6), name="m", timeout=0.2, circuit_breaker=CircuitBreaker(1, timeout=60)
    )
    began = time.monotonic()
    result = pipeline.run(executor=fresh_executor)
    assert {"failed", "timed_out"} == set(states(result))
    assert states(result).count("timed_out") <= 2
    assert time.monotonic() - began < 5


def test_two_runs_at_once_do_not_share_a_circuit(tmp_path: Path) -> None:
    breaker = CircuitBreaker(1, timeout=60)
    barrier = threading.Barrier(2, timeout=20)

    def meets() -> None:
        barrier.wait()
        raise OSError

    runs = [Pipeline(f"p{k}").add_step(meets, "s", circuit_breaker=breaker) for k in range(2)]
    results: list[Any] = []
    threads = [threading.Thread(target=lambda p=p: results.append(p.run())) for p in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(type(each.step_results["s"].exception) is OSError for each in results)


def test_the_decorator_below_the_step_is_the_step_s_breaker(executor: Any, tmp_path: Path) -> None:
    @step
    @retry(max_attempts=2)
    @CircuitBreaker(failure_threshold=3)
    def fetch(i: int, folder: str) -> None:
        note(folder)
        raise ConnectionError(i)

    assert fetch.circuit_breaker.failure_threshold == 3
    assert not hasattr(fetch.func, "__wrapped__")
    result = Pipeline("p").map(fetch, range(10), params={"folder": str(tmp_path)}).run(executor=executor)
    assert 3 <= calls(tmp_path) <= 4
    assert not result.success
    for _ in range(5):
        with pytest.raises(ConnectionError):  # called as a function it is one
            fetch(1, str(tmp_path))


def test_above_the_step_it_is_the_step_s_breaker_too() -> None:
    @CircuitBreaker(2)
    @step
    def fetch() -> None: ...

    assert fetch.circuit_breaker.failure_threshold == 2
    assert fetch.name == "fetch"


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: CircuitBreaker(0), ValueError, "at least 1"),
        (lambda: CircuitBreaker("5"), TypeError, "whole number"),
        (lambda: CircuitBreaker(True), TypeError, "whole number"),
        (lambda: CircuitBreaker(timeout=-1), ValueError, "at least 0 seconds"),
        (lambda: CircuitBreaker(timeout="1m"), TypeError, "number of seconds"),
        (lambda: CircuitBreaker(recovery_timeout=float("nan")), ValueError, "at least 0"),
        (lambda: CircuitBreaker(expected_exceptions=["OSError"]), TypeError, "exception classes"),
        (lambda: CircuitBreaker(name=3), TypeError, "must be a string"),
        (lambda: CircuitBreaker()(3), TypeError, "decorates a function"),
    ],
)
def test_wrong_arguments_get_a_clear_error(make: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        make()
