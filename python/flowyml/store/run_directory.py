"""Directories of resumable runs: one for each, locked by the process that executes the run.

```
checkpoints/
    3f2a91c04b77/     journal, lock, objects/    named by the run's id
    nightly/          ...
```

The lock belongs to the kernel and is released when its process ends, however that happens; forked children do not
hold it. Locks of one process do not exclude each other, so those are also recorded here. A directory without a journal
is the rest of a run that was being removed.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING

from flowyml.store.blobs import BlobStore
from flowyml.store.directories import file_name, private_directory, remove_if_empty
from flowyml.store.journal import has_no_records

if TYPE_CHECKING:
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: runs of one process exclude each other, those of several processes do not
    fcntl = None  # type: ignore[assignment]

HAS_PROCESS_LOCKS = fcntl is not None
"""Whether a free lock means that no other process executes the run."""
STATES, ABOUT = "states", "about"
"""Subdirectories with what a `PipelineCheckpoint` of a run has saved: values of steps, and data of the run."""
_OWN_NAMES = {".gitignore", "journal", "lock", "objects"}
_START_SECONDS = 60  # within this time, a run that starts has written its journal
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, process
_locked_here: set[str] = set()
_mutex = threading.Lock()


class RunDirectory:
    """The directory of one run.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    @property
    def has_journal(self) -> bool:
        """Whether there is something to continue."""
        return (self.path / "journal").exists()

    @property
    def changed(self) -> float:
        """When its journal was last written (seconds since 1970)."""
        return (self.path / "journal").stat().st_mtime

    def acquire(self) -> bool:
        """Create the directory if necessary and lock it; return False if the run is executing now.

        Raises:
            StoreError: If it belongs to another user.
            OSError: If it cannot be created.
        """
        with _mutex:
            if str(self.path) in _locked_here:
                return False
            private_directory(self.path.parent)
            private_directory(self.path)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            if not _try_lock(lock) or _was_replaced(self.path / "lock", lock):
                os.close(lock)
                return False
            _locked_here.add(str(self.path))
            self._lock = lock
            return True

    def release(self) -> None:
        """Unlock it; a second call does nothing."""
        with _mutex:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
                _locked_here.discard(str(self.path))

    def remove(self) -> None:
        """Remove it, the journal first: without one there is nothing to continue.

        Foreign files stay, and the directory with them.
        """
        self.empty()
        for directory in (self.path / STATES, self.path / ABOUT):
            if directory.exists():
                from flowyml.store.step_state_files import StepStateFiles  # few runs have any

                StepStateFiles(directory, "").clear()
        with contextlib.suppress(OSError):
            (self.path / "lock").unlink(missing_ok=True)
        remove_if_empty(self.path)

    def empty(self) -> None:
        """Remove its journal and values, but not its lock."""
        (self.path / "journal").unlink(missing_ok=True)
        BlobStore(self.path / "objects").clear()


def _was_replaced(path: Path, descriptor: int) -> bool:
    """Return True if a lock was removed while it was being acquired: its run was ending at that moment."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return True


def _try_lock(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Return True if a process executes the run of a directory; the lock itself is not touched."""
    path = path.absolute()
    if str(path) in _locked_here:
        return True
    if not sys.platform.startswith("linux"):  # only Linux documents the layout of the question
        return False
    try:
        lock = os.open(path / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, question))[0]
        return bool(kind != fcntl.F_UNLCK)
    finally:
        os.close(lock)


def directory_of(root: Path, run_id: str) -> RunDirectory:
    """Return the directory of a run.

    >>> from pathlib import Path
    >>> directory_of(Path("/tmp"), "nightly-3").path.name, directory_of(Path("/tmp"), "../a b").path.name
    ('nightly-3', '%2E.%2Fa%20b')
    """
    return RunDirectory(root / file_name(run_id))


def remove_leftovers(root: Path) -> None:
    """Remove the directories of runs whose process was killed while they were started or removed."""
    with contextlib.suppress(OSError):
        for path in root.iterdir():
            if _is_leftover(path) and (directory := RunDirectory(path)).acquire():
                try:
                    if _is_leftover(path):  # no run has started meanwhile
                        directory.remove()
                finally:
                    directory.release()


def _is_leftover(path: Path) -> bool:
    """Return True if a directory has a run's lock, and no journal or one without records."""
    with contextlib.suppress(OSError):
        if (path / "lock").stat().st_size or not {entry.name for entry in path.iterdir()} <= _OWN_NAMES:
            return False
        if has_no_records(path):  # its writer had locked the directory: no need to wait
            return HAS_PROCESS_LOCKS
        return not (path / "journal").exists() and time.time() - path.stat().st_mtime > _START_SECONDS
    return False


def unfinished_runs(root: Path) -> list[RunDirectory]:
    """Return the directories with a journal, the most recently written first."""
    runs = []
    with contextlib.suppress(OSError):
        for path in root.iterdir():
            with contextlib.suppress(OSError):
                directory = RunDirectory(path)
                runs.append((directory.changed, str(path), directory))
    return [directory for _, _, directory in sorted(runs, key=lambda run: run[:2], reverse=True)]
