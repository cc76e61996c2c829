"""What is called once in each worker before its first step: `ParallelExecutor(initializer=)`.

The name and the sense are those of `concurrent.futures`. What it raises is no step's failure: it ends the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import truncate
from flowyml.errors import ExecutorError
from flowyml.steps.coroutines import is_coroutine_function
from flowyml.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable


class _ProcessState:
    """What is known of this process.

    Attributes:
        is_initializing: It is a worker in its initializer.
    """

    is_initializing = False


def refuse_nested(initializer: Callable[[], object] | None) -> None:
    """Refuse process workers that call an initializer to one that is in its own.

    What it runs on its own executor would begin with workers that do the same, in each other without end.

    Raises:
        ExecutorError: If this process is one.
    """
    if initializer is not None and _ProcessState.is_initializing:
        raise ExecutorError(
            "an initializer cannot run a pipeline on a process executor that has an initializer: its workers would "
            "call that in their turn, and so on; use an executor without one, or backend='thread'"
        )


def checked_initializer(initializer: Any) -> Callable[[], object] | None:
    """Return what is called in each worker.

    Raises:
        TypeError: If it cannot be called, or is a coroutine function.
    """
    if initializer is None:
        return None
    if not callable(initializer):
        raise TypeError(f"initializer must be a function without arguments or None, got {initializer!r:.60}")
    if is_coroutine_function(initializer):
        raise TypeError(f"initializer must be a plain function, got the coroutine function {initializer!r:.60}")
    found: Callable[[], object] = initializer
    return found


def too_large(limit: int, size: int) -> ExecutorError:
    """Return the error of a run whose workers take more memory, in bytes, than they may before they begin a step."""
    return ExecutorError(
        f"a worker process took {format_size(size)} of memory before its first step, above the memory_limit of "
        f"{format_size(limit)}; what modules and the initializer take counts: raise the limit, or let them take less"
    )


def initializer_failed(error: BaseException) -> ExecutorError:
    """Return the error of a run for what an initializer has raised."""
    from flowyml.results.error_text import error_line  # takes milliseconds; few runs need it

    failed = ExecutorError(f"the initializer of the workers raised {truncate(error_line(error))}")
    failed.__cause__ = error
    return failed
