"""From a plan to a picture: like steps folded, inputs of the run beside the steps, everything in execution order.

A group has more than `MOST_ALIKE` steps of one declared step, with like options, that wait for the same: ten thousand
chunks are one box, and so are the ten thousand steps that each read one of them.

What a picture of a graph shows: boxes, and which waits for which.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.diagnostics.text import pluralize
from flowyml.graph.ordering import add_order, fold
from flowyml.planning.item_index import UNKNOWN
from flowyml.steps.conditions import Guard
from flowyml.steps.control_flow import BranchPredicate, Decision
from flowyml.steps.options import NO_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flowyml.planning.namespaces import Namespace
    from flowyml.planning.plan import Plan
    from flowyml.planning.step_spec import StepSpec
    from flowyml.steps.options import StepOptions


JOIN = "join"


class NodeBox(NamedTuple):
    """One box: a step, several like steps, or an input of the run.

    Attributes:
        first: Name of the step; of several, of the first.
        label: The name under which the step was declared, often that of its function.
        dependencies: The boxes that it waits for, by position.
        last: Name of the last of several steps.
        size: How many steps it stands for.
        items: How many items a mapped step has (each, if there are several); `UNKNOWN` if only a run tells.
        given: Whether it is an input that `run(inputs=)` has to give, and no step.
        groups: The sub-pipelines that it is in, by their whole names, from the outmost to the inmost.
        decides: Whether it is a decision between steps.
        manner: What else decides whether it runs, in a few words: "join", "if large", "conditional".
        answers: Decisions that it waits for, by position, and the answer with which it runs.
        state: After a run, how it ended; "" before.
        note: What else there is to say of that.
    """

    first: str
    label: str
    dependencies: tuple[int, ...] = ()
    last: str = ""
    size: int = 1
    items: int | None = None
    given: bool = False
    groups: tuple[str, ...] = ()
    decides: bool = False
    manner: tuple[str, ...] = ()
    answers: tuple[tuple[int, str], ...] = ()
    state: str = ""
    note: str = ""

    @property
    def title(self) -> str:
        """The name, or the first and the last of several."""
        return self.first if self.size == 1 else f"{self.first} ... {self.last}"

    @property
    def short_title(self) -> str:
        """The title for a place where its sub-pipeline is named already."""
        prefix = f"{self.groups[-1]}." if self.groups else ""
        inside = self._replace(first=self.first.removeprefix(prefix), last=self.last.removeprefix(prefix))
        return inside.title

    @property
    def optional(self) -> bool:
        """Whether something beside its dependencies decides whether it runs."""
        return bool(self.answers) or any(each != JOIN for each in self.manner)

    @property
    def detail(self) -> str:
        """What else there is to say: how many, of what, and when; "" for a step under its own name."""
        parts = (self._many(), "decision" if self.decides else "", *self.manner)
        return ", ".join(filter(None, parts))

    def _many(self) -> str:
        what = "run inputs" if self.given else self.label
        if self.size > 1:
            each = "" if self.items is None else f", {told(self.items)} each"
            return f"{self.size:,} x {what}{each}"
        if self.items is not None:
            return f"{told(self.items)}{self.of(' of ')}"
        return "run input" if self.given else ""

    def of(self, before: str = "") -> str:
        """Return what the step was declared as, where that is not its name."""
        return "" if self.label in {self.first, "", "lambda"} else f"{before}{self.label}"


def told(items: int) -> str:
    """Return a number of items in words."""
    return "items known at run time" if items == UNKNOWN else pluralize(items, "item")


@dataclass(frozen=True, slots=True)
class GraphModel:
    """A graph to be drawn.

    Attributes:
        name: Name of the pipeline.
        boxes: In execution order, then those that are in or behind a cycle.
        ordered: How many of them are in execution order.
    """

    name: str
    boxes: tuple[NodeBox, ...]
    ordered: int

    @property
    def edges(self) -> list[tuple[int, int]]:
        """All edges as (dependency, dependent), in the order of the dependents."""
        return [(before, position) for position, box in enumerate(self.boxes) for before in box.dependencies]

    def answer(self, before: int, position: int) -> str:
        """Return what a decision must have answered for a box that waits for it; "" for other edges."""
        return dict(self.boxes[position].answers).get(before, "")

    @property
    def groups(self) -> dict[str, list[int]]:
        """By sub-pipeline the boxes in it, also those in further ones, by position; outer ones first."""
        groups: dict[str, list[int]] = {}
        for position, box in enumerate(self.boxes):
            for name in box.groups:
                groups.setdefault(name, []).append(position)
        return groups

    def nested(self) -> Iterator[int | tuple[str, str] | None]:
        """Go through the boxes group by group.

        Yields:
            The position of a box; where a group begins, its whole name and its name in the one around it; `None` where
            it ends.
        """
        yield from self._within(range(len(self.boxes)), 0, "")

    def _within(self, positions: Iterable[int], depth: int, prefix: str) -> Iterator[int | tuple[str, str] | None]:
        parts: dict[str | int, list[int]] = {}
        for position in positions:
            groups = self.boxes[position].groups
            parts.setdefault(groups[depth] if len(groups) > depth else position, []).append(position)
        for part, members in parts.items():
            if isinstance(part, int):
                yield part
            else:
                yield part, part.removeprefix(prefix)
                yield from self._within(members, depth + 1, f"{part}.")
                yield None


# As many like steps are told one by one.
MOST_ALIKE = 20


class BoxOutcome(NamedTuple):
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
    told: Callable[[Sequence[int]], BoxOutcome] | None = None,
) -> GraphModel:
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
    return GraphModel(plan.name, tuple(boxes), len(ordered))


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
) -> NodeBox:
    first, last, size = names[nodes[0]], names[nodes[-1]], len(nodes)
    dependencies = tuple(sorted({place[each] for node in nodes for each in before[node]}))
    if nodes[0] >= len(plan.names):
        return NodeBox(first, first, dependencies, last, size, given=True)
    form = plan.forms[nodes[0]]
    box = NodeBox(
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


def _decides(form: StepSpec) -> bool:
    return isinstance(form.step.func, Decision)


def _answers(plan: Plan, form: StepSpec, before: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Go through the decisions that a branch waits for, each with the answer that chooses it."""
    told = {each.decision: each.told for each in _predicates(form.options) if isinstance(each, BranchPredicate)}
    for node in before if told else ():
        decision = plan.forms[node] if node < len(plan.forms) else None
        if decision and _decides(decision) and decision.step.name in told:
            yield node, told[decision.step.name]


def _manner(options: StepOptions) -> tuple[str, ...]:
    """Say what else decides whether a step runs: names of conditions, as far as they have any."""
    guards = [guard for guard in options.guards if not isinstance(guard.predicate, BranchPredicate)]
    names = [(getattr(guard.predicate, "__name__", ""), guard.wanted) for guard in guards]
    if any(not name.isidentifier() for name, _ in names):  # a lambda says nothing
        told = ["conditional"]
    else:
        told = [f"{'if' if wanted else 'unless'} {name}" for name, wanted in names]
    return (*told, JOIN) if options.run_if == "any" else tuple(told)


def _predicates(options: StepOptions) -> Iterator[Any]:
    return (guard.predicate for guard in options.guards)


def _alike(options: StepOptions) -> Hashable:
    """Return what is equal for options that say the same; a lambda that a loop makes anew is the same."""
    return None if options is NO_OPTIONS else tuple(_key(getattr(options, each.name)) for each in fields(options))


def _key(value: Any) -> Hashable:
    if isinstance(value, tuple):
        return tuple(map(_key, value))
    if isinstance(value, Guard):
        return _key(value.predicate), value.wanted
    if isinstance(value, BranchPredicate):
        return repr(value)
    value = getattr(value, "__code__", value)
    return value if isinstance(value, Hashable) else repr(value)
