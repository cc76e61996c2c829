"""parallel_map: one function over many items, in parallel, results in input order."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from flowyml.authoring.validation import checked_progress
from flowyml.diagnostics.text import unknown_keyword_message
from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.errors import ValueLoadError
from flowyml.executors.parallel_executor import ParallelExecutor, checked_backend, checked_workers
from flowyml.launch import run_plain
from flowyml.pipeline import Pipeline
from flowyml.steps.timeout import checked_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta
    from typing import TypedDict, Unpack

    from flowyml.progress import Progress
    from flowyml.results.result import PipelineResult
    from flowyml.results.step_result import StepResult

    class _Keywords(TypedDict, total=False):
        num_workers: int | None
        chunksize: int | Literal["auto"]
        timeout: float | timedelta | None
        progress: bool | Callable[[Progress], object] | None


T = TypeVar("T")
R = TypeVar("R")

_KEYWORDS = ("max_workers", "backend", "on_error", "num_workers", "chunksize", "timeout", "progress")


@overload
def parallel_map(
    fn: Callable[[T], R],
    items: Iterable[T],
    max_workers: int | None = None,
    backend: Literal["process", "thread", "async"] = "thread",
    *,
    on_error: Literal["raise"] = "raise",
    **options: Unpack[_Keywords],
) -> list[R]: ...
@overload
def parallel_map(
    fn: Callable[[T], R],
    items: Iterable[T],
    max_workers: int | None = None,
    backend: Literal["process", "thread", "async"] = "thread",
    *,
    on_error: Literal["return"],
    **options: Unpack[_Keywords],
) -> list[R | BaseException]: ...
@hides_internal_frames
def parallel_map(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    max_workers: int | None = None,
    backend: Literal["process", "thread", "async"] = "thread",
    *,
    on_error: Literal["raise", "return"] = "raise",
    num_workers: int | None = None,
    chunksize: int | Literal["auto"] = "auto",
    timeout: float | timedelta | None = None,
    progress: bool | Callable[[Progress], object] | None = None,
    **unknown: object,
) -> list[Any]:
    """Call a function once for each item, in parallel.

    Args:
        fn: The function, of one argument; a step or anything callable.
        items: Any iterable; it is read at once.
        max_workers: How many workers; by default the usable CPUs, inside a step the worker's share of them.
        backend: "thread", "process" or "async"; see `ParallelExecutor`.
        on_error: "raise" the first error (in time) and cancel the rest, or "return" exceptions in the place of results.
        num_workers: Another name of `max_workers`.
        chunksize: The most items that a worker takes at once. "auto": as many as are worth a message, by the time that
            they are measured to take: at most 50 ms of work, and idle workers steal items that wait behind a long one.
        timeout: Seconds (or a `timedelta`) that the call for one item may take; see `Step`.
        progress: Show how many items are done, as `Pipeline.run` does.
        **unknown: Nothing else is known.

    Returns:
        The results in input order.

    Raises:
        TypeError, ValueError: For a wrong argument; nothing has run.
        Exception: The first error of `fn`, with `on_error="raise"`: on threads the very object, from a process with the
            worker's traceback as its cause; a `StepTimeoutError` if it took too long. A note names the item.

    >>> parallel_map(str.upper, ["a", "b"], max_workers=2)
    ['A', 'B']
    """
    if unknown:
        raise TypeError(unknown_keyword_message("parallel_map()", unknown, _KEYWORDS))
    if max_workers is not None and num_workers is not None:
        raise TypeError("num_workers is another name of max_workers; give one of them")
    if on_error not in {"raise", "return"}:
        raise ValueError(f'on_error must be "raise" or "return", got {on_error!r}')
    workers = checked_workers(num_workers if max_workers is None else max_workers, checked_backend(backend))
    limit = None if timeout is None else checked_seconds("timeout", timeout)
    max_batch_size = _checked_chunksize(chunksize)
    pipeline = Pipeline("parallel_map").map(fn, _listed(items), name="item", timeout=limit)
    with ParallelExecutor(workers, backend) as executor:
        observer = checked_progress(progress)
        fail_fast = on_error == "raise"
        result = run_plain(pipeline, executor, fail_fast=fail_fast, observer=observer, max_batch_size=max_batch_size)
        return _collect(result, on_error)


def _checked_chunksize(chunksize: Any) -> int | None:
    if chunksize == "auto":
        return None
    if isinstance(chunksize, bool) or not isinstance(chunksize, int):
        raise TypeError(f'chunksize must be a whole number or "auto", got {type(chunksize).__name__} {chunksize!r:.60}')
    if chunksize < 1:
        raise ValueError(f'chunksize must be at least 1, got {chunksize}; "auto" takes what is worth a message')
    return chunksize


def _listed(items: Any) -> Sequence[Any]:
    if isinstance(items, range):
        return items
    try:
        iterator = iter(items)
    except TypeError:
        raise TypeError(
            f"parallel_map() takes an iterable of items, got {type(items).__name__} {items!r:.40}"
        ) from None
    return list(iterator)


def _collect(result: PipelineResult, on_error: str) -> list[Any]:
    values = result["item"]
    if result.success and on_error == "raise":
        return list(values)
    failed = result.failed
    if on_error == "raise":
        raise _noted(min(failed, key=_ended_at))
    errors = {item.index: item.exception for item in failed}
    return [errors[index] if index in errors else _loaded(values, index) for index in range(len(values))]


def _noted(item: StepResult) -> BaseException:
    """Return the exception of an item, with a note that names the item."""
    exception, note = item.exception, f"raised for item {item.index} of parallel_map()"
    assert exception is not None  # noqa: S101  it is one of those that failed
    with contextlib.suppress(Exception):  # an exception that takes no notes
        if note not in getattr(exception, "__notes__", ()):  # one object may be raised many times
            exception.add_note(note)
    return exception


def _ended_at(item: StepResult) -> float:
    return (item.started_at.timestamp() if item.started_at else math.inf) + item.duration_seconds


def _loaded(values: Sequence[Any], index: int) -> Any:
    try:
        return values[index]
    except ValueLoadError as error:
        return error
