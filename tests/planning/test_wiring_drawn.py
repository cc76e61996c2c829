"""Drawn pipelines: the plan, what `explain` says and what a run passes are what a plain binder gives each step.

Steps that one line adds, or that were added alike, share what was decided about the first of them. The plain binder
(`plain_binder.py`) shares nothing.
"""

from __future__ import annotations

import inspect
import itertools
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from example_counts import LONG, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_binder import FUNCTIONS, Add, Bound, Case, Refused, Spec, Sub, built, is_glob, none, pair

from flowyml import LocalExecutor
from flowyml.errors import PipelineValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flowyml import Executor
    from flowyml.graph.dag import DAG

# What no step takes is drawn, too.
pytestmark = pytest.mark.filterwarnings("ignore:.*(is used by no|reaches no) step:UserWarning")

# Names that are parameters of the functions are among those of steps, of the run's inputs and of the contexts.
STEPS = ["s0", "s1", "s2", "g_0", "g_1", "g_2", "a", "b", "c", "left[0]"]
RUN_INPUTS = ["d0", "d1", "b"]
CONTEXT = ["c", "d2", "a"]
PATTERNS = ["g_*", "s?", "*_[01]", "*.g_*", "[ab]"]


class Drawing:
    """Draws a case from a seed: ten times as fast as strategies, which 20,000 cases need."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.one_of = self.random.choice

    def once_in(self, times: int) -> bool:
        return self.random.randrange(times) == 0

    def some(self, names: list[Any], most: int, least: int = 0) -> list[Any]:
        return [self.one_of(names) for _ in range(self.random.randint(least, max(least, most)))] if names else []

    def case(self) -> Case:
        inputs = [] if self.once_in(4) else [name for name in RUN_INPUTS if not self.once_in(4)]
        spec = self.pipeline(inputs, [], 0)
        context = {name: f"run context {name}" for name in CONTEXT if self.once_in(5)}
        return Case(spec, {name: f"run {name}" for name in inputs}, context)

    def valid(self, *, dynamic: bool = False) -> Case:
        """Draw a case and leave out what makes it wrong."""
        case = self.case()
        for name in ["dynamic", "another"] if dynamic else []:
            known = [name for part in case.spec.parts for name in assets_of(part)]
            case.spec.parts.append(Sub(name, self.pipeline(list(case.inputs), known, 1), dynamic=True))
        for _ in range(100):
            try:
                Bound(case)
            except Refused as refused:
                if refused.part is None:
                    break
                leave_out(case.spec, refused.part)
            else:
                break
        return case

    def pipeline(self, inputs: list[str], around: list[str], depth: int) -> Spec:
        """Draw a pipeline; `around` are names that the one around it, if there is one, may give."""
        spec = Spec([], {name: f"context {name} {depth}" for name in CONTEXT if self.once_in(4)})
        free = [name for name in self.random.sample(STEPS, len(STEPS)) if name not in inputs]
        sources = self.random.randint(1, 3)
        spec.parts += [Add(name, none) for name in free[:sources]]
        names = itertools.chain(free[sources:], (f"t{number}" for number in itertools.count()))
        kinds = ["line", "line", "line", "pair", "map", "sub", "sub"] if depth < 2 else ["line", "line", "map", "pair"]
        for _ in range(self.random.randint(1, 4)):
            known = [name for part in spec.parts for name in assets_of(part)]
            reach = [*known, *known, *inputs, *around, *self.some(PATTERNS, 1)]
            kind = self.one_of(kinds)
            if kind == "line":
                spec.parts += self.line(names, reach)
            elif kind == "map":
                spec.parts += self.maps(names, reach)
            elif kind == "sub":
                spec.parts += self.sub_pipelines(names, inputs, known, depth)
            else:
                spec.parts += self.pairs(names, reach)
        if self.once_in(5):
            self.random.shuffle(spec.parts)
        return spec

    def line(self, names: Iterator[str], reach: list[str]) -> list[Add]:
        """Draw steps of one function, whose inputs are given in one way or several, most of them added by one line."""
        func = self.one_of(FUNCTIONS)
        takes = inspect.signature(func).parameters
        named = [each.name for each in takes.values() if each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}]
        keys = self.some(named, 1)
        width = (
            self.random.randint(0, len(named) - len(keys)) if len(takes) == len(named) else self.random.randint(0, 4)
        )
        spread = {"rest": reach} if "rest" in takes else {}
        shapes = self.some(["list", "list", "list", "mapping", "nested", "name", "none"], 2, 1)
        steps = []
        for _ in range(self.random.randint(2, 4)):
            own, shape, name = self.some(reach, width, width), self.one_of(shapes), next(names)
            inputs: Any = own
            if shape == "mapping":
                inputs = dict(zip(self.random.sample(named, len(named)), own, strict=False))
            elif shape == "nested":
                inputs = {self.one_of(named): own, **{each: self.some(reach, 2) for each in spread}}
            elif shape == "name":
                inputs = own[0] if own else None
            elif shape == "none":
                inputs = None
            step = Add(name, func, {key: f"param {key} of {name}" for key in keys} or None, inputs)
            if self.once_in(4):
                step.alone = True
                step.joins = self.once_in(3)
                step.after = tuple(each for each in self.some(reach, 1) if not is_glob(each))
            steps.append(step)
        return steps

    def pairs(self, names: Iterator[str], reach: list[str]) -> list[Add]:
        """Draw steps of one line with two outputs, or with one that has another name than its step."""
        width, func = self.random.randint(0, 2), self.one_of([pair, pair, FUNCTIONS[2]])
        steps = []
        for _ in range(self.random.randint(1, 3)):
            name = next(names)
            outputs = (f"{name}.x", f"{name}.y") if func is pair else (f"{name}.x",)
            step = Add(name, func, inputs=self.some(reach, width, width) or None, outputs=outputs)
            step.alone = self.once_in(4)
            steps.append(step)
        return steps

    def maps(self, names: Iterator[str], reach: list[str]) -> list[Add]:
        """Draw a mapped step, and perhaps one over it."""
        first = Add(next(names), self.one_of(FUNCTIONS), over=self.one_of([["i0", "i1"], ["i2"], "g_*"]))
        first.inputs = self.some(reach, 2) or None
        second = Add(next(names), self.one_of(FUNCTIONS), over=first.name)
        second.inputs = self.some([*reach, first.name], 1) or None
        return [first, second][: self.random.randint(1, 2)]

    def sub_pipelines(self, names: Iterator[str], inputs: list[str], known: list[str], depth: int) -> list[Sub]:
        """Draw a sub-pipeline, which may be there twice and be given something else."""
        spec = self.pipeline(inputs, known, depth + 1)
        subs = []
        for _ in range(self.random.randint(1, 2)):
            sub = Sub(next(names), spec)
            if self.once_in(3):
                own = {name for name in needs_of(spec) if not self.once_in(3)}
                around = [*known, *known, *inputs, "g_*", known[:2]]
                sub.given = {name: self.one_of(around) for name in sorted(own)}
            if self.once_in(2):
                exported = self.one_of([name for part in spec.parts for name in assets_of(part)])
                sub.exports = {exported: f"{sub.name}_{exported}"}
            if self.once_in(3):
                sub.after = (self.one_of(known),)
            subs.append(sub)
        return subs


def assets_of(part: Add | Sub) -> list[str]:
    if isinstance(part, Add):
        return list(part.outputs or (part.name,))
    if part.dynamic:
        return []
    inner = [name for each in part.spec.parts for name in assets_of(each)]
    return [*(f"{part.name}.{name}" for name in inner), *part.exports.values()]


def leave_out(spec: Spec, part: Add | Sub) -> None:
    spec.parts = [each for each in spec.parts if each is not part]
    for each in spec.parts:
        if isinstance(each, Sub):
            leave_out(each.spec, part)


def needs_of(spec: Spec) -> set[str]:
    """Return the names that steps of a pipeline read and none of them produces."""
    own = {name for part in spec.parts for name in assets_of(part)}
    read: set[str] = set()
    for part in spec.parts:
        if isinstance(part, Sub):
            read |= needs_of(part.spec) if part.given is None else {*filter(str_only, part.given.values())}
        elif part.inputs is not None:
            wanted = part.inputs.values() if isinstance(part.inputs, dict) else [part.inputs]
            read |= {name for each in wanted for name in ([each] if isinstance(each, str) else each)}
    return {name for name in read if name not in own and not is_glob(name)}


def str_only(wanted: Any) -> bool:
    return isinstance(wanted, str)


def held(case: Case, executor: Executor) -> None:
    """Hold a pipeline against the plain binder: who waits for whom, what `explain` says, what steps return."""
    pipeline = built(case.spec)
    try:
        bound = Bound(case)
    except Refused:
        with pytest.raises(PipelineValidationError):
            pipeline.run(case.inputs, context=case.context, executor=executor)
        return
    dag = pipeline.dag
    for name, binding in bound.bindings.items():
        if name in bound.coming:
            continue
        assert set(dag.edges[name]) == binding.waits_for(), name
        assert explained(dag, name) == bound.explained(name), name
    expected = bound.values()
    with suppress(PipelineValidationError):  # it may be that only a run gives its inputs
        pipeline.build()  # the run may take over what this has wired
    result = pipeline.run(case.inputs, context=case.context, executor=executor)
    assert result.success, result.summary()
    found = {name: result.step_results[name].output for name in expected}
    assert len(result.step_results) == len(expected) + sum(space.is_dynamic for space in bound.whole.spaces)
    assert {name: list(each) if isinstance(expected[name], list) else each for name, each in found.items()} == expected


def explained(dag: DAG, name: str) -> dict[str, tuple[str, ...]]:
    """Return the assets that each parameter gets, those of `*args` under a star."""
    assets: dict[str, tuple[str, ...]] = {}
    for argument in dag.explain(name).arguments:
        key = "*" if argument.parameter.startswith("*") else argument.parameter
        if argument.assets:
            assets[key] = (*assets.get(key, ()), *argument.assets)
    return assets


SEEDS = st.integers(0, 2**64)


@given(seed=SEEDS)
@settings(max_examples=examples(500, 20_000))
def test_any_pipeline_is_wired_as_the_plain_binder_says(seed: int) -> None:
    held(Drawing(seed).valid(), LocalExecutor())


@given(seed=SEEDS)
@settings(max_examples=examples(50, 4_000))
def test_steps_that_a_dynamic_step_returns_are_wired_as_the_plain_binder_says(seed: int) -> None:
    held(Drawing(seed).valid(dynamic=True), LocalExecutor())


@given(seed=SEEDS)
@settings(max_examples=examples(50, 2_000))
def test_what_the_plain_binder_refuses_is_refused(seed: int) -> None:
    held(Drawing(seed).case(), LocalExecutor())


@given(seed=SEEDS)
@settings(max_examples=examples(15, 500))
def test_steps_get_the_same_on_every_executor(executor: Executor, seed: int) -> None:
    held(Drawing(seed).valid(), executor)


# ---- all of a small kind ---------------------------------------------------------------------------------------------

# What one of two inputs may be: a step, a value of the run, an output of a step with two, what nothing declares.
EACH = ["s0", "s1", "d0", "d1", "m.x"]
WAYS: list[Any] = [
    *map(list, itertools.product(EACH, EACH)),
    *({"left": name} for name in EACH),
    *({"right": name} for name in EACH),
    None,
]


def both(left: Any = "default", right: Any = "default") -> tuple[Any, Any]:
    return left, right


def of_one_line(ways: Iterable[Any]) -> Case:
    spec = Spec([Add("s0", none), Add("s1", none)], {"right": "context"})
    if any("m.x" in names_of(way) for way in ways):
        spec.parts.append(Add("m", pair, outputs=("m.x", "m.y")))
    spec.parts += [Add(f"r{number}", both, None, inputs) for number, inputs in enumerate(ways)]
    return Case(spec, {"d0": "run d0", "d1": "run d1"})


def names_of(way: Any) -> list[str]:
    return [] if way is None else list(way.values() if isinstance(way, dict) else way)


@pytest.mark.parametrize("first", WAYS, ids=str)
def test_steps_with_two_inputs_behind_any_first_step_of_their_line_get_their_own(first: Any) -> None:
    without_outputs = [way for way in WAYS if "m.x" not in names_of(way)]
    held(of_one_line([first, *WAYS]), LocalExecutor())
    held(of_one_line([first, *without_outputs]), LocalExecutor())


@pytest.mark.parametrize("count", [2, 3])
def test_any_two_or_three_steps_of_one_line_are_planned_as_each_alone(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan checks that itself, see `planning/verification.py`."""
    monkeypatch.setenv("FLOWYML_VERIFY_FAST_PATHS", "1")
    inputs = dict.fromkeys(["d0", "d1"], "run")
    ways = WAYS if LONG or count < 3 else WAYS[:25:3] + WAYS[25::4]
    for each in itertools.product(ways, repeat=count):
        built(of_one_line(each).spec).build(inputs)
