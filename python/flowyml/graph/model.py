"""The model that all pictures are rendered from: boxes in execution order, made of a plan.

More than `MAX_SINGLE_BOXES` steps of one declared step with equal options and the same dependencies share a box: ten
thousand chunks are one box, and so are the ten thousand steps that each read one of them. Inputs of the run have boxes,
too.
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
    """One box: a step, several similar steps, or an input of the run.

    Attributes:
        first: Name of the step, or of the first of several.
        label: The name under which the step was declared, often that of its function.
        dependencies: The boxes that it depends on, by position.
        last: Name of the last of several steps.
        size: Number of steps that it represents.
        items: Number of items of a mapped step (each, if there are several); `UNKNOWN` if it is known only at run time.
        given: True for an input that `run(inputs=)` has to give.
        groups: Full names of the sub-pipelines that it is in, from the outermost to the innermost.
        decides: True for a decision between steps.
        manner: Short notes on other conditions of its run: "join", "if large", "conditional".
        answers: Decisions that it depends on, by position, and the answer with which it runs.
        state: The final state after a run; "" before.
        note: A remark on that state.
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
        """The title without the name of its sub-pipeline."""
        prefix = f"{self.groups[-1]}." if self.groups else ""
        inside = self._replace(first=self.first.removeprefix(prefix), last=self.last.removeprefix(prefix))
        return inside.title

    @property
    def optional(self) -> bool:
        """True if something other than its dependencies decides whether it runs."""
        return bool(self.answers) or any(note != JOIN for note in self.manner)

    @property
    def detail(self) -> str:
        """Additional text: number, declared name, conditions; "" for a step with its own name."""
        parts = (self._many(), "decision" if self.decides else "", *self.manner)
        return ", ".join(filter(None, parts))

    def _many(self) -> str:
        what = "run inputs" if self.given else self.label
        if self.size > 1:
            items_text = "" if self.items is None else f", {item_count_text(self.items)} each"
            return f"{self.size:,} x {what}{items_text}"
        if self.items is not None:
            return f"{item_count_text(self.items)}{self.of(' of ')}"
        return "run input" if self.given else ""

    def of(self, before: str = "") -> str:
        """Return the declared name if it differs from the step's name."""
        return "" if self.label in {self.first, "", "lambda"} else f"{before}{self.label}"


def item_count_text(items: int) -> str:
    """Return a number of items as text."""
    return "items known at run time" if items == UNKNOWN else pluralize(items, "item")


@dataclass(frozen=True, slots=True)
class GraphModel:
    """A graph to be rendered.

    Attributes:
        name: Name of the pipeline.
        boxes: In execution order, then those that are in or after a cycle.
        ordered: Number of boxes in execution order.
    """

    name: str
    boxes: tuple[NodeBox, ...]
    ordered: int

    @property
    def edges(self) -> list[tuple[int, int]]:
        """All edges as (dependency, dependent), in the order of the dependents."""
        return [(before, position) for position, box in enumerate(self.boxes) for before in box.dependencies]

    def answer(self, before: int, position: int) -> str:
        """Return the answer of a decision that a dependent box requires; "" for other edges."""
        return dict(self.boxes[position].answers).get(before, "")

    @property
    def groups(self) -> dict[str, list[int]]:
        """The positions of the boxes in each sub-pipeline and its own sub-pipelines; outer ones first."""
        groups: dict[str, list[int]] = {}
        for position, box in enumerate(self.boxes):
            for name in box.groups:
                groups.setdefault(name, []).append(position)
        return groups

    def nested(self) -> Iterator[int | tuple[str, str] | None]:
        """Yield the boxes group by group.

        Yields:
            The position of a box; at the start of a group, its full name and its name in the outer one; `None` at
                its end.
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


# Similar steps up to this number have a box each.
MAX_SINGLE_BOXES = 20


class BoxOutcome(NamedTuple):
    """The outcome of the steps in a box.

    Attributes:
        state: Their state.
        note: A remark on the state.
        items: Number of items of a mapped step (each, if there are several).
    """

    state: str
    note: str
    items: int | None


def picture_of(
    plan: Plan,
    dependencies: Sequence[Sequence[int]],
    outcome_of: Callable[[Sequence[int]], BoxOutcome] | None = None,
) -> GraphModel:
    """Return the model of a plan.

    Args:
        plan: The plan, valid or not.
        dependencies: The dependencies of each step.
        outcome_of: After a run, returns the outcome of the steps that share a box.
    """
    count = len(plan.names)
    names = [*plan.names, *plan.undefined]
    before = _with_inputs(plan, dependencies)
    groups = fold(_kinds(plan), before, MAX_SINGLE_BOXES)
    group_of = {node: at for at, nodes in enumerate(groups) for node in nodes}
    waits = [sorted({group_of[other] for node in nodes for other in before[node]}) for nodes in groups]
    ordered = _in_order(groups, waits, count)
    shown = [*ordered, *sorted(set(range(len(groups))) - set(ordered))]
    place = {node: position for position, at in enumerate(shown) for node in groups[at]}
    boxes = [_box(plan, names, groups[at], before, place) for at in shown]
    if outcome_of is not None:
        boxes = [
            box if box.given else box._replace(**outcome_of(groups[at])._asdict())
            for box, at in zip(boxes, shown, strict=True)
        ]
    return GraphModel(plan.name, tuple(boxes), len(ordered))


def _with_inputs(plan: Plan, dependencies: Sequence[Sequence[int]]) -> list[list[int]]:
    """Add the inputs of the run as dependencies, with ids after those of the steps."""
    before = [*map(list, dependencies), *([] for _ in plan.undefined)]
    for number, nodes in enumerate(plan.undefined.values(), len(dependencies)):
        for node in nodes:
            before[node].append(number)
    return before


def _kinds(plan: Plan) -> list[Hashable]:
    """Return keys that are equal for nodes that may share a box: same declared step, items and options; or inputs."""
    mapped = plan.item_index.mapped
    by_form = {spec: (id(spec.step), _alike(spec.options), id(spec.within)) for spec in set(plan.specs)}
    lengths = (plan.length_of(node) if node in mapped else None for node in range(len(plan.specs)))
    steps = ((by_form[spec], length) for spec, length in zip(plan.specs, lengths, strict=True))
    return [*steps, *("input" for _ in plan.undefined)]


def _in_order(groups: list[list[int]], waits: list[list[int]], count: int) -> list[int]:
    """Return the groups in add order as far as dependencies allow, inputs first; without those of cycles."""
    by_first = sorted(range(len(groups)), key=lambda at: (groups[at][0] < count, groups[at][0]))
    rank = {at: position for position, at in enumerate(by_first)}
    return [by_first[at] for at in add_order([[rank[other] for other in waits[at]] for at in by_first])]


def _box(
    plan: Plan, names: Sequence[str], nodes: list[int], before: Sequence[Sequence[int]], place: Mapping[int, int]
) -> NodeBox:
    first, last, size = names[nodes[0]], names[nodes[-1]], len(nodes)
    dependencies = tuple(sorted({place[other] for node in nodes for other in before[node]}))
    if nodes[0] >= len(plan.names):
        return NodeBox(first, first, dependencies, last, size, given=True)
    spec = plan.specs[nodes[0]]
    box = NodeBox(
        first,
        spec.step.name or first,
        dependencies,
        last,
        size,
        plan.length_of(nodes[0]),
        decides=_decides(spec),
        groups=_groups(spec.within),
    )
    answers = tuple((place[other], answer) for other, answer in _answers(plan, spec, before[nodes[0]]))
    return box if box.decides else box._replace(manner=_manner(spec.options), answers=answers)


def _groups(namespace: Namespace | None) -> tuple[str, ...]:
    return () if namespace is None else (*_groups(namespace.outer), namespace.name)


# ---- options in a picture ------------------------------------------------------------------------------------------


def _decides(spec: StepSpec) -> bool:
    return isinstance(spec.step.func, Decision)


def _answers(plan: Plan, spec: StepSpec, before: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Yield the decisions that a branch depends on, each with the answer that chooses it."""
    predicates = (guard.predicate for guard in spec.options.guards)
    wanted = {branch.decision: branch.told for branch in predicates if isinstance(branch, BranchPredicate)}
    for node in before if wanted else ():
        decision = plan.specs[node] if node < len(plan.specs) else None
        if decision and _decides(decision) and decision.step.name in wanted:
            yield node, wanted[decision.step.name]


def _manner(options: StepOptions) -> tuple[str, ...]:
    """Return notes on the conditions of a step, by name if they have one."""
    guards = [guard for guard in options.guards if not isinstance(guard.predicate, BranchPredicate)]
    names = [(getattr(guard.predicate, "__name__", ""), guard.wanted) for guard in guards]
    if any(not name.isidentifier() for name, _ in names):  # a lambda has no name
        notes = ["conditional"]
    else:
        notes = [f"{'if' if wanted else 'unless'} {name}" for name, wanted in names]
    return (*notes, JOIN) if options.run_if == "any" else tuple(notes)


def _alike(options: StepOptions) -> Hashable:
    """Return a key that is equal for equal options; lambdas with the same code are equal."""
    return None if options is NO_OPTIONS else tuple(_key(getattr(options, option.name)) for option in fields(options))


def _key(value: Any) -> Hashable:
    if isinstance(value, tuple):
        return tuple(map(_key, value))
    if isinstance(value, Guard):
        return _key(value.predicate), value.wanted
    if isinstance(value, BranchPredicate):
        return repr(value)
    value = getattr(value, "__code__", value)
    return value if isinstance(value, Hashable) else repr(value)
