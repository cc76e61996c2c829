"""What gevent and eventlet patch: one clear error where workers would hang or fail, and no more errors than that."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
PATCH
from flowyml import *

def double(x):
    return 2 * x

backend = sys.argv[1]
executor = LocalExecutor() if backend == "local" else ParallelExecutor(2, backend)
try:
    print(list(Pipeline("p").map(double, range(5)).run(executor=executor)["double"]))
except ExecutorError as error:
    print(error)
"""
PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all({})",
    "eventlet": "import eventlet; eventlet.monkey_patch({})",
}
ENOUGH = {
    ("gevent", "process"): "select=False",
    ("gevent", "thread"): "thread=False, queue=False",
    ("eventlet", "process"): "select=False, os=False",
    ("eventlet", "thread"): "thread=False",
}
DOUBLED = "[0, 2, 4, 6, 8]"


def told(library: str, backend: str, arguments: str = "") -> str:
    """Run a pipeline where a library has patched the standard library; return what it says."""
    pytest.importorskip(library)
    script = textwrap.dedent(SCRIPT).replace("PATCH", PATCHES[library].format(arguments))
    done = subprocess.run([sys.executable, "-c", script, backend], text=True, capture_output=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("library", "backend"), ENOUGH)
def test_workers_that_would_hang_are_refused_with_what_to_do(library, backend):
    message = told(library, backend)
    assert message.startswith(f"{library} has patched ")
    assert message.endswith(f"({ENOUGH[library, backend]})")
    assert "use LocalExecutor(), or backend='async'" in message


@pytest.mark.parametrize(("library", "backend"), ENOUGH)
def test_workers_run_where_as_much_is_left_out_as_the_error_says(library, backend):
    assert told(library, backend, ENOUGH[library, backend]) == DOUBLED


@pytest.mark.parametrize("backend", ["local", "async"])
@pytest.mark.parametrize("library", PATCHES)
def test_the_local_executor_and_the_event_loop_run_with_all_patches(library, backend):
    assert told(library, backend) == DOUBLED
