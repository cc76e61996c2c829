"""What a step costs that does nothing: define, build, run, read every output.

Workers are warm (starting them is the subject of `start.py`), so what is left is the cost of a step and nothing else.
`build` checks the pipeline; `run` plans it again with the run's values, as it does for everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import flowyml
from cases.contract import WORKERS, Bar, Case, Group
from cases.pair import Pair
from cases.steps_by_hand import LOOP, PROCESSES, THREADS, noop

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figures

MILLION = 1_000_000
BACKENDS = ("local", "thread", "process")
WAYS = ("add_step", "map")
BEFORE = ("define", "build")


class AddStep(Case):
    """As many steps as the size says, added one by one."""

    phases = ("define", "build", "run", "collect")
    backend: ClassVar[str]

    def start(self) -> None:
        """Start the workers and let each run something."""
        self.executor = executor_of(self.backend)
        flowyml.Pipeline("warm").map(noop, range(100)).run(executor=self.executor)
        self.outputs: list[int] = []

    def define(self) -> None:
        self.pipeline = flowyml.Pipeline("steps")
        add = self.pipeline.add_step
        for i in range(self.size):
            add(noop, name=f"step_{i}", params={"i": i})

    def build(self) -> None:
        self.pipeline.build()

    def run(self) -> None:
        self.result = self.pipeline.run(executor=self.executor)

    def collect(self) -> None:
        self.outputs = list(self.result.outputs.values())

    def check(self) -> None:
        assert self.result.success
        assert self.outputs == list(range(self.size))

    def stop(self) -> None:
        self.executor.shutdown()


class Map(AddStep):
    """One mapped step with as many items."""

    def define(self) -> None:
        self.pipeline = flowyml.Pipeline("steps").map(noop, range(self.size))

    def collect(self) -> None:
        self.outputs = list(self.result["noop"])


def executor_of(backend: str) -> Any:
    """Return an executor of a backend with as many workers as every baseline has."""
    if backend == "local":
        return flowyml.LocalExecutor()
    return flowyml.ParallelExecutor(max_workers=WORKERS, backend=backend)  # type: ignore[arg-type]


def ours(backend: str, way: str) -> str:
    """Return the name of one of our cases."""
    return f"flowyml {backend} {way}"


def _case(backend: str, way: str) -> type[Case]:
    return type(way, ({"add_step": AddStep, "map": Map}[way],), {"backend": backend})


OURS: dict[str, type[Case]] = {ours(backend, way): _case(backend, way) for backend in BACKENDS for way in WAYS}


def _beside(backend: str, baselines: dict[str, type[Case]]) -> dict[str, type[Case]]:
    """Put baselines between our two cases of a backend: measured one after the other, they meet the same machine."""
    first, second = (ours(backend, way) for way in WAYS)
    return {first: OURS[first], **baselines, second: OURS[second]}


# Which baseline stands beside which backend: the bare loop everywhere, then what somebody would take instead.
_BASELINES = {
    "local": ("bare loop",),
    "thread": ("bare loop", "ThreadPoolExecutor submit", "ThreadPoolExecutor map", "ThreadPool.map"),
    "process": ("Pool.map", "ProcessPoolExecutor map", "ProcessPoolExecutor submit"),
}


def _pairs() -> tuple[Pair, ...]:
    return tuple(
        Pair(ours(backend, way), baseline, phases, label)
        for backend in BACKENDS
        for way in WAYS
        for baseline in _BASELINES[backend]
        for phases, label in ((("run",), "run"), ((), "all"))
    )


def _cost(case: str, *phases: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.cost("steps", case, MILLION, phases)


def _unfinished(figures: Figures) -> float | None:
    """How many of our cases with a million steps have no figures: those that ended early or with wrong outputs."""
    measured = figures.rounds.get(("steps", MILLION))
    return None if measured is None else len(OURS.keys() - measured)


# How many times as long as the baseline a run may take, by `map` and by `add_step`.
_TIMES = {"local": ("bare loop", 6, 10), "thread": ("bare loop", 6, 10), "process": ("Pool.map", 3, 6)}
# Microseconds a step from the first line to the last value.
_WHOLE = {"map": 1.5, "add_step": 5.0}


def _times(case: str, baseline: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.ratio("steps", Pair(case, baseline, ("run",)), MILLION)


def _bars() -> tuple[Bar, ...]:
    run = [
        Bar(
            f"1M steps, run, {backend}, {way}, compared with {baseline}",
            most,
            _times(ours(backend, way), baseline),
            "x",
        )
        for backend, (baseline, mapped, added) in _TIMES.items()
        for way, most in (("map", mapped), ("add_step", added))
    ]
    whole = [
        Bar(f"1M steps, all, {backend}, {way}", most, _cost(ours(backend, way)), "us per step")
        for backend in BACKENDS
        for way, most in _WHOLE.items()
    ]
    define = [
        Bar(
            f"1M steps, define + build, {backend}, add_step",
            6.0,
            _cost(ours(backend, "add_step"), *BEFORE),
            "us per step",
        )
        for backend in BACKENDS
    ]
    return (Bar("1M steps, backends and ways that do not complete", 0, _unfinished), *run, *whole, *define)


GROUP = Group(
    title="A step that does nothing",
    unit=("us per step", 1e6),
    cases={**_beside("local", LOOP), **_beside("thread", THREADS), **_beside("process", PROCESSES)},
    sizes={10_000: 9, MILLION: 5},
    quick={500: 2},
    pairs=_pairs(),
    bars=_bars(),
)
