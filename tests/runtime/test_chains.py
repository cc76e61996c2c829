"""Chains: steps that a worker takes together although each needs the one before it; what they are for is seen nowhere.

Each test takes the fixture `executor` and so runs on all of them: what comes of a chain does not depend on who chains.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from step_states import states_in_order as states

from flowyml import ParallelExecutor, Pipeline, WorkerLostError, get_context

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = 400


def chain(function: Callable[[Any], Any], first: Any, length: int = LONG, **options: Any) -> Pipeline:
    """Return a pipeline in which each step gets what the one before it returned."""
    pipeline = Pipeline("chain").add_step(lambda: first, name="s0")
    for k in range(1, length):
        pipeline.add_step(function, name=f"s{k}", inputs=[f"s{k - 1}"], **options)
    return pipeline


@pytest.mark.parametrize(
    "first", [0, 0.5, "a" * 2000, 2**80, None, (1, [2]), b"x" * 200_000], ids=lambda value: type(value).__name__
)
def test_a_value_goes_through_a_chain(executor: Any, first: Any) -> None:
    """Small or large, of any type."""
    result = chain(lambda value: value, first, 100).run(executor=executor)
    assert result.success
    assert result["s99"] == first


def test_each_step_of_a_chain_sees_the_one_before(executor: Any) -> None:
    result = chain(lambda i: i + 1, 0).run(executor=executor)
    assert list(result.outputs.values()) == list(range(LONG))


def test_a_step_gets_its_own_copy_from_another_process() -> None:
    """As it would from the driver: what a step keeps and changes later is not what the next one got."""
    kept: list[list[int]] = []

    def step(values: list[int]) -> list[int]:
        kept.append(values)
        for each in kept:
            each.append(len(kept))
        return kept[0] if len(kept) % 2 else values

    with ParallelExecutor(1) as executor:
        result = chain(step, [], 5).run(executor=executor)
    assert result["s1"] == [1]
    assert all(each is not other for each in kept for other in kept if each is not other)
    assert result["s2"] == [1, 2]


def test_what_needs_a_failed_step_of_a_chain_does_not_run(executor: Any) -> None:
    """In the middle, and nothing before it is touched."""
    result = chain(lambda i: i + 1 if i < 200 else i / 0, 0).run(executor=executor)
    assert states(result) == ["success"] * 201 + ["failed"] + ["upstream_failed"] * (LONG - 202)


def test_a_skipped_step_of_a_chain_skips_what_needs_it(executor: Any) -> None:
    result = chain(lambda i: i + 1, 0, condition=lambda i: i < 200).run(executor=executor)
    assert states(result) == ["success"] * 201 + ["skipped"] * (LONG - 201)


def test_a_step_of_a_chain_is_tried_again(executor: Any, tmp_path: Any) -> None:
    def work(i: int) -> int:
        if i == 100 and get_context().attempt < 3:
            raise OSError("not yet")
        return i + 1

    result = chain(work, 0, retry=2).run(executor=executor)
    assert result.success
    assert result[f"s{LONG - 1}"] == LONG - 1
    assert result.step_results["s101"].attempts == 3


def test_steps_of_a_chain_know_who_they_are(executor: Any) -> None:
    result = chain(lambda names: [*names, get_context().step_name], [], 50).run(executor=executor)
    assert result["s49"] == [f"s{k}" for k in range(1, 50)]


def test_chains_that_branch_and_join(executor: Any) -> None:
    """A step that several need, and one that needs several, among lines."""
    pipeline = Pipeline("ladder").add_step(lambda: 1, name="a0").add_step(lambda: 1, name="b0")
    for k in range(1, 60):
        pipeline.add_step(lambda x, y: (x + y) % 1009, name=f"a{k}", inputs=[f"a{k - 1}", f"b{k - 1}"])
        pipeline.add_step(lambda x: x + 1, name=f"b{k}", inputs=[f"a{k - 1}" if k % 5 == 0 else f"b{k - 1}"])
    expected = [(1, 1)]
    for k in range(1, 60):
        a, b = expected[-1]
        expected.append(((a + b) % 1009, (a if k % 5 == 0 else b) + 1))
    result = pipeline.run(executor=executor)
    assert [(result[f"a{k}"], result[f"b{k}"]) for k in range(60)] == expected


def test_one_of_several_outputs_is_handed_on(executor: Any) -> None:
    pipeline = Pipeline("parts").add_step(lambda: (0, 0), name="s0", outputs=["a0", "b0"])
    for k in range(1, 30):
        pipeline.add_step(
            lambda a, b: (a + 1, b - 1), name=f"s{k}", inputs=[f"a{k - 1}", f"b{k - 1}"], outputs=[f"a{k}", f"b{k}"]
        )
    result = pipeline.run(executor=executor)
    assert (result["a29"], result["b29"]) == (29, -29)


def test_order_without_data_is_kept(executor: Any, tmp_path: Any) -> None:
    """`after` alone: each step sees the file that the one before it has left."""
    path = tmp_path / "count"
    path.write_text("0")

    def count(path: str) -> int:
        with open(path, "r+", encoding="utf-8") as file:  # noqa: PTH123
            seen = int(file.read())
            file.seek(0)
            file.write(str(seen + 1))
        return seen

    pipeline = Pipeline("after").add_step(count, name="s0", params={"path": str(path)})
    for k in range(1, 50):
        pipeline.add_step(count, name=f"s{k}", params={"path": str(path)}, after=[f"s{k - 1}"])
    assert list(pipeline.run(executor=executor).outputs.values()) == list(range(50))


def test_a_worker_that_dies_in_a_chain_costs_that_step_and_what_needs_it() -> None:
    def work(i: int) -> int:
        if i == 150:
            os.kill(os.getpid(), signal.SIGKILL)
        return i + 1

    with ParallelExecutor(2) as executor:
        result = chain(work, 0).run(executor=executor)
    assert states(result) == ["success"] * 151 + ["failed"] + ["upstream_failed"] * (LONG - 152)
    assert isinstance(result.step_results["s151"].exception, WorkerLostError)


def test_what_waits_behind_a_long_step_of_a_chain_runs_elsewhere(tmp_path: Any) -> None:
    """Two chains in one batch, and the first one stops until the second has ended: another worker has to take it."""
    done = tmp_path / "done"

    def slow(i: int, done: str) -> int:
        if i == 2:
            event = threading.Event()
            while not os.path.exists(done) and not event.wait(0.005):  # noqa: PTH110
                pass
        return i + 1

    def fast(i: int, done: str, last: int) -> int:
        if i == last:
            open(done, "w", encoding="utf-8").close()  # noqa: PTH123
        return i + 1

    pipeline = Pipeline("two").map(abs, range(3000), name="warm")
    for name, function, params in (("a", slow, {}), ("b", fast, {"last": 8})):
        pipeline.add_step(lambda warm: 0, name=f"{name}0", inputs=["warm"])
        for k in range(1, 10):
            own = {**params, "done": str(done)}
            pipeline.add_step(function, name=f"{name}{k}", inputs={"i": f"{name}{k - 1}"}, params=own)
    with ParallelExecutor(2) as executor:
        result = pipeline.run(executor=executor)
    assert (result["a9"], result["b9"]) == (9, 9)
