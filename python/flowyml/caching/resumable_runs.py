"""Which run this is: a new one, or one that was killed or has failed and is continued.

```
run()                      the last unfinished run of the pipeline, if it has anything in common with this one
run(resume="last")         the last unfinished run, whatever has changed since
run(resume=run_id)         that run
run(resume=False)          a new run
run(run_id=name)           the run of that name: continued if it is unfinished
```

A run is unfinished if its folder has a journal and no process is at it. The module opens folders and journals; what is
done with them is `resuming.py`'s.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from flowyml.caching.journal_index import RUN, JournalIndex
from flowyml.diagnostics.text import did_you_mean, pluralize
from flowyml.errors import StoreError
from flowyml.store.journal import Journal, first_body
from flowyml.store.run_directory import (
    HAS_PROCESS_LOCKS,
    RunDirectory,
    directory_of,
    is_locked,
    remove_leftovers,
    unfinished_runs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_log = logging.getLogger("flowyml")
_TROUBLE = (OSError, StoreError)


class ResumableRun:
    """A run's folder, held by this process, and its journal.

    Args:
        folder: The folder; it is held.
        run_id: The run.
        pipeline: Name of its pipeline.
        always: Wait for the disk at each write.

    Attributes:
        journal: The journal.
        finished: What earlier attempts have finished.
        tentative: Nobody asked for this run: it is continued only if it has something in common with what is to run.
    """

    def __init__(self, folder: RunDirectory, run_id: str, pipeline: str, *, always: bool) -> None:
        """Open the journal and read it."""
        self.folder = folder
        self.run_id = run_id
        self.pipeline = pipeline
        self.always = always
        self.tentative = False
        self.trouble: Exception | None = None
        self.journal = Journal(folder.path, always=always, on_trouble=self._note)
        self.finished = JournalIndex(self.journal)
        if self.journal.cut:
            _log.warning(
                "journal: %s was cut off in the middle of a record; its last %s are dropped, what they told runs again",
                self.journal.path,
                pluralize(self.journal.cut, "byte"),
            )

    def _note(self, error: Exception) -> None:
        self.trouble = error

    def begin(self, seed: int | None) -> None:
        """Write down which run this is, and once more where it goes on with another seed."""
        finished = self.finished
        if finished.run is None or finished.seed != seed:
            began = time.time() if finished.run is None else finished.run[2]
            self.journal.write([RUN, self.run_id, self.pipeline, began, seed])

    def leave(self) -> None:
        """Close the journal and let go of the folder."""
        self.journal.close()
        self.folder.release()

    def remove(self) -> None:
        """Remove all of it: there is nothing to continue."""
        self.journal.close()
        self.folder.remove()
        self.folder.release()


class ResumableRuns:
    """The runs of one pipeline that may be continued.

    Args:
        root: Where their folders are.
        pipeline: Name of the pipeline.
        always: Wait for the disk at each write.
    """

    def __init__(self, root: Path, pipeline: str, *, always: bool) -> None:
        self._root = root
        self._pipeline = pipeline
        self._always = always

    def open(self, run_id: str | None, *, resume: str | bool | None) -> ResumableRun | None:
        """Open the run that is meant; `None`, and a warning, where the disk does not allow it.

        Args:
            run_id: Name of the run, if it was given.
            resume: See above; `True` is "last".

        Raises:
            ValueError: If `resume` names a run that is not there, or is of another pipeline.
            StoreError: If a run that was named cannot be continued, or is going on.
        """
        remove_leftovers(self._root)
        if isinstance(resume, str) and resume != "last":
            return self._named(resume)
        try:
            if run_id is not None:
                return self._given(run_id, afresh=resume is False)
            return self._last(tentative=resume is None) if resume is not False else self.new()
        except OSError as error:
            self._give_up(error)
            return None

    def new(self, run_id: str | None = None) -> ResumableRun | None:
        """Open a new run; `None`, and a warning, where the disk does not allow it."""
        run_id = run_id or os.urandom(6).hex()
        folder = directory_of(self._root, run_id)
        try:
            if folder.acquire():
                return self._attempt(folder, run_id)
        except _TROUBLE as error:
            self._give_up(error)
            return None
        raise _in_use(folder, run_id)

    def _give_up(self, error: Exception) -> None:
        _log.warning("journal: %s; the run goes on without one, and cannot be resumed", error)

    def asked_for(self, *, resume: str | bool | None) -> Iterator[tuple[str, RunDirectory]]:
        """Go through the runs that `resume` may mean, and open none of them.

        Raises:
            ValueError: If `resume` names a run that is not there, or is of another pipeline.
        """
        if isinstance(resume, str) and resume != "last":
            yield resume, self._folder_named(resume)
        else:
            yield from self._mine()

    def seed_of(self, resume: str) -> int | None:
        """Return the seed with which the run that `resume` means went on last; `None` without one.

        Raises:
            ValueError: If `resume` names a run that is not there, or is of another pipeline.
        """
        for _, folder in self.asked_for(resume=resume):
            finished = _read(folder)
            if finished is not None and (resume != "last" or (finished.is_unfinished and not is_locked(folder.path))):
                return finished.seed
        return None

    def _folder_named(self, run_id: str) -> RunDirectory:
        folder = directory_of(self._root, run_id)
        if not folder.has_journal:
            known = did_you_mean(run_id, [each for each, _ in self._mine()])
            raise ValueError(f"there is no unfinished run {run_id!r} in {self._root.absolute()}{known}")
        header = _header(folder)
        if header is not None and header[1] != self._pipeline:
            raise ValueError(f"run {run_id!r} is one of pipeline {header[1]!r}, not of {self._pipeline!r}")
        return folder

    def _named(self, run_id: str) -> ResumableRun:
        folder = self._folder_named(run_id)
        if not folder.acquire():
            raise _in_use(folder, run_id)
        return self._attempt(folder, run_id)

    def _given(self, run_id: str, *, afresh: bool) -> ResumableRun | None:
        """Open the run of a name that the user gave it."""
        folder = directory_of(self._root, run_id)
        if not folder.has_journal:
            return self.new(run_id)
        if not folder.acquire():
            raise _in_use(folder, run_id)
        if afresh:
            folder.empty()
        try:
            attempt = self._attempt(folder, run_id)
        except _TROUBLE as error:
            self._give_up(error)
            return None
        if attempt.finished.ended != "success":
            return attempt
        attempt.remove()
        return self.new(run_id)

    def next(self, common: Callable[[ResumableRun], bool]) -> ResumableRun | None:
        """Open the last unfinished run that has something in common with the one that is to run, else a new one."""
        for attempt in self._all():
            if common(attempt):
                return attempt
            attempt.leave()
        return self.new()

    def _all(self) -> Iterator[ResumableRun]:
        """Go through the unfinished runs that nobody is at, opened, the last one first."""
        for run_id, folder in self._mine():
            attempt = self._tried(folder, run_id)
            if attempt is not None:
                yield attempt

    def _last(self, *, tentative: bool) -> ResumableRun | None:
        for attempt in self._all():
            attempt.tentative = tentative
            return attempt
        if not tentative:
            _log.info("pipeline %r has no unfinished run to resume: it begins anew", self._pipeline)
        return self.new()

    def _tried(self, folder: RunDirectory, run_id: str) -> ResumableRun | None:
        """Open a run if nobody is at it and there is something to continue; else remove what is left of it.

        One that was killed before anything had ended has nothing, nor has one that was killed when all had.
        """
        try:
            if not folder.acquire():
                return None
            attempt = self._attempt(folder, run_id)
        except _TROUBLE as error:
            _log.warning("journal: %s; it is left alone, and its run is not continued", error)
            return None
        if attempt.finished.is_unfinished:
            return attempt
        if HAS_PROCESS_LOCKS:
            attempt.remove()
        else:
            attempt.leave()
        return None

    def _attempt(self, folder: RunDirectory, run_id: str) -> ResumableRun:
        try:
            return ResumableRun(folder, run_id, self._pipeline, always=self._always)
        except BaseException:
            folder.release()
            raise

    def _mine(self) -> Iterator[tuple[str, RunDirectory]]:
        """Go through the unfinished runs of this pipeline, the last one first."""
        for folder in unfinished_runs(self._root):
            header = _header(folder)
            if header is not None and header[1] == self._pipeline:
                yield header[0], folder


def _in_use(folder: RunDirectory, run_id: str) -> StoreError:
    return StoreError(str(folder.path), f"is in use: run {run_id!r} is going on")


def _read(folder: RunDirectory) -> JournalIndex | None:
    """Return what a run has finished, without taking part in it; `None` if its journal cannot be read."""
    try:
        journal = Journal(folder.path, read_only=True, on_trouble=lambda _: None)
    except _TROUBLE:
        return None
    try:
        return JournalIndex(journal)
    finally:
        journal.close()


def _header(folder: RunDirectory) -> tuple[str, str] | None:
    """Return the run and its pipeline, if the journal tells."""
    body: Any = first_body(folder.path / "journal")  # of any format: a run of another one is named, not continued
    return (body[1], body[2]) if isinstance(body, list) and len(body) > 2 and body[0] == RUN else None  # noqa: PLR2004
