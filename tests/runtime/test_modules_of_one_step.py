"""The number of modules that one plain step passes, from `Pipeline()` to its value: no feature that it does not use.

Counted with a profile hook around one run on a warm executor with one worker. In a worker process the initializer sets
the hook, which counts the life of the worker from its first step on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from pathlib import Path

COUNT: Final = """
import json, os, sys, threading
from pathlib import Path

import flowyml
from flowyml import LocalExecutor, ParallelExecutor, Pipeline

ROOT = os.path.dirname(flowyml.__file__) + os.sep
passed = set()


def double(x):
    return 2 * x


def hook(frame, event, _):
    if event == "call" and frame.f_code.co_filename.startswith(ROOT):
        passed.add(frame.f_code.co_filename[len(ROOT):])


def hook_in_worker(path):
    def write(frame, event, argument):
        before = len(passed)
        hook(frame, event, argument)
        if len(passed) > before:
            Path(path).write_text(json.dumps(sorted(passed)))

    sys.setprofile(write)


def run_one_step(executor):
    result = Pipeline("p").add_step(double, params={"x": 21}).run(executor=executor)
    assert result["double"] == 42


def hook_in_thread():
    sys.setprofile(hook)


if __name__ == "__main__":
    import functools

    backend, path = sys.argv[1:]
    if backend == "local":
        executor = LocalExecutor()
    elif backend == "thread":
        executor = ParallelExecutor(1, backend="thread", initializer=hook_in_thread)
    else:
        executor = ParallelExecutor(1, initializer=functools.partial(hook_in_worker, path))
    with executor:
        for _ in range(3):
            run_one_step(executor)
        passed.clear()
        sys.setprofile(hook)
        run_one_step(executor)
        sys.setprofile(None)
    in_worker = json.loads(Path(path).read_text()) if backend == "process" else []
    print(json.dumps(sorted(passed | set(in_worker))))
"""

# The aim is 35 modules on the local executor and on threads, and 60 on processes, driver and worker together.
LIMITS: Final = {"local": 39, "thread": 39, "process": 67}


def printed_by(script: Path, text: str, *arguments: str) -> list[str]:
    """Run a script as a user does, without the checks of fast paths that tests turn on; return the names it prints."""
    script.write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLOWYML_")}
    command = [sys.executable, str(script), *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("backend", LIMITS)
def test_a_plain_step_passes_few_modules(backend: str, tmp_path: Path) -> None:
    modules = printed_by(tmp_path / "count.py", COUNT, backend, str(tmp_path / "worker.json"))
    assert len(modules) <= LIMITS[backend], modules


@pytest.mark.timeout(60)
def test_a_plain_run_imports_no_feature(tmp_path: Path) -> None:
    """Neither hooks, breakers, retries, maps, dynamic steps, limits, seeds nor the cache."""
    modules = printed_by(
        tmp_path / "plain.py",
        "import json, sys\n"
        "from flowyml import Pipeline\n"
        "assert Pipeline('p').add_step(max, params={'a': 1, 'b': 2}).run()['max'] == 2\n"
        "print(json.dumps(sorted(name for name in sys.modules if name.startswith('flowyml.'))))\n",
    )
    features = (
        "dynamic_steps",
        "events",
        "expansion",
        "extension",
        "failure_policy",
        "random_seeds",
        "resource_limits",
    )
    unused = {f"flowyml.runtime.{name}" for name in features} | {"flowyml.hooks", "flowyml.caching.lookup"}
    assert unused.isdisjoint(modules)
