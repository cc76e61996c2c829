"""The promises hold with 1, 2 and 8 workers, for steps that travel by the thousand and for steps that travel alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from deeds import FATAL, deed_of, work
from run_notes import executions

from flowyml import ParallelExecutor, Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=[1, 2, 8])
def workers(request: pytest.FixtureRequest) -> Iterator[ParallelExecutor]:
    with ParallelExecutor(request.param) as executor:
        yield executor


@pytest.mark.parametrize(("size", "pause"), [(4_200, 0.0), (84, 0.002)], ids=["by the thousand", "alone"])
@pytest.mark.usefixtures("capfd")
def test_every_fault_costs_its_step_alone(workers: ParallelExecutor, tmp_path: Path, size: int, pause: float) -> None:
    """Exactly the guilty fail, by their own error, after exactly their attempts; all else runs exactly once."""
    params = {"folder": str(tmp_path), "size": size, "pause": pause}
    result = Pipeline("p").map(work, range(size), params=params, retry=1).run(executor=workers)
    guilty = {i: FATAL[deed][1] for i in range(size) if (deed := deed_of(i, size)) in FATAL}
    items = result.step_results["work"].items
    failed = {i: type(each.exception).__name__ for i, each in enumerate(items) if not each.success}
    assert failed == guilty
    assert {items[i].attempts for i in range(size)} == {1, 2}
    assert all(items[i].attempts == 2 for i in guilty)
    assert all(items[i].output == i for i in range(size) if i not in guilty)
    begun = Counter(executions(tmp_path))
    assert begun == {i: 2 if i in guilty else 1 for i in range(size) if i % 50 == 0 or deed_of(i, size) is not None}
