"""The resources, tags and devices that the steps of one run share, as the core numbers them.

```
specs ──limits_of──▶ limits of the run, or further ones for inserted steps ──▶ Scheduler, Scheduler.graft
limits ──enter──▶ DeviceTable: names      Batch.devices: which of them ──▶ get_context().gpu, .devices
```

The core assigns devices with the tokens of "gpu". If steps share a process, no environment variable can hide the
devices of other steps: this is logged once a run.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowyml.steps.resources import GPU, budget, device_count, named, present

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flowyml._core import Batch
    from flowyml.planning.item_index import ItemIndex
    from flowyml.planning.step_spec import StepSpec
    from flowyml.steps.resources import Capacity, HasResources, SchedulerLimits


_log = logging.getLogger("flowyml")


class DeviceTable:
    """The devices of a run.

    Args:
        counted: The executor counts what its steps take; else one step runs at a time and has the first devices.

    Attributes:
        names: Their names, by number; none in a run whose steps take none.
    """

    def __init__(self, *, counted: bool) -> None:
        self.names: tuple[str, ...] = ()
        self._counted = counted
        self._shared = self._some_are_left = self._warned = False

    def enter(self, limits: SchedulerLimits, before: int) -> None:
        """Take over limits of the run, which has so many already."""
        if limits.divided is None:
            return
        limit = limits.divided[0]
        self.names = named(device_count(limits.limits[limit - before]))
        amounts = [amount for needs in limits.classes for number, amount in needs if number == limit]
        self._note(amounts)
        if self._shared:
            self._warn()

    def share(self) -> None:
        """Note that all steps run in one process."""
        self._shared = True
        self._warn()

    def of(self, batch: Batch, options: HasResources) -> tuple[int, ...]:
        """Return the numbers of the devices that a step of a batch has, in this process."""
        if self._counted:
            return tuple(batch.devices) if self.names else ()
        amount = dict(options.resources).get(GPU, 0)
        if not amount:
            return ()
        self.names = named(present())
        self._note([amount])
        self._warn()
        return tuple(range(min(device_count(amount), len(self.names))))

    def _note(self, amounts: Iterable[int]) -> None:
        self._some_are_left = any(device_count(amount) < len(self.names) for amount in amounts)

    def _warn(self) -> None:
        if self._some_are_left and not self._warned:
            self._warned = True
            _log.warning(
                "steps take some of %d devices and run in one process, where libraries see all of them: a step finds "
                "its own by get_context().gpu (in a worker process it sees no others: use "
                'ParallelExecutor(backend="process")); this is said once a run',
                len(self.names),
            )


class ResourceLimits:
    """The limits of a run.

    Args:
        capacity: The resources of the executor; `None` if it runs one step at a time.
        item_index: Which items each step has.

    Attributes:
        devices: The devices that steps take.
    """

    def __init__(self, capacity: Capacity | None, item_index: ItemIndex) -> None:
        self._capacity = capacity
        self._item_index = item_index
        self._numbers: dict[str, int] = {}
        self.devices = DeviceTable(counted=capacity is not None)

    def limits_of(
        self, specs: Sequence[StepSpec], problems: list[tuple[int, str]], *, special: bool, first: int = 0
    ) -> dict[str, Any]:
        """Return what running steps may take together, as the core takes it.

        Args:
            specs: How the steps were added: all that there are, or further ones.
            problems: Gets the steps that need more than is available.
            special: Whether some of them have options.
            first: The number of the first of them.
        """
        alone = {} if self._capacity is None else self._alone(specs, first)
        if not special and not alone:
            return {}
        options = [spec.options for spec in specs]
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

    def _alone(self, specs: Sequence[StepSpec], first: int) -> dict[int, int]:
        """Return how many items of a map task may run at once, for those with `concurrency=`."""
        overs = ((node - first, specs[node - first].map_input) for node in self._item_index.mapped if node >= first)
        terms = ((at, over.terms) for at, over in overs if over is not None and over.terms is not None)
        return {at: each.concurrency for at, each in terms if each.concurrency is not None}
