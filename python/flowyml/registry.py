"""The steps that `@step` has made, for pipelines that look for theirs: `Pipeline(auto_discover=True)`.

Kept weakly: a step lives as long as the module or the function that defined it. The last definition of a name wins, so
a notebook's cell may be run again. It knows nothing of pipelines.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from flowyml.steps.step import Step


class _StepRegistry:
    """Steps by pipeline (`None`: for all) and name; those that are gone are cleared away now and then."""

    __slots__ = ("_lock", "_most", "_steps")

    def __init__(self) -> None:
        self._steps: dict[tuple[str | None, str], ref[Step[..., Any]]] = {}
        self._most = 1_000
        self._lock = threading.RLock()  # dynamic steps define theirs in any thread, finalizers anywhere

    def add(self, step: Step[..., Any], pipeline: str | None) -> None:
        with self._lock:
            self._steps[pipeline, step.name] = ref(step)  # no callback: every `@step` of a program comes by here
            if len(self._steps) > self._most:
                self._steps = {key: found for key, found in self._steps.items() if found() is not None}
                self._most = max(self._most, 2 * len(self._steps))

    def of(self, pipeline: str) -> list[Step[..., Any]]:
        alive = [(owner, step) for (owner, _), found in self._entries() if (step := found()) is not None]
        own = {step.name for owner, step in alive if owner == pipeline}
        return [step for owner, step in alive if owner == pipeline or (owner is None and step.name not in own)]

    def producing(self, asset: str) -> Step[..., Any] | None:
        for (_, name), found in reversed(self._entries()):
            step: Step[..., Any] | None = found()
            if step is not None and asset in (step.outputs or (name,)):
                return step
        return None

    def pipelines(self) -> list[str]:
        alive = [owner for (owner, _), found in self._entries() if owner is not None and found() is not None]
        return list(dict.fromkeys(alive))

    def _entries(self) -> list[tuple[tuple[str | None, str], ref[Step[..., Any]]]]:
        with self._lock:
            return list(self._steps.items())


_made = _StepRegistry()

register = _made.add
"""Enter a step that `@step` has made, for one pipeline or for all."""


def registered(pipeline: str) -> list[Step[..., Any]]:
    """Return the steps for a pipeline, in the order in which their names were defined first; its own go before others.

    >>> from flowyml import step
    >>> @step(pipeline="nightly")
    ... def load(): ...
    >>> registered("nightly")[-1] is load
    True
    """
    return _made.of(pipeline)


def producing(asset: str) -> Step[..., Any] | None:
    """Return the last defined step that produces an asset of that name, for any pipeline."""
    return _made.producing(asset)


def pipelines() -> list[str]:
    """Return the names of the pipelines that steps were made for."""
    return _made.pipelines()
