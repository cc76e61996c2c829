"""Given values: steps that do not run because the caller of `run` gives their values.

```
run(given={"load": rows, "model": m}) ──given_values──▶ values by step ──with_given──▶ Columns with them as params
```

Imported by runs with `given=`. In the columns such a step is a function of one parameter without dependencies
(`steps/outcomes.py`); its inputs, conditions and options are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import did_you_mean, join_names
from flowyml.errors import OutputMismatchError, PipelineValidationError
from flowyml.planning.map_inputs import MapColumn, MapInput, as_items
from flowyml.steps.options import StepOptions
from flowyml.steps.outcomes import SINGLE_USE_TYPES, given_value
from flowyml.steps.step import step_calling
from flowyml.store.value_store import split_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowyml.planning.plan import Plan
    from flowyml.planning.step_spec import StepColumns, StepSpec


def given_values(plan: Plan, given: Mapping[str, Any]) -> dict[int, Any]:
    """Return the whole value of each given step, by the id of the step.

    Args:
        plan: All steps, valid or not.
        given: Values by name of a step or asset.

    Raises:
        PipelineValidationError: With everything that is wrong.
    """
    values: dict[int, Any] = {}
    parts: dict[int, dict[int, Any]] = {}
    problems: list[str] = []
    for name, value in given.items():
        node, output = _found(plan, name)
        if node is None:
            problems.append(_unknown(plan, name))
        elif node in values or (node in parts and output is None):
            problems.append(
                f"given: the value of step {plan.names[node]!r} is given twice, the second time as {name!r}"
            )
        elif type(value) in SINGLE_USE_TYPES:
            problems.append(f"given: {name!r} is a {type(value).__name__}, which can be read only once; make it a list")
        elif output is None:
            values[node] = value
        else:
            parts.setdefault(node, {})[output] = value
    for node, found in parts.items():
        outputs = plan.assets_of(node)
        missing = [outputs[at] for at in range(len(outputs)) if at not in found]
        if missing:
            problems.append(
                f"given: step {plan.names[node]!r} has {len(outputs)} outputs, {join_names(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not given; give all of them, or the step"
            )
        values[node] = tuple(found.get(at) for at in range(len(outputs)))
    problems += [] if problems else [each for node in values if (each := _misfit(plan, node, values[node]))]
    if problems:
        raise PipelineValidationError(problems, plan.name)
    return values


def _found(plan: Plan, name: str) -> tuple[int | None, int | None]:
    """Return the step and output that a name means; an asset takes precedence over a step of that name."""
    found = plan.assets.find(name)
    return (plan.numbers.get(name), None) if found is None else found


def _unknown(plan: Plan, name: str) -> str:
    if plan.assets.steps(name) is not None:
        return f"given: {name!r} is a sub-pipeline; give values of its steps, as in {name + '.step'!r}"
    known = [*plan.names, *plan.all_assets()]
    near = did_you_mean(name, known)
    item = name.rpartition("[")[0]
    if item in plan.numbers:
        return f"given: {name!r} is one item; give the list of the values of all items as {item!r}"
    hint = near or "; what no step produces is given as run(inputs=)"
    return f"given: {name!r} is no step or asset of this pipeline{hint}"


def _misfit(plan: Plan, node: int, value: Any) -> str | None:
    """Return why a step cannot have this value; `None` if it can."""
    spec, name = plan.specs[node], plan.names[node]
    try:
        if spec.map_input is not None:
            as_items(value)
        elif len(spec.outputs) > 1:
            split_outputs(value, spec.parts, name)
    except OutputMismatchError as error:
        count, names = len(error.outputs), error.outputs
        return (
            f"given: the value of step {name!r} must be a tuple or list of {count} values, or a dict with the keys "
            f"{names}, got {error.returned}"
        )
    except TypeError as error:
        if spec.map_input is None:  # a part of it can be read only once
            return f"given: an output in the value of step {name!r} can be read only once; make it a list"
        return f"given: the value of the mapped step {name!r} must be a list with one entry for each item, got {error}"
    return None


def with_given(columns: StepColumns, values: Mapping[int, Any]) -> StepColumns:
    """Return the columns in which the steps with these ids have these values."""
    specs, rows, reads = list(columns.specs), list(columns.rows), list(columns.reads)
    for node, value in values.items():
        specs[node], rows[node], reads[node] = _given(specs[node], value), value, ()
        if specs[node].map_input is not None:
            rows[node] = ()
    return columns._replace(specs=specs, rows=rows, reads=reads)


def _given(spec: StepSpec, value: Any) -> StepSpec:
    step = step_calling(spec.step, given_value)
    options = StepOptions(given=True, tags=spec.options.tags)
    changes: dict[str, Any] = {"step": step, "inputs": None, "after": (), "options": options}
    if spec.map_input is None:
        return spec.replace(**changes, keys=("value",))
    over = MapInput((MapColumn(None, as_items(value)),), terms=spec.map_input.terms)
    return spec.replace(**changes, keys=(), map_input=over)
