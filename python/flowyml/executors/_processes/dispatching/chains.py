"""Chains: steps that one worker takes together although each needs the one before it.

```
a ──▶ b ──▶ c        one batch: a, then b with a's value, then c; each value is delivered before the next step begins
                     a fails, or has no value: b and c go back to the scheduler first, as if nobody had claimed them
```

A hop through a driver costs what a message costs; within a batch it costs what any other step costs. The scheduler says
what may go together (`rust/scheduler/chains.rs`), as far as this module lets it: not where each step is asked about
before it is claimed, and only where the value needs no more than to be handed on. Threads need none of this: there a
step is called as soon as the one before it is reported, in the same crossing (`rust/python/turn.rs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.planning.templates import ASSET, PARAM, VALUE, rows_alike

if TYPE_CHECKING:
    from flowyml._extension import Batch
    from flowyml.planning.templates import Template
    from flowyml.running.run import Run

# Sources of arguments that a worker can have when the step begins.
_SIMPLE = frozenset([ASSET, PARAM, VALUE])


def allow_chains(run: Run) -> bool:
    """Let the scheduler of a run on worker processes chain steps, if there are some; tell whether it may."""
    if not run.plan.references or run.one_by_one or run.claim != run.scheduler.claim:
        return False
    templates, references = run.plan.templates, run.plan.references
    mask = bytearray(run.layout.nodes)
    for first, end in rows_alike(templates):
        # Steps that call alike read assets, or none of them does: who only waits for another step is not chained.
        if first in references and (template := templates[first]) is not None and _is_simple(template):
            mask[first:end] = b"\1" * (end - first)
    run.scheduler.chain(bytes(mask))
    return True


def _is_simple(template: Template) -> bool:
    return all(kind in _SIMPLE for kind, _ in template.sources)


def sendable(run: Run, batch: Batch) -> int:
    """Return how many steps of a batch can go to another process: up to one that needs a part of the value before."""
    if batch.heads == len(batch):
        return len(batch)
    return batch.handed_on(run.plan.references)
