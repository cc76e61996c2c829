"""Map tasks: how many items of a mapped step may fail, and the result of all of them.

```
@map_task(...) ──▶ MapTaskPolicy ──▶ run: how many failures the step survives, how many items at once, when to stop
items          ──▶ MapTaskResult: the values, and the errors of the items without one
```

The module knows neither pipelines nor runs; `map_tasks.py` makes steps of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flowyml._containers import LazySequence, NamedTuple
from flowyml.steps.retry import ExponentialBackoff, RetryConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

R_co = TypeVar("R_co", covariant=True)

NOT_RUN = "did not run: a step before it failed"
# 0.9 of 10 items is 9, not 9.000000000000002.
_ROUNDING = 1e-9


class MapTaskPolicy(NamedTuple):
    """The options of a map task that apply to all its items together.

    Attributes:
        concurrency: Maximum number of items that run at once; `None`: as many as the executor has workers.
        min_success_ratio: The fraction of the items that must succeed.
        fail_fast: Whether the first failure ends all of it.
    """

    concurrency: int | None = None
    min_success_ratio: float = 1.0
    fail_fast: bool = False

    def non_defaults(self) -> dict[str, object]:
        """Return the options that differ from their defaults."""
        pairs = zip(self._fields, self, MapTaskPolicy(), strict=True)
        return {name: value for name, value, without in pairs if value != without}

    def max_failures(self, total: int) -> int:
        """Return how many of so many items may fail.

        >>> (
        ...     MapTaskPolicy(min_success_ratio=0.9).max_failures(10),
        ...     MapTaskPolicy(min_success_ratio=0.5).max_failures(3),
        ...     MapTaskPolicy().max_failures(10),
        ... )
        (1, 1, 0)
        """
        if self.fail_fast:
            return 0
        return total - math.ceil(total * self.min_success_ratio - _ROUNDING)


class MapTaskResult(LazySequence[R_co]):
    """The result of a map task: a sequence of the values of the items that succeeded, in item order.

    Values are loaded when they are read. It compares equal to any sequence of equal values.

    Attributes:
        total: How many items there were.
        successes: How many of them have a value.
        failures: How many failed, or could not run because what they are made of failed.
        errors: By index, the error of each item that failed, as text.

    >>> from flowyml import map_task
    >>> @map_task(min_success_ratio=0.5)
    ... def reciprocal(x):
    ...     return 1 / x
    >>> done = reciprocal([1, 0, 4])
    >>> list(done), done.results, done.success_ratio
    ([1.0, 0.25], [1.0, None, 0.25], 0.6666666666666666)
    >>> done.errors
    {1: 'ZeroDivisionError: division by zero'}
    """

    __slots__ = ("_load", "_places", "_values", "errors", "failures", "total")

    def __init__(
        self,
        values: Sequence[Any],
        places: Sequence[int],
        errors: Mapping[int, str],
        total: int,
        load: Callable[[Any], Any] | None = None,
    ) -> None:
        """Keep the values, with the index of each; `load` makes the object of one."""
        self._values = values
        self._places = places
        self._load = load
        self.errors: dict[int, str] = dict(errors)
        self.failures: int = len(self.errors)
        self.total: int = total

    @property
    def successes(self) -> int:
        """How many items have a value."""
        return len(self._values)

    @property
    def success_ratio(self) -> float:
        """The part of the items that has succeeded; skipped ones do not count."""
        counted = self.successes + self.failures
        return self.successes / counted if counted else 1.0

    @property
    def results(self) -> list[R_co | None]:
        """One entry an item, `None` for those without a value."""
        results: list[R_co | None] = [None] * self.total
        for place, value in zip(self._places, self, strict=True):
            results[place] = value
        return results

    @property
    def successful_results(self) -> list[R_co]:
        """The values of the items that succeeded."""
        return list(self)

    def __len__(self) -> int:
        """Return how many items have a value."""
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> R_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[R_co]: ...
    def __getitem__(self, index: Any) -> Any:
        """Return one of the values, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self._loaded(value) for value in self._values[index]]
        return self._loaded(self._values[index])

    def _loaded(self, value: Any) -> Any:
        return value if self._load is None else self._load(value)

    def __repr__(self) -> str:
        """Show how many succeeded; values are not loaded for it."""
        return f"<MapTaskResult: {self.successes:,} of {self.total:,} items succeeded>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle encoded values if any process can load them, else the objects."""
        if hasattr(self._load, "__self__"):
            return MapTaskResult, (list(self), list(self._places), self.errors, self.total)
        return MapTaskResult, (list(self._values), list(self._places), self.errors, self.total, self._load)


def map_task_result(
    values: Sequence[Any],
    present: Sequence[object],
    error: Callable[[int], str | None],
    load: Callable[[Any], Any] | None = None,
) -> MapTaskResult[Any]:
    """Return the result of all items.

    Args:
        values: One entry for each item.
        present: Whether the item has a value.
        error: Returns the error of an item without a value as a string, `None` if the item has not failed.
        load: Makes the object of an entry.
    """
    if all(present):
        return MapTaskResult(values, range(len(present)), {}, len(present), load)
    places = [place for place, has in enumerate(present) if has]
    missing = (place for place, has in enumerate(present) if not has)
    errors = {place: text for place in missing if (text := error(place)) is not None}
    return MapTaskResult([values[place] for place in places], places, errors, len(present), load)


def encoded_values(result: MapTaskResult[Any]) -> Sequence[Any]:
    """Return the values in the form in which they are stored."""
    return result._values  # noqa: SLF001  of this module


def checked_policy(concurrency: Any, min_success_ratio: Any, fail_fast: Any) -> MapTaskPolicy:
    """Return the policy of a map task."""
    if concurrency is not None and (isinstance(concurrency, bool) or not isinstance(concurrency, int)):
        raise TypeError(f"concurrency must be a whole number or None, got {concurrency!r:.60}")
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, got {concurrency}")
    if isinstance(min_success_ratio, bool) or not isinstance(min_success_ratio, (int, float)):
        raise TypeError(f"min_success_ratio must be a number from 0 to 1, got {min_success_ratio!r:.60}")
    if not 0 <= min_success_ratio <= 1:
        raise ValueError(f"min_success_ratio must be from 0 to 1, got {min_success_ratio}")
    if not isinstance(fail_fast, bool):
        raise TypeError(f"fail_fast must be True or False, got {fail_fast!r:.60}")
    return MapTaskPolicy(concurrency, float(min_success_ratio), fail_fast)


def checked_retries(retries: Any, delay: Any) -> RetryConfig | None:
    """Return further attempts of an item, each after the same delay."""
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"retries must be a whole number, got {retries!r:.60}")
    if isinstance(delay, bool) or not isinstance(delay, (int, float)):
        raise TypeError(f"retry_delay must be a number of seconds, got {delay!r:.60}")
    if retries < 0 or not 0 <= delay < math.inf:
        raise ValueError(f"retries and retry_delay must not be below 0, got {retries} and {delay}")
    backoff = ExponentialBackoff(delay, max_delay=delay, multiplier=1.0, jitter=False) if delay else None
    return RetryConfig(retries + 1, backoff) if retries else None
