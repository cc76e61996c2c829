"""`run(debug=True)` names the step that has changed what it was given, where others see the change."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from flowyml import Pipeline

if TYPE_CHECKING:
    import pytest


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    return [message.partition(":")[0] for message in messages if " has changed " in message]


def grow(rows: list[int]) -> int:
    rows.append(4)
    return len(rows)


async def grow_soon(rows: list[int]) -> int:
    return grow(rows)


def test_a_step_that_changes_its_argument_is_named(executor: Any, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline("p").add_step(lambda: [1, 2, 3], name="rows").add_step(grow).add_step(len, inputs=["rows"])
    pipeline.add_step(grow_soon, after=["grow", "len"]).add_step(lambda rows, n: (rows, n), "reads", {"n": [7]})
    result = pipeline.run(executor=executor, debug=True)
    if getattr(executor, "backend", "") == "process":
        assert (result["grow"], result["grow_soon"], told(caplog)) == (4, 4, [])
    else:
        changed = [f"step '{name}' has changed what it was given as 'rows'" for name in ("grow", "grow_soon")]
        assert [each for each in told(caplog) if "'reads'" not in each and "'len'" not in each] == changed


def test_items_are_looked_at_too_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def halve(row: Any, shared: dict[str, int]) -> Any:
        shared["calls"] = shared.get("calls", 0) + 1
        row /= 2
        return row.sum()

    rows = [np.ones(3), np.ones(3)]
    Pipeline("p").map(halve, rows, name="half", params={"shared": {}}).run(debug=True)
    assert told(caplog) == ["step 'half[0]' has changed what it was given as 'row', 'shared'"]


def test_nothing_is_told_without_debug_or_of_what_cannot_be_compared(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = Pipeline("p").add_step(lambda: [1], name="rows").add_step(grow)
    pipeline.run()
    pipeline.add_step(lambda lock: lock.acquire(), "lock", {"lock": threading.Lock()}).run(debug=True)
    assert told(caplog) == ["step 'grow' has changed what it was given as 'rows'"]
