"""`ParallelExecutor(initializer=)`: a function that is called once in each worker before its first step.

Name and semantics are those of `concurrent.futures`. An exception of the initializer ends the run; it is not the
failure of a step.
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
    """The state of this process.

    Attributes:
        is_initializing: It is a worker in its initializer.
    """

    is_initializing = False


def refuse_nested(initializer: Callable[[], object] | None) -> None:
    """Refuse process workers that call an initializer to one that is in its own.

    A run on its own executor would start workers that do the same, recursively.

    Raises:
        ExecutorError: If this process is one.
    """
    if initializer is not None and _ProcessState.is_initializing:
        raise ExecutorError(
            "an initializer cannot run a pipeline on a process executor that has an initializer: its workers would "
            "call that in their turn, and so on; use an executor without one, or backend='thread'"
        )


def checked_initializer(initializer: Any) -> Callable[[], object] | None:
    """Return the initializer.

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
    """Return the error of a run whose initializer raised an exception."""
    from flowyml.results.error_text import error_line  # takes milliseconds; few runs need it

    failed = ExecutorError(f"the initializer of the workers raised {truncate(error_line(error))}")
    failed.__cause__ = error
    return failed
