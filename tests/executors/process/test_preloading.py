"""Modules that are imported once, before workers are forked: which, what workers have of it, when it is not done."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas  # noqa: ICN001, F401  this process has imported it
import pytest
from worker_pools import eventually, forked

from flowyml import ParallelExecutor, Pipeline
from flowyml.executors.process.driver import backend
from flowyml.executors.process.pool.command_line import START_VARIABLE
from flowyml.executors.process.worker import fork_server
from flowyml.steps.conditions import GuardedFunction


@pytest.fixture(autouse=True)
def _forking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(START_VARIABLE, raising=False)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, for modules that a test writes."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def ask(executor: ParallelExecutor, function: Any, **params: Any) -> Any:
    """Call a function in a worker."""
    result = Pipeline("ask").add_step(function, name="ask", params=params).run(executor=executor)
    result.raise_for_failure()
    return result["ask"]


def words_of_template() -> list[str]:
    """In a worker: what its template was told to import."""
    line = Path("/proc/self/cmdline").read_text().rstrip("\0").split("\0")
    return line[line.index("-c") + 2 :]


# ---- which ---------------------------------------------------------------------------------------------------------


def run_of(function: Any) -> Any:
    """Return a run of one step, as far as it is looked at."""
    plan = SimpleNamespace(templates=[object()], function_of=lambda _node: function)
    return SimpleNamespace(plan=plan)


def scripted(text: str, **names: Any) -> Any:
    """Return the function `f` as a script would define it."""
    space = {"__name__": "__main__", **names}
    exec(text, space)
    return space["f"]


def test_large_packages_that_this_process_has_imported():
    """Whatever the functions use; with the subpackages that were imported."""
    words = backend.preload_candidates()
    assert {"numpy", "numpy.linalg", "pandas"} <= {word.partition("=")[0] for word in words}
    assert all(Path(word.partition("=")[2]).is_file() for word in words)
    assert not [word for word in words if "._" in word.partition("=")[0]]


def test_packages_that_this_process_has_not_imported_are_left_to_the_steps(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    assert not [word for word in backend.preload_candidates() if word.startswith("sklearn")]


def test_a_package_that_was_imported_since_is_found(monkeypatch):
    backend.preload_candidates()
    monkeypatch.setitem(sys.modules, "numpy.imported_since", np)
    assert any(word.startswith("numpy.imported_since=") for word in backend.preload_candidates())


def test_a_module_of_the_user_that_is_named_like_one_is_left_to_the_steps(monkeypatch):
    """Its file is not installed."""
    module = ModuleType("sklearn")
    module.__file__, module.__path__ = str(Path(__file__).parent / "sklearn" / "__init__.py"), []
    monkeypatch.setitem(sys.modules, "sklearn", module)
    assert not [word for word in backend.preload_candidates() if word.startswith("sklearn=")]


@pytest.mark.parametrize(
    "wrap", [lambda f: f, partial, lambda f: GuardedFunction(f, (), ("a",), None, {}, frozenset())]
)
def test_what_makes_functions_that_come_by_value(wrap: Any):
    """Behind whatever stands around the function."""
    assert fork_server.BY_VALUE in backend.initial_preload(run_of(wrap(scripted("def f(a): return a"))))
    assert fork_server.BY_VALUE not in backend.initial_preload(run_of(wrap(np.linalg.norm)))


def test_nothing_where_modules_are_patched_first(monkeypatch):
    monkeypatch.setitem(sys.modules, "gevent", os)
    assert backend.preload_candidates() == []


# ---- what workers have of it ---------------------------------------------------------------------------------------


@forked
def test_familiar_modules_are_there_at_once():
    with ParallelExecutor(2) as executor:
        assert any(word.startswith("pandas=") for word in ask(executor, words_of_template))


@forked
def test_what_later_runs_use_is_there_for_workers_that_come_later():
    with ParallelExecutor(1) as executor:
        os.kill(ask(executor, os.getpid), 9)
        assert any(word.startswith("pandas=") for word in ask(executor, words_of_template))
        os.kill(ask(executor, os.getpid), 9)
        assert any(word.startswith("pandas=") for word in ask(executor, words_of_template))


@forked
def test_a_variable_that_is_read_at_the_start_means_another_template(monkeypatch):
    with ParallelExecutor(1) as executor:
        before = ask(executor, os.getppid)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert any(word.startswith("pandas=") for word in ask(executor, words_of_template))
        assert ask(executor, os.getppid) != before


@forked
def test_a_module_that_runs_a_pipeline_is_refused(modules: Path, caplog):
    text = "from flowyml import *\nPipeline('p').add_step(abs, params={'x': 1}).run(executor=ParallelExecutor(2))"
    (modules / "running.py").write_text(text)
    with ParallelExecutor(1, preload=["running"]) as executor, caplog.at_level(logging.WARNING, "flowyml"):
        assert ask(executor, abs, x=-1) == 1
        assert eventually(lambda: bool(executor._team.pool.read_events()) or caplog.records)
    assert "running runs a pipeline when it is imported" in caplog.text.replace("'", "")


def test_random_generators_differ(tmp_path):
    """A generator that is there before the fork would be shared by all."""

    def draw(me: Path) -> tuple[int, float]:
        me.touch()
        assert eventually(lambda: len([*me.parent.iterdir()]) == 2)
        return os.getpid(), float(np.random.rand())  # noqa: NPY002  the global one is what is asked about

    with ParallelExecutor(2) as executor:
        drawn = Pipeline("draw").map(draw, [tmp_path / "a", tmp_path / "b"]).run(executor=executor)["draw"]
        (first, a), (second, b) = drawn
    assert first != second
    assert a != b


@forked
def test_algebra_has_its_threads(monkeypatch):
    """OpenBLAS ends its threads before a fork, and starts them again when it needs them."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    def multiply() -> tuple[int, bool]:
        a = np.random.default_rng(1).random((400, 400))
        product = a @ np.linalg.inv(a)
        return len([*Path("/proc/self/task").iterdir()]), bool(np.allclose(product, np.eye(400)))

    with ParallelExecutor(1) as executor:
        threads, right = ask(executor, multiply)
        assert any(word.startswith("numpy") for word in ask(executor, words_of_template))
    assert right
    assert threads <= 2


@forked
def test_a_module_by_name(modules: Path, monkeypatch):
    (modules / "slow_to_import.py").write_text("import os\nimported_by = os.getpid()\n")

    def look() -> tuple[bool, int, int]:
        import slow_to_import

        return "slow_to_import" in sys.modules, slow_to_import.imported_by, os.getpid()

    with ParallelExecutor(1, preload=["slow_to_import"], max_tasks_per_worker=1) as executor:
        (_, imported, first), (_, again, second) = ask(executor, look), ask(executor, look)
    assert imported == again
    assert len({imported, first, second}) == 3


# ---- when it is not done -------------------------------------------------------------------------------------------

UNFIT = {
    "cannot be imported: ModuleNotFoundError": None,
    "cannot be imported: ValueError: no": "raise ValueError('no')",
    "leave threads running": "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
    "leave descriptors open": "import os\nfd = os.open('/dev/null', os.O_RDONLY)",
    "ended": "import os\nos._exit(0)",
}


@forked
@pytest.mark.parametrize("words", UNFIT)
def test_what_must_not_be_forked_is_told_and_done_without(modules: Path, caplog, words):
    """Steps run all the same, in workers of a template that has imported nothing."""
    if (text := UNFIT[words]) is not None:
        (modules / "unfit.py").write_text(text)
    with ParallelExecutor(2, preload=["unfit"]) as executor, caplog.at_level(logging.WARNING, "flowyml"):
        assert ask(executor, abs, x=-1) == 1
        assert eventually(lambda: bool(executor._team.pool.read_events()) or caplog.records)
    (record,) = caplog.records
    assert record.getMessage().startswith("preload: workers start without unfit: ")
    assert words in record.getMessage()


@forked
def test_after_that_workers_are_forked_without_it(modules: Path, caplog):
    (modules / "unfit.py").write_text("raise ValueError")
    with ParallelExecutor(1, preload=["unfit"], max_tasks_per_worker=1) as executor:
        assert eventually(lambda: ask(executor, words_of_template)[3:] == sorted(backend.preload_candidates()))
    assert len(caplog.records) == 1


def test_a_familiar_module_of_another_file_is_left_out(monkeypatch):
    monkeypatch.setattr(fork_server, "_has_threads", lambda: False)  # those of whoever runs the tests
    path = os.pathsep.join(sys.path)
    monkeypatch.delitem(sys.modules, "this", raising=False)
    assert fork_server.preload(path, "this=/elsewhere/this.py") is None
    assert "this" not in sys.modules


@pytest.mark.parametrize("names", ["pandas", [1], ["no name"], [], [""]])
def test_no_list_of_names(names):
    with pytest.raises(TypeError, match="preload must be a list of module names"):
        ParallelExecutor(preload=names)


def test_it_is_about_processes():
    with pytest.raises(ValueError, match="preload is about worker processes"):
        ParallelExecutor(backend="thread", preload=["json"])


def test_it_travels_with_the_executor():
    import pickle

    executor = pickle.loads(pickle.dumps(ParallelExecutor(2, preload=["json"])))
    assert executor.preload == ("json",)
    assert "preload=('json',)" in repr(executor)
