"""resources={"gpu": ...}: each step gets devices of its own, and a worker process sees no others. No GPU is needed."""

from __future__ import annotations

import logging
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from device_steps import QUARTERS, act, both, crash, hold, meet, pid, seen, wrong
from example_counts import examples

from flowyml import LocalExecutor, ParallelExecutor, Pipeline, PipelineValidationError, dynamic, get_context
from flowyml.steps import resources

if TYPE_CHECKING:
    from pathlib import Path

BACKENDS = ["process", "thread", "async"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def _no_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in resources.VARIABLES:
        monkeypatch.delenv(name, raising=False)


def meeting(folder: Path, **demands: float) -> Pipeline:
    """Steps that must run at the same time, with what each takes."""
    pipeline = Pipeline("meeting")
    for name, demand in demands.items():
        params = {"name": name, "others": list(demands), "folder": str(folder)}
        pipeline.add_step(meet, name, params, resources={"gpu": demand})
    return pipeline


def test_a_worker_process_sees_the_device_of_its_steps_alone() -> None:
    with ParallelExecutor(2, resources={"gpu": 2}) as executor:
        result = Pipeline("p").map(seen, range(20), resources={"gpu": 1}).run(executor=executor)
    assert set(result["seen"]) <= {("0", 0, ("0",)), ("1", 0, ("1",))}


def test_steps_that_run_at_the_same_time_have_different_devices(backend: str, folder: Path) -> None:
    with ParallelExecutor(2, backend, resources={"gpu": 2}) as executor:
        result = meeting(folder, a=1, b=1).run(executor=executor, raise_on_failure=True)
    assert {result["a"], result["b"]} == {"0", "1"}


def test_parts_share_a_device_and_leave_the_other_whole(backend: str, folder: Path) -> None:
    with ParallelExecutor(3, backend, resources={"gpu": 2}) as executor:
        result = meeting(folder, a=0.5, b=0.5, c=1).run(executor=executor, raise_on_failure=True)
    assert result["a"] == result["b"] != result["c"]


def test_parts_that_do_not_fit_on_one_device_do_not_lie_on_two(backend: str, folder: Path) -> None:
    """Of two devices each has 0.4 left: a third step of 0.6 waits although 0.8 are free."""
    with ParallelExecutor(3, backend, resources={"gpu": 2}) as executor:
        params = {"folder": str(folder), "quarters": 4}
        pipeline = Pipeline("p").map(hold, range(9), params=params, resources={"gpu": 0.6})
        assert pipeline.run(executor=executor).success


def test_a_step_of_two_devices_sees_both(backend: str) -> None:
    with ParallelExecutor(2, backend, resources={"gpu": 3}) as executor:
        result = Pipeline("p").add_step(seen, resources={"gpu": 2}).run(executor=executor)
    assert result["seen"] == ("0,1" if backend == "process" else None, 0, ("0", "1"))


def test_steps_that_take_none_have_none(backend: str) -> None:
    with ParallelExecutor(2, backend, resources={"gpu": 2}) as executor:
        pipeline = Pipeline("p").map(seen, range(4), resources={"gpu": 1}).map(seen, range(4), name="other")
        other = pipeline.run(executor=executor)["other"]
    assert {each[1:] for each in other} == {(None, ())}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("2,3", ("2", "3")),
        ("GPU-8f3e, 1", ("GPU-8f3e", "1")),
        ("", ()),
        ("-1", ()),
        ("1,-1,2", ("1",)),
        ("1,1", ("1",)),
    ],
)
def test_the_drivers_variable_names_the_devices(
    text: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    assert resources.visible() == names
    assert resources.present() == len(names)


@pytest.mark.parametrize("variable", resources.VARIABLES)
def test_workers_see_entries_of_the_drivers_variable(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detected, not told."""
    monkeypatch.setenv(variable, "7,GPU-8f3e")

    def named(_: int) -> tuple[str, tuple[str, ...]]:
        return os.environ[variable], get_context().devices

    with ParallelExecutor(2) as executor:
        result = Pipeline("p").map(named, range(8), resources={"gpu": 1}).run(executor=executor)
    assert set(result["named"]) <= {("7", ("7",)), ("GPU-8f3e", ("GPU-8f3e",))}


@pytest.mark.parametrize(("text", "there"), [("", 0), ("5", 1)])
def test_there_are_no_more_devices_than_are_named(text: str, there: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    words = rf"requires 2 gpu, the executor has {there} gpu in all \(CUDA_VISIBLE_DEVICES names {there}\)"
    with (
        ParallelExecutor(2, resources={"gpu": 2}) as executor,
        pytest.raises(PipelineValidationError, match=words),
    ):
        Pipeline("p").add_step(seen, resources={"gpu": 2}).run(executor=executor)


@pytest.mark.parametrize(("text", "expected"), [("4,5", ("4,5", 0, ("4",))), ("", ("", None, ()))])
def test_the_local_executor_gives_the_first(text: str, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none a step is called as before."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    assert Pipeline("p").add_step(seen, resources={"gpu": 1}).run(executor=LocalExecutor())["seen"] == expected


def test_a_worker_that_has_run_other_steps_ends_for_one_that_has_a_device() -> None:
    """A library may have looked for devices; one that has a device runs any step."""
    with ParallelExecutor(1, resources={"gpu": 1}) as executor:
        pipeline = Pipeline("p").add_step(pid, "first")
        for name, before, taken in [("train", "first", 1), ("report", "train", 0), ("again", "report", 1)]:
            pipeline.add_step(pid, name, after=[before], resources={"gpu": 1} if taken else None)
        pids = pipeline.run(executor=executor, raise_on_failure=True).outputs
    assert pids["first"] != pids["train"] == pids["report"] == pids["again"]


def test_workers_end_for_a_step_that_needs_their_devices(folder: Path) -> None:
    """One worker, then two devices, then one again; no more workers than may be, none twice on a device."""
    params = {"folder": str(folder), "quarters": 4}
    with ParallelExecutor(2, resources={"gpu": 2}) as executor:
        pipeline = Pipeline("p")
        for i, demand in enumerate([1, 2, 1, 2, 0.5, 2, 1]):
            after = [f"s{i - 1}"] if i else []
            pipeline.add_step(hold, f"s{i}", params | {"_": i}, resources={"gpu": demand}, after=after)
        assert pipeline.run(executor=executor, raise_on_failure=True).success
        members = executor._team.workers
        assert sum(member.retired is None for member in members) <= 2


def test_devices_stay_with_their_workers_from_run_to_run() -> None:
    with ParallelExecutor(2, resources={"gpu": 2}) as executor:
        found = set()
        for _ in range(3):
            result = Pipeline("p").map(both, range(6), resources={"gpu": 1}).run(executor=executor)
            found |= set(result["both"])
    assert len(dict(found)) == len(found) <= 2


def test_a_crash_gives_the_device_back() -> None:
    with ParallelExecutor(2, resources={"gpu": 2}) as executor:
        result = Pipeline("p").map(crash, range(9), resources={"gpu": 1}, retry=1).run(executor=executor)
        assert set(result["crash"]) <= {"0", "1"}
        assert Pipeline("p").add_step(seen, resources={"gpu": 2}).run(executor=executor)["seen"][0] == "0,1"


def test_a_step_over_its_time_gives_the_device_back(backend: str, folder: Path) -> None:
    """A thread that was left behind keeps it until it ends."""
    params = {"_": 0, "folder": str(folder), "quarters": 4}
    with ParallelExecutor(2, backend, resources={"gpu": 1}) as executor:
        seconds = {"seconds": 60 if backend == "process" else 1}
        pipeline = Pipeline("p").add_step(hold, "slow", params | seconds, resources={"gpu": 1}, timeout=0.1)
        pipeline.add_step(hold, "next", params, resources={"gpu": 1})
        result = pipeline.run(executor=executor)
    assert str(result.step_results["slow"].state) == "timed_out"
    assert result["next"] == ("0",)


def test_what_a_step_does_to_the_variable_is_gone_for_the_next_batch() -> None:
    with ParallelExecutor(1, resources={"gpu": 1}) as executor:
        for _ in range(2):
            pipeline = Pipeline("p").add_step(wrong, params={"i": 1}, resources={"gpu": 1})
            assert pipeline.run(executor=executor)["wrong"] == "0"


@dynamic
def more(n: int) -> Pipeline:
    return Pipeline("more").map(seen, range(n), resources={"gpu": 1})


def test_steps_that_come_during_the_run_have_devices_too(backend: str) -> None:
    with ParallelExecutor(2, backend, resources={"gpu": 2}) as executor:
        result = Pipeline("p").add_step(more, params={"n": 6}).run(executor=executor, raise_on_failure=True)
    assert {each[2] for each in result["more"]} <= {("0",), ("1",)}


@pytest.mark.parametrize("feature", ["hooks", "cache", "journal", "fail_fast", "tokens"])
def test_devices_beside(feature: str, backend: str, tmp_path: Path) -> None:
    """Whatever else looks at each step before it is claimed."""
    options: dict[str, Any] = {"enable_checkpointing": True} if feature == "journal" else {}
    pipeline = Pipeline("p", cache_dir=str(tmp_path), **options)
    takes = {"gpu": 1, "api": 1} if feature == "tokens" else {"gpu": 1}
    caches = {"cache": True} if feature == "cache" else {}
    pipeline.map(seen, range(6), name="plain", **caches).map(seen, range(6), resources=takes, **caches)
    if feature == "hooks":
        pipeline.hooks.on_step_start(lambda *_: None)
    with ParallelExecutor(2, backend, resources={"gpu": 2, "api": 1}) as executor:
        result = pipeline.run(executor=executor, raise_on_failure=True, fail_fast=feature == "fail_fast")
    assert {each[2] for each in result["seen"]} <= {("0",), ("1",)}
    assert {each[2] for each in result["plain"]} == {()}


@pytest.mark.parametrize(("demand", "said"), [(1, 1), (2, 0)])
def test_threads_are_told_that_they_share_devices(
    backend: str, demand: int, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a run, and only if a step takes fewer than there are."""
    with caplog.at_level(logging.WARNING, "flowyml"), ParallelExecutor(2, backend, resources={"gpu": 2}) as executor:
        Pipeline("p").map(seen, range(4), resources={"gpu": demand}).run(executor=executor)
    found = [record for record in caplog.records if "steps take some of 2 devices" in record.getMessage()]
    assert len(found) == (0 if backend == "process" else said)


# -- nobody has what another has


DEMANDS = [0, 0, 0.25, 0.5, 1, 1, 2]
DEEDS = ["fine"] * 9 + ["raise", "once", "crash"]


def drawn(rng: random.Random, folder: Path, *, crashes: bool) -> tuple[Pipeline, dict[str, str]]:
    """Return steps that take this and that, and the states in which they end."""
    pipeline, states = Pipeline("drawn"), {}
    for i in range(24):
        demand, deed = rng.choice(DEMANDS), rng.choice(DEEDS) if i else "slow"
        after = rng.sample(list(states), min(len(states), rng.choice([0, 0, 0, 1, 2])))
        limit = {"timeout": 0.1} if deed == "slow" else {}
        params = {"folder": str(folder), "quarters": min(QUARTERS, int(demand * QUARTERS)), "deed": deed}
        pipeline.add_step(
            act,
            f"s{i}",
            params | {"crashes": crashes},
            after=after,
            resources={"gpu": demand} if demand else None,
            retry=int(deed == "once"),
            **limit,
        )
        ends = {"fine": "success", "once": "success", "slow": "timed_out"}.get(deed, "failed")
        states[f"s{i}"] = ends if all(states[each] == "success" for each in after) else "upstream_failed"
    return pipeline, states


@pytest.mark.parametrize("seed", range(examples(3, 40)))
def test_no_mix_of_demands_gives_a_device_to_two(backend: str, seed: int, folder: Path) -> None:
    """Whatever crashes, fails, is over its time: nobody has what another has, all ends, and all devices come back."""
    rng = random.Random(seed)
    with ParallelExecutor(rng.choice([1, 2, 3, 5]), backend, resources={"gpu": 2}) as executor:
        for _ in range(2):
            pipeline, states = drawn(rng, folder, crashes=backend == "process")
            result = pipeline.run(executor=executor)
            assert not (folder / "trouble").exists()
            assert {name: str(each.state) for name, each in result.step_results.items()} == states
        last = {"_": 0, "folder": str(folder), "quarters": QUARTERS}
        assert Pipeline("all").add_step(hold, params=last, resources={"gpu": 2}).run(executor=executor)["hold"]
        if backend == "process":
            assert sum(member.retired is None for member in executor._team.workers) <= executor.max_workers
