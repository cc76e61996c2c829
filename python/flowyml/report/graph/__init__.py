"""Pictures of a graph: text, mermaid, dot and svg; pure functions of a small description.

```
Picture (boxes in execution order, each with the boxes it waits for) ──▶ text | mermaid | dot | svg
```

The description says what stands in a box; what a pipeline or a plan is, nothing here knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.messages.words import listed, nearest
from flowyml.report.graph.dot import dot
from flowyml.report.graph.mermaid import mermaid
from flowyml.report.graph.svg import svg
from flowyml.report.graph.text import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowyml.report.graph.picture import Picture

FORMATS: dict[str, Callable[[Picture], str]] = {"text": text, "mermaid": mermaid, "dot": dot, "svg": svg}


def drawing(format: str) -> Callable[[Picture], str]:  # noqa: A002  the word of the public method
    """Return what draws a format.

    Raises:
        TypeError: If the format is no string.
        ValueError: If there is no such format.
    """
    if not isinstance(format, str):
        raise TypeError(f"format must be one of {listed(FORMATS)}, got {type(format).__name__} {format!r:.60}")
    if format not in FORMATS:
        raise ValueError(f"format must be one of {listed(FORMATS)}, got {format!r}{nearest(format, FORMATS)}")
    return FORMATS[format]
