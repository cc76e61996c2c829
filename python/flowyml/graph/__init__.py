"""Pictures of a graph: text, mermaid, dot and svg; pure functions of a small description.

```
Picture (boxes in execution order, each with the boxes it waits for) ──▶ text | mermaid | dot | svg
```

The description says what stands in a box; what a pipeline or a plan is, nothing here knows.

A plan, looked at: as a graph of names, as a picture, and step by step in words.
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


def drawing(format: str) -> Callable[[GraphModel], str]:  # noqa: A002  the word of the public method
    """Return what draws a format.

    Raises:
        TypeError: If the format is no string.
        ValueError: If there is no such format.
    """
    if not isinstance(format, str):
        raise TypeError(f"format must be one of {join_names(FORMATS)}, got {type(format).__name__} {format!r:.60}")
    if format not in FORMATS:
        raise ValueError(f"format must be one of {join_names(FORMATS)}, got {format!r}{did_you_mean(format, FORMATS)}")
    return FORMATS[format]
