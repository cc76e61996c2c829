"""The states of a step, in the order of the core's codes.

```
waiting ──▶ ready ──▶ running ──▶ success | cached | failed | timed_out | skipped
   ├──────────┴──▶ skipped | upstream_failed | cancelled
   └──▶ given (`run(given=)`: the step does not run)
```
"""

from __future__ import annotations

from enum import StrEnum


class StepState(StrEnum):
    """State of a step or of an item of a mapped step; compares equal to its name.

    >>> StepState.SUCCESS == "success", StepState.FAILED.final, StepState.READY.final
    (True, True, False)
    """

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    SUCCESS = "success"
    CACHED = "cached"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    CANCELLED = "cancelled"
    GIVEN = "given"

    @property
    def code(self) -> int:
        """The code of the state in the core."""
        return CODES[self]

    @property
    def final(self) -> bool:
        """True if a step in this state is finished."""
        return self.code >= StepState.SUCCESS.code

    @property
    def has_value(self) -> bool:
        """True if a step in this state has a value."""
        return self in {StepState.SUCCESS, StepState.CACHED, StepState.GIVEN}


STATES = tuple(StepState)
CODES = {state: code for code, state in enumerate(STATES)}

RUNNING = CODES[StepState.RUNNING]
SUCCESS = CODES[StepState.SUCCESS]
CACHED = CODES[StepState.CACHED]
FAILED = CODES[StepState.FAILED]
TIMED_OUT = CODES[StepState.TIMED_OUT]
FAILURES = frozenset((FAILED, TIMED_OUT))
SKIPPED = CODES[StepState.SKIPPED]
GIVEN = CODES[StepState.GIVEN]
