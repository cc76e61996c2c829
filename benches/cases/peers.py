"""The same no-op steps on the engines and pools that somebody could take instead; `make bench-peers`.

Those that know a graph come first, since they do the same job: who waits for whom, what became of each. The pools
beside them know calls and nothing else. How each is used stands in `peers_graphs.py` and `peers_pools.py`. A million
steps of ours stand beside as many of theirs as take some seconds; costs are told for one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cases.contract import Bar, Group
from cases.pair import Pair
from cases.peers_graphs import GRAPHS
from cases.peers_pools import POOLS
from cases.steps import MILLION, OURS, WAYS, ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figures

BACKENDS = ("thread", "process")
RAY = "process graph: ray"
# How many times faster than the best of its kind ours ought to be, by the start of their names.
FASTER = {"thread": ("thread ", 20), "process": ("process graph: ", 30)}


def _pairs() -> tuple[Pair, ...]:
    return tuple(
        Pair(ours(backend, way), baseline, phases, label)
        for backend in BACKENDS
        for way in WAYS
        for baseline in (f"{backend} graph: ", f"{backend} pool: ")
        for phases, label in ((("run",), "run"), ((), "all"))
    )


def _times(case: str, baseline: str) -> Callable[[Figures], float | None]:
    """How many times as long our run takes as that of the fastest baseline of that name."""
    return lambda figures: figures.ratio("peers", Pair(case, baseline, ("run",)), MILLION)


def _bars() -> tuple[Bar, ...]:
    best = tuple(
        Bar(
            f"1M steps, run, {backend}, {way}, compared with the best {kind.strip(' :')}",
            1 / times,
            _times(case, kind),
            "x",
        )
        for backend, (kind, times) in FASTER.items()
        for way in WAYS
        for case in (ours(backend, way),)
    )
    ray = (
        Bar(f"1M steps, run, process, {way}, compared with ray", 1 / 500, _times(ours("process", way), RAY), "x")
        for way in WAYS
    )
    return (*best, *ray)


GROUP = Group(
    title="A step that does nothing, compared with others",
    unit=("us per step", 1e6),
    cases={**{name: case for name, case in OURS.items() if "local" not in name}, **GRAPHS, **POOLS},
    sizes={MILLION: 3},
    quick={200: 1},
    pairs=_pairs(),
    bars=_bars(),
)
