"""Targets: the part of a pipeline that `run(targets=)` selects, with all steps that it needs.

```
Plan of all steps, valid or not ──chosen──▶ steps and what they wait for, near or far ──▶ Columns of these alone
```

Imported by runs with `targets=`. The other steps need not be valid: a part of a pipeline can run while the rest of it
still lacks a step or a value.
"""

from __future__ import annotations

import fnmatch
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from flowyml.diagnostics.text import did_you_mean
from flowyml.graph.dag import edges_of
from flowyml.planning.binding import bind
from flowyml.planning.namespaces import inside
from flowyml.planning.problems import Problems
from flowyml.planning.step_spec import StepColumns
from flowyml.steps.declarations import has_tag, step_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowyml.planning.globs import Found
    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.namespaces import Namespace
    from flowyml.planning.plan import Plan
    from flowyml.planning.step_spec import StepSpec

T = TypeVar("T")

_TAG = "tag:"


def narrowed(plan: Plan, targets: Any, scope: Scope) -> StepColumns:
    """Return what was added of the steps that targets name, and of those that they need.

    Args:
        plan: All steps.
        targets: Names of steps, sub-pipelines or assets, globs, "tag:..."; one or several.
        scope: The named values.

    Raises:
        TypeError: If they are no names.
        ValueError: If there are none, or one of them names nothing.
        PipelineValidationError: If a step produces what is an input of the run.
    """
    nodes = sorted(_with_dependencies(plan, _chosen(plan, targets)))
    unused = Problems(plan.names, plan.specs, plan.unused_run_inputs(scope.inputs))
    unused.raise_all(plan.name)
    names = {plan.names[node]: number for number, node in enumerate(nodes)}
    specs, namespaces = _of(plan.specs, nodes), _namespaces(plan, nodes, scope) if plan.namespaces else {}
    if namespaces:
        moved = {spec: _moved(spec, namespaces) for spec in dict.fromkeys(specs)}
        specs = [moved[spec] for spec in specs]
    kept = [namespaces[each] for each in plan.namespaces if each in namespaces]
    return StepColumns(names, specs, _of(plan.rows, nodes), _of(plan.reads, nodes), kept)


def _of(column: list[T], nodes: list[int]) -> list[T]:
    return [column[node] for node in nodes]


def _chosen(plan: Plan, targets: Any) -> set[int]:
    if isinstance(step_of(targets), str):
        targets = [targets]
    if not isinstance(targets, Iterable):
        raise TypeError(f"targets must be names of steps or assets, got {type(targets).__name__} {targets!r:.60}")
    chosen: set[int] = set()
    for target in map(step_of, targets):
        if not isinstance(target, str):
            raise TypeError(f"targets must be names of steps or assets, got {type(target).__name__} {target!r:.60}")
        found = set(_named(plan, target))
        if not found:
            raise ValueError(_unknown(plan, target))
        chosen |= found
    if not chosen:
        raise ValueError("targets names no step; leave it out to run all of them")
    return chosen


def _named(plan: Plan, target: str) -> Iterator[int]:
    """Yield the steps that one target means; an exact name takes precedence."""
    steps = plan.assets.steps(target)
    if steps is not None:
        yield from steps
    elif (found := plan.assets.find(target)) is not None:
        yield found[0]
    elif target.startswith(_TAG):
        wanted = target.removeprefix(_TAG)
        yield from (node for node, spec in enumerate(plan.specs) if has_tag(spec.options.tags or {}, wanted))
    else:
        for node in range(len(plan.names)):
            if any(fnmatch.fnmatchcase(name, target) for name in (plan.names[node], *plan.assets_of(node))):
                yield node


def _unknown(plan: Plan, target: str) -> str:
    if target.startswith(_TAG):
        tags = dict.fromkeys(tag for spec in plan.specs for tag in spec.options.tags or ())
        return (
            f"targets: no step has the tag {target.removeprefix(_TAG)!r}{did_you_mean(target.removeprefix(_TAG), tags)}"
        )
    known = [*plan.names, *plan.all_assets(), *(each.name for each in plan.namespaces)]
    return f"targets: {target!r} is no step, sub-pipeline or asset{did_you_mean(target, known)}"


def _namespaces(plan: Plan, nodes: list[int], scope: Scope) -> dict[Namespace, Namespace]:
    """Return the sub-pipelines of the chosen steps, reduced to these steps."""
    for seen in plan.assets.inner.values():
        seen.asked.clear()
    for node in nodes:  # wired once more, to see what they ask the pipeline around them for
        if plan.specs[node].within is not None:
            bind(plan.specs[node], plan.assets, scope, plan.reads[node], without=node)
    kept: dict[Namespace, Namespace] = {}
    for each in reversed(plan.namespaces):
        steps = range(bisect_left(nodes, each.steps.start), bisect_left(nodes, each.steps.stop))
        if steps:
            within: Any = inside(plan.assets, each)
            found = {asset: within.find(asset) for asset in each.exports}
            kept[each] = replace(
                each,
                steps=steps,
                outer=None if each.outer is None else kept[each.outer],
                given=each.given and {name: wanted for name, wanted in each.given.items() if name in within.asked},
                exports={asset: name for asset, name in each.exports.items() if _is_of(found[asset], nodes)},
            )
    return kept


def _is_of(found: Found | None, nodes: list[int]) -> bool:
    return found is not None and nodes[min(bisect_left(nodes, found[0]), len(nodes) - 1)] == found[0]


def _moved(spec: StepSpec, namespaces: Mapping[Namespace, Namespace]) -> StepSpec:
    return spec if spec.within is None else spec.replace(within=namespaces[spec.within])


def _with_dependencies(plan: Plan, nodes: set[int]) -> set[int]:
    seen, waiting, links = set(nodes), list(nodes), edges_of(plan)
    while waiting:
        new = [each for each in links.dependencies(waiting.pop()) if each not in seen]
        seen.update(new)
        waiting += new
    return seen
