"""The pools that a user would pick, each as one function: run these tasks, return what came of each.

Each is used as its manual says it should be where tasks may fail: one future a task, no retries, the time limit where
it has one. A pool that raises for all tasks at once has told nothing about the others; that is its outcome for them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Task(NamedTuple):
    """A call."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


class Outcome(NamedTuple):
    """What came of a task: its value, or its error."""

    value: Any = None
    error: BaseException | None = None


Run = Callable[["Sequence[Task]"], "list[Outcome]"]
"""Run tasks; may be called again."""


def gathered(waits: Iterable[Callable[[], Any]]) -> list[Outcome]:
    """Wait for one task after the other."""
    outcomes = []
    for wait in waits:
        try:
            outcomes.append(Outcome(wait()))
        except BaseException as error:
            outcomes.append(Outcome(error=error))
    return outcomes


@contextmanager
def flowyml(workers: int, timeout: float | None) -> Iterator[Run]:
    """One pipeline a call."""
    from flowyml import ParallelExecutor, Pipeline

    with ParallelExecutor(workers, timeout=timeout) as executor:

        def run(tasks: Sequence[Task]) -> list[Outcome]:
            pipeline = Pipeline("faults")
            for number, (function, arguments) in enumerate(tasks):
                pipeline.add_step(function, f"t{number}", dict(zip(_names(function), arguments, strict=False)))
            results = pipeline.run(executor=executor).step_results
            return gathered(functools.partial(_value, each) for each in results.values())

        yield run


def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    return function.__code__.co_varnames[: function.__code__.co_argcount]


def _value(result: Any) -> Any:
    if result.success:
        return result.output
    raise result.exception


@contextmanager
def process_pool_executor(workers: int, timeout: float | None) -> Iterator[Run]:
    """`submit` a task."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers) as pool:
        yield lambda tasks: _submitted(pool, tasks)


def _submitted(pool: Any, tasks: Sequence[Task]) -> list[Outcome]:
    futures = []
    for function, arguments in tasks:
        try:
            futures.append(pool.submit(function, *arguments).result)
        except Exception as error:
            futures.append(functools.partial(_raise, error))
    return gathered(futures)


def _raise(error: BaseException) -> None:
    raise error


@contextmanager
def multiprocessing_pool(workers: int, timeout: float | None) -> Iterator[Run]:
    """`apply_async` a task."""
    import multiprocessing

    with multiprocessing.Pool(workers) as pool:
        yield lambda tasks: gathered([pool.apply_async(*task).get for task in tasks])


@contextmanager
def loky(workers: int, timeout: float | None) -> Iterator[Run]:
    """The reusable executor, fetched anew for each call as its manual asks after a crash."""
    from loky import get_reusable_executor

    yield lambda tasks: _submitted(get_reusable_executor(max_workers=workers), tasks)
    get_reusable_executor(max_workers=workers).shutdown()


@contextmanager
def pebble(workers: int, timeout: float | None) -> Iterator[Run]:
    """`schedule` with the time limit."""
    from pebble import ProcessPool

    with ProcessPool(workers) as pool:
        yield lambda tasks: gathered([pool.schedule(f, args=a, timeout=timeout).result for f, a in tasks])


@contextmanager
def joblib(workers: int, timeout: float | None) -> Iterator[Run]:
    """`Parallel` over all tasks: it raises for all of them at once."""
    import joblib

    def run(tasks: Sequence[Task]) -> list[Outcome]:
        calls = (joblib.delayed(function)(*arguments) for function, arguments in tasks)
        try:
            return [Outcome(value) for value in joblib.Parallel(workers, timeout=timeout)(calls)]
        except BaseException as error:
            return [Outcome(error=error)] * len(tasks)

    yield run


@contextmanager
def distributed(workers: int, timeout: float | None) -> Iterator[Run]:
    """A local cluster of processes with one thread each."""
    import logging

    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with LocalCluster(workers, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        yield lambda tasks: gathered([client.submit(f, *a, pure=False, retries=0).result for f, a in tasks])


@contextmanager
def ray(workers: int, timeout: float | None) -> Iterator[Run]:
    """A local ray, tasks without retries."""
    import ray

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
    remote = ray.remote(max_retries=0)

    def run(tasks: Sequence[Task]) -> list[Outcome]:
        references = [remote(function).remote(*arguments) for function, arguments in tasks]
        return gathered([functools.partial(ray.get, each) for each in references])

    try:
        yield run
    finally:
        ray.shutdown()


POOLS = {
    "flowyml": flowyml,
    "ProcessPoolExecutor": process_pool_executor,
    "multiprocessing.Pool": multiprocessing_pool,
    "loky": loky,
    "pebble": pebble,
    "joblib": joblib,
    "dask.distributed": distributed,
    "ray": ray,
}
