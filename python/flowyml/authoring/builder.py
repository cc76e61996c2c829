"""Authoring: what a pipeline is told of its steps.

```
add_step, map, add_control_flow, add_sub_pipeline ──▶ Form, parameter values, place ──▶ Added: columns (`_added.py`)
```

Every way of adding hands over its arguments together with the line of the caller, which messages name. It knows nothing
of plans or runs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from flowyml.authoring.step_table import NOTHING, NOTHING_GIVEN, StepTable, check_mapped
from flowyml.diagnostics.text import unknown_keyword_message
from flowyml.diagnostics.tracebacks import hide_internal_frames, hides_internal_frames
from flowyml.errors import FlowymlError
from flowyml.planning.map_inputs import checked_over
from flowyml.planning.step_spec import SourceLocation
from flowyml.planning.sub_pipelines import SubPipeline, sub_pipeline
from flowyml.steps.control_flow import ControlFlow
from flowyml.steps.declarations import checked_text
from flowyml.steps.options import given_options
from flowyml.steps.outcomes import PipelineBase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Literal, Never, Self, Unpack

    from flowyml.pipeline import Pipeline
    from flowyml.planning.map_inputs import Lists
    from flowyml.planning.step_spec import StepColumns
    from flowyml.steps.context import Context
    from flowyml.steps.control_flow import If, Switch
    from flowyml.steps.declarations import Named, NameHandle, Reads
    from flowyml.steps.options import StepKeywords
    from flowyml.steps.step import Step

_ADD_STEP_KEYWORDS = ("name", "params", "inputs", "outputs", "after")
_MAP_KEYWORDS = ("items", "over", "combine", *_ADD_STEP_KEYWORDS)
_SUB_PIPELINE_KEYWORDS = ("inputs", "outputs", "name", "input_mapping", "output_mapping", "after")


class PipelineBuilder(PipelineBase):
    """A pipeline as far as it is written: its steps, in add order.

    Args:
        name: Name of the pipeline.
        context: Named values that any step may take.
        discovers: Whether it looks for its steps where none was added; see `Pipeline(auto_discover=)`.
    """

    def __init__(self, name: str, context: Context, *, discovers: bool) -> None:
        self.name: str = checked_text("a pipeline's name", name)
        self.context: Context = context
        self._discovers = discovers
        self._added = StepTable(self.name)
        self._named_only = False

    def add_step(
        self,
        step: Step[..., Any] | Callable[..., Any] | If | Switch | SubPipeline,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        inputs: Reads | None = None,
        outputs: str | Sequence[str] | None = None,
        after: Named | Sequence[Named] | None = None,
        **options: Unpack[StepKeywords],
    ) -> Self:
        """Add a step; one function may be added any number of times under different names.

        Args:
            step: A step or anything callable.
            name: Its name in this pipeline; the step's own by default.
            params: Values of parameters by name; they go before every other source. Copied, shallowly.
            inputs: Assets to read, instead of the step's own declaration (see `Step`).
            outputs: Assets to produce, instead of the step's own declaration.
            after: Names of steps that must be finished first, without data.
            **options: Options of `step` (`retry=`, `timeout=`, ...), which replace the step's own. Keywords of 2.2.1
                that are out of scope get one warning.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: For a wrong argument.
            ValueError: If the name is taken; both places are named.
        """
        try:
            given = given_options("add_step()", options, _ADD_STEP_KEYWORDS) if options else NOTHING_GIVEN
            alike = after is None and not given
            frame = sys._getframe(1)  # noqa: SLF001  the place is part of the messages
            if alike and self._added.again(step, name, params, inputs, frame, outputs=outputs):
                return self
            place = SourceLocation(frame.f_code, frame.f_lasti)
            declared: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "after": after}
            if isinstance(step, (ControlFlow, SubPipeline)):
                return self._add_part(step, place, name, {**declared, **given, "params": params})
            self._added.step(step, name, params, place, alike=alike, options=given, **declared)
        except BaseException as error:  # the decorator's call costs a fifth of a microsecond
            hide_internal_frames(error)
            raise
        return self

    @hides_internal_frames
    def map(
        self,
        step: Step[..., Any] | Callable[..., Any],
        items: Iterable[Any] | None = None,
        *,
        over: Lists | None = None,
        combine: Literal["zip", "product"] = "zip",
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        inputs: Reads | None = None,
        outputs: str | Sequence[str] | None = None,
        after: Named | Sequence[Named] | None = None,
        **options: Unpack[StepKeywords],
    ) -> Self:
        """Add one step that runs once for each item: a fan-out of any size as one node of the graph.

        Args:
            step: A step or anything callable; each item goes to its first parameter that `params` and named inputs
                leave free.
            items: The items: any iterable, read at once. A list is copied (shallowly), a `range` is kept as it is.
            over: Instead of items the name of what holds them: an asset whose value is a list that only the run
                knows, a mapped step (item i starts when item i there is finished), a glob, a name of `run(inputs=)`.
                Or several of them, whose values go to one parameter each: the one of that name, else the next one that
                is free; or by parameter, where a list of values may stand in place of a name.
            combine: What an item is where there are several: "zip", the values side by side, of lists of one length;
                or "product", all combinations in the order of `itertools.product`.
            name: As for `add_step`, like the other arguments.
            params: Values of the other parameters, the same for all items.
            inputs: Assets to read, the same for all items.
            outputs: The name of the one asset: the list of results in item order.
            after: Names of steps that must be finished first.
            **options: Options of `step`, applied to each item, which replace the step's own.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: For a wrong argument.
            ValueError: If the name is taken.

        >>> from flowyml import Pipeline
        >>> list(Pipeline("lengths").map(len, ["a", "bc", ""]).run()["len"])
        [1, 2, 0]
        >>> pipeline = Pipeline("words").add_step(str.split, "words", {"self": "to be or"})
        >>> pipeline = pipeline.map(len, over="words", name="lengths").map(hex, over="lengths", name="hexed")
        >>> list(pipeline.run()["hexed"])
        ['0x2', '0x2', '0x2']
        """
        frame = sys._getframe(2)  # noqa: SLF001  1 is the decorator
        place = SourceLocation(frame.f_code, frame.f_lasti)
        given = given_options("map()", options, _MAP_KEYWORDS)
        declared: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "after": after}
        form = self._added.form(step, params, place, **declared, options=given, mapped=True)
        check_mapped(form)
        form.over = checked_over(items, over, combine, form.step.name)._replace(terms=form.step.terms)
        values = params or {}
        self._added.append(form, name, form.kept(tuple([values[key] for key in form.keys])))
        return self

    @hides_internal_frames
    def add_control_flow(self, control: If | Switch) -> Self:
        """Add a decision and its branches: nodes of the graph, after all steps added so far (or its `after=`).

        Args:
            control: An `If` or a `Switch`; see there. `add_step` and `add_steps` take them, too.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: If it is neither.
            ValueError: If it has no branches, or a branch has the name of another step.
        """
        frame = sys._getframe(2)  # noqa: SLF001  1 is the decorator
        if not isinstance(control, ControlFlow):
            raise TypeError(f"add_control_flow() takes an If or a Switch, got {type(control).__name__} {control!r:.60}")
        return self._add_part(control, SourceLocation(frame.f_code, frame.f_lasti))

    @hides_internal_frames
    def add_sub_pipeline(
        self,
        pipeline: Pipeline,
        inputs: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        outputs: str | Sequence[str] | Mapping[str, str] | None = None,
        *,
        name: str | None = None,
        input_mapping: Mapping[str, str] | None = None,
        output_mapping: Mapping[str, str] | None = None,
        after: Named | Sequence[Named] | None = None,
        **unknown: object,
    ) -> Self:
        """Add the steps of another pipeline, as they are now, behind a prefix: step `load` of `etl` is `etl.load`.

        Inside, nothing changes: its steps read each other's assets by their own names, and take values from its own
        context before the one of this pipeline. `run(inputs=)` and `run(context=)` reach them as they reach others.

        Args:
            pipeline: The pipeline. What is added to it later does not show here.
            inputs: What it takes from this pipeline: names that are the same on both sides, or by its own name the
                asset here (or a glob, or a list of assets, which give a list). By default whatever it neither produces
                nor has in its own context is looked for here by the same name.
            outputs: Those of its assets that are to be had here by their own names, or by its own name the name here.
                All its assets are to be had behind the prefix: `etl.clean`.
            name: The prefix; the pipeline's name by default.
            input_mapping: Like `inputs` as a mapping, the other way round: by the asset here, its own name.
            output_mapping: Like `outputs` as a mapping.
            after: Steps here that must be finished before its first steps start.
            **unknown: Nothing else is known.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: For a wrong argument.
            ValueError: If a name is taken, or the pipeline is this one.

        >>> from flowyml import Pipeline
        >>> def clean(raw):
        ...     return sorted(raw)
        >>> etl = Pipeline("etl").add_step(clean)
        >>> whole = Pipeline("whole").add_step(list, name="load", params={"iterable": "hello"})
        >>> whole = whole.add_sub_pipeline(etl, {"raw": "load"}, ["clean"]).add_step("".join, "word", inputs=["clean"])
        >>> whole.run()["word"]
        'ehllo'
        """
        if unknown:
            raise TypeError(unknown_keyword_message("add_sub_pipeline()", unknown, _SUB_PIPELINE_KEYWORDS))
        frame = sys._getframe(2)  # noqa: SLF001  1 is the decorator
        part = sub_pipeline(
            pipeline,
            inputs,
            outputs,
            name=name,
            input_mapping=input_mapping,
            output_mapping=output_mapping,
            after=after,
        )
        return self._add_part(part, SourceLocation(frame.f_code, frame.f_lasti))

    @hides_internal_frames
    def add_steps(
        self, steps: Iterable[Step[..., Any] | Callable[..., Any] | If | Switch | SubPipeline], *more: Never
    ) -> Self:
        """Add several steps under their own names.

        Args:
            steps: Steps or functions.
            *more: Nothing; steps one by one are refused with the way to go.

        Returns:
            The pipeline itself.

        >>> from flowyml import Pipeline
        >>> len(Pipeline("two").add_steps([min, max]))
        2
        """
        frame = sys._getframe(2)  # noqa: SLF001  1 is the decorator
        if more:
            raise TypeError("add_steps() takes several steps, in one list: add_steps([load, clean, ...])")
        return self._add_all(steps, SourceLocation(frame.f_code, frame.f_lasti))

    @property
    def steps(self) -> list[Step[..., Any]]:
        """The steps in add order; a step that was added twice stands there twice."""
        return [form.step for form in self._added.forms]

    @hides_internal_frames
    def __getitem__(self, name: str) -> NameHandle:
        """Return the name of a step or asset that was added, checked; it stands wherever a step names one.

        Raises:
            KeyError: If there is neither, with near matches.
        """
        return self._added.handle(name)

    def __contains__(self, name: object) -> bool:
        """Tell whether a step or asset of that name was added."""
        return isinstance(name, str) and self._added.find(name) is not None

    __iter__ = None  # it has names, but is no collection of them

    def __len__(self) -> int:
        """Return the number of steps; a mapped step is one."""
        return len(self._added.forms)

    def _columns(self) -> StepColumns:
        """Return the columns as they are now, for a plan."""
        if self._named_only:
            raise FlowymlError(
                f"pipeline {self.name!r} came to a worker by its name alone, without its steps; "
                "build it inside the step that runs it"
            )
        if self._discovers and not len(self):
            self._added.discover()
        return self._added.lend()

    def _add_part(self, part: ControlFlow | SubPipeline, place: SourceLocation, *rest: Any) -> Self:
        inner: object = part.pipeline if isinstance(part, SubPipeline) else None
        if inner is self:
            raise ValueError(f"pipeline {self.name!r} cannot be a sub-pipeline of itself")
        self._added.part(part, place, *rest)
        return self

    def _add_all(self, steps: Iterable[Any], place: SourceLocation) -> Self:
        if callable(steps) or not hasattr(steps, "__iter__"):
            raise TypeError(f"add_steps() takes several steps, in a list; got {steps!r:.60}")
        for step in steps:
            if isinstance(step, (ControlFlow, SubPipeline)):
                self._add_part(step, place)
            else:
                self._added.append(self._added.form(step, None, place), None, NOTHING)
        return self
