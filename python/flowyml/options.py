"""Options: how a step is run, beyond what it calls and what it reads.

The one list of the keywords that `@step`, `add_step` and `map` share. A pipeline whose steps have none pays nothing:
they all share `NO_OPTIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowyml.conditions import Guards, checked_condition, checked_run_if, checked_skip
from flowyml.retries import checked_retry
from flowyml.timeouts import checked_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowyml.conditions import Guard
    from flowyml.retries import RetryConfig
    from flowyml.signatures import Signature


@dataclass(frozen=True, slots=True)
class Options:
    """How a step is run.

    Attributes:
        retry: When it is tried again.
        condition: What must hold for it to run.
        skip_if: What must not hold for it to run.
        run_if: "all" of its dependencies must have a value for it to run, or "any": a join.
        timeout: How many seconds it may take; `None` for the executor's default, infinite for no limit.
        decorated: What `@when` and `@unless` say, in the order in which it is asked, before the two others.
    """

    retry: RetryConfig | None = None
    condition: Guard | None = None
    skip_if: Guard | None = None
    run_if: str = "all"
    timeout: float | None = None
    decorated: tuple[Guard, ...] = ()

    @property
    def guards(self) -> tuple[Guard, ...]:
        """All that decides whether it runs."""
        return (*self.decorated, *filter(None, (self.condition, self.skip_if)))

    def parameters(self, signature: Signature) -> tuple[str, ...]:
        """Return the names of all that a step can take: its function's, and what its conditions want beyond them."""
        guards = self.guards
        return Guards(guards, signature).signature.names if guards else signature.names

    def with_guard(self, guard: Guard) -> Options:
        """Return these options with one more condition, asked before all others."""
        return replace(self, decorated=(guard, *self.decorated))

    def but(self, step: str, given: Mapping[str, Any]) -> Options:
        """Return these options with those that were given in their place; `None` means not given.

        Raises:
            TypeError: For a value that an option cannot have.
            ValueError: Likewise.
        """
        checked = {name: _CHECKS[name](value, step) for name, value in given.items() if value is not None}
        return replace(self, **checked) if checked else self


NO_OPTIONS = Options()

_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "retry": checked_retry,
    "condition": checked_condition,
    "skip_if": checked_skip,
    "run_if": checked_run_if,
    "timeout": checked_timeout,
}
OPTION_NAMES = tuple(_CHECKS)
