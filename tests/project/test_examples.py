"""The longer programs of examples/: small, on every executor, and equal to the same job done plainly."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

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


# ---- word_count ----------------------------------------------------------------------------------------------------


def test_words_are_counted_as_a_plain_counter_counts_them(
    example: Callable[[str], ModuleType], executor: Executor, tmp_path: Path
) -> None:
    word_count = example("word_count")
    word_count.write_paragraphs(tmp_path, None)
    result = word_count.word_count_pipeline(tmp_path, letters=6).run(executor=executor, raise_on_failure=True)

    paths = list(tmp_path.iterdir())
    words = Counter(re.sub("[^a-z]", " ", "\n".join(path.read_text().lower() for path in paths)).split())
    assert len(paths) > 2_000
    assert len(result["count"]) == len(result["files"]) == len(paths)
    assert result["total"] == words
    assert [times for _, times in result["frequent"]] == sorted(
        (times for word, times in words.items() if len(word) >= 6), reverse=True
    )[:20]


def test_no_files_are_no_words(example: Callable[[str], ModuleType], executor: Executor, tmp_path: Path) -> None:
    result = example("word_count").word_count_pipeline(tmp_path).run(executor=executor, raise_on_failure=True)
    assert (result["files"], list(result["count"]), result["total"], result["frequent"]) == ([], [], {}, [])


def test_word_count_as_a_script(script: Callable[..., str]) -> None:
    printed = script("word_count", "--small").splitlines()
    assert printed[0].startswith("300 files, ")
    assert len(printed) == 21


# ---- downloads -----------------------------------------------------------------------------------------------------


def downloaded(server: Any) -> dict[str, bytes]:
    """Download everything in a plain loop, until each file is as it should be."""
    contents = {}
    for name, content in server.files.items():
        while contents.get(name) != content:
            try:
                with urllib.request.urlopen(f"{server.url}/{name}") as answer:
                    contents[name] = answer.read()
            except urllib.error.HTTPError as error:
                error.close()
    return contents


def test_downloads_are_complete_however_often_the_server_fails(
    example: Callable[[str], ModuleType], executor: Executor, tmp_path: Path
) -> None:
    downloads = example("downloads")
    files = downloads.modules(12)
    with downloads.serving(files, failing=0.4, seed=3) as server:
        pipeline = downloads.download_pipeline(server.url, tmp_path)
        result = pipeline.run(executor=executor, seed=3, raise_on_failure=True)
    with downloads.serving(files, failing=0.4, seed=3) as plain:
        contents = downloaded(plain)

    attempts = {item.output.path.name: item.attempts for item in result.step_results["download"].items}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert contents == server.files
    assert (
        server.asked
        == plain.asked
        == Counter(attempts, **{"catalogue.json": result.step_results["catalogue"].attempts})
    )
    assert server.moods == plain.moods
    assert max(attempts.values()) > 1
    assert result["size"] == sum(map(len, files.values()))
    assert result["longest"] == max(files, key=lambda name: len(files[name]))


def test_downloads_as_a_script(script: Callable[..., str]) -> None:
    printed = script("downloads", "--small").splitlines()
    assert printed[0].startswith("20 files, ")
    assert re.fullmatch(r"\d+ attempts in [\d.]+ s; requests: \d+ good, .*", printed[1])
