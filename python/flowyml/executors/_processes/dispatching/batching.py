"""How many steps one worker takes at once.

One step a message is right for steps of a second and hopeless for steps of a microsecond, so the size follows
the measured time of a step: as many as fill the target time, never more than a fair share of what is ready (so that
the last ones spread over all workers), and growing at most sixteenfold at a time, since the first steps may not be like
the rest: those of a batch that was cut too large are taken back. What was measured first is the mean to begin with.

A share is not cut smaller than what a message is worth: the last of 20,000 steps of 20 us went one by one, each with
two wake-ups that took longer than the step. Where steps wait for others that is less, what the wake-ups themselves
take: few are ready at one time, and each may let many others begin. Steps of a millisecond and more go one by one
there; a chain of them goes in one piece, as far as it fills the target time, since each of its steps waits only for the
one before it.
"""

from __future__ import annotations

# A fair share is this part of what each worker would get: small enough that workers end together.
_SHARES, _SHARES_OF_LOOSE = 4, 2
_GROWTH = 16
# Seconds of work that are worth a message, where no step waits for another, and where some do.
_LEAST_OF_LOOSE, _LEAST = 0.0005, 0.0001
# Weight of the newest batch in the running mean of the step time.
_NEWEST = 0.3
_LONG = 0.001


class BatchSizer:
    """Follows the measured step time of one run.

    Args:
        target: Seconds of work that one batch should hold.
        most: The most steps of a batch.
        loose: No step waits for another.

    >>> sizer = BatchSizer(target=0.001, most=1000)
    >>> sizer.limit(ready=10_000, workers=2)
    1
    >>> for _ in range(3):
    ...     sizer.observe(count=1, seconds=1e-6)
    >>> sizer.limit(ready=10_000, workers=2), sizer.limit(ready=12, workers=2)
    (1000, 12)
    """

    __slots__ = ("_grown", "_least", "_loose", "_mean", "_most", "_shares", "_target", "_worth")

    def __init__(self, target: float, most: int, *, loose: bool = False) -> None:
        self._loose = loose
        self._shares, self._worth = (_SHARES_OF_LOOSE, _LEAST_OF_LOOSE) if loose else (_SHARES, _LEAST)
        self._target = target
        self._most = most
        self._mean: float | None = None
        self._grown = self._least = 1

    @property
    def grown(self) -> int:
        """How many steps fill a batch, whatever waits beside them: as many a chain may have."""
        return min(self._grown, self._most)

    def limit(self, ready: int, workers: int) -> int:
        """Return how many steps to take when `ready` are ready."""
        share = max(ready // (self._shares * workers), self._least)
        return 1 if self.is_long and not self._loose else max(1, min(self._grown, share, ready, self._most))

    @property
    def is_long(self) -> bool:
        """Whether steps take a millisecond or more, or nobody knows yet."""
        return self._mean is None or self._mean >= _LONG

    def are_brief(self, count: int) -> bool:
        """Tell whether so many steps take no longer together than the message that brings them."""
        return self._mean is not None and count * self._mean <= _LEAST

    def seconds(self, count: int) -> float:
        """Return how long so many steps take, as far as is known."""
        return 0.0 if self._mean is None else count * self._mean

    def observe(self, count: int, seconds: float) -> None:
        """Take in how long a batch of `count` steps took."""
        time = seconds / count
        self._mean = time if self._mean is None else self._mean + _NEWEST * (time - self._mean)
        self._grown = max(1, min(self._fitting(self._target), _GROWTH * self._grown))
        self._least = self._fitting(self._worth)

    def _fitting(self, seconds: float) -> int:
        return max(1, int(seconds / self._mean)) if self._mean else self._most
