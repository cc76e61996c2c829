"""What a type checker sees of the public names: read by mypy in `make lint`, never run.

`assert_type` fails the lint where an inferred type is not the one written down here.
"""

from __future__ import annotations

from typing import assert_type

from flowyml import Pipeline, PipelineResult, Step, step


@step
def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


@step(name="half", outputs=["halved"])
def halve(number: int) -> float:
    """Return half the number."""
    return number / 2


def check_steps_keep_their_signature() -> None:
    """A step is called as its function is."""
    assert_type(double(2), int)
    assert_type(halve(number=2), float)
    bare: Step[[int], int] = double


def check_authoring_chains() -> None:
    """What adds a step returns the pipeline; a run returns its result."""
    pipeline = Pipeline("typed").add_step(double, params={"number": 1})
    assert_type(pipeline, Pipeline)
    assert_type(pipeline.run(), PipelineResult)
