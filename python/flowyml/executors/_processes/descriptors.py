"""Descriptors that are closed with the last object that holds them, whatever interrupts their owner in between."""

from __future__ import annotations

import os


class Descriptor:
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
