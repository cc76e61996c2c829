"""The public surface: exactly these names, and an import that costs next to nothing."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import flowyml

# The one place where the public names are listed; a new one is a decision, made here.
PUBLIC = {
    # authoring
    "Context",
    "Pipeline",
    "Step",
    "context",
    "dynamic",
    "step",
    "sub_pipeline",
    # inside a step
    "get_context",
    # retries
    "ExponentialBackoff",
    "RetryConfig",
    "retry",
    # failures
    "CircuitBreaker",
    "on_failure",
    # control flow
    "If",
    "Switch",
    "unless",
    "when",
    # fan-out
    "MapTask",
    "map_task",
    # running
    "Executor",
    "LocalExecutor",
    "ParallelExecutor",
    "parallel_map",
    # results
    "MapTaskResult",
    "PipelineResult",
    "StepResult",
    "StepState",
    # stores
    "CacheStore",
    "File",
    "PipelineCheckpoint",
    # errors
    "CircuitOpenError",
    "CycleError",
    "ExecutorError",
    "FanOutError",
    "FlowymlError",
    "MapTaskError",
    "MemoryBudgetError",
    "MemoryLimitError",
    "OutputMismatchError",
    "PipelineValidationError",
    "RemoteError",
    "RunInterrupted",
    "SerializationError",
    "StepError",
    "StepNotRunError",
    "StepTimeoutError",
    "StoreError",
    "ValueLoadError",
    "WorkerLostError",
}

HEAVY = {"asyncio", "cloudpickle", "concurrent", "multiprocessing", "numpy", "pandas", "sqlite3"}


def test_exactly_these_names_are_public() -> None:
    assert set(flowyml.__all__) - {"__version__"} == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_is_there(name: str) -> None:
    assert getattr(flowyml, name) is getattr(flowyml, name)
    assert name in dir(flowyml)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_is_documented(name: str) -> None:
    """One sentence; beside it one example that runs, but for errors: nobody writes those down."""
    value = getattr(flowyml, name)
    assert value.__doc__
    is_error = isinstance(value, type) and issubclass(value, BaseException)
    assert is_error or ">>> " in value.__doc__


def test_the_other_path_of_parallel_map_is_the_same_function() -> None:
    from flowyml.utils.parallel import parallel_map

    assert parallel_map is flowyml.parallel_map


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="ParalelExecutor"):
        _ = flowyml.ParalelExecutor


def test_the_version_is_that_of_the_distribution() -> None:
    assert flowyml.__version__ == metadata.version("flowyml")


def test_a_checkout_that_is_not_built_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    with pytest.raises(ImportError, match=r"is not installed in this environment, .* `make develop`"):
        _ = flowyml.__version__


def test_import_loads_nothing_heavy() -> None:
    code = "import sys; before = set(sys.modules); import flowyml; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert "flowyml" in done.stdout.split()
    assert HEAVY & {name.partition(".")[0] for name in done.stdout.split()} == set()


def test_all_names_come_without_what_runs_pipelines() -> None:
    """It is loaded when a pipeline is made: the half of the package, and the larger modules that it stands on."""
    code = "import sys; before = set(sys.modules); from flowyml import *; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True).stdout
    assert "flowyml.pipeline" in loaded.split()
    later = {"flowyml._core", "flowyml.runtime.run", "flowyml.planning.plan", "logging", "pathlib", "pickle"}
    assert later & set(loaded.split()) == set()


def test_the_types_ship() -> None:
    package = Path(flowyml.__file__).parent
    assert (package / "py.typed").exists()
    assert (package / "_core.pyi").exists()


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("flowyml.core", "Pipeline Step step context If Switch when retry ParallelExecutor map_task dynamic"),
        ("flowyml.core.cache", "CacheStore"),
        ("flowyml.core.checkpoint", "PipelineCheckpoint"),
        ("flowyml.core.conditional", "If Switch unless when"),
        ("flowyml.core.context", "Context context"),
        ("flowyml.core.dynamic", "dynamic"),
        ("flowyml.core.error_handling", "CircuitBreaker ExponentialBackoff RetryConfig on_failure retry"),
        ("flowyml.core.executor", "Executor LocalExecutor"),
        ("flowyml.core.map_task", "MapTaskResult map_task"),
        ("flowyml.core.parallel", "ParallelExecutor parallel_map"),
        ("flowyml.core.pipeline", "Pipeline PipelineResult"),
        ("flowyml.core.step", "Step step"),
        ("flowyml.core.subpipeline", "sub_pipeline"),
    ],
)
def test_the_paths_of_2_x_have_the_same_objects(path: str, names: str) -> None:
    module = importlib.import_module(path)
    assert [getattr(module, name) for name in names.split()] == [getattr(flowyml, name) for name in names.split()]


def test_a_name_that_is_its_modules_name_too_is_the_function_whatever_was_imported_first() -> None:
    script = "from flowyml.core.step import step; from flowyml.core import step as other; assert step is other"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_modules_of_2_x_load_a_name_when_it_is_used() -> None:
    code = (
        "import sys, flowyml.core.pipeline as pipeline; assert 'flowyml.pipeline' not in sys.modules;"
        "pipeline.Pipeline; assert 'flowyml.pipeline' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_modules_of_2_x_are_reloaded_found_and_unpickled() -> None:
    module = importlib.import_module("flowyml.core.step")
    assert importlib.reload(module) is module
    assert importlib.reload(importlib.import_module("flowyml.core")).step is module.step is flowyml.step
    assert len([finder for finder in sys.meta_path if getattr(finder, "__module__", "") == "flowyml.core"]) == 1
    assert importlib.util.find_spec("flowyml.core.cache") is not None
    assert pickle.loads(b"cflowyml.core.step\nStep\n.") is flowyml.Step
    assert dir(module) == module.__all__ == ["Step", "step"]


@pytest.mark.parametrize("path", ["flowyml.core", "flowyml.core.step", "flowyml.core.hooks"])
def test_the_paths_of_2_x_have_no_other_names(path: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{path}' has no attribute 'Stepp'"):
        _ = importlib.import_module(path).Stepp
    with pytest.raises(ImportError, match="Stepp"):
        exec(f"from {path} import Stepp")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{path}.nothing")


def test_documented_modules_are_attributes_of_the_package() -> None:
    code = "import flowyml; print(flowyml.visualize.show.__name__, flowyml.hooks.__name__, flowyml.errors.__name__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["show", "flowyml.hooks", "flowyml.errors"]


def test_a_misspelled_module_is_suggested() -> None:
    with pytest.raises(AttributeError, match="no attribute 'visualise'; did you mean 'visualize'"):
        flowyml.visualise  # noqa: B018
