"""The graph of a plan: as an object with queries, as a picture in four formats, and step by step as an explanation.

```
Plan ──model.py──▶ GraphModel (boxes in execution order, with dependencies) ──▶ text | mermaid | dot | svg
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.diagnostics.text import did_you_mean, join_names
from flowyml.graph.dot import dot
from flowyml.graph.mermaid import mermaid
from flowyml.graph.plain_text import text
from flowyml.graph.svg import svg

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.graph.model import GraphModel


FORMATS: dict[str, Callable[[GraphModel], str]] = {"text": text, "mermaid": mermaid, "dot": dot, "svg": svg}


def renderer(format: str) -> Callable[[GraphModel], str]:  # noqa: A002  the word of the public method
    """Return the function that renders a format.

    Raises:
        TypeError: If the format is not a string.
        ValueError: If the format is unknown.
    """
    if not isinstance(format, str):
        raise TypeError(f"format must be one of {join_names(FORMATS)}, got {type(format).__name__} {format!r:.60}")
    if format not in FORMATS:
        raise ValueError(f"format must be one of {join_names(FORMATS)}, got {format!r}{did_you_mean(format, FORMATS)}")
    return FORMATS[format]
