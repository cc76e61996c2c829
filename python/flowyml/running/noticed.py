"""What a step may return that is looked at before anything else is done with it, as classes that its type is asked for.

The loops that call steps in this process ask once for each change of type (`Turn.call`), so most values cost nothing.
"""

from __future__ import annotations

import abc

from flowyml._pipelines import AnyPipeline
from flowyml.steps.once import ONCE
from flowyml.store.encoding import ATOMS


class NoValue(abc.ABC):  # noqa: B024  there is nothing to implement
    """What is no value of a step, so that somebody has to look at it: a pipeline, and what can be read only once."""


for _each in (AnyPipeline, *ONCE):
    NoValue.register(_each)


class _Changeables(type):
    """The class of `Changeable`."""

    def __subclasscheck__(cls, kind: type) -> bool:
        """All types but those of values that nobody can change."""
        return kind not in ATOMS


class Changeable(metaclass=_Changeables):
    """What is to be written down before another step may change it; what is no value is among it."""
