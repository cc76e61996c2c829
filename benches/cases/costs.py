"""What is on, and what it adds to a step that does nothing: a journal, the cache, limits that are declared and not hit.

Each case stands beside the same pipeline without it, measured one after the other; a bar is the difference.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING, Any, ClassVar

import flowyml
from cases.contract import Bar, Case, Group
from cases.pair import Pair
from cases.steps import executor_of
from cases.steps_by_hand import noop

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figures

FULL, QUICK = 1, 0
MAP = {FULL: 1_000_000, QUICK: 300}
CHAIN = {FULL: 50_000, QUICK: 50}
CACHED = {FULL: 20_000, QUICK: 50}
BACKENDS = ("local", "process")
LIMITS: dict[str, Any] = {"timeout": 60, "retry": 3, "resources": {"cpu": 0.001}}


class On(Case):
    """One mapped step, with options of the pipeline and of the step."""

    counts: ClassVar[dict[int, int]] = MAP
    backend: ClassVar[str]
    pipeline_options: ClassVar[dict[str, Any]] = {}
    step_options: ClassVar[dict[str, Any]] = {}

    def start(self) -> None:
        """Let the workers run something."""
        self.units = self.counts[self.size]
        self.executor: Any = executor_of(self.backend)
        flowyml.Pipeline("warm").map(noop, range(100)).run(executor=self.executor)
        self.folder = tempfile.mkdtemp()

    def define(self) -> None:
        """Begin with empty folders."""
        folders = {"checkpoint_dir": f"{self.folder}/journal", "cache_dir": f"{self.folder}/cache"}
        self.pipeline = flowyml.Pipeline("on", **folders, **self.pipeline_options)  # type: ignore[arg-type]
        self.pipeline.map(noop, range(self.units), **self.step_options)

    phases = ("define", "run")

    def run(self) -> None:
        self.result = self.pipeline.run(executor=self.executor)

    def check(self) -> None:
        assert self.result.success
        self.forget()

    def forget(self) -> None:
        """Leave nothing for the next round."""
        shutil.rmtree(f"{self.folder}/cache", ignore_errors=True)

    def stop(self) -> None:
        self.executor.shutdown()
        shutil.rmtree(self.folder)


class Hop(On):
    """A chain of steps that end one by one."""

    counts = CHAIN

    def define(self) -> None:
        self.pipeline = flowyml.Pipeline("on", checkpoint_dir=self.folder, **self.pipeline_options)
        self.pipeline.add_step(noop, "0", {"i": 0})
        for k in range(1, self.units):
            self.pipeline.add_step(noop, str(k), inputs={"i": str(k - 1)})


class Hit(On):
    """What a run before it has stored."""

    def define(self) -> None:
        super().define()
        self.pipeline.run(executor=self.executor)


class Task:
    """What a translator of graphs makes for each step: a function and its arguments."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments


class Steps(On):
    """Steps that are added one by one, with a parameter of their own each."""

    counts = CACHED
    make: ClassVar[Callable[[int], object]] = staticmethod(int)

    def define(self) -> None:
        self.pipeline = flowyml.Pipeline("on")
        for k in range(self.units):
            self.pipeline.add_step(noop, str(k), {"i": self.make(k)}, **self.step_options)


class Pairs(Steps):
    """The same, with two outputs each."""

    def define(self) -> None:
        self.pipeline = flowyml.Pipeline("on")
        for k in range(self.units):
            self.pipeline.add_step(two, str(k), {"i": k}, outputs=[f"{k}.a", f"{k}.b"])


def two(i: int) -> tuple[int, int]:
    return i, i


_JOURNAL: dict[str, Any] = {"pipeline_options": {"enable_checkpointing": True}}
_CACHE: dict[str, Any] = {"step_options": {"cache": True}, "counts": CACHED}
WAYS: dict[str, tuple[type[On], dict[str, Any]]] = {
    "map": (On, {}),
    "map, journal": (On, _JOURNAL),
    "map, limits": (On, {"step_options": LIMITS}),
    "chain": (Hop, {}),
    "chain, journal": (Hop, _JOURNAL),
    "some": (On, {"counts": CACHED}),
    "some, cache miss": (On, _CACHE),
    "some, cache hit": (Hit, _CACHE),
    "steps": (Steps, {}),
    "steps, an object each": (Steps, {"make": staticmethod(Task)}),
    "steps, two outputs": (Pairs, {}),
}
# What is allowed on top of the same without it, in microseconds a step; a hit in all.
MOST = {
    "map, journal": 4.0,
    "map, limits": 0.3,
    "chain, journal": 4.0,
    "some, cache miss": 60.0,
    "steps, an object each": 20.0,
    "steps, two outputs": 5.0,
}
MOST_OF_A_HIT = 30.0


def _name(way: str, backend: str) -> str:
    return f"{way}, {backend}"


def _added(way: str, backend: str) -> Callable[[Figures], float | None]:
    def read(figures: Figures) -> float | None:
        names = _name(way, backend), _name(way.partition(",")[0], backend)
        costs = [figures.cost("costs", name, FULL, ("run",)) for name in names]
        return None if costs[0] is None or costs[1] is None else max(0.0, costs[0] - costs[1])

    return read


def _hit(backend: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.cost("costs", _name("some, cache hit", backend), FULL, ("run",))


def _bars() -> tuple[Bar, ...]:
    unit = "us per step"
    added = [
        Bar(f"{way}, on top of the same without, {backend}", most, _added(way, backend), unit)
        for way, most in MOST.items()
        for backend in BACKENDS
    ]
    return (*added, *(Bar(f"cache hit, {backend}", MOST_OF_A_HIT, _hit(backend), unit) for backend in BACKENDS))


GROUP = Group(
    title="What is on and adds to a step",
    unit=("us per step", 1e6),
    cases={
        _name(way, backend): type("On", (kind,), {"backend": backend, **options})
        for backend in BACKENDS
        for way, (kind, options) in WAYS.items()
    },
    sizes={FULL: 3},
    quick={QUICK: 1},
    pairs=tuple(
        Pair(_name(way, backend), _name(way.partition(",")[0], backend), ("run",), "run")
        for backend in BACKENDS
        for way in MOST
    ),
    bars=_bars(),
)
