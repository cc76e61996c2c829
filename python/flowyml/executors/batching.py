"""How many steps one worker takes at once.

One step a message is right for steps of a millisecond and hopeless for steps of a microsecond, so the size follows
the measured time of a step: as many as fill the target time, never more than a fair share of what is ready (so that
the last ones spread over all workers), and growing at most fourfold at a time, since the first steps may not be like
the rest. What was measured first is the mean to begin with.
"""

from __future__ import annotations

# A fair share is 1/_SHARES of what each worker would get: small enough that workers end together.
_SHARES = 4
_GROWTH = 4
# Weight of the newest batch in the running mean of the step time.
_NEWEST = 0.3
_LONG = 0.001


class BatchSizer:
    """Follows the measured step time of one run.

    Args:
        target: Seconds of work that one batch should hold.
        most: The most steps of a batch.

    >>> sizer = BatchSizer(target=0.001, most=1000)
    >>> sizer.limit(ready=10_000, workers=2)
    1
    >>> for _ in range(5):
    ...     sizer.observe(count=1, seconds=1e-6)
    >>> sizer.limit(ready=10_000, workers=2), sizer.limit(ready=12, workers=2)
    (1000, 1)
    """

    __slots__ = ("_grown", "_mean", "_most", "_target")

    def __init__(self, target: float, most: int) -> None:
        """Start with one step at a time."""
        self._target = target
        self._most = most
        self._mean: float | None = None
        self._grown = 1

    @property
    def grown(self) -> int:
        """How many steps fill a batch."""
        return min(self._grown, self._most)

    def limit(self, ready: int, workers: int) -> int:
        """Return how many steps to take when `ready` are ready."""
        share = ready // (_SHARES * workers)
        return max(1, min(self._grown, share, self._most))

    @property
    def is_long(self) -> bool:
        """Whether steps take a millisecond or more, or nobody knows yet."""
        return self._mean is None or self._mean >= _LONG

    def observe(self, count: int, seconds: float) -> None:
        """Take in how long a batch of `count` steps took."""
        time = seconds / count
        self._mean = time if self._mean is None else self._mean + _NEWEST * (time - self._mean)
        fitting = int(self._target / self._mean) if self._mean > 0 else self._most
        self._grown = max(1, min(fitting, _GROWTH * self._grown))
