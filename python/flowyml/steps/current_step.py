"""The provider of `get_context()`: a part of `context.py` that every worker imports, so it is a module of its own."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml.steps.context import StepContext


class CurrentStepProvider(Protocol):
    """Knows which step is running in its thread or process."""

    def step_context(self) -> StepContext | None:
        """Return the step that is running, or `None` between steps."""


_provider: ContextVar[CurrentStepProvider] = ContextVar("flowyml_step")


@contextlib.contextmanager
def step_context_provider(provider: CurrentStepProvider) -> Iterator[None]:
    """Let a provider answer `get_context()` in this thread, and in what it starts, inside the block."""
    token = _provider.set(provider)
    try:
        yield
    finally:
        _provider.reset(token)


def current_provider() -> CurrentStepProvider | None:
    """Return the provider of this thread, if there is one."""
    return _provider.get(None)
