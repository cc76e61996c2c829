"""Programs of the kind that the documentation of other libraries shows, written for flowyml, on every executor.

By the library whose users write such programs: pipefunc (sweeps), Hamilton (functions wired by their parameters),
Prefect (retries, maps, flows in flows), Metaflow (foreach and join), Luigi (targets that exist), joblib (calls in
parallel).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flowyml import If, Pipeline, retry, step

if TYPE_CHECKING:
    from pathlib import Path

# ---- pipefunc: a sweep, its reduction, several outputs, one function under several names ----------------------------


def kinetic(mass: float, speed: float) -> float:
    return mass * speed**2 / 2


def largest(energies: list[float]) -> tuple[int, float]:
    best = max(range(len(energies)), key=lambda each: energies[each])
    return best, energies[best]


def test_a_sweep_over_a_grid_is_reduced(executor: Any) -> None:
    masses, speeds = [1.0, 2.0], [3.0, 5.0, 4.0]
    pipeline = Pipeline("sweep")
    pipeline.map(kinetic, over={"mass": masses, "speed": speeds}, combine="product", name="energies")
    pipeline.add_step(largest, outputs=["index", "energy"])
    result = pipeline.run(executor=executor)
    assert np.reshape(result["energies"], (2, 3)).tolist() == [[4.5, 12.5, 8.0], [9.0, 25.0, 16.0]]
    assert (result["index"], result["energy"]) == (4, 25.0)


def split_name(name: str) -> tuple[str, str]:
    first, _, last = name.partition(" ")
    return first, last


def initials(first: str, last: str) -> str:
    return first[0] + last[0]


def test_several_outputs_of_a_function_are_read_by_name(executor: Any) -> None:
    pipeline = Pipeline("names").add_step(split_name, outputs=["first", "last"]).add_step(initials)
    result = pipeline.run({"name": "Ada Lovelace"}, executor=executor)
    assert dict(result.outputs) == {"first": "Ada", "last": "Lovelace", "initials": "AL"}


def scale(value: float, factor: float) -> float:
    return value * factor


def test_one_function_under_two_names_with_other_inputs_each(executor: Any) -> None:
    pipeline = Pipeline("units")
    pipeline.add_step(scale, name="metres", inputs={"value": "feet"}, params={"factor": 0.3048})
    pipeline.add_step(scale, name="centimetres", inputs={"value": "metres"}, params={"factor": 100})
    result = pipeline.run({"feet": 10.0}, executor=executor)
    assert result["metres"] == pytest.approx(3.048)
    assert result["centimetres"] == pytest.approx(304.8)


# ---- Hamilton: functions wired by their parameters, columns taken out of a table, a choice by configuration ---------


def table() -> dict[str, list[float]]:
    return {"spend": [10.0, 20.0, 30.0], "signups": [1.0, 4.0, 10.0]}


def spend_mean(spend: list[float]) -> float:
    return sum(spend) / len(spend)


def spend_zero_mean(spend: list[float], spend_mean: float) -> list[float]:
    return [each - spend_mean for each in spend]


def cost_per_signup(spend: list[float], signups: list[float]) -> list[float]:
    return [cost / count for cost, count in zip(spend, signups, strict=True)]


def test_columns_of_a_table_go_to_the_functions_that_name_them(executor: Any) -> None:
    pipeline = Pipeline("features").add_step(table, outputs=["spend", "signups"])
    pipeline.add_steps([spend_zero_mean, cost_per_signup, spend_mean])
    result = pipeline.run(executor=executor)
    assert result["spend_mean"] == 20.0
    assert result["spend_zero_mean"] == [-10.0, 0.0, 10.0]
    assert result["cost_per_signup"] == [10.0, 5.0, 3.0]


def test_only_what_is_asked_for_is_computed(executor: Any) -> None:
    pipeline = Pipeline("features").add_step(table, outputs=["spend", "signups"])
    pipeline.add_steps([spend_zero_mean, cost_per_signup, spend_mean])
    result = pipeline.run(targets="cost_per_signup", executor=executor)
    assert list(result.step_results) == ["table", "cost_per_signup"]


def uk_holidays(year: int) -> list[str]:
    return [f"{year}-12-25", f"{year}-12-26"]


def us_holidays(year: int) -> list[str]:
    return [f"{year}-07-04"]


def days(holidays: list[str]) -> int:
    return len(holidays)


@pytest.mark.parametrize(("region", "count"), [("UK", 2), ("US", 1)])
def test_configuration_chooses_the_function(executor: Any, region: str, count: int) -> None:
    chosen = {"UK": uk_holidays, "US": us_holidays}[region]
    pipeline = Pipeline("calendar").add_step(chosen, name="holidays").add_step(days)
    assert pipeline.run({"year": 2026}, executor=executor)["days"] == count


# ---- Prefect: retries, maps with constant arguments, results that are cached by inputs, flows in flows --------------


@step(retry=retry(max_attempts=3, on=[ConnectionError]))
def download(attempts: Path, url: str) -> str:
    with attempts.open("a") as file:
        file.write(f"{url}\n")
    if len(attempts.read_text().splitlines()) < 3:
        raise ConnectionResetError(url)
    return f"page of {url}"


def test_a_call_that_fails_twice_is_retried(executor: Any, folder: Path) -> None:
    pipeline = Pipeline("site").add_step(download, params={"attempts": folder / "attempts", "url": "a"})
    result = pipeline.run(executor=executor)
    assert result["download"] == "page of a"
    assert result.step_results["download"].attempts == 3


def priced(item: str, prices: dict[str, int], count: int) -> int:
    return prices[item] * count


def test_a_map_with_arguments_that_are_the_same_for_all(executor: Any) -> None:
    pipeline = Pipeline("order").add_step(lambda: {"tea": 3, "bread": 2}, name="prices")
    pipeline.map(priced, ["tea", "bread", "tea"], params={"count": 10}).add_step(sum, name="total", inputs="priced")
    result = pipeline.run(executor=executor)
    assert list(result["priced"]) == [30, 20, 30]
    assert result["total"] == 80


def squared_and_noted(number: int, calls: Path) -> int:
    with calls.open("a") as file:
        file.write(f"{number}\n")
    return number**2


def test_calls_with_known_inputs_are_not_made_again(executor: Any, folder: Path) -> None:
    def run(numbers: list[int]) -> list[int]:
        pipeline = Pipeline("squares", cache_dir=folder / "cache")
        pipeline.map(squared_and_noted, numbers, params={"calls": folder / "calls"}, cache="input_hash")
        return list(pipeline.run(executor=executor)["squared_and_noted"])

    assert run([1, 2]) == [1, 4]
    assert run([2, 3, 1]) == [4, 9, 1]
    assert sorted((folder / "calls").read_text().split()) == ["1", "2", "3"]


def cleaned(raw: list[str]) -> list[str]:
    return [each.strip().lower() for each in raw]


def unique(cleaned: list[str]) -> list[str]:
    return sorted(set(cleaned))


def test_a_flow_in_a_flow(executor: Any) -> None:
    cleaning = Pipeline("cleaning").add_steps([cleaned, unique])
    pipeline = Pipeline("report").add_step(lambda: [" B", "a ", "b"], name="words")
    pipeline.add_sub_pipeline(cleaning, inputs={"raw": "words"}, outputs=["unique"])
    pipeline.add_step(", ".join, name="line", inputs=["unique"])
    assert pipeline.run(executor=executor)["line"] == "a, b"


# ---- Metaflow: parameters, a foreach and its join, a branch ---------------------------------------------------------


def shards(rows: int, size: int = 4) -> list[range]:
    return [range(first, min(first + size, rows)) for first in range(0, rows, size)]


def shard_sum(shard: range) -> int:
    return sum(shard)


def joined(shard_sum: list[int]) -> int:
    return sum(shard_sum)


def fine(joined: int) -> str:
    return f"{joined} is enough"


def poor(joined: int) -> str:
    return f"{joined} is too little"


def end(fine: str = "", poor: str = "") -> str:
    return fine or poor


@pytest.mark.parametrize(("rows", "said"), [(10, "45 is enough"), (3, "3 is too little")])
def test_a_foreach_is_joined_and_decides_a_branch(executor: Any, rows: int, said: str) -> None:
    pipeline = Pipeline("stats").add_step(shards).map(shard_sum, over="shards").add_step(joined)
    pipeline.add_control_flow(If(lambda ctx: ctx["joined"] > ctx.params["least"], fine, poor, after=["joined"]))
    pipeline.add_step(end, run_if="any")
    result = pipeline.run({"rows": rows}, context={"least": 20}, executor=executor)
    assert result["end"] == said
    assert {result.step_results[name].state.value for name in ("fine", "poor")} == {"success", "skipped"}


# ---- Luigi: a target that exists is not made again ------------------------------------------------------------------


def write_words(target: Path, made: Path) -> Path:
    if not target.exists():
        target.write_text("to be or not to be")
        with made.open("a") as file:
            file.write("words\n")
    return target


def write_count(words: Path, target: Path, made: Path) -> Path:
    if not target.exists():
        target.write_text(str(len(words.read_text().split())))
        with made.open("a") as file:
            file.write("count\n")
    return target


def test_files_that_exist_are_not_made_again(executor: Any, folder: Path) -> None:
    count, made = folder / "count.txt", folder / "made.txt"
    pipeline = Pipeline("counts").add_step(write_words, name="words", params={"target": folder / "words", "made": made})
    pipeline.add_step(write_count, params={"target": count, "made": made})

    def run() -> list[str]:
        assert pipeline.run(executor=executor)["write_count"].read_text() == "6"
        return made.read_text().split()

    assert run() == ["words", "count"]
    assert run() == ["words", "count"]
    count.unlink()
    assert run() == ["words", "count", "count"]


# ---- joblib: calls that share an array, a function with memory, a batch of fits -------------------------------------


def window_mean(array: np.ndarray, first: int) -> float:
    return float(array[first : first + 1000].mean())


def test_calls_share_a_large_array(executor: Any) -> None:
    array = np.arange(1_000_000.0)
    pipeline = Pipeline("windows").map(window_mean, range(0, 1_000_000, 100_000), params={"array": array})
    means = list(pipeline.run(executor=executor)["window_mean"])
    assert means == [first + 499.5 for first in range(0, 1_000_000, 100_000)]


def transformed(array: np.ndarray, calls: Path) -> np.ndarray:
    with calls.open("a") as file:
        file.write("called\n")
    return np.sqrt(array)


def test_a_function_remembers_what_it_returned_for_equal_arrays(executor: Any, folder: Path) -> None:
    for array in (np.arange(9.0), np.arange(9.0), np.arange(9.0) + 1):
        pipeline = Pipeline("memory", cache_dir=folder / "cache")
        parameters = {"array": array, "calls": folder / "calls"}
        pipeline.add_step(transformed, params=parameters, cache=True)
        np.testing.assert_array_equal(pipeline.run(executor=executor)["transformed"], np.sqrt(array))
    assert len((folder / "calls").read_text().split()) == 2


def fit_score(depth: int, seed: int) -> float:
    from sklearn.datasets import load_iris
    from sklearn.model_selection import train_test_split
    from sklearn.tree import DecisionTreeClassifier

    data = load_iris()
    seen, unseen, known, wanted = train_test_split(data.data, data.target, random_state=seed)
    return float(DecisionTreeClassifier(max_depth=depth, random_state=seed).fit(seen, known).score(unseen, wanted))


def test_a_batch_of_fits(executor: Any) -> None:
    pytest.importorskip("sklearn", reason="the extra `test` is not complete")
    depths, seeds = [1, 3], [0, 1, 2]
    pipeline = Pipeline("fits").map(fit_score, over={"depth": depths, "seed": seeds}, combine="product", name="scores")
    scores = list(pipeline.run(executor=executor)["scores"])
    assert scores == [fit_score(depth, seed) for depth in depths for seed in seeds]
