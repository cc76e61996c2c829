"""`explain(step, cache=True)`: what the key of a step covers, what it does not, and why it would not be cached."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import File, Pipeline, step

if TYPE_CHECKING:
    from pathlib import Path

RATE = 3


class Scale:
    def __init__(self, by: int) -> None:
        self.by = by


def helper(x: int) -> str:
    return json.dumps(x * RATE * Scale(2).by)


@step(cache=True)
def first(path: Any, files: Any, n: int, unit: str = "m") -> str:
    return helper(n)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    (tmp_path / "a").write_text("1")
    made = Pipeline("p", cache_dir=tmp_path / "cache")
    path = tmp_path / "a"
    return made.add_step(first, params={"path": str(path), "files": [File(path)], "n": 1})


def parts(pipeline: Pipeline, name: str) -> dict[tuple[str, str], str]:
    return {(part.kind, part.name): part.counts for part in pipeline.explain(name, cache=True).key}


def test_arguments_are_listed_with_how_they_count(pipeline, tmp_path):
    found = parts(pipeline, "first")
    assert found["argument", "n"] == "content"
    assert found["value", "default of 'unit'"] == f"content; used by {__name__}.first"
    assert found["argument", "files"] == f"content, and the bytes of 1 file: {str(tmp_path / 'a')!r}"
    assert found["argument", "path"] == "content: the path as a string"


def test_code_is_listed_with_all_that_it_uses(pipeline):
    found = parts(pipeline, "first")
    assert found["function", "first"] == "its code"
    assert found["function", f"{__name__}.helper"] == f"its code; used by {__name__}.first"
    assert found["value", "global 'RATE'"] == f"content; used by {__name__}.helper"
    assert found["class", f"{__name__}.Scale"] == f"its code; used by {__name__}.helper"
    assert found["installed", "json.dumps"] == f"its name; used by {__name__}.helper"


def test_what_comes_from_other_steps_counts_by_its_content(pipeline):
    pipeline.add_step(lambda first: first, name="second")
    assert parts(pipeline, "second")["argument", "first"].startswith("content of its value: output of step 'first'")


def test_items_of_a_map_count_by_their_content(pipeline):
    pipeline.map(str, [1, 2], name="mapped", cache=True)
    assert ("argument", "content of each item") in {
        (part.kind, part.counts) for part in pipeline.explain("mapped", cache=True).key
    }


def test_a_path_of_a_file_is_named_among_what_is_not_covered(pipeline, tmp_path):
    gap, *others = pipeline.explain("first", cache=True).not_in_key
    assert gap == f"the file that argument 'path' names: give it as flowyml.File({str(tmp_path / 'a')!r})"
    assert "environment variables, the clock, random numbers" in others


def test_it_says_why_a_step_would_not_be_cached(pipeline, tmp_path):
    pipeline.add_step(lambda lock: 1, name="locked", params={"lock": threading.Lock()}, cache=True)
    pipeline.add_step(lambda: 1, name="plain")
    missing = {"file": File(tmp_path / "none")}
    pipeline.add_step(lambda file: 1, name="missing", params=missing, cache=True)
    reasons = {name: str(pipeline.explain(name, cache=True).cache) for name in ("first", "locked", "plain", "missing")}
    assert reasons["first"] == "nothing is stored for it yet"
    assert reasons["locked"].startswith("it cannot be cached: argument 'lock' cannot be hashed: TypeError")
    assert reasons["plain"] == "it is not cached: it has no cache="
    assert "FileNotFoundError" in reasons["missing"]
    off = Pipeline("off", enable_cache=False).add_step(first, params={"path": 1, "files": 1, "n": 1})
    assert off.explain("first", cache=True).cache == "it is not cached: the pipeline has enable_cache=False"


def test_other_modes_say_what_counts_in_the_place_of_the_code(pipeline):
    def own(inputs: Any, context: Any) -> str:
        return "key"

    def named(x: int) -> int:
        return x

    pipeline.add_step(named, params={"x": 1}, cache="input_hash").add_step(lambda: 1, name="own", cache=own)
    assert parts(pipeline, "named")["function", "named"] == "its name, not its code"
    assert pipeline.explain("named", cache=True).not_in_key[0] == "code: that of the step, and what it uses"
    (part,) = pipeline.explain("own", cache=True).key
    assert part.counts == "the string that it returns"


def test_the_text_lists_all_of_it_and_only_if_it_is_asked_for(pipeline):
    text = str(pipeline.explain("first", cache=True))
    assert "  Its key covers:\n    argument path: content: the path as a string" in text
    assert "  Its key does not cover:" in text
    assert "Its key" not in str(pipeline.explain("first"))
