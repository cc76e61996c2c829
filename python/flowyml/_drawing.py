"""From a plan to a picture: like steps folded, inputs of the run beside the steps, everything in execution order.

A group has more than `MOST_ALIKE` steps of one declared step that wait for the same: ten thousand chunks are one box,
and so are the ten thousand steps that each read one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml._order import add_order, fold
from flowyml.report.graph.picture import Box, Picture

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from flowyml.namespaces import Namespace
    from flowyml.plan import Plan

# As many like steps are told one by one.
MOST_ALIKE = 20


def picture_of(plan: Plan, dependencies: Sequence[Sequence[int]]) -> Picture:
    """Describe a plan for drawing.

    Args:
        plan: The plan, valid or not.
        dependencies: What each step waits for.
    """
    count = len(plan.names)
    names = [*plan.names, *plan.undefined]
    before = _with_inputs(plan, dependencies)
    groups = fold(_kinds(plan), before, MOST_ALIKE)
    group_of = {node: at for at, nodes in enumerate(groups) for node in nodes}
    waits = [sorted({group_of[each] for node in nodes for each in before[node]}) for nodes in groups]
    ordered = _in_order(groups, waits, count)
    shown = [*ordered, *sorted(set(range(len(groups))) - set(ordered))]
    place = {at: position for position, at in enumerate(shown)}
    boxes = [_box(plan, names, groups[at], tuple(sorted(place[each] for each in waits[at]))) for at in shown]
    return Picture(plan.name, tuple(boxes), len(ordered))


def _with_inputs(plan: Plan, dependencies: Sequence[Sequence[int]]) -> list[list[int]]:
    """Let steps wait for the inputs that the run has to give, which are numbered after the steps."""
    before = [*map(list, dependencies), *([] for _ in plan.undefined)]
    for number, nodes in enumerate(plan.undefined.values(), len(dependencies)):
        for node in nodes:
            before[node].append(number)
    return before


def _kinds(plan: Plan) -> list[Hashable]:
    """Return what may be folded: steps of one declared step with the same number of items, and inputs."""
    by_form = {
        id(form): (id(form.step), None if form.items is None else len(form.items), id(form.within))
        for form in set(plan.forms)
    }
    return [*(by_form[id(form)] for form in plan.forms), *("input" for _ in plan.undefined)]


def _in_order(groups: list[list[int]], waits: list[list[int]], count: int) -> list[int]:
    """Return the groups in add order as far as dependencies allow, inputs first; without those of cycles."""
    by_first = sorted(range(len(groups)), key=lambda at: (groups[at][0] < count, groups[at][0]))
    rank = {at: position for position, at in enumerate(by_first)}
    return [by_first[each] for each in add_order([[rank[other] for other in waits[at]] for at in by_first])]


def _box(plan: Plan, names: Sequence[str], nodes: list[int], dependencies: tuple[int, ...]) -> Box:
    first, last = names[nodes[0]], names[nodes[-1]]
    if nodes[0] >= len(plan.names):
        return Box(first, first, dependencies, last, len(nodes), given=True)
    form = plan.forms[nodes[0]]
    items = None if form.items is None else len(form.items)
    return Box(first, form.step.name or first, dependencies, last, len(nodes), items, groups=_groups(form.within))


def _groups(namespace: Namespace | None) -> tuple[str, ...]:
    return () if namespace is None else (*_groups(namespace.outer), namespace.name)
