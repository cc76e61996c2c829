"""The same no-op calls without flowyml: a bare loop and the pools of the standard library, at their best settings.

What was chosen for them: as many workers as flowyml gets, forked where the platform forks (the cheapest start, and the
function is there already), warm before the clock starts, chunk sizes from one chunk a worker to many (the fastest is
taken), chunks that travel as a `range`, results read as the pool hands them out. None of them knows names, states,
times or failures of single steps; `submit` is the only one that tells which call failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from cases.contract import WORKERS, Case
from cases.pools import chunk_pool, futures_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

# Chunks a worker: few make the messages cheap, many let results flow while others are computed.
CHUNKS = (1, 8, 64)
# A future for each call takes 20 us on threads and 120 us on processes: millions would take minutes.
MOST_SUBMITS = 100_000


def noop(i: int) -> int:
    """Return the argument."""
    return i


def noop_chunk(chunk: range) -> list[int]:
    """Do a whole chunk: what people write who cut by hand."""
    return [noop(i) for i in chunk]


class ByHand(Case):
    """A baseline: everything happens in its run."""

    pool: Any = None
    chunks: ClassVar[int] = 1

    def start(self) -> None:
        self.pool = self.new_pool()
        self.outputs: list[int] = []

    def new_pool(self) -> Any:
        return None

    def check(self) -> None:
        assert self.outputs == list(range(self.size))

    def stop(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()

    @property
    def chunk_size(self) -> int:
        """So many items that each worker gets `chunks` chunks."""
        return -(-self.size // (WORKERS * self.chunks))

    def cut(self) -> Iterator[range]:
        """Cut the items into chunks."""
        for first in range(0, self.size, self.chunk_size):
            yield range(first, min(self.size, first + self.chunk_size))


class Loop(ByHand):
    """What the interpreter itself takes."""

    def run(self) -> None:
        outputs = self.outputs
        for i in range(self.size):
            outputs.append(noop(i))


class Futures(ByHand):
    """One future for each call: at most `MOST_SUBMITS` of them."""

    def start(self) -> None:
        self.size = self.units = min(self.size, MOST_SUBMITS)
        super().start()


class ThreadsMap(Futures):
    """`ThreadPoolExecutor.map`."""

    def new_pool(self) -> Any:
        from concurrent.futures import ThreadPoolExecutor

        pool = ThreadPoolExecutor(WORKERS)
        list(pool.map(noop, range(100)))
        return pool

    def run(self) -> None:
        self.outputs = list(self.pool.map(noop, range(self.size)))


class ThreadsSubmit(ThreadsMap):
    """`ThreadPoolExecutor.submit`, a future for each call."""

    def run(self) -> None:
        submit = self.pool.submit
        futures = [submit(noop, i) for i in range(self.size)]
        self.outputs = [future.result() for future in futures]


class ThreadPoolChunks(ByHand):
    """`multiprocessing.pool.ThreadPool.map` over hand-cut chunks."""

    def new_pool(self) -> Any:
        from multiprocessing.pool import ThreadPool

        return ThreadPool(WORKERS)

    def run(self) -> None:
        self.outputs = [each for chunk in self.pool.map(noop_chunk, self.cut(), chunksize=1) for each in chunk]

    def stop(self) -> None:
        self.pool.terminate()


class ProcessesMap(ByHand):
    """`ProcessPoolExecutor.map` with a chunk size."""

    def new_pool(self) -> Any:
        pool = futures_pool()
        list(pool.map(noop, range(100)))
        return pool

    def run(self) -> None:
        self.outputs = list(self.pool.map(noop, range(self.size), chunksize=self.chunk_size))


class ProcessesSubmit(Futures):
    """`ProcessPoolExecutor.submit`, a future for each call."""

    new_pool = ProcessesMap.new_pool

    def run(self) -> None:
        submit = self.pool.submit
        futures = [submit(noop, i) for i in range(self.size)]
        self.outputs = [future.result() for future in futures]


class PoolChunks(ThreadPoolChunks):
    """`multiprocessing.Pool.map` over hand-cut chunks."""

    def new_pool(self) -> Any:
        pool = chunk_pool()
        pool.map(noop, range(100))
        return pool


def _chunked(name: str, kind: type[ByHand]) -> dict[str, type[Case]]:
    return {f"{name}, {chunks} a worker": type(name, (kind,), {"chunks": chunks}) for chunks in CHUNKS}


LOOP: dict[str, type[Case]] = {"bare loop": Loop}
THREADS: dict[str, type[Case]] = {
    "ThreadPoolExecutor submit": ThreadsSubmit,
    "ThreadPoolExecutor map": ThreadsMap,
    **_chunked("ThreadPool.map", ThreadPoolChunks),
}
PROCESSES: dict[str, type[Case]] = {
    **_chunked("Pool.map", PoolChunks),
    **_chunked("ProcessPoolExecutor map", ProcessesMap),
    "ProcessPoolExecutor submit": ProcessesSubmit,
}
