"""What a run remembers, put together: the journal of an earlier attempt first, then the cache."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flowyml.reuse.recall import Recall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowyml.reuse.attempts import Attempts
    from flowyml.reuse.recall import Memory
    from flowyml.running.run import Run
    from flowyml.store.cache import CacheStore

# What is in the cache is taken over before workers start; more of it than takes this long, while they work.
_PATIENCE = 0.25


def attach(
    run: Run,
    cache: CacheStore | None,
    context: Mapping[str, Any],
    attempts: Attempts | None,
    *,
    run_id: str | None,
    resume: str | bool | None,
) -> None:
    """Let a run ask its memories, and tell them what has run; see `recall.py`.

    Raises:
        ValueError: If `resume` names a run that is not there.
        StoreError: If that run cannot be continued.
    """
    memories: list[Memory] = []
    caching = None
    attempt = None if attempts is None else attempts.open(run_id, resume=resume)
    if attempt is not None and attempts is not None:
        from flowyml.reuse.resuming import Resuming

        memories.append(Resuming(run, attempt, attempts))
    if cache is not None and run.plan.has_caching:
        from flowyml.reuse.caching import Caching

        caching = Caching(run, cache, context)
        memories.append(caching)
    if memories:
        continues = attempt is not None and attempt.finished.count
        recall = Recall(run, memories, patience=math.inf if continues else _PATIENCE)
        if caching is not None:
            recall.contents, recall.read = caching.contents, caching.read
        run.remember(recall)
