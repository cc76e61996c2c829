"""Pipeline: where steps are added and a run begins.

A pipeline keeps what it was told, in columns: a name, a `Form` (shared by all steps that were added in the same way)
and a tuple of parameter values for each step. Wiring and validation are the plan's, running is the run's and the
executor's.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowyml._loading import refuse_if_loading
from flowyml._words import nearest, unknown_keywords
from flowyml.contexts import Context
from flowyml.errors import FlowymlError
from flowyml.executors.contract import Executor
from flowyml.executors.local import LocalExecutor
from flowyml.plan import Plan
from flowyml.run import Run, execute
from flowyml.steps import Step, as_step, checked_inputs, checked_outputs
from flowyml.wiring import Form, Place, Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flowyml.result import PipelineResult
    from flowyml.steps import Inputs

# Keywords of the 2.2.1 documentation that concern what this package does not do.
_OUT_OF_SCOPE = frozenset(
    [
        "stack",
        "project",
        "project_name",
        "version",
        "env",
        "auto_track",
        "auto_discover",
        "enable_experiment_tracking",
        "auto_start_ui",
        "orchestrator",
        "docker_config",
    ]
)
_STEP_KEYWORDS = ("name", "params", "inputs", "outputs", "after")
_NOTHING: tuple[Any, ...] = ()


class Pipeline:
    """A graph of steps: add them in any order, then run.

    Args:
        name: Name of the pipeline, for messages and results.
        context: Named values that any step may take by parameter name.
        executor: Where it runs by default; a `LocalExecutor` if none is given here or to `run`.

    Raises:
        TypeError: For a wrong argument. Keywords of the 2.2.1 documentation that are out of scope (`stack`, `project`,
            ...) are accepted with one `UserWarning`.

    >>> from flowyml import Pipeline, step
    >>> @step
    ... def square(x):
    ...     return x * x
    >>> pipeline = Pipeline("squares")
    >>> for i in range(3):
    ...     pipeline = pipeline.add_step(square, name=f"square_{i}", params={"x": i})
    >>> dict(pipeline.run().outputs)
    {'square_0': 0, 'square_1': 1, 'square_2': 4}
    """

    def __init__(
        self,
        name: str,
        context: Context | Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        **unknown: object,
    ) -> None:
        """Begin an empty pipeline."""
        _warn_out_of_scope("Pipeline()", unknown, ("name", "context", "executor"))
        if not isinstance(name, str):
            raise TypeError(f"a pipeline's name must be a string, got {type(name).__name__}")
        self.name = name
        self.context = as_context(context)
        self.executor = checked_executor(executor)
        self._numbers: dict[str, int] = {}
        self._forms: list[Form] = []
        self._rows: list[tuple[Any, ...]] = []
        self._known_forms: dict[tuple[Any, ...], Form] = {}
        self._known_steps: dict[int, tuple[object, Step[..., Any]]] = {}
        self._plan: tuple[int, Plan] | None = None

    # -- authoring

    def add_step(
        self,
        step: Step[..., Any] | Callable[..., Any],
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        inputs: Inputs | None = None,
        outputs: str | Sequence[str] | None = None,
        after: str | Sequence[str] | None = None,
        **unknown: object,
    ) -> Pipeline:
        """Add a step; one function may be added any number of times under different names.

        Args:
            step: A step or anything callable.
            name: Its name in this pipeline; the step's own by default.
            params: Values of parameters by name; they go before every other source. Copied, shallowly.
            inputs: Assets to read, instead of the step's own declaration (see `Step`).
            outputs: Assets to produce, instead of the step's own declaration.
            after: Names of steps that must be finished first, without data.
            **unknown: Nothing else is known; a misspelled keyword gets an error with the nearest one.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: For a wrong argument.
            ValueError: If the name is taken; both places are named.
        """
        if unknown:
            raise TypeError(unknown_keywords("add_step()", unknown, _STEP_KEYWORDS))
        frame = sys._getframe(1)  # noqa: SLF001  the place is part of the messages
        if params:
            keys, row = tuple(params), tuple(params.values())
        else:
            keys, row = _NOTHING, _NOTHING
        if inputs is outputs is after is None:
            key = (id(step), keys, id(frame.f_code), frame.f_lasti)
            form = self._known_forms.get(key)
            if form is None:
                form = self._known_forms[key] = self._form(step, params, Place(frame.f_code, frame.f_lasti))
        else:
            form = self._form(
                step, params, Place(frame.f_code, frame.f_lasti), inputs=inputs, outputs=outputs, after=after
            )
        self._append(form, form.step.name if name is None else name, row)
        return self

    def map(
        self,
        step: Step[..., Any] | Callable[..., Any],
        items: Iterable[Any],
        *,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        inputs: Inputs | None = None,
        outputs: str | Sequence[str] | None = None,
        after: str | Sequence[str] | None = None,
        **unknown: object,
    ) -> Pipeline:
        """Add one step that runs once for each item: a fan-out of any size as one node of the graph.

        Args:
            step: A step or anything callable; each item goes to its first parameter that `params` and named inputs
                leave free.
            items: The items: any iterable, read at once. A list is copied (shallowly), a `range` is kept as it is.
            name: As for `add_step`, like the other arguments.
            params: Values of the other parameters, the same for all items.
            inputs: Assets to read, the same for all items.
            outputs: The name of the one asset: the list of results in item order.
            after: Names of steps that must be finished first.
            **unknown: Nothing else is known.

        Returns:
            The pipeline itself.

        Raises:
            TypeError: For a wrong argument.
            ValueError: If the name is taken.

        >>> from flowyml import Pipeline
        >>> list(Pipeline("lengths").map(len, ["a", "bc", ""]).run()["len"])
        [1, 2, 0]
        """
        if unknown:
            raise TypeError(unknown_keywords("map()", unknown, ("items", *_STEP_KEYWORDS)))
        frame = sys._getframe(1)  # noqa: SLF001
        form = self._form(step, params, Place(frame.f_code, frame.f_lasti), inputs=inputs, outputs=outputs, after=after)
        form.items = _checked_items(items)
        if len(form.outputs) > 1:
            raise TypeError(f"a mapped step has one output, the list of its results; got outputs={list(form.outputs)}")
        self._append(form, form.step.name if name is None else name, tuple((params or {}).values()))
        return self

    def add_steps(self, steps: Iterable[Step[..., Any] | Callable[..., Any]]) -> Pipeline:
        """Add several steps under their own names.

        >>> len(Pipeline("two").add_steps([min, max]))
        2
        """
        for each in steps:
            self.add_step(each)
        return self

    @classmethod
    def from_steps(
        cls, *steps: Step[..., Any] | Callable[..., Any], name: str = "pipeline", context: Context | None = None
    ) -> Pipeline:
        """Make a pipeline of steps under their own names.

        >>> Pipeline.from_steps(min, max, name="two").name
        'two'
        """
        return cls(name, context=context).add_steps(steps)

    @property
    def steps(self) -> list[Step[..., Any]]:
        """The steps in add order; a step that was added twice stands there twice."""
        return [form.step for form in self._forms]

    def __len__(self) -> int:
        """Return the number of steps; a mapped step is one."""
        return len(self._forms)

    def __repr__(self) -> str:
        """Show name and size."""
        return f"<Pipeline {self.name!r} of {len(self)} steps>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as an empty pipeline of that name: a global of a script travels with its functions and is not run."""
        return Pipeline, (self.name,)

    # -- building and running

    def build(self, inputs: Mapping[str, Any] | None = None, context: Mapping[str, Any] | None = None) -> None:
        """Check the pipeline's structure without running it.

        Args:
            inputs: Values that `run(inputs=)` will get, where steps declare them as inputs.
            context: Values that `run(context=)` will get.

        Raises:
            PipelineValidationError: With everything that is wrong. Missing parameters are left to `run()`, which knows
                all values.
        """
        self._planned(checked_values("inputs", inputs), checked_values("context", context), complete=False)

    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        executor: Executor | None = None,
        fail_fast: bool = False,
        raise_on_failure: bool = False,
        keep: str | Sequence[str] = "all",
        run_id: str | None = None,
        **unknown: object,
    ) -> PipelineResult:
        """Run all steps and return the result, whether steps failed or not.

        Args:
            inputs: Values by parameter or asset name, for this run.
            context: Context values for this run only; they go before the pipeline's own.
            executor: Where it runs, instead of the pipeline's executor.
            fail_fast: Start nothing new after the first failure; what is left is cancelled.
            raise_on_failure: Raise a `StepError` when the run has ended and a step failed.
            keep: "all" values stay readable; "leaves": values that other steps read go after their last reader; or the
                names of those to keep beside the leaves.
            run_id: Name of the run; a random one by default.
            **unknown: Nothing else is known; keywords of 2.2.1 that are out of scope get one warning.

        Returns:
            The result: each step with its state, value or error.

        Raises:
            PipelineValidationError: If the pipeline is not valid; nothing has run.
            StepError: With `raise_on_failure`.
            RunInterrupted: After Ctrl-C, with the partial result.
        """
        refuse_if_loading()
        known = ("inputs", "context", "executor", "fail_fast", "raise_on_failure", "keep", "run_id")
        _warn_out_of_scope("run()", unknown, known)
        executor = checked_executor(executor) or self.executor
        values, overlay = checked_values("inputs", inputs), checked_values("context", context)
        plan = self._planned(values, overlay, complete=True)
        self._warn_unused(plan, values, overlay)
        executor = executor or LocalExecutor()
        run = Run(plan, order=executor.order, keep=keep, fail_fast=fail_fast, run_id=run_id)
        result = execute(run, executor)
        if raise_on_failure:
            result.raise_for_failure()
        return result

    def run_quietly(self, executor: Executor, *, fail_fast: bool) -> PipelineResult:
        """Run without inputs, and leave it to the caller to tell what failed."""
        refuse_if_loading()
        plan = self._planned({}, {}, complete=True)
        return execute(Run(plan, order=executor.order, fail_fast=fail_fast), executor, quiet=True)

    def _planned(self, inputs: Mapping[str, Any], context: Mapping[str, Any], *, complete: bool) -> Plan:
        scope = Scope(inputs, Context(**{**self.context, **context}), complete)
        return Plan(self.name, self._numbers, self._forms, self._rows, scope)

    def _warn_unused(self, plan: Plan, *given: Mapping[str, Any]) -> None:
        """A misspelled key that no step takes gets a warning."""
        takes_all = any("context" in form.step.signature.names for form in set(self._forms))
        for name in {**self.context, **given[1]} if not takes_all else ():
            if name not in plan.used:
                self._warn_about("context value", name)
        for name in given[0]:
            if name not in plan.used:
                self._warn_about("run input", name)

    def _warn_about(self, what: str, name: str) -> None:
        parameters = {each for form in set(self._forms) for each in form.step.signature.names}
        message = f"{what} {name!r} is used by no step of pipeline {self.name!r}{nearest(name, parameters)}"
        warnings.warn(message, stacklevel=4)

    # -- adding

    def _form(
        self,
        step: Any,
        params: Any,
        place: Place,
        *,
        inputs: Any = None,
        outputs: Any = None,
        after: Any = None,
    ) -> Form:
        known = self._known_step(step)
        if params is not None and not isinstance(params, Mapping):
            raise TypeError(
                f"params of step {known.name!r} must be a mapping of parameter names to values, got {params!r}"
            )
        own = inputs is None
        return Form(
            step=known,
            keys=_checked_keys(params, known.name),
            place=place,
            inputs=known.inputs if own else checked_inputs(inputs, known.name),
            outputs=known.outputs if outputs is None else checked_outputs(outputs, known.name),
            after=checked_outputs(after, known.name),
        )

    def _known_step(self, candidate: Any) -> Step[..., Any]:
        found = self._known_steps.get(id(candidate))
        if found is None:
            found = self._known_steps[id(candidate)] = (candidate, as_step(candidate))
        return found[1]

    def _append(self, form: Form, name: str, row: tuple[Any, ...]) -> None:
        number = len(self._forms)
        if type(name) is not str or not name:
            raise TypeError(_bad_name(form, name))
        if self._numbers.setdefault(name, number) != number:
            raise PipelineNameError(_name_taken(name, self._forms[self._numbers[name]], form))
        self._forms.append(form)
        self._rows.append(row)


class PipelineNameError(FlowymlError, ValueError):
    """A step name is taken."""


def _name_taken(name: str, first: Form, second: Form) -> str:
    message = f"step {name!r} was added already at {first.place}, and again at {second.place}"
    if first.place == second.place or first.place.code.co_filename.startswith("<ipython"):
        return f"{message}; give each its own name=, or in a notebook re-create the Pipeline in the same cell"
    return f"{message}; give one of them another name="


def _bad_name(form: Form, name: object) -> str:
    if name == "":
        return f"{form.step.func!r} has no name of its own; give add_step(..., name=)"
    return f"the name of a step must be a string, got {type(name).__name__} {name!r}"


def _checked_keys(params: Mapping[str, Any] | None, step: str) -> tuple[str, ...]:
    keys = tuple(params or ())
    for key in keys:
        if not isinstance(key, str):
            raise TypeError(f"params of step {step!r} must have parameter names as keys, got {key!r}")
    return keys


def _checked_items(items: Any) -> Sequence[Any]:
    if isinstance(items, range):
        return items
    if isinstance(items, (str, bytes)):
        raise TypeError(
            f"map() takes items one by one, got the {type(items).__name__} {items!r:.40}; use list(...) if you mean it"
        )
    try:
        return list(items)
    except TypeError:
        raise TypeError(f"map() takes an iterable of items, got {type(items).__name__}") from None


def _warn_out_of_scope(where: str, unknown: Mapping[str, object], known: Sequence[str]) -> None:
    strange = [name for name in unknown if name not in _OUT_OF_SCOPE]
    if strange:
        raise TypeError(unknown_keywords(where, strange, known))
    if unknown:
        names = ", ".join(sorted(unknown))
        warnings.warn(f"{where} ignores {names}: out of scope of this package", UserWarning, stacklevel=3)


def checked_values(what: str, values: Any) -> Mapping[str, Any]:
    """Return named values as a mapping.

    Raises:
        TypeError: If they are none.
    """
    if values is None:
        return {}
    if isinstance(values, Mapping):
        return dict(values)
    raise TypeError(f"run({what}=) takes a mapping of names to values, got {type(values).__name__}")


def as_context(values: Any) -> Context:
    """Return a context as it is, and a mapping as a new one.

    Raises:
        TypeError: If it is neither.
    """
    if values is None:
        return Context()
    if isinstance(values, Context):
        return values
    if isinstance(values, Mapping):
        return Context(**values)
    raise TypeError(f"Pipeline(context=) takes a Context or a mapping, got {type(values).__name__}")


def checked_executor(executor: Any) -> Executor | None:
    """Return an executor or `None` as it is.

    Raises:
        TypeError: If it is neither.
    """
    if executor is None or isinstance(executor, Executor):
        return executor
    text = executor.__name__ + " (the class; make one: call it)" if isinstance(executor, type) else repr(executor)
    raise TypeError(f"executor must be a LocalExecutor, a ParallelExecutor or another Executor, got {text}")
