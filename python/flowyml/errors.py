"""Every exception that flowyml raises, in one tree with one base.

```
FlowymlError
├── PipelineValidationError (ValueError)   a pipeline that cannot run: all problems in one message
│   └── CycleError                         ... and the only problem is a cycle
├── StepError                              a step failed: raised by raise_for_failure()
├── OutputMismatchError                    a step returned something else than its declared outputs
├── StepTimeoutError (TimeoutError)        a step was over its time
├── FanOutError                            what a mapped step was to run over is no list, or no two alike
├── MemoryLimitError (MemoryError)          a step took more memory than its worker may have
├── MapTaskError                           too few items of a map task succeeded
├── WorkerLostError                        the process that ran a step died in it
├── CircuitOpenError                       a step was not started: its circuit breaker is open
├── RemoteError                            stands for an exception of a worker that cannot be rebuilt here
├── SerializationError                     a function, argument or result does not pickle
├── ValueLoadError                         a value arrived and does not load
├── StepNotRunError (LookupError)          a value is asked for and there is none
├── ExecutorError (RuntimeError)           an executor cannot do its work
├── StoreError (RuntimeError)              a folder of cached values or journals cannot be used
└── GraphError (ValueError)                what the core found wrong; the plan puts it into words
RemoteTraceback (Exception)                never raised: the `__cause__` of what was raised in a worker, as text
RunInterrupted (KeyboardInterrupt)         Ctrl-C ended a run; carries the partial result
```

The module knows nothing of pipelines or workers. Each class takes its data as arguments, keeps it as attributes and
builds its message from it, so that it pickles and a message is written in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.sizes import in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowyml.results.result import PipelineResult
    from flowyml.steps.tasks import MapTaskResult


class FlowymlError(Exception):
    """Base of all errors of this package."""


class PipelineValidationError(FlowymlError, ValueError):
    """A pipeline is not valid; nothing of it has run.

    Args:
        problems: One sentence for each problem, in the order in which the steps were added.
        pipeline: Name of the pipeline, if there is one.
    """

    def __init__(self, problems: Sequence[str], pipeline: str | None = None) -> None:
        """Keep the problems and say them all in the message."""
        super().__init__(problems, pipeline)
        self.problems: list[str] = list(problems)
        self.pipeline = pipeline

    def __str__(self) -> str:
        """Return the headline and one line for each problem."""
        return "\n".join(["Pipeline validation failed:", *(f"  - {problem}" for problem in self.problems)])


class CycleError(PipelineValidationError):
    """A pipeline's only problem is a cycle.

    Args:
        problems: One sentence for each cycle.
        pipeline: Name of the pipeline, if there is one.
        cycle: Step names along the first cycle, the first repeated last (as in `graphlib.CycleError`).
    """

    def __init__(self, problems: Sequence[str], pipeline: str | None = None, cycle: Sequence[str] = ()) -> None:
        """Keep the path beside the problems."""
        super().__init__(problems, pipeline)
        self.args = (problems, pipeline, cycle)
        self.cycle: list[str] = list(cycle)


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


class MemoryBudgetError(FlowymlError, MemoryError):
    """A value found no room: the executor's `memory_budget` is used up, and the disk does not take it.

    Args:
        size: The bytes of the value.
        reason: Why the disk does not take it.
    """

    def __init__(self, size: int, reason: str) -> None:
        """Keep the size and the reason."""
        super().__init__(size, reason)
        self.size = size
        self.reason = reason

    def __str__(self) -> str:
        """Say what has no room, and where."""
        return (
            f"a value of {in_words(self.size)} has no room: the memory_budget is used up, and the folder for spilled"
            f" values does not take it ({self.reason}); TMPDIR chooses another, keep= lets values go earlier"
        )


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
    """

    def __init__(self, step_name: str, exitcode: int | None) -> None:
        """Keep the step and how its process ended."""
        super().__init__(step_name, exitcode)
        self.step_name = step_name
        self.exitcode = exitcode

    def __str__(self) -> str:
        """Name step and signal or exit code."""
        return f"step {self.step_name!r} took its worker process down: {describe_exit(self.exitcode)}"


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


class SerializationError(FlowymlError):
    """A function, argument or result cannot be pickled, so it cannot go to or come from a worker process.

    Args:
        what: What was to be pickled ("the result of step 'a'").
        reason: The pickler's own words, with the name of the variable where it is known.
        advice: What to do, beside going to threads.
    """

    def __init__(self, what: str, reason: str, advice: str = "create it inside the step") -> None:
        """Keep the parts of the message."""
        super().__init__(what, reason, advice)
        self.what = what
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        """Say what does not pickle, why, and what to do."""
        return f"{self.what} cannot be pickled: {self.reason}; {self.advice}, or use backend='thread'"


class ValueLoadError(FlowymlError):
    """A value was delivered and cannot be loaded; the loader's own error is the `__cause__` where it is known.

    Args:
        producer: Name of the step (or "argument 'x' of step 'a'") that the value comes from.
        reason: The loader's own words.
    """

    def __init__(self, producer: str, reason: str) -> None:
        """Keep where the value comes from."""
        super().__init__(producer, reason)
        self.producer = producer
        self.reason = reason

    def __str__(self) -> str:
        """Name the producer."""
        return f"the value of {self.producer} does not load: {self.reason}"


class StepNotRunError(FlowymlError, LookupError):
    """A value is asked for that the run does not have.

    Args:
        name: The step, item or asset.
        reason: Its state, or why the value is gone.
    """

    def __init__(self, name: str, reason: str) -> None:
        """Keep the name and the reason."""
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        """Say which value is missing, and why."""
        return f"{self.name} has no value: {self.reason}"


class ExecutorError(FlowymlError, RuntimeError):
    """An executor cannot do its work (no worker starts, its helper process was killed, it is shut down).

    Attributes:
        result: Where that ended a run: its partial result, as `RunInterrupted` has it.
    """

    result: PipelineResult | None = None


class StoreError(FlowymlError, RuntimeError):
    """A folder of cached values or of journals cannot be used.

    Args:
        path: The folder or file.
        reason: Why, and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        """Keep both."""
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        """Name the folder or file."""
        return f"{self.path} {self.reason}"


class GraphError(FlowymlError, ValueError):
    """What the core found wrong with a graph, as data; `planning/plan.py` puts it into words.

    Args:
        problems: Tuples such as `("cycle", [0, 2, 0])`; `flowyml._core.Graph` lists them.
    """

    def __init__(self, problems: Sequence[tuple[Any, ...]]) -> None:
        """Keep the problems."""
        super().__init__(problems)
        self.problems: list[tuple[Any, ...]] = list(problems)


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


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a run; workers are gone, what was finished is kept.

    Args:
        result: The partial result: finished steps with their values, all others cancelled.
    """

    def __init__(self, result: PipelineResult | None = None) -> None:
        """Keep the partial result."""
        super().__init__("the run was interrupted; .result holds what was finished")
        self.result = result


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
