"""Large values as files that are named by their content.

A file is written beside its name and renamed, so it is whole or not there; equal contents are one file. What is read is
hashed again: a file whose content is not what its name says is never served.
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
"""Values of more bytes than this become files."""

_UNFINISHED = ".part"
_FORGOTTEN, _DAY = 3600, 86400


class BlobStore:
    """A folder of such files.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, checksum: bytes) -> Path:
        """Return the file of a content."""
        name = checksum.hex()
        return self.folder / name[:2] / name[2:]

    def put(self, value: SerializedValue, checksum: bytes, *, durable: bool = False) -> None:
        """Write a value, unless it is there.

        Args:
            value: The value.
            checksum: `value.checksum`.
            durable: Return when it is on the disk.

        Raises:
            OSError: If it cannot be written; nothing is left behind.
        """
        path = self.path(checksum)
        if not self._has(path, len(value.data)):
            path.parent.mkdir(0o700, parents=True, exist_ok=True)
            write_whole(path, value.data, durable=durable)

    def get(self, kind: bytes, checksum: bytes) -> SerializedValue:
        """Read a value.

        Raises:
            FileNotFoundError: If it is not there.
            StoreError: If it is damaged or another user's; names the file.
        """
        path = self.path(checksum)
        with path.open("rb") as file:
            check_owner(path)
            value = SerializedValue(kind, file.read())
        if value.checksum != checksum:
            raise StoreError(str(path), "is damaged: its content is not what was stored")
        return value

    def remove(self, checksum: bytes) -> None:
        """Remove a value, if it is there."""
        self.path(checksum).unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Remove everything but what others are writing at this moment."""
        for path in self._all():
            with contextlib.suppress(OSError):
                if not path.name.endswith(_UNFINISHED) or _is_old(path, _FORGOTTEN):
                    path.unlink()

    def clear(self) -> None:
        """Remove all of it, and the folders that hold nothing else."""
        for path in self._all():
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def sweep(self, named: Callable[[], set[str]]) -> None:
        """Once a day, remove old files that nobody names."""
        mark = self.folder.with_name("swept")
        if not self.folder.exists() or (mark.exists() and not _is_old(mark, _DAY)):
            return
        mark.touch(0o600)
        keep = named()
        for path in self._all():
            with contextlib.suppress(OSError):
                if path.parent.name + path.name not in keep and _is_old(path, _FORGOTTEN):
                    path.unlink()

    def _all(self) -> Iterator[Path]:
        """Go through the files that have such names: others in the folder are somebody else's."""
        with contextlib.suppress(FileNotFoundError):
            for folder in list(self.folder.iterdir()):
                if folder.is_dir():
                    yield from [path for path in folder.iterdir() if _is_one(path)]

    @staticmethod
    def _has(path: Path, size: int) -> bool:
        try:
            return path.stat().st_size == size
        except OSError:
            return False


def _is_one(path: Path) -> bool:
    """Tell whether a file has the name of a content, or that of one which is being written."""
    name, _, rest = path.name.partition(".")
    name = path.parent.name + name
    is_name = len(name) == 2 * SIZE and not name.strip("0123456789abcdef")
    return is_name and (not rest or rest.endswith(_UNFINISHED[1:]))


def _is_old(path: Path, seconds: float) -> bool:
    return time.time() - path.stat().st_mtime > seconds


def write_whole(path: Path, data: bytes, *, durable: bool) -> None:
    """Write a file that is whole or not there, in place of one that is.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}{_UNFINISHED}")
    try:
        with open(beside, "xb", opener=_private) as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
        if durable:
            sync_folder(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
