"""Runs dask's own tests with flowyml as dask's scheduler, and compares their outcomes with those of dask's schedulers.

    python tests/compat/dask_suite.py                                           # all: `make compat`
    python tests/compat/dask_suite.py --backends thread bag/tests/test_bag.py   # a part of them
    python tests/compat/dask_suite.py --keep DIR     # goes on where a run with this directory was stopped

dask's tests ship in its wheel. Each scheduler runs them in a pytest of its own, away from this project's configuration
(`dask_plugin.py`). Every test that passes with the baseline must pass with flowyml, except those that
`dask_excepted.toml` lists with a reason each. Tests that run no graph say nothing about a scheduler and are left out.
Prints a table in Markdown and each test that failed; the exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HERE = Path(__file__).parent
ALL = ("array", "bag", "dataframe")
BASELINES = {"local": "dask-sync", "thread": "dask-sync", "process": "dask-processes"}
"""By backend of flowyml: the scheduler of dask whose outcomes it must reach."""
# Tests with these marks need a network or a GPU, or take minutes each.
_MARKS = "not slow and not network and not gpu"
# Seconds for one test; it hangs if it takes longer.
_PATIENCE = 300
# dask's processes agree on hash(str) only if a seed is set; this is the one that its own scheduler sets.
_HASH_SEED = "6640"
# pytest's exit code if there are none to run: their outcomes are known.
_NO_TESTS = 5


class Outcome(NamedTuple):
    """The outcome of a test (passed, failed, skipped, xfailed), its number of graphs, and a short reason."""

    outcome: str
    graphs: int
    words: str


Outcomes = dict[str, Outcome]


@dataclass
class Comparison:
    """Outcomes of one backend compared with its baseline's.

    Attributes:
        tests: How many tests pass with the baseline and run at least one graph.
        graphs: How many graphs they ran on this backend.
        passed: How many of them passed on this backend.
        excepted: The tests that failed and are excepted, with the reason.
        failed: The tests that failed and must not, with how they failed.
        unneeded: Exceptions that no failed test needed.
    """

    backend: str
    tests: int = 0
    graphs: int = 0
    passed: int = 0
    excepted: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unneeded: list[str] = field(default_factory=list)


def outcomes_of(
    scheduler: str,
    paths: Sequence[str],
    workers: int,
    selected: Iterable[str] | None = None,
    keep: Path | None = None,
) -> Outcomes:
    """Run dask's tests with a scheduler in a pytest of its own.

    Args:
        scheduler: One of `dask_plugin.SCHEDULERS`.
        paths: Directories or files below the package `dask`.
        workers: How many processes run the tests; 0 is the pytest itself.
        selected: The ids of the tests to run; all by default.
        keep: A directory where the outcomes stay; tests whose outcomes are there are not run.

    Raises:
        RuntimeError: If the tests could not be run; with what pytest printed.
    """
    dask = Path(find_spec("dask").submodule_search_locations[0])
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(keep or scratch, f"{scheduler}.json").absolute()
        ran_before = json.loads(written.read_text()) if written.exists() else {}
        Path(scratch, "done").write_text("\n".join(ran_before))
        settings = {"COMPAT_SCHEDULER": scheduler, "COMPAT_OUTCOMES": str(written)}
        settings["COMPAT_DONE"] = str(Path(scratch, "done"))
        if selected is not None:
            Path(scratch, "selected").write_text("\n".join(selected))
            settings["COMPAT_SELECTED"] = str(Path(scratch, "selected"))
        plugins = ["-p", "dask_plugin", "-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:hypothesispytest"]
        configured = ["-c", os.devnull, "--rootdir", str(dask), "-m", _MARKS, f"--timeout={_PATIENCE}"]
        shown = ["-q", "--tb=line", "--disable-warnings"]
        several = ["-n", str(workers)] if workers else []
        command = [sys.executable, "-m", "pytest", *plugins, *configured, *shown, *several]
        done = subprocess.run(
            [*command, *(str(dask / path) for path in paths)],
            cwd=scratch,
            env=_environment() | settings,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode not in {0, 1, _NO_TESTS} or not written.exists():
            raise RuntimeError(f"dask's tests did not run with {scheduler}:\n{done.stdout[-5000:]}")
        return {test: Outcome(*each) for test, each in json.loads(written.read_text()).items()}


def _environment() -> dict[str, str]:
    """Return the environment, without what this project's own pytest may have set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONWARNINGS"))}
    return kept | {"PYTHONPATH": str(HERE), "PYTHONHASHSEED": _HASH_SEED}


def excepted(backend: str) -> dict[str, str]:
    """Return the tests that may fail on a backend, with the reason of each."""
    listed = tomllib.loads((HERE / "dask_excepted.toml").read_text())
    return listed["all"] | listed[backend]


def ran_graphs(outcomes: Outcomes) -> list[str]:
    """Return the tests that passed and ran a graph."""
    return [test for test, each in outcomes.items() if each.outcome == "passed" and each.graphs]


def compared(backend: str, baseline: Outcomes, ours: Outcomes, excepted: dict[str, str]) -> Comparison:
    """Compare the outcomes of a backend with those of its baseline; a test that did not run has failed."""
    comparison = Comparison(backend)
    needed = set()
    for test in ran_graphs(baseline):
        reached = ours.get(test, Outcome("failed", 0, "did not run, or its process died"))
        comparison.tests += 1
        comparison.graphs += reached.graphs
        if reached.outcome == "passed":
            comparison.passed += 1
            continue
        exception = test if test in excepted else test.partition("[")[0]
        if exception in excepted:
            comparison.excepted[test] = excepted[exception]
            needed.add(exception)
        else:
            comparison.failed[test] = f"{reached.outcome}: {reached.words}"
    comparison.unneeded = [each for each in excepted if each not in needed]
    return comparison


def table(comparisons: Iterable[Comparison]) -> str:
    """Return the comparisons as Markdown."""
    rows = ["| backend | baseline | tests | graphs | passed | excepted |", "| --- | --- | --- | --- | --- | --- |"]
    for each in comparisons:
        counts = [each.tests, each.graphs, each.passed, len(each.excepted)]
        rows.append(f"| {each.backend} | {BASELINES[each.backend]} | {' | '.join(f'{n:,}' for n in counts)} |")
    return "\n".join(rows)


def main() -> int:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*", default=ALL, help="directories or files below the package dask")
    parser.add_argument("--backends", nargs="+", choices=BASELINES, default=list(BASELINES))
    parser.add_argument(
        "--keep", type=Path, help="a directory for outcomes; tests whose outcomes are there are not run"
    )
    parser.add_argument("--workers", type=int, default=2, help="how many processes run the tests")
    options = parser.parse_args()
    paths = options.paths
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    run = partial(outcomes_of, paths=paths, workers=options.workers, keep=options.keep)
    found = {"dask-sync": run("dask-sync")}
    told = []
    for backend in options.backends:
        baseline = BASELINES[backend]
        if baseline not in found:
            found[baseline] = run(baseline, selected=ran_graphs(found["dask-sync"]))
        ours = run(backend, selected=ran_graphs(found[baseline]))
        comparison = compared(backend, found[baseline], ours, excepted(backend))
        told.append(comparison)
        print(f"{backend}: {comparison.passed:,} of {comparison.tests:,} passed", file=sys.stderr, flush=True)
    print(table(told))
    for each in told:
        for test, why in each.excepted.items():
            print(f"{each.backend}, excepted: {test}\n    {why}")
        for test, how in each.failed.items():
            print(f"{each.backend}, FAILED: {test}\n    {how}")
        for test in each.unneeded:
            print(f"{each.backend}, exception not needed: {test}")
    return int(any(each.failed for each in told))


if __name__ == "__main__":
    sys.exit(main())
