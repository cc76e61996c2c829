"""What the steps of one run take together: its limits by name, as the core numbers them.

```
forms ──limits_of──▶ limits of the run, or those beside the ones that it has ──▶ Scheduler, Scheduler.graft
```
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowyml.running.devices import Devices
from flowyml.steps.resources import budget

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    """

    def __init__(self, capacity: Capacity | None, layout: Layout) -> None:
        self._capacity = capacity
        self._layout = layout
        self._numbers: dict[str, int] = {}
        self.devices = Devices(counted=capacity is not None)

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
