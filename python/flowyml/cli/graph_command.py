"""`flowyml graph`: the picture of a pipeline, of which nothing runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from flowyml import run_interceptor
from flowyml.cli.console import SUCCESS, Exit, OutputError, UsageError, say, write
from flowyml.cli.loader import executed, found, target_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from flowyml.cli.loader import PipelineRef
    from flowyml.pipeline import Pipeline

_ENDINGS = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid", ".txt": "text"}


class PipelineFinder:
    """The command above a script that is executed for its pipeline alone: where it would run, it ends.

    Args:
        target: Which pipeline is meant.

    Attributes:
        pipeline: The one that the script was about to run.
    """

    def __init__(self, target: PipelineRef) -> None:
        self._target = target
        self.pipeline: Pipeline | None = None

    def run(self, pipeline: Pipeline, arguments: dict[str, Any]) -> NoReturn:  # noqa: ARG002  it does not run
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
    """Return the pipeline that a word names, without running anything of it.

    Raises:
        UsageError: If there is none.
        UserError: With what the file raised.
    """
    target = target_of(given)
    finding = PipelineFinder(target)
    try:
        names: Any = executed(target, arguments, finding)
    except Exit:
        if finding.pipeline is None:
            raise UsageError(f"{target.place} has ended before it had a pipeline") from None
        names = _main_names(target)
    at_hand = finding.pipeline
    if at_hand is not None and target.name in {None, at_hand.name}:
        return at_hand
    try:
        with run_interceptor.install(finding):
            return found(target, names)
    except Exit:  # of a function that is to return one, and runs it
        if finding.pipeline is None:
            raise
        return finding.pipeline


def _main_names(target: PipelineRef) -> dict[str, Any]:
    import sys

    return vars(sys.modules[target.module or "__main__"]) if (target.module or "__main__") in sys.modules else {}


def graph(options: argparse.Namespace) -> int:
    """Show the graph of a pipeline."""
    kind = options.format or _kind_of(options.output)
    pipeline = pipeline_of(options.pipeline)
    if options.explain is not None:
        try:
            told = str(pipeline.explain(options.explain))
        except KeyError as error:
            raise UsageError(str(error.args[0])) from error
    else:
        told = pipeline.visualize(kind)
    if options.output is None or options.output == "-":
        write(told)
        return SUCCESS
    try:
        Path(options.output).write_text(f"{told}\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{options.output} cannot be written: {error.strerror or error}") from error
    say(f"Wrote {options.output}")
    return SUCCESS


def _kind_of(output: str | None) -> Any:
    return "text" if output is None else _ENDINGS.get(Path(output).suffix.lower(), "text")
