"""From a plan to a picture: like steps folded, inputs of the run beside the steps, everything in execution order.

A group has more than `MOST_ALIKE` steps of one declared step, with like options, that wait for the same: ten thousand
chunks are one box, and so are the ten thousand steps that each read one of them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml._order import add_order, fold
from flowyml.report.graph.picture import JOIN, Box, Picture
from flowyml.steps.conditions import Guard
from flowyml.steps.control import Chosen, Decision
from flowyml.steps.options import NO_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flowyml.planning.forms import Form
    from flowyml.planning.namespaces import Namespace
    from flowyml.planning.plan import Plan
    from flowyml.steps.options import Options

# As many like steps are told one by one.
MOST_ALIKE = 20


class After(NamedTuple):
    """How the steps of a box have ended.

    Attributes:
        state: Their state.
        note: What there is to say of it.
        items: How many items a mapped step had (each, if there are several).
    """

    state: str
    note: str
    items: int | None


def picture_of(
    plan: Plan,
    dependencies: Sequence[Sequence[int]],
    told: Callable[[Sequence[int]], After] | None = None,
) -> Picture:
    """Describe a plan for drawing.

    Args:
        plan: The plan, valid or not.
        dependencies: What each step waits for.
        told: After a run: says how steps that share a box have ended.
    """
    count = len(plan.names)
    names = [*plan.names, *plan.undefined]
    before = _with_inputs(plan, dependencies)
    groups = fold(_kinds(plan), before, MOST_ALIKE)
    group_of = {node: at for at, nodes in enumerate(groups) for node in nodes}
    waits = [sorted({group_of[each] for node in nodes for each in before[node]}) for nodes in groups]
    ordered = _in_order(groups, waits, count)
    shown = [*ordered, *sorted(set(range(len(groups))) - set(ordered))]
    place = {node: position for position, at in enumerate(shown) for node in groups[at]}
    boxes = [_box(plan, names, groups[at], before, place) for at in shown]
    if told is not None:
        boxes = [
            box if box.given else box._replace(**told(groups[at])._asdict())
            for box, at in zip(boxes, shown, strict=True)
        ]
    return Picture(plan.name, tuple(boxes), len(ordered))


def _with_inputs(plan: Plan, dependencies: Sequence[Sequence[int]]) -> list[list[int]]:
    """Let steps wait for the inputs that the run has to give, which are numbered after the steps."""
    before = [*map(list, dependencies), *([] for _ in plan.undefined)]
    for number, nodes in enumerate(plan.undefined.values(), len(dependencies)):
        for node in nodes:
            before[node].append(number)
    return before


def _kinds(plan: Plan) -> list[Hashable]:
    """Return what may be folded: steps of one declared step, as many items, like options; and inputs."""
    mapped = plan.layout.mapped
    by_form = {form: (id(form.step), _alike(form.options), id(form.within)) for form in set(plan.forms)}
    lengths = (plan.length_of(node) if node in mapped else None for node in range(len(plan.forms)))
    steps = ((by_form[form], length) for form, length in zip(plan.forms, lengths, strict=True))
    return [*steps, *("input" for _ in plan.undefined)]


def _in_order(groups: list[list[int]], waits: list[list[int]], count: int) -> list[int]:
    """Return the groups in add order as far as dependencies allow, inputs first; without those of cycles."""
    by_first = sorted(range(len(groups)), key=lambda at: (groups[at][0] < count, groups[at][0]))
    rank = {at: position for position, at in enumerate(by_first)}
    return [by_first[each] for each in add_order([[rank[other] for other in waits[at]] for at in by_first])]


def _box(
    plan: Plan, names: Sequence[str], nodes: list[int], before: Sequence[Sequence[int]], place: Mapping[int, int]
) -> Box:
    first, last, size = names[nodes[0]], names[nodes[-1]], len(nodes)
    dependencies = tuple(sorted({place[each] for node in nodes for each in before[node]}))
    if nodes[0] >= len(plan.names):
        return Box(first, first, dependencies, last, size, given=True)
    form = plan.forms[nodes[0]]
    box = Box(
        first,
        form.step.name or first,
        dependencies,
        last,
        size,
        plan.length_of(nodes[0]),
        decides=_decides(form),
        groups=_groups(form.within),
    )
    answers = tuple((place[each], told) for each, told in _answers(plan, form, before[nodes[0]]))
    return box if box.decides else box._replace(manner=_manner(form.options), answers=answers)


def _groups(namespace: Namespace | None) -> tuple[str, ...]:
    return () if namespace is None else (*_groups(namespace.outer), namespace.name)


# ---- what options mean for a picture -------------------------------------------------------------------------------


def _decides(form: Form) -> bool:
    return isinstance(form.step.func, Decision)


def _answers(plan: Plan, form: Form, before: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Go through the decisions that a branch waits for, each with the answer that chooses it."""
    told = {each.decision: each.told for each in _predicates(form.options) if isinstance(each, Chosen)}
    for node in before if told else ():
        decision = plan.forms[node] if node < len(plan.forms) else None
        if decision and _decides(decision) and decision.step.name in told:
            yield node, told[decision.step.name]


def _manner(options: Options) -> tuple[str, ...]:
    """Say what else decides whether a step runs: names of conditions, as far as they have any."""
    guards = [guard for guard in options.guards if not isinstance(guard.predicate, Chosen)]
    names = [(getattr(guard.predicate, "__name__", ""), guard.wanted) for guard in guards]
    if any(not name.isidentifier() for name, _ in names):  # a lambda says nothing
        told = ["conditional"]
    else:
        told = [f"{'if' if wanted else 'unless'} {name}" for name, wanted in names]
    return (*told, JOIN) if options.run_if == "any" else tuple(told)


def _predicates(options: Options) -> Iterator[Any]:
    return (guard.predicate for guard in options.guards)


def _alike(options: Options) -> Hashable:
    """Return what is equal for options that say the same; a lambda that a loop makes anew is the same."""
    return None if options is NO_OPTIONS else tuple(_key(getattr(options, each.name)) for each in fields(options))


def _key(value: Any) -> Hashable:
    if isinstance(value, tuple):
        return tuple(map(_key, value))
    if isinstance(value, Guard):
        return _key(value.predicate), value.wanted
    if isinstance(value, Chosen):
        return repr(value)
    value = getattr(value, "__code__", value)
    return value if isinstance(value, Hashable) else repr(value)
