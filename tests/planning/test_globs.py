"""Globs as inputs: what fits, in add order, and how many names are looked at for it."""

from __future__ import annotations

import fnmatch

import pytest
from example_counts import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowyml import Pipeline
from flowyml.planning.globs import GlobIndex

NAMES = st.text("ab[]_", min_size=1, max_size=5)
PATTERNS = st.builds(
    "{}{}{}".format, st.text("ab_]", max_size=2), st.sampled_from("*?["), st.text("ab]!*?[", max_size=4)
)


@given(names=st.lists(NAMES, max_size=12), pattern=PATTERNS)
@example(names=["a", "a\U0010ffff", "a\U0010ffffb", "b"], pattern="a*")
@settings(max_examples=examples(300, 5_000))
def test_a_pattern_finds_what_fits_in_the_order_of_the_names(names: list[str], pattern: str) -> None:
    index = GlobIndex((name, (place, None)) for place, name in enumerate(names))
    assert index.match(pattern) == [
        (place, None) for place, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)
    ]


def test_an_asset_of_several_names_is_found_once() -> None:
    assert GlobIndex([("a_1", (0, None)), ("b", (1, None)), ("a_2", (0, None))]).match("a_*") == [(0, None)]


@pytest.mark.parametrize("pattern", ["part_7_*", "*_7.x", "part_7_*_7.x", "part_7_?_7.x", "part_7_[0-9]*"])
def test_a_pattern_looks_at_the_names_that_begin_or_end_like_it(pattern: str) -> None:
    names = [f"part_{number // 10}_{number % 10}_{number // 10}.x" for number in range(1_000)]
    index = GlobIndex((name, (place, None)) for place, name in enumerate(names))
    assert len(index.candidates(pattern)) == len(index.match(pattern)) == 10


def test_many_steps_that_read_a_glob_each_look_at_as_many_names_as_they_read(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    candidates = GlobIndex.candidates

    def counted(self: GlobIndex, pattern: str) -> object:
        nonlocal looked_at
        found = candidates(self, pattern)
        looked_at += len(found)
        return found

    monkeypatch.setattr(GlobIndex, "candidates", counted)
    pipeline = Pipeline("globs")
    for number in range(1_000):
        pipeline.add_step(int, name=f"part_{number // 10}_{number % 10}")
    for group in range(100):
        pipeline.add_step(len, name=f"group_{group}", inputs=f"part_{group}_*")
    pipeline.build()
    assert looked_at == 1_000
