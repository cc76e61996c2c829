"""Step options: how a step is run, beyond what it calls and what it reads.

```
@step(retry=2), Step(...), add_step(..., retry=2), map(...) ──▶ StepKeywords ──replace()──▶ StepOptions
```

`StepOptions` is the one table of names, defaults and checks; `StepKeywords` has the types of the keywords, and `step`
describes each of them. Steps without options share `NO_OPTIONS`, so a pipeline of plain steps pays nothing for them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.tracebacks import warn_out_of_scope
from flowyml.steps.cache_policy import CODE, checked_cache, checked_ttl
from flowyml.steps.circuit_breaker import checked_breaker
from flowyml.steps.conditions import GuardSet, checked_condition, checked_run_if, checked_skip
from flowyml.steps.declarations import checked_tags
from flowyml.steps.fallback import check_fits, checked_fallback, checked_fallback_on, checked_handler
from flowyml.steps.resources import checked_resources
from flowyml.steps.retry import checked_retry, is_one_of
from flowyml.steps.timeout import checked_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta
    from typing import Literal, TypedDict

    from flowyml.steps.cache_policy import CachePolicy
    from flowyml.steps.circuit_breaker import CircuitBreaker
    from flowyml.steps.conditions import Guard
    from flowyml.steps.declarations import Reads, Tags
    from flowyml.steps.resources import Resources, Tokens
    from flowyml.steps.retry import RetryConfig
    from flowyml.steps.signature import StepSignature

    class StepKeywords(TypedDict, total=False):
        """The options of a step as the user gives them; `None` means that an option is not given."""

        retry: int | RetryConfig | None
        condition: Callable[..., Any] | None
        skip_if: Callable[..., Any] | None
        run_if: Literal["all", "any"] | None
        timeout: float | timedelta | None
        fallback: Callable[..., Any] | None
        fallback_on: Iterable[type[BaseException]] | type[BaseException] | None
        on_failure: Callable[..., Any] | None
        circuit_breaker: CircuitBreaker | None
        tags: Tags | None
        cache: bool | str | Callable[..., str] | None
        cache_ttl: float | timedelta | None
        resources: Resources | None

    class DecoratorKeywords(StepKeywords, total=False):
        """The keywords of `step` and `dynamic`."""

        name: str | None
        inputs: Reads | None
        outputs: str | Sequence[str] | None
        pipeline: str | None
        register: bool


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is run: its options, checked. The last three are set by the package, not by keywords.

    Attributes:
        timeout: Seconds; `None` for the executor's default, infinite for no limit.
        fallback_on: The exceptions that the fallback replaces; an empty tuple for all.
        cache: The policy that makes the key of the cached value; see `caching`.
        resources: Tokens of each resource.
        decorated: The conditions of `@when` and `@unless`, in the order in which they are evaluated, before the others.
        dynamic: Whether a pipeline that the step returns is expanded; see `dynamic.py`.
        given: Whether the caller of the run gives the step's value, so that the step does not run.
    """

    retry: RetryConfig | None = field(default=None, metadata={"check": checked_retry})
    condition: Guard | None = field(default=None, metadata={"check": checked_condition})
    skip_if: Guard | None = field(default=None, metadata={"check": checked_skip})
    run_if: str = field(default="all", metadata={"check": checked_run_if})
    timeout: float | None = field(default=None, metadata={"check": checked_timeout})
    fallback: Callable[..., Any] | None = field(default=None, metadata={"check": checked_fallback})
    fallback_on: tuple[type[BaseException], ...] = field(default=(), metadata={"check": checked_fallback_on})
    on_failure: Callable[..., object] | None = field(default=None, metadata={"check": checked_handler})
    circuit_breaker: CircuitBreaker | None = field(default=None, metadata={"check": checked_breaker})
    tags: Mapping[str, Any] | None = field(default=None, metadata={"check": checked_tags})
    cache: CachePolicy | None = field(default=None, metadata={"check": checked_cache})
    cache_ttl: float | None = field(default=None, metadata={"check": checked_ttl})
    resources: Tokens = field(default=(), metadata={"check": checked_resources})
    decorated: tuple[Guard, ...] = ()
    dynamic: bool = False
    given: bool = False

    @property
    def caching(self) -> CachePolicy | None:
        """The cache policy; `None` if the step is not cached. `cache_ttl` alone means `cache=True`."""
        mode = CODE if self.cache is None and self.cache_ttl is not None else self.cache
        return mode or None

    @property
    def guards(self) -> tuple[Guard, ...]:
        """All conditions that decide whether the step runs."""
        return (*self.decorated, *filter(None, (self.condition, self.skip_if)))

    def parameters(self, signature: StepSignature) -> tuple[str, ...]:
        """Return the names of the function's parameters and of those that only conditions have."""
        guards = self.guards
        return GuardSet(guards, signature).signature.names if guards else signature.names

    def falls_back_on(self, error: BaseException) -> bool:
        """Return True if the fallback replaces this failure; an open circuit counts as the error that opened it."""
        if self.fallback is None:
            return False
        last = getattr(error, "last_error", None)
        return not self.fallback_on or any(
            is_one_of(cause, self.fallback_on) for cause in (error, last) if cause is not None
        )

    def check_fallback(self, signature: StepSignature, step: str) -> None:
        """Check that the fallback can be called with the step's arguments.

        Raises:
            TypeError: If it cannot.
            ValueError: If there is a `fallback_on` and no fallback.
        """
        if self.fallback is not None:
            check_fits(self.fallback, signature, step)
        elif self.fallback_on:
            raise ValueError(f"step {step!r} has fallback_on, but no fallback")

    def with_guard(self, guard: Guard) -> StepOptions:
        """Return these options with one more condition, evaluated before all others."""
        return dataclasses.replace(self, decorated=(guard, *self.decorated))

    def replace(self, step: str, keywords: Mapping[str, Any]) -> StepOptions:
        """Return these options with the given ones in their place, checked; `self` if none is given.

        Raises:
            TypeError: For an unknown keyword, or a value of the wrong type.
            ValueError: For a value out of range.
        """
        checked = {name: _CHECKS[name](value, step) for name, value in keywords.items() if value is not None}
        return dataclasses.replace(self, **checked) if checked else self


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    option.name: option.metadata["check"] for option in dataclasses.fields(StepOptions) if option.metadata
}
OPTION_NAMES = tuple(_CHECKS)
NO_OPTIONS = StepOptions()


def given_options(where: str, keywords: Mapping[str, Any], others: Sequence[str]) -> dict[str, Any]:
    """Return the options that are not `None`; keywords of 2.2.1 that are out of scope get one warning.

    Args:
        where: The called function, for messages.
        keywords: Its `**options`.
        others: The other keywords of the function, for near matches.

    Raises:
        TypeError: For any other unknown keyword, with the nearest known one.
    """
    unknown = {name: value for name, value in keywords.items() if name not in _CHECKS}
    if unknown:
        warn_out_of_scope(where, unknown, (*others, *OPTION_NAMES))
    return {name: value for name, value in keywords.items() if value is not None and name in _CHECKS}
