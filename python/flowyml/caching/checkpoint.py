"""PipelineCheckpoint: values that a step puts aside by hand, and a look at what a run has finished.

```
PipelineCheckpoint()            inside a step: its own states, by name; they live until the step has ended well
PipelineCheckpoint(run_id=)     anywhere: states of a run by step, and what its journal says has ended
```
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from flowyml.diagnostics.text import did_you_mean
from flowyml.diagnostics.tracebacks import hides_internal_frames
from flowyml.errors import FlowymlError, StoreError
from flowyml.steps.context import CHECKPOINTS, get_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from flowyml.caching.journal_index import JournalIndex

_DATA, _METADATA = "data", "metadata"


class PipelineCheckpoint:
    """Values put aside: of the step that is running, or of a run.

    Inside a step it has the states of this step, of this item of a mapped step: what `save` has put aside, `load` finds
    when the step runs the next time, after a retry, a crash or `kill -9`, on any executor. They go when a run comes to
    its end in which the step has ended well.

    Args:
        run_id: A run: then it has the states of that run's steps.
        checkpoint_dir: Where they are; that of the running pipeline, or ".flowyml/checkpoints".

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
        """Find out whose it is; nothing is read yet."""
        from pathlib import Path

        from flowyml.store.run_directory import ABOUT, STATES, directory_of
        from flowyml.store.step_state_files import StepStateFiles, states_of_step

        self.run_id: str | None = run_id
        if run_id is None:
            here = _step()
            self.checkpoint_dir = Path(checkpoint_dir or here.checkpoint_dir or CHECKPOINTS)
            self._states = states_of_step(self.checkpoint_dir, here.pipeline_name, here.step_name)
            return
        self.checkpoint_dir = Path(CHECKPOINTS if checkpoint_dir is None else checkpoint_dir)
        self._folder = directory_of(self.checkpoint_dir, run_id)
        self._states = StepStateFiles(self._folder.path / STATES, f"run {run_id!r}")
        self._about = StepStateFiles(self._folder.path / ABOUT, f"run {run_id!r}")

    # -- by name

    def exists(self, name: str | None = None) -> bool:
        """Tell whether something is saved under a name; of a run, without a name, whether there is anything at all."""
        if name is not None:
            return self._states.exists(name)
        return bool(self._states.names()) or (self.run_id is not None and self._folder.has_journal)

    @hides_internal_frames
    def save(self, name: str | dict[str, Any], obj: Any = None) -> None:
        """Put a value aside under a name, in place of what is there.

        Args:
            name: The name. Of a run it may be a mapping instead: data of the run, which `load()` returns.
            obj: The value.

        Raises:
            SerializationError: If it does not pickle.
            OSError: If it cannot be written; what was there before is still there.
        """
        if isinstance(name, dict):
            self._of_run("save(data)")
            self._about.save(_DATA, name)
        else:
            self._states.save(name, obj)

    @hides_internal_frames
    def load(self, name: str | None = None) -> Any:
        """Return what is saved under a name; of a run, without a name, what is known of it.

        Raises:
            KeyError: If there is nothing, with near matches.
            StoreError: If it is damaged or another user's.
        """
        if name is not None:
            return self._states.load(name)
        self._of_run("load()")
        completed = self.get_completed_steps()
        known: dict[str, Any] = {"run_id": self.run_id, "completed_steps": completed}
        known["last_completed_step"] = completed[-1] if completed else None
        for kind in (_METADATA, _DATA):
            if self._about.exists(kind):
                known |= self._about.load(kind)
        return known

    def names(self) -> list[str]:
        """Return the names of what is saved, the oldest first."""
        return self._states.names()

    @hides_internal_frames
    def clear(self) -> None:
        """Remove what is saved; of a run also its journal, so that it cannot be continued any more.

        Raises:
            StoreError: If the run is going on.
        """
        self._states.clear()
        if self.run_id is not None and self._folder.path.exists():
            if not self._folder.acquire():
                raise StoreError(str(self._folder.path), f"is in use: run {self.run_id!r} is going on")
            self._folder.remove()
            self._folder.release()

    # -- the steps of a run

    @hides_internal_frames
    def save_step_state(self, step_name: str, outputs: Any, metadata: dict[str, Any] | None = None) -> None:
        """Put aside what a step of the run has returned.

        Args:
            step_name: The step.
            outputs: The value.
            metadata: What is to be known of it, by name.
        """
        self._of_run("save_step_state()")
        self._states.save(step_name, outputs)
        import datetime as dt

        when = {"timestamp": dt.datetime.now(dt.UTC).isoformat()}
        self._about.save(_METADATA, when | ({"metadata": metadata} if metadata else {}))

    @hides_internal_frames
    def load_step_state(self, step_name: str) -> Any:
        """Return what was put aside for a step, or what the journal of the run has of it.

        Of a mapped step that is the list of what its items have returned, as far as they have ended.

        Raises:
            KeyError: If there is neither, with near matches.
        """
        self._of_run("load_step_state()")
        if self._states.exists(step_name):
            return self._states.load(step_name)
        with self._journal() as finished:
            if finished is not None and step_name in finished.names():
                return finished.value_of(step_name)
        known = did_you_mean(step_name, self.get_completed_steps())
        raise KeyError(f"run {self.run_id!r} has finished no step {step_name!r}{known}")

    @hides_internal_frames
    def get_completed_steps(self) -> list[str]:
        """Return the steps of the run that have ended, by its journal and by `save_step_state`, in that order."""
        self._of_run("get_completed_steps()")
        with self._journal() as finished:
            names = [] if finished is None else finished.names()
        return list(dict.fromkeys([*names, *self._states.names()]))

    def resume_point(self) -> str | None:
        """Return the step of the run that has ended last; `None` if none has."""
        completed = self.get_completed_steps()
        return completed[-1] if completed else None

    @contextlib.contextmanager
    def _journal(self) -> Iterator[JournalIndex | None]:
        """Read the journal of the run, which may be going on."""
        if not self._folder.has_journal:
            yield None
            return
        from flowyml.caching.journal_index import JournalIndex  # with all that makes keys of values
        from flowyml.store.journal import Journal

        journal = Journal(self._folder.path, read_only=True, on_trouble=lambda _: None)
        try:
            yield JournalIndex(journal)
        finally:
            journal.close()

    def _of_run(self, what: str) -> None:
        if self.run_id is None:
            raise FlowymlError(f"{what} is for the checkpoint of a run: PipelineCheckpoint(run_id=...)")

    def __repr__(self) -> str:
        """Show whose it is."""
        of = "this step" if self.run_id is None else f"run {self.run_id!r}"
        return f"<PipelineCheckpoint of {of}: {', '.join(self.names()) or 'nothing saved'}>"


def _step() -> Any:
    try:
        return get_context()
    except FlowymlError:
        raise FlowymlError(
            "PipelineCheckpoint() belongs to the step that is running, and none is running here; "
            "PipelineCheckpoint(run_id=...) is for everywhere else"
        ) from None
