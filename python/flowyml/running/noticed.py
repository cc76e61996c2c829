"""What a step may return that is looked at before anything else is done with it, as classes that its type is asked for.

The loops that call steps in this process ask once for each change of type (`Turn.call`), so most values cost nothing.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from flowyml._pipelines import AnyPipeline, is_pipeline, may_be_returned
from flowyml.steps.dynamic import Returned
from flowyml.steps.once import ONCE, found_once, let_go, returned_once
from flowyml.store.encoding import ATOMS
from flowyml.store.values import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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


def no_values(raw: list[Any], items: Sequence[int], name: Callable[[int], str]) -> list[tuple[int, int, BaseException]]:
    """Take out of the values of some items what is none; return position, item and what stands for it as a failure."""
    if not may_be_returned() and not found_once(map(raw.__getitem__, items)):
        return []
    found: list[tuple[int, int, BaseException]] = []
    for k, item in enumerate(items):
        if is_pipeline(raw[item]):
            found.append((k, item, Returned(raw[item])))
        elif type(raw[item]) in ONCE:
            found.append((k, item, returned_once(name(item), let_go(raw[item]))))
    for _, item, _ in found:
        raw[item] = MISSING
    return found
