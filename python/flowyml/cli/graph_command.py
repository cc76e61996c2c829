"""`flowyml graph`: show the graph of a pipeline without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from flowyml import run_interceptor
from flowyml.cli.console import SUCCESS, Exit, OutputError, UsageError, say, write
from flowyml.cli.loader import execute_target, find_pipeline, parse_target

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from flowyml.cli.loader import PipelineRef
    from flowyml.pipeline import Pipeline

_ENDINGS = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid", ".txt": "text"}


class PipelineFinder:
    """Interceptor for a script that is executed only to find its pipeline: ends it at its first run."""

    def __init__(self, target: PipelineRef) -> None:
        self._target = target
        self.pipeline: Pipeline | None = None

    def run(self, pipeline: Pipeline, arguments: dict[str, Any]) -> NoReturn:  # noqa: ARG002
        """End the script here."""
        self.pipeline = pipeline
        raise Exit(SUCCESS)

    def rerun(self, pipeline: Pipeline, arguments: dict[str, Any]) -> NoReturn:
        """End the script here."""
        self.run(pipeline, arguments)

    async def run_async(self, pipeline: Pipeline, arguments: dict[str, Any]) -> NoReturn:
        """End the script here."""
        self.run(pipeline, arguments)


def pipeline_of(given: str, arguments: Sequence[str] = ()) -> Pipeline:
    """Return the pipeline that an argument names, without running anything.

    Raises:
        UsageError: If there is none.
        UserError: If the file raises.
    """
    target = parse_target(given)
    finder = PipelineFinder(target)
    try:
        names: Any = execute_target(target, arguments, finder)
    except Exit:
        if finder.pipeline is None:
            raise UsageError(f"{target.place} exited before it created a pipeline") from None
        names = _main_names(target)
    pipeline = finder.pipeline
    if pipeline is not None and target.name in {None, pipeline.name}:
        return pipeline
    try:
        with run_interceptor.install(finder):
            return find_pipeline(target, names)
    except Exit:  # a factory function that runs its pipeline
        if finder.pipeline is None:
            raise
        return finder.pipeline


def _main_names(target: PipelineRef) -> dict[str, Any]:
    import sys

    return vars(sys.modules[target.module or "__main__"]) if (target.module or "__main__") in sys.modules else {}


def graph(options: argparse.Namespace) -> int:
    """Show the graph of a pipeline."""
    kind = options.format or _kind_of(options.output)
    pipeline = pipeline_of(options.pipeline)
    if options.explain is not None:
        try:
            output = str(pipeline.explain(options.explain))
        except KeyError as error:
            raise UsageError(str(error.args[0])) from error
    else:
        output = pipeline.visualize(kind)
    if options.output is None or options.output == "-":
        write(output)
        return SUCCESS
    try:
        Path(options.output).write_text(f"{output}\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{options.output} cannot be written: {error.strerror or error}") from error
    say(f"Wrote {options.output}")
    return SUCCESS


def _kind_of(output: str | None) -> Any:
    return "text" if output is None else _ENDINGS.get(Path(output).suffix.lower(), "text")
