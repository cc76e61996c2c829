"""Section 1.8 of the table of what 2.2.1 does: probes G1 to G9, inverted."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flowyml import CacheStore, Pipeline, step

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def states(result: Any) -> list[str]:
    return [str(each.state) for each in result.step_results.values()]


def test_G1_a_changed_upstream_value_is_no_stale_result(folder):
    def run(n: int) -> Any:
        pipeline = Pipeline("p", cache_dir=folder).add_step(lambda n: n, "raw", {"n": n}, cache="code_hash")
        return pipeline.add_step(lambda raw: raw * 10, name="scaled", cache="code_hash").run()

    assert [run(1)["scaled"], run(2)["scaled"], run(1)["scaled"]] == [10, 20, 10]
    assert states(run(2)) == ["cached", "cached"]


def test_G2_true_is_code_and_inputs(folder):
    def run(x: int) -> Any:
        return Pipeline("p", cache_dir=folder).add_step(abs, params={"x": x}, cache=True).run()["abs"]

    assert [run(-1), run(-2), run(-1)] == [1, 2, 1]


def test_G3_input_hash_runs_again_when_inputs_change(folder):
    calls = []

    @step(cache="input_hash")
    def f(x: int) -> int:
        calls.append(x)
        return x

    for x in (1, 1, 2):
        assert Pipeline("p", cache_dir=folder).add_step(f, params={"x": x}).run()["f"] == x
    assert calls == [1, 2]


def test_G4_arrays_that_differ_in_the_middle_have_two_keys(folder):
    def run(array: np.ndarray) -> float:
        pipeline = Pipeline("p", cache_dir=folder).add_step(np.sum, "sum", {"a": array}, cache="input_hash")
        return float(pipeline.run()["sum"])

    one, other = np.zeros(5000), np.zeros(5000)
    other[2500] = 1
    assert [run(one), run(other)] == [0.0, 1.0]


def test_G5_a_key_function_gets_step_inputs_and_context(folder):
    asked = []

    def key(step: Any, inputs: Any, context: Any) -> str:
        asked.append((step.name, dict(inputs), dict(context)))
        return "always"

    for x in (1, 2):
        pipeline = Pipeline("p", context={"c": 3}, cache_dir=folder).add_step(
            lambda x, c: x + c, "f", {"x": x}, cache=key
        )
        assert pipeline.run()["f"] == 4
    assert asked == [("f", {"x": 1, "c": 3}, {"c": 3}), ("f", {"x": 2, "c": 3}, {"c": 3})]
    short = Pipeline("p", cache_dir=folder).add_step(lambda: 5, name="g", cache=lambda inputs, context: "k")
    assert [states(short.run()), states(short.run())] == [["success"], ["cached"]]


def test_G6_none_is_cached(folder):
    calls = []

    def nothing() -> None:
        calls.append(1)

    results = [Pipeline("p", cache_dir=folder).add_step(nothing, cache=True).run() for _ in range(2)]
    assert (calls, states(results[1]), results[1]["nothing"]) == ([1], ["cached"], None)


def test_G7_closures_of_one_text_have_their_own_values(folder):
    def made(factor: int) -> Pipeline:
        def scale(x: int) -> int:
            return x * factor

        return Pipeline(f"p{factor}", cache_dir=folder).add_step(scale, params={"x": 1}, cache=True)

    assert [made(2).run()["scale"], made(3).run()["scale"], made(2).run()["scale"]] == [2, 3, 2]


def test_G8_a_result_that_does_not_pickle_is_one_warning(folder, caplog):
    pipeline = Pipeline("p", cache_dir=folder).map(lambda x: threading.Lock(), [1, 2, 3], name="locks", cache=True)
    result = pipeline.run()
    assert (result.success, states(pipeline.run())) == (True, ["success"])
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert ["locks[0]" in each and "cannot be stored" in each for each in warnings] == [True, True]


def test_G9_storing_is_linear_and_large_values_are_files(folder):
    def run(count: int) -> None:
        Pipeline("p", cache_dir=folder).map(
            np.full, [(k, k) for k in range(count)], params={"fill_value": 1.0}, cache=True
        ).run()

    run(150)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [".gitignore", "index.db", "objects", "swept"]
    store = CacheStore(folder)
    files = [path for path in (folder / "objects").rglob("*") if path.is_file()]
    assert (store.stats()["total_entries"], 0 < len(files) < 150) == (150, True)
    store.clear_step("full")
    assert store.stats()["total_entries"] == 0
