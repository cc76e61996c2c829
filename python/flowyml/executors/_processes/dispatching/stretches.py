"""Batches cut into stretches of steps that call alike: what is written down once for all of a stretch.

```
items of one mapped step      nodes (n,),          first index 40    steps n[40], n[41], ...
steps that follow each other  nodes range(7, 90),  no index
steps of a chain              nodes [3, 17, 31],   no index
```

The module knows what steps are called with, not what a message looks like.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from flowyml._containers import NamedTuple
from flowyml.planning.templates import last_alike, rows_alike

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowyml._extension import Batch
    from flowyml.planning.templates import Template
    from flowyml.running.run import Run


class Stretch(NamedTuple):
    """Steps of a batch that stand one after the other and call alike.

    Attributes:
        template: How they call their function.
        nodes: Their steps; one for the items of a mapped step.
        first: Index of the first item of a mapped step.
        length: How many calls they are.
        position: Where the first of them stands in the batch.
    """

    template: Template
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

    def part(self, start: int, end: int) -> Stretch:
        """Return the calls from `start` to before `end`."""
        if self.first is None:
            return Stretch(self.template, self.nodes[start:end], None, end - start, self.position + start)
        return Stretch(self.template, self.nodes, self.first + start, end - start, self.position + start)


def stretches(run: Run, batch: Batch, count: int) -> Iterator[Stretch]:
    """Cut the first steps of a batch into stretches."""
    chained = batch.heads < len(batch)
    if chained and not run.layout.grows and isinstance(run.node_of, range):
        found = _of_chains(run, batch)
    else:
        found = _merged(_of_runs(run, batch)) if chained else _of_runs(run, batch)
    for each in found:
        if each.position >= count:
            return
        stretch = each if each.position + each.length <= count else each.part(0, count - each.position)
        yield from _parted(run, stretch) if run.fallen else (stretch,)


def items_of(run: Run, stretch: Stretch) -> Sequence[int]:
    """Return the items of a stretch."""
    firsts = run.layout.firsts
    if stretch.first is None:
        return [firsts[node] for node in stretch.nodes]
    first = firsts[stretch.node] + stretch.first
    return range(first, first + stretch.length)


def _of_runs(run: Run, batch: Batch) -> Iterator[Stretch]:
    templates: Sequence[Any] = run.plan.templates
    position = 0
    for _, count, node, index in batch.runs:
        if index is not None:
            first = None if templates[node].over is None else index  # of a step that came during the run
            yield Stretch(templates[node], (node,), first, count, position)
            position += count
            continue
        first, end = node, node + count
        while first < end:
            template = templates[first]
            last = last_alike(templates, first, end)
            # A mapped step of one item has an index, too.
            yield Stretch(template, range(first, last), None if template.over is None else 0, last - first, position)
            position += last - first
            first = last


def _of_chains(run: Run, batch: Batch) -> Iterator[Stretch]:
    """Cut a batch whose steps may stand anywhere in the plan, where none is mapped: each item has its step's number."""
    nodes = batch.items()
    templates = list(map(run.plan.templates.__getitem__, nodes))
    for first, end in rows_alike(templates):
        template: Any = templates[first]
        yield Stretch(template, nodes[first:end], None, end - first, first)


def _merged(found: Iterator[Stretch]) -> Iterator[Stretch]:
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


def _parted(run: Run, stretch: Stretch) -> Iterator[Stretch]:
    """Part the steps whose fallback is called from the others."""
    items, falls_back = items_of(run, stretch), run.calls.falls_back
    for falls, part in itertools.groupby(range(stretch.length), lambda k: falls_back(items[k])):
        k, *more = part
        each = stretch.part(k, k + 1 + len(more))
        yield each._replace(template=run.calls.fallback_of(each.node)) if falls else each
