"""What probes H1 to H8, N1 and Q10 of 2.2.1 showed, the other way round: retries, timeouts, errors and hooks."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from flowyml import (
    CircuitBreaker,
    ExponentialBackoff,
    Pipeline,
    RunInterrupted,
    StepTimeoutError,
    on_failure,
    retry,
    step,
)


def count(folder: str) -> int:
    """Note an attempt in a file, and return how many there were."""
    path = Path(folder, "tries")
    with path.open("a") as file:
        file.write("x")
    return path.stat().st_size


def flaky(folder: str, fails: int) -> int:
    tries = count(folder)
    if tries <= fails:
        raise ConnectionError(tries)
    return tries


def test_H1_a_retry_begins_at_once_unless_a_backoff_is_asked_for(executor: Any, tmp_path: Path) -> None:
    pipeline = Pipeline("h1").add_step(flaky, params={"folder": str(tmp_path), "fails": 5}, retry=5)
    began = time.monotonic()
    assert pipeline.run(executor=executor)["flaky"] == 6
    assert time.monotonic() - began < 20  # a second, doubled each time, would be 31


def test_H2_the_last_failure_is_no_retry(executor: Any, tmp_path: Path) -> None:
    pipeline = Pipeline("h2").add_step(flaky, params={"folder": str(tmp_path), "fails": 9}, retry=1)
    done = pipeline.run(executor=executor).step_results["flaky"]
    assert (done.retries, done.attempts, str(done.state)) == (1, 2, "failed")


def test_H3_a_configuration_is_a_retry(executor: Any, tmp_path: Path) -> None:
    config = retry(max_attempts=5, backoff=ExponentialBackoff(initial=0.01, multiplier=2.0), on=[ConnectionError])
    pipeline = Pipeline("h3").add_step(flaky, params={"folder": str(tmp_path), "fails": 4}, retry=config)
    assert pipeline.run(executor=executor)["flaky"] == 5


def test_H4_the_other_keywords_work(executor: Any) -> None:
    told: list[str] = []

    @step(
        fallback=lambda: "from the cache",
        fallback_on=[TimeoutError],
        on_failure=lambda error: told.append(str(error)),
        circuit_breaker=CircuitBreaker(failure_threshold=3, timeout=60),
    )
    def live() -> str:
        raise TimeoutError("too late")

    result = Pipeline("h4").add_step(live).run(executor=executor)
    assert (result["live"], told) == ("from the cache", ["too late"])


def test_H5_the_stack_of_decorators_of_the_documentation(executor: Any, tmp_path: Path) -> None:
    @step
    @retry(max_attempts=3, backoff=0.01)
    @on_failure(lambda: {"status": "unavailable"})
    @CircuitBreaker(failure_threshold=5)
    def fetch(folder: str) -> dict[str, str]:
        raise OSError(count(folder))

    result = Pipeline("h5").add_step(fetch, params={"folder": str(tmp_path)}).run(executor=executor)
    assert result["fetch"] == {"status": "unavailable"}
    assert (tmp_path / "tries").stat().st_size == 3


def test_H6_a_timeout_is_a_limit(fresh_executor: Any) -> None:
    @step(timeout=0.3)
    def slow() -> None:
        time.sleep(30)

    began = time.monotonic()
    result = Pipeline("h6").add_step(slow).run(executor=fresh_executor)
    assert isinstance(result.step_results["slow"].exception, StepTimeoutError)
    assert time.monotonic() - began < 10


def test_H7_after_a_failure_every_other_step_runs_and_each_has_a_state(executor: Any) -> None:
    def bad() -> None:
        raise ValueError("no")

    pipeline = Pipeline("h7").add_step(bad).add_step(lambda bad: bad, name="reads").add_step(lambda: 1, name="other")
    result = pipeline.run(executor=executor)
    states = {name: str(done.state) for name, done in result.step_results.items()}
    assert states == {"bad": "failed", "reads": "upstream_failed", "other": "success"}
    assert not result.success


def test_H8_ctrl_c_brings_the_partial_result(fresh_executor: Any, tmp_path: Path) -> None:
    driver = os.getpid()

    def interrupts(first: int) -> None:
        os.kill(driver, signal.SIGINT)
        time.sleep(30)

    pipeline = Pipeline("h8").add_step(lambda: 1, name="first").add_step(interrupts)
    began = time.monotonic()
    with pytest.raises(RunInterrupted) as caught:
        pipeline.run(executor=fresh_executor)
    assert time.monotonic() - began < 10
    assert caught.value.result["first"] == 1


def test_N1_Q10_hooks_are_told_and_one_that_raises_is_logged(executor: Any, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    pipeline = Pipeline("n1").add_step(lambda: 1, name="s")
    pipeline.hooks.on_step_start(lambda step, inputs: told.append(f"{step.name} begins"))
    pipeline.hooks.on_step_end(lambda step, result: told[99])
    pipeline.hooks.on_pipeline_end(lambda pipeline, result: told.append(f"{pipeline.name} is a {result.state}"))
    with caplog.at_level(logging.ERROR, "flowyml"):
        assert pipeline.run(executor=executor).success
    assert told == ["s begins", "n1 is a success"]
    assert "raised IndexError; the run goes on" in caplog.text
