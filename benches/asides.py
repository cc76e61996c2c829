"""What a few things cost that no bar is about: the async backend, items that fail on processes, taking over a journal.

`python benches/asides.py` prints CPU time and wall time of the driver in microseconds a step, best of some rounds.
Other load on the machine changes CPU time least.
"""

from __future__ import annotations

import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from flowyml import ParallelExecutor, Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK = "--quick" in sys.argv
ROUNDS = 1 if QUICK else 5
FEW, MANY = (50, 300) if QUICK else (5_000, 100_000)
WORKERS = 2


def nothing(i: int) -> int:
    """Return what is given."""
    return i


async def waits_for_nothing(i: int) -> int:
    """Return what is given, as a coroutine."""
    return i


def fails(i: int) -> int:
    """Fail."""
    raise ValueError(i)


def best(count: int, run: Callable[[], Any]) -> str:
    """Return the least that each of some rounds took, a step."""
    taken = []
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        taken.append((time.process_time() - cpu, time.perf_counter() - wall))
    return " ".join(f"{min(column) / count * 1e6:10.2f}" for column in zip(*taken, strict=True))


def mapped(func: Callable[[int], Any], count: int, backend: Any) -> str:
    """Measure a map on warm workers."""
    with ParallelExecutor(WORKERS, backend=backend) as executor:
        Pipeline("warm").map(nothing, range(100)).run(executor=executor)
        pipeline = Pipeline("aside").map(func, range(count), name="aside")
        return best(count, lambda: pipeline.run(executor=executor))


def taken_over() -> str:
    """Measure a run that takes everything over from its journal, but one step that fails again."""
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline("aside", enable_checkpointing=True, checkpoint_dir=folder)
        pipeline.map(nothing, range(MANY)).add_step(fails, params={"i": 1})
        pipeline.run(run_id="aside")
        return best(MANY, lambda: pipeline.run(resume="aside"))


def journaled() -> str:
    """Measure a run that keeps a journal."""
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline("aside", enable_checkpointing=True, checkpoint_dir=folder).map(nothing, range(MANY))
        return best(MANY, pipeline.run)


def main() -> None:
    """Print a table."""
    rows: dict[str, Callable[[], str]] = {
        "a plain function, threads": lambda: mapped(nothing, MANY, "thread"),
        "a plain function, async": lambda: mapped(nothing, FEW, "async"),
        "a coroutine, async": lambda: mapped(waits_for_nothing, FEW, "async"),
        "an item, processes": lambda: mapped(nothing, MANY, "process"),
        "an item that fails, processes": lambda: mapped(fails, FEW, "process"),
        "an item, local": lambda: best(MANY, Pipeline("aside").map(nothing, range(MANY)).run),
        "the same with a journal": journaled,
        "the same, taken over from one": taken_over,
    }
    print(f"{'us per step, of the driver':32} {'CPU':>10} {'wall':>10}")
    for name, measure in rows.items():
        print(f"{name:32} {measure()}")


if __name__ == "__main__":
    main()
