"""An extension of griffe, which reads the docstrings for the documentation site: examples become fenced code blocks.

An example is a doctest in a docstring, without a heading of its own. Markdown would make quotations of its prompts and
a link of `[1, 2]`, so the lines from the first prompt to the next empty line are fenced.
"""

from __future__ import annotations

from typing import Any

import griffe


class FenceExamples(griffe.Extension):
    """Put each doctest of each docstring between fences."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of a class, a function, an attribute or a module."""
        del kwargs
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    """Return the docstring with its doctests as blocks of code."""
    lines: list[str] = []
    fence = False
    for line in docstring.splitlines():
        if not fence and line.startswith(">>> "):
            lines.append("```pycon")
            fence = True
        elif fence and not line.strip():
            lines.append("```")
            fence = False
        lines.append(line)
    return "\n".join([*lines, "```"] if fence else lines)
