"""What stands beside what in the figures: a case and its baseline, over some of its phases."""

from __future__ import annotations

from dataclasses import dataclass

PROCESS = "process"
"""The phase that the harness adds: the whole process, from its start to its end."""


@dataclass(frozen=True)
class Pair:
    """A case and the baseline beside it; the ratio is of the sums of these phases, round by round.

    Attributes:
        baseline: Name of a case, or the start of several names: the fastest of them is taken.
        phases: Phases of the case; all it has by default.
        label: What the sum is called in the table.
    """

    case: str
    baseline: str
    phases: tuple[str, ...] = ()
    label: str = "all"
