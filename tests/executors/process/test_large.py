"""Large values and many of them: more than fits a buffer, a pipe, 32 bits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from worker_pools import gives_back

from flowyml import ParallelExecutor, Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.alone  # gigabytes

MIB = 1 << 20
WANTED = bool(os.environ.get("FLOWYML_SLOW"))


@pytest.fixture(scope="module")
def two() -> Iterator[ParallelExecutor]:
    """Two warm workers."""
    with ParallelExecutor(2) as executor:
        yield executor


def resident() -> int:
    """Return the memory of this process that is in use, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_an_array_of_200_megabytes_goes_and_comes(two: ParallelExecutor) -> None:
    """As argument, as result and on to another worker; a step may change its own."""
    array = np.arange(25_000_000, dtype=np.float64)

    def double(array: Any) -> Any:
        array *= 2
        return array

    pipeline = Pipeline("large").add_step(double, params={"array": array})
    pipeline.add_step(lambda double: float(double.sum()), name="total")
    pipeline.add_step(lambda double: float(double[-1]), name="last")
    result = pipeline.run(executor=two)
    assert result["total"] == 2 * array.sum() == 25_000_000.0 * 24_999_999.0
    assert result["last"] == 2 * array[-1]
    np.testing.assert_array_equal(result["double"], 2 * array)


@gives_back
def test_large_values_do_not_stay_in_idle_workers(two: ParallelExecutor) -> None:
    def take(data: bytes) -> bytes:
        return data

    def look(_: int) -> int:
        return resident()

    before = Pipeline("look").map(look, range(50), name="look").run(executor=two)["look"]
    Pipeline("take").map(take, [bytes(50 * MIB)] * 4, name="take").run(executor=two)
    after = Pipeline("look").map(look, range(50), name="look").run(executor=two)["look"]
    assert max(after) < max(before) + 20 * MIB


def test_many_large_results_come_while_large_arguments_go(two: ParallelExecutor) -> None:
    """Neither side waits for the other to read: both sockets are full at once."""
    pipeline = Pipeline("both").map(lambda data: data + b"!", [bytes([k]) * (8 * MIB) for k in range(12)], name="m")
    values = pipeline.run(executor=two)["m"]
    assert [(value[:1], len(value)) for value in values] == [(bytes([k]), 8 * MIB + 1) for k in range(12)]


@pytest.mark.skipif(not WANTED, reason="takes 10 GB of memory and half a minute; FLOWYML_SLOW=1 asks for it")
@pytest.mark.timeout(300)
def test_a_result_of_more_than_two_gigabytes(two: ParallelExecutor) -> None:
    """A step that hands it on, too: it is an argument then."""
    size = int(2.2 * 2**30)
    pipeline = Pipeline("huge").add_step(lambda: b"x" * size, name="huge").add_step(len, inputs={"obj": "huge"})
    result = pipeline.run(executor=two)
    assert result["len"] == size
    assert len(result["huge"]) == size
