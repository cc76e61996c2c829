"""What of a run need not run, because its value is there already: from the cache, or from an earlier attempt.

```
claim ──▶ items not asked for yet? ──▶ memories: find ──▶ found: taken over, in the state `cached`
                                                     └──▶ others: given back, claimed again, run as ever
end   ──▶ memories: keep
          └─ what workers of this process report by themselves: noted by the core, kept some hundred at a time (write)
```

It stands between a run and its scheduler, so no executor knows of it, and a run without memories has none of it. Items
are asked for in large batches, whatever the batches are in which workers take them. Values are kept in the form in
which the executor keeps them: encoded for processes, which then load nothing in the driver.

What a run remembers, put together: the journal of an earlier attempt first, then the cache.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.caching.write_buffer import MOST, TINY, WINDOW
from flowyml.runtime.extension import LOOKUP, RunExtension
from flowyml.state import CACHED, RUNNING
from flowyml.store.serialization import decoded, encoded
from flowyml.store.value_store import MISSING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowyml.caching.resumable_runs import ResumableRuns
    from flowyml.runtime.run import Run
    from flowyml.store.cache_store import CacheStore


# What is in the cache is taken over before workers start; more of it than takes this long, while they work.
_PATIENCE = 0.25


def attach(
    run: Run,
    cache: CacheStore | None,
    context: Mapping[str, Any],
    attempts: ResumableRuns | None,
    *,
    run_id: str | None,
    resume: str | bool | None,
) -> None:
    """Let a run ask its memories, and tell them what has run; see `recall.py`.

    Raises:
        ValueError: If `resume` names a run that is not there.
        StoreError: If that run cannot be continued.
    """
    memories: list[ResultSource] = []
    caching = None
    attempt = None if attempts is None else attempts.open(run_id, resume=resume)
    if attempt is not None and attempts is not None:
        from flowyml.caching.run_journal import RunJournal

        memories.append(RunJournal(run, attempt, attempts))
    if cache is not None and run.plan.has_caching:
        from flowyml.caching.step_cache import StepCache

        caching = StepCache(run, cache, context)
        memories.append(caching)
    if memories:
        continues = attempt is not None and attempt.finished.count
        recall = ResultLookup(run, memories, patience=math.inf if continues else _PATIENCE)
        if caching is not None:
            recall.contents, recall.read = caching.contents, caching.read
        run.attach_lookup(recall)


if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from flowyml._core import Batch
    from flowyml.caching.step_cache import ValueHashes
    from flowyml.results.result import PipelineResult
    from flowyml.runtime.extension import Claim, FinishedItems
    from flowyml.runtime.run import Run

    class ResultSource(Protocol):
        """Something that knows values of items, or keeps them."""

        @property
        def looks(self) -> bool:
            """Whether it is to be asked."""

        def find(self, items: Sequence[int]) -> dict[int, CacheHit]:
            """Return what is there of these items, which are about to run."""

        def keep(self, items: Sequence[int], states: bytes | None, *, late: bool = False) -> None:
            """Take in that items have ended; their values are in the run. `None`: all have succeeded.

            `late`: that was a moment ago, nothing is to wait any longer.
            """

        @property
        def may_wait(self) -> bool:
            """Whether `keep` may be called some time after an item has ended, if nothing can change its value."""

        def retried(self, item: int, attempts: int) -> None:
            """Take in that an item is to be tried again, after so many attempts."""

        def prepare(self) -> None:
            """The run begins; what is ready first may be claimed to look at it, and given back."""

        def begun(self) -> None:
            """What is there was taken over, as far as it was asked for before anything runs."""

        def close(self, result: PipelineResult | None) -> None:
            """The run is over; without a result it was rehearsed only."""


# As many at once make one look-up of each about as cheap as it gets.
_AT_ONCE = 512
clock = time.monotonic


class CacheHit(NamedTuple):
    """What a memory has of an item.

    Attributes:
        load: Returns the value, encoded; raises `LookupError` if it is not there after all.
        state: The state in which the item ends.
        is_read: Whether its value is part of keys and its content is not known.
    """

    load: Callable[[], Any]
    state: int = CACHED
    is_read: bool = False


class ResultLookup(RunExtension):
    """The memories of one run.

    Args:
        run: The run.
        memories: Who is asked, in this order, and who is told.
        only_look: Nothing is to run, so values are not loaded.
        patience: How many seconds may be spent on asking before workers start.

    Attributes:
        contents: Who takes the contents of values; `None` if nobody does.
        read: The steps whose values take part in keys: process workers return their contents beside them.
    """

    rank = LOOKUP

    def __init__(
        self, run: Run, memories: Sequence[ResultSource], *, only_look: bool = False, patience: float = math.inf
    ) -> None:
        self._run = run
        self._memories = memories
        self._only_look = only_look
        self._patience = patience
        self._asked = bytearray(run.layout.item_count)
        self._taken: list[int] = []
        self._items: dict[int, tuple[Batch, list[int]]] = {}
        self._writing = threading.RLock()
        self._may_note = False
        self.contents: ValueHashes | None = None
        self.read: frozenset[int] = frozenset()

    # -- before items run

    def wrap_claim(self, claim: Claim) -> Claim:
        """Return a function that claims only what has to run."""
        if not any(memory.looks for memory in self._memories):
            return claim

        def recalling(worker: int, limit: int, now: float, timeout: float = 0.0) -> Batch | None:
            while (batch := claim(worker, limit, now, timeout)) is not None:
                if self._all_asked(batch.items()) or not self._ask(batch, claim):
                    return batch
            return None

        return recalling

    def on_run_started(self) -> None:
        """Take over what is there before any worker starts; what takes longer is left for later."""
        for memory in self._memories:
            memory.prepare()
        scheduler, until = self._run.scheduler, clock() + self._patience
        held: list[Batch] = []
        while any(memory.looks for memory in self._memories) and clock() < until:
            batch = scheduler.claim(0, _AT_ONCE, clock())
            if batch is None:
                break
            self._take_over(batch, self._found(batch.items()))
            held.append(batch)
        for batch in reversed(held):
            self._give_back(batch)
        for memory in self._memories:
            memory.begun()
        self._may_note = all(memory.may_wait for memory in self._memories)
        if self._may_note:
            scheduler.note(MOST, WINDOW, TINY)

    def _all_asked(self, items: list[int]) -> bool:
        asked = self._asked
        if items and max(items) >= len(asked):  # in the order of urgency, which is not that of numbers
            asked.extend(bytes(self._run.layout.item_count - len(asked)))
        return all(map(asked.__getitem__, items))

    def _ask(self, batch: Batch, claim: Claim) -> bool:
        """Ask for a batch that was claimed and some that follow it; tell whether the batch is gone."""
        following = claim(batch.worker, _AT_ONCE, clock())
        batches = [batch] if following is None else [batch, following]
        found = self._found([item for each in batches for item in each.items()])
        if following is not None:
            self._take_over(following, found)
            self._give_back(following)
        if found.keys().isdisjoint(batch.items()):
            return False
        self._take_over(batch, found)
        self._give_back(batch)
        return True

    def _found(self, items: list[int]) -> dict[int, CacheHit]:
        """Ask the memories, one after the other, and mark the items as asked for."""
        self._all_asked(items)
        left = [item for item in items if not self._asked[item]]
        found: dict[int, CacheHit] = {}
        for memory in self._memories:
            if left:
                found |= memory.find(left)
                left = [item for item in left if item not in found]
        for item in items:
            self._asked[item] = 1
        loaded = {item: each for item, each in found.items() if self._load(item, each)}
        self._taken += loaded
        return loaded

    def _load(self, item: int, found: CacheHit) -> bool:
        """Put a value into the run; tell whether it is there."""
        if found.state != CACHED:
            return True
        if (
            self._only_look and not found.is_read and not self._run.layout.waiting
        ):  # else a value may tell how many items there are
            self._run.values.raw[item] = None
            return True
        try:
            raw = found.load()
            self._run.values.raw[item] = raw if self._run.keeps_serialized else decoded(raw)
        except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001  it does not load (any more): so it runs
            self._run.values.raw[item] = MISSING
            return False
        return True

    def _take_over(self, batch: Batch, found: dict[int, CacheHit]) -> None:
        """Let items of a batch end without running."""
        items = batch.items()
        position = 0
        while position < len(items):
            end = position
            while end < len(items) and items[end] in found:
                end += 1
            if end > position:
                states = bytes(found[item].state for item in items[position:end])
                self._run.complete_from_cache(batch, position, states)
            position = end + 1

    def _give_back(self, batch: Batch) -> None:
        """Return what of a batch has not ended to the scheduler, the last ones first."""
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
        """Tell the memories that items of a batch have ended, before what depends on them can begin."""
        batch, position, _, ends, states = finished
        items = self._items_of(batch)[position : position + len(ends)]
        with self._writing:
            self.write()
            for memory in self._memories:
                memory.keep(items, states)
        self.allows_direct_reports = self._may_note  # what ends first of all has nothing to wait for

    def write(self) -> None:
        """Tell them of what was noted: in the order in which it ended, and before what depends on it."""
        if not self.allows_direct_reports:
            return
        with self._writing:
            noted = self._run.scheduler.take_noted()
            if noted:
                for memory in self._memories:
                    memory.keep(noted, None, late=True)

    def _items_of(self, batch: Batch) -> list[int]:
        """Return the items of a batch; they are asked for part by part."""
        known = self._items.get(batch.worker)
        if known is None or known[0] is not batch:
            known = self._items[batch.worker] = (batch, batch.items())
        return known[1]

    def on_retry(self, item: int, attempts: int) -> None:
        """Tell the memories that an item is to be tried again."""
        with self._writing:
            self.write()
            for memory in self._memories:
                memory.retried(item, attempts)

    def close(self, result: PipelineResult | None) -> None:
        """Tell the memories that the run is over."""
        self._items.clear()
        if result is None or not result.success:
            self.write()
        for memory in self._memories:
            memory.close(result)

    def encode(self) -> None:
        """The run keeps values encoded from now on: those that were taken over as objects are made alike."""
        raw = self._run.values.raw
        for item in self._taken:
            if raw[item] is not MISSING:
                raw[item] = encoded(raw[item])
