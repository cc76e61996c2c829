"""A failed step is tried again: as often, as late and for such errors as its `retry` says, on every executor."""

from __future__ import annotations

import os
import pickle
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from flowyml import ExponentialBackoff, Pipeline, RetryConfig, WorkerLostError, retry, step


def count(folder: str, name: str = "tries") -> int:
    """Note an attempt in a file, and return how many there were."""
    path = Path(folder, name)
    with path.open("a") as file:
        file.write("x")
    return path.stat().st_size


def flaky(folder: str, fails: int, kind: type[BaseException] = ValueError) -> int:
    """Fail a few times."""
    tries = count(folder)
    if tries <= fails:
        raise kind(tries)
    return tries


def run(executor: Any, folder: Path, fails: int, **options: Any) -> Any:
    """Run one flaky step."""
    pipeline = Pipeline("retries").add_step(flaky, "s", {"folder": str(folder), "fails": fails}, **options)
    return pipeline.run(executor=executor)


def test_attempts_are_the_times_that_the_function_was_begun(executor: Any, tmp_path: Path) -> None:
    pipeline = Pipeline("retries", cache_dir=tmp_path / "cache").add_step(
        count, "cached", {"folder": str(tmp_path)}, cache=True
    )
    pipeline.add_step(count, "skipped", {"folder": str(tmp_path)}, condition=lambda folder: not folder)
    pipeline.add_step(len, "after", inputs=["skipped"])
    told = []
    pipeline.hooks.on_step_end(lambda step, result: told.append((step.name, result.attempts)))
    results = [pipeline.run(executor=executor).step_results for _ in range(2)]
    assert [[step.attempts for step in each.values()] for each in results] == [[1, 0, 0], [0, 0, 0]]
    assert [step.started_at for step in results[1].values()] == [None] * 3
    assert sorted(told) == [("after", 0)] * 2 + [("cached", 0), ("cached", 1)] + [("skipped", 0)] * 2


def test_retry_n_is_n_more_attempts(executor: Any, tmp_path: Path) -> None:
    result = run(executor, tmp_path, 2, retry=2)
    assert result["s"] == 3
    assert (result.step_results["s"].attempts, result.step_results["s"].retries) == (3, 2)
    assert result.success


def test_the_last_failure_counts(executor: Any, tmp_path: Path) -> None:
    result = run(executor, tmp_path, 9, retry=2)
    assert (tmp_path / "tries").stat().st_size == 3
    assert str(result.step_results["s"].exception) == "3"
    assert result.step_results["s"].attempts == 3


def test_on_chooses_what_is_worth_it(executor: Any, tmp_path: Path) -> None:
    assert not run(executor, tmp_path, 1, retry=retry(on=[KeyError, OSError])).success
    assert (tmp_path / "tries").stat().st_size == 1


def test_on_takes_subclasses_and_not_on_excludes_them(executor: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    pipeline = Pipeline("on")
    for folder, excluded in (("a", None), ("b", [KeyError])):
        params = {"folder": str(tmp_path / folder), "fails": 1, "kind": KeyError}
        pipeline.add_step(flaky, folder, params, retry=retry(on=LookupError, not_on=excluded))
    result = pipeline.run(executor=executor)
    assert (result.step_results["a"].success, result.step_results["b"].success) == (True, False)


def test_dependents_wait_for_the_last_attempt(executor: Any, tmp_path: Path) -> None:
    pipeline = Pipeline("wait").add_step(flaky, "s", {"folder": str(tmp_path), "fails": 2}, retry=3)
    pipeline.add_step(lambda s: s * 10, name="reads")
    assert pipeline.run(executor=executor)["reads"] == 30


def test_each_item_of_a_map_has_its_own_attempts(executor: Any, tmp_path: Path) -> None:
    def item(i: int, folder: str) -> int:
        if i % 3 == 0 and count(folder, str(i)) <= (1 if i else 5):
            raise ValueError(i)
        return i

    result = (
        Pipeline("map").map(item, range(10), name="m", params={"folder": str(tmp_path)}, retry=1).run(executor=executor)
    )
    assert [each.step_name for each in result.failed] == ["m[0]"]
    assert [each.attempts for each in result.step_results["m"].items] == [2, 1, 1, 2, 1, 1, 2, 1, 1, 2]
    assert [result["m"][i] for i in range(1, 10)] == list(range(1, 10))


def test_many_small_steps_in_batches(executor: Any) -> None:
    """A retry in the middle of a batch moves nothing else."""
    seen: set[int] = set()

    def item(i: int) -> int:
        if i % 7 == 0 and i not in seen:
            seen.add(i)
            raise ValueError(i)
        return i

    # Workers have a `seen` each: an item fails at most once in each of the two.
    result = Pipeline("many").map(item, range(5_000), name="m", retry=2).run(executor=executor)
    assert result.success
    assert list(result["m"]) == list(range(5_000))


def test_waiting_occupies_no_worker(executor: Any, tmp_path: Path) -> None:
    """Steps that wait for their next attempt let all others pass."""
    pipeline = Pipeline("no worker")
    for i in range(40):
        (tmp_path / str(i)).mkdir()
        params = {"folder": str(tmp_path / str(i)), "fails": 1}
        pipeline.add_step(flaky, f"flaky{i}", params, retry=retry(2, backoff=ExponentialBackoff(0.4, jitter=False)))
    began = time.monotonic()
    result = pipeline.run(executor=executor)
    assert result.success
    assert 0.4 <= time.monotonic() - began < 40 * 0.4 / 2  # one after the other on two workers would be longer


def test_fail_fast_waits_for_the_last_attempt(executor: Any, tmp_path: Path) -> None:
    pipeline = Pipeline("fast").add_step(flaky, "s", {"folder": str(tmp_path), "fails": 1}, retry=1)
    pipeline.add_step(lambda: 1, name="other", after="s")
    assert pipeline.run(executor=executor, fail_fast=True).success


def test_a_crash_spends_an_attempt(tmp_path: Path) -> None:
    from flowyml import ParallelExecutor

    def dies(folder: str, times: int) -> int:
        tries = count(folder)
        if tries <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        return tries

    with ParallelExecutor(2) as executor:
        pipeline = Pipeline("crash").add_step(dies, "s", {"folder": str(tmp_path), "times": 2}, retry=2)
        result = pipeline.run(executor=executor)
        assert (result["s"], result.step_results["s"].attempts) == (3, 3)
        (tmp_path / "tries").unlink()
        params = {"folder": str(tmp_path), "times": 9}
        only = Pipeline("only").add_step(dies, "s", params, retry=retry(3, on=WorkerLostError)).run(executor=executor)
        assert isinstance(only.step_results["s"].exception, WorkerLostError)
        assert only.step_results["s"].attempts == 3


def test_an_exception_that_does_not_load_goes_by_its_names(tmp_path: Path) -> None:
    """`on` sees the classes of an exception that only the worker could build."""
    from flowyml import ParallelExecutor

    def odd(folder: str) -> int:
        class OddError(LookupError):
            def __reduce__(self) -> Any:
                raise TypeError

            def __str__(self) -> str:
                return self.args[0].name

        if count(folder) == 1:
            raise OddError(type("Local", (), {"name": "x"})())
        return 1

    with ParallelExecutor(1) as executor:
        pipeline = Pipeline("odd").add_step(odd, params={"folder": str(tmp_path)}, retry=retry(2, on=LookupError))
        assert pipeline.run(executor=executor)["odd"] == 1


def test_the_decorator_and_the_number_in_the_decorator() -> None:
    """`@step` over `@retry(...)`, `@step(retry=n)`, and `add_step(retry=)` over both."""

    @step
    @retry(max_attempts=3, backoff=2.0)
    def decorated() -> None: ...

    @step(retry=4)
    def numbered() -> None: ...

    assert decorated.retry == RetryConfig(3, backoff=ExponentialBackoff(2.0, jitter=False))
    assert numbered.retry == RetryConfig(5)
    assert decorated.retry.delay(1) == 2.0
    assert decorated.retry.delay(2) == 4.0
    pipeline = Pipeline("p").add_step(numbered).add_step(numbered, name="none", retry=0)
    assert [spec.options.retry for spec in pipeline._builder.table.specs] == [RetryConfig(5), None]


def test_configurations_are_values() -> None:
    """Equal, hashable, picklable, and without state."""
    config = retry(4, backoff=ExponentialBackoff(0.5, max=2.0), on=[OSError])
    assert config == retry(4, backoff=ExponentialBackoff(0.5, 2.0), on=OSError)
    assert pickle.loads(pickle.dumps(config)) == config
    assert len({config, retry(4, backoff=ExponentialBackoff(0.5, max=2.0), on=[OSError])}) == 1


def test_delays_grow_to_the_longest_and_jitter_stays_within_bounds() -> None:
    plain = ExponentialBackoff(1, max_delay=10, multiplier=3, jitter=False)
    assert [plain.delay(n) for n in (1, 2, 3, 4, 5_000)] == [1, 3, 9, 10, 10]
    jittered = ExponentialBackoff(1, max_delay=10)
    assert all(0.5 <= jittered.delay(1) <= 1.5 for _ in range(200))
    assert jittered.delay(3, random.Random(7)) == jittered.delay(3, random.Random(7))


def test_no_jitter_makes_a_delay_longer_than_the_longest() -> None:
    backoff = ExponentialBackoff(8, max_delay=10)
    delays = [backoff.delay(attempt) for attempt in (1, 2, 9) for _ in range(200)]
    assert 4 <= min(delays) < max(delays) == 10


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: retry(0), ValueError, "at least 1"),
        (lambda: retry("3"), TypeError, "whole number"),
        (lambda: retry(True), TypeError, "whole number"),
        (lambda: retry(backoff="fast"), TypeError, "backoff"),
        (lambda: retry(on=["ValueError"]), TypeError, "exception classes"),
        (lambda: retry(not_on=int), TypeError, "exception classes"),
        (lambda: retry()(3), TypeError, "decorates a function"),
        (lambda: ExponentialBackoff(-1), ValueError, "at least 0"),
        (lambda: ExponentialBackoff(multiplier=0.5), ValueError, "at least 1"),
        (lambda: ExponentialBackoff(initial=float("inf")), ValueError, "at least 0, got inf"),
        (lambda: ExponentialBackoff(max_delay=float("nan")), ValueError, "at least 0, got nan"),
        (lambda: step(retry="three")(len), TypeError, "step 'len'"),
        (lambda: step(retry=-1)(len), ValueError, "0 or more"),
        (lambda: Pipeline("p").add_step(len, retry=1.5), TypeError, "step 'len'"),
        (lambda: Pipeline("p").add_step(len, retries=3), TypeError, "did you mean 'retry'"),
    ],
)
def test_wrong_arguments_get_a_clear_error(make: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        make()
