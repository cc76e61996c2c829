"""Pools that know calls and no graph, beyond those of the standard library in `steps_by_hand.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from cases.contract import WORKERS
from cases.peers_graphs import Peer
from cases.pools import own_session
from cases.steps_by_hand import ThreadsMap, ThreadsSubmit, noop

if TYPE_CHECKING:
    import contextlib

    from cases.contract import Case


class JoblibThreads(Peer):
    """`joblib.Parallel` that stays open between calls, threads; it batches processes only."""

    needs = ("joblib",)
    most = 100_000
    options: ClassVar[dict[str, Any]] = {"backend": "threading"}

    def open(self, opened: contextlib.ExitStack) -> None:
        import joblib

        self.parallel: Any = opened.enter_context(joblib.Parallel(WORKERS, pre_dispatch="all", **self.options))

    def run(self) -> None:
        import joblib

        call = joblib.delayed(noop)
        self.outputs = self.parallel(call(i) for i in range(self.size))


class JoblibProcesses(JoblibThreads):
    """The same with loky's processes, which choose the size of their batches by themselves."""

    options: ClassVar[dict[str, Any]] = {"backend": "loky", "initializer": own_session}


POOLS: dict[str, type[Case]] = {
    "thread pool: ThreadPoolExecutor submit": ThreadsSubmit,
    "thread pool: ThreadPoolExecutor map": ThreadsMap,
    "thread pool: joblib": JoblibThreads,
    "process pool: joblib": JoblibProcesses,
}
