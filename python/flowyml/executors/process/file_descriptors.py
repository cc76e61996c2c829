"""Descriptors that are closed with the last object that holds them, whatever interrupts their owner in between.

How many there may be is a limit of the process, which `raise_limit` raises when it is reached, and not before.
"""

from __future__ import annotations

import errno
import os
import resource

_MOST = 65_536


class FileDescriptor:
    """An open descriptor.

    Args:
        fd: Its number; nobody else closes it.

    Attributes:
        fd: Its number, -1 once it is closed.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        """Return its number."""
        return self.fd

    def close(self) -> None:
        """Close it; more than once is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


def raise_limit(pid: int = 0) -> bool:
    """Let a process, by default this one, open as many files as it may without asking; tell whether that is more.

    65,536 at the most.
    """
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return False
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))
    return True


def reason_of(error: OSError) -> str:
    """Return why something could not be had; where no more files may be open, what their limit is."""
    return limit_reached() if error.errno == errno.EMFILE else error.strerror or str(error)


def limit_reached() -> str:
    """Say that no more files may be open."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"the limit of open files ({most}, `ulimit -n`) is reached"
