"""Content-addressed files for large values.

A file is written under a temporary name and renamed, so it is either complete or absent; equal values share one file.
Every read compares the content with the checksum in the file's name, so a damaged file is never served.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from flowyml.errors import StoreError
from flowyml.store.directories import check_owner
from flowyml.store.serialization import SIZE, SerializedValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LARGE = 1 << 16
"""Values of more bytes are stored as files."""

_TEMPORARY = ".part"
_ABANDONED_SECONDS, _SWEEP_SECONDS = 3600, 86400


class BlobStore:
    """A directory of such files.

    Args:
        directory: The directory; it is created by the first write.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, checksum: bytes) -> Path:
        """Return the file of a checksum."""
        name = checksum.hex()
        return self.directory / name[:2] / name[2:]

    def put(self, value: SerializedValue, checksum: bytes, *, durable: bool = False) -> None:
        """Write a value unless it is there.

        Args:
            value: The value.
            checksum: `value.checksum`.
            durable: Return only once it is on the disk.

        Raises:
            OSError: If it cannot be written; nothing is left behind.
        """
        path = self.path(checksum)
        with contextlib.suppress(OSError):
            if path.stat().st_size == len(value.data):
                return
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        write_atomically(path, value.data, durable=durable)

    def get(self, kind: bytes, checksum: bytes) -> SerializedValue:
        """Read a value.

        Raises:
            FileNotFoundError: If it is not there.
            StoreError: If it is damaged or belongs to another user; names the file.
        """
        path = self.path(checksum)
        with path.open("rb") as file:
            check_owner(path)
            value = SerializedValue(kind, file.read())
        if value.checksum != checksum:
            raise StoreError(str(path), "is damaged: its content is not what was stored")
        return value

    def remove(self, checksum: bytes) -> None:
        """Remove a value if it is there."""
        self.path(checksum).unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Remove all files except those that other processes are writing now."""
        for path in self._files():
            with contextlib.suppress(OSError):
                if not path.name.endswith(_TEMPORARY) or _is_older(path, _ABANDONED_SECONDS):
                    path.unlink()

    def clear(self) -> None:
        """Remove all files, and the directories that contain nothing else."""
        for path in self._files():
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()
        with contextlib.suppress(OSError):
            self.directory.rmdir()

    def sweep(self, referenced: Callable[[], set[str]]) -> None:
        """Once a day, remove old files that no entry refers to: their writer was killed before it wrote the entries."""
        mark = self.directory.with_name("swept")
        if not self.directory.exists() or (mark.exists() and not _is_older(mark, _SWEEP_SECONDS)):
            return
        mark.touch(0o600)
        keep = referenced()
        for path in self._files():
            with contextlib.suppress(OSError):
                if path.parent.name + path.name not in keep and _is_older(path, _ABANDONED_SECONDS):
                    path.unlink()

    def _files(self) -> Iterator[Path]:
        """Yield the files of this store; files with other names belong to somebody else and are left alone."""
        with contextlib.suppress(FileNotFoundError):
            for directory in list(self.directory.iterdir()):
                if directory.is_dir():
                    yield from [path for path in directory.iterdir() if _is_blob(path)]


def _is_blob(path: Path) -> bool:
    """Return True if a file has the name of a checksum, or the temporary name of a blob that is being written."""
    name, _, rest = path.name.partition(".")
    name = path.parent.name + name
    is_checksum = len(name) == 2 * SIZE and not name.strip("0123456789abcdef")
    return is_checksum and (not rest or rest.endswith(_TEMPORARY[1:]))


def _is_older(path: Path, seconds: float) -> bool:
    return time.time() - path.stat().st_mtime > seconds


def write_atomically(path: Path, data: bytes, *, durable: bool) -> None:
    """Write a file completely or not at all; an existing file is replaced.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}{_TEMPORARY}")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_directory(path: Path) -> None:
    """Write the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
