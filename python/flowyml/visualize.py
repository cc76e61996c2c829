"""`flowyml.visualize.show(pipeline)`: show the graph in a notebook or a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.progress.display import in_notebook

if TYPE_CHECKING:
    from typing import Literal

    from flowyml.graph.dag import DAG
    from flowyml.pipeline import Pipeline


@hides_internal_frames
def show(pipeline: Pipeline | DAG, format: Literal["text", "mermaid", "dot", "svg"] | None = None) -> None:  # noqa: A002
    """Show the graph of a pipeline: drawn in a notebook, printed as text elsewhere.

    Args:
        pipeline: A pipeline or its `dag`.
        format: Print this format instead; see `Pipeline.visualize`.

    Raises:
        ValueError: If the format is unknown.

    >>> from flowyml import Pipeline
    >>> show(Pipeline("p").add_step(dict, name="raw"))
    Pipeline DAG: p
    <BLANKLINE>
    Step Execution Order:
      1. raw
    """
    if format is None and in_notebook():
        sys.modules["IPython"].display.display(pipeline)
    else:
        print(pipeline.visualize(format or "text"))  # noqa: T201  printing is its purpose
