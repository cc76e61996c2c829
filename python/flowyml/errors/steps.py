"""How a step fails, beside what it raises itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.errors.root import FlowymlError
from flowyml.sizes import in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowyml.steps.tasks import MapTaskResult


class StepError(FlowymlError):
    """A step of a run failed; the step's own exception is the `__cause__`.

    Args:
        step_name: The step that failed first.
        state: Its final state.
        error: The text of its exception.
        others: How many more steps failed on their own account.
    """

    def __init__(self, step_name: str, state: str, error: str | None, others: int = 0) -> None:
        """Keep what failed."""
        super().__init__(step_name, state, error, others)
        self.step_name = step_name
        self.state = state
        self.error = error
        self.others = others

    def __str__(self) -> str:
        """Name the step, its state and its error."""
        more = f" (and {self.others} more failed)" if self.others else ""
        return f"step {self.step_name!r} {self.state}: {self.error or 'no error text'}{more}"


class OutputMismatchError(FlowymlError):
    """A step returned something that does not fit its declared outputs.

    Args:
        step_name: The step.
        outputs: The declared output names.
        returned: What came back, in words ("3 values", "a dict without 'b'").
    """

    def __init__(self, step_name: str, outputs: Sequence[str], returned: str) -> None:
        """Keep both sides of the mismatch."""
        super().__init__(step_name, outputs, returned)
        self.step_name = step_name
        self.outputs: list[str] = list(outputs)
        self.returned = returned

    def __str__(self) -> str:
        """Say both sides and what would fit."""
        return (
            f"step {self.step_name!r} declared {len(self.outputs)} outputs {self.outputs} "
            f"but returned {self.returned}; "
            f"return a tuple or list of {len(self.outputs)} values, or a dict with these keys"
        )


class StepTimeoutError(FlowymlError, TimeoutError):
    """A step took longer than its `timeout`.

    Args:
        step_name: The step, or "name[index]" of an item.
        timeout: Its limit in seconds.
    """

    def __init__(self, step_name: str, timeout: float) -> None:
        """Keep the step and its limit; an `errno` would mean nothing here."""
        Exception.__init__(self, step_name, timeout)
        self.step_name = step_name
        self.timeout = timeout

    def __str__(self) -> str:
        """Name step and limit."""
        return f"step {self.step_name!r} took longer than its timeout of {self.timeout:g} s"


class FanOutError(FlowymlError):
    """A mapped step has no items: what it was to run over turned out to be no list, or lists of different lengths.

    Args:
        step_name: The mapped step.
        reason: What was found, and which step produced it.
    """

    def __init__(self, step_name: str, reason: str) -> None:
        """Keep the step and the reason."""
        super().__init__(step_name, reason)
        self.step_name = step_name
        self.reason = reason

    def __str__(self) -> str:
        """Name the step and what was found."""
        return f"step {self.step_name!r} cannot be mapped: {self.reason}"


class MemoryLimitError(FlowymlError, MemoryError):
    """A step took its worker process above the executor's `memory_limit`.

    Args:
        step_name: The step, or "name[index]" of an item.
        limit: What a worker may have for itself, in bytes.
        used: What it had.
    """

    def __init__(self, step_name: str, limit: int, used: int) -> None:
        """Keep the step and both amounts."""
        super().__init__(step_name, limit, used)
        self.step_name = step_name
        self.limit = limit
        self.used = used

    def __str__(self) -> str:
        """Name the step and both amounts."""
        used, limit = in_words(self.used), in_words(self.limit)
        return f"step {self.step_name!r} took its worker process to {used} of memory, above the memory_limit of {limit}"


class MapTaskError(FlowymlError):
    """Too few items of a map task succeeded; the first error is the `__cause__`, where there is one.

    Args:
        step_name: The map task.
        successes: How many items succeeded.
        total: How many there are.
        min_success_ratio: The part that had to succeed.
        first: The first error, as text.

    Attributes:
        result: What came of its items.
    """

    result: MapTaskResult[Any] | None = None

    def __init__(self, step_name: str, successes: int, total: int, min_success_ratio: float, first: str) -> None:
        """Keep the numbers."""
        super().__init__(step_name, successes, total, min_success_ratio, first)
        self.step_name = step_name
        self.successes = successes
        self.total = total
        self.min_success_ratio = min_success_ratio
        self.first = first

    @property
    def success_ratio(self) -> float:
        """The part of the items that succeeded."""
        return self.successes / self.total if self.total else 1.0

    def __str__(self) -> str:
        """Say both ratios and the first error."""
        return (
            f"map task {self.step_name!r}: {self.successes:,} of {self.total:,} items succeeded "
            f"({self.success_ratio:.1%}), at least {self.min_success_ratio:.1%} have to; first error: {self.first}"
        )


class WorkerLostError(FlowymlError):
    """The worker process died while it ran this step.

    Args:
        step_name: The step that was running.
        exitcode: Exit status of the process, negative for the number of a signal, `None` where it is not known.
        reason: Why the executor ended the process; `None` if it did not.
    """

    def __init__(self, step_name: str, exitcode: int | None, reason: str | None = None) -> None:
        """Keep the step and how its process ended."""
        super().__init__(step_name, exitcode, reason)
        self.step_name = step_name
        self.exitcode = exitcode
        self.reason = reason

    def __str__(self) -> str:
        """Name the step, and the reason, signal or exit code."""
        how = self.reason or describe_exit(self.exitcode)
        return f"step {self.step_name!r} took its worker process down: {how}"


class CircuitOpenError(FlowymlError):
    """A call was refused: what it would call has failed too often; the last failure is the `__cause__` by hand.

    Args:
        breaker: Name of the circuit breaker.
        failures: How many calls failed in a row.
        last: The last failure in one line.
        retry_after: Seconds until the next trial; 0 while one is under way.
        last_error: The last failure.
    """

    def __init__(
        self, breaker: str, failures: int, last: str, retry_after: float, last_error: BaseException | None = None
    ) -> None:
        """Keep the data; the exception itself does not travel."""
        super().__init__(breaker, failures, last, retry_after)
        self.breaker = breaker
        self.failures = failures
        self.last = last
        self.retry_after = retry_after
        self.last_error = last_error

    def __str__(self) -> str:
        """Name the breaker, the last failure and when the next trial is."""
        when = f"in {self.retry_after:.1f} s" if self.retry_after else "under way"
        times = f"{self.failures} {'failure' if self.failures == 1 else 'failures in a row'}"
        return f"the circuit of {self.breaker!r} is open after {times}, the next trial is {when}; last: {self.last}"


class RemoteError(FlowymlError):
    """An exception was raised in a worker and cannot be rebuilt here; this one stands for it.

    Args:
        type_name: Module and qualified name of its class.
        text: What `str()` of it was.
        traceback: The worker's traceback.

    Attributes:
        type_names: Names of its class and all base classes, where they are known.
    """

    def __init__(self, type_name: str, text: str, traceback: str) -> None:
        """Keep what is known of the exception."""
        super().__init__(type_name, text, traceback)
        self.type_name = type_name
        self.type_names: tuple[str, ...] = (type_name,)
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        """Say what the exception said, after the name of its class."""
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


class RemoteTraceback(Exception):  # noqa: N818  it is no error, it tells where one was raised
    """The traceback of an exception that was raised in a worker process.

    Args:
        text: The formatted traceback, with its source lines.
    """

    def __init__(self, text: str) -> None:
        """Keep the text."""
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """Return the text, set off from the traceback that it is printed in."""
        return f'\n"""\n{self.text.rstrip()}\n"""'


def describe_exit(exitcode: int | None) -> str:
    """Put a process's exit status into words.

    Args:
        exitcode: As in `subprocess.Popen.returncode`: negative for a signal.

    Returns:
        For example "killed by SIGKILL (9)" or "exit code 3".

    >>> describe_exit(-11)
    'killed by SIGSEGV (11)'
    """
    import signal

    if exitcode is None:
        return "it ended in an unknown way"
    if exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = "signal"
    return f"killed by {name} ({-exitcode})"
