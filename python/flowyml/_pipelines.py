"""What pipelines are, for those who must know no more: whether a value is one.

A step that returns a pipeline means something by it (see `steps/dynamic.py`), so somebody looks at what steps return.
Only a pipeline that lives can be returned: while the one that runs is the only one, nobody has to look.
"""

from __future__ import annotations

from typing import ClassVar
from weakref import WeakSet


class AnyPipeline:
    """The base of `Pipeline`; counts those that live."""

    _alive: ClassVar[WeakSet[AnyPipeline]] = WeakSet()

    def __init__(self) -> None:
        self._alive.add(self)


def is_pipeline(value: object) -> bool:
    """Tell whether a value is a pipeline; the value itself, which may be anything, is not asked."""
    return issubclass(type(value), AnyPipeline)


def may_be_returned() -> bool:
    """Tell whether a step that runs can have a pipeline at hand to return."""
    return len(AnyPipeline._alive) > 1  # noqa: SLF001  its own
