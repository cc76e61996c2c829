"""What ties a worker process to its pool: the first thing that runs in a worker.

A worker finds its socket and its claim words at fixed descriptors and all else in `sys.argv`, whether it was forked or
exec'ed. It inherits nothing more: a template closes what is its own, an exec what is the guardian's. It dies with its
guardian, even while user code holds the interpreter, because the kernel sees to it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml._extension import ClaimWords, WorkerCallLoop
from flowyml.executors.process.protocol.claim_memory import map_claims, map_results
from flowyml.executors.process.protocol.stack_dump import show_on_request
from flowyml.executors.process.supervisor.spawning import GIVEN_HASH_SEED, HASH_SEED, WORKER_CLAIMS, WORKER_SOCKET

if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Sequence
else:
    import _signal as signal  # see `starts.py`
    import _socket as socket

PR_SET_PDEATHSIG = 1


class WorkerResources(NamedTuple):
    """What a worker has from its pool.

    Attributes:
        worker: Its id.
        token: Random text known to this worker and the driver alone.
        socket: Its end of the socket; blocks.
        claims: The worker's view of its claim words (`take`).
        caller: Calls steps, and has the worker's view of its results.
    """

    worker: int
    token: str
    socket: socket.socket
    claims: ClaimWords
    caller: WorkerCallLoop


def attach(arguments: Sequence[str] | None = None) -> WorkerResources:
    """Tie this process to its guardian and take over its descriptors; ends the process if the guardian is gone.

    Args:
        arguments: Worker id, index of its claim words, the guardian's pid, token; by default what the pool put into
            `sys.argv`.
    """
    worker, index, guardian, token = arguments if arguments is not None else sys.argv[2:]
    die_with(int(guardian))
    _put_back_hash_seed()
    for fd in (WORKER_SOCKET, WORKER_CLAIMS):
        os.set_inheritable(fd, False)  # noqa: FBT003  positional only
    claims = ClaimWords(map_claims(WORKER_CLAIMS), int(index))
    caller = WorkerCallLoop(claims, map_results(WORKER_CLAIMS, int(index)), os.getpgid, WORKER_SOCKET)
    os.close(WORKER_CLAIMS)
    show_on_request()
    return WorkerResources(int(worker), token, socket.socket(fileno=WORKER_SOCKET), claims, caller)


def _put_back_hash_seed() -> None:
    """Restore the user's seed of `hash()`, or none, for steps and their child processes; Python has read its own."""
    given = os.environ.pop(GIVEN_HASH_SEED, None)
    if given:
        os.environ[HASH_SEED] = given
    elif given is not None:
        os.environ.pop(HASH_SEED, None)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which must be its only thread's process, is gone."""
    try:
        import ctypes
    except ImportError:  # the end of the socket is all that is left
        pass
    else:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it went before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)
