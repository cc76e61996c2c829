"""`@map_task`: a function of one item as a step that runs over a list of them.

In a pipeline it is one mapped step, with the state, attempts and value of each item, under terms that hold for all of
them; called directly it runs here: on threads, coroutines in an event loop. See `steps/map_task.py` for the terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from flowyml import registry
from flowyml.diagnostics.text import unknown_keyword_message
from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.errors import MapTaskError
from flowyml.executors.parallel_executor import ParallelExecutor
from flowyml.launch import run_plain
from flowyml.pipeline import Pipeline
from flowyml.steps.coroutines import is_coroutine_function
from flowyml.steps.map_task import checked_policy, checked_retries
from flowyml.steps.step import Step, added_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta
    from typing import Literal

    from flowyml.steps.declarations import Reads
    from flowyml.steps.map_task import MapTaskPolicy, MapTaskResult
    from flowyml.steps.options import StepOptions

R = TypeVar("R")

_KEYWORDS = (
    *("concurrency", "retries", "retry_delay", "min_success_ratio", "fail_fast", "timeout_per_item"),
    *("inputs", "outputs", "name"),
)


class MapTask(Step[..., Any], Generic[R]):
    """A function of one item that runs over a list; made by `map_task`.

    Attributes:
        terms: What holds for all items together.

    >>> from flowyml import map_task
    >>> @map_task
    ... def shifted(x, by=1):
    ...     return x + by
    >>> list(shifted([1, 2], by=10)), shifted.func(1)
    ([11, 12], 2)
    """

    terms: MapTaskPolicy

    def __call__(self, items: Iterable[Any], /, **params: Any) -> MapTaskResult[R]:
        """Run it here, over these items: on threads; coroutines side by side in an event loop.

        Args:
            items: The items.
            **params: Values of its other parameters, the same for all items.

        Raises:
            MapTaskError: If too few items succeeded; its cause is the first error.
        """
        name = self.name or "map_task"
        alone = added_step(self, name, None, (), self.options)  # what it reads in a pipeline does not concern it here
        pipeline = Pipeline(name).map(alone, items, params=params or None)
        backend: Literal["async", "thread"] = "async" if is_coroutine_function(self.func) else "thread"
        with ParallelExecutor(self.terms.concurrency, backend) as executor:
            result = run_plain(pipeline, executor, fail_fast=False)
        (done,) = result.step_results.values()
        if isinstance(done.exception, MapTaskError):
            raise done.exception
        output: MapTaskResult[R] = done.output
        return output

    def __get__(self, instance: object, owner: type | None = None) -> MapTask[R]:
        """Bind as a method does: `obj.task` runs over a list with `obj` as `self`."""
        bound: Any = super().__get__(instance, owner)
        return bound  # type: ignore[no-any-return]

    def _remade(self, func: Callable[..., Any], options: StepOptions) -> MapTask[Any]:
        return _rebuild(func, (self.name, self.inputs, self.outputs), options, self.terms)

    def _parts(self) -> tuple[Any, ...]:
        return _rebuild, (self.func, (self.name, self.inputs, self.outputs), self.options, self.terms)

    def __repr__(self) -> str:
        """Name the task and where its function comes from."""
        return f"<MapTask {self.name!r} of {getattr(self.func, '__qualname__', self.func)!s}>"


def _rebuild(
    func: Callable[..., Any], declared: tuple[Any, ...], options: StepOptions, terms: MapTaskPolicy
) -> MapTask[Any]:
    name, inputs, outputs = declared
    task: MapTask[Any] = MapTask(func, name=name, inputs=inputs, outputs=outputs or None)
    task.options, task.terms = options, terms
    return task


@overload
def map_task(fn: Callable[..., R], /) -> MapTask[R]: ...
@overload
def map_task(
    *,
    concurrency: int | None = None,
    retries: int = 0,
    retry_delay: float = 1.0,
    min_success_ratio: float = 1.0,
    fail_fast: bool = False,
    timeout_per_item: float | timedelta | None = None,
    inputs: Reads | None = None,
    outputs: str | Sequence[str] | None = None,
    name: str | None = None,
) -> Callable[[Callable[..., R]], MapTask[R]]: ...
@hides_internal_frames
def map_task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    concurrency: int | None = None,
    retries: int = 0,
    retry_delay: float = 1.0,
    min_success_ratio: float = 1.0,
    fail_fast: bool = False,
    timeout_per_item: float | timedelta | None = None,
    inputs: Reads | None = None,
    outputs: str | Sequence[str] | None = None,
    name: str | None = None,
    **unknown: object,
) -> Any:
    """Make a step of a function of one item, which runs over a list: `@map_task` or `@map_task(concurrency=4, ...)`.

    Added to a pipeline it runs over its input, or the first of them: as `Pipeline.map(fn, over=...)` does. Its
    readers get a `MapTaskResult`. Called directly, with a list, it runs here, on threads; a coroutine function in an
    event loop.

    Args:
        fn: The function, if the decorator is used without parentheses.
        concurrency: Maximum number of items that run at once; by default the number of workers; called directly,
            as many as CPUs are usable, or 100 coroutines.
        retries: How many more attempts an item has after a failure.
        retry_delay: Seconds before each of them.
        min_success_ratio: The fraction of the items that must succeed; with fewer the step fails.
        fail_fast: Begin no more items after the first failure; the step fails then.
        timeout_per_item: Seconds (or a `timedelta`) that one item may take.
        inputs: The list, then what all items read. By default the list has the name of the first parameter.
        outputs: The name of its one asset.
        name: Its name; that of the function by default.
        **unknown: Nothing else is known; a misspelled keyword gets an error with the nearest one.

    Returns:
        A `MapTask`, or a decorator that makes one.

    Raises:
        TypeError: For a wrong argument.
        ValueError: For a number that cannot be.

    >>> from flowyml import Pipeline, map_task
    >>> @map_task(min_success_ratio=0.5, inputs=["numbers"])
    ... def reciprocal(x):
    ...     return 1 / x
    >>> result = Pipeline("halves").add_step(lambda: [1, 0, 4], name="numbers").add_step(reciprocal).run()
    >>> result.success, list(result["reciprocal"]), result["reciprocal"].errors
    (True, [1.0, 0.25], {1: 'ZeroDivisionError: division by zero'})
    """
    if unknown:
        raise TypeError(unknown_keyword_message("map_task()", unknown, _KEYWORDS))
    if isinstance(fn, str):
        raise TypeError(f"@map_task takes a function, not {fn!r}; use @map_task(name={fn!r})")
    terms = checked_policy(concurrency, min_success_ratio, fail_fast)
    retry = checked_retries(retries, retry_delay)

    @hides_internal_frames
    def decorate(fn: Callable[..., Any]) -> MapTask[Any]:
        task: MapTask[Any] = MapTask(
            fn, name=name, inputs=inputs, outputs=outputs, retry=retry, timeout=timeout_per_item
        )
        task.terms = terms
        registry.register(task, None)
        return task

    return decorate if fn is None else decorate(fn)
