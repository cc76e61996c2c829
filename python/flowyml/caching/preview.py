"""What a run would take over from an earlier attempt, and what of it would run again and why: for dry runs.

```
journal, only read ──▶ a run that runs nothing: takes over what is finished, step after step ──▶ `resumed.py`: words
```

It is to the journal what `foresight.py` is to the cache. Nothing is locked or written: the attempt may be going on, and
then the answer is what would be so if it ended now.

What a run would take from the cache, and why a step would not be taken: for `dry_run` and `explain`.

```
Plan ──▶ a run that runs nothing: takes over what is cached, step after step, as a run would ──▶ states ──▶ words
                                     keys and contents only, no value is loaded
```

What a step reads from one that would run first is not known, so neither is its key. Where a key is known and nothing is
stored under it, what it is made of is compared with what the step's newest value was made of.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.caching.journal_index import JournalIndex
from flowyml.caching.journal_keys import JournalKeys
from flowyml.caching.keys import KeyParts, split
from flowyml.caching.lookup import CacheHit, ResultLookup
from flowyml.caching.resume_summary import ResumeSummary
from flowyml.caching.run_journal import ANEW, CHANGED, is_anew
from flowyml.caching.step_cache import StepCache
from flowyml.diagnostics.text import join_names, pluralize
from flowyml.errors import StoreError
from flowyml.graph.explain import ArgumentTrace
from flowyml.hashing.content import SIZE
from flowyml.hashing.fingerprint import differences
from flowyml.runtime.run import Run
from flowyml.state import CACHED, SKIPPED, STATES
from flowyml.store.cache_store import database_of
from flowyml.store.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from flowyml.caching.keys import CacheKey
    from flowyml.caching.resumable_runs import ResumableRuns
    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.plan import Plan
    from flowyml.store.cache_index import CacheDatabase
    from flowyml.store.cache_store import CacheStore
    from flowyml.store.run_directory import RunDirectory


_MOST_NAMED = 20
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


class CachePreview:
    """What a run of a plan would take from the cache.

    Args:
        plan: The plan; it is valid.
        store: The cache.
        scope: Values of the run's inputs and the contexts.
        seed: Of the run.
    """

    def __init__(self, plan: Plan, store: CacheStore, scope: Scope, seed: int | None = None) -> None:
        self._plan = plan
        self._store = store
        self._run = Run(plan, seed=seed)
        self._caching = StepCache(self._run, store, scope.context, only_look=True)
        recall = ResultLookup(self._run, [self._caching], only_look=True, patience=math.inf)
        self._run.attach_lookup(recall)
        self._unknown = dict(self._needing(scope))
        self._caching.leave_out(self._unknown)
        recall.on_run_started()
        recall.close(None)

    def _needing(self, scope: Scope) -> Iterator[tuple[int, list[str]]]:
        """Go through the cached steps that need values which only `run` can give."""
        if scope.complete:
            return
        known: dict[int, list[str]] = {}
        for node, form in enumerate(self._plan.forms):
            if form.options.caching is not None:
                if id(form) not in known:
                    known[id(form)] = ArgumentTrace(self._plan, node, scope).missing
                if known[id(form)]:
                    yield node, known[id(form)]

    # -- all steps

    def told(self) -> str | None:
        """Say what would come from the cache; `None` if no step is cached."""
        names = self._plan.names
        parts = [f"{names[node]!r}{self._share(node)}" for node in range(len(names)) if self._cached(node)]
        if not self._plan.has_caching:
            return None
        return f"From the cache: {', '.join(parts[:_MOST_NAMED]) or 'nothing'}{_more(len(parts) - _MOST_NAMED)}."

    def _cached(self, node: int) -> int:
        items = self._run.layout.items_of(node)
        return sum(self._run.scheduler.state(item) == CACHED for item in items)

    def _share(self, node: int) -> str:
        """Say how many items of a mapped step are cached."""
        if not self._run.layout.is_mapped(node):
            return ""
        return f" ({self._cached(node):,} of {pluralize(len(self._run.layout.items_of(node)), 'item')})"

    # -- one step

    def of(self, node: int) -> str | None:
        """Say whether a step would come from the cache, and why not; `None` if it is not to be cached."""
        if self._plan.forms[node].options.caching is None:
            return None
        items = self._run.layout.items_of(node)
        missed = next((item for item in items if self._run.scheduler.state(item) != CACHED), None)
        if missed is None:
            return f"its value is there{self._age(node)}" if items else "it has no items"
        reason = self._reason(node, missed)
        if not self._run.layout.is_mapped(node):
            return reason
        there = f"{self._cached(node):,} of {pluralize(len(items), 'item')}"
        return f"{there} cached; {self._run.item_name(missed)}: {reason}"

    def _age(self, node: int) -> str:
        entry = self._caching.used(node)
        return "" if entry is None else f", stored {_when(entry.created)}"

    def _reason(self, node: int, item: int) -> str:
        if node in self._unknown:
            return f"its key is not known before run() gives {join_names(self._unknown[node])}"
        if node in self._caching.reasons:
            return self._caching.reasons[node]
        waits = [self._plan.names[each] for each in self._plan.graph.dependencies(node) if not self._is_there(each)]
        if waits:
            return f"its key is not known before {join_names(waits)} {'has' if len(waits) == 1 else 'have'} run"
        key = self._caching.key(item)
        with database_of(self._store).opened() as index:
            if key is None or index is None:
                return "nothing is stored for it yet"
            return self._compared(index, node, key)

    def _is_there(self, node: int) -> bool:
        return all(STATES[self._run.scheduler.state(item)].final for item in self._run.layout.items_of(node))

    def _compared(self, index: CacheDatabase, node: int, key: CacheKey) -> str:
        """Say how a key differs from that of the newest value of the step."""
        expired = index.lookup([key.digest]).get(key.digest)
        if expired is not None:
            return f"its value is older than cache_ttl, stored {_when(expired.created)}"
        before = index.newest(self._plan.names[node])
        if before is None:
            return "nothing is stored for it yet"
        old, new = _made(index.words(before.recipe[:SIZE]), before.recipe), _made(self._caching.words(key), key.recipe)
        changes = list(_changes(*old, *new)) if old and new else []
        since = f"since its newest value was stored, {_when(before.created)}"
        return f"{', '.join(changes)} {since}" if changes else f"nothing is stored under its key {since}"


def _changes(old: KeyParts, old_values: list[bytes], new: KeyParts, new_values: list[bytes]) -> Iterator[str]:
    """Say what of a key is another than it was."""
    yield from differences(old.parts, new.parts)
    before = dict(zip(old.arguments, old_values, strict=False))
    for name, content in zip(new.arguments, new_values, strict=False):
        if name not in before:
            yield f"argument {name!r} is new"
        elif before[name] != content:
            yield f"argument {name!r} has changed"
    yield from (f"argument {name!r} is gone" for name in old.arguments if name not in new.arguments)


def _made(words: bytes | None, recipe: bytes) -> tuple[KeyParts, list[bytes]] | None:
    return None if words is None else (KeyParts.unpacked(words), split(recipe[SIZE:]))


def _when(seconds: float) -> str:
    age = max(0, time.time() - seconds)
    unit, size = next((each for each in _UNITS if age >= each[1]), _UNITS[-1])
    return f"{pluralize(int(age // size), unit)} ago"


def _more(count: int) -> str:
    return f" and {count:,} more" if count > 0 else ""


class ResumePreview(NamedTuple):
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


class _ReadOnlyJournal:
    """A memory that looks into a journal and tells nothing; see `recall.py`."""

    def __init__(self, run: Run, journal: Journal) -> None:
        self._run, self._journal = run, journal
        self.finished = JournalIndex(journal)
        self.keys = JournalKeys(run, lambda _node, _error: None)
        self.taken: set[int] = set()
        self.again: dict[int, str] = {}
        self.in_common = False

    @property
    def looks(self) -> bool:
        return bool(self.finished)

    def find(self, items: Sequence[int]) -> dict[int, CacheHit]:
        found: dict[int, CacheHit] = {}
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
                    found[item] = CacheHit(load, SKIPPED if state == SKIPPED else CACHED)
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


def prospect_of(plan: Plan, attempts: ResumableRuns, node: int, scope: Scope) -> str | None:
    """Say what a run would take over of one step.

    `None` if it would begin anew, has nothing to continue, or if steps need what only `run` can give.
    """
    for run_id, folder in attempts.asked_for(resume=None):
        if not scope.complete and any(ArgumentTrace(plan, each, scope).missing for each in range(len(plan.names))):
            return None
        seen = _looked_into(plan, folder, None, tentative=True, node=node)
        if seen is not None:
            return f"{seen.told}, from run {run_id}"
    return None


def prospect(
    plan: Plan,
    attempts: ResumableRuns,
    *,
    seed: int | None,
    resume: str | bool | None,
    anew: frozenset[int] = frozenset(),
) -> ResumePreview | None:
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
            return ResumePreview(
                f"Continues run {run_id}: {seen.told}.", seen.steps, seen.calls, at_least=seen.at_least
            )
    return None


def _looked_into(
    plan: Plan,
    folder: RunDirectory,
    seed: int | None,
    *,
    tentative: bool,
    node: int | None = None,
    anew: frozenset[int] = frozenset(),
) -> ResumePreview | None:
    """Say what would be taken over of one run, or of one step of it, and what is left of the whole run.

    A run that nobody asked for has to have something in common.
    """
    try:
        journal = Journal(folder.path, read_only=True, on_trouble=lambda _: None)
    except (OSError, StoreError):
        return None
    try:
        run = Run(plan, seed=seed)
        run.forced_steps = anew
        look = _ReadOnlyJournal(run, journal)
        finished = look.finished
        if finished.ended == "success" or not finished.count:
            return None
        recall = ResultLookup(run, [look], only_look=True, patience=math.inf)
        run.attach_lookup(recall)
        recall.on_run_started()
        recall.close(None)
        if tentative and not look.in_common:
            return None
        story = ResumeSummary(run, finished, look.keys, look.taken, look.again)
        told = story.told() + story.to_come() if node is None else story.of(node)
        return ResumePreview(told, *_left(run, look.taken), at_least=bool(run.layout.waiting))
    finally:
        journal.close()
