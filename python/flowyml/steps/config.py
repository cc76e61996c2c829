"""What a step says of itself under the names of flowyml 2.x, and the key of a call of it.

The module reads a step; it knows neither pipelines nor stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.steps.cache_modes import INPUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowyml.steps.declarations import Inputs
    from flowyml.steps.retries import RetryConfig
    from flowyml.steps.step import Step


class StepConfig(NamedTuple):
    """What was said of a step when it was made; each is an attribute of the step, too."""

    name: str
    func: Callable[..., Any]
    inputs: Inputs | None
    outputs: tuple[str, ...]
    cache: bool | str | Callable[..., str]
    retry: RetryConfig | None
    timeout: float | None
    resources: dict[str, float]
    tags: dict[str, Any]
    condition: Callable[..., Any] | None
    execution_group: str | None


def config_of(step: Step[..., Any]) -> StepConfig:
    """Return what was said of a step."""
    return StepConfig(*(getattr(step, name) for name in StepConfig._fields))


def cache_key_of(step: Step[..., Any], inputs: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """Return a text that is the same for calls of a step that its `cache=` takes for the same.

    Raises:
        TypeError: If the code or an argument has no content to compare.
    """
    from flowyml.keys.content import content
    from flowyml.keys.fingerprint import fingerprint

    mode = step.options.caching
    if mode is None:
        return f"{step.name}:no-cache"
    if mode.function is not None:
        return mode.own_key(step, inputs, context)
    arguments = content([sorted(inputs.items()), sorted(context.items())])
    code = b"" if mode == INPUT else fingerprint(step.func).digest
    return f"{step.name}:{(code + arguments).hex()}"
