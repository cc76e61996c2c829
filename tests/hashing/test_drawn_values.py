"""Two values have one content if and only if they are alike: over drawn pairs of all kinds, and in every process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from flowyml.hashing.content import content

pytest.importorskip("pyarrow")
pytest.importorskip("polars")
drawn_values = pytest.importorskip("drawn_values")

often = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("space", drawn_values.spaces)
def test_two_values_have_one_content_if_they_are_alike_and_only_then(space: str) -> None:
    @often
    @given(drawn_values.spaces[space], drawn_values.spaces[space])
    def check(one: Any, other: Any) -> None:
        assert (content(one) == content(other)) is drawn_values.alike(one, other)

    check()


@often
@given(drawn_values.values, drawn_values.values)
def test_values_of_different_kinds_are_told_apart(one: Any, other: Any) -> None:
    if not drawn_values.alike(one, other):
        assert content(one) != content(other)


@pytest.mark.parametrize("space", ["pandas", "pyarrow", "polars"])
def test_a_value_that_was_pickled_has_the_same_content(space: str) -> None:
    @often
    @given(drawn_values.spaces[space])
    def check(value: Any) -> None:
        try:
            copy = pickle.loads(pickle.dumps(value, 5))
        except Exception:  # a column of objects does not pickle, but has a content
            return
        assert content(copy) == content(value)

    check()


def test_contents_are_the_same_in_every_process() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, drawn_values.__file__],
            env={"PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert len(outputs[0].split()) == 1000
    assert outputs[0] == outputs[1]
