"""What it takes to begin, and to begin again after a death.

The import, the first step on a cold process executor, a small pipeline on a warm one, the next step where a worker was
killed.

An import is measured from outside, as what it adds to a bare interpreter in the same round. Public names of flowyml
load when they are first used, so `import flowyml` alone says little: `import *` loads them all.

"with pandas" means that the module of the steps imports it. A forked pool has it from the driver, where it is loaded
before the clock starts; flowyml never forks the driver, so that its first workers wait for one more import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from cases.contract import WORKERS, Bar, Case, Group
from cases.pair import PROCESS, Pair
from cases.pools import fastest_context, futures_pool
from cases.steps_by_hand import noop

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figures

HEAVY = frozenset({"numpy", "pandas"})
BARE, IMPORT, IMPORT_ALL = "bare interpreter", "import flowyml", "from flowyml import *"
# A pipeline of a millisecond is run so often that the clock and a single hiccup do not matter.
REPEATS = 100
DEATHS = 10
COLD, COLD_POOL = "first step, cold process executor", "first call, cold ProcessPoolExecutor"
REPLACED, ANEW = "a killed worker replaced", "a broken ProcessPoolExecutor made anew"
FIVE = "five steps, warm processes"
PANDAS = ", with pandas"


class BareInterpreter(Case):
    """What Python takes to start, and to tell what it has loaded."""

    command = ("-c", "import sys; print(*sys.modules)")


class ImportFlowyml(Case):
    """The package, without its lazy names."""

    command = ("-c", "import flowyml, sys; print(*sys.modules)")


class ImportEverything(Case):
    """The package with all public names."""

    command = ("-c", "from flowyml import *; import sys; print(*sys.modules)")


class ColdExecutor(Case):
    """From making a process executor to the value of its first step."""

    def start(self) -> None:
        from flowyml import ParallelExecutor, Pipeline

        self.new_executor = ParallelExecutor
        self.pipeline = Pipeline("first").add_step(self.function(), name="first", params={"i": 7})

    def function(self) -> Callable[[int], int]:
        return noop

    def run(self) -> None:
        self.executor = self.new_executor(max_workers=WORKERS, backend="process")
        self.output = self.pipeline.run(executor=self.executor)["first"]

    def check(self) -> None:
        assert self.output == 7

    def stop(self) -> None:
        self.executor.shutdown()


class ColdPool(ColdExecutor):
    """The same of a `ProcessPoolExecutor`, forked where that is possible."""

    method: ClassVar[str | None] = None

    def start(self) -> None:
        import multiprocessing

        self.called = self.function()
        self.context = multiprocessing.get_context(self.method) if self.method else fastest_context()

    def run(self) -> None:
        self.executor = futures_pool(context=self.context)
        self.output = self.executor.submit(self.called, 7).result()


class ColdSpawnedPool(ColdPool):
    """The same with new interpreters."""

    method = "spawn"


class WithPandas(ColdExecutor):
    """A first step whose module imports pandas, which the driver has loaded."""

    def function(self) -> Callable[[int], int]:
        from cases.steps_with_pandas import count

        return count


class PoolWithPandas(WithPandas, ColdPool):
    """The same by hand."""


class SpawnedPoolWithPandas(WithPandas, ColdSpawnedPool):
    """The same by hand with new interpreters."""


class Replaced(Case):
    """Steps on a single worker that kill it, one after the other, and a last one that does not.

    So a unit is all that lies between a step that dies and the next one that runs: the death is noticed and settled,
    another worker is there and has the functions.
    """

    def start(self) -> None:
        import logging

        from flowyml import ParallelExecutor, Pipeline

        logging.getLogger("flowyml").setLevel(logging.CRITICAL)
        self.units = DEATHS
        self.executor = ParallelExecutor(max_workers=1, backend="process")
        die = self.function()
        self.pipeline = Pipeline("replaced").map(die, range(DEATHS, -1, -1), name="die")
        self.result: Any = Pipeline("warm").map(die, [0], name="die").run(executor=self.executor)

    def function(self) -> Callable[[int], int]:
        return die

    def run(self) -> None:
        self.result = self.pipeline.run(executor=self.executor)

    def check(self) -> None:
        assert len(self.result.failed) == DEATHS
        assert self.result["die"][DEATHS] == 0

    def stop(self) -> None:
        self.executor.shutdown()


class ReplacedWithPandas(Replaced):
    """The same of steps whose module imports pandas."""

    def function(self) -> Callable[[int], int]:
        from cases.steps_with_pandas import count_or_die

        return count_or_die


class PoolMadeAnew(Replaced):
    """What one does with a `ProcessPoolExecutor`: it is broken, another one is made and has the next call."""

    def start(self) -> None:
        from concurrent.futures import process

        self.units = DEATHS
        self.broken = process.BrokenProcessPool
        self.new_executor = lambda: futures_pool(1)
        self.called = self.function()
        self.executor: Any = self.new_executor()
        self.executor.submit(self.called, 0).result()

    def run(self) -> None:
        self.deaths = 0
        for i in range(DEATHS, -1, -1):
            try:
                self.output = self.executor.submit(self.called, i).result()
            except self.broken:
                self.deaths += 1
                self.executor = self.new_executor()

    def check(self) -> None:
        assert (self.deaths, self.output) == (DEATHS, 0)


class PoolMadeAnewWithPandas(PoolMadeAnew, ReplacedWithPandas):
    """The same with pandas, which the driver has loaded."""


def die(i: int) -> int:
    """Kill the process that it runs in, or, for the last item of all, return its number."""
    if i:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
    return i


def add(x: int, y: int, z: int) -> int:
    """Return the sum."""
    return x + y + z


class FiveSteps(Case):
    """Define, run and read a pipeline of five steps: one, three that read it, one that reads those."""

    backend: ClassVar[str]

    def start(self) -> None:
        from flowyml import LocalExecutor, ParallelExecutor, Pipeline

        self.units = REPEATS
        self.new_pipeline = Pipeline
        local = self.backend == "local"
        self.executor: Any = LocalExecutor() if local else ParallelExecutor(WORKERS, self.backend)  # type: ignore[arg-type]
        self.once()

    def once(self) -> None:
        pipeline = self.new_pipeline("five").add_step(noop, name="first", params={"i": 7})
        for name in "xyz":
            pipeline.add_step(noop, name=name, inputs={"i": "first"})
        self.output = pipeline.add_step(add).run(executor=self.executor)["add"]

    def run(self) -> None:
        for _ in range(self.units):
            self.once()

    def check(self) -> None:
        assert self.output == 21

    def stop(self) -> None:
        self.executor.shutdown()


class FiveSubmits(FiveSteps):
    """The same by hand with futures."""

    def start(self) -> None:
        self.units = REPEATS
        self.executor = futures_pool()
        self.once()

    def once(self) -> None:
        submit = self.executor.submit
        first = submit(noop, 7).result()
        middle = [submit(noop, first) for _ in "xyz"]
        self.output = submit(add, *[each.result() for each in middle]).result()


def _adds(case: str) -> Callable[[Figures], float | None]:
    """Milliseconds that an import adds to the start of an interpreter."""
    return lambda figures: figures.difference("start", case, BARE, 1, PROCESS)


def _heavy(figures: Figures) -> float:
    """How many of the heavy packages an import loads."""
    return len(HEAVY & {*figures.told("start", IMPORT, 1).split(), *figures.told("start", IMPORT_ALL, 1).split()})


def _cost(case: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.cost("start", case, 1)


def _five(backend: str) -> type[Case]:
    return type("FiveSteps", (FiveSteps,), {"backend": backend})


GROUP = Group(
    title="Start",
    unit=("ms", 1e3),
    cases={
        BARE: BareInterpreter,
        IMPORT: ImportFlowyml,
        IMPORT_ALL: ImportEverything,
        COLD: ColdExecutor,
        COLD_POOL: ColdPool,
        COLD_POOL + ", spawned": ColdSpawnedPool,
        COLD + PANDAS: WithPandas,
        COLD_POOL + PANDAS: PoolWithPandas,
        COLD_POOL + ", spawned" + PANDAS: SpawnedPoolWithPandas,
        REPLACED: Replaced,
        ANEW: PoolMadeAnew,
        REPLACED + PANDAS: ReplacedWithPandas,
        ANEW + PANDAS: PoolMadeAnewWithPandas,
        "five steps, local": _five("local"),
        "five steps, warm threads": _five("thread"),
        FIVE: _five("process"),
        "five calls, warm ProcessPoolExecutor": FiveSubmits,
    },
    sizes={1: 15},
    quick={1: 2},
    pairs=(
        Pair(COLD, COLD_POOL),
        Pair(COLD, COLD_POOL + ", spawned"),
        Pair(COLD + PANDAS, COLD_POOL + PANDAS),
        Pair(COLD + PANDAS, COLD_POOL + ", spawned" + PANDAS),
        Pair(REPLACED, ANEW),
        Pair(REPLACED + PANDAS, ANEW + PANDAS),
        Pair(FIVE, "five calls, warm ProcessPoolExecutor"),
    ),
    bars=(
        Bar("import flowyml", 50, _adds(IMPORT), "ms"),
        Bar("from flowyml import *", 80, _adds(IMPORT_ALL), "ms"),
        Bar("numpy, pandas among what these load", 0, _heavy),
        Bar(COLD, 120, _cost(COLD), "ms"),
        Bar(REPLACED, 100, _cost(REPLACED), "ms"),
        Bar(REPLACED + PANDAS, 100, _cost(REPLACED + PANDAS), "ms"),
        Bar("five steps on warm processes", 1.5, _cost(FIVE), "ms"),
    ),
)
