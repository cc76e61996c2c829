"""parallel_map: one function over many items, in parallel, results in input order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from flowyml._words import unknown_keywords
from flowyml.executors.parallel import ParallelExecutor, checked_backend, checked_workers
from flowyml.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flowyml.result import PipelineResult

T = TypeVar("T")
R = TypeVar("R")


@overload
def parallel_map(
    fn: Callable[[T], R],
    items: Iterable[T],
    max_workers: int | None = None,
    backend: Literal["process", "thread"] = "thread",
    *,
    on_error: Literal["raise"] = "raise",
    num_workers: int | None = None,
) -> list[R]: ...
@overload
def parallel_map(
    fn: Callable[[T], R],
    items: Iterable[T],
    max_workers: int | None = None,
    backend: Literal["process", "thread"] = "thread",
    *,
    on_error: Literal["return"],
    num_workers: int | None = None,
) -> list[R | BaseException]: ...
def parallel_map(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    max_workers: int | None = None,
    backend: Literal["process", "thread"] = "thread",
    *,
    on_error: Literal["raise", "return"] = "raise",
    num_workers: int | None = None,
    **unknown: object,
) -> list[Any]:
    """Call a function once for each item, in parallel.

    Args:
        fn: The function, of one argument.
        items: Any iterable; it is read at once.
        max_workers: How many workers; by default the usable CPUs, inside a step the worker's share of them.
        backend: "thread" or "process".
        on_error: "raise" the first error and cancel the rest, or "return" exceptions in the place of results.
        num_workers: Another name of `max_workers`.
        **unknown: Nothing else is known.

    Returns:
        The results in input order.

    Raises:
        Exception: The first error of `fn`, with `on_error="raise"`: on threads the very object, from a process with the
            worker's traceback as its cause.

    >>> parallel_map(str.upper, ["a", "b"], max_workers=2)
    ['A', 'B']
    """
    if unknown:
        raise TypeError(unknown_keywords("parallel_map()", unknown, ("max_workers", "backend", "on_error")))
    if on_error not in {"raise", "return"}:
        raise ValueError(f'on_error must be "raise" or "return", got {on_error!r}')
    workers = checked_workers(num_workers if max_workers is None else max_workers)
    pipeline = Pipeline("parallel_map").map(fn, items, name="item")
    with ParallelExecutor(workers, checked_backend(backend)) as executor:  # type: ignore[arg-type]
        return _collect(pipeline.run_quietly(executor, fail_fast=on_error == "raise"), on_error)


def _collect(result: PipelineResult, on_error: str) -> list[Any]:
    if result.success:
        return list(result["item"])
    each = result.step_results["item"].items
    errors = sorted((item for item in each if item.exception), key=lambda item: (item.started_at, item.step_name))
    if on_error == "raise":
        raise errors[0].exception  # type: ignore[misc]
    return [item.output if item.success else item.exception for item in each]
