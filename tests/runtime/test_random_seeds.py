# ruff: noqa: NPY002  the global generator is what is tested
"""`run(seed=)`: the same random numbers for the same step, on every executor, whatever ran before."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from flowyml import ExponentialBackoff, LocalExecutor, ParallelExecutor, Pipeline, get_context, retry


def draw() -> Any:
    """Draw from all generators; nothing else runs at the same time."""
    import numpy as np

    return random.random(), float(np.random.random()), get_context().rng.random()


def own(_: int) -> Any:
    """Draw from the step's own generators."""
    return get_context().rng.random(), float(np.random.default_rng(get_context().seed).random())


def chain(length: int = 5) -> Pipeline:
    """Return steps that draw one after the other."""
    pipeline = Pipeline("chain")
    for i in range(length):
        pipeline.add_step(draw, f"s{i}", after=f"s{i - 1}" if i else None)
    return pipeline


@pytest.fixture(scope="module")
def expected() -> Any:
    with LocalExecutor() as local:
        return dict(chain().run(seed=7, executor=local).outputs)


def test_every_executor_draws_the_same(executor: Any, expected: Any) -> None:
    assert dict(chain().run(seed=7, executor=executor).outputs) == expected
    assert dict(chain().run(seed=7, executor=executor).outputs) == expected
    assert len({numbers[0] for numbers in expected.values()}) == 5


def test_another_seed_draws_others(executor: Any, expected: Any) -> None:
    other = dict(chain().run(seed=8, executor=executor).outputs)
    assert not {x for numbers in other.values() for x in numbers} & {
        x for numbers in expected.values() for x in numbers
    }


def test_items_of_a_map_have_their_own(executor: Any) -> None:
    result = Pipeline("map").map(own, range(200)).run(seed=3, executor=executor)
    numbers = list(result["own"])
    assert numbers == list(Pipeline("map").map(own, range(200)).run(seed=3)["own"])
    assert len(set(numbers)) == 200


def test_order_and_neighbours_do_not_matter(executor: Any, expected: Any) -> None:
    assert Pipeline("alone").add_step(draw, "s3").run(seed=7, executor=executor)["s3"] == expected["s3"]


def test_every_attempt_draws_the_same(executor: Any) -> None:
    def again() -> float:
        here = get_context()
        if here.attempt < 3:
            raise ValueError((random.random(), here.rng.random()))
        return random.random(), here.rng.random()

    first = Pipeline("r").add_step(again).run(seed=1, executor=executor)
    error = first.step_results["again"].exception
    last = Pipeline("r").add_step(again, retry=2).run(seed=1, executor=executor)["again"]
    assert error is not None
    assert error.args[0] == last


def test_the_state_of_the_caller_stays(executor: Any) -> None:
    random.seed(5)
    np.random.seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist()
    chain().run(seed=7, executor=executor)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_without_a_seed_nothing_is_seeded(executor: Any) -> None:
    def seed() -> Any:
        return get_context().seed, random.random()

    assert Pipeline("s").add_step(seed).run(seed=1, executor=executor)["seed"][0] is not None
    first, second = (Pipeline("s").add_step(seed).run(executor=executor)["seed"] for _ in range(2))
    assert first[0] is None
    assert first[1] != second[1]


def test_a_worker_forgets_the_seed_with_the_run() -> None:
    with ParallelExecutor(1) as executor:
        after = []
        for _ in range(2):
            chain().run(seed=7, executor=executor)
            after.append(Pipeline("free").add_step(draw).run(executor=executor)["draw"])
    assert not set(after[0]) & set(after[1])


@pytest.mark.parametrize("executor_of", ["LocalExecutor()", "ParallelExecutor(1)", "ParallelExecutor(1, 'thread')"])
def test_numpy_is_not_imported_for_it_and_seeded_when_a_step_does(executor_of: str) -> None:
    code = f"""
import sys
from flowyml import *
def plain():
    import sys
    return "numpy" in sys.modules
def late():
    import numpy.random
    assert numpy.random.__spec__.loader is numpy.random.__loader__
    return float(numpy.random.random())
pipeline = Pipeline("late").add_step(plain).add_step(late, after="plain")
with {executor_of} as executor:
    results = [pipeline.run(seed=5, executor=executor) for _ in range(2)]
print(results[0]["plain"], results[0]["late"] == results[1]["late"], results[0]["late"])
assert not any(type(each).__name__ == "_Watch" for each in sys.meta_path)
"""
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    plain, equal, value = done.stdout.split()
    assert (plain, equal) == ("False", "True")
    assert float(value) == Pipeline("here").add_step(_late, "late").run(seed=5)["late"]


def _late() -> float:
    return float(np.random.random())


def test_jitter_is_reproducible(executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The delays themselves, not the times: what the backoff was asked for."""
    seen: list[float] = []
    spread = ExponentialBackoff.delay

    def delay(self: Any, attempt: int, generator: Any = None) -> float:
        seen.append(spread(self, attempt, generator))
        return seen[-1]

    monkeypatch.setattr(ExponentialBackoff, "delay", delay)
    pipeline = Pipeline("jitter").add_step(
        lambda: 1 / 0, "s", retry=retry(max_attempts=4, backoff=ExponentialBackoff(0.001))
    )
    for _ in range(2):
        pipeline.run(seed=2, executor=executor)
    assert seen[:3] == seen[3:]
    assert len(set(seen)) == 3


@pytest.mark.parametrize("seed", ["1", 1.5, True])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(TypeError, match="seed must be a whole number or None, got"):
        chain().run(seed=seed)


@pytest.mark.parametrize("seed", [0, -1, 2**100, np.int64(3)])
def test_any_whole_number_will_do(executor: Any, seed: Any) -> None:
    runs = [chain(1).run(seed=seed, executor=executor)["s0"] for _ in range(2)]
    assert runs[0] == runs[1]
