"""Hooks: functions that are told how runs go.

```
@on_step_end            ──▶ Hooks of all pipelines ─┐
@pipeline.hooks.on_...  ──▶ Hooks of a pipeline ────┴──▶ a run takes what is there when it begins ──▶ events.py calls it
```

Each function is called in the thread that called `run()`, one after the other, those of all pipelines first, in the
order in which they were registered. One that raises is logged and stops nothing. The module knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from flowyml.diagnostics.tracebacks import hides_internal_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flowyml.pipeline import Pipeline
    from flowyml.results.result import PipelineResult
    from flowyml.results.step_result import StepResult
    from flowyml.steps.step import Step

    StepStart = TypeVar("StepStart", bound=Callable[[Step[..., Any], Mapping[str, Any]], object])
    StepEnd = TypeVar("StepEnd", bound=Callable[[Step[..., Any], StepResult], object])
    PipelineStart = TypeVar("PipelineStart", bound=Callable[[Pipeline], object])
    PipelineEnd = TypeVar("PipelineEnd", bound=Callable[[Pipeline, PipelineResult], object])

__all__ = ["Hooks", "on_pipeline_end", "on_pipeline_start", "on_step_end", "on_step_start", "remove", "scope"]

F = TypeVar("F")

# What each is called with.
_ARGUMENTS = {
    "on_pipeline_start": ("pipeline",),
    "on_pipeline_end": ("pipeline", "result"),
    "on_step_start": ("step", "inputs"),
    "on_step_end": ("step", "result"),
}


class Hooks:
    """Functions to call at the four moments of a run; each method registers one and returns it, so it decorates.

    What is registered or removed while a run goes on counts from the next run on.

    >>> from flowyml import Pipeline
    >>> pipeline = Pipeline("one").add_step(max, params={"a": 1, "b": 2})
    >>> @pipeline.hooks.on_step_end
    ... def tell(step, result):
    ...     print(step.name, result.state)
    >>> _ = pipeline.run()
    max success
    """

    def __init__(self) -> None:
        self._functions: dict[str, list[Callable[..., object]]] = {moment: [] for moment in _ARGUMENTS}

    @hides_internal_frames
    def on_pipeline_start(self, function: PipelineStart) -> PipelineStart:
        """Call `function(pipeline)` before the first step."""
        return self._register("on_pipeline_start", function)

    @hides_internal_frames
    def on_pipeline_end(self, function: PipelineEnd) -> PipelineEnd:
        """Call `function(pipeline, result)` after everything else, also after a run that was interrupted."""
        return self._register("on_pipeline_end", function)

    @hides_internal_frames
    def on_step_start(self, function: StepStart) -> StepStart:
        """Call `function(step, inputs)` when a step, or an item of a mapped step, begins: once, not for each attempt.

        Args:
            function: Gets the step as it stands in the pipeline (its name is that of `add_step`, of an item
                "name[index]") and its arguments by parameter name, read-only, loaded when they are first looked at.

        Steps of this process have not begun yet when they run in the caller's thread; others may be under way. Steps on
        process workers have been sent to a worker that has nothing else to do.
        """
        return self._register("on_step_start", function)

    @hides_internal_frames
    def on_step_end(self, function: StepEnd) -> StepEnd:
        """Call `function(step, result)` when a step, or an item of a mapped step, has ended for good: once for each.

        Args:
            function: Gets the step, as for `on_step_start`, and its `StepResult`. Steps that never began
                (`upstream_failed`, `cancelled`, `skipped` with what they read) are told at the end of the run.
        """
        return self._register("on_step_end", function)

    @hides_internal_frames
    def remove(self, function: Callable[..., object]) -> None:
        """Call a function no more, whatever it was registered for.

        Raises:
            ValueError: If it is not registered.
        """
        found = [functions for functions in self._functions.values() if function in functions]
        if not found:
            raise ValueError(f"{function!r:.80} is not registered here")
        for functions in found:
            functions.remove(function)

    @contextlib.contextmanager
    def scope(self) -> Iterator[Hooks]:
        """Forget what is registered inside this block when it ends."""
        before = {moment: list(functions) for moment, functions in self._functions.items()}
        try:
            yield self
        finally:
            self._functions = before

    def __copy__(self) -> Hooks:
        """Return hooks with the same functions."""
        other = Hooks()
        other._functions = {moment: list(functions) for moment, functions in self._functions.items()}
        return other

    @property
    def any(self) -> bool:
        """Whether some function is registered."""
        return bool(sum(map(len, self._functions.values())))

    def at(self, moment: str) -> tuple[Callable[..., object], ...]:
        """Return the functions of a moment, as they are registered now."""
        return tuple(self._functions[moment])

    def __repr__(self) -> str:
        """Say how many there are."""
        counts = ", ".join(f"{len(functions)} {moment}" for moment, functions in self._functions.items() if functions)
        return f"<Hooks: {counts or 'none'}>"

    def _register(self, moment: str, function: F) -> F:
        checked: Any = _checked(moment, function)
        functions = self._functions[moment]
        place = _place(checked)
        # A notebook cell that is run again defines its hook again: the new one takes the place of the old one.
        again = [k for k, each in enumerate(functions) if each == checked or (place and _place(each) == place)]
        if again:
            functions[again[0]] = checked
        else:
            functions.append(checked)
        return function


def _checked(moment: str, function: Any) -> Any:
    """Return a function that can be called as a hook.

    Raises:
        TypeError: If it cannot.
    """
    arguments = _ARGUMENTS[moment]
    call = f"{moment}({', '.join(arguments)})"
    if not callable(function):
        raise TypeError(f"{call} is told to a function, got {type(function).__name__} {function!r:.60}")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{call} is told to a plain function: nobody awaits or iterates {function!r:.60}")
    with contextlib.suppress(ValueError):  # a builtin that does not tell its signature
        signature = inspect.signature(function)
        try:
            signature.bind(*arguments)
        except TypeError:
            raise TypeError(f"a hook is called as {call}, but {function!r:.60} takes {signature}") from None
    return function


def _place(function: Any) -> tuple[str, str] | None:
    """Return where a function was defined, if at most one of that name can be there."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    return None if "<" in name or inspect.ismethod(function) else (str(module), name)


everywhere = Hooks()
"""The hooks of all pipelines."""

on_pipeline_start = everywhere.on_pipeline_start
on_pipeline_end = everywhere.on_pipeline_end
on_step_start = everywhere.on_step_start
on_step_end = everywhere.on_step_end
remove = everywhere.remove
scope = everywhere.scope
