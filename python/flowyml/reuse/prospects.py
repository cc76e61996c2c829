"""What a run would take over from an earlier attempt, and what of it would run again and why: for dry runs.

```
journal, only read ──▶ a run that runs nothing: takes over what is finished, step after step ──▶ `resumed.py`: words
```

It is to the journal what `foresight.py` is to the cache. Nothing is locked or written: the attempt may be going on, and
then the answer is what would be so if it ended now.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml.errors import StoreError
from flowyml.reuse.finished import Finished
from flowyml.reuse.journal_keys import JournalKeys
from flowyml.reuse.recall import Found, Recall
from flowyml.reuse.resumed import Story
from flowyml.running.run import Run
from flowyml.state import CACHED, SKIPPED
from flowyml.store.journal import Journal
from flowyml.views.explain import Traced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowyml.planning.plan import Plan
    from flowyml.planning.scope import Scope
    from flowyml.reuse.attempts import Attempts
    from flowyml.store.runs import RunFolder


class _Look:
    """A memory that looks into a journal and tells nothing; see `recall.py`."""

    def __init__(self, run: Run, journal: Journal) -> None:
        self._journal = journal
        self.finished = Finished(journal)
        self.keys = JournalKeys(run, lambda _node, _error: None)
        self.taken: set[int] = set()
        self.again: dict[int, str] = {}

    @property
    def looks(self) -> bool:
        return bool(self.finished)

    def find(self, items: Sequence[int]) -> dict[int, Found]:
        found: dict[int, Found] = {}
        for stretch in self.keys.stretches(items):
            for item, key in zip(stretch, self.keys.of(stretch), strict=True):
                taken = self.finished.take(key)
                if taken is not None:
                    state, value, at = taken
                    self.taken.add(item)
                    load = partial(self._load, item, value, at)
                    found[item] = Found(load, SKIPPED if state == SKIPPED else CACHED)
        return found

    def _load(self, item: int, value: Any, at: int) -> Any:
        """Load a value that tells how many items there are."""
        try:
            return self._journal.load(value, at)
        except LookupError:
            self.taken.discard(item)
            self.again[item] = "its value is damaged, or could not be stored"
            raise

    @property
    def may_wait(self) -> bool:
        return True

    def keep(self, items: Sequence[int], states: bytes | None, *, late: bool = False) -> None:
        """Nothing has run."""

    def retried(self, item: int, attempts: int) -> None:
        """Nothing has run."""

    def prepare(self) -> None:
        """Nothing is to be prepared."""

    def begun(self) -> None:
        """Nothing is to be told yet."""

    def close(self, result: object) -> None:
        """Nothing was begun."""


def prospect_of(plan: Plan, attempts: Attempts, node: int, scope: Scope) -> str | None:
    """Say what a run would take over of one step.

    `None` if it would begin anew, has nothing to continue, or if steps need what only `run` can give.
    """
    for run_id, folder in attempts.asked_for(resume=None):
        if not scope.complete and any(Traced(plan, each, scope).missing for each in range(len(plan.names))):
            return None
        told = _looked_into(plan, folder, None, tentative=True, node=node)
        if told is not None:
            return f"{told}, from run {run_id}"
    return None


def prospect(plan: Plan, attempts: Attempts, *, seed: int | None, resume: str | bool | None) -> str | None:
    """Say what a run would take over; `None` if it would begin anew, or has nothing to continue.

    Args:
        plan: The plan; it is valid.
        attempts: The runs that may be continued.
        seed: Of the run.
        resume: Which of them, as for `run`.

    Raises:
        ValueError: If `resume` names a run that is not there, or is of another pipeline.
    """
    if resume is False:
        return None
    for run_id, folder in attempts.asked_for(resume=resume):
        told = _looked_into(plan, folder, seed, tentative=resume is None)
        if told is not None:
            return f"Continues run {run_id}: {told}."
    return None


def _looked_into(
    plan: Plan, folder: RunFolder, seed: int | None, *, tentative: bool, node: int | None = None
) -> str | None:
    """Say what would be taken over of one run, or of one step of it.

    A run that nobody asked for has to have something in common.
    """
    try:
        journal = Journal(folder.path, read_only=True, on_trouble=lambda _: None)
    except (OSError, StoreError):
        return None
    try:
        run = Run(plan, seed=seed)
        look = _Look(run, journal)
        finished = look.finished
        if finished.ended == "success" or not finished.count:
            return None
        recall = Recall(run, [look], only_look=True, patience=math.inf)
        run.remember(recall)
        recall.begin()
        recall.close(None)
        if tentative and not look.taken:
            return None
        story = Story(run, finished, look.keys, look.taken, look.again)
        return story.told() if node is None else story.of(node)
    finally:
        journal.close()
