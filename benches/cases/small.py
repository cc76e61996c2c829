"""Small work: steps of 20 us, 200 us and 5 ms, and a mix of 1 us to 50 ms, on process workers, with no knob set.

A step is a loop of a fixed number of turns, so that everybody does the same work however fast the machine is at that
moment; the times in the names are rough. What is over in a moment is done several times, by everybody.

The ideal is the same calls cut by hand into as many processes as there are CPUs, so that all have the same number of
turns to do: no messages, no results but one number, forked and warm, nothing to decide. Beside it stand the pools of
the standard library with chunks cut by hand, and joblib where it is installed.
"""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import flowyml
from cases.contract import WORKERS, Bar, Case, Group
from cases.pair import Pair
from cases.pools import chunk_pool, own_session
from cases.steps import executor_of
from cases.steps_by_hand import CHUNKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from figures import Figures

# About so many turns of the loop in `spin` take a microsecond.
TURNS = 45
FULL, QUICK = 1, 50
"""Sizes: all of the work, or a fiftieth."""
IDEAL = "by hand, balanced"


class Work(NamedTuple):
    """Some work.

    Attributes:
        count: How many steps.
        shortest: How many microseconds the shortest takes,
        longest: and the longest.
        bar: The part of the ideal that is to be reached.
        times: How often it is done in one measurement.
    """

    count: int
    shortest: float
    longest: float
    bar: float
    times: int = 1

    def turns(self, part: int) -> list[int]:
        """Return the turns of each step: evenly spread on a logarithmic scale, in a drawn order that never changes."""
        count = max(WORKERS, self.count // part)
        last = max(1, count - 1)
        each = [round(TURNS * self.shortest * (self.longest / self.shortest) ** (k / last)) for k in range(count)]
        random.Random(7).shuffle(each)
        return each


WORKS = {
    "20,000 x 20 us": Work(20_000, 20, 20, 0.85, times=5),
    "20,000 x 200 us": Work(20_000, 200, 200, 0.95),
    "400 x 5 ms": Work(400, 5_000, 5_000, 0.98),
    "800 x 1 us to 50 ms": Work(800, 1, 50_000, 0.95),
}


def spin(turns: int) -> int:
    """Go round a loop so many times."""
    for _ in range(turns):
        pass
    return turns


def spin_chunk(chunk: Sequence[int]) -> list[int]:
    """Do a whole chunk."""
    return [spin(turns) for turns in chunk]


class Ours(Case):
    """A mapped step."""

    work: ClassVar[str]

    def start(self) -> None:
        self.turns = WORKS[self.work].turns(self.size)
        self.units = WORKS[self.work].times
        self.outputs: Any = []
        self.open()

    def open(self) -> None:
        self.executor = executor_of("process")
        flowyml.Pipeline("warm").map(spin, [1] * 100).run(executor=self.executor)

    def run(self) -> None:
        for _ in range(self.units):
            self.once()

    def once(self) -> None:
        """Do all of it."""
        self.outputs = list(flowyml.Pipeline("small").map(spin, self.turns).run(executor=self.executor)["spin"])

    def check(self) -> None:
        assert self.outputs == self.turns

    def stop(self) -> None:
        self.executor.shutdown()


class Ideal(Ours):
    """As many processes as CPUs, each with its share of the work: longest first, each to whoever has the least."""

    def open(self) -> None:
        self.pool: Any = chunk_pool()
        self.pool.map(spin, [1] * 100)
        shares = [(0, number, []) for number in range(WORKERS)]
        for turns in sorted(self.turns, reverse=True):
            total, number, share = shares[0]
            share.append(turns)
            heapq.heapreplace(shares, (total + turns, number, share))
        self.shares: list[list[int]] = [share for _, _, share in shares]

    def once(self) -> None:
        self.outputs = self.pool.map(total, self.shares, chunksize=1)

    def check(self) -> None:
        assert sum(self.outputs) == sum(self.turns)

    def stop(self) -> None:
        self.pool.terminate()


def total(share: list[int]) -> int:
    """Do a share; only the sum goes back."""
    return sum(map(spin, share))


class PoolChunks(Ideal):
    """`multiprocessing.Pool.map` with chunks cut by hand."""

    chunks: ClassVar[int]

    def open(self) -> None:
        self.pool = chunk_pool()
        self.pool.map(spin, [1] * 100)

    def once(self) -> None:
        size = -(-len(self.turns) // (WORKERS * self.chunks))
        cut = [self.turns[first : first + size] for first in range(0, len(self.turns), size)]
        self.outputs = [each for chunk in self.pool.map(spin_chunk, cut, chunksize=1) for each in chunk]

    def check(self) -> None:
        assert self.outputs == self.turns


class Joblib(PoolChunks):
    """`joblib.Parallel` with loky, which sizes its batches by itself."""

    needs = ("joblib",)

    def start(self) -> None:
        super().start()
        self.units = 1  # it takes seconds

    def open(self) -> None:
        import joblib

        self.parallel = joblib.Parallel(WORKERS, pre_dispatch="all", initializer=own_session).__enter__()
        self.parallel([joblib.delayed(spin)(1)] * 100)

    def once(self) -> None:
        import joblib

        call = joblib.delayed(spin)
        self.outputs = self.parallel(call(turns) for turns in self.turns)

    def stop(self) -> None:
        self.parallel.__exit__(None, None, None)


PEERS: dict[str, tuple[type[Ours], int]] = {
    **{f"peer: Pool.map, {chunks} a worker": (PoolChunks, chunks) for chunks in CHUNKS},
    "peer: joblib": (Joblib, 0),
}


def _cases() -> dict[str, type[Case]]:
    cases: dict[str, type[Case]] = {}
    for work in WORKS:
        cases[f"{work}, flowyml"] = type("Ours", (Ours,), {"work": work})
        cases[f"{work}, {IDEAL}"] = type("Ideal", (Ideal,), {"work": work})
        for peer, (kind, chunks) in PEERS.items():
            cases[f"{work}, {peer}"] = type(kind.__name__, (kind,), {"work": work, "chunks": chunks})
    return cases


def _beside(work: str, baseline: str) -> Callable[[Figures], float | None]:
    pair = Pair(f"{work}, flowyml", f"{work}, {baseline}", ("run",))
    return lambda figures: figures.ratio("small", pair, FULL)


GROUP = Group(
    title="Small work on processes",
    unit=("s", 1.0),
    cases=_cases(),
    sizes={FULL: 5},
    quick={QUICK: 1},
    pairs=tuple(
        Pair(f"{work}, flowyml", f"{work}, {baseline}", ("run",), "run")
        for work in WORKS
        for baseline in (IDEAL, "peer: ")
    ),
    bars=(
        *(
            Bar(f"{name}, compared with the ideal", 1 / work.bar, _beside(name, IDEAL), "x")
            for name, work in WORKS.items()
        ),
        *(
            Bar(f"{name}, compared with the best peer's best chunks", 1.0, _beside(name, "peer: "), "x")
            for name in WORKS
        ),
    ),
)
