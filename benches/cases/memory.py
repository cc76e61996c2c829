"""A million steps beside the user's own objects: names, values of parameters and results, held in three lists.

What counts is the whole process at its peak, the interpreter and the modules of flowyml included; and for processes the
workers, the fork server and the supervisor, though what these take is the same for ten steps and
for a million: some 30 MB with two workers. The user's own objects are those that there are in the end: a step that
returns its argument returns an object that the user has already; from another process it comes as a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cases.contract import Bar, Case, Group
from cases.growth import above
from cases.steps import BACKENDS, MILLION, OURS, ours
from cases.steps_by_hand import noop

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figures

OWN = "names, parameters and results in lists"
ANEW = "the same, with results of another process"
QUICK = 1_000


class OwnObjects(Case):
    """What the user holds who adds a million steps and gets a million results."""

    def result(self, i: int) -> int:
        """Return the result of a step."""
        return noop(i)

    def run(self) -> None:
        self.names: list[str] = []
        self.parameters: list[int] = []
        self.results: list[int] = []
        for i in range(self.size):
            self.names.append(f"step_{i}")
            self.parameters.append(i)
            self.results.append(self.result(i))

    def check(self) -> None:
        assert self.results == self.parameters


class OwnObjectsAnew(OwnObjects):
    """The same where each result is an object of its own: equal to the argument, and not the argument itself."""

    def result(self, i: int) -> int:
        return -noop(-i)


def _above(backend: str) -> Callable[[Figures], float | None]:
    return above("memory", ours(backend, "add_step"), ANEW if backend == "process" else OWN, MILLION)


ADDED = [ours(backend, "add_step") for backend in BACKENDS]
GROUP = Group(
    title="Memory of a million steps",
    unit=("us per step", 1e6),
    cases={OWN: OwnObjects, ANEW: OwnObjectsAnew, **{name: OURS[name] for name in ADDED}},
    sizes={MILLION: 1},
    quick={QUICK: 1},
    bars=tuple(
        Bar(f"{ours(backend, 'add_step')}, 1M, above the user's own objects", 200, _above(backend), "B per step")
        for backend in BACKENDS
    ),
)
