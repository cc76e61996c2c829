"""PipelineCheckpoint: values that a step saves itself, and a view of what a run has finished.

```
PipelineCheckpoint()            inside a step: its own values, by name; they are kept until the step has succeeded
PipelineCheckpoint(run_id=)     anywhere: values of a run by step, and what is in its journal
```
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import did_you_mean
from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.errors import FlowymlError
from flowyml.steps.context import CHECKPOINTS, get_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from flowyml.caching.journal_index import JournalIndex

_DATA, _METADATA = "data", "metadata"


class PipelineCheckpoint:
    """Saved values of the step that is running, or of a run.

    Inside a step it has the values of this step, or of this item of a mapped step: `load` returns what `save` has saved
    when the step runs the next time, after a retry, a crash or `kill -9`, on any executor. The values are removed at
    the end of a run in which the step has succeeded.

    Args:
        run_id: A run: then it has the values of that run's steps.
        checkpoint_dir: The directory of the files; by default that of the running pipeline, or ".flowyml/checkpoints".

    Raises:
        FlowymlError: Without `run_id` outside a step.

    >>> import os, tempfile
    >>> from flowyml import Pipeline, PipelineCheckpoint
    >>> def count(until):
    ...     checkpoint = PipelineCheckpoint()
    ...     begin = checkpoint.load("n") if checkpoint.exists("n") else 0
    ...     for n in range(begin, until):
    ...         checkpoint.save("n", n + 1)
    ...         if n == 1 and begin == 0:
    ...             raise OSError("power cut")
    ...     return f"from {begin} to {until}"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pipeline = Pipeline("p", checkpoint_dir=folder).add_step(count, params={"until": 4}, retry=1)
    ...     pipeline.run()["count"], os.listdir(os.path.join(folder, "steps"))
    ('from 2 to 4', [])
    """

    @hides_internal_frames
    def __init__(self, run_id: str | None = None, checkpoint_dir: str | PathLike[str] | None = None) -> None:
        from pathlib import Path

        from flowyml.store.run_directory import ABOUT, STATES, directory_of
        from flowyml.store.step_state_files import StepStateFiles, states_of_step

        self.run_id: str | None = run_id
        if run_id is None:
            context = _step_context()
            self.checkpoint_dir = Path(checkpoint_dir or context.checkpoint_dir or CHECKPOINTS)
            self._states = states_of_step(self.checkpoint_dir, context.pipeline_name, context.step_name)
            return
        self.checkpoint_dir = Path(CHECKPOINTS if checkpoint_dir is None else checkpoint_dir)
        self._directory = directory_of(self.checkpoint_dir, run_id)
        self._states = StepStateFiles(self._directory.path / STATES, f"run {run_id!r}")
        self._about = StepStateFiles(self._directory.path / ABOUT, f"run {run_id!r}")

    # -- by name

    def exists(self, name: str | None = None) -> bool:
        """Return True if a value is saved under a name; of a run, without a name, if there is anything at all."""
        if name is not None:
            return self._states.exists(name)
        return bool(self._states.names()) or (self.run_id is not None and self._directory.has_journal)

    @hides_internal_frames
    def save(self, name: str | dict[str, Any], obj: Any = None) -> None:
        """Save a value under a name; it replaces an earlier one.

        Args:
            name: The name. Of a run it may be a mapping instead: data of the run, which `load()` returns.
            obj: The value.

        Raises:
            SerializationError: If it cannot be pickled.
            OSError: If it cannot be written; an earlier value remains.
        """
        if isinstance(name, dict):
            self._require_run("save(data)")
            self._about.save(_DATA, name)
        else:
            self._states.save(name, obj)

    @hides_internal_frames
    def load(self, name: str | None = None) -> Any:
        """Return the value saved under a name; of a run, without a name, a mapping with what is known of the run.

        Raises:
            KeyError: If there is no such value, with near matches.
            StoreError: If it is damaged, has the format of another version, or belongs to another user.
        """
        if name is not None:
            return self._states.load(name)
        self._require_run("load()")
        completed = self.get_completed_steps()
        known: dict[str, Any] = {"run_id": self.run_id, "completed_steps": completed}
        known["last_completed_step"] = completed[-1] if completed else None
        for kind in (_METADATA, _DATA):
            if self._about.exists(kind):
                known |= self._about.load(kind)
        return known

    def names(self) -> list[str]:
        """Return the names of the saved values, the oldest first."""
        return self._states.names()

    @hides_internal_frames
    def clear(self) -> None:
        """Remove all saved values; of a run also its journal, so that it can no longer be continued.

        Raises:
            StoreError: If the run is executing now.
        """
        self._states.clear()
        if self.run_id is not None and self._directory.path.exists():
            if not self._directory.acquire():
                from flowyml.caching.resumable_runs import in_use

                raise in_use(self._directory, self.run_id)
            self._directory.remove()
            self._directory.release()

    # -- the steps of a run

    @hides_internal_frames
    def save_step_state(self, step_name: str, outputs: Any, metadata: dict[str, Any] | None = None) -> None:
        """Save the value of a step of the run.

        Args:
            step_name: The step.
            outputs: The value.
            metadata: Data about it, by name.
        """
        self._require_run("save_step_state()")
        self._states.save(step_name, outputs)
        import datetime as dt

        timestamp = {"timestamp": dt.datetime.now(dt.UTC).isoformat()}
        self._about.save(_METADATA, timestamp | ({"metadata": metadata} if metadata else {}))

    @hides_internal_frames
    def load_step_state(self, step_name: str) -> Any:
        """Return the saved value of a step, or its value in the journal of the run.

        Of a mapped step that is the list of the values of its items that have ended.

        Raises:
            KeyError: If there is neither, with near matches.
        """
        self._require_run("load_step_state()")
        if self._states.exists(step_name):
            return self._states.load(step_name)
        with self._journal() as index:
            if index is not None and step_name in index.names():
                return index.value_of(step_name)
        hint = did_you_mean(step_name, self.get_completed_steps())
        raise KeyError(f"run {self.run_id!r} has finished no step {step_name!r}{hint}")

    @hides_internal_frames
    def get_completed_steps(self) -> list[str]:
        """Return the completed steps of the run, in the journal and by `save_step_state`, in that order."""
        self._require_run("get_completed_steps()")
        with self._journal() as index:
            names = [] if index is None else index.names()
        return list(dict.fromkeys([*names, *self._states.names()]))

    def resume_point(self) -> str | None:
        """Return the step of the run that was completed last; `None` if there is none."""
        completed = self.get_completed_steps()
        return completed[-1] if completed else None

    @contextlib.contextmanager
    def _journal(self) -> Iterator[JournalIndex | None]:
        """Read the journal of the run, which may be executing now."""
        if not self._directory.has_journal:
            yield None
            return
        from flowyml.caching.journal_index import JournalIndex  # with everything that makes keys of values
        from flowyml.store.journal import Journal

        journal = Journal(self._directory.path, read_only=True, on_trouble=lambda _: None)
        try:
            yield JournalIndex(journal)
        finally:
            journal.close()

    def _require_run(self, method: str) -> None:
        if self.run_id is None:
            raise FlowymlError(f"{method} is for the checkpoint of a run: PipelineCheckpoint(run_id=...)")

    def __repr__(self) -> str:
        owner = "this step" if self.run_id is None else f"run {self.run_id!r}"
        return f"<PipelineCheckpoint of {owner}: {', '.join(self.names()) or 'nothing saved'}>"


def _step_context() -> Any:
    try:
        return get_context()
    except FlowymlError:
        raise FlowymlError(
            "PipelineCheckpoint() belongs to the running step, and none is running here; "
            "use PipelineCheckpoint(run_id=...) outside steps"
        ) from None
