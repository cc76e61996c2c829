"""Conditions of steps: predicates over a step's arguments that decide whether it runs.

```
condition=, skip_if=, @when, @unless ──▶ Guard (a predicate and the answer that lets the step run)
guards + the step's signature ──▶ GuardSet: where each parameter of each predicate gets its value
GuardedFunction(func, ...)(*arguments) ──▶ all guards pass: func(*arguments)
                                       └─▶ one does not: raises StepSkipped, which executors report as `skipped`
```

Predicates run in the step's worker, before the step, on its bound arguments; one that raises fails the step as the
function itself would. The planner finds values for parameters that only predicates have, and passes them by keyword.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import short_repr
from flowyml.diagnostics.tracebacks import hides_internal_frames, user_code_boundary
from flowyml.steps.coroutines import coroutine_function, make_sync
from flowyml.steps.outcomes import StepSkipped
from flowyml.steps.signature import StepSignature

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

F = TypeVar("F")

MARK = "__flowyml_guards__"


class Guard(NamedTuple):
    """A predicate, and the answer with which the step runs.

    Attributes:
        predicate: What is asked.
        wanted: Whether its answer must be true, or false.
    """

    predicate: Callable[..., Any]
    wanted: bool

    def __str__(self) -> str:
        """Return the name and line of the predicate."""
        code = getattr(self.predicate, "__code__", None)
        place = f" ({os.path.basename(code.co_filename)}:{code.co_firstlineno})" if code else ""  # noqa: PTH119
        return (
            f"{'' if self.wanted else 'not '}{getattr(self.predicate, '__name__', short_repr(self.predicate))}{place}"
        )


@hides_internal_frames
def when(predicate: Callable[..., Any]) -> Callable[[F], F]:
    """Run a step only if a predicate holds; else it is skipped, and so is what depends on it.

    Args:
        predicate: A function. Its parameters are taken by name from the step's own; what it wants beyond them is found
            like a parameter of the step: assets, run inputs, context. A predicate with one parameter that is found
            nowhere gets the value of that key in a mapping among the step's arguments, else the first argument.

    Returns:
        A decorator, below or above `@step`; `condition=` says the same for a single predicate.

    Raises:
        TypeError: If it is no function that can be asked.

    >>> from flowyml import Pipeline, step, when
    >>> @step
    ... @when(lambda x: x > 100)
    ... def large(value):
    ...     return value
    >>> result = Pipeline("sieve").map(large, [99, 101]).run()
    >>> [item.state.value for item in result.step_results["large"].items]
    ['skipped', 'success']
    """
    return _decorator("when", predicate, wanted=True)


@hides_internal_frames
def unless(predicate: Callable[..., Any]) -> Callable[[F], F]:
    """Run a step only if a predicate does not hold: the opposite of `when`; `skip_if=` says the same.

    Args:
        predicate: See `when`.

    >>> from flowyml import Pipeline, step, unless
    >>> @step
    ... @unless(lambda rows: not rows)
    ... def mean(rows):
    ...     return sum(rows) / len(rows)
    >>> Pipeline("means").add_step(mean, params={"rows": []}).run().step_results["mean"].skipped
    True
    """
    return _decorator("unless", predicate, wanted=False)


def _decorator(name: str, predicate: Any, *, wanted: bool) -> Callable[[F], F]:
    guard = Guard(checked_predicate(f"@{name}", predicate), wanted)

    @hides_internal_frames
    def decorate(func: Any) -> Any:
        guarded = getattr(type(func), "_with_guard", None)
        if guarded is not None:
            return guarded(func, guard)
        if not callable(func):
            raise TypeError(f"@{name}(...) decorates a function, got {type(func).__name__} {func!r:.60}")
        setattr(func, MARK, (guard, *getattr(func, MARK, ())))
        return func

    return decorate


def checked_condition(predicate: Any, step: str) -> Guard:
    """Return the `condition=` of a step as a guard."""
    return Guard(checked_predicate(f"condition of step {step!r}", predicate), wanted=True)


def checked_skip(predicate: Any, step: str) -> Guard:
    """Return the `skip_if=` of a step as a guard, like `checked_condition`."""
    return Guard(checked_predicate(f"skip_if of step {step!r}", predicate), wanted=False)


def checked_predicate(what: str, predicate: Any) -> Any:
    """Return a function that can be asked."""
    if not callable(predicate):
        raise TypeError(
            f"{what} must be a function that can be asked, got {type(predicate).__name__} {predicate!r:.60}"
        )
    for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        if kind(predicate):
            raise TypeError(f"{what} must be a plain function: what {predicate!r:.80} returns is no answer")
    return predicate


def checked_run_if(run_if: Any, step: str) -> str:
    """Return which of its dependencies a step needs: "all" or "any"."""
    if run_if not in {"all", "any"}:
        raise ValueError(f'run_if of step {step!r} must be "all" or "any" (of what it depends on), got {run_if!r:.60}')
    return str(run_if)


class BoundGuard(NamedTuple):
    """A guard, and what its predicate is asked with.

    Attributes:
        guard: The guard.
        positional: Names of the arguments that are passed by position.
        keywords: Names of those that are passed by keyword.
        defaults: The values of those that nothing else gives.
        alone: The name that stands for the first argument if nothing else gives it; "" if it has no name.
    """

    guard: Guard
    positional: tuple[str, ...]
    keywords: tuple[str, ...]
    defaults: Mapping[str, Any]
    alone: str | None

    @classmethod
    def of(cls, guard: Guard) -> BoundGuard:
        """Read the predicate's signature."""
        signature = StepSignature.of(guard.predicate)
        required = [name for name in signature.names if name not in signature.defaults]
        takes_any = signature.positional_only or (signature.var_positional and not signature.names)
        if not signature.readable or (takes_any and not required):  # `bool(object=False, /)`, as newer Pythons tell it
            return cls(guard, ("",), (), {}, "")
        alone = required[0] if len(required) == 1 else None
        return cls(guard, signature.positional, signature.keyword_only, signature.defaults, alone)

    @property
    def names(self) -> tuple[str, ...]:
        """What the predicate can be given by name."""
        return tuple(filter(None, self.positional + self.keywords))

    def holds(self, values: Mapping[str, Any], arguments: Sequence[Any]) -> bool:
        """Ask the predicate; `values` are arguments by name, `arguments` the step's own in order."""
        positional = (self._value(name, values, arguments) for name in self.positional)
        keywords = {name: self._value(name, values, arguments) for name in self.keywords}
        return bool(self.guard.predicate(*positional, **keywords)) is self.guard.wanted

    def _value(self, name: str, values: Mapping[str, Any], arguments: Sequence[Any]) -> Any:
        if name in values:
            return values[name]
        if name != self.alone:
            return self.defaults[name]
        for argument in arguments:
            if name and isinstance(argument, Mapping) and name in argument:
                return argument[name]
        if not arguments:
            raise TypeError(
                f"a condition asks for {name or 'an argument'!r}, but the step was called without arguments"
            )
        return arguments[0]


@dataclass(slots=True)
class GuardedFunction:
    """A step's function behind its checks; called as the function is.

    Attributes:
        func: The function.
        checks: All must hold.
        positional: Names of its parameters by position.
        variable: The name of its `*args`.
        defaults: Values of those of its parameters that a call may leave out.
        private: Keywords of a call that are for the checks and not for the function.
    """

    func: Callable[..., Any]
    checks: tuple[BoundGuard, ...]
    positional: tuple[str, ...]
    variable: str | None
    defaults: Mapping[str, Any]
    private: frozenset[str]
    _call: Callable[..., Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make a coroutine function one that waits."""
        self._call = make_sync(self.func)

    @user_code_boundary
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Ask the predicates, then call the function.

        Raises:
            Skipped: If one of them says no.
        """
        own = {name: value for name, value in kwargs.items() if name not in self.private}
        named = {**self.defaults, **dict(zip(self.positional, args, strict=False)), **kwargs}
        if self.variable:
            named[self.variable] = args[len(self.positional) :]
        arguments = [*args, *own.values()] or list(self.defaults.values())
        if not all(check.holds(named, arguments) for check in self.checks):
            raise StepSkipped
        return self._call(*args, **own)

    def as_coroutine_function(self) -> GuardedFunction | None:
        """Return the same, whose calls return a coroutine; `None` if the function is a plain one."""
        if coroutine_function(self._call) is None:
            return None
        copy = GuardedFunction(self.func, self.checks, self.positional, self.variable, self.defaults, self.private)
        copy._call = self.func
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by parts: a coroutine function is wrapped again."""
        parts = (self.func, self.checks, self.positional, self.variable, self.defaults, self.private)
        return GuardedFunction, parts


class GuardSet:
    """The guards of one step, and what they want beyond its own parameters.

    Args:
        guards: The guards.
        own: The signature of the step's function.

    Attributes:
        signature: The function's signature with what the predicates want, as parameters by keyword.
        optional: Names that need no value: the first argument is used instead.
    """

    def __init__(self, guards: Collection[Guard], own: StepSignature) -> None:
        self.checks = tuple(map(BoundGuard.of, guards))
        self._own = own
        self._extras = dict.fromkeys(name for check in self.checks for name in check.names if name not in self._taken())
        self.signature = self._extended() if self._extras else own
        has_arguments = bool(own.names or own.var_positional or own.var_keyword or not own.readable)
        alone: set[str | None] = {check.alone for check in self.checks if has_arguments and check.alone}
        self.optional = alone - set(self._needed(alone))

    def guarded(self, func: Callable[..., Any], explicit: Collection[str]) -> GuardedFunction:
        """Return the function behind its checks; `explicit` are extra names that `params` or inputs give.

        If the function has `**kwargs`, it gets them, too.
        """
        own = self._own
        private = frozenset(self._extras).difference(explicit if own.var_keyword else ())
        asked = {name for check in self.checks for name in check.names} | set(own.names[:1])
        defaults = {name: value for name, value in own.defaults.items() if name in asked}
        return GuardedFunction(func, self.checks, own.positional, own.var_positional, defaults, private)

    def _taken(self) -> Collection[str | None]:
        return (*self._own.names, self._own.var_positional)

    def _extended(self) -> StepSignature:
        defaults = {name: value for check in self.checks for name, value in check.defaults.items()}
        found = {name: defaults[name] for name in self._extras if name in defaults and name not in self._needed(())}
        own = self._own
        return own._replace(keyword_only=(*own.keyword_only, *self._extras), defaults={**own.defaults, **found})

    def _needed(self, alone: Collection[str | None]) -> Iterator[str]:
        for check in self.checks:
            for name in check.names:
                if name not in check.defaults and not (name == check.alone and name in alone):
                    yield name
