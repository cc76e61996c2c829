"""A million steps beside the user's own objects: names, values of parameters and results, held in three lists."""

from __future__ import annotations

from cases.contract import Bar, Case, Group
from cases.growth import above
from cases.steps import BACKENDS, MILLION, OURS, ours
from cases.steps_by_hand import noop

OWN = "names, parameters and results in lists"
QUICK = 1_000


class OwnObjects(Case):
    """What the user holds who adds a million steps and gets a million results."""

    def run(self) -> None:
        self.names: list[str] = []
        self.parameters: list[int] = []
        self.results: list[int] = []
        for i in range(self.size):
            self.names.append(f"step_{i}")
            self.parameters.append(i)
            self.results.append(noop(i))

    def check(self) -> None:
        assert self.results == self.parameters


ADDED = [ours(backend, "add_step") for backend in BACKENDS]
GROUP = Group(
    title="Memory of a million steps",
    unit=("us a step", 1e6),
    cases={OWN: OwnObjects, **{name: OURS[name] for name in ADDED}},
    sizes={MILLION: 1},
    quick={QUICK: 1},
    bars=tuple(
        Bar(f"{name}, 1M, above the user's own objects", 200, above("memory", name, OWN, MILLION), "B a step")
        for name in ADDED
    ),
)
