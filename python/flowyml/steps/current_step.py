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


_teller: ContextVar[CurrentStepProvider] = ContextVar("flowyml_step")


@contextlib.contextmanager
def telling(teller: CurrentStepProvider) -> Iterator[None]:
    """Let a teller answer `get_context()` in this thread and what it begins, inside the block."""
    token = _teller.set(teller)
    try:
        yield
    finally:
        _teller.reset(token)


def current_teller() -> CurrentStepProvider | None:
    """Return who knows which step is running here, if there is one."""
    return _teller.get(None)
