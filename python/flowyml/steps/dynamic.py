"""Dynamic steps: a step whose result is more steps.

```
@dynamic step returns a Pipeline ──▶ SubgraphReturned ──▶ run: its steps are added, prefixed with the step's name
              the step runs again: CollectOutputs returns its value ◀── when they are done
```

A pipeline that such a step returns is expanded (`runtime/dynamic_steps.py`); any other return value is its value. A
worker process returns a pipeline as a `PickledPipeline` with all its steps; everywhere else pipelines pickle by name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from flowyml.diagnostics.tracebacks import hides_internal_frames, warn_out_of_scope
from flowyml.steps.decorator import KEYWORDS, step
from flowyml.steps.outcomes import SINGLE_USE_TYPES, close_iterator, is_pipeline, single_use_error
from flowyml.steps.step import Step, added_step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from flowyml.planning.step_spec import StepColumns
    from flowyml.planning.sub_pipelines import HasColumns
    from flowyml.steps.context import Context
    from flowyml.steps.options import DecoratorKeywords


P = ParamSpec("P")
R = TypeVar("R")


@overload
def dynamic(func: Callable[P, R], /) -> Step[P, R]: ...
@overload
def dynamic(**options: Unpack[DecoratorKeywords]) -> Callable[[Callable[P, R]], Step[P, R]]: ...
@hides_internal_frames
def dynamic(func: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a step that may return a pipeline, whose steps then run in its place.

    In the result their names begin with the name of the step: step `train` of the pipeline that `search` returns is
    `search.train`. Values that they lack are looked up around the dynamic step, as in a sub-pipeline without `inputs=`.
    The value of the step is the value of the pipeline's last asset, or of several a mapping of names to values; or the
    declared `outputs`, which are assets of the pipeline (a single one may also be just the name of that value). If one
    of the steps that this needs fails, the dynamic step is `upstream_failed`. Any other return value is its value.

    Args:
        func: A function or a step, if the decorator is used without parentheses.
        **options: As for `step`.

    Returns:
        A `Step`, or a decorator that makes one.

    Raises:
        TypeError: As `step` does.

    >>> from flowyml import Pipeline, dynamic
    >>> def score(rate):
    ...     return rate * (1 - rate)
    >>> @dynamic
    ... def search(rates):
    ...     tries = Pipeline("tries")
    ...     for rate in rates:
    ...         tries.add_step(score, name=f"at_{rate}", params={"rate": rate})
    ...     return tries
    >>> result = Pipeline("tune").add_step(search, params={"rates": [0.25, 0.5]}).add_step(max, inputs=["search"]).run()
    >>> result["search"], result["search.at_0.5"], result["max"]
    ({'at_0.25': 0.1875, 'at_0.5': 0.25}, 0.25, 'at_0.5')
    """
    unknown = {name: options.pop(name) for name in tuple(options) if name not in KEYWORDS}
    warn_out_of_scope("dynamic()", unknown, KEYWORDS)
    if func is None:
        decorate: Callable[..., Step[..., Any]] = step(**options)
        return hides_internal_frames(lambda func: _marked(decorate(func)))
    if isinstance(func, Step):
        return _marked(added_step(func, func.name, func.inputs, func.outputs, func.options))
    return _marked(step(func))


def _marked(made: Step[..., Any]) -> Step[..., Any]:
    made.options = replace(made.options, dynamic=True)
    return made


class SubgraphReturned(BaseException):
    """A step has returned a pipeline; reported instead of an exception, like `StepSkipped`.

    Args:
        pipeline: The pipeline.
    """

    def __init__(self, pipeline: HasColumns) -> None:
        super().__init__()
        self.pipeline = pipeline


class PickledPipeline:
    """A pipeline as a worker sends it, with all its steps.

    Args:
        name: Its name.
        context: Its context.
        columns: What was added to it.
        types: What to do if types do not fit.
    """

    def __init__(
        self, name: str, context: Context, columns: StepColumns, types: Literal["warn", "error"] | None = None
    ) -> None:
        self.name = name
        self.context = context
        self._added = columns
        self._types = types

    def _inner_columns(self) -> StepColumns:
        return self._added


def pickled_pipeline(pipeline: Any) -> PickledPipeline:
    """Return a pipeline in a form that pickles with its steps.

    Raises:
        FlowymlError: If it has come to this process by its name alone.
    """
    return PickledPipeline(pipeline.name, pipeline.context, pipeline._inner_columns(), pipeline._types)  # noqa: SLF001


def is_refused(value: Any) -> bool:
    """Return True if a step must not return this as its value: a pipeline, or a single-use iterator."""
    return type(value) in SINGLE_USE_TYPES or is_pipeline(value)


def refusal(value: Any, step: str) -> BaseException:
    """Return what is reported of a step whose return value is refused."""
    return SubgraphReturned(value) if is_pipeline(value) else single_use_error(step, close_iterator(value))


class CollectOutputs:
    """Returns the value of a dynamic step from the values of the steps that it brought.

    Args:
        names: The names of several values; `None` if there is one, or if they are the declared outputs.
    """

    def __init__(self, names: Sequence[str] | None) -> None:
        self.names = names

    def __call__(self, *values: Any) -> Any:
        """Put the values together."""
        if self.names is not None:
            return dict(zip(self.names, values, strict=True))
        return values[0] if len(values) == 1 else values

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by parts."""
        return CollectOutputs, (self.names,)


def unmarked_dynamic_error(name: str, pipeline: HasColumns) -> TypeError:
    """Return the error of a step that returns a pipeline and is not dynamic."""
    return TypeError(
        f"step {name!r} returned the pipeline {pipeline.name!r}: with @dynamic in the place of @step its steps would "
        "run in the place of this one; to run it here call its run() and return a value"
    )
