"""Previews of the results that a run would reuse, and why a step would run: for `dry_run` and `explain`.

```
Plan ──▶ a run that runs nothing, with the cache or a journal as its source ──▶ states of its items ──▶ words
                       keys and contents only, no value is loaded; nothing is locked or written
```

The key of a step that reads a step which would run first is not known. If a key is known and nothing is stored under
it, its parts are compared with those of the step's newest value. A run whose journal is read may be executing now; the
preview then says what would be reused if it ended now.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from flowyml._containers import NamedTuple
from flowyml.caching.journal_index import JournalIndex, JournalReader
from flowyml.caching.journal_keys import JournalKeys
from flowyml.caching.keys import KeyParts, split
from flowyml.caching.lookup import ResultLookup
from flowyml.caching.resume_summary import ResumeSummary
from flowyml.caching.step_cache import StepCache
from flowyml.diagnostics.text import join_names, pluralize
from flowyml.errors import StoreError
from flowyml.graph.explain import ArgumentTrace
from flowyml.hashing.content import SIZE
from flowyml.hashing.fingerprint import differences
from flowyml.runtime.run import Run
from flowyml.state import CACHED, STATES
from flowyml.store.cache_store import database_of
from flowyml.store.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from flowyml.caching.keys import CacheKey
    from flowyml.caching.lookup import ResultSource
    from flowyml.caching.resumable_runs import ResumableRuns
    from flowyml.planning.name_resolution import Scope
    from flowyml.planning.plan import Plan
    from flowyml.store.cache_index import CacheDatabase
    from flowyml.store.cache_store import CacheStore
    from flowyml.store.run_directory import RunDirectory

_MOST_NAMED = 20
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def _reuse(run: Run, source: ResultSource) -> None:
    """Complete the items of a run whose results a source has; nothing is run."""
    lookup = ResultLookup(run, [source], only_look=True)
    run.attach_lookup(lookup)
    lookup.on_run_started()
    lookup.close(None)


class CachePreview:
    """The values that a run of a plan would take from the cache.

    Args:
        plan: The plan; it is valid.
        store: The cache.
        scope: Values of the run's inputs and the contexts.
        seed: The seed of the run.
    """

    def __init__(self, plan: Plan, store: CacheStore, scope: Scope, seed: int | None = None) -> None:
        self._plan = plan
        self._store = store
        self._run = Run(plan, seed=seed)
        self._cache = StepCache(self._run, store, scope.context, only_look=True)
        self._missing = dict(self._steps_with_missing_inputs(scope))
        self._cache.leave_out(self._missing)
        _reuse(self._run, self._cache)

    def _steps_with_missing_inputs(self, scope: Scope) -> Iterator[tuple[int, list[str]]]:
        """Yield the cached steps that need values which are only known in `run`, with these values' names."""
        if scope.complete:
            return
        known: dict[int, list[str]] = {}
        for node, spec in enumerate(self._plan.specs):
            if spec.options.caching is not None:
                if id(spec) not in known:
                    known[id(spec)] = ArgumentTrace(self._plan, node, scope).missing
                if known[id(spec)]:
                    yield node, known[id(spec)]

    def describe(self) -> str | None:
        """Return which steps would be taken from the cache; `None` if no step is cached."""
        if not self._plan.has_caching:
            return None
        names, is_mapped = self._plan.names, self._run.item_index.is_mapped
        steps = [
            f"{names[node]!r}{f' ({self._cached_share(node)})' if is_mapped(node) else ''}"
            for node in range(len(names))
            if self._count_cached(node)
        ]
        more = len(steps) - _MOST_NAMED
        listed = ", ".join(steps[:_MOST_NAMED]) or "nothing"
        return f"From the cache: {listed}{f' and {more:,} more' if more > 0 else ''}."

    def describe_step(self, node: int) -> str | None:
        """Return whether a step would be taken from the cache, and why not; `None` if it is not cached."""
        if self._plan.specs[node].options.caching is None:
            return None
        items = self._run.item_index.items_of(node)
        missed = next((item for item in items if self._run.scheduler.state(item) != CACHED), None)
        if missed is None:
            entry = self._cache.used(node)
            age = "" if entry is None else f", stored {_ago(entry.created)}"
            return f"its value is there{age}" if items else "it has no items"
        reason = self._reason(node, missed)
        if not self._run.item_index.is_mapped(node):
            return reason
        return f"{self._cached_share(node)} cached; {self._run.item_name(missed)}: {reason}"

    def _count_cached(self, node: int) -> int:
        return sum(self._run.scheduler.state(item) == CACHED for item in self._run.item_index.items_of(node))

    def _cached_share(self, node: int) -> str:
        return f"{self._count_cached(node):,} of {pluralize(len(self._run.item_index.items_of(node)), 'item')}"

    def _reason(self, node: int, item: int) -> str:
        if node in self._missing:
            return f"its key is not known before run() gives {join_names(self._missing[node])}"
        if node in self._cache.reasons:
            return self._cache.reasons[node]
        graph, names = self._plan.graph, self._plan.names
        waits = [names[dependency] for dependency in graph.dependencies(node) if not self._has_ended(dependency)]
        if waits:
            return f"its key is not known before {join_names(waits)} {'has' if len(waits) == 1 else 'have'} run"
        key = self._cache.key(item)
        with database_of(self._store).opened() as database:
            if key is None or database is None:
                return "nothing is stored for it yet"
            return self._compare(database, node, key)

    def _has_ended(self, node: int) -> bool:
        return all(STATES[self._run.scheduler.state(item)].final for item in self._run.item_index.items_of(node))

    def _compare(self, database: CacheDatabase, node: int, key: CacheKey) -> str:
        """Return how a key differs from that of the step's newest value."""
        expired = database.lookup([key.digest]).get(key.digest)
        if expired is not None:
            return f"its value is older than cache_ttl, stored {_ago(expired.created)}"
        newest = database.newest(self._plan.names[node])
        if newest is None:
            return "nothing is stored for it yet"
        old, new = database.words(newest.recipe[:SIZE]), self._cache.words(key)
        changes = [] if old is None or new is None else list(_changes(old, newest.recipe, new, key.recipe))
        since = f"since its newest value was stored, {_ago(newest.created)}"
        return f"{', '.join(changes)} {since}" if changes else f"nothing is stored under its key {since}"


def _changes(old_words: bytes, old_recipe: bytes, new_words: bytes, new_recipe: bytes) -> Iterator[str]:
    """Yield what differs between two keys."""
    old, new = KeyParts.unpacked(old_words), KeyParts.unpacked(new_words)
    yield from differences(old.parts, new.parts)
    before = dict(zip(old.arguments, split(old_recipe[SIZE:]), strict=False))
    for name, content in zip(new.arguments, split(new_recipe[SIZE:]), strict=False):
        if name not in before:
            yield f"argument {name!r} is new"
        elif before[name] != content:
            yield f"argument {name!r} has changed"
    yield from (f"argument {name!r} is gone" for name in old.arguments if name not in new.arguments)


def _ago(timestamp: float) -> str:
    age = max(0, time.time() - timestamp)
    unit, seconds = next((unit for unit in _UNITS if age >= unit[1]), _UNITS[-1])
    return f"{pluralize(int(age // seconds), unit)} ago"


class ResumePreview(NamedTuple):
    """What a run would do that continues another.

    Attributes:
        text: Which results it would reuse, and what runs again and why.
        steps: How many steps would run.
        calls: How many calls would run.
        at_least: Whether there may be more: the number of items of some step is known only in the run.
    """

    text: str
    steps: int
    calls: int
    at_least: bool


def preview_resume(
    plan: Plan,
    runs: ResumableRuns,
    *,
    seed: int | None,
    resume: str | bool | None,
    forced: frozenset[int] = frozenset(),
) -> ResumePreview | None:
    """Return what a run would reuse and run; `None` if it would continue no other.

    Args:
        plan: The plan; it is valid.
        runs: The runs that may be continued.
        seed: The seed of the run.
        resume: As for `run`.
        forced: Steps that run again although they have finished.

    Raises:
        ValueError: If `resume` names a run that does not exist, or a run of another pipeline.
    """
    if resume is False:
        return None
    for run_id, directory in runs.candidates(resume=resume):
        preview = _preview(plan, directory, seed, tentative=resume is None, forced=forced)
        if preview is not None:
            return preview._replace(text=f"Continues run {run_id}: {preview.text}.")
    return None


def preview_resumed_step(plan: Plan, runs: ResumableRuns, node: int, scope: Scope) -> str | None:
    """Return what a run would reuse of one step.

    `None` if it would continue no other, or if steps need values that are only known in `run`.
    """
    for run_id, directory in runs.candidates(resume=None):
        if not scope.complete and any(ArgumentTrace(plan, step, scope).missing for step in range(len(plan.names))):
            return None
        preview = _preview(plan, directory, None, tentative=True, node=node)
        if preview is not None:
            return f"{preview.text}, from run {run_id}"
    return None


def _preview(
    plan: Plan,
    directory: RunDirectory,
    seed: int | None,
    *,
    tentative: bool,
    node: int | None = None,
    forced: frozenset[int] = frozenset(),
) -> ResumePreview | None:
    """Return what would be reused of one run, or of one step of it; a tentative run needs something in common."""
    try:
        journal = Journal(directory.path, read_only=True, on_trouble=lambda _: None)
    except (OSError, StoreError):
        return None
    try:
        run, index = Run(plan, seed=seed), JournalIndex(journal)
        if index.ended == "success" or not index.count:
            return None
        run.forced_steps = forced
        keys = JournalKeys(run, lambda _node, _error: None)
        reader = JournalReader(run, keys, journal, index, only_look=True)
        _reuse(run, reader)
        if tentative and not reader.has_common:
            return None
        summary = ResumeSummary(run, index, keys, reader.reused, reader.reasons)
        text = summary.describe() + summary.describe_later() if node is None else summary.describe_step(node)
        return ResumePreview(text, *_count_left(run, reader.reused), at_least=bool(run.item_index.waiting))
    finally:
        journal.close()


def _count_left(run: Run, reused: Collection[int]) -> tuple[int, int]:
    """Return how many steps and calls are left to run."""
    item_index = run.item_index
    done = [*reused, *(item for node in run.plan.given_steps() for item in item_index.items_of(node))]
    counts = Counter(map(item_index.node_at, done))
    whole = sum(count == len(item_index.items_of(node)) for node, count in counts.items())
    return len(run.plan.names) - whole, item_index.item_count - len(done)
