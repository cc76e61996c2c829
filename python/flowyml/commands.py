"""The command above the runs of a script: `flowyml run script.py` executes a script that may run its pipeline itself.

```
flowyml run script.py -c day=3 --workers 4
    └─ command ──┐
script: pipeline.run() ──▶ command.run(pipeline, its arguments) ──▶ pipeline.run(changed arguments)
```

Outside of the command there is none, and a run pays one look at a global for it. While the command lets a pipeline run
it is off, so a run inside a step is a run like any other.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Protocol

    from flowyml.pipeline import Pipeline
    from flowyml.results.result import PipelineResult

    class Command(Protocol):
        """What takes the runs of a script into its hands."""

        def run(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
            """Run a pipeline in the way of the command; `arguments` are those of `Pipeline.run`."""

        def rerun(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
            """Continue a run, likewise; `arguments` are those of `Pipeline.rerun`."""

        async def run_async(self, pipeline: Pipeline, arguments: dict[str, Any]) -> PipelineResult:
            """Run a pipeline beside an event loop, likewise."""


current: Command | None = None


@contextmanager
def above(command: Command | None) -> Iterator[None]:
    """Let a command, or none, be above the runs of a block."""
    global current  # noqa: PLW0603  that is what it is for
    before, current = current, command
    try:
        yield
    finally:
        current = before


def given(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call from the local names at its beginning."""
    arguments: dict[str, Any] = {name: value for name, value in names.items() if name not in {"self", "unknown"}}
    arguments.update(names.get("unknown", {}))
    return arguments
