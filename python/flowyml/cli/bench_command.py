"""`flowyml bench`: the cost of a step that does nothing on this machine, compared with a bare loop.

A first impression with one measurement each; `make bench` in a checkout measures repeatedly in fresh processes and
compares other tools. Workers are started before the clock, so the result is the cost of defining and running a step.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml.cli.console import SUCCESS, UsageError, write
from flowyml.cli.parser import BACKENDS
from flowyml.cli.run_command import check_workers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from flowyml.executors.executor import Executor
    from flowyml.pipeline import Pipeline

_ROW = "{:<10} {:<10} {:>10} {:>10} {:>12}"
_WARM_UP_STEPS = 100  # start every worker


class StepCost(NamedTuple):
    """The cost of a step in seconds."""

    define: float
    run: float


def bench(options: argparse.Namespace) -> int:
    """Print microseconds a step for each backend, with steps added one by one and as one map.

    Raises:
        UsageError: If the number of steps or workers is invalid.
    """
    check_workers(options.workers)
    if options.steps < 1:
        raise UsageError(f"--steps must be at least 1, got {options.steps}")
    loop = _loop(options.steps)
    write(f"{options.steps:,} steps that do nothing, microseconds a step; a bare loop: {loop * 1e6:.3f}\n")
    write(_ROW.format("backend", "steps by", "define", "run", "run / loop"))
    for backend in options.backend or BACKENDS:
        for way, cost in _costs(backend, options):
            write(
                _ROW.format(backend, way, f"{cost.define * 1e6:.2f}", f"{cost.run * 1e6:.2f}", f"{cost.run / loop:.0f}")
            )
    return SUCCESS


def return_input(i: int) -> int:
    """Return the argument: the step that is measured."""
    return i


def _loop(count: int) -> float:
    began, outputs = time.perf_counter(), []
    for i in range(count):
        outputs.append(return_input(i))  # noqa: PERF401  the loop is measured
    return (time.perf_counter() - began) / count


def _costs(backend: str, options: argparse.Namespace) -> Iterator[tuple[str, StepCost]]:
    from flowyml import Pipeline

    executor = _executor(backend, options.workers)
    try:
        Pipeline("warm").map(return_input, range(_WARM_UP_STEPS)).run(executor=executor)
        for way, define in (("add_step", _added), ("map", _mapped)):
            began = time.perf_counter()
            pipeline = define(options.steps)
            defined = time.perf_counter()
            pipeline.run(executor=executor).raise_for_failure()
            yield way, StepCost((defined - began) / options.steps, (time.perf_counter() - defined) / options.steps)
    finally:
        executor.shutdown()


def _executor(backend: str, workers: int | None) -> Executor:
    from flowyml import LocalExecutor, ParallelExecutor

    if backend == "local":
        return LocalExecutor()
    return ParallelExecutor(workers, backend=backend)  # type: ignore[arg-type]


def _added(count: int) -> Pipeline:
    from flowyml import Pipeline

    pipeline = Pipeline("bench")
    for i in range(count):
        pipeline.add_step(return_input, name=f"step_{i}", params={"i": i})
    return pipeline


def _mapped(count: int) -> Pipeline:
    from flowyml import Pipeline

    return Pipeline("bench").map(return_input, range(count))
