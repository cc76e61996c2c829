"""The benches work: some cases of each group run at a small size, and what they print and write is complete.

Nothing is timed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pytest_benchmark", reason="the extra `bench` is not installed")


pytestmark = pytest.mark.timeout(240)  # the first of them has all measured

GROUPS = {"steps", "growth", "memory", "chains", "small", "values", "held", "start", "demo", "work", "core"}
CHOSEN = """
    (steps: and (flowyml or bare)) or (growth: and local) or (memory: and local) or (chains: and thousand and thread)
    or (small: and 400 and (flowyml or hand)) or (start: and (import or bare or processes)) or demo: or (work: and json)
    or (core: and flowyml) or (values: and processes) or (held: and budget)
"""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What a quick run of all benches prints and writes."""
    run = Path(__file__).parents[2] / "benches" / "run.py"
    if not run.exists():
        pytest.skip("the tests run away from the checkout")
    written = tmp_path_factory.mktemp("benches") / "figures.json"
    command = [
        sys.executable,
        str(run),
        "--quick",
        "--rounds",
        "1",
        "--json",
        str(written),
        "-k",
        " ".join(CHOSEN.split()),
    ]
    done = subprocess.run(command, text=True, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(written.read_text())


def figures_of(written: dict[str, Any], case: str) -> dict[str, Any]:
    (found,) = (each for each in written["figures"] if (each["group"], each["case"]) == ("steps", case))
    return found


def test_all_groups_are_measured(quick: tuple[str, dict[str, Any]]) -> None:
    _, written = quick
    assert {each["group"] for each in written["figures"]} == GROUPS
    for case in ("flowyml local add_step", "flowyml thread map", "flowyml process map", "bare loop"):
        measured = figures_of(written, case)
        assert measured["wall"]["run"][0] > 0
        assert measured["peak_with_workers"][0] >= measured["peak"][0] > 0


def test_workers_count_in_memory(quick: tuple[str, dict[str, Any]]) -> None:
    measured = figures_of(quick[1], "flowyml process add_step")
    assert measured["peak_with_workers"][0] > measured["peak"][0]


def test_the_table_shows_cases_ratios_and_bars(quick: tuple[str, dict[str, Any]]) -> None:
    printed, written = quick
    assert "A step that does nothing, size 500: us per step" in printed
    assert "flowyml process map" in printed
    assert "ratio: median of the rounds" in printed
    assert all(bar["bar"] in printed for bar in written["bars"])


def test_an_import_loads_nothing_heavy(quick: tuple[str, dict[str, Any]]) -> None:
    (bar,) = (bar for bar in quick[1]["bars"] if bar["bar"].startswith("numpy, pandas"))
    assert (bar["measured"], bar["verdict"]) == (0, "met")


def test_figures_name_no_machine(quick: tuple[str, dict[str, Any]]) -> None:
    """The kind of machine is told, its name is not."""
    assert set(quick[1]["machine"]) == {"cpu", "cpus", "memory", "system", "load_before"}
    assert {"python", "command", "commit", "date"} <= set(quick[1])


def test_the_tables_of_the_documents_are_those_of_the_results() -> None:
    tables = Path(__file__).parents[2] / "benches" / "tables.py"
    if not tables.exists():
        pytest.skip("the tests run away from the checkout")
    done = subprocess.run([sys.executable, str(tables), "--check"], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("made", ["chunk_pool()", "futures_pool()", 'futures_pool(context=get_context("spawn"))'])
def test_each_worker_of_a_baseline_leads_a_session(made: str, checkout: Path, tmp_path: Path) -> None:
    """As flowyml's workers do: Linux shares the CPUs between sessions first."""
    script = tmp_path / "sessions.py"
    lines = [
        "import os",
        "from multiprocessing import get_context",
        "from cases.pools import chunk_pool, futures_pool",
        'if __name__ == "__main__":',
        f"    with {made} as pool:",
        "        assert set(pool.map(os.getsid, [0] * 20)) <= {each.pid for each in get_context().active_children()}",
    ]
    script.write_text("\n".join(lines))
    environment = os.environ | {"PYTHONPATH": str(checkout / "benches")}
    done = subprocess.run([sys.executable, str(script)], env=environment, text=True, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_baselines_have_no_other_process_pools(checkout: Path) -> None:
    sources = {path.name: path.read_text() for path in (checkout / "benches" / "cases").glob("*.py")}
    made = re.compile(r"ProcessPoolExecutor\(|\.Pool\(")
    assert {name for name, source in sources.items() if made.search(source)} == {"pools.py"}


def test_what_no_bar_is_about_is_measured_too() -> None:
    """Each row of `benches/asides.py` has its two figures."""
    asides = Path(__file__).parents[2] / "benches" / "asides.py"
    if not asides.exists():
        pytest.skip("the tests run away from the checkout")
    done = subprocess.run([sys.executable, str(asides), "--quick"], text=True, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[-2:] for line in done.stdout.splitlines()[1:]]
    assert len(rows) == 8
    assert all(float(figure) >= 0 for row in rows for figure in row)
