"""Options: how a step is run, beyond what it calls and what it reads.

The one list of the keywords that `@step`, `add_step` and `map` share. A pipeline whose steps have none pays nothing:
they all share `NO_OPTIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowyml.steps.cache_policy import CODE, checked_cache, checked_ttl
from flowyml.steps.circuit_breaker import checked_breaker
from flowyml.steps.conditions import GuardSet, checked_condition, checked_run_if, checked_skip
from flowyml.steps.declarations import checked_tags
from flowyml.steps.fallback import check_fits, checked_fallback, checked_fallback_on, checked_handler
from flowyml.steps.resources import checked_resources
from flowyml.steps.retry import checked_retry, is_one_of
from flowyml.steps.timeout import checked_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowyml.steps.cache_policy import CachePolicy
    from flowyml.steps.circuit_breaker import CircuitBreaker
    from flowyml.steps.conditions import Guard
    from flowyml.steps.resources import Tokens
    from flowyml.steps.retry import RetryConfig
    from flowyml.steps.signature import StepSignature


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is run.

    Attributes:
        retry: When it is tried again.
        condition: What must hold for it to run.
        skip_if: What must not hold for it to run.
        run_if: "all" of its dependencies must have a value for it to run, or "any": a join.
        timeout: How many seconds it may take; `None` for the executor's default, infinite for no limit.
        fallback: What stands in for its function when it has failed for good.
        fallback_on: For which exceptions; for all if there are none.
        on_failure: What is told of its failure.
        circuit_breaker: What refuses it while it keeps failing.
        tags: Words that it can be chosen by.
        dynamic: Whether a pipeline that it returns is expanded; see `dynamic.py`.
        cache: What the key of its cached value is made of.
        cache_ttl: How many seconds a cached value may be used.
        resources: What it takes of an executor's resources while it runs.
        decorated: What `@when` and `@unless` say, in the order in which it is asked, before the two others.
        given: Whether the caller of the run gives its value, so that it does not run; see `given_value.py`.
    """

    retry: RetryConfig | None = None
    condition: Guard | None = None
    skip_if: Guard | None = None
    run_if: str = "all"
    timeout: float | None = None
    fallback: Callable[..., Any] | None = None
    fallback_on: tuple[type[BaseException], ...] = ()
    on_failure: Callable[..., object] | None = None
    circuit_breaker: CircuitBreaker | None = None
    tags: Mapping[str, Any] | None = None
    dynamic: bool = False
    cache: CachePolicy | None = None
    cache_ttl: float | None = None
    resources: Tokens = ()
    decorated: tuple[Guard, ...] = ()
    given: bool = False

    @property
    def caching(self) -> CachePolicy | None:
        """What the key of its cached value is made of; `None` if it is not cached. A `cache_ttl` alone says `True`."""
        mode = CODE if self.cache is None and self.cache_ttl is not None else self.cache
        return mode or None

    @property
    def guards(self) -> tuple[Guard, ...]:
        """All that decides whether it runs."""
        return (*self.decorated, *filter(None, (self.condition, self.skip_if)))

    def parameters(self, signature: StepSignature) -> tuple[str, ...]:
        """Return the names of all that a step can take: its function's, and what its conditions want beyond them."""
        guards = self.guards
        return GuardSet(guards, signature).signature.names if guards else signature.names

    def falls_back_on(self, error: BaseException) -> bool:
        """Tell whether the fallback stands in for this failure; an open circuit counts as what opened it, too."""
        if self.fallback is None:
            return False
        last = getattr(error, "last_error", None)
        return not self.fallback_on or any(
            is_one_of(each, self.fallback_on) for each in (error, last) if each is not None
        )

    def check_fallback(self, signature: StepSignature, step: str) -> None:
        """Check that the fallback can stand in for a function.

        Raises:
            TypeError: If it takes something else.
            ValueError: If there is only a `fallback_on`.
        """
        if self.fallback is not None:
            check_fits(self.fallback, signature, step)
        elif self.fallback_on:
            raise ValueError(f"step {step!r} has fallback_on, but no fallback")

    def with_guard(self, guard: Guard) -> StepOptions:
        """Return these options with one more condition, asked before all others."""
        return replace(self, decorated=(guard, *self.decorated))

    def but(self, step: str, given: Mapping[str, Any]) -> StepOptions:
        """Return these options with those that were given in their place; `None` means not given.

        Raises:
            TypeError: For a value that an option cannot have.
            ValueError: Likewise.
        """
        checked = {name: _CHECKS[name](value, step) for name, value in given.items() if value is not None}
        return replace(self, **checked) if checked else self


NO_OPTIONS = StepOptions()

_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "retry": checked_retry,
    "condition": checked_condition,
    "skip_if": checked_skip,
    "run_if": checked_run_if,
    "timeout": checked_timeout,
    "fallback": checked_fallback,
    "fallback_on": checked_fallback_on,
    "on_failure": checked_handler,
    "circuit_breaker": checked_breaker,
    "tags": checked_tags,
    "cache": checked_cache,
    "cache_ttl": checked_ttl,
    "resources": checked_resources,
}
OPTION_NAMES = tuple(_CHECKS)
