"""Every exception that flowyml raises: one tree with one base.

```
FlowymlError
├── PipelineValidationError (ValueError)   a pipeline is not valid: all problems in one message
│   └── CycleError                         its only problem is a cycle
├── StepError                              a step failed: raised by raise_for_failure()
├── OutputMismatchError                    a return value does not fit the declared outputs
├── StepTimeoutError (TimeoutError)        a step exceeded its timeout
├── FanOutError                            the inputs of a mapped step are not lists of one length
├── MemoryLimitError (MemoryError)         a step exceeded its memory limit
├── MapTaskError                           too few items of a map task succeeded
├── WorkerLostError                        the worker process died while it ran a step
├── CircuitOpenError                       a call was refused by its circuit breaker
├── RemoteError                            replaces an exception of a worker that cannot be rebuilt
├── SerializationError                     a function, argument or result cannot be pickled
├── ValueLoadError                         a value arrived and cannot be loaded
├── MemoryBudgetError (MemoryError)        a value fits neither into memory nor on disk
├── StepNotRunError (LookupError)          the run does not have a requested value
├── ExecutorError (RuntimeError)           an executor cannot do its work
├── StoreError (RuntimeError)              a directory of cached values or journals cannot be used
└── GraphError (ValueError)                problems that the core found in a graph, as data
RemoteTraceback (Exception)                never raised: a worker's traceback as text, as `__cause__`
RunInterrupted (KeyboardInterrupt)         Ctrl-C ended a run; has the partial result
```

Each class takes its data as arguments, passes them to `Exception`, so that it pickles, and stores them as
attributes; its message is made of them in `__str__`. The module knows neither pipelines nor workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowyml.results.result import PipelineResult
    from flowyml.steps.map_task import MapTaskResult

__all__ = [
    "CircuitOpenError",
    "CycleError",
    "ExecutorError",
    "FanOutError",
    "FlowymlError",
    "GraphError",
    "MapTaskError",
    "MemoryBudgetError",
    "MemoryLimitError",
    "OutputMismatchError",
    "PipelineValidationError",
    "RemoteError",
    "RemoteTraceback",
    "RunInterrupted",
    "SerializationError",
    "StepError",
    "StepNotRunError",
    "StepTimeoutError",
    "StoreError",
    "ValueLoadError",
    "WorkerLostError",
    "describe_exit",
]


class FlowymlError(Exception):
    """Base of all errors of this package."""


class PipelineValidationError(FlowymlError, ValueError):
    """A pipeline is not valid; none of its steps has run.

    Args:
        problems: One sentence for each problem, in the order in which the steps were added. Steps of one line that are
            wrong in the same way share one, and of one kind of problem there are 20 at most: the last of them ends in
            ", and 39,980 others like it".
        pipeline: Name of the pipeline, if there is one.
    """

    def __init__(self, problems: Sequence[str], pipeline: str | None = None) -> None:
        super().__init__(problems, pipeline)
        self.problems: list[str] = list(problems)
        self.pipeline = pipeline

    def __str__(self) -> str:
        return "\n".join(["Pipeline validation failed:", *(f"  - {problem}" for problem in self.problems)])


class CycleError(PipelineValidationError):
    """A pipeline's only problem is a cycle.

    Args:
        problems: One sentence for each cycle.
        pipeline: Name of the pipeline, if there is one.
        cycle: Step names along the first cycle, the first repeated last (as in `graphlib.CycleError`).
    """

    def __init__(self, problems: Sequence[str], pipeline: str | None = None, cycle: Sequence[str] = ()) -> None:
        super().__init__(problems, pipeline)
        self.args = (problems, pipeline, cycle)
        self.cycle: list[str] = list(cycle)


class StepError(FlowymlError):
    """A step of a run failed; the step's own exception is the `__cause__`.

    Args:
        step_name: The step that failed first.
        state: Its final state.
        error: The text of its exception.
        others: How many other steps failed themselves, not because of a dependency.
    """

    def __init__(self, step_name: str, state: str, error: str | None, others: int = 0) -> None:
        super().__init__(step_name, state, error, others)
        self.step_name = step_name
        self.state = state
        self.error = error
        self.others = others

    def __str__(self) -> str:
        more = f" (and {self.others} more failed)" if self.others else ""
        return f"step {self.step_name!r} {self.state}: {self.error or 'no error text'}{more}"


class OutputMismatchError(FlowymlError):
    """A step returned something that does not fit its declared outputs.

    Args:
        step_name: The step.
        outputs: The declared output names.
        returned: A description of the return value ("3 values", "a dict without 'b'").
    """

    def __init__(self, step_name: str, outputs: Sequence[str], returned: str) -> None:
        super().__init__(step_name, outputs, returned)
        self.step_name = step_name
        self.outputs: list[str] = list(outputs)
        self.returned = returned

    def __str__(self) -> str:
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
        Exception.__init__(self, step_name, timeout)  # OSError would read an errno and a message
        self.step_name = step_name
        self.timeout = timeout

    def __str__(self) -> str:
        return f"step {self.step_name!r} took longer than its timeout of {self.timeout:g} s"


class FanOutError(FlowymlError):
    """A mapped step has no items: its inputs are not lists, or lists of different lengths.

    Args:
        step_name: The mapped step.
        reason: What was found, and which step produced it.
    """

    def __init__(self, step_name: str, reason: str) -> None:
        super().__init__(step_name, reason)
        self.step_name = step_name
        self.reason = reason

    def __str__(self) -> str:
        return f"step {self.step_name!r} cannot be mapped: {self.reason}"


class MemoryLimitError(FlowymlError, MemoryError):
    """A step took its worker process above the executor's `memory_limit`.

    Args:
        step_name: The step, or "name[index]" of an item.
        limit: Memory that a worker may use, in bytes.
        used: Memory that it used, in bytes.
    """

    def __init__(self, step_name: str, limit: int, used: int) -> None:
        super().__init__(step_name, limit, used)
        self.step_name = step_name
        self.limit = limit
        self.used = used

    def __str__(self) -> str:
        used, limit = format_size(self.used), format_size(self.limit)
        return f"step {self.step_name!r} took its worker process to {used} of memory, above the memory_limit of {limit}"


class MapTaskError(FlowymlError):
    """Too few items of a map task succeeded; the first error is the `__cause__`, if there is one.

    Args:
        step_name: The map task.
        successes: How many items succeeded.
        total: How many items there are.
        min_success_ratio: The share of the items that has to succeed.
        first: The first error, as text.

    Attributes:
        result: The results of its items.
    """

    result: MapTaskResult[Any] | None = None

    def __init__(self, step_name: str, successes: int, total: int, min_success_ratio: float, first: str) -> None:
        super().__init__(step_name, successes, total, min_success_ratio, first)
        self.step_name = step_name
        self.successes = successes
        self.total = total
        self.min_success_ratio = min_success_ratio
        self.first = first

    @property
    def success_ratio(self) -> float:
        """The share of the items that succeeded."""
        return self.successes / self.total if self.total else 1.0

    def __str__(self) -> str:
        return (
            f"map task {self.step_name!r}: {self.successes:,} of {self.total:,} items succeeded "
            f"({self.success_ratio:.1%}), at least {self.min_success_ratio:.1%} have to; first error: {self.first}"
        )


class WorkerLostError(FlowymlError):
    """The worker process died while it ran this step.

    Args:
        step_name: The step that was running.
        exitcode: Exit status of the process, negative for the number of a signal, `None` if it is not known.
        reason: Why the executor killed the process; `None` if it did not.
    """

    def __init__(self, step_name: str, exitcode: int | None, reason: str | None = None) -> None:
        super().__init__(step_name, exitcode, reason)
        self.step_name = step_name
        self.exitcode = exitcode
        self.reason = reason

    def __str__(self) -> str:
        how = self.reason or describe_exit(self.exitcode)
        return f"step {self.step_name!r} took its worker process down: {how}"


class CircuitOpenError(FlowymlError):
    """A circuit breaker refused a call, because the calls before it failed.

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
        super().__init__(breaker, failures, last, retry_after)  # not pickled: last_error
        self.breaker = breaker
        self.failures = failures
        self.last = last
        self.retry_after = retry_after
        self.last_error = last_error

    def __str__(self) -> str:
        when = f"in {self.retry_after:.1f} s" if self.retry_after else "under way"
        times = f"{self.failures} {'failure' if self.failures == 1 else 'failures in a row'}"
        return f"the circuit of {self.breaker!r} is open after {times}, the next trial is {when}; last: {self.last}"


class RemoteError(FlowymlError):
    """An exception of a worker that cannot be rebuilt in this process.

    Args:
        type_name: Module and qualified name of its class.
        text: Its message.
        traceback: The worker's traceback.

    Attributes:
        type_names: Names of its class and all base classes, if they are known.
    """

    def __init__(self, type_name: str, text: str, traceback: str) -> None:
        super().__init__(type_name, text, traceback)
        self.type_name = type_name
        self.type_names: tuple[str, ...] = (type_name,)
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


class SerializationError(FlowymlError):
    """A function, argument or result cannot be pickled, so it cannot go to or come from a worker process.

    Args:
        what: What was to be pickled ("the result of step 'a'").
        reason: The pickler's message, with the name of the variable if it is known.
        advice: What to do, apart from using threads.
    """

    def __init__(self, what: str, reason: str, advice: str = "create it inside the step") -> None:
        super().__init__(what, reason, advice)
        self.what = what
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.what} cannot be pickled: {self.reason}; {self.advice}, or use backend='thread'"


class ValueLoadError(FlowymlError):
    """A value was delivered and cannot be loaded; the loader's own error is the `__cause__` if it is known.

    Args:
        producer: Name of the step (or "argument 'x' of step 'a'") that the value comes from.
        reason: The loader's message.
    """

    def __init__(self, producer: str, reason: str) -> None:
        super().__init__(producer, reason)
        self.producer = producer
        self.reason = reason

    def __str__(self) -> str:
        return f"the value of {self.producer} does not load: {self.reason}"


class MemoryBudgetError(FlowymlError, MemoryError):
    """A value could not be stored: the executor's `memory_budget` is used up, and so is the disk.

    Args:
        size: Size of the value in bytes.
        reason: Why it could not be written to disk.
    """

    def __init__(self, size: int, reason: str) -> None:
        super().__init__(size, reason)
        self.size = size
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"a value of {format_size(self.size)} has no room: the memory_budget is used up, and it cannot be spilled"
            f" to disk ({self.reason}); choose another directory by TMPDIR, or free values earlier by keep="
        )


class StepNotRunError(FlowymlError, LookupError):
    """The run does not have the requested value.

    Args:
        name: The step, item or asset.
        reason: Its state, or why the value is gone.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name} has no value: {self.reason}"


class ExecutorError(FlowymlError, RuntimeError):
    """An executor cannot do its work (no worker starts, its helper process was killed, it is shut down).

    Attributes:
        result: The partial result, if the error ended a run (see `RunInterrupted`).
    """

    result: PipelineResult | None = None


class StoreError(FlowymlError, RuntimeError):
    """A directory of cached values or of journals cannot be used.

    Args:
        path: The directory or file.
        reason: Why, and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class GraphError(FlowymlError, ValueError):
    """The problems that the core found in a graph, as data; `planning/plan.py` makes sentences of them.

    Args:
        problems: Tuples such as `("cycle", [0, 2, 0])`; `flowyml._core.Graph` lists them.
    """

    def __init__(self, problems: Sequence[tuple[Any, ...]]) -> None:
        super().__init__(problems)
        self.problems: list[tuple[Any, ...]] = list(problems)


class RemoteTraceback(Exception):  # noqa: N818  it is not an error, it shows where one was raised
    """The traceback of an exception that was raised in a worker process.

    Args:
        text: The formatted traceback, with its source lines.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a run; its workers have exited, the values of finished steps are kept.

    Args:
        result: The partial result: finished steps with their values, all others cancelled.
    """

    def __init__(self, result: PipelineResult | None = None) -> None:
        super().__init__("the run was interrupted; .result has the finished steps")
        self.result = result


def describe_exit(exitcode: int | None) -> str:
    """Describe a process's exit status.

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
