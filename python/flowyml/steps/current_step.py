"""Who can tell which step is running: what every worker needs of `get_context()`, whether a step asks or not.

See `step_context.py` for the rest.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml.steps.context import StepContext


class CurrentStepProvider(Protocol):
    """Knows which step is running."""

    def step_context(self) -> StepContext | None:
        """Return the step that is running, or `None` between steps."""


_provider: ContextVar[CurrentStepProvider] = ContextVar("flowyml_step")


@contextlib.contextmanager
def step_context_provider(provider: CurrentStepProvider) -> Iterator[None]:
    """Let a provider answer `get_context()` in this thread and what it begins, inside the block."""
    token = _provider.set(provider)
    try:
        yield
    finally:
        _provider.reset(token)


def current_provider() -> CurrentStepProvider | None:
    """Return who knows which step is running here, if there is one."""
    return _provider.get(None)
