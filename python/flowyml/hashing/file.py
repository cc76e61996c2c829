"""A file as a value: `File(path)` is used like the path, and counts by the bytes of the file in keys.

```
File ──stat──▶ device, inode, size, times ── hashed before? ──▶ its digest
                                          └─ else read, hashed, and stored under this signature
```

The digest of a file that changed just before it was read is not stored: file systems have coarse clocks, and a second
change within the same tick would not be visible.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from flowyml.hashing import blake2b

if TYPE_CHECKING:
    from typing import Self

MARK = b"flowyml.hashing.file"
"""Contained in each pickle with a `File`: the name of this module."""

_SIZE = 16
_BLOCK = 1 << 20
_TRIES = 3
# The tick of the coarsest file system in use (FAT).
_TICK_SECONDS = 2.0
# Digests of more files than this are not stored.
_MAX_STORED = 100_000

Signature: TypeAlias = "tuple[int, int, int, int, int]"
"""Device, inode, size, and the times of the last change of the content and of the inode in nanoseconds."""

_digests: dict[Signature, bytes] = {}


class File(os.PathLike[str]):
    """A file that a step reads, which counts by its content in the keys of cached and resumed steps.

    Use it like a path: `open(file)`, `pandas.read_csv(file)`, `Path(file)`. As a parameter, an input, an item of a map,
    a context value or the value of a step, also inside lists and dicts, it counts by its path as given and by the bytes
    of the file: a step that reads it runs again if they have changed. A plain path counts as a string.

    The file is read when a key is made. The process keeps the digest as long as the file's size, times and inode stay
    the same. A step whose file does not exist, cannot be read or is a directory is not cached, with a warning. A value
    is not stored if one of its files changed while the step ran. A step that returned a file runs again if that file
    has changed or is gone.

    Args:
        path: The path of the file; a relative path is resolved against the working directory, as by `open`.

    Raises:
        TypeError: If the path is neither a `str` nor a path object whose path is a `str`.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from flowyml import Pipeline
    >>> def total(numbers):
    ...     with open(numbers) as file:
    ...         return sum(map(int, file.read().split()))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = f"{directory}/numbers.txt"
    ...     for text in ("1 2", "1 2", "1 2 3"):
    ...         _ = Path(path).write_text(text)
    ...         pipeline = Pipeline("sums", cache_dir=f"{directory}/cache")
    ...         result = pipeline.add_step(total, params={"numbers": File(path)}, cache=True).run()
    ...         print(result["total"], result.step_results["total"].cached)
    3 False
    3 True
    6 False
    """

    __slots__ = ("_path",)

    _path: str

    def __init__(self, path: str | os.PathLike[str]) -> None:
        allowed: Any = (str, os.PathLike)
        given: Any = os.fspath(path) if isinstance(path, allowed) else None
        if not isinstance(given, str):
            raise TypeError(f"the path of a File must be a str or a path object, got {path!r}")
        object.__setattr__(self, "_path", given)

    @property
    def path(self) -> str:
        """The path as given."""
        return self._path

    def __fspath__(self) -> str:
        return self._path

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a File cannot be changed; create another one with File(path)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a File cannot be changed; create another one with File(path)")

    def __eq__(self, other: object) -> bool:
        return self.path == other.path if isinstance(other, File) else NotImplemented

    def __hash__(self) -> int:
        return hash((File, self.path))

    def __repr__(self) -> str:
        return f"File({self.path!r})"

    def __str__(self) -> str:
        return self.path

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.path,)


class _Collector(threading.local):
    """The files read while keys are made in this thread."""

    files: dict[str, bytes] | None = None


_collecting = _Collector()


class collected:  # noqa: N801  a context manager
    """Collects the files that are read in the block, with the hashes of their bytes."""

    __slots__ = ("_before", "_found")

    def __enter__(self) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        self._before, self._found = _collecting.files, files
        _collecting.files = files
        return files

    def __exit__(self, *_: object) -> None:
        _collecting.files = self._before
        if self._before is not None:
            self._before.update(self._found)


def digest_of(path: str) -> bytes:
    """Return the hash of a file's bytes.

    Raises:
        OSError: If it cannot be read, is not a regular file, or changes while it is read.
    """
    digest = _digest(path)
    if _collecting.files is not None:
        _collecting.files[path] = digest
    return digest


def _digest(path: str) -> bytes:
    for _ in range(_TRIES):
        before = _signature(path)
        if before in _digests:
            return _digests[before]
        began = time.time()
        digest = _read(path)
        if _signature(path) == before:
            if began - max(before[-2:]) / 1e9 > _TICK_SECONDS and len(_digests) < _MAX_STORED:
                _digests[before] = digest
            return digest
    raise OSError(f"{path!r} changed each of the {_TRIES} times that it was read")


def _signature(path: str) -> Signature:
    status = os.stat(path)  # noqa: PTH116  no Path object is needed
    if stat.S_ISDIR(status.st_mode):
        files = f"[File(file) for file in sorted(Path({path!r}).rglob('*')) if file.is_file()]"
        raise IsADirectoryError(
            f"{path!r} is a directory, and a File counts the bytes of one file; pass its files: {files}"
        )
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path!r} is not a regular file, so its bytes cannot be counted; pass its path as a string")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(path: str) -> bytes:
    state, block = blake2b(digest_size=_SIZE), memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        while count := file.readinto(block):
            state.update(block[:count])
    return state.digest()
