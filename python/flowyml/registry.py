"""The steps that `@step` has created, for `Pipeline(auto_discover=True)`.

References are weak: a step lives as long as the module or function that defined it. The last definition of a name wins,
so a notebook cell can run again. The module knows nothing of pipelines.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from flowyml.steps.step import Step


class _StepRegistry:
    """Steps by pipeline (`None` for all) and name; dead references are removed from time to time."""

    __slots__ = ("_limit", "_lock", "_steps")

    def __init__(self) -> None:
        self._steps: dict[tuple[str | None, str], ref[Step[..., Any]]] = {}
        self._limit = 1_000
        self._lock = threading.RLock()  # dynamic steps define steps in any thread, finalizers anywhere

    def add(self, step: Step[..., Any], pipeline: str | None) -> None:
        with self._lock:
            self._steps[pipeline, step.name] = ref(step)  # no callback, which would cost each `@step`
            if len(self._steps) > self._limit:
                self._steps = {key: reference for key, reference in self._steps.items() if reference() is not None}
                self._limit = max(self._limit, 2 * len(self._steps))

    def of(self, pipeline: str) -> list[Step[..., Any]]:
        alive = [(owner, step) for (owner, _), reference in self._entries() if (step := reference()) is not None]
        own = {step.name for owner, step in alive if owner == pipeline}
        return [step for owner, step in alive if owner == pipeline or (owner is None and step.name not in own)]

    def producing(self, asset: str) -> Step[..., Any] | None:
        for (_, name), reference in reversed(self._entries()):
            step: Step[..., Any] | None = reference()
            if step is not None and asset in (step.outputs or (name,)):
                return step
        return None

    def pipelines(self) -> list[str]:
        alive = [owner for (owner, _), reference in self._entries() if owner is not None and reference() is not None]
        return list(dict.fromkeys(alive))

    def _entries(self) -> list[tuple[tuple[str | None, str], ref[Step[..., Any]]]]:
        with self._lock:
            return list(self._steps.items())


_registry = _StepRegistry()

register = _registry.add
"""Register a step for one pipeline, or for all if it is `None`."""


def registered(pipeline: str) -> list[Step[..., Any]]:
    """Return the steps for a pipeline in the order in which their names were first defined.

    A pipeline's own steps take precedence over those for all pipelines.

    >>> from flowyml import step
    >>> @step(pipeline="nightly")
    ... def load(): ...
    >>> registered("nightly")[-1] is load
    True
    """
    return _registry.of(pipeline)


def producing(asset: str) -> Step[..., Any] | None:
    """Return the last defined step of any pipeline that produces an asset."""
    return _registry.producing(asset)


def pipelines() -> list[str]:
    """Return the names of the pipelines for which steps are registered."""
    return _registry.pipelines()
