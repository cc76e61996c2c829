"""Batches cut into stretches of steps that call alike: what is written down once for all of a stretch.

```
items of one mapped step      nodes (n,),          first index 40    steps n[40], n[41], ...
steps that follow each other  nodes range(7, 90),  no index
steps of a chain              nodes [3, 17, 31],   no index
```

The module knows what steps are called with, not what a message looks like.

How many steps one worker takes at once.

One step a message is right for steps of a second and hopeless for steps of a microsecond, so the size follows
the measured time of a step: as many as fill the target time, never more than a fair share of what is ready (so that
the last ones spread over all workers), and growing at most sixteenfold at a time, since the first steps may not be like
the rest: those of a batch that was cut too large are taken back. What was measured first is the mean to begin with.

A share is not cut smaller than what a message is worth: the last of 20,000 steps of 20 us went one by one, each with
two wake-ups that took longer than the step. Where steps wait for others that is less, what the wake-ups themselves
take: few are ready at one time, and each may let many others begin. Steps of a millisecond and more go one by one
there; a chain of them goes in one piece, as far as it fills the target time, since each of its steps waits only for the
one before it.

Chains: steps that one worker takes together although each needs the one before it.

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

import itertools
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.planning.call_template import ASSET, PARAM, VALUE, last_alike, rows_alike

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowyml._extension import Batch
    from flowyml.planning.call_template import CallTemplate
    from flowyml.runtime.run import Run


# A fair share is this part of what each worker would get: small enough that workers end together.
_SHARES, _SHARES_OF_LOOSE = 4, 2
_GROWTH = 16
# Seconds of work that are worth a message, where no step waits for another, and where some do.
_LEAST_OF_LOOSE, _LEAST = 0.0005, 0.0001
# Weight of the newest batch in the running mean of the step time.
_NEWEST = 0.3
_LONG = 0.001


class BatchSizer:
    """Follows the measured step time of one run.

    Args:
        target: Seconds of work that one batch should hold.
        most: The most steps of a batch.
        invalid_edges: No step waits for another.

    >>> sizer = BatchSizer(target=0.001, most=1000)
    >>> sizer.limit(ready=10_000, workers=2)
    1
    >>> for _ in range(3):
    ...     sizer.observe(count=1, seconds=1e-6)
    >>> sizer.limit(ready=10_000, workers=2), sizer.limit(ready=12, workers=2)
    (1000, 12)
    """

    __slots__ = ("_grown", "_least", "_loose", "_mean", "_most", "_shares", "_target", "_worth")

    def __init__(self, target: float, most: int, *, loose: bool = False) -> None:
        self._loose = loose
        self._shares, self._worth = (_SHARES_OF_LOOSE, _LEAST_OF_LOOSE) if loose else (_SHARES, _LEAST)
        self._target = target
        self._most = most
        self._mean: float | None = None
        self._grown = self._least = 1

    @property
    def grown(self) -> int:
        """How many steps fill a batch, whatever waits beside them: as many a chain may have."""
        return min(self._grown, self._most)

    def limit(self, ready: int, workers: int) -> int:
        """Return how many steps to take when `ready` are ready."""
        share = max(ready // (self._shares * workers), self._least)
        return 1 if self.is_long and not self._loose else max(1, min(self._grown, share, ready, self._most))

    @property
    def is_long(self) -> bool:
        """Whether steps take a millisecond or more, or nobody knows yet."""
        return self._mean is None or self._mean >= _LONG

    def are_brief(self, count: int) -> bool:
        """Tell whether so many steps take no longer together than the message that brings them."""
        return self._mean is not None and count * self._mean <= _LEAST

    def seconds(self, count: int) -> float:
        """Return how long so many steps take, as far as is known."""
        return 0.0 if self._mean is None else count * self._mean

    def observe(self, count: int, seconds: float) -> None:
        """Take in how long a batch of `count` steps took."""
        time = seconds / count
        self._mean = time if self._mean is None else self._mean + _NEWEST * (time - self._mean)
        self._grown = max(1, min(self._fitting(self._target), _GROWTH * self._grown))
        self._least = self._fitting(self._worth)

    def _fitting(self, seconds: float) -> int:
        return max(1, int(seconds / self._mean)) if self._mean else self._most


# Sources of arguments that a worker can have when the step begins.
_SIMPLE = frozenset([ASSET, PARAM, VALUE])


def allow_chains(run: Run) -> bool:
    """Let the scheduler of a run on worker processes chain steps, if there are some; tell whether it may."""
    if not run.plan.references or run.single_item_batches or run.claim != run.scheduler.claim:
        return False
    templates, references = run.plan.templates, run.plan.references
    mask = bytearray(run.item_index.nodes)
    for first, end in rows_alike(templates):
        # Steps that call alike read assets, or none of them does: who only waits for another step is not chained.
        if first in references and (template := templates[first]) is not None and _is_simple(template):
            mask[first:end] = b"\1" * (end - first)
    run.scheduler.chain(bytes(mask))
    return True


def _is_simple(template: CallTemplate) -> bool:
    return all(kind in _SIMPLE for kind, _ in template.sources)


def sendable(run: Run, batch: Batch) -> int:
    """Return how many steps of a batch can go to another process: up to one that needs a part of the value before."""
    if batch.heads == len(batch):
        return len(batch)
    return batch.handed_on(run.plan.references)


class CallGroup(NamedTuple):
    """Steps of a batch that stand one after the other and call alike.

    Attributes:
        template: How they call their function.
        nodes: Their steps; one for the items of a mapped step.
        first: Index of the first item of a mapped step.
        length: How many calls they are.
        position: Where the first of them stands in the batch.
    """

    template: CallTemplate
    nodes: Sequence[int]
    first: int | None
    length: int
    position: int

    @property
    def node(self) -> int:
        """The first step."""
        return self.nodes[0]

    def node_at(self, k: int) -> int:
        """Return the step of call k."""
        return self.nodes[0] if self.first is not None else self.nodes[k]

    def part(self, start: int, end: int) -> CallGroup:
        """Return the calls from `start` to before `end`."""
        if self.first is None:
            return CallGroup(self.template, self.nodes[start:end], None, end - start, self.position + start)
        return CallGroup(self.template, self.nodes, self.first + start, end - start, self.position + start)


def stretches(run: Run, batch: Batch, count: int) -> Iterator[CallGroup]:
    """Cut the first steps of a batch into stretches."""
    chained = batch.heads < len(batch)
    if chained and not run.item_index.grows and isinstance(run.node_of, range):
        found = _of_chains(run, batch)
    else:
        found = _merged(_of_runs(run, batch)) if chained else _of_runs(run, batch)
    for each in found:
        if each.position >= count:
            return
        stretch = each if each.position + each.length <= count else each.part(0, count - each.position)
        yield from _parted(run, stretch) if run.fallback_errors else (stretch,)


def items_of(run: Run, stretch: CallGroup) -> Sequence[int]:
    """Return the items of a stretch."""
    firsts = run.item_index.firsts
    if stretch.first is None:
        return [firsts[node] for node in stretch.nodes]
    first = firsts[stretch.node] + stretch.first
    return range(first, first + stretch.length)


def _of_runs(run: Run, batch: Batch) -> Iterator[CallGroup]:
    templates: Sequence[Any] = run.plan.templates
    position = 0
    for _, count, node, index in batch.runs:
        if index is not None:
            first = None if templates[node].map_input is None else index  # of a step that came during the run
            yield CallGroup(templates[node], (node,), first, count, position)
            position += count
            continue
        first, end = node, node + count
        while first < end:
            template = templates[first]
            last = last_alike(templates, first, end)
            # A mapped step of one item has an index, too.
            yield CallGroup(
                template, range(first, last), None if template.map_input is None else 0, last - first, position
            )
            position += last - first
            first = last


def _of_chains(run: Run, batch: Batch) -> Iterator[CallGroup]:
    """Cut a batch whose steps may stand anywhere in the plan, where none is mapped: each item has its step's number."""
    nodes = batch.items()
    templates = list(map(run.plan.templates.__getitem__, nodes))
    for first, end in rows_alike(templates):
        template: Any = templates[first]
        yield CallGroup(template, nodes[first:end], None, end - first, first)


def _merged(found: Iterator[CallGroup]) -> Iterator[CallGroup]:
    """Put together steps of a chain, which may stand anywhere in the plan."""
    first = next(found)
    nodes = [*first.nodes]
    for each in found:
        if each.template is first.template and each.first is None and first.first is None:
            nodes += each.nodes
            continue
        yield first if first.first is not None else first._replace(nodes=nodes, length=len(nodes))
        first, nodes = each, [*each.nodes]
    yield first if first.first is not None else first._replace(nodes=nodes, length=len(nodes))


def _parted(run: Run, stretch: CallGroup) -> Iterator[CallGroup]:
    """Part the steps whose fallback is called from the others."""
    items, falls_back = items_of(run, stretch), run.calls.falls_back
    for falls, part in itertools.groupby(range(stretch.length), lambda k: falls_back(items[k])):
        k, *more = part
        each = stretch.part(k, k + 1 + len(more))
        yield each._replace(template=run.calls.fallback_of(each.node)) if falls else each
