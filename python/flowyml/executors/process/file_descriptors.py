"""Descriptors that are closed with the last object that holds them, and the limit of open files.

`raise_limit` raises the limit of a process when it is reached, and not before.
"""

from __future__ import annotations

import errno
import os
import resource

MAX_OPEN_FILES = 65_536


class FileDescriptor:
    """An open descriptor, which no other code closes; `fd` is -1 once it is closed."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.fd

    def close(self) -> None:
        """Close it; may be called again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


def raise_limit(pid: int = 0) -> bool:
    """Raise the limit of open files of a process (default: this one) to its hard limit; return False if it is there.

    At most 65,536.
    """
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    most = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return False
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))
    return True


def reason_of(error: OSError) -> str:
    """Return the reason of an error; if no more files may be open, with the limit."""
    return limit_reached() if error.errno == errno.EMFILE else error.strerror or str(error)


def limit_reached() -> str:
    """Return the message that no more files may be open."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"the limit of open files ({most}, `ulimit -n`) is reached"
