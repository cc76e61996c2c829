"""Circuit breakers: a function that keeps failing is not called for a while.

```
closed ──failure_threshold failures in a row──▶ open ──timeout seconds──▶ half open ──the trial succeeds──▶ closed
   ▲                                              ▲                           │
   └── every call may begin                       └──── the trial fails ──────┘   one call may begin, others are refused
```

`CircuitBreaker` is the configuration, `Circuit` the state machine; time is an argument. In a run the driver has one
circuit for each breaker (`runtime/failure_policy.py`); a breaker that is called directly has one of its own.
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flowyml.diagnostics.tracebacks import hides_internal_frames, user_code_boundary
from flowyml.errors import CircuitOpenError
from flowyml.steps.retry import as_classes, is_one_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

R = TypeVar("R")
F = TypeVar("F", bound="Callable[..., Any]")

MARK = "__flowyml_breaker__"


class CircuitBreaker:
    """Fail at once, without calling, after several failures in a row; as `circuit_breaker=` of a step, or by hand.

    Steps with the same breaker, also items of a mapped step, share one circuit, which each run begins closed. Failures
    are counted attempt by attempt. A step that is refused fails with `CircuitOpenError`, which its `retry` does not try
    again unless it says `on=[CircuitOpenError]`, and for which its `fallback` stands in.

    Args:
        failure_threshold: After so many failures in a row the circuit is open.
        timeout: Seconds for which it stays open; then one call is tried, and decides.
        recovery_timeout: For so many seconds after the last failure a single further one opens a circuit that has been
            open before; `None`: it takes `failure_threshold` again.
        expected_exceptions: Exception classes that count as failures, all by default. Anything else that a call raises
            counts as an answer, like a value.
        name: What messages call it; by default the name of the step or function.

    As a decorator below `@step` it becomes the step's `circuit_breaker`; a plain function it guards, like `call` does.

    Raises:
        ValueError: For a number that is too small.
        TypeError: If something is not what it should be.

    >>> breaker = CircuitBreaker(failure_threshold=2, timeout=60)
    >>> for _ in range(3):
    ...     try:
    ...         breaker.call(int, "one")
    ...     except Exception as error:
    ...         print(type(error).__name__)
    ValueError
    ValueError
    CircuitOpenError
    >>> breaker.state
    'open'
    """

    @hides_internal_frames
    def __init__(
        self,
        failure_threshold: int = 5,
        timeout: float = 60.0,
        recovery_timeout: float | None = None,
        expected_exceptions: Iterable[type[BaseException]] | type[BaseException] | None = None,
        *,
        name: str | None = None,
    ) -> None:
        number: Any = failure_threshold
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"failure_threshold must be a whole number, got {failure_threshold!r:.60}")
        if failure_threshold < 1:
            raise ValueError(f"failure_threshold must be at least 1, got {failure_threshold}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a circuit breaker must be a string, got {name!r:.60}")
        self.failure_threshold = failure_threshold
        self.timeout: float = _seconds("timeout", timeout)
        self.recovery_timeout: float | None = (
            None if recovery_timeout is None else _seconds("recovery_timeout", recovery_timeout)
        )
        self.expected_exceptions: tuple[type[BaseException], ...] = as_classes(
            "expected_exceptions", expected_exceptions, (BaseException,)
        )
        self.name = name
        self._own = Circuit(self, name or "circuit breaker")

    @hides_internal_frames
    @user_code_boundary
    def call(self, func: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
        """Call a function unless the circuit is open; a coroutine function is awaited by the caller.

        Raises:
            CircuitOpenError: If it is, without having called.
        """
        return cast("R", self._guarded(func, _name_of(func))(*args, **kwargs))

    @hides_internal_frames
    def __call__(self, func: F) -> F:
        """Guard a function; see the class.

        Raises:
            TypeError: If it is none.
        """
        of_step = getattr(type(func), "_with_options", None)
        if of_step is not None:
            return cast("F", of_step(func, circuit_breaker=self))
        if not callable(func):
            raise TypeError(f"@CircuitBreaker(...) decorates a function, got {type(func).__name__} {func!r:.60}")
        guarded: Any = functools.wraps(func)(self._guarded(func, _name_of(func)))
        setattr(guarded, MARK, (self, guarded))
        return cast("F", guarded)

    @property
    def state(self) -> str:
        """Of calls by hand: "closed", "open" or "half_open"."""
        return self._own.state(time.monotonic())

    @property
    def failure_count(self) -> int:
        """Of calls by hand: how many failed in a row."""
        return self._own.failures

    def reset(self) -> None:
        """Close the circuit of calls by hand."""
        self._own = Circuit(self, self._own.name)

    def __repr__(self) -> str:
        """Show the arguments."""
        parts = [f"failure_threshold={self.failure_threshold}", f"timeout={self.timeout:g}"]
        parts += [f"recovery_timeout={self.recovery_timeout:g}"] if self.recovery_timeout is not None else []
        parts += [f"name={self.name!r}"] if self.name else []
        return f"CircuitBreaker({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the arguments: a copy begins closed."""
        arguments = (self.failure_threshold, self.timeout, self.recovery_timeout, self.expected_exceptions, self.name)
        return _rebuild, arguments

    def _guarded(self, func: Callable[..., Any], name: str) -> Callable[..., Any]:
        @hides_internal_frames
        @user_code_boundary
        def guarded(*args: Any, **kwargs: Any) -> Any:
            with _GuardedCall(self._own, name):
                return func(*args, **kwargs)

        @hides_internal_frames
        @user_code_boundary
        async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
            with _GuardedCall(self._own, name):
                return await func(*args, **kwargs)

        return guarded_coroutine if inspect.iscoroutinefunction(func) else guarded


class _GuardedCall:
    """One call under a circuit."""

    def __init__(self, circuit: Circuit, name: str) -> None:
        self._circuit = circuit
        self._circuit.name = circuit.breaker.name or name

    def __enter__(self) -> None:
        refusal = self._circuit.admit(self, time.monotonic())
        if refusal is not None:
            raise refusal from self._circuit.last_error

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is None or isinstance(error, Exception):
            self._circuit.record(self, error, time.monotonic())
        else:  # Ctrl-C, a coroutine that was cancelled: the call says nothing
            self._circuit.release(self)


class Circuit:
    """The state machine; any thread may use it.

    Args:
        breaker: Its limits.
        name: What messages call it.

    Attributes:
        failures: How many calls failed in a row.
        last_error: The last failure.
    """

    def __init__(self, breaker: CircuitBreaker, name: str) -> None:
        self.breaker = breaker
        self.name = name
        self.failures = 0
        self.last_error: BaseException | None = None
        self._lock = threading.Lock()
        self._opened: float | None = None
        self._trial: object = None
        self._wary_until = float("-inf")

    def state(self, now: float) -> str:
        """Return "closed", "open" or "half_open"."""
        if self._opened is None:
            return "closed"
        return "open" if now < self._opened + self.breaker.timeout else "half_open"

    def admit(self, who: object, now: float) -> CircuitOpenError | None:
        """Return `None` if a call may begin, else why not.

        Args:
            who: The call, in case that it is the trial; it may ask again.
            now: Seconds on any clock that does not go back.
        """
        with self._lock:
            if self._opened is None:
                return None
            left = self._opened + self.breaker.timeout - now
            if left <= 0 and (self._trial is None or self._trial == who):
                self._trial = who
                return None
            return CircuitOpenError(self.name, self.failures, self._last_line(), max(0.0, left), self.last_error)

    def refuses(self, who: object, now: float) -> bool:
        """Return True if `admit` would refuse the call."""
        with self._lock:
            if self._opened is None:
                return False
            return now < self._opened + self.breaker.timeout or self._trial not in {None, who}

    def record(self, who: object, error: BaseException | None, now: float) -> None:
        """Record the end of an admitted call; a call that began before the circuit opened does not count."""
        with self._lock:
            if self._opened is not None and self._trial != who:
                return
            if error is not None and is_one_of(error, self.breaker.expected_exceptions):
                self._fail(error, now)
            else:
                self._opened, self._trial, self.failures = None, None, 0

    def release(self, who: object) -> None:
        """Record that an admitted call was not made."""
        with self._lock:
            if self._trial == who:
                self._trial = None

    def _fail(self, error: BaseException, now: float) -> None:
        self.failures += 1
        self.last_error = error
        wary = now < self._wary_until
        if self._opened is not None or wary or self.failures >= self.breaker.failure_threshold:
            self._opened, self._trial = now, None
            if self.breaker.recovery_timeout is not None:
                self._wary_until = now + self.breaker.recovery_timeout

    def _last_line(self) -> str:
        error = self.last_error
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def checked_breaker(breaker: Any, step: str) -> CircuitBreaker:
    """Return the `circuit_breaker=` of a step."""
    if not isinstance(breaker, CircuitBreaker):
        hint = "; call it: CircuitBreaker()" if breaker is CircuitBreaker else ""
        raise TypeError(f"circuit_breaker of step {step!r} must be a CircuitBreaker, got {breaker!r:.60}{hint}")
    return breaker


def unwrap_breaker(func: Any) -> tuple[Any, CircuitBreaker | None]:
    """Return a function that `@CircuitBreaker` guards without its guard, and the breaker; others as they are."""
    found: Any = func
    breaker, guarded = getattr(found, MARK, (None, None))
    return (found.__wrapped__, breaker) if guarded is func and breaker is not None else (func, None)


def _seconds(name: str, seconds: Any) -> float:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"CircuitBreaker({name}=) must be a number of seconds, got {seconds!r:.60}")
    if not seconds >= 0:
        raise ValueError(f"CircuitBreaker({name}=) must be at least 0 seconds, got {seconds!r}")
    return float(seconds)


def _name_of(func: Any) -> str:
    return str(getattr(func, "__name__", type(func).__name__))


def _rebuild(*arguments: Any) -> CircuitBreaker:
    *numbers, name = arguments
    return CircuitBreaker(*numbers, name=name)
