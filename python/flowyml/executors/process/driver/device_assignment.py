"""Assigns steps to workers in a run whose steps use devices.

```
a step that uses devices ──▶ an idle worker with exactly these ──▶ a new worker, which keeps them
                                    └── none: idle workers that hold them exit first ──▶ next assign_batches
any other step           ──▶ a worker without devices, else a new one, else one with devices
```

Libraries look for devices once, so a worker keeps its devices for life and gets them before its first step; an idle
worker that has run other steps exits for it if no more workers may be started. The scheduler decides which devices can
be claimed (tokens). This module sees to it that a device that a step uses whole belongs to no other worker: idle
holders exit, busy ones are waited for. Fractions of a device are shared by workers that each hold it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flowyml.steps.resources import split_devices, variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flowyml.executors.process.driver.backend import ProcessBackend
    from flowyml.executors.process.driver.worker_handle import WorkerHandle
    from flowyml.runtime.run import Run


class DeviceAssigner:
    """Assigns the steps of one run.

    Args:
        backend: The workers.
        run: The run.
        assign: Assigns a worker what it can claim now; returns whether there was something.
        start_worker: Starts another worker, if there may be one.
    """

    def __init__(
        self,
        backend: ProcessBackend,
        run: Run,
        assign: Callable[[WorkerHandle], bool],
        start_worker: Callable[[], WorkerHandle | None],
    ) -> None:
        self._backend = backend
        self._run = run
        self._assign = assign
        self._start_missing_workers = start_worker
        self._numbers = {name: number for number, name in enumerate(run.device_names)}

    @property
    def useful(self) -> int:
        """How many steps could start now, given enough workers."""
        scheduler = self._run.scheduler
        free = sum(scheduler.free_on_devices())
        return sum(min(ready, free // amount) if amount else ready for amount, ready in scheduler.device_needs())

    def assign_batches(self) -> None:
        """Assign idle workers all steps that can start, the most urgent first, then second batches."""
        while any(self._give(amount) for amount, _ in self._run.scheduler.device_needs()):
            pass
        if not self._run.single_item_batches:
            for worker in self._backend.workers:
                if len(worker.batches) == 1 and not worker.devices and self._backend.can_take_steps(worker):
                    self._assigned(worker, 0, ())

    def is_idle(self, worker: WorkerHandle) -> bool:
        """Return True if a worker has no steps and may be assigned some."""
        return not worker.batches and self._backend.can_take_steps(worker)

    def _assigned(self, worker: WorkerHandle, amount: int, devices: Iterable[int]) -> bool:
        """Assign a worker steps that need so many tokens, on these devices."""
        self._run.scheduler.choose((amount, list(devices)))
        return self._assign(worker)

    def _give(self, amount: int) -> bool:
        if amount:
            return self._give_devices(amount)
        idle = [worker for worker in self._backend.workers if self.is_idle(worker)]
        idle.sort(key=lambda worker: (bool(worker.devices), worker.is_new))
        return any(self._assigned(worker, 0, ()) for worker in idle)

    def _give_devices(self, amount: int) -> bool:
        whole, part = split_devices(amount)
        free = self._run.scheduler.free_on_devices()
        blocked: list[list[WorkerHandle]] = []
        for worker in self._backend.workers:
            devices = self._numbered(worker)
            if devices and len(devices) == whole + bool(part) and self.is_idle(worker):
                alone = sorted(devices, key=free.__getitem__)[bool(part) :]
                others = [other for device in alone for other in self._holders(device) if other is not worker]
                if not others and self._assigned(worker, amount, devices):
                    return True
                if others and all(map(self.is_idle, others)):
                    blocked.append(others)
        chosen = self._choose(whole, part, free)
        if chosen is not None and not chosen[1]:
            return self._give_new(amount, chosen[0])
        blocked += [] if chosen is None else [chosen[1]]
        for worker in blocked[0] if blocked else ():
            self._backend.retire_worker(worker)
        return False

    def _give_new(self, amount: int, devices: list[int]) -> bool:
        worker = self._new_worker()
        if worker is None:
            return False
        names = self._run.device_names
        worker.devices = tuple(names[device] for device in devices)
        worker.device_variable = (variable(), ",".join(worker.devices))
        if self._assigned(worker, amount, devices):
            return True
        worker.devices, worker.device_variable = (), None
        return False

    def _new_worker(self) -> WorkerHandle | None:
        """Return a worker that has run nothing yet; an idle one exits for it if necessary."""
        idle = [worker for worker in self._backend.workers if self.is_idle(worker)]
        new = next((worker for worker in idle if worker.is_new), None) or self._start_missing_workers()
        if new is None and idle and self._backend.is_complete:
            self._backend.retire_worker(min(idle, key=lambda worker: len(worker.devices)))
            new = self._start_missing_workers()
        return new

    def _choose(self, whole: int, part: int, free: list[int]) -> tuple[list[int], list[WorkerHandle]] | None:
        """Return devices for a new worker, and the workers that must exit first; `None` if there are none now."""
        costs = {device: self._cost(device) for device in range(len(free))}
        shared: list[int] = []
        if part:
            fitting = [device for device in costs if free[device] >= part and self._cost_of_part(device) < math.inf]
            # Prefer a device that is not the last whole one.
            fitting.sort(key=lambda device: (self._cost_of_part(device), free[device], device))
            shared = fitting[:1]
        alone = [device for device in costs if self._is_whole(free[device]) and device not in shared]
        alone = sorted((device for device in alone if costs[device] < math.inf), key=lambda device: costs[device])
        if len(alone) < whole or (part and not shared):
            return None
        alone = alone[:whole]
        ending = {id(worker): worker for device in alone for worker in self._holders(device)}
        ending |= {id(worker): worker for device in shared for worker in self._in_the_way(device)}
        return sorted([*alone, *shared]), list(ending.values())

    def _cost(self, device: int) -> float:
        """Return how many workers must exit so that a device is free; `inf` if one of them is busy."""
        holders = self._holders(device)
        return len(holders) if all(map(self.is_idle, holders)) else math.inf

    def _cost_of_part(self, device: int) -> float:
        ending = any(not worker.accepts_work for worker in self._holders(device))
        return math.inf if ending else len(self._in_the_way(device))

    def _in_the_way(self, device: int) -> list[WorkerHandle]:
        """Return the idle workers that hold a device together with others, which they would keep."""
        return [each for each in self._holders(device) if len(each.devices) > 1 and self.is_idle(each)]

    def _holders(self, device: int) -> list[WorkerHandle]:
        """Return the workers that hold a device, also those that are about to exit."""
        name = self._run.device_names[device]
        return [worker for worker in self._backend.workers if name in worker.devices]

    def _numbered(self, worker: WorkerHandle) -> list[int]:
        """Return the devices of a worker by index; none if the run does not know one of them."""
        numbers = [self._numbers.get(name, -1) for name in worker.devices]
        return [] if -1 in numbers else numbers

    @staticmethod
    def _is_whole(free: int) -> bool:
        return split_devices(free) == (1, 0)
