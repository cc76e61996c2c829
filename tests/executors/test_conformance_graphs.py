"""Drawn graphs give on every executor what the plainest interpreter gives: values, states and order."""

from __future__ import annotations

import graphlib
from typing import TYPE_CHECKING, Any

from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from test_conformance import facts

from flowyml import Executor, Pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping


def mix(own: int, fails: bool, *others: int) -> int:
    """Return a number that tells the values and the order of what came in."""
    if fails:
        raise ArithmeticError(own)
    return (own + sum(place * other for place, other in enumerate(others, start=1))) % 1_000_003


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, list[str]], set[str]]:
    """Draw dependencies by name, in an add order that need not be a topological one, and the steps that fail."""
    count = draw(st.integers(1, 12))
    names = [f"n{rank}" for rank in range(count)]
    needed = {
        name: draw(st.lists(st.sampled_from(names[:rank]), unique=True, max_size=3)) if rank else []
        for rank, name in enumerate(names)
    }
    order = draw(st.permutations(names))
    failing = draw(st.sets(st.sampled_from(names), max_size=2))
    return {name: needed[name] for name in order}, failing


def expected(needed: Mapping[str, list[str]], failing: set[str]) -> list[tuple[str, str, Any]]:
    """Interpret a graph in the plainest way."""
    states, values = {}, {}
    for name in graphlib.TopologicalSorter(needed).static_order():
        if all(states[other] == "success" for other in needed[name]):
            states[name] = "failed" if name in failing else "success"
        else:
            states[name] = "upstream_failed"
        if states[name] == "success":
            values[name] = mix(int(name[1:]), False, *(values[other] for other in needed[name]))
    errors = {"failed": "ArithmeticError", "upstream_failed": "NoneType"}
    return [(name, states[name], values[name] if name in values else errors[states[name]]) for name in needed]


@given(case=graphs())
@settings(max_examples=examples(20, 60))
def test_any_graph_gives_what_the_plainest_interpreter_gives(executor: Executor, case: Any) -> None:
    needed, failing = case
    pipeline = Pipeline("drawn")
    for name, others in needed.items():
        pipeline.add_step(mix, name, {"own": int(name[1:]), "fails": name in failing}, inputs=others)
    assert facts(pipeline.run(executor=executor)) == expected(needed, failing)
