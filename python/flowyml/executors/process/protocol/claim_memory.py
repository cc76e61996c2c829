"""The shared memory with the claim words and the results of all workers of a pool.

One anonymous memfd: it has no name that could be left behind, it is allocated before it is mapped (a write to a mapping
of a full file system is a SIGBUS), and it is sealed so that no process can shrink it.

```
claim words of all workers │ results of worker 0 │ results of worker 1 │ ...
        one map            │ allocated with the first worker of an index, mapped by that worker and the driver
```
"""

from __future__ import annotations

import errno
import fcntl
import heapq
import mmap
import os

from flowyml._extension import ClaimWords, ResultReader
from flowyml.errors import ExecutorError
from flowyml.executors.process.file_descriptors import FileDescriptor

MAX_WORKERS = 1024
"""Workers that can exist at the same time in one pool."""

# Half a megabyte holds sixteen thousand numbers, as many as are posted to a worker at a time, so that the shortest
# steps find room even while the driver does not run.
_RING = ResultReader.HEADER + (1 << 19)
# Mappings begin at multiples of the page size, which is at most this.
_PAGE = 1 << 16
_STRIDE = -(-_RING // _PAGE) * _PAGE
_CLAIMS = -(-MAX_WORKERS * ClaimWords.STRIDE // _PAGE) * _PAGE


def map_claims(fd: int) -> mmap.mmap:
    """Map the claim words of all workers."""
    return mmap.mmap(fd, _CLAIMS)


def map_results(fd: int, index: int) -> mmap.mmap:
    """Map the results of one worker."""
    return mmap.mmap(fd, _RING, offset=_CLAIMS + index * _STRIDE)


def no_memory(whose: str, size: int, error: OSError) -> str:
    """Return an error message for missing shared memory, with the limit that the user can change."""
    if error.errno != errno.EFBIG:
        return f"no shared memory for {whose} ({size:,} bytes): {error.strerror or error}"
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return (
        f"no shared memory for {whose}: it takes {size:,} bytes, and files of this process may have {limit:,} "
        f"(RLIMIT_FSIZE, `ulimit -f`); raise that limit, or use backend='thread'"
    )


class ClaimMemory:
    """Claim words and results of up to `MAX_WORKERS` workers; an index is reused once its worker has exited."""

    def __init__(self) -> None:
        self._file = FileDescriptor(os.memfd_create("flowyml-claims", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        self.fd = self._file.fd
        try:
            os.posix_fallocate(self.fd, 0, _CLAIMS)
        except OSError as error:
            self._file.close()
            raise ExecutorError(no_memory("the worker processes", _CLAIMS, error)) from None
        # It may grow with the number of workers, since the size of files may be limited.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        self._claims = map_claims(self.fd)
        self._results: dict[int, mmap.mmap] = {}
        self._free = list(range(MAX_WORKERS))

    def take(self) -> tuple[int, ClaimWords, ResultReader]:
        """Return the lowest free index, and the driver's views of its claim words and results.

        Raises:
            ExecutorError: There are `MAX_WORKERS` workers, or there is no memory for another.
            OSError: No more files may be open.
        """
        if not self._free:
            raise ExecutorError(f"a pool has at most {MAX_WORKERS} worker processes at one time")
        index = heapq.heappop(self._free)
        if index not in self._results:
            try:
                os.posix_fallocate(self.fd, _CLAIMS + index * _STRIDE, _RING)
                self._results[index] = map_results(self.fd, index)
            except OSError as error:
                heapq.heappush(self._free, index)
                if error.errno == errno.EMFILE:  # the caller can raise the limit
                    raise
                raise ExecutorError(no_memory("another worker process", _RING, error)) from None
        return index, ClaimWords(self._claims, index), ResultReader(self._results[index])

    def give_back(self, index: int) -> None:
        """Clear the claim words of a worker that has exited, and free its index; its memory is kept for the next."""
        start = index * ClaimWords.STRIDE
        self._claims[start : start + ClaimWords.STRIDE] = bytes(ClaimWords.STRIDE)
        if index in self._results:
            self._results[index][: ResultReader.HEADER] = bytes(ResultReader.HEADER)
        heapq.heappush(self._free, index)

    def close(self) -> None:
        """Close the descriptor; the memory is freed with the last view of it."""
        self._file.close()
