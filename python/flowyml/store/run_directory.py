"""The folders of runs that may be continued: one for each, locked by the process that is at it.

```
checkpoints/
    3f2a91c04b77/     journal, lock, objects/    the name of the run
    nightly/          ...
```

A lock is the kernel's and goes with its process, however that ends; forked children do not hold it. Two runs of one
process do not see each other's locks, so those are noted here, too. A folder without a journal is what was left of a
run that was being removed.
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
from flowyml.store.directories import file_name, private_folder, remove_emptied
from flowyml.store.journal import says_nothing

if TYPE_CHECKING:
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: runs of one process exclude each other, those of several do not
    fcntl = None  # type: ignore[assignment]

locks_tell = fcntl is not None
"""Whether a lock that is free says that no other process is at a run."""
STATES, ABOUT = "states", "about"
"""Folders of a run for what a `PipelineCheckpoint` puts aside: what steps have returned, what is to be known."""
_OURS = {".gitignore", "journal", "lock", "objects"}
_A_WHILE = 60  # seconds in which a run that begins has written its journal
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, process
_held: set[str] = set()
_holding = threading.Lock()


class RunDirectory:
    """The folder of one run.

    Args:
        path: The folder.
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
        """When its journal was written last (seconds since 1970)."""
        return (self.path / "journal").stat().st_mtime

    def hold(self) -> bool:
        """Make the folder if need be, and lock it; tell whether that was possible: else the run is going on.

        Raises:
            StoreError: If it is another user's.
            OSError: If it cannot be made.
        """
        with _holding:
            if str(self.path) in _held:
                return False
            private_folder(self.path.parent)
            private_folder(self.path)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            if not _locked(lock) or _is_gone(self.path / "lock", lock):
                os.close(lock)
                return False
            _held.add(str(self.path))
            self._lock = lock
            return True

    def let_go(self) -> None:
        """Unlock it; a second time does nothing."""
        with _holding:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
                _held.discard(str(self.path))

    def remove(self) -> None:
        """Remove it, the journal first: what is left without one is nothing to continue.

        Whatever else somebody keeps there stays, and the folder with it.
        """
        self.empty()
        for folder in (self.path / STATES, self.path / ABOUT):
            if folder.exists():
                _clear_states(folder)
        with contextlib.suppress(OSError):
            (self.path / "lock").unlink(missing_ok=True)
        remove_emptied(self.path)

    def empty(self) -> None:
        """Remove all that it holds of a run, but the lock."""
        (self.path / "journal").unlink(missing_ok=True)
        BlobStore(self.path / "objects").clear()


def _clear_states(folder: Path) -> None:
    from flowyml.store.step_state_files import StepStateFiles  # few runs have any

    StepStateFiles(folder, "").clear()


def _is_gone(path: Path, descriptor: int) -> bool:
    """Tell whether somebody has removed a lock while it was taken: he was at the end of this very run."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return True


def _locked(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Tell whether some process is at the run of a folder, without touching its lock: a run may be about to take it."""
    path = path.absolute()
    if str(path) in _held:
        return True
    try:
        lock = os.open(path / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        return _is_locked(lock)
    finally:
        os.close(lock)


def _is_locked(descriptor: int) -> bool:
    """Ask who holds a lock; only Linux has the layout of this question written down."""
    if not sys.platform.startswith("linux"):
        return False
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))[0]
    return bool(kind != fcntl.F_UNLCK)


def folder_of(root: Path, run_id: str) -> RunDirectory:
    """Return the folder of a run.

    >>> from pathlib import Path
    >>> folder_of(Path("/tmp"), "nightly-3").path.name, folder_of(Path("/tmp"), "../a b").path.name
    ('nightly-3', '%2E.%2Fa%20b')
    """
    return RunDirectory(root / file_name(run_id))


def remove_leftovers(root: Path) -> None:
    """Remove what is left of runs that were about to begin, or being removed, when their processes were killed."""
    with contextlib.suppress(OSError):
        for path in root.iterdir():
            if _is_left(path) and (folder := RunDirectory(path)).hold():
                try:
                    if _is_left(path):  # nobody has begun meanwhile
                        folder.remove()
                finally:
                    folder.let_go()


def _is_left(path: Path) -> bool:
    """Tell whether a folder is one of a run, by its lock, and has no journal, or one that tells nothing."""
    with contextlib.suppress(OSError):
        if (path / "lock").stat().st_size or not {each.name for each in path.iterdir()} <= _OURS:
            return False
        if says_nothing(path):  # whoever wrote it had locked the folder: no need to wait
            return locks_tell
        return not (path / "journal").exists() and time.time() - path.stat().st_mtime > _A_WHILE
    return False


def unfinished(root: Path) -> list[RunDirectory]:
    """Return the folders with a journal, the one that was written last first."""
    found = []
    with contextlib.suppress(OSError):
        for path in root.iterdir():
            with contextlib.suppress(OSError):
                folder = RunDirectory(path)
                found.append((folder.changed, str(path), folder))
    return [folder for _, _, folder in sorted(found, key=lambda each: each[:2], reverse=True)]
