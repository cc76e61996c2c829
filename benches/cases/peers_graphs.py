"""Engines that know a graph, each as its makers would have a fan-out of small calls done on one machine.

`define` is what the user says, `run` lasts until all results are in the user's hands. Workers, clusters and daemons are
up and warm before the clock starts. Telling, tracing, dashboards, retries and files of their own are off where there is
a way; chunks are cut where the engine knows of any. Each is asked for as many steps as take it some seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from cases.contract import WORKERS, Case
from cases.pools import futures_pool, own_session
from cases.steps_by_hand import noop


class Peer(Case):
    """An engine; does at most so many steps."""

    phases = ("define", "run")
    most: ClassVar[int] = 10_000

    def start(self) -> None:
        """Open what has to be open, and let each worker do something."""
        self.size = self.units = min(self.size, self.most)
        self.outputs: list[int] = []
        self.opened = contextlib.ExitStack()
        self.open(self.opened)
        asked, self.size = self.size, 100
        self.define()
        self.run()
        self.check()
        self.size, self.outputs = asked, []

    def open(self, opened: contextlib.ExitStack) -> None:
        """Start workers; `opened` ends them."""

    def define(self) -> None:
        """Say what there is to do, where that is a thing of its own."""

    def run(self) -> None:
        """Do it."""
        raise NotImplementedError

    def check(self) -> None:
        assert self.outputs == list(range(self.size))

    def stop(self) -> None:
        self.opened.close()


class GraphlibThreads(Peer):
    """`graphlib.TopologicalSorter` hands out, a pool calls: the recipe of its manual with futures."""

    most = 100_000

    def open(self, opened: contextlib.ExitStack) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.pool: Any = opened.enter_context(ThreadPoolExecutor(WORKERS))

    def define(self) -> None:
        from graphlib import TopologicalSorter

        self.sorter: TopologicalSorter[int] = TopologicalSorter()
        for node in range(self.size):
            self.sorter.add(node)

    def run(self) -> None:
        sorter, submit, results = self.sorter, self.pool.submit, {}
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        nodes = {}
        sorter.prepare()
        while sorter.is_active():
            for node in sorter.get_ready():
                future = submit(noop, node)
                nodes[future] = node
                future.add_done_callback(ended.put)
            future = ended.get()
            node = nodes.pop(future)
            results[node] = future.result()
            sorter.done(node)
        self.outputs = [results[node] for node in range(self.size)]


class GraphlibProcesses(GraphlibThreads):
    """The same with forked processes."""

    most = 20_000

    def open(self, opened: contextlib.ExitStack) -> None:
        self.pool = opened.enter_context(futures_pool())


class DaskThreads(Peer):
    """`dask.delayed` on the threaded scheduler."""

    needs = ("dask",)
    options: ClassVar[dict[str, Any]] = {"scheduler": "threads", "num_workers": WORKERS}

    def define(self) -> None:
        from dask import delayed

        call = delayed(noop, pure=False)
        self.calls = [call(i) for i in range(self.size)]

    def run(self) -> None:
        import dask

        # Nothing can be fused or culled in a fan-out: looking for it only costs.
        self.outputs = list(dask.compute(*self.calls, optimize_graph=False, **self.options))


class DaskProcesses(DaskThreads):
    """The same on the multiprocessing scheduler, which takes chunks; its pool is made for each run."""

    options: ClassVar[dict[str, Any]] = {
        "scheduler": "processes",
        "num_workers": WORKERS,
        "chunksize": 256,
        "initializer": own_session,
    }


class Distributed(Peer):
    """`Client.map` on a local cluster of processes with one thread each, in batches."""

    needs = ("distributed",)

    def open(self, opened: contextlib.ExitStack) -> None:
        from distributed import Client, LocalCluster

        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        cluster = opened.enter_context(LocalCluster(WORKERS, threads_per_worker=1, dashboard_address=None))
        self.client: Any = opened.enter_context(Client(cluster))
        self.client.run(own_session)

    def run(self) -> None:
        futures = self.client.map(noop, range(self.size), pure=False, batch_size=1000)
        self.outputs = self.client.gather(futures)


class PipefuncThreads(Peer):
    """A `pipefunc` pipeline of one mapped function, results in memory, types not looked at."""

    needs = ("pipefunc",)
    most = 100_000

    def open(self, opened: contextlib.ExitStack) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.pool: Any = opened.enter_context(ThreadPoolExecutor(WORKERS))

    def define(self) -> None:
        from pipefunc import Pipeline, pipefunc

        mapped = pipefunc(output_name="y", mapspec="i[n] -> y[n]")(noop)
        self.pipeline = Pipeline([mapped], validate_type_annotations=False)

    def run(self) -> None:
        found = self.pipeline.map(
            {"i": list(range(self.size))},
            executor=self.pool,
            chunksizes=max(1, self.size // (8 * WORKERS)),
            storage="dict",
            show_progress=False,
        )
        self.outputs = list(found["y"].output)


class PipefuncProcesses(PipefuncThreads):
    """The same with forked processes."""

    def open(self, opened: contextlib.ExitStack) -> None:
        self.pool = opened.enter_context(futures_pool())


class Ray(Peer):
    """Tasks on a local ray, without a dashboard, without retries."""

    needs = ("ray",)
    most = 5_000

    def open(self, opened: contextlib.ExitStack) -> None:
        import ray

        path = {"PYTHONPATH": str(Path(__file__).parents[1])}  # the hook is called before ray sets sys.path
        workers = {"worker_process_setup_hook": own_session, "env_vars": path}
        ray.init(
            num_cpus=WORKERS, runtime_env=workers, include_dashboard=False, log_to_driver=False, logging_level="error"
        )
        opened.callback(ray.shutdown)
        self.remote = ray.remote(max_retries=0)(noop)

    def run(self) -> None:
        import ray

        call = self.remote.remote
        self.outputs = ray.get([call(i) for i in range(self.size)])


def lead_session() -> int:
    """Make a worker the leader of a session, slowly enough that other workers get the next call; return its process."""
    own_session()
    time.sleep(0.02)
    return os.getpid()


class ParslThreads(Peer):
    """Apps on parsl's threads."""

    needs = ("parsl",)

    def open(self, opened: contextlib.ExitStack) -> None:
        import parsl

        folder = opened.enter_context(tempfile.TemporaryDirectory())
        opened.enter_context(contextlib.chdir(folder))
        config = parsl.Config(
            executors=[self.executor()], run_dir=folder, initialize_logging=False, strategy="none", usage_tracking=0
        )
        opened.enter_context(parsl.load(config))
        self.app = parsl.python_app(noop)

    def executor(self) -> Any:
        from parsl.executors import ThreadPoolExecutor

        return ThreadPoolExecutor(max_threads=WORKERS)

    def run(self) -> None:
        app = self.app
        futures = [app(i) for i in range(self.size)]
        self.outputs = [future.result() for future in futures]


class ParslProcesses(ParslThreads):
    """Apps on its high-throughput executor, on this machine."""

    def open(self, opened: contextlib.ExitStack) -> None:
        super().open(opened)
        import parsl

        lead, leading = parsl.python_app(lead_session), set()
        while len(leading) < WORKERS:  # it knows no initializer: each worker has to get such a call
            leading |= {future.result() for future in [lead() for _ in range(WORKERS)]}

    def executor(self) -> Any:
        from parsl.executors import HighThroughputExecutor

        # It finds its programs by name, beside the interpreter; its workers find functions by their module.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
        return HighThroughputExecutor(address="127.0.0.1", max_workers_per_node=WORKERS, encrypted=False)


GRAPHS: dict[str, type[Case]] = {
    "thread graph: graphlib, ThreadPoolExecutor": GraphlibThreads,
    "thread graph: dask": DaskThreads,
    "thread graph: pipefunc": PipefuncThreads,
    "thread graph: parsl": ParslThreads,
    "process graph: graphlib, ProcessPoolExecutor": GraphlibProcesses,
    "process graph: dask": DaskProcesses,
    "process graph: dask.distributed": Distributed,
    "process graph: pipefunc": PipefuncProcesses,
    "process graph: parsl": ParslProcesses,
    "process graph: ray": Ray,
}
