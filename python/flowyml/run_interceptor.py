"""The command above the runs of a script: `flowyml run script.py` executes a script that may run its pipeline itself.

```
flowyml run script.py -c day=3 --workers 4
    └─ command ──┐
script: pipeline.run() ──▶ command.run(pipeline, its arguments) ──▶ pipeline.run(changed arguments)
```

Outside of the command there is none, and a run pays one look at a global for it. Where the command lets a pipeline run,
a run inside of that, in a step or a hook, is a run like any other; those that other threads and coroutines of the
script begin meanwhile are the command's.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Protocol

    from flowyml.pipeline import Pipeline
    from flowyml.results.result import PipelineResult

    class RunInterceptor(Protocol):
        """What takes the runs of a script into its hands."""

        def run(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
            """Run a pipeline in the way of the command; `arguments` are those of `Pipeline.run`."""

        def rerun(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
            """Continue a run, likewise; `arguments` are those of `Pipeline.rerun`."""

        async def run_async(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
            """Run a pipeline beside an event loop, likewise."""


current: RunInterceptor | None = None
_let_run: ContextVar[bool] = ContextVar("flowyml_let_run", default=False)
_lock = threading.Lock()
_going_on = 0


@contextmanager
def above(command: RunInterceptor) -> Iterator[None]:
    """Let a command be above the runs of a block."""
    global current  # noqa: PLW0603  that is what it is for
    before, current = current, command
    try:
        yield
    finally:
        current = before


@contextmanager
def let_run() -> Iterator[None]:
    """Let a pipeline run: what runs inside of it is no matter of the command."""
    token = _let_run.set(True)
    _count(1)
    try:
        yield
    finally:
        _count(-1)
        _let_run.reset(token)


def _count(more: int) -> None:
    global _going_on  # noqa: PLW0603  workers of threads have no context of their caller
    with _lock:
        _going_on += more


def is_inside(*, in_step: bool) -> bool:
    """Tell whether this is inside of a run that the command lets run.

    Args:
        in_step: Whether this is in a step of some run. A thread that the step has started is not.
    """
    return _let_run.get() or (in_step and _going_on > 0)


def given(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call from the local names at its beginning."""
    arguments: dict[str, Any] = {name: value for name, value in names.items() if name not in {"self", "unknown"}}
    arguments.update(names.get("unknown", {}))
    return arguments
