"""The longer programs of examples/: small, on every executor, and equal to the same job done plainly."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import subprocess
import sys
import zipfile
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from flowyml import Executor


@pytest.fixture(scope="module")
def example(root: Path) -> Callable[[str], ModuleType]:
    """A function that loads an example as a module, once."""
    loaded: dict[str, ModuleType] = {}

    def load(name: str) -> ModuleType:
        if name not in loaded:
            spec = importlib.util.spec_from_file_location(name, root / "examples" / f"{name}.py")
            loaded[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        return loaded[name]

    return load


@pytest.fixture
def script(root: Path, tmp_path: Path) -> Callable[..., str]:
    """A function that runs an example as a user does, and returns what it printed."""

    def run(name: str, *arguments: str) -> str:
        command = [sys.executable, str(root / "examples" / f"{name}.py"), *arguments]
        done = subprocess.run(
            command, env=os.environ | {"TMPDIR": str(tmp_path)}, text=True, capture_output=True, timeout=50
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert list(tmp_path.iterdir()) == []
        return done.stdout

    return run


# ---- quality_etl ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_quality(example: Callable[[str], ModuleType]) -> dict[int, tuple[int, dict[str, float]]]:
    """For each month the number of flights that departed, and the quality; without pandas, row by row."""
    folder = example("quality_etl").tables()

    def rows(name: str) -> csv.DictReader:
        return csv.DictReader((folder / name).read_text(encoding="utf-8").splitlines())

    planes = {row["tailnum"] for row in rows("planes.csv")}
    airports = {row["faa"] for row in rows("airports.csv")}
    wind = {(row["origin"], row["time_hour"]) for row in rows("weather.csv") if row["wind_speed"] not in {"", "NA"}}
    counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open(archive.namelist()[0]) as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8")):
            month = counts[int(row["month"])]
            flown = row["dep_time"] not in {"", "NA"}
            month["flown" if flown else "cancelled"] += 1
            if flown:
                month["plane"] += row["tailnum"] not in planes
                month["airport"] += row["dest"] not in airports
                month["weather"] += (row["origin"], row["time_hour"]) not in wind
    return {month: (count["flown"], _shares(count)) for month, count in counts.items()}


def _shares(count: dict[str, int]) -> dict[str, float]:
    flown = count["flown"]
    shares = {what: count[what] / flown for what in ("plane", "airport", "weather")}
    return {"cancelled": count["cancelled"] / (flown + count["cancelled"]), **shares}


@pytest.mark.parametrize(
    ("month", "limits", "ran", "skipped"),
    [(1, {}, "publish", "quarantine"), (2, {}, "quarantine", "publish"), (1, {"plane": 0.1}, "quarantine", "publish")],
    ids=["good", "too many cancelled", "stricter limit"],
)
def test_a_month_of_flights_is_published_or_quarantined(
    example: Callable[[str], ModuleType],
    executor: Executor,
    tmp_path: Path,
    plain_quality: dict[int, tuple[int, dict[str, float]]],
    month: int,
    limits: dict[str, float],
    ran: str,
    skipped: str,
) -> None:
    etl = example("quality_etl")
    pipeline = etl.etl_pipeline(tmp_path, etl.LIMITS | limits, etl.tables())
    result = pipeline.run(context={"month": month}, executor=executor, raise_on_failure=True)

    flown, quality = plain_quality[month]
    assert (len(result["joined"]), result["quality"]) == (flown, pytest.approx(quality, abs=1e-12))
    assert result["gate"] is (ran == "publish")
    assert result.step_results[ran].success
    assert result.step_results[skipped].skipped
    assert result.step_results["weather"].attempts == 2
    verdict, files = result[ran]
    assert result["report"] == f"2013-{month:02} {verdict}: {', '.join(files)}"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    assert len((tmp_path / files[0]).read_text().splitlines()) == 1 + (
        flown if ran == "publish" else result["joined"].isna().any(axis=1).sum()
    )


def test_quality_etl_as_a_script(script: Callable[..., str]) -> None:
    lines = script("quality_etl", "--small").splitlines()
    assert lines[0] == "2013-01 published: flights_01.csv, airlines_01.csv"
    assert lines[2] == "2013-02 quarantined: doubtful_02.csv, cancelled_02.csv"


# ---- sweep ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grid_search(example: Callable[[str], ModuleType]) -> tuple[object, float]:
    """What scikit-learn's own GridSearchCV finds."""
    sweep = example("sweep")
    return sweep.by_scikit_learn(sweep.SMALL_GRID, 3, 300)


def test_a_sweep_finds_what_grid_search_finds(
    example: Callable[[str], ModuleType], executor: Executor, grid_search: tuple[object, float]
) -> None:
    sweep = example("sweep")
    result = sweep.sweep_pipeline(sweep.SMALL_GRID, 3, 300).run(executor=executor, raise_on_failure=True)

    best = result["ranking"][0]
    assert (tuple(best), result["unseen_score"]) == (tuple(grid_search[0]), grid_search[1])
    assert len(result["score"]) == 18
    assert result["model"].get_params()["gamma"] == best.setting["gamma"]
    assert sorted((each.mean for each in result["ranking"]), reverse=True) == [each.mean for each in result["ranking"]]


def test_sweep_as_a_script(script: Callable[..., str]) -> None:
    printed = script("sweep", "--small", "--check", "--backend", "thread")
    assert printed.startswith("18 trainings, ")
    assert printed.endswith("\nGridSearchCV: equal\n")
