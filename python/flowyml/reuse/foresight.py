"""What a run would take from the cache, and why a step would not be taken: for `dry_run` and `explain`.

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
from typing import TYPE_CHECKING

from flowyml.keys.content import SIZE
from flowyml.keys.fingerprint import differences
from flowyml.messages.words import counted, listed
from flowyml.reuse.caching import Caching
from flowyml.reuse.call_keys import Made, split
from flowyml.reuse.recall import Recall
from flowyml.running.run import Run
from flowyml.state import CACHED, STATES
from flowyml.views.explain import Traced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowyml.planning.plan import Plan
    from flowyml.planning.scope import Scope
    from flowyml.reuse.cache_keys import Key
    from flowyml.store.cache import CacheStore
    from flowyml.store.index import Index

_MOST_NAMED = 20
_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


class Foresight:
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
        self._caching = Caching(self._run, store, scope.context, only_look=True)
        recall = Recall(self._run, [self._caching], only_look=True, patience=math.inf)
        self._run.remember(recall)
        self._unknown = dict(self._needing(scope))
        self._caching.leave_out(self._unknown)
        recall.begin()
        recall.close(None)

    def _needing(self, scope: Scope) -> Iterator[tuple[int, list[str]]]:
        """Go through the cached steps that need values which only `run` can give."""
        if scope.complete:
            return
        known: dict[int, list[str]] = {}
        for node, form in enumerate(self._plan.forms):
            if form.options.caching is not None:
                if id(form) not in known:
                    known[id(form)] = Traced(self._plan, node, scope).missing
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
        return f" ({self._cached(node):,} of {counted(len(self._run.layout.items_of(node)), 'item')})"

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
        there = f"{self._cached(node):,} of {counted(len(items), 'item')}"
        return f"{there} cached; {self._run.item_name(missed)}: {reason}"

    def _age(self, node: int) -> str:
        entry = self._caching.used(node)
        return "" if entry is None else f", stored {_when(entry.created)}"

    def _reason(self, node: int, item: int) -> str:
        if node in self._unknown:
            return f"its key is not known before run() gives {listed(self._unknown[node])}"
        if node in self._caching.reasons:
            return self._caching.reasons[node]
        waits = [self._plan.names[each] for each in self._plan.graph.dependencies(node) if not self._is_there(each)]
        if waits:
            return f"its key is not known before {listed(waits)} {'has' if len(waits) == 1 else 'have'} run"
        key = self._caching.key(item)
        with self._store.opened(create=False) as index:
            if key is None or index is None:
                return "nothing is stored for it yet"
            return self._compared(index, node, key)

    def _is_there(self, node: int) -> bool:
        return all(STATES[self._run.scheduler.state(item)].final for item in self._run.layout.items_of(node))

    def _compared(self, index: Index, node: int, key: Key) -> str:
        """Say how a key differs from that of the newest value of the step."""
        expired = next(iter(index.find([key.digest])), None)
        if expired is not None:
            return f"its value is older than cache_ttl, stored {_when(expired.created)}"
        before = index.last(self._plan.names[node])
        if before is None:
            return "nothing is stored for it yet"
        old, new = _made(index.words(before.recipe[:SIZE]), before.recipe), _made(self._caching.words(key), key.recipe)
        changes = list(_changes(*old, *new)) if old and new else []
        since = f"since its newest value was stored, {_when(before.created)}"
        return f"{', '.join(changes)} {since}" if changes else f"nothing is stored under its key {since}"


def _changes(old: Made, old_values: list[bytes], new: Made, new_values: list[bytes]) -> Iterator[str]:
    """Say what of a key is another than it was."""
    yield from differences(old.parts, new.parts)
    before = dict(zip(old.arguments, old_values, strict=False))
    for name, content in zip(new.arguments, new_values, strict=False):
        if name not in before:
            yield f"argument {name!r} is new"
        elif before[name] != content:
            yield f"argument {name!r} has changed"
    yield from (f"argument {name!r} is gone" for name in old.arguments if name not in new.arguments)


def _made(words: bytes | None, recipe: bytes) -> tuple[Made, list[bytes]] | None:
    return None if words is None else (Made.unpacked(words), split(recipe[SIZE:]))


def _when(seconds: float) -> str:
    age = max(0, time.time() - seconds)
    unit, size = next((each for each in _UNITS if age >= each[1]), _UNITS[-1])
    return f"{counted(int(age // size), unit)} ago"


def _more(count: int) -> str:
    return f" and {count:,} more" if count > 0 else ""
