"""Interception of `Pipeline.run`: `flowyml run script.py` executes a script that may run its pipeline itself.

```
flowyml run script.py -c day=3 --workers 4
    └─ interceptor ─┐
script: pipeline.run() ──▶ interceptor.run(pipeline, its arguments) ──▶ pipeline.run(changed arguments)
```

Outside of the command no interceptor is installed, and a run pays one read of a global. A run that the interceptor
passes through, and runs inside of that in steps and hooks, are not intercepted again; runs that other threads and
coroutines of the script start meanwhile are.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from flowyml.pipeline import Pipeline
    from flowyml.results.result import PipelineResult

    class RunInterceptor(Protocol):
        """Takes over the runs of a script."""

        def run(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
            """Run a pipeline; `arguments` are those of `Pipeline.run`."""

        def rerun(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
            """Continue a run; `arguments` are those of `Pipeline.rerun`."""

        async def run_async(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
            """Run a pipeline in an event loop; `arguments` are those of `Pipeline.run_async`."""


current: RunInterceptor | None = None
_passthrough: ContextVar[bool] = ContextVar("flowyml_passthrough", default=False)
_lock = threading.Lock()
_active_runs = 0


@contextmanager
def install(interceptor: RunInterceptor) -> Iterator[None]:
    """Install an interceptor for the runs of a block."""
    global current  # noqa: PLW0603  the interceptor of this process
    before, current = current, interceptor
    try:
        yield
    finally:
        current = before


@contextmanager
def passthrough() -> Iterator[None]:
    """Do not intercept the runs of this block."""
    token = _passthrough.set(True)
    _count(1)
    try:
        yield
    finally:
        _count(-1)
        _passthrough.reset(token)


def _count(more: int) -> None:
    global _active_runs  # noqa: PLW0603  worker threads do not inherit a context variable
    with _lock:
        _active_runs += more


def is_active(*, in_step: bool) -> bool:
    """Return True if this is inside of a run that was passed through.

    Args:
        in_step: True if this is in a step of some run; a thread that the step has started is not.
    """
    return _passthrough.get() or (in_step and _active_runs > 0)
