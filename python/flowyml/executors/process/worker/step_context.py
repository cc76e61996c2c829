"""The context of the current step of a worker, created when it calls `get_context()`; see `steps/context.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.executors.process.protocol import wire
from flowyml.runtime import random_seeds

if TYPE_CHECKING:
    from flowyml._extension import WorkerCallLoop
    from flowyml.executors.process.worker.functions import FunctionTable
    from flowyml.steps.context import StepContext


class WorkerStepContext:
    """Provides the context of the current step.

    Attributes:
        run: The run whose steps are called.
        message: The slot of the first step of the message, and its groups.
        devices: The devices of the steps of the message.
        arguments: The arguments of the step, if they had to be loaded.
    """

    def __init__(self, caller: WorkerCallLoop, functions: FunctionTable) -> None:
        self._caller = caller
        self._functions = functions
        self.run = wire.RunInfo("", "", None, 0.0, "", 0)
        self.message: tuple[int, list[wire.EncodedGroup]] = (0, [])
        self.devices: tuple[str, ...] = ()
        self.arguments: Any = None
        self._reported: tuple[int, StepContext] | None = None

    def forget(self) -> None:
        """Drop the step, which has ended."""
        self.arguments = self._reported = None

    def end_message(self) -> None:
        """Drop the message, whose steps have ended."""
        self.message, self._reported = (0, []), None

    def step_context(self) -> StepContext | None:
        """Return the context of the current step, the same object each time."""
        slot = self._caller.slot
        _, groups = self.message
        if slot is None or not groups:
            return None
        if self._reported is None or self._reported[0] != slot:
            self._reported = (slot, self._describe(slot))
        return self._reported[1]

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
        arguments = self.arguments if group.layout == wire.LISTS else (group.calls[position],)
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
