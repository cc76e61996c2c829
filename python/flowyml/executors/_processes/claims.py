"""The memory in which all workers of a pool have their claim words.

One anonymous memfd for the pool: it has no name that could be left behind, it is allocated before it is mapped (a write
through a map of a full file system is a SIGBUS), and it is sealed so that no process can cut it short.
"""

from __future__ import annotations

import fcntl
import heapq
import mmap
import os

from flowyml._extension import ClaimWords
from flowyml.errors import ExecutorError
from flowyml.executors._processes.descriptors import Descriptor

MAX_WORKERS = 1024
"""Workers that can live at one time in one pool."""


class ClaimMemory:
    """Claim words for up to `MAX_WORKERS` workers; an index is used again once its worker is gone."""

    def __init__(self) -> None:
        size = MAX_WORKERS * ClaimWords.STRIDE
        self._file = Descriptor(os.memfd_create("flowyml-claims", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        self.fd = self._file.fd
        os.posix_fallocate(self.fd, 0, size)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._map = mmap.mmap(self.fd, size)
        self._free = list(range(MAX_WORKERS))

    def take(self) -> tuple[int, ClaimWords]:
        """Return the lowest free index, and the driver's view of its words.

        Raises:
            ExecutorError: There are `MAX_WORKERS` workers.
        """
        if not self._free:
            raise ExecutorError(f"a pool has at most {MAX_WORKERS} worker processes at one time")
        index = heapq.heappop(self._free)
        return index, ClaimWords(self._map, index)

    def give_back(self, index: int) -> None:
        """Wipe the words of a worker that is gone, and free its index."""
        start = index * ClaimWords.STRIDE
        self._map[start : start + ClaimWords.STRIDE] = bytes(ClaimWords.STRIDE)
        heapq.heappush(self._free, index)

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last view of it."""
        self._file.close()
