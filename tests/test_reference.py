"""Drawn pipelines against a reference: fifty lines that read the wiring rules as plainly as they are written.

A drawn pipeline has steps and mapped steps, added in any order, with params, single assets, one of several outputs,
lists and globs as inputs, `after`, and steps and items that fail. Every executor must give what the reference gives:
the state of each step and item, its value, the type of its error.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml import Executor, LocalExecutor, ParallelExecutor, Pipeline, PipelineResult

if TYPE_CHECKING:
    from collections.abc import Iterator


class Unlucky(Exception):  # noqa: N818
    """What a step raises that was drawn to fail."""


def digest(value: Any) -> int:
    """Return a number that tells values and their order apart."""
    if not isinstance(value, (list, tuple)):
        return value
    total = len(value) + 1
    for each in value:
        total = (total * 1_000_003 + digest(each)) % (1 << 40)
    return total


def mix(own: int, bad: frozenset[int], outputs: int, *others: Any) -> Any:
    """Be any step: return one number, or as many as there are outputs."""
    if own in bad:
        raise Unlucky(own)
    number = digest([own, *others])
    return number if outputs == 1 else tuple(number + part for part in range(outputs))


def mix_gathered(own: int, bad: frozenset[int], outputs: int, gathered: Any) -> Any:
    """Be a step that takes a list in one parameter."""
    return mix(own, bad, outputs, list(gathered))


def mix_item(bad: frozenset[int], item: int, *others: Any) -> int:
    """Be a mapped step."""
    return mix(item, bad, 1, *others)


@dataclass
class Drawn:
    """One drawn step; `inputs` are assets and globs, `gathers` puts them all in one parameter."""

    name: str
    own: int
    inputs: list[str]
    gathers: bool = False
    outputs: int = 1
    items: list[int] | None = None
    after: list[str] = field(default_factory=list)
    bad: frozenset[int] = frozenset()

    @property
    def assets(self) -> list[str]:
        return [self.name] if self.outputs == 1 else [f"{self.name}_{part}" for part in range(self.outputs)]


# ---- the reference -------------------------------------------------------------------------------------------------


class Reference:
    """Runs drawn steps one by one, each after what it needs."""

    def __init__(self, steps: list[Drawn]) -> None:
        self.steps = {step.name: step for step in steps}
        self.makers = {asset: (step, part) for step in steps for part, asset in enumerate(step.assets)}
        self.outcomes: dict[str, list[tuple[str, Any]]] = {}
        self.lost: set[str] = set()  # did not run; a mapped step without items has no item to say so

    def matched(self, reader: Drawn, name: str) -> list[str]:
        if name in self.makers:
            return [name]
        return [
            asset for asset, (step, _) in self.makers.items() if fnmatch.fnmatch(asset, name) and step is not reader
        ]

    def outcome(self, step: Drawn) -> list[tuple[str, Any]]:
        """Return state and value (or error) of each item of a step."""
        if step.name not in self.outcomes:
            self.outcomes[step.name] = self.run(step)
        return self.outcomes[step.name]

    def run(self, step: Drawn) -> list[tuple[str, Any]]:
        count = 1 if step.items is None else len(step.items)
        read = [asset for name in step.inputs for asset in self.matched(step, name)]
        needed = [self.makers[asset][0] for asset in read] + [self.steps[name] for name in step.after]
        if any(state != "success" for before in needed for state, _ in self.outcome(before)) or self.lost.intersection(
            before.name for before in needed
        ):
            self.lost.add(step.name)
            return [("upstream_failed", None)] * count
        arguments = list(self.arguments(step, read))
        own = [step.own] if step.items is None else step.items
        return [self.call(step, each, arguments) for each in own]

    def arguments(self, step: Drawn, read: list[str]) -> Iterator[Any]:
        values = {asset: self.value(asset) for asset in read}
        if step.gathers:
            alone = len(read) == 1 and self.makers[read[0]][0].items is not None
            yield values[read[0]] if alone else [values[asset] for asset in read]
            return
        for name in step.inputs:
            assets = self.matched(step, name)
            mapped_alone = len(assets) == 1 and self.makers[assets[0]][0].items is not None
            if mapped_alone:
                yield from values[assets[0]]
            else:
                yield from (values[asset] for asset in assets)

    def value(self, asset: str) -> Any:
        step, part = self.makers[asset]
        values = [value for _, value in self.outcome(step)]
        if step.items is not None:
            return values
        return values[0] if step.outputs == 1 else values[0][part]

    @staticmethod
    def call(step: Drawn, own: int, arguments: list[Any]) -> tuple[str, Any]:
        try:
            return "success", mix(own, step.bad, step.outputs, *arguments)
        except Unlucky:
            return "failed", "Unlucky"


# ---- the package ---------------------------------------------------------------------------------------------------


def built(steps: list[Drawn]) -> Pipeline:
    pipeline = Pipeline("drawn")
    for each in steps:
        outputs = each.assets if each.outputs > 1 else None
        inputs = {"gathered": each.inputs} if each.gathers else each.inputs
        if each.items is not None:
            pipeline.map(
                mix_item, each.items, name=each.name, params={"bad": each.bad}, inputs=inputs, after=each.after
            )
            continue
        params = {"own": each.own, "bad": each.bad, "outputs": each.outputs}
        func = mix_gathered if each.gathers else mix
        if each.after or outputs:
            pipeline.add_step(func, each.name, params, inputs=inputs, outputs=outputs, after=each.after)
        else:
            pipeline.add_step(func, each.name, params, inputs=inputs)
    return pipeline


def facts(result: PipelineResult, steps: list[Drawn]) -> dict[str, list[tuple[str, Any]]]:
    def fact(each: Any) -> tuple[str, Any]:
        error = type(each.exception).__name__ if each.exception else None
        return str(each.state), each.output if each.success else error

    found = {step.name: result.step_results[step.name] for step in steps}
    return {
        step.name: [fact(found[step.name])] if step.items is None else [fact(item) for item in found[step.name].items]
        for step in steps
    }


# ---- what is drawn -------------------------------------------------------------------------------------------------


@st.composite
def pipelines(draw: st.DrawFn) -> list[Drawn]:
    """Draw steps that read assets of steps of lower rank, added in any order."""
    steps: list[Drawn] = []
    assets: list[str] = []
    for rank in range(draw(st.integers(1, 10))):
        name = f"n{rank}"
        names = [*assets, *(f"n[0-{top}]*" for top in range(rank))]
        inputs = draw(st.lists(st.sampled_from(names), max_size=3, unique=True)) if names else []
        items = draw(st.none() | st.none() | st.lists(st.integers(0, 5), max_size=4))
        plain = items is None
        each = Drawn(
            name,
            own=draw(st.integers(0, 5)),
            inputs=inputs,
            gathers=plain and bool(inputs) and draw(st.booleans()),
            outputs=draw(st.sampled_from([1, 1, 2, 3])) if plain else 1,
            items=items,
            after=draw(st.lists(st.sampled_from([step.name for step in steps]), max_size=2, unique=True))
            if steps
            else [],
            bad=draw(st.sampled_from([frozenset(), frozenset(), frozenset({3}), frozenset({0, 1})])),
        )
        steps.append(each)
        assets += each.assets
    return draw(st.permutations(steps))


def check(steps: list[Drawn], executor: Executor) -> None:
    reference = Reference(steps)
    wanted = {step.name: reference.outcome(step) for step in steps}
    result = built(steps).run(executor=executor)
    assert facts(result, steps) == wanted
    assert list(result.step_results) == list(wanted)
    assert result.success == all(state == "success" for items in wanted.values() for state, _ in items)


@given(steps=pipelines())
@settings(max_examples=200)
def test_the_local_executor_is_the_reference(steps: list[Drawn]) -> None:
    check(steps, LocalExecutor())


@pytest.fixture(scope="module")
def threads() -> Iterator[Executor]:
    with ParallelExecutor(3, backend="thread") as executor:
        yield executor


@given(steps=pipelines())
@settings(max_examples=200)
def test_threads_are_the_reference(threads: Executor, steps: list[Drawn]) -> None:
    check(steps, threads)


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ParallelExecutor(2) as executor:
        yield executor


@given(steps=pipelines())
@settings(max_examples=15)
def test_processes_are_the_reference(processes: Executor, steps: list[Drawn]) -> None:
    check(steps, processes)
