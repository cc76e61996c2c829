"""Tags: words by which steps are chosen, apart from their names.

A tag is a word with or without a value. `run(targets=["tag:nightly"])` runs what has one (`authoring/targets.py`),
`ParallelExecutor(tag_limits=)` says how many such steps run at once. The module knows neither pipelines nor executors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Tags: TypeAlias = "str | Iterable[str] | Mapping[str, str | int | float | bool | None]"
"""Tags as they are given: one, several, or with values."""


def checked_tags(tags: Any, step: str) -> dict[str, Any]:
    """Return tags as a mapping of their own; one without a value has "".

    Raises:
        TypeError: If a tag is no text, or its value neither text nor a number.
        ValueError: If a tag is empty.

    >>> checked_tags("nightly", "train"), checked_tags({"team": "ml"}, "train")
    ({'nightly': ''}, {'team': 'ml'})
    """
    if isinstance(tags, str):
        tags = (tags,)
    if not isinstance(tags, Iterable):
        raise TypeError(f"tags of step {step!r} must be texts or a mapping, got {type(tags).__name__} {tags!r:.60}")
    kept = dict(tags) if isinstance(tags, Mapping) else dict.fromkeys(tags, "")
    for tag, value in kept.items():
        if not isinstance(tag, str):
            raise TypeError(f"tags of step {step!r} must be texts, got {type(tag).__name__} {tag!r:.60}")
        if not tag:
            raise ValueError(f"a tag of step {step!r} is empty")
        if not isinstance(value, (str, int, float, type(None))):
            raise TypeError(
                f"tag {tag!r} of step {step!r} must have a text or a number as its value, "
                f"got {type(value).__name__} {value!r:.60}"
            )
    return kept


def has_tag(tags: Mapping[str, Any], wanted: str) -> bool:
    """Tell whether tags have one, written "tag" or "tag=value".

    >>> has_tag({"team": "ml"}, "team"), has_tag({"team": "ml"}, "team=ml"), has_tag({"team": "ml"}, "team=ops")
    (True, True, False)
    """
    tag, said, value = wanted.partition("=")
    return wanted in tags or (tag in tags and (not said or str(tags[tag]) == value))
