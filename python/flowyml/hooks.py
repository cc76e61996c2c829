"""Hooks: functions that are called when runs and steps start and end.

```
@on_step_end            ──▶ Hooks of all pipelines ─┐
@pipeline.hooks.on_...  ──▶ Hooks of a pipeline ────┴──▶ a run copies both when it starts ──▶ runtime/events.py
```

Functions are called in the thread that called `run()`, one after the other: those of all pipelines first, in the order
of registration. An exception of a hook is logged and stops nothing. The module knows nothing of runs.
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

# The parameters of each hook.
_ARGUMENTS = {
    "on_pipeline_start": ("pipeline",),
    "on_pipeline_end": ("pipeline", "result"),
    "on_step_start": ("step", "inputs"),
    "on_step_end": ("step", "result"),
}


class Hooks:
    """Functions to call at the start and end of runs and steps; each method registers one and works as a decorator.

    Changes during a run take effect in the next run.

    >>> from flowyml import Pipeline
    >>> pipeline = Pipeline("one").add_step(max, params={"a": 1, "b": 2})
    >>> @pipeline.hooks.on_step_end
    ... def report(step, result):
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
        """Call `function(pipeline, result)` after everything else, also if the run was interrupted."""
        return self._register("on_pipeline_end", function)

    @hides_internal_frames
    def on_step_start(self, function: StepStart) -> StepStart:
        """Call `function(step, inputs)` when a step or an item of a mapped step starts: once, not for each attempt.

        Args:
            function: Called with the step as it is in the pipeline (its name is that of `add_step`, of an item
                "name[index]") and its arguments by parameter name, a read-only mapping that loads them on access.

        In the caller's thread the hook runs before the step; in other threads the step may already be running. Steps
        for process workers have been sent to a worker that is idle.
        """
        return self._register("on_step_start", function)

    @hides_internal_frames
    def on_step_end(self, function: StepEnd) -> StepEnd:
        """Call `function(step, result)` when a step or item has ended: once, after its last attempt.

        Args:
            function: Called with the step, as in `on_step_start`, and its `StepResult`. Steps that never started
                (`upstream_failed`, `cancelled`, dependents of `skipped`) are reported at the end of the run.
        """
        return self._register("on_step_end", function)

    @hides_internal_frames
    def remove(self, function: Callable[..., object]) -> None:
        """Remove a function from all hooks that it is registered for.

        Raises:
            ValueError: If it is not registered.
        """
        matches = [functions for functions in self._functions.values() if function in functions]
        if not matches:
            raise ValueError(f"{function!r:.80} is not registered here")
        for functions in matches:
            functions.remove(function)

    @contextlib.contextmanager
    def scope(self) -> Iterator[Hooks]:
        """Restore the registered functions at the end of the block."""
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
        """True if a function is registered."""
        return bool(sum(map(len, self._functions.values())))

    def at(self, moment: str) -> tuple[Callable[..., object], ...]:
        """Return the functions of a hook as they are registered now."""
        return tuple(self._functions[moment])

    def __repr__(self) -> str:
        """Show the number of functions."""
        counts = ", ".join(f"{len(functions)} {moment}" for moment, functions in self._functions.items() if functions)
        return f"<Hooks: {counts or 'none'}>"

    def _register(self, moment: str, function: F) -> F:
        checked: Any = _checked(moment, function)
        functions = self._functions[moment]
        place = _place(checked)
        # A notebook cell that runs again defines its hook again: replace the old one.
        same = [k for k, known in enumerate(functions) if known == checked or (place and _place(known) == place)]
        if same:
            functions[same[0]] = checked
        else:
            functions.append(checked)
        return function


def _checked(moment: str, function: Any) -> Any:
    """Return the function, or raise a `TypeError` if it cannot be called as this hook."""
    arguments = _ARGUMENTS[moment]
    call = f"{moment}({', '.join(arguments)})"
    if not callable(function):
        raise TypeError(f"{call} expects a callable, got {type(function).__name__} {function!r:.60}")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{call} expects a plain function, but {function!r:.60} is a coroutine or generator function")
    with contextlib.suppress(ValueError):  # a builtin without a signature
        signature = inspect.signature(function)
        try:
            signature.bind(*arguments)
        except TypeError:
            raise TypeError(f"a hook is called as {call}, but {function!r:.60} takes {signature}") from None
    return function


def _place(function: Any) -> tuple[str, str] | None:
    """Return module and qualified name of a function, if they identify it."""
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
