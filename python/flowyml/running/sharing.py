"""What the steps of one run take together: its limits by name, as the core numbers them.

```
forms ──limits_of──▶ limits of the run, or those beside the ones that it has ──▶ Scheduler, Scheduler.graft
batch ──held_by────▶ tokens and devices by name          withhold ◀── what others hold, by name; see `left_behind.py`
```
"""

from __future__ import annotations

from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowyml.running.devices import Devices
from flowyml.running.left_behind import LeftBehind
from flowyml.steps.resources import Budget, budget, divided_of, is_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flowyml._core import Batch, Scheduler
    from flowyml.planning.forms import Form
    from flowyml.planning.layout import Layout
    from flowyml.steps.resources import Capacity


class Sharing:
    """The limits of a run.

    Args:
        capacity: What its executor has; `None` where one step runs at a time.
        layout: Which items each step has.

    Attributes:
        devices: Which devices its steps have, where they take some.
        left_behind: Notes steps that go on although they were given up; the executor has its own for all its runs.
        tokens_are_back: Is called, in whatever thread, when what such steps held is there again.
    """

    def __init__(self, capacity: Capacity | None, layout: Layout) -> None:
        """Have none yet."""
        self._capacity = capacity
        self._layout = layout
        self._numbers: dict[str, int] = {}
        self.devices = Devices(counted=capacity is not None)
        self.left_behind = LeftBehind()
        self.tokens_are_back: Callable[[], None] | None = None

    def limits_of(
        self, forms: Sequence[Form], problems: list[tuple[int, str]], *, special: bool, first: int = 0
    ) -> dict[str, Any]:
        """Return what running steps may take together, as the core takes it.

        Args:
            forms: How the steps were added: all that there are, or further ones.
            problems: Gets those that need more than there is.
            special: Whether some of them have options.
            first: The number of the first of them.
        """
        alone = {} if self._capacity is None else self._alone(forms, first)
        if not special and not alone:
            return {}
        options = [form.options for form in forms]
        before = len(self._numbers)
        limits = budget(options, self._capacity, alone, problems, numbers=self._numbers, first=first)
        if limits is None:
            return {}
        self.devices.enter(limits, before)
        return limits._asdict()

    @contextmanager
    def growing(self) -> Iterator[None]:
        """Forget the limits of further steps again if these are refused."""
        known = len(self._numbers)
        try:
            yield
        except BaseException:
            while len(self._numbers) > known:
                self._numbers.popitem()
            raise

    def _alone(self, forms: Sequence[Form], first: int) -> dict[int, int]:
        """Return for map tasks among these how many of their items may run at once, where they say so."""
        overs = ((node - first, forms[node - first].over) for node in self._layout.mapped if node >= first)
        terms = ((at, over.terms) for at, over in overs if over is not None and over.terms is not None)
        return {at: each.concurrency for at, each in terms if each.concurrency is not None}

    # -- what others hold

    @property
    def is_used(self) -> bool:
        """Whether its steps take anything."""
        return bool(self._numbers)

    def held_by(self, batch: Batch, scheduler: Scheduler) -> tuple[dict[str, int], dict[str, int]]:
        """Return what a batch takes of the executor, and on which devices: tokens by name."""
        names, (needs, devices) = list(self._numbers), scheduler.tokens(batch)
        amounts = {names[limit]: amount for limit, amount in needs if limit < len(names) and is_shared(names[limit])}
        return amounts, {self.devices.names[device]: amount for device, amount in devices}

    def withhold(
        self, amounts: Mapping[str, int], devices: Mapping[str, int], scheduler: Scheduler, *, grows: bool
    ) -> int | None:
        """Have the run do without what others hold; return the number of that, `None` if it needs nothing of it.

        Args:
            amounts: Tokens by name.
            devices: Tokens by name of the device.
            scheduler: The run's.
            grows: Steps may come that need what none needs yet.
        """
        limits, before = array("I"), len(self._numbers)
        divided = None
        if grows and self._capacity is not None:
            totals = self._capacity.totals()
            for name in amounts:
                if name in totals and name not in self._numbers:
                    divided = divided or divided_of(name, len(self._numbers))
                    self._numbers[name] = len(self._numbers)
                    limits.append(totals[name])
            self.devices.enter(Budget(limits, array("I"), [], divided), before)
        needs = [(self._numbers[name], amount) for name, amount in amounts.items() if name in self._numbers]
        if not needs:
            return None
        places = [
            (self.devices.names.index(name), each) for name, each in devices.items() if name in self.devices.names
        ]
        return scheduler.withhold(needs, places, limits=limits, divided=divided)
