"""Drawn fan-outs against a reference that says in plain Python what a mapped step is.

Lists that steps produce, mapped steps over them and over each other, side by side or in all combinations, with items
that fail, and tasks that survive some failures: every executor gives the states and values of the reference.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml import LocalExecutor, Pipeline, map_task

if TYPE_CHECKING:
    from flowyml import Executor, PipelineResult

GOOD, FAILED, LOST = "success", "failed", "upstream_failed"
Item = tuple[str, Any]
"""State and value."""


class Unlucky(Exception):  # noqa: N818
    """What a step raises that was drawn to fail."""


def produced(value: Any) -> Any:
    if value is None:
        raise Unlucky
    return value


def worked(bad: frozenset[int], *columns: int) -> int:
    number = 0
    for column in columns:
        number = (number * 31 + column + 1) % 1_000
    if number % 5 in bad:
        raise Unlucky(number)
    return number


def work(bad: frozenset[int], a: int) -> int:
    return worked(bad, a)


def work_two(bad: frozenset[int], a: int, b: int) -> int:
    return worked(bad, a, b)


@dataclass(eq=False)
class Source:
    """A step that produces a list, or a number, or fails where it is `None`."""

    name: str
    value: Any


@dataclass(eq=False)
class Mapped:
    """A mapped step over sources, mapped steps and given lists."""

    name: str
    columns: list[Source | Mapped | list[int]]
    product: bool = False
    bad: frozenset[int] = frozenset()
    ratio: float | None = None
    items: list[Item] | None = field(default=None, init=False)  # of the reference; `None`: it has none
    state: str = field(default=GOOD, init=False)  # as who reads all of it sees it

    # -- the reference

    def known(self) -> int | None:
        """Return its length, if that is known before a run."""
        lengths = [None if isinstance(each, Source) else length(each) for each in self.columns]
        if None in lengths:
            return None
        return math.prod(lengths) if self.product else lengths[0]  # type: ignore[arg-type]

    def origin(self) -> Mapped:
        """Return the step whose length it has for sure."""
        if self.known() is None and not self.product and all(isinstance(each, Mapped) for each in self.columns):
            origins = {id(each.origin()): each.origin() for each in self.columns if isinstance(each, Mapped)}
            if len(origins) == 1 and all(each.known() is None for each in self.columns if isinstance(each, Mapped)):
                return next(iter(origins.values()))
        return self

    def by_item(self) -> bool:
        follows = any(isinstance(each, Mapped) for each in self.columns)
        return follows and not self.product and (self.origin() is not self or self.known() is not None)

    def run(self) -> None:
        whole = [
            each
            for each in self.columns
            if isinstance(each, Source) or (isinstance(each, Mapped) and not self.by_item())
        ]
        lost = any(each.value is None if isinstance(each, Source) else each.state != GOOD for each in whole)
        roots = [each for each in self.columns if isinstance(each, Mapped) and self.by_item()]
        if lost or any(not each.items and each.state != GOOD for each in roots):
            known = self.known()
            self.items = None if known is None else [(LOST, None)] * known
            self.state = LOST
            return
        lists = [column_of(each) for each in self.columns]
        fits = self.product or len({len(each or ()) for each in lists}) <= 1
        if any(each is None for each in lists) or not fits:
            self.items, self.state = None, FAILED
            return
        rows = itertools.product(*lists) if self.product else zip(*lists, strict=True)  # type: ignore[arg-type]
        self.items = [self.item(row) for row in rows]
        failures = sum(state != GOOD for state, _ in self.items)
        total = len(self.items)
        survives = 0 if self.ratio is None else total - math.ceil(total * self.ratio - 1e-9)
        none_ran = total > 0 and all(state == LOST for state, _ in self.items)
        self.state = GOOD if failures <= survives and not none_ran else FAILED

    def item(self, row: tuple[Item, ...]) -> Item:
        if any(state != GOOD for state, _ in row):
            return (LOST if self.by_item() else FAILED), None
        try:
            return GOOD, worked(self.bad, *(value for _, value in row))
        except Unlucky:
            return FAILED, None


def length(column: Mapped | list[int]) -> int | None:
    return column.known() if isinstance(column, Mapped) else len(column)


def column_of(column: Source | Mapped | list[int]) -> list[Item] | None:
    """Return the items of a list; `None` where it is none."""
    if isinstance(column, Mapped):
        return column.items
    values = column.value if isinstance(column, Source) else column
    return [(GOOD, value) for value in values] if isinstance(values, list) else None


# ---- the package ---------------------------------------------------------------------------------------------------


def built(steps: list[Source | Mapped]) -> Pipeline:
    pipeline = Pipeline("drawn")
    for step in steps:
        if isinstance(step, Source):
            pipeline.add_step(produced, step.name, {"value": step.value})
            continue
        function: Any = work if len(step.columns) == 1 else work_two
        function = function if step.ratio is None else map_task(min_success_ratio=step.ratio)(function)
        over = {
            name: each if isinstance(each, list) else each.name for name, each in zip("ab", step.columns, strict=False)
        }
        combine: Any = "product" if step.product else "zip"
        pipeline.map(function, over=over, combine=combine, name=step.name, params={"bad": step.bad})
        pipeline.add_step(list, f"all_{step.name}", inputs=[step.name])
    return pipeline


def facts(result: PipelineResult, step: Mapped) -> tuple[Any, str]:
    done = result.step_results[step.name]
    items: list[Item] = [(str(each.state), each.output if each.success else None) for each in done.items]
    read = result.step_results[f"all_{step.name}"]
    return items or str(done.state), str(read.state)


def wanted(step: Mapped) -> tuple[Any, str]:
    read = GOOD if step.state == GOOD else LOST
    return step.items or (GOOD if step.items == [] and step.state == GOOD else step.state), read


# ---- what is drawn -------------------------------------------------------------------------------------------------


@st.composite
def drawn(draw: st.DrawFn) -> list[Source | Mapped]:
    numbers = st.lists(st.integers(0, 9), max_size=4)
    steps: list[Source | Mapped] = []
    for rank in range(draw(st.integers(1, 7))):
        mapped = bool(steps) and draw(st.integers(0, 3)) > 0
        if not mapped:
            steps.append(Source(f"s{rank}", draw(numbers | numbers | numbers | st.none() | st.just(3))))
            continue
        column = st.sampled_from(steps) | st.sampled_from(steps) | numbers
        columns = draw(st.lists(column, min_size=1, max_size=2))
        step = Mapped(f"m{rank}", columns, product=len(columns) == 2 and draw(st.booleans()))
        step.bad = draw(st.frozensets(st.integers(0, 4), max_size=2))
        step.ratio = draw(st.none() | st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]))
        known = {length(each) for each in columns if not isinstance(each, Source)} - {None}
        if step.product or len(known) <= 1:  # else it is a build error
            steps.append(step)
    return steps


def check(steps: list[Source | Mapped], order: list[Source | Mapped], executor: Executor) -> None:
    mapped = [step for step in steps if isinstance(step, Mapped)]
    for step in mapped:
        step.run()
    result = built(order).run(executor=executor)
    assert {step.name: facts(result, step) for step in mapped} == {step.name: wanted(step) for step in mapped}
    assert result.success == (
        all(step.value is not None for step in steps if isinstance(step, Source))
        and all(step.state == GOOD and all(good_or_survived(step)) for step in mapped)
    )


def good_or_survived(step: Mapped) -> list[bool]:
    return [state == GOOD or step.ratio is not None for state, _ in step.items or []]


@settings(max_examples=examples(40, 200))
@given(st.data())
def test_drawn_fan_outs_locally(data: Any) -> None:
    steps = data.draw(drawn())
    check(steps, data.draw(st.permutations(steps)), LocalExecutor())


@settings(max_examples=examples(15, 40))
@given(drawn())
def test_drawn_fan_outs_on_every_executor(executor: Executor, steps: list[Source | Mapped]) -> None:
    check(steps, steps, executor)


def test_the_reference_knows_all_ways() -> None:
    """What the tests above compare is not all alike."""
    source = Source("s", [1, 2, 3])
    first = Mapped("a", [source], ratio=0.5)
    second, whole = Mapped("b", [first]), Mapped("c", [first, source])
    for step in (first, second, whole):
        step.run()
    assert [step.by_item() for step in (first, second, whole)] == [False, True, False]
