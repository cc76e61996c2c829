"""What the step that a worker is in is told of itself, made when it asks; see `steps/context.py`.

```
worker ── run, message, devices, arguments ──▶ StepTeller ◀── step_context() ── the step, or whatever it calls
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.executors.process.protocol import wire
from flowyml.runtime import random_seeds

if TYPE_CHECKING:
    from flowyml._extension import WorkerCallLoop
    from flowyml.executors.process.worker.functions import FunctionTable
    from flowyml.steps.context import StepContext


class WorkerStepContext:
    """Tells the step that runs what it is.

    Args:
        caller: Knows the slot of the step.
        functions: The functions of the run.

    Attributes:
        run: The run whose steps are called.
        message: The slot of the first step of the message, and its groups.
        devices: Those of the steps of the message.
        arguments: Those of the step, where they had to be loaded.
    """

    def __init__(self, caller: WorkerCallLoop, functions: FunctionTable) -> None:
        self._caller = caller
        self._functions = functions
        self.run = wire.RunInfo("", "", None, 0.0, "", 0)
        self.message: tuple[int, list[wire.EncodedGroup]] = (0, [])
        self.devices: tuple[str, ...] = ()
        self.arguments: Any = None
        self._told: tuple[int, StepContext] | None = None

    def forget(self) -> None:
        """Let go of the step, which has ended."""
        self.arguments = self._told = None

    def end_message(self) -> None:
        """Let go of the message, whose steps have ended."""
        self.message, self._told = (0, []), None

    def step_context(self) -> StepContext | None:
        """Return the step that is running, the same object each time."""
        slot = self._caller.slot
        _, groups = self.message
        if slot is None or not groups:
            return None
        if self._told is None or self._told[0] != slot:
            self._told = (slot, self._describe(slot))
        return self._told[1]

    def _describe(self, slot: int) -> StepContext:
        from flowyml.steps.context import StepContext, by_name

        first_slot, groups = self.message
        position = slot - first_slot
        for group in groups:
            if position < len(group.calls):
                break
            position -= len(group.calls)
        run, names, first = self.run, group.names, group.first_index
        if isinstance(names, str) and first is None:
            names = names.split(wire.SEPARATOR)
        step = names[position] if first is None else f"{names}[{first + position}]"
        arguments = self.arguments if group.item_index == wire.LISTS else (group.calls[position],)
        return StepContext(
            run_id=run.run_id,
            pipeline_name=run.pipeline,
            step_name=step,
            index=None if first is None else first + position,
            attempt=group.attempts[position] if group.attempts else 1,
            params=by_name(self._functions.original(group.function), group.keywords, arguments),
            worker=run.worker,
            seed=None if run.seed is None else random_seeds.derived(run.seed, step),
            checkpoint_dir=run.checkpoint_dir,
            gpus=tuple(range(len(self.devices))),
            devices=self.devices,
        )
