"""The devices of one run: what they are called, and which of them a step has.

```
Budget ──enter──▶ names        Batch.devices: which of them ──▶ get_context().gpu, .devices
```

The core gives them out with the tokens of "gpu". Where steps share a process, so that no variable can hide the devices
of others, that is said once a run.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flowyml.steps.devices import named, present
from flowyml.steps.resources import GPU, device_count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowyml._core import Batch
    from flowyml.steps.resources import Budget, Demanding

_log = logging.getLogger("flowyml")


class Devices:
    """The devices of a run.

    Args:
        counted: The executor counts what its steps take; else one step runs at a time and has the first devices.

    Attributes:
        names: What they are called, by number; none in a run whose steps take none.
    """

    def __init__(self, *, counted: bool) -> None:
        self.names: tuple[str, ...] = ()
        self._counted = counted
        self._shared = self._some_are_left = self._warned = False

    def enter(self, limits: Budget, before: int) -> None:
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
        """Take in that its steps run in one process."""
        self._shared = True
        self._warn()

    def of(self, batch: Batch, options: Demanding) -> tuple[int, ...]:
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
