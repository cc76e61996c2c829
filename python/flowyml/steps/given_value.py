"""The function of a step whose value the caller of `run` gives.

`run(given={"load": rows})` plans `load` as a step of this function that waits for nothing, with the value as its
parameter. The run ends it in the state `given` before anything else begins, so the function is never called.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def given_value(value: T) -> T:
    """Return the value."""
    return value
