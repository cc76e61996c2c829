"""A value that does not travel, does not load, finds no room or is not there."""

from __future__ import annotations

from flowyml.errors.root import FlowymlError
from flowyml.sizes import in_words


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
