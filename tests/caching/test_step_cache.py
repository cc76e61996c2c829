"""Cached steps, on every executor: what is taken from the cache, what runs, and what it says about it."""

from __future__ import annotations

import datetime as dt
import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from run_notes import note, ran
from step_states import states_in_order as states

from flowyml import CacheStore, If, LocalExecutor, ParallelExecutor, Pipeline, StepState, step

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> CacheStore:
    return CacheStore(tmp_path / "cache")


def load(folder: str, n: int) -> dict[str, Any]:
    note(folder, f"load {n}")
    return {"rows": list(range(n)), "names": {"a", "b", str(n)}, "array": np.arange(n)}


def total(folder: str, load: dict[str, Any]) -> float:
    note(folder, "total")
    return float(sum(load["rows"]) + load["array"].sum())


def shown(folder: str, total: float, unit: str = "m") -> str:
    note(folder, "shown")
    return f"{total} {unit}"


def chain(store: CacheStore, folder: Path, n: int = 4, **options: Any) -> Pipeline:
    pipeline = Pipeline("p", context={"folder": str(folder)}, cache_dir=store)
    pipeline.add_step(load, params={"n": n}, cache=True)
    return pipeline.add_step(total, cache=True, **options).add_step(shown, cache=True)


# -- what is taken over


def test_the_second_run_runs_nothing(store, folder, executor):
    first = chain(store, folder).run(executor=executor)
    assert (states(first), ran(folder)) == (["success"] * 3, ["load 4", "shown", "total"])
    second = chain(store, folder).run(executor=executor)
    assert (states(second), ran(folder)) == (["cached"] * 3, [])
    assert second.success
    assert second["shown"] == first["shown"] == "12.0 m"
    assert second["load"]["names"] == {"a", "b", "4"}
    assert [each.cached for each in second.step_results.values()] == [True] * 3
    assert second.to_dict()["steps"]["load"]["cached"] is True
    assert "load: 0.00s cached" in second.summary()


def test_a_changed_parameter_runs_the_step_and_what_depends_on_it(store, folder, executor):
    chain(store, folder).run(executor=executor)
    ran(folder)
    assert states(chain(store, folder, n=5).run(executor=executor)) == ["success"] * 3
    assert ran(folder) == ["load 5", "shown", "total"]
    assert states(chain(store, folder).run(executor=executor)) == ["cached"] * 3


def test_a_step_that_returns_the_same_again_changes_nothing_below(store, folder, executor):
    def pipeline(rounds: int) -> Pipeline:
        def even(folder: str) -> dict[str, Any]:
            note(folder, f"even {rounds}")
            return {"rows": [1, 2], "array": np.arange(3), "extra": {str(k) for k in range(50)}}

        made = Pipeline("p", context={"folder": str(folder)}, cache_dir=store)
        return made.add_step(even, name="load").add_step(total, cache=True).add_step(shown, cache=True)

    pipeline(1).run(executor=executor)
    assert ran(folder) == ["even 1", "shown", "total"]
    assert states(pipeline(2).run(executor=executor)) == ["success", "cached", "cached"]
    assert ran(folder) == ["even 2"]


def test_what_one_executor_has_stored_all_others_find(store, folder):
    made = [LocalExecutor(), *(ParallelExecutor(2, backend) for backend in ("process", "thread", "async"))]
    for executor in made:
        with executor:
            for each in made:
                with each:
                    assert states(chain(store, folder).run(executor=each))[1:] in (["success"] * 2, ["cached"] * 2)
            assert len(ran(folder)) == 3
        store.clear()


def test_each_item_of_a_mapped_step_is_cached(store, folder, executor):
    def double(item: Any, folder: str) -> Any:
        note(folder, item)
        return item, item

    def run(items: Any) -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, cache_dir=store)
        return pipeline.map(double, items, cache=True).run(executor=executor)

    run([1, "a", 2.5])
    assert ran(folder) == ["1", "2.5", "a"]
    result = run([2.5, 7, "a"])
    assert ran(folder) == ["7"]
    assert [str(item.state) for item in result.step_results["double"].items] == ["cached", "success", "cached"]
    assert list(result["double"]) == [(2.5, 2.5), (7, 7), ("a", "a")]
    assert run([7, "a"]).step_results["double"].cached


def test_a_mapped_step_over_what_a_cached_one_produced(store, folder, executor):
    def numbers(folder: str) -> list[int]:
        note(folder, "numbers")
        return [3, 4, 5]

    def double(item: int, folder: str) -> int:
        note(folder, item)
        return 2 * item

    def run() -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, cache_dir=store).add_step(numbers, cache=True)
        pipeline.map(double, over="numbers", cache=True).map(str, over="double", name="text", cache=True)
        return pipeline.add_step(sum, inputs=["double"], cache=True).run(executor=executor)

    assert run()["sum"] == 24
    assert ran(folder) == ["3", "4", "5", "numbers"]
    again = run()
    assert (states(again), ran(folder), list(again["text"])) == (["cached"] * 4, [], ["6", "8", "10"])


def test_several_outputs_are_cached_together(store, folder, executor):
    def split(folder: str) -> Any:
        note(folder, "split")
        return {"left": [1, 2], "right": pd.DataFrame({"a": [1, 2]})}

    def use(right: Any, folder: str) -> int:
        note(folder, "use")
        return int(right["a"].sum())

    def run() -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder)}, cache_dir=store)
        pipeline.add_step(split, outputs=["left", "right"], cache=True)
        return pipeline.add_step(use, cache=True).run(executor=executor)

    run()
    ran(folder)
    result = run()
    assert (states(result), ran(folder), result["use"], result["left"]) == (["cached"] * 2, [], 3, [1, 2])
    assert list(result["split"]) == ["left", "right"]


def test_large_values_come_from_files(store, folder, executor):
    def large(folder: str) -> np.ndarray:
        note(folder, "large")
        return np.arange(100_000.0)

    def pipeline() -> Pipeline:
        made = Pipeline("p", context={"folder": str(folder)}, cache_dir=store).add_step(large, cache=True)
        return made.add_step(np.sum, name="sum", inputs=["large"])

    first = pipeline().run(executor=executor)
    second = pipeline().run(executor=executor)
    assert (ran(folder), states(second), second["sum"]) == (["large"], ["cached", "success"], first["sum"])
    files = [path for path in (store.cache_dir / "objects").rglob("*") if path.is_file()]
    assert [path.stat().st_size > 800_000 for path in files] == [True]


@pytest.mark.parametrize("value", [None, float("nan"), (), {}, set(), b"bytes", "text" * 10_000, 1 << 70, -0.0])
def test_values_come_back_as_they_were(store, executor, value):
    for expected in ("success", "cached"):
        result = Pipeline("p", cache_dir=store).add_step(lambda: value, name="v", cache=True).run(executor=executor)
        assert states(result) == [expected]
        assert repr(result["v"]) == repr(value)


def test_a_failed_step_is_not_cached(store, folder, executor):
    def fails(folder: str) -> None:
        note(folder, "fails")
        raise ValueError("no")

    for _ in range(2):
        pipeline = Pipeline("p", context={"folder": str(folder)}, cache_dir=store).add_step(fails, cache=True)
        assert states(pipeline.run(executor=executor)) == ["failed"]
        assert ran(folder) == ["fails"]
    assert store.stats()["total_entries"] == 0


def test_what_a_fallback_returned_is_not_cached(store, executor):
    def fails(x: int) -> int:
        raise ValueError(x)

    for _ in range(2):
        pipeline = Pipeline("p", cache_dir=store)
        pipeline.add_step(fails, params={"x": 1}, cache=True, fallback=lambda: 7)
        result = pipeline.run(executor=executor)
        assert (states(result), result["fails"]) == (["success"], 7)


def test_a_skipped_step_is_not_cached(store, executor):
    for _ in range(2):
        pipeline = Pipeline("p", cache_dir=store)
        pipeline.add_step(abs, params={"x": 1}, cache=True, condition=lambda x: x > 1)
        assert states(pipeline.run(executor=executor)) == ["skipped"]


def test_a_condition_is_part_of_the_key(store, executor):
    def run(least: int) -> list[str]:
        pipeline = Pipeline("p", cache_dir=store)
        return states(
            pipeline.add_step(abs, params={"x": 3}, cache=True, condition=lambda x: x > least).run(executor=executor)
        )

    assert [run(2), run(2), run(4), run(2)] == [["success"], ["cached"], ["skipped"], ["cached"]]


def test_a_decision_looks_at_cached_values(store, executor):
    def run() -> Any:
        pipeline = Pipeline("p", cache_dir=store).add_step(lambda: [0.9], name="scores", cache=True)
        decision = If(lambda ctx: ctx["scores"][0] > 0.5, name="good").then(step(lambda: "yes", name="yes"))
        return pipeline.add_control_flow(decision).run(executor=executor)

    assert (run()["yes"], run()["yes"]) == ("yes", "yes")


def test_a_seed_is_part_of_the_key(store, executor):
    def drawn() -> float:
        import random

        return random.random()

    def run(seed: int | None) -> Any:
        return Pipeline("p", cache_dir=store).add_step(drawn, cache=True).run(executor=executor, seed=seed)

    first = run(1)["drawn"]
    assert [run(1)["drawn"], states(run(1)), states(run(2)), states(run(None))] == [
        first,
        ["cached"],
        ["success"],
        ["success"],
    ]


def test_keep_leaves_lets_cached_values_go(store, folder, executor):
    for _ in range(2):
        result = chain(store, folder).run(executor=executor, keep="leaves")
        assert result["shown"] == "12.0 m"
        with pytest.raises(LookupError, match="dropped"):
            _ = result["load"]


def test_hooks_hear_of_cached_steps(store, folder, executor):
    told = []
    for _ in range(2):
        pipeline = chain(store, folder)
        pipeline.hooks.on_step_start(lambda step, inputs: told.append(("start", step.name)))
        pipeline.hooks.on_step_end(lambda step, result: told.append((str(result.state), step.name)))
        pipeline.run(executor=executor)
    assert told[6:] == [("cached", "load"), ("cached", "total"), ("cached", "shown")]


def test_a_cached_run_starts_no_worker(store, folder):
    with ParallelExecutor(2) as executor:
        chain(store, folder).run(executor=executor)
    with ParallelExecutor(2) as executor:
        assert states(chain(store, folder).run(executor=executor)) == ["cached"] * 3
        assert not executor._team.workers


def test_many_items_that_are_there_and_are_not(store, executor):
    def run(items: Any) -> Any:
        return Pipeline("p", cache_dir=store).map(abs, items, cache=True).run(executor=executor)

    run(range(0, 3000, 3))
    result = run(range(2500))
    assert list(result["abs"]) == list(range(2500))
    assert [str(item.state) for item in result.step_results["abs"].items[:4]] == [
        "cached",
        "success",
        "success",
        "cached",
    ]
    assert sum(item.cached for item in result.step_results["abs"].items) == 834
    assert run(range(2500)).step_results["abs"].cached


# -- what the key is made of


def test_changed_code_runs_the_step(store, folder):
    def made(source: str) -> Pipeline:
        names: dict[str, Any] = {"__name__": "__main__", "note": note}
        exec(source, names)
        return Pipeline("p", context={"folder": str(folder)}, cache_dir=store).add_step(names["f"], cache=True)

    source = "def helper():\n    return 1\n\ndef f(folder):\n    note(folder, 'f')\n    return helper()\n"
    runs = [
        source,
        f"# a comment\n{source}",
        source.replace("return 1", "return 2"),
        source.replace("1", "1.0"),
        source,
    ]
    results = [made(each).run() for each in runs]
    assert [states(result) for result in results] == [["success"], ["cached"], ["success"], ["success"], ["cached"]]
    assert [result["f"] for result in results] == [1, 1, 2, 1.0, 1]


def test_a_step_that_was_renamed_finds_its_value(store):
    assert states(Pipeline("p", cache_dir=store).add_step(abs, "a", {"x": 1}, cache=True).run()) == ["success"]
    assert states(Pipeline("q", cache_dir=store).add_step(abs, "b", {"x": 1}, cache=True).run()) == ["cached"]


@pytest.mark.parametrize("one", [1, 1.0, True, "1", np.int64(1), [1], (1,)])
def test_types_are_told_apart(store, one):
    for value in (1, 1.0, True, "1", np.int64(1), [1], (1,)):
        Pipeline("p", cache_dir=store).add_step(repr, params={"obj": value}, cache=True).run()
    result = Pipeline("p", cache_dir=store).add_step(repr, params={"obj": one}, cache=True).run()
    assert (states(result), result["repr"]) == (["cached"], repr(one))


def test_input_hash_takes_the_value_of_other_code(store):
    def made(change: int) -> Pipeline:
        def f(x: int) -> int:
            return x + change

        return Pipeline("p", cache_dir=store).add_step(f, params={"x": 1}, cache="input_hash")

    assert [made(1).run()["f"], made(2).run()["f"]] == [2, 2]
    assert states(Pipeline("p", cache_dir=store).add_step(abs, params={"x": 1}, cache="input_hash").run()) == [
        "success"
    ]


def test_a_step_whose_code_cannot_be_hashed_is_not_cached_but_by_its_inputs(store, tmp_path, caplog):
    with (tmp_path / "log").open("w") as file:

        def f(x: int) -> int:
            print(x, file=file)
            return x

        def cached(mode: Any) -> list[str]:
            made = Pipeline("p", cache_dir=store).map(f, [1, 2], name="f", cache=mode)
            return [state for _ in range(2) for state in states(made.run())]

        assert cached("input_hash") == ["success", "cached"]
        assert told(caplog) == []
        assert cached(True) == ["success", "success"]
        reason = "step 'f[0]' is not cached: its code cannot be hashed: closure value 'file' of "
        assert [reason in each for each in told(caplog)] == [True, True]


def test_input_hash_knows_parameters_by_name(store):
    def run(params: dict[str, int]) -> Any:
        def f(a: int = 0, b: int = 0) -> tuple[int, int]:
            return a, b

        return Pipeline("p", cache_dir=store).add_step(f, params=params, cache="input_hash").run()["f"]

    assert [run({"a": 1}), run({"b": 1}), run({"a": 1})] == [(1, 0), (0, 1), (1, 0)]


def test_a_function_makes_the_key(store, folder, executor):
    asked = []

    def by_path(step: Any, inputs: Any, context: Any) -> str:
        asked.append((step.name, dict(inputs), context["folder"]))
        return f"{inputs['path']}@{context['version']}"

    def read(path: str, junk: object, folder: str) -> str:
        note(folder, path)
        return path.upper()

    def run(path: str, junk: object, version: int) -> Any:
        pipeline = Pipeline("p", context={"folder": str(folder), "version": version}, cache_dir=store)
        return pipeline.add_step(read, params={"path": path, "junk": junk}, cache=by_path).run(executor=executor)

    results = [run("a", 1, 1), run("a", threading.current_thread().name, 1), run("a", 1, 2), run("b", 1, 1)]
    assert [states(result) for result in results] == [["success"], ["cached"], ["success"], ["success"]]
    assert ran(folder) == ["a", "a", "b"]
    assert asked[0] == ("read", {"path": "a", "junk": 1, "folder": str(folder)}, str(folder))


def test_a_key_function_sees_the_values_of_other_steps(store, executor):
    def run(n: int) -> Any:
        pipeline = Pipeline("p", cache_dir=store).add_step(lambda: list(range(n)), name="rows")
        return pipeline.add_step(len, inputs=["rows"], cache=lambda inputs, context: str(inputs["obj"][-1])).run(
            executor=executor
        )

    assert [states(run(3))[1], states(run(3))[1], states(run(4))[1]] == ["success", "cached", "success"]


def test_what_holds_for_time_only(store):
    def run(**options: Any) -> str:
        return states(Pipeline("p", cache_dir=store).add_step(abs, params={"x": 1}, **options).run())[0]

    assert [run(cache_ttl=dt.timedelta(days=1)), run(cache_ttl=60), run(cache=True)] == ["success", "cached", "cached"]
    time.sleep(0.02)
    assert [run(cache_ttl=0.01), run(cache_ttl=60), run(cache=False, cache_ttl=60)] == ["success", "cached", "success"]


def test_the_options_of_a_step():
    assert [step(cache=each)(abs).cache for each in (True, "code_hash", "input_hash", False, None)] == [
        "code_hash",
        "code_hash",
        "input_hash",
        False,
        False,
    ]
    assert step(cache_ttl=5)(abs).cache == "code_hash"
    assert step(abs).options is step(max).options


def test_a_pipeline_may_turn_all_caching_off(store, folder):
    for _ in range(2):
        pipeline = Pipeline("p", context={"folder": str(folder)}, cache_dir=store, enable_cache=False)
        assert states(pipeline.add_step(load, params={"n": 1}, cache=True).run()) == ["success"]
    assert not store.cache_dir.exists()
    assert (pipeline.cache_stats(), pipeline.invalidate_cache()) == ({}, 0)


def test_add_step_overrides_the_step(store):
    cached = step(abs, cache=True) if False else step(cache=True)(abs)
    for _ in range(2):
        pipeline = Pipeline("p", cache_dir=store).add_step(cached, "on", {"x": 1})
        result = pipeline.add_step(cached, "off", {"x": 1}, cache=False).run()
    assert states(result) == ["cached", "success"]


def test_the_default_folder_is_made_when_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Pipeline("p").add_step(abs, params={"x": 1}).run()
    Pipeline("p").add_step(abs, params={"x": 1}, cache=True).explain("abs")
    assert list(tmp_path.iterdir()) == []
    Pipeline("p").add_step(abs, params={"x": 1}, cache=True).run()
    assert (tmp_path / ".flowyml" / "cache" / "index.db").exists()
    assert (tmp_path / ".flowyml" / "cache").stat().st_mode & 0o777 == 0o700


# -- what cannot be cached


def told(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_argument_that_cannot_be_hashed(store, caplog):
    lock = threading.Lock()
    for _ in range(2):
        result = (
            Pipeline("p", cache_dir=store)
            .map(lambda x, lock: x, [1, 2], name="m", params={"lock": lock}, cache=True)
            .run()
        )
        assert result.success
    reason = "an argument cannot be hashed: TypeError: cannot pickle '_thread.lock' object"
    assert told(caplog) == [f"cache: step 'm[0]' is not cached: {reason}"] * 2


def test_a_value_of_another_step_that_cannot_be_hashed(store, caplog):
    pipeline = Pipeline("p", cache_dir=store).add_step(threading.Lock, name="lock")
    assert pipeline.add_step(lambda lock: 1, name="use", cache=True).run().success
    assert ["'use' is not cached: an argument cannot be hashed" in each for each in told(caplog)] == [True]


def test_a_value_that_does_not_pickle(store, caplog):
    for _ in range(2):
        result = Pipeline("p", cache_dir=store).map(lambda x: threading.Lock(), [1, 2], name="m", cache=True).run()
        assert states(result) == ["success"]
    assert len(told(caplog)) == 2
    assert "step 'm[0]' is not cached: its value cannot be stored: TypeError: cannot pickle" in told(caplog)[0]


def test_an_open_file_is_not_cached_as_its_text(store, tmp_path, caplog):
    (tmp_path / "text").write_text("text")

    def opened() -> Any:
        return (tmp_path / "text").open()

    for _ in range(2):
        result = Pipeline("p", cache_dir=store).add_step(opened, cache=True).run()
        assert (states(result), result["opened"].read()) == (["success"], "text")
        result["opened"].close()
    assert ["its value cannot be stored" in each for each in told(caplog)] == [True, True]


def test_a_key_function_that_fails(store, caplog):
    def key(step: Any, inputs: Any, context: Any) -> str:
        raise KeyError("x")

    def number(inputs: Any, context: Any) -> Any:
        return 5

    pipeline = Pipeline("p", cache_dir=store).add_step(abs, params={"x": 1}, cache=key)
    assert pipeline.add_step(hex, params={"number": 1}, cache=number).run().success
    first, second = told(caplog)
    assert "'abs' is not cached: its cache function" in first
    assert first.endswith("failed: KeyError: 'x'")
    assert "must return a string, it returned int 5" in second


def test_a_value_that_does_not_load_any_more_is_made_again(store):
    def made() -> Pipeline:
        class Local:
            pass

        Local.__qualname__, Local.__module__ = "Gone", "made_and_gone"
        import sys
        import types

        sys.modules["made_and_gone"] = types.ModuleType("made_and_gone")
        sys.modules["made_and_gone"].Gone = Local
        return Pipeline("p", cache_dir=store).add_step(functools.partial(_make, "made_and_gone"), name="v", cache=True)

    import sys

    assert states(made().run()) == ["success"]
    pipeline = made()
    del sys.modules["made_and_gone"].Gone
    result = pipeline.run()
    assert states(result) == ["failed"]  # it ran
    del sys.modules["made_and_gone"]


def _make(module: str) -> Any:
    import sys

    return sys.modules[module].Gone()


# -- what it says


def test_explain_tells_whether_the_value_is_there(store, folder):
    pipeline = chain(store, folder)
    assert pipeline.explain("load").cache == "nothing is stored for it yet"
    assert pipeline.explain("total").cache == "its key is not known before 'load' has run"
    pipeline.run()
    assert pipeline.explain("total").cache == "its value is there, stored 0 seconds ago"
    assert "\n  Cache: its value is there" in str(pipeline.explain("total"))
    assert Pipeline("p").add_step(abs, params={"x": 1}).explain("abs").cache is None
    assert ran(folder) == ["load 4", "shown", "total"]


def test_explain_tells_why_the_key_changed(store):
    def pipeline(source: str, **params: Any) -> Pipeline:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(source, names)
        return Pipeline("p", cache_dir=store).add_step(names["f"], params=params, cache=True)

    source = "RATE = 1\ndef helper(x):\n    return x\ndef f(x, y=2):\n    return helper(x) + RATE\n"
    pipeline(source, x=1).run()
    since = " since its newest value was stored, 0 seconds ago"

    def changes(source: str, **params: Any) -> Any:
        return pipeline(source, **params).explain("f").cache

    assert changes(source, x=2) == f"argument 'x' has changed{since}"
    assert changes(source.replace("RATE = 1", "RATE = 2"), x=1) == f"global 'RATE' has changed{since}"
    assert changes(source.replace("return x", "return -x"), x=1) == f"helper() has changed{since}"
    assert changes(source.replace("y=2", "y=3"), x=1) == f"default of 'y' has changed{since}"
    assert (
        changes(source.replace("+ RATE", "- RATE"), x=1.0) == f"its code has changed, argument 'x' has changed{since}"
    )
    assert changes(source, x=1, y=5) == f"argument 'y' is new{since}"
    assert changes(source, x=1) == "its value is there, stored 0 seconds ago"
    assert changes(source, x=threading.Lock()).startswith("an argument cannot be hashed")


def test_explain_tells_of_items_and_of_what_run_has_to_give(store):
    def f(item: int, rate: int) -> int:
        return item * rate

    def pipeline(items: Any) -> Pipeline:
        return Pipeline("p", cache_dir=store).map(f, items, cache=True)

    assert (
        pipeline([1]).explain("f").cache == "0 of 1 item cached; f[0]: its key is not known before run() gives 'rate'"
    )
    pipeline([1, 2]).run({"rate": 2})
    known = Pipeline("p", context={"rate": 2}, cache_dir=store).map(f, [1, 2, 3], cache=True)
    since = "since its newest value was stored, 0 seconds ago"
    assert known.explain("f").cache == f"2 of 3 items cached; f[2]: argument 'item' has changed {since}"


def test_explain_tells_of_time(store):
    Pipeline("p", cache_dir=store).add_step(abs, params={"x": 1}, cache=True).run()
    time.sleep(0.02)
    short = Pipeline("p", cache_dir=store).add_step(abs, params={"x": 1}, cache_ttl=0.01)
    assert short.explain("abs").cache == "its value is older than cache_ttl, stored 0 seconds ago"


def test_dry_run_tells_what_is_cached(store, folder, capsys):
    pipeline = chain(store, folder).map(abs, [1, 2, 3], cache=True)
    pipeline.run(dry_run=True)
    assert capsys.readouterr().out.endswith("nothing was run.\nFrom the cache: nothing.\n")
    pipeline.run()
    result = chain(store, folder).map(abs, [1, 5, 3], cache=True).run(dry_run=True)
    assert capsys.readouterr().out.endswith("From the cache: 'load', 'total', 'shown', 'abs' (2 of 3 items).\n")
    assert {each.state for each in result.step_results.values()} == {StepState.WAITING}
    assert ran(folder) == ["load 4", "shown", "total"]


def test_stats_and_invalidation(store, folder):
    for _ in range(2):
        pipeline = chain(store, folder)
        pipeline.run()
    stats = pipeline.cache_stats()
    assert {name: stats[name] for name in ("total_entries", "hits", "misses", "hit_rate")} == {
        "total_entries": 3,
        "hits": 3,
        "misses": 3,
        "hit_rate": 0.5,
    }
    assert stats["by_step"]["load"]["count"] == 1
    assert pipeline.invalidate_cache(step="total", before=dt.datetime.now() - dt.timedelta(hours=1)) == 0  # noqa: DTZ005
    assert pipeline.invalidate_cache(step="total") == 1
    assert states(chain(store, folder).run()) == ["cached", "success", "cached"]
    assert pipeline.invalidate_cache(before=dt.date.today() + dt.timedelta(days=1)) == 3  # noqa: DTZ011
    assert states(chain(store, folder).run()) == ["success"] * 3


class Scales:
    """A model with a parameter."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def predict(self, x: int) -> int:
        return self.factor * x

    __call__ = predict


def scaled(factor: int, x: int) -> int:
    return factor * x


def test_what_is_bound_to_a_function_is_an_input(tmp_path: Path) -> None:
    """With "input_hash", whose keys leave the code out: what a partial, a method or an object carries is no code."""
    makes = [lambda k: functools.partial(scaled, k), lambda k: Scales(k).predict, Scales]
    for make in makes:
        for factor in (2, 3):
            pipeline = Pipeline("p", cache_dir=tmp_path)
            pipeline.add_step(make(factor), "s", {"x": 10}, cache="input_hash")
            assert pipeline.run()["s"] == 10 * factor


def test_lambdas_are_told_apart(tmp_path: Path) -> None:
    for function, value in ((lambda x: x + 1, 2), (lambda x: x + 2, 3)):
        pipeline = Pipeline("p", cache_dir=tmp_path).add_step(function, "s", {"x": 1}, cache="input_hash")
        assert pipeline.run()["s"] == value
