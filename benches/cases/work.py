"""Real work beside its best hand-written version: 200 fits of scikit-learn, 20,000 small JSON files.

By hand means `multiprocessing.Pool.map` with the chunks that suit the work, forked from a process that has loaded all
packages. `cold` makes the executor and runs, `warm` runs again, `close` ends the workers, as in `demo.py`: a script
pays cold and close. Both call the same functions.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any, ClassVar

from cases.contract import WORKERS, Bar, Case, Group
from cases.pair import Pair
from cases.pools import chunk_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from figures import Figures

SWEEP, FILES = "200 fits", "20,000 JSON files"
FULL, QUICK = 1, 50
"""Sizes: all of the work, or a fiftieth."""
SCRIPT = ("cold", "close")
FITS, DOCUMENTS = 200, 20_000


def fit(depth: int, features: int, seed: int) -> float:
    """Fit one tree to the digits and return its score on what it has not seen."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.tree import DecisionTreeClassifier

    digits = load_digits()
    seen, unseen, known, wanted = train_test_split(digits.data, digits.target, random_state=seed)
    tree = DecisionTreeClassifier(max_depth=depth, max_features=features, random_state=seed).fit(seen, known)
    return float(tree.score(unseen, wanted))


def settings(part: int) -> list[tuple[int, int, int]]:
    """Return what the sweep tries."""
    return [(2 + k % 10, 4 + k % 7 * 10, k) for k in range(FITS // part)]


def read(path: str) -> tuple[int, float]:
    """Parse one file; return how many lines its order has, and what they come to."""
    with open(path, "rb") as file:  # noqa: PTH123  a Path costs more than the file
        order = json.load(file)
    return len(order["lines"]), sum(line["price"] * line["count"] for line in order["lines"])


def write_orders(folder: Path, part: int) -> None:
    """Write the files, about a kilobyte each."""
    draw = random.Random(7)
    for number in range(DOCUMENTS // part):
        lines = [
            {"article": f"A{draw.randrange(10_000):05}", "count": draw.randrange(1, 9), "price": draw.randrange(1, 999)}
            for _ in range(draw.randrange(10, 30))
        ]
        (folder / f"{number:05}.json").write_text(json.dumps({"order": number, "lines": lines}))


class Work(Case):
    """One kind of work on one kind of workers."""

    phases = ("cold", "warm", "close")
    work: ClassVar[str]

    def start(self) -> None:
        self.units = 1
        if self.work == SWEEP:
            fit(2, 4, 0)  # packages are loaded in this process
            self.function, self.items = fit, settings(self.size)
        else:
            self.function, self.items = read, sorted(map(str, self.data.glob("*.json")))

    def check(self) -> None:
        assert self.first == self.again
        assert len(self.first) == len(self.items) > 0

    def cold(self) -> None:
        self.open()
        self.first = self.once()

    def warm(self) -> None:
        self.again = self.once()

    def open(self) -> None:
        raise NotImplementedError

    def once(self) -> list[Any]:
        raise NotImplementedError


class Ours(Work):
    """A mapped step on process workers."""

    def open(self) -> None:
        from flowyml import ParallelExecutor

        self.executor: Any = ParallelExecutor(WORKERS)

    def once(self) -> list[Any]:
        from flowyml import Pipeline

        pipeline = Pipeline("work")
        if self.work == SWEEP:
            depths, features, seeds = zip(*self.items, strict=True)
            pipeline.map(fit, over={"depth": depths, "features": features, "seed": seeds})
        else:
            pipeline.map(read, self.items)
        return list(pipeline.run(executor=self.executor)[self.function.__name__])

    def close(self) -> None:
        self.executor.shutdown()


class ByHand(Work):
    """`Pool.map` over chunks: one fit a call, or 64 chunks of files a worker."""

    def open(self) -> None:
        self.pool = chunk_pool()

    def once(self) -> list[Any]:
        if self.work == SWEEP:
            return self.pool.starmap(fit, self.items, chunksize=1)
        size = max(1, len(self.items) // (64 * WORKERS))
        cut: list[Sequence[str]] = [self.items[first : first + size] for first in range(0, len(self.items), size)]
        return [each for chunk in self.pool.map(read_all, cut, chunksize=1) for each in chunk]

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


def read_all(paths: Sequence[str]) -> list[tuple[int, float]]:
    """Parse a chunk of files."""
    return [read(path) for path in paths]


def _names(work: str) -> tuple[str, str]:
    return f"{work}, flowyml", f"{work}, Pool.map by hand"


def _beside(work: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.ratio("work", Pair(*_names(work), SCRIPT), FULL)


GROUP = Group(
    title="Real work",
    unit=("s", 1.0),
    cases={
        name: type(kind.__name__, (kind,), {"work": work})
        for work in (SWEEP, FILES)
        for name, kind in zip(_names(work), (Ours, ByHand), strict=True)
    },
    sizes={FULL: 5},
    quick={QUICK: 1},
    pairs=tuple(
        Pair(*_names(work), phases, label)
        for work in (SWEEP, FILES)
        for phases, label in ((SCRIPT, "cold + close"), (("warm",), "warm"))
    ),
    bars=tuple(
        Bar(f"{work}, compared with a plain Pool.map, cold + close", 1.03, _beside(work), "x")
        for work in (SWEEP, FILES)
    ),
    prepare=write_orders,
)
