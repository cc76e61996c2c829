"""Drawn pipelines against a reference: under a hundred lines that read the rules as plainly as they are written.

A drawn pipeline has steps, mapped steps and sub-pipelines, added in any order, with params and values of contexts,
single assets, one of several outputs, lists and globs as inputs, `after`, conditions, joins, retries, fallbacks, and
steps and items that fail. Every executor must give what the reference gives: the state of each step and item, its
value, the type of its error, how often it was tried. Hooks hear of each of them once.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from example_counts import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml import (
    Executor,
    LocalExecutor,
    ParallelExecutor,
    Pipeline,
    PipelineResult,
    RetryConfig,
    dynamic,
    get_context,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Outcome = tuple[str, Any, int]
"""State, value or type of the error, attempts."""
SMALL = 4


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


def mix(own: int, bad: frozenset[int], flaky: int, outputs: int, *others: Any) -> Any:
    """Be any step: return one number, or as many as there are outputs; fail at the first `flaky` attempts."""
    if own in bad or (flaky and get_context().attempt <= flaky):
        raise Unlucky(own)
    number = digest([own, *others])
    return number if outputs == 1 else tuple(number + part for part in range(outputs))


def mix_gathered(own: int, bad: frozenset[int], flaky: int, outputs: int, gathered: Any) -> Any:
    """Be a step that takes a list in one parameter."""
    return mix(own, bad, flaky, outputs, list(gathered))


def mix_item(bad: frozenset[int], flaky: int, item: int, *others: Any) -> int:
    """Be a mapped step."""
    return mix(item, bad, flaky, 1, *others)


def stand_in(own: int, outputs: int) -> Any:
    """Be the fallback of a step."""
    return -own if outputs == 1 else (-own,) * outputs


def stand_in_item(item: int) -> int:
    """Be the fallback of a mapped step."""
    return -item


def small(own: int) -> bool:
    """Be a condition; its parameter has the name of the step's, or is the only one and gets the item."""
    return own < SMALL


def large_item(item: int) -> bool:
    """Be what `skip_if` asks of an item."""
    return item >= SMALL


@dataclass(eq=False)
class Drawn:
    """One drawn step; `inputs` are assets and globs, `gathers` puts them all in one parameter.

    What is `None` for `own` comes from a context. With `sieve` it runs if its own number, or its item, is small.
    """

    name: str
    own: int | None
    inputs: list[str]
    gathers: bool = False
    outputs: int = 1
    items: list[int] | None = None
    after: list[str] = field(default_factory=list)
    bad: frozenset[int] = frozenset()
    flaky: int = 0
    retries: int = 0
    saved: bool = False
    sieve: bool = False
    joins: bool = False

    @property
    def assets(self) -> list[str]:
        return [self.name] if self.outputs == 1 else [f"{self.name}_{part}" for part in range(self.outputs)]


@dataclass(eq=False)
class Nest:
    """A drawn pipeline, and what goes across its border where it is in another."""

    name: str
    parts: list[Drawn | Nest]
    own: int | None = None
    given: dict[str, str] | None = None
    exports: dict[str, str] = field(default_factory=dict)
    after: list[str] = field(default_factory=list)


# ---- the reference -------------------------------------------------------------------------------------------------


class Reference:
    """Runs the steps of a drawn pipeline one by one, each after what it needs; names are those of the pipeline.

    `fixed` is what `run(context=)` gives for `own`.
    """

    def __init__(self, nest: Nest, fixed: int | None, outer: Reference | None = None) -> None:
        self.nest, self.outer = nest, outer
        self.prefix = f"{outer.prefix}{nest.name}." if outer else ""
        self.own = next(each for each in (fixed, nest.own, outer and outer.own) if each is not None)
        self.all: list[tuple[Reference, Drawn]] = []
        self.called: dict[str, list[tuple[Reference, Drawn]]] = {}  # steps by their name, or their sub-pipeline's
        self.assets: dict[str, tuple[Reference, Drawn, int]] = {}
        self.outcomes: dict[str, list[Outcome]] = {}
        self.lost: dict[str, str] = {}  # did not run; a mapped step without items has no item to say so
        for part in nest.parts:
            inner = Reference(part, fixed, self) if isinstance(part, Nest) else None
            self.called[part.name] = inner.all if inner else [(self, part)]
            self.all += self.called[part.name]
            if inner is None:
                self.assets |= {asset: (self, part, index) for index, asset in enumerate(part.assets)}
                continue
            for asset, made in inner.assets.items():
                exported = {part.exports[asset]: made} if asset in part.exports else {}
                self.assets |= {f"{part.name}.{asset}": made} | exported

    def found(self, name: str, readers: list[Drawn]) -> list[tuple[Reference, Drawn, int]]:
        """Return who produces what has a name or fits a glob: here, else in the pipeline around."""
        if name in self.assets:
            return [self.assets[name]]
        fits = [self.assets[asset] for asset in fnmatch.filter(self.assets, name)]
        here = [made for made in dict.fromkeys(fits) if made[1] not in readers]
        if here or self.outer is None:
            return here
        outer_name = name if self.nest.given is None else self.nest.given[name]
        return self.outer.found(outer_name, [step for _, step in self.all])

    def names(self, name: str) -> bool:
        """Return whether a name is that of an asset and no glob."""
        if name in self.assets or fnmatch.filter(self.assets, name) or self.outer is None:
            return name in self.assets
        return self.outer.names(name if self.nest.given is None else self.nest.given[name])

    def outcome(self, step: Drawn) -> list[Outcome]:
        """Return what came of each item of a step."""
        if step.name not in self.outcomes:
            self.outcomes[step.name] = self.run(step)
        return self.outcomes[step.name]

    def ends(self, step: Drawn) -> set[str]:
        """Return the states in which a step has ended."""
        return {state for state, _, _ in self.outcome(step)} or {self.lost.get(step.name, "success")}

    def run(self, step: Drawn) -> list[Outcome]:
        read = [self.found(name, [step]) for name in step.inputs]
        lacking = self.lacking(step, [ref.ends(each) for ref, each in self.needed(step, read)])
        items = [self.own if step.own is None else step.own] if step.items is None else step.items
        if lacking:
            self.lost[step.name] = lacking
            return [(lacking, None, 0)] * len(items)
        lists = [self.values(group) for group in read]
        arguments = [value for values in lists for value in values]
        if step.gathers:
            arguments = [arguments]
        else:  # `*args` of a mapped step that is named are its values
            named = [
                len(group) == 1 and group[0][1].items is not None and self.names(name)
                for group, name in zip(read, step.inputs, strict=True)
            ]
            arguments = [
                value
                for values, alone in zip(lists, named, strict=True)
                for value in (values[0] if alone and values else values)
            ]
        return [self.call(step, each, arguments) for each in items]

    def needed(self, step: Drawn, read: list[list[tuple[Reference, Drawn, int]]]) -> list[tuple[Reference, Drawn]]:
        needed = [(ref, each) for group in read for ref, each, _ in group]
        needed += [each for name in step.after for each in self.called[name]]
        at = self
        while at.outer is not None:  # the first steps of a sub-pipeline wait for what it waits for
            if not any(each in at.all for each in needed):
                needed += [each for name in at.nest.after for each in at.outer.called[name]]
            at = at.outer
        return needed

    @staticmethod
    def lacking(step: Drawn, ends: list[set[str]]) -> str | None:
        """Return the state of a step that lacks a value that it needs."""
        bad = set().union(*ends) - {"success"}
        if not bad or (step.joins and {"success"} in ends):
            return None
        return "skipped" if bad == {"skipped"} else "upstream_failed"

    @staticmethod
    def values(group: list[tuple[Reference, Drawn, int]]) -> list[Any]:
        """Return the values that are there: that of a mapped step is the list of all its items."""
        found: list[Any] = []
        for ref, step, part in group:
            if ref.ends(step) == {"success"}:
                values = [value for _, value, _ in ref.outcome(step)]
                found.append(values if step.items is not None else values[0][part] if step.outputs > 1 else values[0])
        return found

    @staticmethod
    def call(step: Drawn, own: int, arguments: list[Any]) -> Outcome:
        if step.sieve and own >= SMALL:
            return "skipped", None, 0
        if own in step.bad or step.flaky > step.retries:
            saved = "success", stand_in(own, step.outputs), step.retries + 1
            return saved if step.saved else ("failed", "Unlucky", step.retries + 1)
        return "success", mix(own, frozenset(), 0, step.outputs, *arguments), step.flaky + 1


# ---- the package ---------------------------------------------------------------------------------------------------


def built(nest: Nest) -> Pipeline:
    pipeline = Pipeline(nest.name, context={} if nest.own is None else {"own": nest.own})
    for part in nest.parts:
        if isinstance(part, Nest):
            pipeline.add_sub_pipeline(built(part), part.given, part.exports, after=part.after)
        else:
            add(pipeline, part)
    return pipeline


def add(pipeline: Pipeline, step: Drawn) -> None:
    params: dict[str, Any] = {"bad": step.bad, "flaky": step.flaky}
    options: dict[str, Any] = {"inputs": step.inputs}
    if step.gathers or step.own is None:  # in a list they would fill the parameter `own`
        options["inputs"] = {"gathered" if step.gathers else "others": step.inputs}
    options |= {"after": step.after} if step.after else {}
    options |= {"retry": RetryConfig(step.retries + 1, backoff=0)} if step.retries else {}
    options |= {"run_if": "any"} if step.joins else {}
    if step.items is not None:
        sieve: dict[str, Any] = {"skip_if": large_item} if step.sieve else {}
        sieve |= {"fallback": stand_in_item} if step.saved else {}
        pipeline.map(mix_item, step.items, name=step.name, params=params, **options, **sieve)
        return
    params |= {"outputs": step.outputs} | ({} if step.own is None else {"own": step.own})
    options |= {"outputs": step.assets} if step.outputs > 1 else {}
    options |= {"condition": small} if step.sieve else {}
    options |= {"fallback": stand_in} if step.saved else {}
    pipeline.add_step(mix_gathered if step.gathers else mix, step.name, params, **options)


def facts(result: PipelineResult, mapped: set[str]) -> dict[str, list[Outcome]]:
    def fact(each: Any) -> Outcome:
        error = type(each.exception).__name__ if each.exception else None
        return str(each.state), each.output if each.success else error, each.attempts

    return {
        name: [fact(item) for item in done.items] if name in mapped else [fact(done)]
        for name, done in result.step_results.items()
    }


# ---- what is drawn -------------------------------------------------------------------------------------------------


@st.composite
def pipelines(draw: st.DrawFn) -> Nest:
    return Nest("drawn", draw_parts(draw, draw(st.integers(1, 8)), "n", []), own=draw(st.integers(0, 5)))


def draw_parts(draw: st.DrawFn, size: int, letter: str, around: list[str]) -> list[Drawn | Nest]:
    """Draw parts that read assets of parts of lower rank and what the pipeline around gives, added in any order."""
    parts: list[Drawn | Nest] = []
    assets: list[str] = []
    for rank in range(size):
        names = [*around, *assets]
        after = draw(subset([part.name for part in parts]))
        if letter != "l" and draw(st.integers(0, 3)) == 0:
            nest = draw_nest(draw, f"{letter}s{rank}", letter, names)
            nest.after = after
            inside = Reference(nest, 0).assets
            own = sorted(draw(subset(sorted(inside))))
            nest.exports = {asset: f"{letter}e{rank}_{number}" for number, asset in enumerate(own)}
            assets += [*(f"{nest.name}.{asset}" for asset in inside), *nest.exports.values()]
            assets += [f"{nest.name}.*"] if inside else []
            parts.append(nest)
        else:
            step = draw_step(draw, f"{letter}{rank}", names)
            step.after = after
            assets += [*step.assets, f"{letter}[0-{rank}]*"]
            parts.append(step)
    return draw(st.permutations(parts))


def draw_nest(draw: st.DrawFn, name: str, letter: str, around: list[str]) -> Nest:
    """Draw a sub-pipeline that takes what it lacks by its own names, or what is around by the names there."""
    below = chr(ord(letter) - 1)
    own = draw(st.none() | st.integers(0, 5))
    if draw(st.booleans()):
        return Nest(name, draw_parts(draw, draw(st.integers(0, 4)), below, around), own)
    given = {f"x{number}": asset for number, asset in enumerate(around)}
    parts = draw_parts(draw, draw(st.integers(0, 4)), draw(st.sampled_from([letter, below])), list(given))
    nest = Nest(name, parts, own)
    nest.given = {name: asset for name, asset in given.items() if name in lacking(nest)}
    return nest


def lacking(nest: Nest) -> set[str]:
    """Return the names that are looked for around a drawn pipeline."""
    if nest.given is not None:
        return set(nest.given.values())
    names: set[str] = set()
    for part in nest.parts:
        names |= lacking(part) if isinstance(part, Nest) else set(part.inputs)
    known = Reference(nest, 0).assets
    return {name for name in names if not fnmatch.filter([*known], name) and name not in known}


def draw_step(draw: st.DrawFn, name: str, names: list[str]) -> Drawn:
    items = draw(st.none() | st.none() | st.lists(st.integers(0, 5), max_size=4))
    inputs = draw(subset(names, 3))
    retries = draw(st.sampled_from([0, 0, 0, 1, 2]))
    return Drawn(
        name,
        own=draw(st.none() | st.integers(0, 5)),
        inputs=inputs,
        gathers=items is None and bool(inputs) and draw(st.booleans()),
        outputs=1 if items is not None else draw(st.sampled_from([1, 1, 2, 3])),
        items=items,
        bad=draw(st.sampled_from([frozenset(), frozenset(), frozenset({3}), frozenset({0, 1})])),
        flaky=draw(st.integers(0, retries + 1)) if retries else 0,
        retries=retries,
        saved=draw(st.sampled_from([False, False, True])),
        sieve=draw(st.sampled_from([False, False, True])),
        joins=draw(st.sampled_from([False, False, True])),
    )


def subset(names: list[str], most: int = 2) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), max_size=most, unique=True) if names else st.just([])


def check(nest: Nest, fixed: int | None, executor: Executor) -> None:
    reference = Reference(nest, fixed)
    wanted = {ref.prefix + step.name: ref.outcome(step) for ref, step in reference.all}
    mapped = {ref.prefix + step.name for ref, step in reference.all if step.items is not None}
    overlay = {} if fixed is None else {"own": fixed}
    pipeline, ended = built(nest), []
    pipeline.hooks.on_step_end(lambda step, done: ended.append((step.name, str(done.state))))
    result = pipeline.run(context=overlay, executor=executor)
    assert facts(result, mapped) == wanted
    each = [done for name, step in result.step_results.items() for done in (step.items or [step])]
    assert sorted(ended) == sorted((done.step_name, str(done.state)) for done in each)
    assert list(result.step_results) == list(wanted)
    fine = {"success", "skipped"}
    assert result.success == all(state in fine for items in wanted.values() for state, _, _ in items)


def check_dynamic(nest: Nest, fixed: int | None, executor: Executor) -> None:
    """Let a dynamic step return what was drawn: its steps do what they do as a pipeline of their own."""
    reference = Reference(nest, fixed)
    wanted = {f"made.{ref.prefix}{step.name}": ref.outcome(step) for ref, step in reference.all}
    mapped = {f"made.{ref.prefix}{step.name}" for ref, step in reference.all if step.items is not None}
    whole = Pipeline("whole").add_step(dynamic(name="made")(lambda: built(nest)))
    found = facts(whole.run(context={} if fixed is None else {"own": fixed}, executor=executor), mapped)
    assert len(found.pop("made")) == 1
    assert found == wanted
    assert list(found) == list(wanted)


OVERLAYS = st.none() | st.integers(0, 5)
pytestmark = pytest.mark.filterwarnings("ignore:'own' of run")  # where no step takes it


@given(nest=pipelines(), fixed=OVERLAYS)
@settings(max_examples=examples(30, 200))
def test_the_local_executor_is_the_reference(nest: Nest, fixed: int | None) -> None:
    check(nest, fixed, LocalExecutor())


@pytest.fixture(scope="module")
def threads() -> Iterator[Executor]:
    with ParallelExecutor(3, backend="thread") as executor:
        yield executor


@given(nest=pipelines(), fixed=OVERLAYS)
@settings(max_examples=examples(30, 200))
def test_threads_are_the_reference(threads: Executor, nest: Nest, fixed: int | None) -> None:
    check(nest, fixed, threads)


@given(nest=pipelines(), fixed=OVERLAYS)
@settings(max_examples=examples(20, 100))
def test_what_a_dynamic_step_returns_is_the_reference_too(threads: Executor, nest: Nest, fixed: int | None) -> None:
    check_dynamic(nest, fixed, threads)


@pytest.fixture(scope="module")
def loop() -> Iterator[Executor]:
    with ParallelExecutor(3, backend="async") as executor:
        yield executor


@given(nest=pipelines(), fixed=OVERLAYS)
@settings(max_examples=examples(20, 100))
def test_the_event_loop_is_the_reference(loop: Executor, nest: Nest, fixed: int | None) -> None:
    check(nest, fixed, loop)


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ParallelExecutor(2) as executor:
        yield executor


@given(nest=pipelines(), fixed=OVERLAYS)
@settings(max_examples=examples(12, 50))
def test_processes_are_the_reference(processes: Executor, nest: Nest, fixed: int | None) -> None:
    check(nest, fixed, processes)


@given(nest=pipelines(), fixed=OVERLAYS)
@settings(max_examples=examples(12, 50))
def test_what_a_dynamic_step_returns_in_a_process_is_too(processes: Executor, nest: Nest, fixed: int | None) -> None:
    check_dynamic(nest, fixed, processes)
