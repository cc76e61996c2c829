"""What a run would take over from an earlier attempt, and what of it would run again and why: for dry runs.

```
journal, only read ──▶ a run that runs nothing: takes over what is finished, step after step ──▶ `resumed.py`: words
```

It is to the journal what `foresight.py` is to the cache. Nothing is locked or written: the attempt may be going on, and
then the answer is what would be so if it ended now.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.errors import StoreError
from flowyml.reuse.finished import Finished
from flowyml.reuse.journal_keys import JournalKeys
from flowyml.reuse.recall import Found, Recall
from flowyml.reuse.resumed import Story
from flowyml.reuse.resuming import ANEW, CHANGED, is_anew
from flowyml.running.run import Run
from flowyml.state import CACHED, SKIPPED
from flowyml.store.journal import Journal
from flowyml.views.explain import Traced

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowyml.planning.plan import Plan
    from flowyml.planning.scope import Scope
    from flowyml.reuse.attempts import Attempts
    from flowyml.store.runs import RunFolder


class Prospect(NamedTuple):
    """What a run would do that continues another.

    Attributes:
        told: What it would take over, and what runs again and why, in words.
        steps: How many steps would run.
        calls: How many calls would run.
        at_least: Whether there may be more of them: how many items some step has is known only by the run.
    """

    told: str
    steps: int
    calls: int
    at_least: bool


class _Look:
    """A memory that looks into a journal and tells nothing; see `recall.py`."""

    def __init__(self, run: Run, journal: Journal) -> None:
        self._run, self._journal = run, journal
        self.finished = Finished(journal)
        self.keys = JournalKeys(run, lambda _node, _error: None)
        self.taken: set[int] = set()
        self.again: dict[int, str] = {}
        self.in_common = False

    @property
    def looks(self) -> bool:
        return bool(self.finished)

    def find(self, items: Sequence[int]) -> dict[int, Found]:
        found: dict[int, Found] = {}
        for stretch in self.keys.stretches(items):
            for item, key in zip(stretch, self.keys.of(stretch), strict=True):
                self.in_common = self.in_common or self.finished.tells_of(key)
                if is_anew(self._run, item):
                    if self.finished.knows(key):
                        self.again[item] = ANEW
                    continue
                taken = self.finished.take(key)
                if taken is not None:
                    state, value, at = taken
                    if not self.finished.has_its_files(value, at):
                        self.again[item] = CHANGED
                        continue
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


def _left(run: Run, taken: Collection[int]) -> tuple[int, int]:
    """Return how many steps and calls are left to run."""
    layout, given = run.layout, run.plan.given_steps()
    taken = [*taken, *(item for node in given for item in layout.items_of(node))]
    whole = sum(count == len(layout.items_of(node)) for node, count in Counter(map(layout.node_at, taken)).items())
    return len(run.plan.names) - whole, layout.item_count - len(taken)


def prospect_of(plan: Plan, attempts: Attempts, node: int, scope: Scope) -> str | None:
    """Say what a run would take over of one step.

    `None` if it would begin anew, has nothing to continue, or if steps need what only `run` can give.
    """
    for run_id, folder in attempts.asked_for(resume=None):
        if not scope.complete and any(Traced(plan, each, scope).missing for each in range(len(plan.names))):
            return None
        seen = _looked_into(plan, folder, None, tentative=True, node=node)
        if seen is not None:
            return f"{seen.told}, from run {run_id}"
    return None


def prospect(
    plan: Plan,
    attempts: Attempts,
    *,
    seed: int | None,
    resume: str | bool | None,
    anew: frozenset[int] = frozenset(),
) -> Prospect | None:
    """Say what a run would take over, and what is left; `None` if it would begin anew, or has nothing to continue.

    Args:
        plan: The plan; it is valid.
        attempts: The runs that may be continued.
        seed: Of the run.
        resume: Which of them, as for `run`.
        anew: Steps that run again although they have finished.

    Raises:
        ValueError: If `resume` names a run that is not there, or is of another pipeline.
    """
    if resume is False:
        return None
    for run_id, folder in attempts.asked_for(resume=resume):
        seen = _looked_into(plan, folder, seed, tentative=resume is None, anew=anew)
        if seen is not None:
            return Prospect(f"Continues run {run_id}: {seen.told}.", seen.steps, seen.calls, at_least=seen.at_least)
    return None


def _looked_into(
    plan: Plan,
    folder: RunFolder,
    seed: int | None,
    *,
    tentative: bool,
    node: int | None = None,
    anew: frozenset[int] = frozenset(),
) -> Prospect | None:
    """Say what would be taken over of one run, or of one step of it, and what is left of the whole run.

    A run that nobody asked for has to have something in common.
    """
    try:
        journal = Journal(folder.path, read_only=True, on_trouble=lambda _: None)
    except (OSError, StoreError):
        return None
    try:
        run = Run(plan, seed=seed)
        run.anew = anew
        look = _Look(run, journal)
        finished = look.finished
        if finished.ended == "success" or not finished.count:
            return None
        recall = Recall(run, [look], only_look=True, patience=math.inf)
        run.remember(recall)
        recall.begin()
        recall.close(None)
        if tentative and not look.in_common:
            return None
        story = Story(run, finished, look.keys, look.taken, look.again)
        told = story.told() + story.to_come() if node is None else story.of(node)
        return Prospect(told, *_left(run, look.taken), at_least=bool(run.layout.waiting))
    finally:
        journal.close()
