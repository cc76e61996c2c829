"""Journal: an append-only file of what a run has finished, from which the next run can continue.

```
file    magic, format │ record │ record │ ...
record  size of body, size of payload, checksum of both and of the body │ body (marshal) │ payload (pickles, end to end)
```

A record is one batch of completions and is written in one piece: what is in the file survives the process. A thread
syncs the file at most every 50 ms (or each write waits for the disk), so a power cut loses no more than that. On
opening, records are read up to the first incomplete one, and the rest is cut off. Payloads are neither read nor hashed
then: each value has a checksum, which is compared when the value is loaded. Values over 64 KiB are files.

The journal does not know what bodies mean; `caching/journal_index.py` does. SQLite would cost three times as much per
step, and no package for logs keeps batches whole by checksums and reads payloads late.
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
from flowyml.store.blobs import LARGE, BlobStore, sync_directory
from flowyml.store.directories import check_format, check_owner
from flowyml.store.serialization import ATOMS, SerializedValue, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

FORMAT = 2
_MAGIC = b"flowyml journal\n"
_START = struct.Struct("<16sI")
_HEAD = struct.Struct("<IQ8s")
_MARSHAL_VERSION = 2
_CHECKSUM_SIZE = 8
_SYNC_SECONDS = 0.05

# In a body, an atom stands for itself. Any other value is a tuple (where, kind, size, checksum), followed by the hash
# of the files that it refers to, if there are any: marshal writes plain tuples only.
_INLINE, _IN_FILE, _LOST = range(3)
LOST = (_LOST, b"", 0, b"")
"""Stands for a value that cannot be stored."""


def payload_size(value: Any) -> int:
    """Return how many bytes of the payload a value in a body has."""
    return value[2] if type(value) is tuple and value[0] == _INLINE else 0


def stored_size(value: Any) -> int:
    """Return how many bytes a value in a body has in the payload or in its file."""
    return value[2] if type(value) is tuple else 0


def files_hash(value: Any) -> bytes | None:
    """Return the hash of the files that a value in a body refers to."""
    return value[len(LOST)] if type(value) is tuple and len(value) > len(LOST) else None


class JournalRecord(NamedTuple):
    """A record that was read.

    Attributes:
        body: Its body.
        payload: Offset of its payload in the file.
    """

    body: Any
    payload: int


class Journal:
    """An open journal; existing records have to be read before something is written.

    Args:
        directory: Directory of the file and of the files of large values; it exists.
        always: Wait for the disk after each write.
        read_only: Change nothing; another process may be writing.
        on_trouble: Called once, in any thread, when it can no longer be written.

    Raises:
        StoreError: If the file is not a journal, has the format of another version, or belongs to another user.
        OSError: If it cannot be opened.

    Attributes:
        path: The file.
        cut: How many bytes at the end were incomplete and are cut off.
    """

    def __init__(
        self, directory: Path, *, always: bool = False, read_only: bool = False, on_trouble: Callable[[Exception], None]
    ) -> None:
        self.path = directory / "journal"
        self.cut = 0
        self._blobs = BlobStore(directory / "objects")
        self._always = always
        self._read_only = read_only
        self._on_trouble = on_trouble
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._closed = threading.Event()
        self._syncer: threading.Thread | None = None
        is_new = not self.path.exists() or self.path.stat().st_size < _START.size
        if not is_new:
            check_owner(self.path)
        self._fd = os.open(self.path, os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._start(directory) if is_new and not read_only else self._check_start()
        except BaseException:
            os.close(self._fd)
            raise
        self._end = _START.size

    def _start(self, directory: Path) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, _START.pack(_MAGIC, FORMAT), 0)
        if self._always:
            os.fsync(self._fd)
            sync_directory(directory)

    def _check_start(self) -> None:
        data = os.pread(self._fd, _START.size, 0)
        magic, version = _START.unpack(data) if len(data) == _START.size else (b"", 0)
        if magic != _MAGIC:
            raise StoreError(str(self.path), "is not the journal of a run")
        remedy = f"finish its run with that version, or delete the directory {self.path.parent}"
        check_format(self.path, version, FORMAT, remedy)

    # -- reading

    def records(self) -> Iterator[JournalRecord]:
        """Yield all records up to the first incomplete one; cut off the rest."""
        size = os.fstat(self._fd).st_size
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(self._end)
            while (record := self._read(file, size)) is not None:
                yield record
        self.cut = size - self._end
        if self.cut and not self._read_only:
            os.ftruncate(self._fd, self._end)

    def _read(self, file: Any, size: int) -> JournalRecord | None:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, payload, checksum = _HEAD.unpack(head)
        start = self._end + _HEAD.size + length
        if start + payload > size:
            return None
        data = file.read(length)
        if _checksum(self._end, length, payload, data) != checksum:
            return None
        self._end = start + payload
        file.seek(payload, os.SEEK_CUR)
        return JournalRecord(marshal.loads(data), start)  # noqa: S302  it has its checksum

    def load(self, value: Any, offset: int) -> Any:
        """Return a value that was written, still encoded.

        Args:
            value: The value as it is in the body.
            offset: Where its payload is in the file.

        Raises:
            LookupError: If it was not stored, is damaged, or its file is gone.
        """
        if type(value) is not tuple:
            return value
        where, kind, size, checksum = value[: len(LOST)]
        if where == _LOST:
            raise LookupError("its value could not be stored")
        try:
            if where == _IN_FILE:
                return unpacked(self._blobs.get(kind, checksum))
            serialized = SerializedValue(kind, os.pread(self._fd, size, offset))
        except StoreError as error:
            if not self._read_only:
                self._blobs.remove(checksum)
            raise LookupError(str(error)) from error
        except OSError as error:
            raise LookupError(str(error)) from error
        if serialized.checksum != checksum:
            raise LookupError(f"{self.path} is damaged: a value in it is not what was stored")
        return unpacked(serialized)

    # -- writing

    def prepared(self, value: SerializedValue) -> tuple[tuple[Any, ...], bytes]:
        """Return a value as it is in a body, and its part of the payload; a large one is written to its file now.

        Raises:
            OSError: If that cannot be written.
        """
        checksum, size = value.checksum, len(value.data)
        if size <= LARGE:
            return (_INLINE, value.kind, size, checksum), value.data
        self._blobs.put(value, checksum, durable=self._always)
        return (_IN_FILE, value.kind, size, checksum), b""

    def write(self, body: Any, payload: Sequence[bytes] = ()) -> None:
        """Append a record.

        Raises:
            OSError: If it cannot be written; the file is as before.
        """
        data = marshal.dumps(body, _MARSHAL_VERSION)
        size = sum(map(len, payload))
        with self._lock:
            head = _HEAD.pack(len(data), size, _checksum(self._end, len(data), size, data))
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
                self._syncer = threading.Thread(target=self._sync_repeatedly, name="flowyml-journal", daemon=True)
                self._syncer.start()

    def _sync_repeatedly(self) -> None:
        while not self._closed.is_set():
            self._dirty.wait()
            self._dirty.clear()
            started = time.monotonic()
            try:
                self._sync()
            except OSError as error:
                if not self._closed.is_set():
                    self._on_trouble(error)
                return
            self._closed.wait(max(0.0, started + _SYNC_SECONDS - time.monotonic()))

    def _sync(self) -> None:
        os.fdatasync(self._fd)
        if not os.fstat(self._fd).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "it was removed while its run continues, with everything in it")

    def close(self) -> None:
        """Sync and close it; a second call does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
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


def has_no_records(directory: Path) -> bool:
    """Return True if a directory has a journal without any record, not even one with the name of its run."""
    try:
        with (directory / "journal").open("rb") as file:
            data = file.read(_START.size + 1)
    except OSError:
        return False
    return len(data) <= _START.size and _MAGIC.startswith(data[: len(_MAGIC)])


def first_body(path: Path) -> Any:
    """Return the body of the first record of a journal, of any format; `None` if there is no complete one."""
    try:
        with path.open("rb") as file:
            start, head = file.read(_START.size), file.read(_HEAD.size)
            if len(start) < _START.size or start[: len(_MAGIC)] != _MAGIC or len(head) < _HEAD.size:
                return None
            length, payload, checksum = _HEAD.unpack(head)
            body = file.read(min(length, LARGE))
    except OSError:
        return None
    is_complete = checksum == _checksum(_START.size, length, payload, body)
    return marshal.loads(body) if is_complete else None  # noqa: S302  it has its checksum


def _checksum(offset: int, length: int, payload: int, body: bytes) -> bytes:
    """Return the checksum of a record; the offset is part of it, so a moved or foreign record is not accepted."""
    return blake2b(struct.pack("<QIQ", offset, length, payload) + body, digest_size=_CHECKSUM_SIZE).digest()


def is_atom(value: Any) -> bool:
    """Return True if a value stands for itself in a body."""
    return type(value) in ATOMS
