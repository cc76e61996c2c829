"""Fallbacks: functions that replace a step once all attempts have failed, and handlers that are called then.

```
fallback=, @on_failure(f) ──▶ Fallback(f, step's function): called as the step is, where the step would run
on_failure=               ──▶ called in the driver with the exception, once the step has ended
```

A fallback gets those of the step's arguments that it has parameters for: by name if all its required parameters are
among the step's, else by position from the left. When a fallback is called is decided by the run.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flowyml.diagnostics.text import join_names
from flowyml.diagnostics.tracebacks import hides_internal_frames, user_code_boundary, warn_caller
from flowyml.steps.conditions import GuardedFunction
from flowyml.steps.coroutines import coroutine_function, make_sync
from flowyml.steps.outcomes import generator_kind
from flowyml.steps.retry import as_classes
from flowyml.steps.signature import StepSignature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowyml.results.step_result import StepResult

F = TypeVar("F")

MARK = "__flowyml_fallback__"


class Fallback:
    """A function in the place of a step's; called as that is.

    Args:
        func: The fallback.
        instead: What is called for the step: its function, behind its conditions if it has some.
    """

    __slots__ = ("_by_name", "_call", "_own", "_private", "_step", "func", "instead")

    def __init__(self, func: Callable[..., Any], instead: Callable[..., Any]) -> None:
        self.func = func
        self.instead = instead
        self._call = make_sync(func)
        self._private: frozenset[str] = frozenset()
        if isinstance(instead, GuardedFunction):
            self._private, instead = instead.private, instead.func
        self._step = StepSignature.of(instead)
        self._own = StepSignature.of(func)
        self._by_name = _fit(self._own, self._step) == "names"

    @user_code_boundary
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it with the arguments of the step."""
        given, named = self._arguments(args, {name: kwargs[name] for name in kwargs if name not in self._private})
        return self._call(*given, **named)

    def as_coroutine_function(self) -> Fallback | None:
        """Return the same, whose calls return a coroutine; `None` if it is a plain function."""
        if coroutine_function(self._call) is None:
            return None
        copy = Fallback(self.func, self.instead)
        copy._call = self.func
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by parts."""
        return Fallback, (self.func, self.instead)

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        step, own = self._step, self._own
        values = {**step.defaults, **dict(zip(step.positional, args, strict=False)), **kwargs}
        if self._by_name:
            given = [values.pop(name) for name in _leading(own.positional, values)]
            return given, {name: values[name] for name in values if own.takes(name)}
        given = [values.pop(name) for name in _leading(step.positional, values)] + list(args[len(step.positional) :])
        if own.readable and own.var_positional is None:
            del given[len(own.positional) :]
        return given, {name: kwargs[name] for name in kwargs if name in values and own.takes(name)}


def _leading(names: Sequence[str], values: Mapping[str, Any]) -> Sequence[str]:
    missing = next((k for k, name in enumerate(names) if name not in values), len(names))
    return names[:missing]


def _fit(own: StepSignature, step: StepSignature) -> str | None:
    """Return how a fallback gets a step's arguments: by "names", by "positions"; `None` if it cannot."""
    required = [name for name in own.names if name not in own.defaults]
    if own.readable and not own.var_positional and all(name in step.names for name in required):
        return "names"
    keywords = [name for name in own.keyword_only if name in required and name not in step.keyword_only]
    needed = sum(name in required for name in own.positional)
    enough = needed <= len(step.positional) or step.var_positional or not step.readable
    return "positions" if enough and not keywords else None


def check_fits(fallback: Callable[..., Any], signature: StepSignature, step: str) -> None:
    """Check that a fallback can be called with what a step takes."""
    own = StepSignature.of(fallback)
    if _fit(own, signature) is None:
        raise TypeError(
            f"the fallback of step {step!r} takes {join_names(own.names)}, which the step's arguments do not fill: "
            f"they are {join_names(signature.names) or 'none'}; a fallback takes some or all of them, or none"
        )


def checked_fallback(fallback: Any, step: str) -> Any:
    """Return the `fallback=` of a step."""
    what = f"fallback of step {step!r}"
    if not callable(fallback):
        raise TypeError(
            f"{what} must be a function, got {type(fallback).__name__} {fallback!r:.60}; "
            f"for a fixed value: fallback=lambda: {fallback!r:.60}"
        )
    if generator_kind(fallback):
        raise TypeError(f"{what} is {generator_kind(fallback)}")
    return fallback


def checked_fallback_on(classes: Any, step: str) -> tuple[type[BaseException], ...]:
    """Return the `fallback_on=` of a step: exception classes."""
    if isinstance(classes, str) or not (isinstance(classes, type) or hasattr(type(classes), "__iter__")):
        raise TypeError(f"fallback_on of step {step!r} takes exception classes, got {classes!r:.60}")
    return as_classes(f"fallback_on of step {step!r}", classes, ())


def checked_handler(handler: Any, step: str) -> Any:
    """Return the `on_failure=` of a step."""
    what = f"on_failure of step {step!r}"
    if isinstance(handler, OnFailure):
        raise TypeError(f"{what} takes the function itself; @on_failure(function) above a function sets its fallback")
    if not callable(handler):
        raise TypeError(f"{what} must be a function, got {type(handler).__name__} {handler!r:.60}")
    if inspect.iscoroutinefunction(handler) or inspect.isgeneratorfunction(handler):
        raise TypeError(f"{what} must be a plain function: nobody awaits or iterates {handler!r:.60}")
    signature = StepSignature.of(handler)
    if signature.readable and not _takes(handler, 1) and not _takes(handler, 2):
        raise TypeError(f"{what} is called with (error) or (error, result), but it takes {_told(signature)}")
    return handler


def call_handler(handler: Callable[..., object], error: BaseException, result: Any) -> None:
    """Call an `on_failure=` with the exception, and with the result if it needs two arguments."""
    if StepSignature.of(handler).readable and not _takes(handler, 1):
        handler(error, result)
    else:
        handler(error)


def _told(signature: StepSignature) -> str:
    return join_names(signature.names) or "no arguments"


def _takes(function: Callable[..., object], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


class OnFailure:
    """The decorator that `on_failure(function)` makes.

    Args:
        fallback: Replaces the function that it decorates.
    """

    def __init__(self, fallback: Callable[..., Any]) -> None:
        self._fallback = fallback

    @hides_internal_frames
    def __call__(self, func: F) -> F:
        """Leave the fallback with a function, for the `@step` above; or give it to a step."""
        of_step = getattr(type(func), "_with_options", None)
        if of_step is not None:
            return of_step(func, fallback=self._fallback)  # type: ignore[no-any-return]
        if not callable(func):
            raise TypeError(f"@on_failure(...) decorates a function, got {type(func).__name__} {func!r:.60}")
        setattr(func, MARK, self._fallback)
        return func


@overload
def on_failure(action: Callable[..., Any]) -> OnFailure: ...
@overload
def on_failure(action: str = "log", **notification: object) -> Callable[[BaseException, StepResult], None]: ...
@hides_internal_frames
def on_failure(action: Callable[..., Any] | str = "log", **notification: object) -> Any:
    """Declare what happens once all attempts of a step have failed.

    `@on_failure(function)` below `@step`: the function's value replaces the step's, as with `fallback=`.
    `@step(on_failure=on_failure("log"))`, the form of 2.x, logs the error. Its notifications are out of scope: another
    action is accepted with a warning, and the error logged; give `on_failure=` a function that notifies.

    Args:
        action: A function, or the word "log".
        **notification: `recipients=` and such, of 2.x.

    Returns:
        A decorator, or a value for `on_failure=`.

    Raises:
        TypeError: If it is neither a function nor a word.

    >>> from flowyml import Pipeline, on_failure, step
    >>> @step
    ... @on_failure(lambda: "yesterday's rates")
    ... def rates():
    ...     raise ConnectionError("offline")
    >>> result = Pipeline("rates").add_step(rates).run()
    >>> result["rates"], result.step_results["rates"].fallback_error
    ("yesterday's rates", ConnectionError('offline'))
    """
    if callable(action) and not notification:
        return OnFailure(action)
    if not isinstance(action, str):
        raise TypeError(f'on_failure() takes a function or "log", got {type(action).__name__} {action!r:.60}')
    if action != "log":
        warn_caller(
            f"on_failure(action={action!r}) sends nothing: notifications are out of scope, the error is logged; "
            "give on_failure= a function that notifies"
        )
    return log_failure


def log_failure(error: BaseException, result: StepResult) -> None:
    """Log that a step failed; what `on_failure("log")` stands for."""
    import logging

    logging.getLogger("flowyml").error("step %r failed: %s: %s", result.step_name, type(error).__name__, error)
