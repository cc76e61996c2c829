"""Step specs: what was added to a pipeline.

```
add_step(step, name, params, inputs=...) ──▶ StepSpec (shared by steps that were added alike) + name + row + reads
```

Steps that were added in the same way share one `StepSpec`: a fan-out of a million has one. What differs from step to
step is stored in columns next to the specs: the values of `params` (a row), and the input names if every input is a
plain name (the reads). Where parameters get their values from is decided in `binding.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.steps.cache_policy import OFF
from flowyml.steps.options import NO_OPTIONS, StepOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType

    from flowyml.planning.map_inputs import MapInput
    from flowyml.planning.namespaces import Namespace
    from flowyml.steps.declarations import Inputs
    from flowyml.steps.step import Step


class SourceLocation(NamedTuple):
    """Where a step was added: resolved to file and line only when a message needs it."""

    code: CodeType
    instruction: int

    @property
    def line(self) -> int:
        """The line number."""
        for start, end, line in self.code.co_lines():
            if start <= self.instruction < end and line is not None:
                return line
        return self.code.co_firstlineno

    def __str__(self) -> str:
        """Return "file:line"."""
        return f"{self.code.co_filename}:{self.line}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as text: code does not pickle."""
        return str, (str(self),)


class StepSpec:
    """How steps were added; shared by those that were added alike.

    A plain class, as `sub_pipelines.SubPipeline` is.

    Attributes:
        step: The step.
        keys: Names of the parameters that `params` gives.
        place: Where it was added first.
        inputs: Declared inputs; where steps have reads of their own, those of the first step.
        outputs: Declared outputs; in a sub-pipeline, behind its prefix.
        after: Steps to wait for.
        map_input: What a mapped step runs over.
        options: How it is run.
        within: The sub-pipeline that it is part of, where its names are looked up.
        base: The spec from which this one differs in its outputs only, or this spec itself. Steps whose specs have the
            same base are bound alike.
    """

    __slots__ = ("after", "base", "inputs", "keys", "map_input", "options", "outputs", "place", "step", "within")

    def __init__(
        self,
        step: Step[..., Any],
        keys: tuple[str, ...],
        place: SourceLocation,
        *,
        inputs: Inputs | None = None,
        outputs: tuple[str, ...] = (),
        after: tuple[str, ...] = (),
        map_input: MapInput | None = None,
        options: StepOptions = NO_OPTIONS,
        within: Namespace | None = None,
    ) -> None:
        self.step, self.keys, self.place = step, keys, place
        self.inputs, self.outputs, self.after = inputs, outputs, after
        self.map_input, self.options, self.within = map_input, options, within
        self.base = self

    def replace(self, **changes: Any) -> StepSpec:
        """Return the same with other attributes."""
        made = object.__new__(StepSpec)
        for name in self.__slots__:
            setattr(made, name, changes[name] if name in changes else getattr(self, name))
        made.base = made
        return made

    def with_outputs(self, outputs: tuple[str, ...]) -> StepSpec:
        """Return the same spec with other outputs, as many as this one has."""
        made = object.__new__(StepSpec)
        made.step, made.keys, made.place = self.step, self.keys, self.place
        made.inputs, made.outputs, made.after = self.inputs, outputs, self.after
        made.map_input, made.options, made.within = self.map_input, self.options, self.within
        made.base = self.base
        return made

    @property
    def has_single_param(self) -> bool:
        """Whether `params` gives one value, which is stored in the rows without a tuple; see `StepColumns`."""
        return len(self.keys) == 1

    def pack_row(self, values: tuple[Any, ...]) -> Any:
        """Return the values of `params` as they are stored in the rows."""
        return values[0] if len(self.keys) == 1 else values

    def unpack_row(self, packed: Any) -> tuple[Any, ...]:
        """Return the values of `params` as a tuple, from what is stored in the rows."""
        return (packed,) if len(self.keys) == 1 else packed

    @property
    def parts(self) -> tuple[str, ...]:
        """The declared outputs as the step declares them."""
        if self.within is None:
            return self.outputs
        return tuple(output.removeprefix(self.within.prefix) for output in self.outputs)

    @property
    def several(self) -> tuple[str, ...]:
        """The names that split the return value: the declared outputs if there are two or more."""
        if len(self.outputs) > 1:
            return self.outputs if self.within is None else self.parts
        return ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all that a step of this spec can take; see `Step.parameters`."""
        return self.options.parameters(self.step.signature)

    def inputs_of(self, reads: tuple[str, ...]) -> Inputs | None:
        """Return the declared inputs of one step of this spec, from its reads."""
        if not reads:
            return self.inputs
        return dict(zip(self.inputs, reads, strict=True)) if isinstance(self.inputs, Mapping) else reads

    def uncached(self) -> StepSpec:
        """Return the same for a step that is not cached."""
        return self.replace(options=replace(self.options, cache=OFF, cache_ttl=None))

    def moved(self, within: Namespace, prefix: str) -> StepSpec:
        """Return this spec as part of a sub-pipeline, whose names have a prefix."""
        return self.replace(within=within, outputs=tuple(f"{prefix}{output}" for output in self.outputs))


class StepColumns(NamedTuple):
    """What was added to a pipeline, in add order.

    Attributes:
        names: Step names with their numbers.
        specs: How each step was added.
        rows: The values of each step's `params`, in the order of its spec's keys: a tuple, or the only value by itself.
            A tuple around it would take 64 bytes and be one more object that the garbage collector looks at.
        reads: The declared inputs of each step, where they are plain names that differ from step to step.
        namespaces: The sub-pipelines, inner ones before those that they are in.
    """

    names: Mapping[str, int]
    specs: list[StepSpec]
    rows: list[Any]
    reads: list[tuple[str, ...]]
    namespaces: Sequence[Namespace] = ()

    def uncached(self) -> StepColumns:
        """Return the same, with no step that is cached."""
        plain = {spec: spec.uncached() if spec.options.caching else spec for spec in dict.fromkeys(self.specs)}
        return self._replace(specs=[plain[spec] for spec in self.specs])


def listed_names(names: Mapping[str, int]) -> list[str]:
    """Return names in order."""
    found: list[str] | None = getattr(names, "listed", None)
    return list(names) if found is None else found
