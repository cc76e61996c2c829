"""What was added to a pipeline, step by step.

```
add_step, map, add_control_flow, add_sub_pipeline ──▶ Added, which is Growing: columns (`_growing.py`)
```

Steps that are added in the same way share a `StepSpec`; where a loop adds them, each is like the one before it,
which is
seen without asking for the form (`again`). A plan reads the columns as they are, without a copy; the next step
that is added leaves them to the plan and goes on with a copy. It knows nothing of wiring or runs.

Columns that grow: what is true of a pipeline's steps whoever adds them, and whenever that is interrupted.

```
put, all_or_none ──▶ forms, rows, reads, then the name ──lend()──▶ Columns: they do not change any more
```

Threads add one after the other: columns change with `changing` held alone. A step is added when its name has its
number, which comes last and at once: what Ctrl-C has left in the other columns beyond that is cut off. It knows nothing
of what is in a form.
"""

from __future__ import annotations

import re
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from flowyml.authoring.validation import checked_params, shape_of
from flowyml.diagnostics.text import did_you_mean, join_names
from flowyml.diagnostics.tracebacks import warn_caller
from flowyml.errors import PipelineValidationError
from flowyml.planning.map_inputs import MapInput, over_of_task
from flowyml.planning.step_spec import SourceLocation, StepColumns, StepSpec
from flowyml.planning.sub_pipelines import SubPipeline
from flowyml.registry import pipelines, registered
from flowyml.steps.declarations import (
    NameHandle,
    checked_after,
    checked_inputs,
    checked_outputs,
    checked_text,
    plain_names,
)
from flowyml.steps.options import NO_OPTIONS
from flowyml.steps.step import Step, as_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import CodeType, FrameType

    from flowyml.planning.namespaces import Namespace
    from flowyml.steps.control_flow import ControlFlow


class ExtendableColumns:
    """The columns of a pipeline, in add order.

    Attributes:
        numbers: Step names with their numbers.
        forms: How each step was added.
        rows: The values of each step's `params`, as in `Columns`.
        reads: The declared inputs of each step, where they are plain names that differ from step to step.
        namespaces: The sub-pipelines, inner ones before those that they are in.
        parts: Where each sub-pipeline was added.
        lent: Whether a plan reads the columns, so that they must not change.
        changing: Who changes the columns holds it. Its holder may take it again: Ctrl-C may come between taking it and
            the block that gives it back.
    """

    def __init__(self) -> None:
        from flowyml._extension import NameIndex  # `import flowyml` does not come there

        self.numbers = NameIndex()
        self.forms: list[StepSpec] = []
        self.rows: list[Any] = []
        self.reads: list[tuple[str, ...]] = []
        self.namespaces: list[Namespace] = []
        self.parts: dict[str, SourceLocation] = {}
        self.lent = False
        self.changing = threading.RLock()
        # While several are added: how many steps, namespaces and parts there were.
        self._before: tuple[int, int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """How many steps and sub-pipelines there are: what changes when something is added."""
        return len(self.forms), len(self.namespaces)

    def lend(self) -> StepColumns:
        """Return the columns as they are now; they do not change any more."""
        with self.changing:
            self.mend()
            columns = StepColumns(self.numbers, self.forms, self.rows, self.reads, self.namespaces)
            self.lent = True
        return columns

    def borrow(self, other: ExtendableColumns) -> None:
        """Begin with the columns of another pipeline as they are now."""
        with other.changing:
            other.lend()
            self.numbers, self.forms, self.rows, self.reads = other.numbers, other.forms, other.rows, other.reads
            self.namespaces, self.parts, self.lent = other.namespaces, dict(other.parts), True

    def put(self, form: StepSpec, name: str, row: Any, reads: tuple[str, ...]) -> bool:
        """Append a step, with `changing` held and the columns `ready`; return `False` if its name is taken."""
        try:
            self.forms.append(form)
            self.rows.append(row)
            self.reads.append(reads)
            if self.numbers.add(name):
                return True
        except BaseException:
            self._cut()
            raise
        self._cut()
        return False

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """Let several steps be added: alone, and if that raises, none of them."""
        with self.changing:
            self.ready()
            try:
                self._before = len(self.numbers), len(self.namespaces), len(self.parts)
                yield
                self._before = None
            except BaseException:
                self.mend()
                raise

    def ready(self) -> None:
        """Make the columns ready for another step, with `changing` held: whole, and nobody else's."""
        self.mend()
        if self.lent:
            self.numbers, self.forms = self.numbers.copy(), list(self.forms)
            self.rows, self.reads = list(self.rows), list(self.reads)
            self.namespaces = list(self.namespaces)
            self.lent = False

    def let_go(self) -> None:
        """Mend the columns and give `changing` back, where it is not known whether it is held."""
        with self.changing:
            self.mend()
        with suppress(RuntimeError):  # it is not
            self.changing.release()

    def mend(self) -> None:
        """Take back what was added only in part, where that was interrupted; with `changing` held."""
        if self._before is not None:
            steps, namespaces, parts = self._before
            if len(self.numbers) > steps:
                self.numbers = type(self.numbers)(self.numbers.listed[:steps])
            del self.namespaces[namespaces:]
            while len(self.parts) > parts:
                self.parts.popitem()
            self._before = None
        self._cut()

    def _cut(self) -> None:
        """Cut the other columns where the names end."""
        count = len(self.numbers)
        for column in (self.forms, self.rows, self.reads):
            if len(column) > count:
                del column[count:]


NOTHING: tuple[Any, ...] = ()
NOTHING_GIVEN: Mapping[str, Any] = {}


# What IPython calls the file of a cell, alone and in a notebook.
_CELL = r"^<ipython|[/\\]ipykernel_\d+[/\\]"


class StepTable(ExtendableColumns):
    """The steps of a pipeline, in add order.

    Args:
        pipeline: Name of the pipeline, for messages.

    Attributes:
        alike: Forms by all that makes two ways of adding the same.
    """

    def __init__(self, pipeline: str) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.alike: dict[tuple[Any, ...], StepSpec] = {}
        # By the instruction that added a step: the step, the code, its parameters, the shape of its inputs, how many
        # outputs were declared there (`None`: none were), its form.
        self._last: dict[int, tuple[Any, CodeType, tuple[str, ...], tuple[Any, ...], int | None, StepSpec]] = {}
        self._produced: dict[str, int] = {}
        self._looked_at = 0
        self._known_steps: dict[int, tuple[object, Step[..., Any]]] = {}
        self._parameters: dict[int, frozenset[str]] = {}

    def copied(self) -> StepTable:
        """Return the same steps, to which others may be added."""
        other = StepTable(self.pipeline)
        other.borrow(self)
        other.alike = dict(self.alike)
        return other

    def part(
        self,
        part: ControlFlow | SubPipeline,
        place: SourceLocation,
        name: Any = None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        """Add what is more than one step."""
        kind = type(part).__name__
        if any(value is not None for value in (given or {}).values()):
            rest = "sub_pipeline()" if isinstance(part, SubPipeline) else f"{kind} and its steps"
            raise TypeError(f"add_step({kind}(...)) takes a name only; say the rest in {rest}")
        if isinstance(part, SubPipeline):
            self.include(part if name is None else part.called(name), place)
        else:
            self._branch(part, place, name)

    def include(self, part: SubPipeline, place: SourceLocation) -> None:
        """Add the steps of another pipeline as they are now, behind a prefix."""
        from flowyml.planning.namespaces import inlined  # most pipelines have no other in them

        child = part.columns()
        with self.all_or_none():
            first = len(self.forms)
            inner = inlined(child, part.namespace(range(first, first + len(child.forms)), place))
            self._check_free(part.name, inner.names, place)
            self.forms.extend(inner.forms)
            self.rows.extend(inner.rows)
            self.reads.extend(inner.reads)
            self.namespaces.extend(inner.namespaces)
            for name in inner.names:
                self.numbers.add(name)

    def _check_free(self, sub_pipeline: str, names: Iterable[str], place: SourceLocation) -> None:
        """Raise if another sub-pipeline has that name, or a step has the name of one of the new steps."""
        other = self.parts.get(sub_pipeline)
        if other is not None:
            taken = _name_taken(sub_pipeline, other, place, "sub-pipeline")
            raise PipelineValidationError([taken], self.pipeline)
        step = next((name for name in names if name in self.numbers), None)
        if step is not None:
            taken = _name_taken(step, self.forms[self.numbers[step]].place, place)
            raise PipelineValidationError([taken], self.pipeline)
        self.parts[sub_pipeline] = place

    def _branch(self, control: ControlFlow, place: SourceLocation, name: Any) -> None:
        """Add a decision, then its branches behind its answer."""
        kind = type(control).__name__
        with self.all_or_none():
            decision = control.decision_name(self.numbers, name)
            branches = list(control.branches(decision))
            if not branches:
                raise ValueError(f"{kind} has no branch to choose")
            step = Step(control.decision, name=decision, run_if="any")
            after = tuple(self.numbers) if control.after is None else control.after
            self._put_new(StepSpec(step, (), place, after=after, options=step.options), decision)
            for branch, guard in branches:
                form = self.form(branch, None, place)
                form.options = form.options.with_guard(guard)
                self._put_new(form)

    def form(
        self,
        step: Any,
        params: Any,
        place: SourceLocation,
        *,
        inputs: Any = None,
        outputs: Any = None,
        after: Any = None,
        options: Mapping[str, Any] = NOTHING_GIVEN,
        mapped: bool = False,
    ) -> StepSpec:
        """Make a form; `mapped` says that the caller tells what it runs over, else a map task does."""
        known = self.known_step(step)
        own = known.options.replace(known.name, options) if options else known.options
        if own is not known.options:
            own.check_fallback(known.signature, known.name)
        form = StepSpec(
            step=known,
            keys=() if params is None else tuple(checked_params(params, known)),
            place=place,
            inputs=known.inputs if inputs is None else checked_inputs(inputs, known.name),
            outputs=known.outputs if outputs is None else checked_outputs(outputs, known.name),
            after=checked_after(after, known.name),
            options=own,
        )
        if known.terms is not None and not (mapped and (inputs is not None or known.inputs is None)):
            _spread(form, params or {})
        return form

    def handle(self, name: Any) -> NameHandle:
        """Return a name as a handle.

        Raises:
            KeyError: If no step or asset has it, with near matches.
        """
        found = self.find(name) if isinstance(name, str) else None
        if found is None:
            known = [*self.numbers, *self._produced, *self.parts]
            raise KeyError(f"no step or asset {name!r} in pipeline {self.pipeline!r}{did_you_mean(str(name), known)}")
        return found

    def find(self, name: str) -> NameHandle | None:
        """Return a name as a handle; `None` if no step, asset or sub-pipeline has it."""
        node = self.numbers.get(name)
        if node is not None:
            return NameHandle(name, name, self.forms[node].outputs or (name,))
        with self.changing:
            self.mend()
            while self._looked_at < len(self.forms):
                for asset in self.forms[self._looked_at].outputs:
                    self._produced.setdefault(asset, self._looked_at)
                self._looked_at += 1
        if name in self._produced:
            node = self._produced[name]
            return NameHandle(name, next(each for each, number in self.numbers.items() if number == node), (name,))
        if name in self.parts:
            return NameHandle(name, name, ())
        exported = (each for each in self.namespaces if each.outer is None and name in each.exports.values())
        return next((NameHandle(name, each.name, (name,)) for each in exported), None)

    def known_step(self, candidate: Any) -> Step[..., Any]:
        """Return the `Step` of a function or step, the same one each time."""
        found = self._known_steps.get(id(candidate))
        if found is None:
            found = self._known_steps[id(candidate)] = (candidate, as_step(candidate))
        return found[1]

    def parameters_of(self, candidate: Any) -> frozenset[str]:
        """Return the names of all that a step can take."""
        found = self._parameters.get(id(candidate))
        if found is None:
            step = self.known_step(candidate)  # which keeps it, so that its id stays its own
            found = self._parameters[id(candidate)] = frozenset(step.parameters)
        return found

    def step(
        self,
        step: Any,
        name: Any,
        params: Any,
        place: SourceLocation,
        *,
        alike: bool,
        inputs: Any,
        outputs: Any = None,
        **given: Any,
    ) -> None:
        """Append a step.

        Args:
            step: What is called.
            name: Its name; its own if it is `None`.
            params: Values of parameters.
            place: Where it is added.
            alike: It was given a name, `params`, inputs and outputs alone: then it shares the form of others.
            inputs: Assets to read.
            outputs: Assets to produce.
            **given: All else, as for `form`.
        """
        keys = row = reads = shape = NOTHING
        if params is not None:
            params = params if type(params) is dict else checked_params(params, step)
            keys, row = tuple(params), tuple(params.values())
        if inputs is not None:
            shaped = shape_of(inputs, self.parameters_of(step)) if alike else None
            shape, reads = shaped or (NOTHING, NOTHING)
            alike = shaped is not None
        count = None
        if alike and outputs is not None:
            known = self.known_step(step)
            outputs = checked_outputs(outputs, known.name)
            count, alike = len(outputs), known.options is NO_OPTIONS  # options are kept by form
        key = (id(step), keys, id(place.code), place.instruction, shape, count)
        form = self.alike.get(key) if alike else None
        if form is not None:
            form = form if count is None else form.with_outputs(outputs)
        else:
            form = self.form(step, params, place, inputs=inputs, outputs=outputs, **given)
            if form.over is not None:
                row, reads, alike = tuple([params[key] for key in form.keys] if params else ()), NOTHING, False
            if alike:
                self.alike[key] = form
        if alike:
            self._last[place.instruction] = (step, place.code, keys, shape, count, form)
        self.append(form, name, form.kept(row), reads)

    def again(  # noqa: C901  a call would cost more than a branch
        self, step: Any, name: Any, params: Any, inputs: Any, frame: FrameType, *, outputs: Any
    ) -> bool:
        """Append a step if it is like the last one that the same line added; tell whether it is.

        It was given a name, `params`, inputs and outputs alone. A million steps come this way, and each pays for this.
        """
        last = self._last.get(frame.f_lasti)
        if last is None or last[0] is not step or last[1] is not frame.f_code or type(name) is not str or not name:
            return False
        _, _, keys, shape, count, form = last
        row: Any = NOTHING
        found: Any = NOTHING
        reads = NOTHING
        if type(params) is dict and tuple(params) == keys:
            if len(keys) == 1:
                (row,) = params.values()
            else:
                row = tuple(params.values())
        elif params is not None or keys:
            return False
        if inputs is not None:
            found, reads = shape_of(inputs, self.parameters_of(step)) or (None, NOTHING)
        if found is not shape and found != shape:
            return False
        if outputs is not None or count is not None:
            own = plain_names(outputs)
            if len(own) != count:
                return False
            form = form.with_outputs(own)
        added = False
        changing = self.changing
        try:  # `with changing` costs twice as much
            changing.acquire()
            if not self.lent:
                self.forms.append(form)
                self.rows.append(row)
                self.reads.append(reads)
                added = self.numbers.add(name)
                if not added:
                    self.mend()
            changing.release()
        except BaseException:
            self.let_go()
            raise
        return added  # else `append` tells what is wrong

    def append(self, form: StepSpec, name: Any, row: Any, reads: tuple[str, ...] = NOTHING) -> None:
        """Append a step.

        Args:
            form: How it was added.
            name: Its name; its function's if it is `None`.
            row: The values of its `params`, as in `Columns`.
            reads: Its inputs, where they differ from step to step.
        """
        if type(name) is not str or not name:
            name = _name_of(form) if name is None else checked_text("the name of a step", name)
        with self.changing:
            self.ready()
            self._put_new(form, name, row, reads)

    def _put_new(self, form: StepSpec, name: str | None = None, row: Any = NOTHING, reads: Any = NOTHING) -> None:
        """Append a step to columns that are ready for it; raise if its name is taken."""
        name = _name_of(form) if name is None else name
        if not self.put(form, name, row, reads):
            taken = _name_taken(name, self.forms[self.numbers[name]].place, form.place)
            raise PipelineValidationError([taken], self.pipeline)

    def discover(self) -> None:
        """Add the steps that were made for this pipeline, each where its function is.

        Warns where there are none.
        """
        found = registered(self.pipeline)
        with self.all_or_none():
            for step in () if self.forms else found:  # another thread may have found them meanwhile
                code = getattr(step.func, "__code__", None) or sys._getframe(0).f_code  # noqa: SLF001
                self._put_new(self.form(step, None, SourceLocation(code, 0)))
        if not found:
            owners = f"; there are some for {join_names(pipelines())}" if pipelines() else ""
            warn_caller(f"auto_discover: @step has made no step for pipeline {self.pipeline!r}{owners}")


def _spread(form: StepSpec, params: Mapping[str, Any]) -> None:
    """Let a map task run over its input, which then is none of the inputs that all items read."""
    column, form.inputs = over_of_task(form.step.signature.names, form.inputs, params, form.step.name)
    form.over = MapInput((column,), terms=form.step.terms)
    if not isinstance(column.source, str):
        form.keys = tuple(key for key in form.keys if key != column.parameter)
    check_mapped(form)


def check_mapped(form: StepSpec) -> None:
    """Check that a step can be mapped.

    Raises:
        TypeError: If it is dynamic.
        ValueError: If it has several outputs.
    """
    if form.options.dynamic:
        raise TypeError(f"step {form.step.name!r} is dynamic, so it cannot be mapped; map a step in what it returns")
    if len(form.outputs) > 1:
        raise ValueError(f"a mapped step has one output, the list of its results; got outputs={list(form.outputs)}")


def _name_of(form: StepSpec) -> str:
    if form.step.name:
        return form.step.name
    raise TypeError(f"{form.step.func!r:.100} has no name of its own; give it one: add_step(..., name=...)")


def _name_taken(name: str, first: SourceLocation, second: SourceLocation, what: str = "step") -> str:
    message = f"{what} {name!r} was added already at {first}, and again at {second}"
    in_notebook = "in a notebook re-create the Pipeline in the same cell"
    if first == second:
        way = f'name=f"{name}_{{i}}"{", or pipeline.map(step, items)" if what == "step" else ""}'
        return f"{message}, which is the same line; in a loop give each its own name, as in {way}; {in_notebook}"
    if re.search(_CELL, first.code.co_filename):
        return f"{message}; give each its own name=, or {in_notebook}"
    return f"{message}; give one of them another name="
