"""`flowyml.visualize.show(pipeline)`: a picture for whoever looks, in a notebook or a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from flowyml.diagnostics.tracebacks import hides_internal_frames

if TYPE_CHECKING:
    from typing import Literal

    from flowyml.graph.dag import DAG
    from flowyml.pipeline import Pipeline


@hides_internal_frames
def show(pipeline: Pipeline | DAG, format: Literal["text", "mermaid", "dot", "svg"] | None = None) -> None:  # noqa: A002
    """Show the graph of a pipeline: a notebook draws it, elsewhere its text is printed.

    Args:
        pipeline: A pipeline or its `dag`.
        format: Print it in this format instead; see `Pipeline.visualize`.

    Raises:
        ValueError: For another format.

    >>> from flowyml import Pipeline
    >>> show(Pipeline("p").add_step(dict, name="raw"))
    Pipeline DAG: p
    <BLANKLINE>
    Step Execution Order:
      1. raw
    """
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = None if get_ipython is None else get_ipython()
    if format is None and shell is not None and hasattr(shell, "kernel"):
        sys.modules["IPython"].display.display(pipeline)
    else:
        print(pipeline.visualize(format or "text"))  # noqa: T201  it is what was asked for
