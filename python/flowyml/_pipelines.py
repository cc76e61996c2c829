"""What pipelines are, for those who must know no more: whether a value is one.

A step that returns a pipeline means something by it (see `steps/dynamic.py`), so what steps return is looked at.
"""

from __future__ import annotations


class AnyPipeline:
    """The base of `Pipeline`."""


def is_pipeline(value: object) -> bool:
    """Tell whether a value is a pipeline; the value itself, which may be anything, is not asked."""
    return issubclass(type(value), AnyPipeline)
