"""Journal: what a run has finished, appended to one file as it happens, so that the next run can go on from there.

```
file    magic, format │ record │ record │ ...
record  size of body, size of payload, checksum of both and of the body │ body (marshal) │ payload (pickles, end to end)
```

A record is one batch of completions, written in one piece: what is in the file survives the process. A thread brings
it to the disk at most every 50 ms (or each write waits for the disk), so a power cut costs no more. On opening, records
are read up to the first that is not whole; the rest is cut off. Payloads are neither read nor hashed then: each value
has a checksum, which is compared when it is loaded. Values over 64 KiB are files.

What stands in a body is `caching/run_journal.py`'s affair. Written by hand and not with SQLite (3 times the cost for
each step) or a package for logs (none keeps batches whole by checksums and reads payloads late).
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.errors import StoreError
from flowyml.hashing import blake2b
from flowyml.store.blobs import LARGE, BlobStore, sync_folder
from flowyml.store.directories import check_owner
from flowyml.store.serialization import SerializedValue, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

FORMAT = 1
_MAGIC = b"flowyml journal\n"
_START = struct.Struct("<16sI")
_HEAD = struct.Struct("<IQ8s")
_VERSION = 2
_SUM = 8
_SYNC_EVERY = 0.05
_ATOMS = frozenset([type(None), bool, int, float, str])
# How a value stands in a body, beside the atoms, which stand there themselves.
_INLINE, _IN_FILE, _LOST = range(3)
LOST = (_LOST, b"", 0, b"")
"""Stands for a value that cannot be stored."""


class JournalRecord(NamedTuple):
    """A record that was read.

    Attributes:
        body: Its body.
        payload: Where its payload begins in the file.
    """

    body: Any
    payload: int


class Journal:
    """An open journal.

    Args:
        folder: Where it is, and the files of large values; it exists.
        always: Wait for the disk at each write.
        read_only: Change nothing; somebody else may be writing.
        on_trouble: Is called, once, when it cannot go on, from whatever thread that is in.

    Raises:
        StoreError: If the file is no journal, was written by a newer version, or is another user's.
        OSError: If it cannot be opened.

    Attributes:
        path: The file.
        cut: How many bytes at the end were not whole, and are cut off.
    """

    def __init__(
        self, folder: Path, *, always: bool = False, read_only: bool = False, on_trouble: Callable[[Exception], None]
    ) -> None:
        """Open it, or make a new one; what is there has to be read before something is written."""
        self.path = folder / "journal"
        self.cut = 0
        self._files = BlobStore(folder / "objects")
        self._always = always
        self._read_only = read_only
        self._on_trouble = on_trouble
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._ended = threading.Event()
        self._syncer: threading.Thread | None = None
        is_new = not self.path.exists() or self.path.stat().st_size < _START.size
        if not is_new:
            check_owner(self.path)
        self._fd = os.open(self.path, os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._start(folder) if is_new and not read_only else self._check_format()
        except BaseException:
            os.close(self._fd)
            raise
        self._end = _START.size

    def _start(self, folder: Path) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, _START.pack(_MAGIC, FORMAT), 0)
        if self._always:
            os.fsync(self._fd)
            sync_folder(folder)

    def _check_format(self) -> None:
        magic, found = _START.unpack(os.pread(self._fd, _START.size, 0))
        if magic != _MAGIC:
            raise StoreError(str(self.path), "is no journal of a run")
        if found > FORMAT:
            raise StoreError(str(self.path), f"has format {found}; this version of flowyml knows up to {FORMAT}")

    # -- reading

    def records(self) -> Iterator[JournalRecord]:
        """Go through all records, up to the first that is not whole; cut off what follows."""
        size = os.fstat(self._fd).st_size
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(self._end)
            while (record := self._read(file, size)) is not None:
                yield record
        self.cut = size - self._end
        if self.cut and not self._read_only:
            os.ftruncate(self._fd, self._end)

    def _read(self, file: Any, size: int) -> JournalRecord | None:
        """Return the next record; `None` at the end, or if it is not whole."""
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, payload, checksum = _HEAD.unpack(head)
        begin = self._end + _HEAD.size + length
        if begin + payload > size:
            return None
        data = file.read(length)
        if _sum(self._end, length, payload, data) != checksum:
            return None
        self._end = begin + payload
        file.seek(payload, os.SEEK_CUR)
        return JournalRecord(marshal.loads(data), begin)  # noqa: S302  it has its checksum

    def load(self, value: Any, at: int) -> Any:
        """Return a value that was written, still encoded.

        Args:
            value: What stands in the body.
            at: Where its payload is in the file.

        Raises:
            LookupError: If it is damaged, or its file is not there any more.
        """
        if type(value) is not tuple:
            return value
        where, kind, size, checksum = value[:4]
        if where == _LOST:
            raise LookupError("its value could not be stored")
        try:
            if where == _IN_FILE:
                return unpacked(self._files.get(kind, checksum))
            packed = SerializedValue(kind, os.pread(self._fd, size, at))
        except StoreError as error:
            if not self._read_only:
                self._files.remove(checksum)
            raise LookupError(str(error)) from error
        except OSError as error:
            raise LookupError(str(error)) from error
        if packed.checksum != checksum:
            raise LookupError(f"{self.path} is damaged: a value in it is not what was stored")
        return unpacked(packed)

    # -- writing

    def prepared(self, value: SerializedValue) -> tuple[Any, bytes]:
        """Return how a value stands in a body, and its part of the payload; a large one is written to its file now.

        Raises:
            OSError: If that cannot be written.
        """
        checksum, size = value.checksum, len(value.data)
        if size <= LARGE:
            return (_INLINE, value.kind, size, checksum), value.data
        self._files.put(value, checksum, durable=self._always)
        return (_IN_FILE, value.kind, size, checksum), b""

    def write(self, body: Any, payload: Sequence[bytes] = ()) -> None:
        """Append a record.

        Raises:
            OSError: If it cannot be written; the file is as before.
        """
        data = marshal.dumps(body, _VERSION)
        size = sum(map(len, payload))
        with self._lock:
            head = _HEAD.pack(len(data), size, _sum(self._end, len(data), size, data))
            try:
                _write_all(self._fd, b"".join((head, data, *payload)), self._end)
                if self._always:
                    self._sync()
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._end)
                raise
            self._end += len(head) + len(data) + size
        if not self._always:
            self._dirty.set()
            if self._syncer is None:
                self._start_syncer()

    # -- to the disk

    def _start_syncer(self) -> None:
        self._syncer = threading.Thread(target=self._sync_now_and_then, name="flowyml-journal", daemon=True)
        self._syncer.start()

    def _sync_now_and_then(self) -> None:
        while not self._ended.is_set():
            self._dirty.wait()
            self._dirty.clear()
            begun = time.monotonic()
            try:
                self._sync()
            except OSError as error:
                if not self._ended.is_set():
                    self._on_trouble(error)
                return
            self._ended.wait(max(0.0, begun + _SYNC_EVERY - time.monotonic()))

    def _sync(self) -> None:
        """Bring it to the disk.

        Raises:
            OSError: If that is not possible, or nobody will find it there.
        """
        os.fdatasync(self._fd)
        if not os.fstat(self._fd).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "it was removed while its run goes on, with all that it held")

    def close(self) -> None:
        """Bring it to the disk and close it; a second time does nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._dirty.set()
        if self._syncer is not None:
            self._syncer.join()
        with self._lock:
            if not self._read_only:
                with contextlib.suppress(OSError):
                    os.fdatasync(self._fd)
            os.close(self._fd)
            self._fd = -1


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]


def says_nothing(folder: Path) -> bool:
    """Tell whether a folder has a journal without any record, not even of which run it is."""
    try:
        with (folder / "journal").open("rb") as file:
            found = file.read(_START.size + 1)
    except OSError:
        return False
    return len(found) <= _START.size and _MAGIC.startswith(found[: len(_MAGIC)])


def first_body(path: Path) -> Any:
    """Return the body of the first record of a journal; `None` if there is none that is whole."""
    try:
        with path.open("rb") as file:
            start, head = file.read(_START.size), file.read(_HEAD.size)
            if len(start) < _START.size or start[:16] != _MAGIC or len(head) < _HEAD.size:
                return None
            length, payload, checksum = _HEAD.unpack(head)
            body = file.read(min(length, LARGE))
    except OSError:
        return None
    whole = checksum == _sum(_START.size, length, payload, body)
    return marshal.loads(body) if whole else None  # noqa: S302  it has its checksum


def _sum(place: int, length: int, payload: int, body: bytes) -> bytes:
    """The place counts: a record that was moved, or is of another file, is none of this one."""
    return blake2b(struct.pack("<QIQ", place, length, payload) + body, digest_size=_SUM).digest()


def is_atom(value: Any) -> bool:
    """Tell whether a value stands in a body as it is."""
    return type(value) in _ATOMS
