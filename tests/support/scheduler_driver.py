"""A scheduler driven by hand: graphs as text, claims and reports."""

from __future__ import annotations

from array import array

from flowyml._core import Batch, Graph, Scheduler

WAITING, READY, RUNNING, SUCCESS, CACHED, FAILED, TIMED_OUT, SKIPPED, UPSTREAM_FAILED, CANCELLED, GIVEN = range(11)
UNKNOWN = 2**32 - 1


def graph(text: str, counts: dict[str, int] | None = None, joins: str = "") -> Graph:
    """Read `"a>b b~c"`: b waits for all of a, each item of c for the same item of b. Nodes are in order of name."""
    edges = [word for word in text.split() if len(word) > 1]
    names = sorted(set(text) - set(" >~"))
    ids = {name: at for at, name in enumerate(names)}
    return Graph(
        names,
        array("I", [(counts or {}).get(name, 1) for name in names]),
        array("I", [ids[edge[2]] for edge in edges]),
        array("I", [ids[edge[0]] for edge in edges]),
        bytes(edge[1] == "~" for edge in edges),
        bytes(name in joins for name in names) if joins else None,
    )


def claim(scheduler: Scheduler, limit: int = 100, now: float = 0.0) -> Batch:
    batch = scheduler.claim(0, limit, now)
    assert batch is not None
    return batch


def finish(scheduler: Scheduler, batch: Batch, outcomes: bytes | None = None) -> None:
    scheduler.complete(batch, 0, 0.0, [1.0] * len(batch), outcomes)


def due(scheduler: Scheduler) -> list[int]:
    """Take all nodes whose length is due out of the queue, the first one first."""
    return list(iter(scheduler.next_expandable, None))


def run(scheduler: Scheduler) -> list[list[int]]:
    """Run everything, one batch after the other."""
    batches = []
    while (batch := scheduler.claim(0, 100, 0.0)) is not None:
        batches.append(batch.items())
        finish(scheduler, batch)
    return batches
