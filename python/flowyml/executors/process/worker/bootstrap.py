"""The first code of a worker process: connects it to its pool.

A worker, whether forked or exec'ed, finds its socket and claim words at fixed descriptors and the rest in `sys.argv`.
It inherits nothing else. The kernel kills it when its supervisor dies, even while user code holds the interpreter lock.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml._extension import ClaimWords, WorkerCallLoop
from flowyml.executors.process.protocol.claim_memory import map_claims, map_results
from flowyml.executors.process.protocol.stack_dump import enable_stack_dumps
from flowyml.executors.process.supervisor.spawning import GIVEN_HASH_SEED, HASH_SEED, WORKER_CLAIMS, WORKER_SOCKET

if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Sequence
else:
    import _signal as signal  # see `spawning.py`
    import _socket as socket

PR_SET_PDEATHSIG = 1


class WorkerResources(NamedTuple):
    """What a worker gets from its pool."""

    worker: int  # its id
    token: str  # random digits known to this worker and the driver alone
    socket: socket.socket  # its end of the socket; blocks
    claims: ClaimWords  # worker's view of its claim words (`take`)
    caller: WorkerCallLoop  # calls steps, and has the worker's view of its results


def attach(arguments: Sequence[str] | None = None) -> WorkerResources:
    """Tie this process to its supervisor and take over its descriptors; exits if the supervisor is gone.

    Args:
        arguments: Worker id, index of its claim words, the supervisor's pid, token; by default from `sys.argv`.
    """
    worker, index, supervisor, token = arguments if arguments is not None else sys.argv[2:]
    die_with_parent(int(supervisor))
    _put_back_hash_seed()
    for fd in (WORKER_SOCKET, WORKER_CLAIMS):
        os.set_inheritable(fd, False)  # noqa: FBT003  positional only
    claims = ClaimWords(map_claims(WORKER_CLAIMS), int(index))
    caller = WorkerCallLoop(claims, map_results(WORKER_CLAIMS, int(index)), os.getpgid, WORKER_SOCKET)
    os.close(WORKER_CLAIMS)
    enable_stack_dumps()
    return WorkerResources(int(worker), token, socket.socket(fileno=WORKER_SOCKET), claims, caller)


def _put_back_hash_seed() -> None:
    """Restore the user's seed of `hash()` for steps and their child processes; Python has read the pool's."""
    given = os.environ.pop(GIVEN_HASH_SEED, None)
    if given:
        os.environ[HASH_SEED] = given
    elif given is not None:
        os.environ.pop(HASH_SEED, None)


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when `parent`, which must have a single thread, exits."""
    try:
        import ctypes
    except ImportError:  # the end of the socket remains
        pass
    else:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it exited before prctl
        os.kill(os.getpid(), signal.SIGKILL)
