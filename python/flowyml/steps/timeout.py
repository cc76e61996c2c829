"""Time limits of steps: what `timeout=` may be, and which limit applies to which step of a run.

```
timeout= of a step ─┐
the executor's own ─┴▶ Limits (one for a run) ──of(item)──▶ executor: when a step is over its time
                                                            └─▶ reports Expired ──▶ run: StepTimeoutError, timed_out
```

A limit counts from the step's own start. How a step is stopped is up to the executor: the module knows no clocks,
threads or processes. A run without a limit has no `TimeLimits`, so it pays nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    class HasTimeout(Protocol):
        """The options of a step; see `options.py`."""

        @property
        def timeout(self) -> float | None:
            """Its own limit."""


class StepExpired(BaseException):
    """A step was over its time; executors report it in the place of an exception, as they do `StepSkipped`.

    Args:
        limit: Its limit in seconds.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(limit)
        self.limit = limit


class TimeLimits:
    """The time limits of the steps of one run.

    Args:
        options: The options of the steps.
        options_of: The options of the step of an item.
        default: The limit in seconds of steps without one of their own; `inf` for none.

    Attributes:
        shortest: The shortest limit there is: no step that begins now is over its time before that.
        everywhere: Whether every step has one.
    """

    def __init__(self, options: Iterable[HasTimeout], options_of: Callable[[int], HasTimeout], default: float) -> None:
        self._options_of = options_of
        self._default = default
        self._warned = False
        limits = [self._limit(each) for each in options]
        self.shortest = min(limits, default=math.inf)
        self.everywhere = max(limits, default=math.inf) < math.inf

    def extend(self, options: Iterable[HasTimeout]) -> None:
        """Take in the options of further steps."""
        limits = [self._limit(each) for each in options]
        self.shortest = min([self.shortest, *limits])
        self.everywhere = self.everywhere and max(limits, default=0.0) < math.inf

    def of(self, item: int) -> float:
        """Return the seconds that the step of an item may take; `inf` if it has no limit."""
        return self._limit(self._options_of(item))

    def _limit(self, options: HasTimeout) -> float:
        return self._default if options.timeout is None else options.timeout

    def warn_left_behind(self, step: str, limit: float) -> None:
        """Log, once for each run, that a step continues in a thread although its time is over."""
        if not self._warned:
            self._warned = True
            import logging

            logging.getLogger("flowyml").warning(
                "step %r is over its timeout of %g s; a thread cannot be stopped, so it goes on in the background "
                "until it ends by itself, and what it returns is ignored (a worker process is stopped: use "
                'ParallelExecutor(backend="process")); this is said once a run',
                step,
                limit,
            )


def checked_timeout(timeout: Any, step: str) -> float:
    """Return the `timeout=` of a step in seconds."""
    return checked_seconds(f"timeout of step {step!r}", timeout)


def checked_seconds(what: str, timeout: Any) -> float:
    """Return a time limit in seconds: a number, or a `timedelta`; infinite for no limit.

    >>> from datetime import timedelta
    >>> checked_seconds("timeout", timedelta(minutes=1.5))
    90.0
    """
    from datetime import timedelta

    if isinstance(timeout, timedelta):
        timeout = timeout.total_seconds()
    number = isinstance(timeout, float) or hasattr(type(timeout), "__index__")
    if not number or isinstance(timeout, bool):
        raise TypeError(
            f"{what} must be a number of seconds or a timedelta, got {type(timeout).__name__} {timeout!r:.60}"
        )
    if not timeout > 0:
        raise ValueError(f"{what} must be more than 0 seconds, got {timeout!r}; leave it out for no limit")
    return float(timeout)
