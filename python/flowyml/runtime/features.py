"""What a run constructs for steps with options, maps, dynamic steps and given values; a plain run does not import it.

```
Plan ──limit_resources──▶ arguments of the scheduler
Run  ──attach_features──▶ given values, retries, breakers, map tasks, expansion, subgraphs
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowyml.errors import SerializationError
from flowyml.store.serialization import encoded
from flowyml.store.value_store import split_outputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flowyml.planning.plan import Plan
    from flowyml.runtime.run import Run
    from flowyml.steps.resources import Capacity


def limit_resources(run: Run, capacity: Capacity | None) -> dict[str, Any]:
    """Return the arguments of the scheduler for what steps may take together."""
    plan = run.plan
    if not (plan.specs_with_options or plan.is_dynamic or _has_map_tasks(plan)):
        return {}
    from flowyml.runtime.resource_limits import ResourceLimits

    run.resource_limits = ResourceLimits(capacity, run.item_index)
    problems: list[tuple[int, str]] = []
    limits = run.resource_limits.limits_of(plan.specs, problems, special=bool(plan.specs_with_options))
    plan.refuse(problems)
    return limits


def attach_features(run: Run) -> None:
    """Construct what the steps of a run ask for."""
    plan = run.plan
    if plan.specs_with_options or plan.is_dynamic:
        from flowyml.runtime.failure_policy import RetryState

        retry_arguments = (plan, run.item_index, run.node_of, run.scheduler, run.seed)
        run.retries = RetryState(*retry_arguments, fallen=run.fallback_errors)
        if any(spec.options.circuit_breaker for spec in plan.specs_with_options.values()):
            attach_breakers(run)
    if run.item_index.mapped or plan.is_dynamic:
        _attach_maps(run)
    if plan.is_dynamic:
        from flowyml.runtime.dynamic_steps import SubgraphInsertion

        run.subgraphs = SubgraphInsertion(plan)
    _give_values(run)


def attach_breakers(run: Run) -> None:
    """Construct the circuits of steps with a breaker, unless the run has some."""
    from flowyml.runtime.failure_policy import CircuitBreakers

    if not any(isinstance(extension, CircuitBreakers) for extension in run.extensions):
        run.attach(CircuitBreakers(run, run.plan.specs_with_options.values()))


def encode_given(run: Run, nodes: Iterable[int]) -> None:
    """Encode the values of given steps.

    Raises:
        SerializationError: If one does not pickle.
    """
    raw = run.values.raw
    for node in nodes:
        items = run.item_index.items_of(node)
        try:
            raw[items.start : items.stop] = map(encoded, raw[items.start : items.stop])
        except SerializationError as error:
            what = f"the given value of step {run.plan.names[node]!r}"
            raise SerializationError(what, error.reason) from error.__cause__


def _attach_maps(run: Run) -> None:
    from flowyml.runtime.expansion import MapExpansion, MapTaskRuns

    if run.plan.is_dynamic or _has_map_tasks(run.plan):
        run.map_tasks = MapTaskRuns(run.plan, run.item_index, run.scheduler, run.failures, run.node_of)
        run.attach(run.map_tasks)
    run.expansion = MapExpansion(
        *(run.plan, run.item_index, run.values, run.scheduler, run.node_of),
        tasks=run.map_tasks,
        tables=run.map_inputs,
        refused=run.expansion_errors,
    )


def _give_values(run: Run) -> None:
    """End the given steps, before their dependents are expanded."""
    for node in run.plan.given_steps():
        spec, items = run.plan.specs[node], run.item_index.items_of(node)
        values: Sequence[Any] = run.plan.row(node)
        if spec.map_input is not None:
            values = spec.map_input.columns[0].source
        elif len(spec.outputs) > 1:
            values = [split_outputs(values[0], spec.parts, run.plan.names[node])]
        run.values.raw[items.start : items.stop] = values
        run.scheduler.give(node)


def _has_map_tasks(plan: Plan) -> bool:
    overs = (plan.specs[node].map_input for node in plan.item_index.mapped)
    return any(over is not None and over.terms is not None for over in overs)
