"""What the tests of wrong arguments share: small pipelines, and how a wrong use is refused."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import Pipeline
from flowyml.diagnostics.tracebacks import is_internal

if TYPE_CHECKING:
    from collections.abc import Callable


def load() -> int:
    return 1


def use(data: Any) -> Any:
    return data


def generate() -> Any:
    yield 1


async def generate_soon() -> Any:
    yield 1


class Generates:
    def __call__(self) -> Any:
        yield 1


def pipeline(**keywords: Any) -> Pipeline:
    return Pipeline("p", **keywords)


def ready() -> Pipeline:
    return pipeline().add_step(load)


def child(name: str = "c") -> Pipeline:
    return Pipeline(name).add_step(use)


Wrong = tuple["Callable[[], Any]", type[Exception], str]


def assert_refused(use_it: Callable[[], Any], kind: type[Exception], words: str) -> None:
    """Assert that a use gets this exception with these words, and that its traceback shows no frame of flowyml."""
    with pytest.raises(kind, match=words) as caught:
        use_it()
    assert caught.type is kind or kind is ValueError
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [frame for frame in frames if is_internal(frame.filename)] == []
