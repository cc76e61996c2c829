"""What it takes to begin: the import, the first step on a cold process executor, a small pipeline on a warm one.

An import is measured from outside, as what it adds to a bare interpreter in the same round. Public names of flowyml
load when they are first used, so `import flowyml` alone says little: `import *` loads them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from cases.contract import PROCESS, WORKERS, Bar, Case, Group, Pair
from cases.steps_by_hand import fastest_context, noop

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figures

HEAVY = frozenset({"numpy", "pandas"})
BARE, IMPORT, IMPORT_ALL = "bare interpreter", "import flowyml", "from flowyml import *"
# A pipeline of a millisecond is run so often that the clock and a single hiccup do not matter.
REPEATS = 100


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
        self.pipeline = Pipeline("first").add_step(noop, params={"i": 7})

    def run(self) -> None:
        self.executor = self.new_executor(max_workers=WORKERS, backend="process")
        self.output = self.pipeline.run(executor=self.executor)["noop"]

    def check(self) -> None:
        assert self.output == 7

    def stop(self) -> None:
        self.executor.shutdown()


class ColdPool(ColdExecutor):
    """The same of a `ProcessPoolExecutor`, forked where that is possible."""

    method: ClassVar[str | None] = None

    def start(self) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        self.new_executor = ProcessPoolExecutor
        self.context = multiprocessing.get_context(self.method) if self.method else fastest_context()

    def run(self) -> None:
        self.executor = self.new_executor(WORKERS, mp_context=self.context)
        self.output = self.executor.submit(noop, 7).result()


class ColdSpawnedPool(ColdPool):
    """The same with new interpreters, as flowyml's workers are."""

    method = "spawn"


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
        from concurrent.futures import ProcessPoolExecutor

        self.units = REPEATS
        self.executor = ProcessPoolExecutor(WORKERS, mp_context=fastest_context())
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


def _five(backend: str) -> type[Case]:
    return type("FiveSteps", (FiveSteps,), {"backend": backend})


GROUP = Group(
    title="Start",
    unit=("ms", 1e3),
    cases={
        BARE: BareInterpreter,
        IMPORT: ImportFlowyml,
        IMPORT_ALL: ImportEverything,
        "first step, cold process executor": ColdExecutor,
        "first call, cold ProcessPoolExecutor": ColdPool,
        "first call, cold ProcessPoolExecutor, spawned": ColdSpawnedPool,
        "five steps, local": _five("local"),
        "five steps, warm threads": _five("thread"),
        "five steps, warm processes": _five("process"),
        "five calls, warm ProcessPoolExecutor": FiveSubmits,
    },
    sizes={1: 15},
    quick={1: 2},
    pairs=(
        Pair("first step, cold process executor", "first call, cold ProcessPoolExecutor"),
        Pair("first step, cold process executor", "first call, cold ProcessPoolExecutor, spawned"),
        Pair("five steps, warm processes", "five calls, warm ProcessPoolExecutor"),
    ),
    bars=(
        Bar("import flowyml", 80, _adds(IMPORT), "ms"),
        Bar("from flowyml import *", 80, _adds(IMPORT_ALL), "ms"),
        Bar("numpy, pandas among what these load", 0, _heavy),
    ),
)
