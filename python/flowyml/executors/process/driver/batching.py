"""How many steps a batch has, and how its steps are grouped.

*Batch size.* A batch fills a target time with steps of the measured mean duration. It is at most a share of the ready
steps, so that the last ones spread over all workers, and grows at most sixteenfold at a time, since later steps may
differ; steps of a batch that is too large are stolen. A share is not cut below what a message costs: the last of 20,000
steps of 20 us went one by one, with two wake-ups each that took longer than the step. If steps wait for others that
minimum is lower, because few steps are ready at a time. Steps of a millisecond and more are sent one by one then.

*Chains.* A worker can execute dependent steps in one batch: each value is delivered before the next step
begins. If one fails, its dependents return to the scheduler first, as if they had not been claimed. The scheduler
chooses the chains (`rust/scheduler/chains.rs`); here are excluded those whose steps need a decision before each claim,
or more of a value than to pass it on. Threads need no chains: see `rust/python/turn.rs`.

*Groups.* Steps that are called alike are encoded together:

```
items of one mapped step      nodes (n,),          first index 40    steps n[40], n[41], ...
consecutive steps             nodes range(7, 90),  no index
steps of a chain              nodes [3, 17, 31],   no index
```
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


# A worker's share is divided by this, so that workers end together.
SHARES, INDEPENDENT_SHARES = 4, 2
MAX_GROWTH = 16
# Seconds of work that are worth a message, if no step waits for another and if some do.
INDEPENDENT_MESSAGE_SECONDS, MESSAGE_SECONDS = 0.0005, 0.0001
# Weight of the newest batch in the running mean of the step time.
NEWEST_WEIGHT = 0.3
LONG_STEP_SECONDS = 0.001


class BatchSizer:
    """Chooses batch sizes from the measured duration of a run's steps.

    Args:
        target: Seconds of work that a batch should hold.
        most: The maximum number of steps.
        independent: No step waits for another.

    >>> sizer = BatchSizer(target=0.001, most=1000)
    >>> sizer.limit(ready=10_000, workers=2)
    1
    >>> for _ in range(3):
    ...     sizer.observe(count=1, seconds=1e-6)
    >>> sizer.limit(ready=10_000, workers=2), sizer.limit(ready=12, workers=2)
    (1000, 12)
    """

    __slots__ = ("_grown", "_independent", "_least", "_mean", "_most", "_shares", "_target", "_worth")

    def __init__(self, target: float, most: int, *, independent: bool = False) -> None:
        self._independent = independent
        self._shares, self._worth = (
            (INDEPENDENT_SHARES, INDEPENDENT_MESSAGE_SECONDS) if independent else (SHARES, MESSAGE_SECONDS)
        )
        self._target = target
        self._most = most
        self._mean: float | None = None
        self._grown = self._least = 1

    @property
    def grown(self) -> int:
        """The steps that fill a batch, however many are ready: the maximum length of a chain."""
        return min(self._grown, self._most)

    def limit(self, ready: int, workers: int) -> int:
        """Return how many of `ready` steps to claim."""
        share = max(ready // (self._shares * workers), self._least)
        return 1 if self.is_long and not self._independent else max(1, min(self._grown, share, ready, self._most))

    @property
    def is_long(self) -> bool:
        """True if steps take a millisecond or more, or none has been measured."""
        return self._mean is None or self._mean >= LONG_STEP_SECONDS

    def end_soon(self, count: int) -> bool:
        """Return True if so many steps take less time than the message that brings them."""
        return self._mean is not None and count * self._mean <= MESSAGE_SECONDS

    def seconds(self, count: int) -> float:
        """Return how long so many steps are expected to take; 0.0 if none has been measured."""
        return 0.0 if self._mean is None else count * self._mean

    def observe(self, count: int, seconds: float) -> None:
        """Record how long a batch took."""
        time = seconds / count
        self._mean = time if self._mean is None else self._mean + NEWEST_WEIGHT * (time - self._mean)
        self._grown = max(1, min(self._fitting(self._target), MAX_GROWTH * self._grown))
        self._least = self._fitting(self._worth)

    def _fitting(self, seconds: float) -> int:
        return max(1, int(seconds / self._mean)) if self._mean else self._most


# Sources of arguments that a worker can have when the step begins.
_SIMPLE = frozenset([ASSET, PARAM, VALUE])


def allow_chains(run: Run) -> bool:
    """Let the scheduler chain steps of this run if possible; return whether it may."""
    if not run.plan.references or run.single_item_batches or run.claim != run.scheduler.claim:
        return False
    templates, references = run.plan.templates, run.plan.references
    mask = bytearray(run.item_index.nodes)
    for first, end in rows_alike(templates):
        # Steps that are called alike read assets, or none does; a step that only waits for another is not chained.
        if first in references and (template := templates[first]) is not None and _is_simple(template):
            mask[first:end] = b"\1" * (end - first)
    run.scheduler.chain(bytes(mask))
    return True


def _is_simple(template: CallTemplate) -> bool:
    return all(kind in _SIMPLE for kind, _ in template.sources)


def sendable(run: Run, batch: Batch) -> int:
    """Return how many steps of a batch can be sent: up to one that needs a single output of the step before."""
    if batch.heads == len(batch):
        return len(batch)
    return batch.handed_on(run.plan.references)


class CallGroup(NamedTuple):
    """Consecutive steps of a batch that are called alike."""

    template: CallTemplate  # how they call their function
    nodes: Sequence[int]  # their steps; one for the items of a mapped step
    first: int | None  # index of the first item of a mapped step
    length: int  # number of calls
    position: int  # position of the first of them in the batch

    @property
    def node(self) -> int:
        """The first step."""
        return self.nodes[0]

    def node_at(self, k: int) -> int:
        """Return the step of call `k`."""
        return self.nodes[0] if self.first is not None else self.nodes[k]

    def part(self, start: int, end: int) -> CallGroup:
        """Return the calls from `start` to before `end`."""
        if self.first is None:
            return CallGroup(self.template, self.nodes[start:end], None, end - start, self.position + start)
        return CallGroup(self.template, self.nodes, self.first + start, end - start, self.position + start)


def call_groups(run: Run, batch: Batch, count: int) -> Iterator[CallGroup]:
    """Split the first `count` steps of a batch into groups."""
    chained = batch.heads < len(batch)
    if chained and not run.item_index.grows and isinstance(run.node_of, range):
        found = _of_chains(run, batch)
    else:
        found = _merged(_of_runs(run, batch)) if chained else _of_runs(run, batch)
    for each in found:
        if each.position >= count:
            return
        group = each if each.position + each.length <= count else each.part(0, count - each.position)
        yield from _parted(run, group) if run.fallback_errors else (group,)


def items_of(run: Run, group: CallGroup) -> Sequence[int]:
    """Return the items of a group."""
    firsts = run.item_index.firsts
    if group.first is None:
        return [firsts[node] for node in group.nodes]
    first = firsts[group.node] + group.first
    return range(first, first + group.length)


def _of_runs(run: Run, batch: Batch) -> Iterator[CallGroup]:
    templates: Sequence[Any] = run.plan.templates
    position = 0
    for _, count, node, index in batch.runs:
        if index is not None:
            first = (
                None if templates[node].map_input is None else index
            )  # no index for steps that were added during the run
            yield CallGroup(templates[node], (node,), first, count, position)
            position += count
            continue
        first, end = node, node + count
        while first < end:
            template = templates[first]
            last = last_alike(templates, first, end)
            # The item of a mapped step of length 1 has an index, too.
            yield CallGroup(
                template, range(first, last), None if template.map_input is None else 0, last - first, position
            )
            position += last - first
            first = last


def _of_chains(run: Run, batch: Batch) -> Iterator[CallGroup]:
    """Group the steps of chains without mapped steps, where the item of a step has the step's id."""
    nodes = batch.items()
    templates = list(map(run.plan.templates.__getitem__, nodes))
    for first, end in rows_alike(templates):
        template: Any = templates[first]
        yield CallGroup(template, nodes[first:end], None, end - first, first)


def _merged(found: Iterator[CallGroup]) -> Iterator[CallGroup]:
    first = next(found)
    nodes = [*first.nodes]
    for each in found:
        if each.template is first.template and each.first is None and first.first is None:
            nodes += each.nodes
            continue
        yield first if first.first is not None else first._replace(nodes=nodes, length=len(nodes))
        first, nodes = each, [*each.nodes]
    yield first if first.first is not None else first._replace(nodes=nodes, length=len(nodes))


def _parted(run: Run, group: CallGroup) -> Iterator[CallGroup]:
    """Separate the steps whose fallback is called from the others."""
    items, falls_back = items_of(run, group), run.calls.falls_back
    for falls, part in itertools.groupby(range(group.length), lambda k: falls_back(items[k])):
        k, *more = part
        each = group.part(k, k + 1 + len(more))
        yield each._replace(template=run.calls.fallback_of(each.node)) if falls else each
