"""Processes isolate arguments: what a step does to its own copy, no other step and no driver sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flowyml import ParallelExecutor, Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL, LARGE = 10, 200_000


@pytest.fixture(scope="module")
def processes() -> Iterator[ParallelExecutor]:
    """One worker, so that all steps share a process."""
    with ParallelExecutor(1) as executor:
        yield executor


def spoil(values: Any) -> int:
    """Change the argument, and tell what it was."""
    before = int(values[0])
    values[0] += 1
    return before


def make(kind: str, size: int) -> Any:
    return np.zeros(size) if kind == "array" else [0] * size


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("kind", ["array", "list"])
@pytest.mark.parametrize("source", ["params", "step", "context", "item"])
def test_processes_isolate_arguments(processes: ParallelExecutor, source: str, kind: str, size: int) -> None:
    """Of whatever source, small or so large that it is sent once for many steps."""
    value = make(kind, size)
    pipeline = Pipeline("isolation", context={"values": value} if source == "context" else None)
    if source == "step":
        pipeline.add_step(make, name="made", params={"kind": kind, "size": size})
    if source == "item":
        pipeline.map(spoil, [value] * 20, name="spoil")
    else:
        for i in range(20):
            params = {"values": value} if source == "params" else None
            pipeline.add_step(spoil, f"spoil_{i}", params, inputs=["made"] if source == "step" else None)
    result = pipeline.run(executor=processes, raise_on_failure=True)
    before = list(result["spoil"]) if source == "item" else [result[f"spoil_{i}"] for i in range(20)]
    assert before == [0] * 20
    assert value[0] == 0
    assert source != "step" or result["made"][0] == 0
