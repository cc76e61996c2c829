"""Chooses the run that is continued, or starts a new one.

```
run()                      the last unfinished run of the pipeline, if it has anything in common with this one
run(resume="last")         the last unfinished run, whatever has changed since
run(resume=run_id)         that run
run(resume=False)          a new run
run(run_id=name)           the run of that name: continued if it is unfinished
```

A run is unfinished if its directory has a journal and no process executes it. The module opens directories and
journals; `run_journal.py` uses them.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from flowyml.caching.journal_index import RUN, JournalIndex
from flowyml.diagnostics.text import did_you_mean, pluralize
from flowyml.errors import StoreError
from flowyml.store import run_directory
from flowyml.store.journal import Journal, first_body
from flowyml.store.run_directory import RunDirectory, directory_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_log = logging.getLogger("flowyml")
_TROUBLE = (OSError, StoreError)


class ResumableRun:
    """The directory of a run, locked by this process, and its journal.

    Args:
        directory: The directory; it is locked.
        run_id: The run.
        pipeline: Name of its pipeline.
        always: Wait for the disk after each write.

    Attributes:
        journal: The journal.
        finished: What earlier attempts have finished.
        tentative: `resume` does not name it: it is continued only if it has something in common with the new run.
        trouble: The error after which the journal could no longer be written.
    """

    def __init__(self, directory: RunDirectory, run_id: str, pipeline: str, *, always: bool) -> None:
        self.directory = directory
        self.run_id = run_id
        self.pipeline = pipeline
        self.always = always
        self.tentative = False
        self.trouble: Exception | None = None
        self.journal = Journal(directory.path, always=always, on_trouble=self._on_trouble)
        self.finished = JournalIndex(self.journal)
        if self.journal.cut:
            _log.warning(
                "journal: %s ends with an incomplete record; its last %s are dropped, and the steps in them run again",
                self.journal.path,
                pluralize(self.journal.cut, "byte"),
            )

    def _on_trouble(self, error: Exception) -> None:
        self.trouble = error

    def begin(self, seed: int | None) -> None:
        """Write the id of the run, and again if it continues with another seed."""
        finished = self.finished
        if finished.run is None or finished.seed != seed:
            began = time.time() if finished.run is None else finished.run[2]
            self.journal.write([RUN, self.run_id, self.pipeline, began, seed])

    def leave(self) -> None:
        """Close the journal and unlock the directory."""
        self.journal.close()
        self.directory.release()

    def remove(self) -> None:
        """Remove all of it: there is nothing to continue."""
        self.journal.close()
        self.directory.remove()
        self.directory.release()


class ResumableRuns:
    """The runs of one pipeline that may be continued.

    Args:
        root: The directory with the runs' directories.
        pipeline: Name of the pipeline.
        always: Wait for the disk after each write.
    """

    def __init__(self, root: Path, pipeline: str, *, always: bool) -> None:
        self._root = root
        self._pipeline = pipeline
        self._always = always

    def open(self, run_id: str | None, *, resume: str | bool | None) -> ResumableRun | None:
        """Open the chosen run; `None`, and a warning, if the disk does not allow it.

        Args:
            run_id: Name of the run, if the user has given one.
            resume: See the header of the module; `True` means "last".

        Raises:
            ValueError: If `resume` names a run that does not exist, or a run of another pipeline.
            StoreError: If a named run cannot be continued, or is executing now.
        """
        run_directory.remove_leftovers(self._root)
        if isinstance(resume, str) and resume != "last":
            return self._open_locked(self._directory_named(resume), resume)
        try:
            if run_id is not None:
                return self._given(run_id, fresh=resume is False)
            return self._last(tentative=resume is None) if resume is not False else self.new()
        except OSError as error:
            self._warn(error)
            return None

    def new(self, run_id: str | None = None) -> ResumableRun | None:
        """Open a new run; `None`, and a warning, if the disk does not allow it."""
        run_id = run_id or os.urandom(6).hex()
        directory = directory_of(self._root, run_id)
        try:
            if directory.acquire():
                return self._opened(directory, run_id)
        except _TROUBLE as error:
            self._warn(error)
            return None
        raise in_use(directory, run_id)

    def next(self, has_common: Callable[[ResumableRun], bool]) -> ResumableRun | None:
        """Open the last unfinished run that has something in common with the new one, else a new run."""
        for attempt in self._unfinished():
            if has_common(attempt):
                return attempt
            attempt.leave()
        return self.new()

    def candidates(self, *, resume: str | bool | None) -> Iterator[tuple[str, RunDirectory]]:
        """Yield the runs that `resume` may mean, without opening any.

        Raises:
            ValueError: If `resume` names a run that does not exist, or a run of another pipeline.
        """
        if isinstance(resume, str) and resume != "last":
            yield resume, self._directory_named(resume)
        else:
            yield from self._own()

    def seed_of(self, resume: str) -> int | None:
        """Return the seed of the last attempt of the run that `resume` means; `None` without one.

        Raises:
            ValueError: If `resume` names a run that does not exist, or a run of another pipeline.
        """
        for _, directory in self.candidates(resume=resume):
            try:
                journal = Journal(directory.path, read_only=True, on_trouble=lambda _: None)
            except _TROUBLE:
                continue
            try:
                finished = JournalIndex(journal)
            finally:
                journal.close()
            is_last = finished.is_unfinished and not run_directory.is_locked(directory.path)
            if resume != "last" or is_last:
                return finished.seed
        return None

    def _directory_named(self, run_id: str) -> RunDirectory:
        directory = directory_of(self._root, run_id)
        if not directory.has_journal:
            hint = did_you_mean(run_id, [known for known, _ in self._own()])
            raise ValueError(f"there is no unfinished run {run_id!r} in {self._root.absolute()}{hint}")
        header = _header(directory)
        if header is not None and header[1] != self._pipeline:
            raise ValueError(f"run {run_id!r} is one of pipeline {header[1]!r}, not of {self._pipeline!r}")
        return directory

    def _given(self, run_id: str, *, fresh: bool) -> ResumableRun | None:
        """Open the run of a name that the user has given."""
        directory = directory_of(self._root, run_id)
        if not directory.has_journal:
            return self.new(run_id)
        if not directory.acquire():
            raise in_use(directory, run_id)
        if fresh:
            directory.empty()
        try:
            attempt = self._opened(directory, run_id)
        except _TROUBLE as error:
            self._warn(error)
            return None
        if attempt.finished.ended != "success":
            return attempt
        attempt.remove()
        return self.new(run_id)

    def _last(self, *, tentative: bool) -> ResumableRun | None:
        for attempt in self._unfinished():
            attempt.tentative = tentative
            return attempt
        if not tentative:
            _log.info("pipeline %r has no unfinished run to resume: a new run begins", self._pipeline)
        return self.new()

    def _unfinished(self) -> Iterator[ResumableRun]:
        """Yield the unfinished runs that no process executes, opened, the last one first.

        A run whose process was killed before or after all of its work has nothing to continue and is removed.
        """
        for run_id, directory in self._own():
            try:
                attempt = self._opened(directory, run_id) if directory.acquire() else None
            except _TROUBLE as error:
                _log.warning("journal: %s; it is left alone, and its run is not continued", error)
                continue
            if attempt is None:
                continue
            if attempt.finished.is_unfinished:
                yield attempt
            elif run_directory.HAS_PROCESS_LOCKS:
                attempt.remove()
            else:
                attempt.leave()

    def _open_locked(self, directory: RunDirectory, run_id: str) -> ResumableRun:
        if not directory.acquire():
            raise in_use(directory, run_id)
        return self._opened(directory, run_id)

    def _opened(self, directory: RunDirectory, run_id: str) -> ResumableRun:
        try:
            return ResumableRun(directory, run_id, self._pipeline, always=self._always)
        except BaseException:
            directory.release()
            raise

    def _own(self) -> Iterator[tuple[str, RunDirectory]]:
        """Yield the runs of this pipeline that have a journal, the last one first."""
        for directory in run_directory.unfinished_runs(self._root):
            header = _header(directory)
            if header is not None and header[1] == self._pipeline:
                yield header[0], directory

    def _warn(self, error: Exception) -> None:
        _log.warning("journal: %s; the run continues without a journal, and cannot be resumed", error)


def in_use(directory: RunDirectory, run_id: str) -> StoreError:
    """Return the error about a run that is executing now."""
    return StoreError(str(directory.path), f"is in use: run {run_id!r} is executing now")


def _header(directory: RunDirectory) -> tuple[str, str] | None:
    """Return the run and its pipeline, if the journal says so, in whatever format it is: other formats are refused."""
    body: Any = first_body(directory.path / "journal")
    return (body[1], body[2]) if isinstance(body, list) and len(body) > 2 and body[0] == RUN else None  # noqa: PLR2004
