"""Steps that were brief until now are sent together; where the next ones are not, nobody waits for them in vain."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flowyml import ParallelExecutor, Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 20.0


@pytest.fixture(scope="module")
def two() -> Iterator[ParallelExecutor]:
    """Two workers that are there already."""
    with ParallelExecutor(2) as executor:
        Pipeline("warm").map(abs, range(100)).run(executor=executor)
        yield executor


def brief(folder: str) -> str:
    return folder


def say(folder: str, name: str) -> str:
    Path(folder, name).touch()
    return folder


def say_and_hear(folder: str, name: str, other: str) -> bool:
    """Tell whether another step says something while this one lasts."""
    say(folder, name)
    end = time.monotonic() + _MOST
    while not Path(folder, other).exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


def behind_a_brief_one(folder: Path) -> Pipeline:
    return Pipeline("brief").add_step(brief, "first", {"folder": str(folder)})


def test_long_steps_behind_a_brief_one_run_side_by_side(two: ParallelExecutor, folder: Path) -> None:
    pipeline = behind_a_brief_one(folder)
    for name, other in (("x", "y"), ("y", "x")):
        pipeline.add_step(say_and_hear, name, {"name": name, "other": other}, inputs={"folder": "first"})
    outputs = pipeline.run(executor=two).outputs
    assert (outputs["x"], outputs["y"]) == (True, True)


def test_what_a_brief_step_lets_run_does_not_wait_for_a_long_one_beside_it(two: ParallelExecutor, folder: Path) -> None:
    """Also where both are in one message, so that nobody is woken for the first result."""
    pipeline = behind_a_brief_one(folder).add_step(brief, "x", inputs={"folder": "first"})
    pipeline.add_step(say_and_hear, "long", {"name": "y", "other": "z"}, inputs={"folder": "first"})
    pipeline.add_step(say, "behind", {"name": "z"}, inputs={"folder": "x"})
    assert pipeline.run(executor=two)["long"] is True
