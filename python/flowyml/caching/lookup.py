"""Results that need not be computed: taken from the cache or from an earlier attempt before items run.

```
claim ──▶ items not looked up yet? ──▶ sources: lookup ──▶ found: completed in the state `cached`
                                                      └──▶ others: given back, claimed again, run as usual
end   ──▶ sources: store
          └─ items that workers of this process report to the core are noted there and stored in groups (`write`)
```

A `ResultLookup` is placed between a run and its scheduler, so executors do not know about it, and a run without cache
and journal has none. Items are looked up in large batches, independently of the batches that workers claim. Values keep
the form of their executor: encoded for processes, so that the driver does not load them.

The sources of a run are the journal of an earlier attempt first, then the cache.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.caching.write_buffer import BATCH_SIZE, HOLD_SECONDS, TINY_STEP_SECONDS
from flowyml.runtime.extension import LOOKUP, RunExtension
from flowyml.state import CACHED, RUNNING
from flowyml.store.serialization import decoded, encoded
from flowyml.store.value_store import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowyml._core import Batch
    from flowyml.caching.resumable_runs import ResumableRuns
    from flowyml.caching.step_cache import ValueHashes
    from flowyml.results.result import PipelineResult
    from flowyml.runtime.extension import Claim, FinishedItems
    from flowyml.runtime.run import Run
    from flowyml.store.cache_store import CacheStore


_PRELOAD_SECONDS = 0.25  # how long workers wait for lookups in the cache; the rest is looked up while they work
_LOOKUP_SIZE = 512  # the cost of one lookup in a batch of this size is near its minimum
clock = time.monotonic


def attach(
    run: Run,
    cache: CacheStore | None,
    context: Mapping[str, Any],
    runs: ResumableRuns | None,
    *,
    run_id: str | None,
    resume: str | bool | None,
) -> None:
    """Attach the journal and the cache to a run.

    Raises:
        ValueError: If `resume` names a run that does not exist.
        StoreError: If that run cannot be continued.
    """
    sources: list[ResultSource] = []
    step_cache = None
    attempt = None if runs is None else runs.open(run_id, resume=resume)
    if attempt is not None and runs is not None:
        from flowyml.caching.run_journal import RunJournal

        sources.append(RunJournal(run, attempt, runs))
    if cache is not None and run.plan.has_caching:
        from flowyml.caching.step_cache import StepCache

        step_cache = StepCache(run, cache, context)
        sources.append(step_cache)
    if sources:
        is_continued = attempt is not None and attempt.finished.count
        lookup = ResultLookup(run, sources, patience=math.inf if is_continued else _PRELOAD_SECONDS)
        if step_cache is not None:
            lookup.contents, lookup.read = step_cache.contents, step_cache.read
        run.attach_lookup(lookup)


class CacheHit(NamedTuple):
    """A stored result of an item.

    Attributes:
        load: Returns the value, encoded; raises `LookupError` if it is not there after all.
        state: The state in which the item ends.
        is_read: Whether its value is part of keys and its content is not known.
    """

    load: Callable[[], Any]
    state: int = CACHED
    is_read: bool = False


class ResultSource:
    """What a cache or journal does in a run; a source overrides the methods that it needs."""

    @property
    def has_entries(self) -> bool:
        """Whether it may have results."""
        return False

    @property
    def can_defer(self) -> bool:
        """Whether `store` may be called some time after an item has ended, if nothing can change its value."""
        return True

    def on_start(self) -> None:
        """Prepare for the run; ready items may be claimed to look at them, and given back."""

    def lookup(self, items: Sequence[int]) -> dict[int, CacheHit]:  # noqa: ARG002
        """Return the stored results of items that are about to run."""
        return {}

    def on_preload_done(self) -> None:
        """Note that the lookups before the first step are done."""

    def store(self, items: Sequence[int], states: bytes | None, *, late: bool = False) -> None:
        """Store items that have ended, whose values are in the run.

        Args:
            items: The items.
            states: Their states; `None` if all have succeeded.
            late: They ended some milliseconds ago and must not be deferred again.
        """

    def on_retry(self, item: int, attempts: int) -> None:
        """Note that an item is tried again after so many attempts."""

    def close(self, result: PipelineResult | None) -> None:
        """End its work; a dry run or a run that was cut off has no result."""


class ResultLookup(RunExtension):
    """The sources of one run.

    Args:
        run: The run.
        sources: They are asked in this order.
        only_look: Nothing is to run, so values are not loaded.
        patience: How many seconds lookups may take before workers start.

    Attributes:
        contents: Takes the contents of values that workers have hashed; `None` without a cache.
        read: The steps whose values are part of keys: process workers return their contents with them.
    """

    rank = LOOKUP

    def __init__(
        self, run: Run, sources: Sequence[ResultSource], *, only_look: bool = False, patience: float = math.inf
    ) -> None:
        self._run = run
        self._sources = sources
        self._only_look = only_look
        self._patience = patience
        self._is_looked_up = bytearray(run.item_index.item_count)
        self._reused: list[int] = []
        self._items: dict[int, tuple[Batch, list[int]]] = {}
        self._lock = threading.RLock()
        self._may_note = False
        self.contents: ValueHashes | None = None
        self.read: frozenset[int] = frozenset()

    # -- before items run

    def wrap_claim(self, claim: Claim) -> Claim:
        """Return a function that claims only items that have to run."""
        if not self._has_entries():
            return claim

        def claim_missing(worker: int, limit: int, now: float, timeout: float = 0.0) -> Batch | None:
            while (batch := claim(worker, limit, now, timeout)) is not None:
                if self._are_looked_up(batch.items()) or not self._look_up(batch, claim):
                    return batch
            return None

        return claim_missing

    def _has_entries(self) -> bool:
        return any(source.has_entries for source in self._sources)

    def on_run_started(self) -> None:
        """Look up ready items before any worker starts, as long as the patience lasts."""
        for source in self._sources:
            source.on_start()
        scheduler, deadline = self._run.scheduler, clock() + self._patience
        batches: list[Batch] = []
        while self._has_entries() and clock() < deadline:
            batch = scheduler.claim(0, _LOOKUP_SIZE, clock())
            if batch is None:
                break
            self._complete(batch, self._find(batch.items()))
            batches.append(batch)
        for batch in reversed(batches):
            self._give_back(batch)
        for source in self._sources:
            source.on_preload_done()
        self._may_note = all(source.can_defer for source in self._sources)
        if self._may_note:
            scheduler.note(BATCH_SIZE, HOLD_SECONDS, TINY_STEP_SECONDS)

    def _are_looked_up(self, items: list[int]) -> bool:
        flags = self._is_looked_up
        if items and max(items) >= len(flags):  # items are in order of urgency, not of ids
            flags.extend(bytes(self._run.item_index.item_count - len(flags)))
        return all(map(flags.__getitem__, items))

    def _look_up(self, batch: Batch, claim: Claim) -> bool:
        """Look up a claimed batch together with some items that follow it; return True if part of it was found."""
        following = claim(batch.worker, _LOOKUP_SIZE, clock())
        batches = [batch] if following is None else [batch, following]
        hits = self._find([item for claimed in batches for item in claimed.items()])
        if following is not None:
            self._complete(following, hits)
            self._give_back(following)
        if hits.keys().isdisjoint(batch.items()):
            return False
        self._complete(batch, hits)
        self._give_back(batch)
        return True

    def _find(self, items: list[int]) -> dict[int, CacheHit]:
        """Ask the sources in turn, load the values into the run, and mark the items as looked up."""
        self._are_looked_up(items)
        missing = [item for item in items if not self._is_looked_up[item]]
        hits: dict[int, CacheHit] = {}
        for source in self._sources:
            if missing:
                hits |= source.lookup(missing)
                missing = [item for item in missing if item not in hits]
        for item in items:
            self._is_looked_up[item] = 1
        loaded = {item: hit for item, hit in hits.items() if self._load(item, hit)}
        self._reused += loaded
        return loaded

    def _load(self, item: int, hit: CacheHit) -> bool:
        run = self._run
        if hit.state != CACHED:
            return True
        # A preview needs no values, but the value of a list may determine how many items there are.
        if self._only_look and not hit.is_read and not run.item_index.waiting:
            run.values.raw[item] = None
            return True
        try:
            raw = hit.load()
            run.values.raw[item] = raw if run.keeps_serialized else decoded(raw)
        except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001  it cannot be loaded (any more), so its step runs
            run.values.raw[item] = MISSING
            return False
        return True

    def _complete(self, batch: Batch, hits: dict[int, CacheHit]) -> None:
        """Complete the items of a batch that were found."""
        items = batch.items()
        position = 0
        while position < len(items):
            end = position
            while end < len(items) and items[end] in hits:
                end += 1
            if end > position:
                states = bytes(hits[item].state for item in items[position:end])
                self._run.complete_from_cache(batch, position, states)
            position = end + 1

    def _give_back(self, batch: Batch) -> None:
        """Return the items of a batch that have not ended to the scheduler, the last ones first."""
        scheduler, items = self._run.scheduler, batch.items()
        end = len(items)
        while end:
            start = end
            while start and scheduler.state(items[start - 1]) == RUNNING:
                start -= 1
            if start < end:
                scheduler.give_back(batch, start, end - start)
            end = max(0, start - 1)

    # -- after items have run

    def on_items_finished(self, finished: FinishedItems) -> None:
        """Store items of a batch that have ended, before their dependents can start."""
        batch, position, _, ends, states = finished
        items = self._items_of(batch)[position : position + len(ends)]
        with self._lock:
            self.write()
            for source in self._sources:
                source.store(items, states)
        self.allows_direct_reports = self._may_note  # the first item has nothing to wait for

    def write(self) -> None:
        """Store the noted items: in the order of their ends, and before their dependents."""
        if not self.allows_direct_reports:
            return
        with self._lock:
            noted = self._run.scheduler.take_noted()
            if noted:
                for source in self._sources:
                    source.store(noted, None, late=True)

    def _items_of(self, batch: Batch) -> list[int]:
        """Return the items of a batch, which is reported in several parts."""
        known = self._items.get(batch.worker)
        if known is None or known[0] is not batch:
            known = self._items[batch.worker] = (batch, batch.items())
        return known[1]

    def on_retry(self, item: int, attempts: int) -> None:
        """Notify the sources that an item is tried again."""
        with self._lock:
            self.write()
            for source in self._sources:
                source.on_retry(item, attempts)

    def close(self, result: PipelineResult | None) -> None:
        """Close the sources."""
        self._items.clear()
        if result is None or not result.success:
            self.write()
        for source in self._sources:
            source.close(result)

    def encode(self) -> None:
        """Encode the values that were loaded as objects: from now on the run keeps values encoded."""
        raw = self._run.values.raw
        for item in self._reused:
            if raw[item] is not MISSING:
                raw[item] = encoded(raw[item])
