"""How often the items of one run were tried, and what a failure of one is followed by.

```
failure ──▶ another attempt, after a delay ──▶ its fallback, at once ──▶ for good
```

It counts only where somebody asks for more than one attempt. It knows neither executors nor what a final failure costs.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from flowyml.results.traceback import error_line
from flowyml.running import seeding

if TYPE_CHECKING:
    import random
    from collections.abc import Container, Sequence

    from flowyml._core import Scheduler
    from flowyml.planning.layout import Layout
    from flowyml.planning.plan import Plan


class Trials:
    """The attempts of all items.

    Args:
        plan: What the steps ask for.
        layout: Which items belong to which step.
        node_of: The step of each item.
        scheduler: Tells whether the run is cancelled.
        seed: Makes the spread of delays reproducible.

    Attributes:
        fallen: What the steps raised in whose place their fallback is called, by item.
        refused: How often items have failed without having been begun: their circuit was open.
    """

    def __init__(
        self, plan: Plan, layout: Layout, node_of: Sequence[int], scheduler: Scheduler, seed: int | None
    ) -> None:
        self._plan, self._layout, self._node_of = plan, layout, node_of
        self._scheduler, self._seed = scheduler, seed
        self._failed: dict[int, int] = {}
        self.refused: Counter[int] = Counter()
        self.fallen: dict[int, BaseException] = {}

    def delay(self, item: int, error: BaseException) -> float | None:
        """Count a failure; return the seconds until the item, or its fallback, is started, `None` if it is for good."""
        node = self._node_of[item]
        options = self._plan.forms[node].options
        retry, attempts = options.retry, 0
        if item in self.fallen:
            _note_fallback(error, self.fallen[item])
            return None
        if retry is not None:
            attempts = self._failed[item] = self.failed(item) + 1
        if self._scheduler.cancelled:
            return None
        if retry is not None and retry.wants(error, attempts):
            return retry.delay(attempts, self._jitter(item, attempts))
        if options.falls_back_on(error) and not self._plan.is_expanded(node):  # what it would be given is gone then
            self.fallen[item] = error
            return 0.0
        return None

    @property
    def some_failed(self) -> bool:
        """Whether some attempt was counted as failed: until then each item is in its first."""
        return bool(self._failed)

    def failed(self, item: int) -> int:
        """Return how many attempts of an item have failed, where that is counted."""
        return self._failed.get(item, 0)

    def current(self, item: int) -> int:
        """Return which attempt of an item is running, or would be the next: 1 is the first."""
        failed = self.failed(item) - self.refused[item]
        return max(1, failed) if item in self.fallen else failed + 1

    def made(self, item: int, failures: Container[int]) -> int:
        """Return how often an item that has ended was started, its fallback not counted.

        Args:
            item: The item.
            failures: The items that have failed for good.
        """
        failed = self.failed(item)
        ends = max(1, failed) if item in failures or item in self.fallen else failed + 1
        return ends - self.refused[item]

    def spend(self, item: int, attempts: int) -> None:
        """Count attempts that an item has made in an earlier run, which this one continues."""
        if self._plan.forms[self._node_of[item]].options.retry is not None:
            self._failed[item] = attempts

    def _jitter(self, item: int, attempt: int) -> random.Random | None:
        """Return what spreads the delay after an attempt; `None` where nobody wants it reproducible."""
        if self._seed is None:
            return None
        import random

        name = self._plan.item_name(*self._layout.place_of(item))
        return random.Random(seeding.derived(self._seed, name, attempt))  # noqa: S311


def _note_fallback(error: BaseException, first: BaseException) -> None:
    """Say in the exception of a fallback what it stood in for; it may be the same one again."""
    if error is not first:
        error.add_note(f"raised by the fallback, which stood in for: {error_line(first)}")
