"""Retry policies: whether a failed step is tried again, and after how long. They have no state.

```
failure ──▶ RetryConfig.should_retry(exception, attempts) ──▶ no: the step has failed
                                                   └─▶ yes: wait backoff.delay(attempt), ready again
```

A retry occupies no worker: the scheduler holds the step back until its time has come. The module knows neither steps
nor runs. An exception that cannot be loaded in the driver is judged by the names of its classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.errors import CircuitOpenError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

T = TypeVar("T")


@dataclass(frozen=True, slots=True, init=False)
class ExponentialBackoff:
    """Delays that grow by a factor: `initial`, `initial * multiplier`, ..., at most `max_delay`.

    Args:
        initial: The first delay in seconds.
        max_delay: The longest delay in seconds; `max` is another name for it.
        multiplier: How much longer each delay is than the one before.
        jitter: Spread each delay evenly over 0.5 to 1.5 times its length, of which none gets longer than `max_delay`,
            so that what failed together does not come back together. Reproducible under `run(seed=)`.

    >>> backoff = ExponentialBackoff(initial=1.0, max_delay=5.0, jitter=False)
    >>> [backoff.delay(attempt) for attempt in (1, 2, 3, 4)]
    [1.0, 2.0, 4.0, 5.0]
    """

    initial: float
    max_delay: float
    multiplier: float
    jitter: bool

    @hides_internal_frames
    def __init__(
        self,
        initial: float = 1.0,
        max_delay: float = 60.0,
        multiplier: float = 2.0,
        *,
        jitter: bool = True,
        max: float | None = None,  # noqa: A002  the documentation's name
    ) -> None:
        longest = max_delay if max is None else max
        for name, value, least in (("initial", initial, 0), ("max_delay", longest, 0), ("multiplier", multiplier, 1)):
            number: Any = value
            if not isinstance(number, (int, float)) or isinstance(number, bool) or not least <= number < math.inf:
                raise ValueError(f"ExponentialBackoff({name}=) must be a number of at least {least}, got {value!r}")
        for name, value in zip(("initial", "max_delay", "multiplier"), (initial, longest, multiplier), strict=True):
            object.__setattr__(self, name, float(value))
        object.__setattr__(self, "jitter", bool(jitter))

    def delay(self, attempt: int, generator: random.Random | None = None) -> float:
        """Return the seconds to wait after attempt number `attempt` (from 1)."""
        try:
            grown = self.initial * self.multiplier ** (attempt - 1)
        except OverflowError:
            grown = self.max_delay
        spread = _spread(generator) if self.jitter else 1.0
        return min(min(grown, self.max_delay) * spread, self.max_delay)


def _spread(generator: random.Random | None) -> float:
    import random

    return (generator or random).uniform(0.5, 1.5)


@dataclass(frozen=True, slots=True, init=False)
class RetryConfig:
    """How often a step is tried, after which delays, and for which exceptions; `retry` is another name for it.

    Args:
        max_attempts: Maximum number of attempts, including the first.
        backoff: The delays: an `ExponentialBackoff`, or the first delay in seconds, each later one twice as long.
            `None`: no delay.
        on: Exception classes that are worth another attempt; all by default but `CircuitOpenError`, which is raised
            instead of an attempt. A crash of the worker process is a `WorkerLostError`.
        not_on: Exception classes that are not, also where `on` names a base class of them.

    As a decorator below `@step` it becomes the step's `retry`.

    Raises:
        ValueError: If `max_attempts` is below 1.
        TypeError: If something else is not what it should be.

    >>> from flowyml import Pipeline, retry, step
    >>> tries = []
    >>> @step(retry=retry(max_attempts=3, on=[ConnectionError]))
    ... def download():
    ...     tries.append("once")
    ...     if len(tries) < 3:
    ...         raise ConnectionResetError
    ...     return "page"
    >>> result = Pipeline("site").add_step(download).run()
    >>> result["download"], result.step_results["download"].attempts
    ('page', 3)
    """

    max_attempts: int
    backoff: ExponentialBackoff | None
    on: tuple[type[BaseException], ...]
    not_on: tuple[type[BaseException], ...]

    @hides_internal_frames
    def __init__(
        self,
        max_attempts: int = 3,
        backoff: ExponentialBackoff | float | None = None,
        on: Iterable[type[BaseException]] | type[BaseException] | None = None,
        not_on: Iterable[type[BaseException]] | type[BaseException] | None = None,
    ) -> None:
        number: Any = max_attempts
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"max_attempts must be a whole number, got {number!r:.60}")
        if max_attempts < 1:
            raise ValueError(f"max_attempts counts the first attempt, so it is at least 1; got {max_attempts}")
        object.__setattr__(self, "max_attempts", max_attempts)
        object.__setattr__(self, "backoff", _as_backoff(backoff))
        object.__setattr__(self, "on", as_classes("on", on, (BaseException,)))
        object.__setattr__(self, "not_on", as_classes("not_on", not_on, ()))

    def __call__(self, func: T) -> T:
        """Leave this configuration with a function, for the `@step` above; or give it to a step.

        Raises:
            TypeError: If it is not a function.
        """
        of_step = getattr(type(func), "_with_options", None)
        if of_step is not None:
            return of_step(func, retry=self)  # type: ignore[no-any-return]
        if not callable(func):
            raise TypeError(f"@retry(...) decorates a function, got {type(func).__name__} {func!r:.60}")
        func.__flowyml_retry__ = self  # type: ignore[attr-defined]
        return func

    def should_retry(self, error: BaseException, attempts: int) -> bool:
        """Return True if a step that raised `error` in attempt number `attempts` is to be tried again."""
        if attempts >= self.max_attempts or is_one_of(error, self.not_on):
            return False
        if self.on == (BaseException,):
            return not isinstance(error, CircuitOpenError)
        return is_one_of(error, self.on)

    def delay(self, attempt: int, generator: random.Random | None = None) -> float:
        """Return the seconds to wait after attempt number `attempt` (from 1)."""
        return self.backoff.delay(attempt, generator) if self.backoff else 0.0


retry = RetryConfig


def checked_retry(retry: Any, step: str) -> RetryConfig | None:
    """Return the `retry=` of a step as a configuration; `None` if there is only one attempt."""
    if retry is None or isinstance(retry, RetryConfig):
        return retry
    if not isinstance(retry, int) or isinstance(retry, bool):
        raise TypeError(
            f"retry of step {step!r} must be a number of further attempts or retry(...), "
            f"got {type(retry).__name__} {retry!r:.60}"
        )
    if retry < 0:
        raise ValueError(f"retry of step {step!r} must be 0 or more further attempts, got {retry}")
    return RetryConfig(retry + 1) if retry else None


def _as_backoff(backoff: Any) -> ExponentialBackoff | None:
    if backoff is None or isinstance(backoff, ExponentialBackoff):
        return backoff
    if isinstance(backoff, (int, float)) and not isinstance(backoff, bool):
        return ExponentialBackoff(backoff, jitter=False) if backoff else None
    raise TypeError(f"backoff must be an ExponentialBackoff or the first delay in seconds, got {backoff!r:.60}")


def as_classes(name: str, classes: Any, default: tuple[type[BaseException], ...]) -> tuple[type[BaseException], ...]:
    """Return one exception class or several as a tuple."""
    if classes is None:
        return default
    listed = (classes,) if isinstance(classes, type) else tuple(classes)
    for each in listed:
        if not isinstance(each, type) or not issubclass(each, BaseException):
            raise TypeError(f"{name} takes exception classes, got {each!r:.60}")
    return listed


def is_one_of(error: BaseException, classes: Sequence[type[BaseException]]) -> bool:
    """Return True if an exception is of one of these classes; one that could not be loaded is compared by name."""
    if isinstance(error, tuple(classes)):
        return True
    names = getattr(error, "type_names", ())
    return any(f"{each.__module__}.{each.__qualname__}" in names for each in classes)
