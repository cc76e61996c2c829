"""Plans of many steps that each read a glob: what one step of them costs in a large pipeline and in a small one.

A tenth of the steps reads ten of the others, by a glob or by their names; the latter is the baseline.
"""

from __future__ import annotations

from cases.contract import Bar, Case, Group
from cases.growth import growth
from cases.pair import Pair
from flowyml import Pipeline

SMALL, LARGE = 1_000, 100_000
GLOB, NAMES = "one glob for ten steps", "ten names in a list"


class _Planned(Case):
    """A tenth of the steps reads the others."""

    phases = ("build",)

    def start(self) -> None:
        self.pipeline = Pipeline("globs")
        groups = range(self.size // 11)
        for number in groups:
            for place in range(10):
                self.pipeline.add_step(int, name=f"part_{number}_{place}")
        for number in groups:
            self.pipeline.add_step(len, name=f"group_{number}", inputs={"obj": self.wanted(number)})

    def wanted(self, number: int) -> str | list[str]:
        raise NotImplementedError

    def build(self) -> None:
        self.pipeline.build()

    def check(self) -> None:
        assert len(self.pipeline.dag.edges["group_7"]) == 10


class Globs(_Planned):
    """By a glob."""

    def wanted(self, number: int) -> str:
        return f"part_{number}_*"


class Lists(_Planned):
    """By name."""

    def wanted(self, number: int) -> list[str]:
        return [f"part_{number}_{place}" for place in range(10)]


GROUP = Group(
    title="Steps that read a glob each",
    unit=("us per step", 1e6),
    cases={NAMES: Lists, GLOB: Globs},
    sizes={SMALL: 5, LARGE: 3},
    quick={SMALL: 1},
    pairs=(Pair(GLOB, NAMES, ("build",), "build"),),
    bars=(Bar("a glob for ten steps, 100,000 compared with 1,000", 2, growth("globs", GLOB, SMALL, LARGE), "x"),),
)
