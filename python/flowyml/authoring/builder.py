"""Pipeline builder: makes step specs of what is added to a pipeline.

```
Pipeline.add_step, map, ... ──▶ StepSpec, parameter values, line of the caller ──▶ StepTable
```

Steps that are added alike share one `StepSpec`. In a loop each step is like the one before it, which `append_same`
detects without making a spec. The builder knows nothing of plans or runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from flowyml.authoring.step_table import NOTHING, StepTable, name_of
from flowyml.authoring.validation import checked_params, shape_of
from flowyml.diagnostics.text import join_names
from flowyml.diagnostics.tracebacks import warn_caller
from flowyml.errors import FlowymlError
from flowyml.planning.map_inputs import MapInput, checked_over, over_of_task
from flowyml.planning.step_spec import SourceLocation, StepSpec
from flowyml.planning.sub_pipelines import SubPipeline
from flowyml.registry import pipelines, registered
from flowyml.steps.declarations import checked_after, checked_inputs, checked_outputs, plain_names
from flowyml.steps.options import NO_OPTIONS
from flowyml.steps.step import Step, as_step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType, FrameType

    from flowyml.planning.step_spec import StepColumns
    from flowyml.steps.control_flow import ControlFlow

NOT_GIVEN: Mapping[str, Any] = {}


class PipelineBuilder:
    """Adds steps to the table of a pipeline.

    Args:
        pipeline: Name of the pipeline, for messages.
        discovers: Whether registered steps are taken if none was added; see `Pipeline(auto_discover=)`.

    Attributes:
        table: The steps.
        has_steps: `False` for a pipeline that was unpickled, which is by name alone.
    """

    def __init__(self, pipeline: str, *, discovers: bool) -> None:
        self.table = StepTable(pipeline)
        self.has_steps = True
        self._discovers = discovers
        # Specs by everything that makes two ways of adding a step the same.
        self._specs: dict[tuple[Any, ...], StepSpec] = {}
        # By the instruction that added a step: the step, the code, its parameters, the shape of its inputs, the number
        # of outputs declared there (`None`: none were), its spec.
        self._last: dict[int, tuple[Any, CodeType, tuple[str, ...], tuple[Any, ...], int | None, StepSpec]] = {}
        self._steps: dict[int, tuple[object, Step[..., Any]]] = {}
        self._parameters: dict[int, frozenset[str]] = {}

    def copy(self) -> PipelineBuilder:
        """Return a builder that begins with the same steps."""
        other = PipelineBuilder(self.table.pipeline, discovers=self._discovers)
        other.table, other.has_steps, other._specs = self.table.copy(), self.has_steps, dict(self._specs)
        return other

    def columns(self) -> StepColumns:
        """Return the columns as they are now, for a plan.

        Raises:
            FlowymlError: If the pipeline has come to this process without its steps.
        """
        if not self.has_steps:
            raise FlowymlError(
                f"pipeline {self.table.pipeline!r} came to a worker by its name alone, without its steps; "
                "build it inside the step that runs it"
            )
        if self._discovers and not self.table.specs:
            self._discover()
        return self.table.freeze()

    def append_same(  # noqa: C901  a call would cost more than a branch
        self, step: Any, name: Any, params: Any, inputs: Any, frame: FrameType, *, outputs: Any
    ) -> bool:
        """Append a step and return True if it is like the last one that the same line added.

        It was given a name, `params`, inputs and outputs alone. A million steps are added here: each line counts.
        """
        last = self._last.get(frame.f_lasti)
        if last is None or last[0] is not step or last[1] is not frame.f_code or type(name) is not str or not name:
            return False
        _, _, keys, shape, count, spec = last
        row: Any = NOTHING
        own_shape: Any = NOTHING
        reads = NOTHING
        if type(params) is dict and tuple(params) == keys:
            if len(keys) == 1:
                (row,) = params.values()
            else:
                row = tuple(params.values())
        elif params is not None or keys:
            return False
        if inputs is not None:
            own_shape, reads = shape_of(inputs, self._parameters_of(step)) or (None, NOTHING)
        if own_shape is not shape and own_shape != shape:
            return False
        if outputs is not None or count is not None:
            names = plain_names(outputs)
            if len(names) != count:
                return False
            spec = spec.with_outputs(names)
        added = False
        table = self.table
        lock = table.lock
        try:  # `with lock` costs twice as much
            lock.acquire()
            if not table.is_shared:
                table.specs.append(spec)
                table.rows.append(row)
                table.reads.append(reads)
                added = table.numbers.add(name)
                if not added:
                    table.rollback()
            lock.release()
        except BaseException:
            table.release()
            raise
        return added  # if not, `add` raises or copies the columns

    def add(
        self,
        step: Any,
        name: Any,
        params: Any,
        place: SourceLocation,
        *,
        inputs: Any = None,
        outputs: Any = None,
        after: Any = None,
        options: Mapping[str, Any] = NOT_GIVEN,
    ) -> None:
        """Append a step; see `Pipeline.add_step`."""
        is_plain = after is None and not options
        keys = row = reads = shape = NOTHING
        if params is not None:
            params = params if type(params) is dict else checked_params(params, step)
            keys, row = tuple(params), tuple(params.values())
        if inputs is not None:
            shaped = shape_of(inputs, self._parameters_of(step)) if is_plain else None
            shape, reads = shaped or (NOTHING, NOTHING)
            is_plain = shaped is not None
        count = None
        if is_plain and outputs is not None:
            known = self._resolve_step(step)
            outputs = checked_outputs(outputs, known.name)
            count, is_plain = len(outputs), known.options is NO_OPTIONS  # options are stored by spec
        key = (id(step), keys, id(place.code), place.instruction, shape, count)
        spec = self._specs.get(key) if is_plain else None
        if spec is not None:
            spec = spec if count is None else spec.with_outputs(outputs)
        else:
            spec = self._spec(step, params, place, inputs=inputs, outputs=outputs, after=after, options=options)
            if spec.map_input is not None:
                row, reads = tuple([params[key] for key in spec.keys] if params else ()), NOTHING
                is_plain = False
            if is_plain:
                self._specs[key] = spec
        if is_plain:
            self._last[place.instruction] = (step, place.code, keys, shape, count, spec)
        self.table.append(spec, name, spec.pack_row(row), reads)

    def add_map(
        self, step: Any, name: Any, params: Any, place: SourceLocation, items: tuple[Any, Any, Any], **given: Any
    ) -> None:
        """Append a mapped step; `items` are the items, `over` and `combine` of `Pipeline.map`."""
        spec = self._spec(step, params, place, **given, is_map=True)
        _check_mapped(spec)
        spec.map_input = checked_over(*items, spec.step.name)._replace(terms=spec.step.terms)
        values = params or {}
        self.table.append(spec, name, spec.pack_row(tuple([values[key] for key in spec.keys])))

    def add_part(self, part: ControlFlow | SubPipeline, place: SourceLocation, name: Any = None, **given: Any) -> None:
        """Append a decision with its branches, or a sub-pipeline.

        Raises:
            TypeError: If `add_step` was given more than a name.
        """
        if any(value is not None for value in given.values()):
            kind = type(part).__name__
            rest = "sub_pipeline()" if isinstance(part, SubPipeline) else f"{kind} and its steps"
            raise TypeError(f"add_step({kind}(...)) takes a name only; say the rest in {rest}")
        if isinstance(part, SubPipeline):
            self._add_sub_pipeline(part if name is None else part.called(name), place)
        else:
            self._add_branches(part, place, name)

    def _add_sub_pipeline(self, part: SubPipeline, place: SourceLocation) -> None:
        from flowyml.planning.namespaces import inlined  # most pipelines contain no other

        child = part.columns()
        with self.table.transaction():
            first = len(self.table.specs)
            inner = inlined(child, part.namespace(range(first, first + len(child.specs)), place))
            self.table.extend(part.name, inner, place)

    def _add_branches(self, control: ControlFlow, place: SourceLocation, name: Any) -> None:
        """Append a decision, then its branches, which depend on its answer."""
        table = self.table
        with table.transaction():
            decision = control.decision_name(table.numbers, name)
            branches = list(control.branches(decision))
            if not branches:
                raise ValueError(f"{type(control).__name__} has no branch to choose")
            step = Step(control.decision, name=decision, run_if="any")
            after = tuple(table.numbers) if control.after is None else control.after
            table.insert(StepSpec(step, (), place, after=after, options=step.options), decision)
            for branch, guard in branches:
                spec = self._spec(branch, None, place)
                spec.options = spec.options.with_guard(guard)
                table.insert(spec, name_of(spec))

    def _discover(self) -> None:
        """Append the registered steps of this pipeline, each at the line of its function; warn if there are none."""
        table = self.table
        steps = registered(table.pipeline)
        with table.transaction():
            for step in () if table.specs else steps:  # another thread may have added them meanwhile
                code = getattr(step.func, "__code__", None) or sys._getframe(0).f_code  # noqa: SLF001
                spec = self._spec(step, None, SourceLocation(code, 0))
                table.insert(spec, name_of(spec))
        if not steps:
            owners = f"; there are some for {join_names(pipelines())}" if pipelines() else ""
            warn_caller(f"auto_discover: @step has made no step for pipeline {table.pipeline!r}{owners}")

    def _spec(
        self,
        step: Any,
        params: Any,
        place: SourceLocation,
        *,
        inputs: Any = None,
        outputs: Any = None,
        after: Any = None,
        options: Mapping[str, Any] = NOT_GIVEN,
        is_map: bool = False,
    ) -> StepSpec:
        """Make a spec; a map task says itself what it runs over, unless the caller is `map` with named inputs."""
        known = self._resolve_step(step)
        own = known.options.replace(known.name, options) if options else known.options
        if own is not known.options:
            own.check_fallback(known.signature, known.name)
        spec = StepSpec(
            step=known,
            keys=() if params is None else tuple(checked_params(params, known)),
            place=place,
            inputs=known.inputs if inputs is None else checked_inputs(inputs, known.name),
            outputs=known.outputs if outputs is None else checked_outputs(outputs, known.name),
            after=checked_after(after, known.name),
            options=own,
        )
        if known.terms is not None and not (is_map and (inputs is not None or known.inputs is None)):
            _map_over_input(spec, params or {})
        return spec

    def _resolve_step(self, candidate: Any) -> Step[..., Any]:
        """Return the `Step` of a function or step, the same one each time."""
        entry = self._steps.get(id(candidate))
        if entry is None:
            entry = self._steps[id(candidate)] = (candidate, as_step(candidate))
        return entry[1]

    def _parameters_of(self, candidate: Any) -> frozenset[str]:
        names = self._parameters.get(id(candidate))
        if names is None:
            step = self._resolve_step(candidate)  # keeps the candidate alive, so that its id stays its own
            names = self._parameters[id(candidate)] = frozenset(step.parameters)
        return names


def _map_over_input(spec: StepSpec, params: Mapping[str, Any]) -> None:
    """Make a map task run over its first input, which is then not among the inputs that all items read."""
    column, spec.inputs = over_of_task(spec.step.signature.names, spec.inputs, params, spec.step.name)
    spec.map_input = MapInput((column,), terms=spec.step.terms)
    if not isinstance(column.source, str):
        spec.keys = tuple(key for key in spec.keys if key != column.parameter)
    _check_mapped(spec)


def _check_mapped(spec: StepSpec) -> None:
    if spec.options.dynamic:
        raise TypeError(f"step {spec.step.name!r} is dynamic, so it cannot be mapped; map a step in what it returns")
    if len(spec.outputs) > 1:
        raise ValueError(f"a mapped step has one output, the list of its results; got outputs={list(spec.outputs)}")
