"""Some of dask's own tests, on each backend: bags, universal functions of arrays, indexing of dataframes.

`make compat` runs all of them; the table is in docs/reliability.md.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections import Counter
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("dask.dataframe", reason="the extra `compat` is not installed")

import dask_suite
from dask_scheduler import Scheduler
from dask_suite import Outcome

import flowyml

if TYPE_CHECKING:
    from pathlib import Path

    from dask_suite import Outcomes

PATHS = ("bag/tests/test_bag.py", "array/tests/test_ufunc.py", "dataframe/tests/test_indexing.py")

outcomes_of = functools.cache(lambda scheduler: dask_suite.outcomes_of(scheduler, PATHS, workers=0))


@pytest.mark.timeout(900)  # two schedulers run 400 tests each, each of which has a time limit of its own
@pytest.mark.parametrize("backend", dask_suite.BASELINES)
def test_what_passes_with_dasks_own_scheduler_passes(backend: str) -> None:
    baseline, ours = outcomes_of(dask_suite.BASELINES[backend]), outcomes_of(backend)
    comparison = dask_suite.compared(backend, baseline, ours, dask_suite.excepted(backend))
    assert comparison.failed == {}
    assert comparison.tests > 250
    assert comparison.graphs > 900


def test_a_worse_outcome_is_a_failure_unless_it_is_excepted() -> None:
    baseline: Outcomes = {name: Outcome("passed", 1, "") for name in ("same", "worse", "known[1]", "gone", "idle")}
    baseline |= {"idle": Outcome("passed", 0, ""), "bad": Outcome("failed", 2, "")}
    ours = {
        "same": Outcome("passed", 3, ""),
        "worse": Outcome("failed", 1, "wrong"),
        "known[1]": Outcome("skipped", 0, ""),
    }
    comparison = dask_suite.compared("local", baseline, ours, {"known": "why", "never": "stale"})
    assert (comparison.tests, comparison.graphs, comparison.passed) == (4, 4, 1)
    assert comparison.failed == {"worse": "failed: wrong", "gone": "failed: did not run, or its process died"}
    assert comparison.excepted == {"known[1]": "why"}
    assert comparison.unneeded == ["never"]
    assert dask_suite.table([comparison]).splitlines()[-1] == "| local | dask-sync | 4 | 4 | 1 | 1 |"


def test_a_run_that_was_stopped_continues(tmp_path: Path) -> None:
    paths, known = ["dataframe/tests/test_extensions.py"], "dataframe/tests/test_extensions.py::test_scalar"
    (tmp_path / "dask-sync.json").write_text(json.dumps({known: ["failed", 7, "as it was"]}))
    for _ in range(2):
        outcomes = dask_suite.outcomes_of("dask-sync", paths, workers=0, keep=tmp_path)
        assert outcomes.pop(known) == ("failed", 7, "as it was")
        assert {each.outcome for each in outcomes.values()} == {"passed"}
        assert len(outcomes) == 2


# ---- the adapter -----------------------------------------------------------------------------------------------------


def test_aliases_data_and_nested_keys() -> None:
    graph = {"a": 1, "b": "a", ("c", 0): (sum, ["a", "b", 5]), "unused": (int, "x")}
    get = Scheduler(flowyml.LocalExecutor())
    assert get(graph, [["a", "b"], [("c", 0)]]) == ((1, 1), (7,))
    assert get(graph, ("c", 0)) == 7
    assert get(graph, []) == ()


def test_an_iterator_becomes_a_list_and_a_weak_reference_does_not() -> None:
    values = Counter([1, 2])
    graph = {"a": (lambda: weakref.proxy(values),), "b": (type, "a"), "c": (lambda: iter([1, 2]),), "d": (type, "c")}
    assert Scheduler(flowyml.LocalExecutor())(graph, ["b", "d"]) == (weakref.ProxyType, list)


def test_a_tasks_own_exception_is_raised() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        Scheduler(flowyml.LocalExecutor())({"a": (divmod, 1, 0), "b": (abs, "a")}, "b")
    assert Counter(type(each) for each in (raised.value, raised.value.__cause__)) == {
        ZeroDivisionError: 1,
        type(None): 1,
    }


def test_a_task_runs_once_and_only_if_it_is_needed() -> None:
    calls: list[int] = []
    graph = {"a": (calls.append, 1), "b": (id, "a"), "c": (id, "a"), "d": (calls.append, 2)}
    Scheduler(flowyml.LocalExecutor())(graph, ["b", "c"])
    assert calls == [1]
