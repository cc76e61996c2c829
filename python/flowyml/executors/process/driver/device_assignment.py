"""Which worker gets which step in a run whose steps take devices.

```
a step that takes devices ──▶ an idle worker that has just these ──▶ a new worker, which has them from now on
                                    └── none: who has them and has nothing to do ends first ──▶ another fill
any other step            ──▶ a worker without devices, else a new one, else one that has some
```

A library looks for devices once, so a worker has the same ones for its life, and gets them before its first step: one
that has run other steps ends for it when there may be no more workers. The core says what can be had (tokens); here it
is seen to that a device that a step takes whole is no other worker's: whoever has it and idles ends first, whoever is
in a step that takes none is waited for. Parts of a device are shared, by workers that have it each.

Nothing of this is asked in a run whose steps take no device.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flowyml.steps.resources import split_devices, variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flowyml.executors.process.driver.backend import WorkerTeam
    from flowyml.executors.process.driver.worker_handle import WorkerHandle
    from flowyml.runtime.run import Run


class DeviceAssigner:
    """Gives out the steps of one run.

    Args:
        team: The workers.
        run: The run; its steps take devices.
        assign: Gives a worker what it can claim now; tells whether there was something.
        hire: Starts another worker, if there may be one.
    """

    def __init__(
        self,
        team: WorkerTeam,
        run: Run,
        assign: Callable[[WorkerHandle], bool],
        hire: Callable[[], WorkerHandle | None],
    ) -> None:
        self._team = team
        self._run = run
        self._assign = assign
        self._hire = hire
        self._numbers = {name: number for number, name in enumerate(run.device_names)}

    @property
    def useful(self) -> int:
        """How many steps could be given to workers now, with as many workers."""
        scheduler = self._run.scheduler
        free = sum(scheduler.free_on_devices())
        return sum(min(ready, free // amount) if amount else ready for amount, ready in scheduler.device_needs())

    def fill(self) -> None:
        """Give idle workers all that they can be given, the most urgent first, then others a second batch."""
        while any(self._give(amount) for amount, _ in self._run.scheduler.device_needs()):
            pass
        if not self._run.single_item_batches:
            for member in self._team.members:
                if len(member.postings) == 1 and not member.devices and self._team.has_use_for(member):
                    self._assigned(member, 0, ())

    def is_idle(self, member: WorkerHandle) -> bool:
        """Tell whether a worker can be given steps and has none."""
        return not member.postings and self._team.has_use_for(member)

    def _assigned(self, member: WorkerHandle, amount: int, devices: Iterable[int]) -> bool:
        """Give a worker steps that take so many tokens of devices, on these."""
        self._run.scheduler.choose((amount, list(devices)))
        return self._assign(member)

    def _give(self, amount: int) -> bool:
        """Give one worker steps that take so many tokens of devices; tell whether one got some."""
        if amount:
            return self._give_devices(amount)
        idle = [member for member in self._team.members if self.is_idle(member)]
        idle.sort(key=lambda member: (bool(member.devices), member.is_new))
        return any(self._assigned(member, 0, ()) for member in idle)

    def _give_devices(self, amount: int) -> bool:
        whole, part = split_devices(amount)
        free = self._run.scheduler.free_on_devices()
        blocked: list[list[WorkerHandle]] = []
        for member in self._team.members:
            devices = self._numbered(member)
            if devices and len(devices) == whole + bool(part) and self.is_idle(member):
                alone = sorted(devices, key=free.__getitem__)[bool(part) :]
                others = [other for device in alone for other in self._holders(device) if other is not member]
                if not others and self._assigned(member, amount, devices):
                    return True
                if others and all(map(self.is_idle, others)):
                    blocked.append(others)
        chosen = self._choose(whole, part, free)
        if chosen is not None and not chosen[1]:
            return self._give_new(amount, chosen[0])
        blocked += [] if chosen is None else [chosen[1]]
        for member in blocked[0] if blocked else ():
            self._team.retire(member)
        return False

    def _give_new(self, amount: int, devices: list[int]) -> bool:
        """Give devices to a worker that has run nothing yet, and steps with them."""
        member = self._new_member()
        if member is None:
            return False
        names = self._run.device_names
        member.devices = tuple(names[device] for device in devices)
        member.setting = (variable(), ",".join(member.devices))
        if self._assigned(member, amount, devices):
            return True
        member.devices, member.setting = (), None
        return False

    def _new_member(self) -> WorkerHandle | None:
        """Return a worker that has run nothing yet; where there may be no more, one that idles ends for it."""
        idle = [member for member in self._team.members if self.is_idle(member)]
        new = next((member for member in idle if member.is_new), None) or self._hire()
        if new is None and idle and self._team.is_complete:
            self._team.retire(min(idle, key=lambda member: len(member.devices)))
            new = self._hire()
        return new

    def _choose(self, whole: int, part: int, free: list[int]) -> tuple[list[int], list[WorkerHandle]] | None:
        """Return devices for a worker that has none, and the workers that end for it; `None` while there are none."""
        costs = {device: self._cost(device) for device in range(len(free))}
        shared: list[int] = []
        if part:
            fitting = [device for device in costs if free[device] >= part and self._cost_of_part(device) < math.inf]
            # Not the last one that is free whole, if another does.
            fitting.sort(key=lambda device: (self._cost_of_part(device), free[device], device))
            shared = fitting[:1]
        alone = [device for device in costs if self._is_whole(free[device]) and device not in shared]
        alone = sorted((device for device in alone if costs[device] < math.inf), key=lambda device: costs[device])
        if len(alone) < whole or (part and not shared):
            return None
        alone = alone[:whole]
        ending = {id(member): member for device in alone for member in self._holders(device)}
        ending |= {id(member): member for device in shared for member in self._in_the_way(device)}
        return sorted([*alone, *shared]), list(ending.values())

    def _cost(self, device: int) -> float:
        """Return how many workers end for it that a device is another's alone; `inf` while that has to wait."""
        holders = self._holders(device)
        return len(holders) if all(map(self.is_idle, holders)) else math.inf

    def _cost_of_part(self, device: int) -> float:
        ending = any(not member.serves for member in self._holders(device))
        return math.inf if ending else len(self._in_the_way(device))

    def _in_the_way(self, device: int) -> list[WorkerHandle]:
        """Return the idle workers that have a device with others: it would be theirs alone again."""
        return [each for each in self._holders(device) if len(each.devices) > 1 and self.is_idle(each)]

    def _holders(self, device: int) -> list[WorkerHandle]:
        """Return the workers that have a device, also those that are about to end."""
        name = self._run.device_names[device]
        return [member for member in self._team.members if name in member.devices]

    def _numbered(self, member: WorkerHandle) -> list[int]:
        """Return the devices of a worker by number; none if it has others than this run knows."""
        numbers = [self._numbers.get(name, -1) for name in member.devices]
        return [] if -1 in numbers else numbers

    @staticmethod
    def _is_whole(free: int) -> bool:
        return split_devices(free) == (1, 0)
