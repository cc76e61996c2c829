"""Values of a mapped step on worker processes, gone through: loaded several at once, as if one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flowyml import ParallelExecutor, Pipeline
from flowyml.errors import StepNotRunError, ValueLoadError

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 300


class Sealed:
    """Is made in a worker and does not load here."""

    def __reduce__(self) -> tuple[object, ...]:
        return unseal, ()


def unseal() -> None:
    raise RuntimeError("sealed")


def pair(i: int) -> tuple[int, str]:
    return i, str(i)


def mixed(i: int) -> object:
    if i == COUNT - 1:
        return Sealed()
    return i if i % 2 else [i]


def refuse_one(i: int) -> list[int]:
    if i == 200:
        raise ValueError("not this one")
    return [i]


def values_of(function: Callable[[int], Any]) -> Any:
    with ParallelExecutor(1) as executor:
        return Pipeline("p").map(function, range(COUNT), name="each").run(executor=executor)["each"]


def test_values_are_the_same_objects_each_time() -> None:
    values = values_of(pair)
    seventh = values[7]
    first, second = list(values), list(values)
    assert first == [(i, str(i)) for i in range(COUNT)]
    assert all(one is other for one, other in zip(first, second, strict=True))
    assert first[7] is seventh
    assert first[8] is values[8]


def test_a_value_that_does_not_load_raises_where_it_stands() -> None:
    """Those before it are there, whatever is loaded with it."""
    values, seen = iter(values_of(mixed)), []
    with pytest.raises(ValueLoadError, match="sealed"):
        seen.extend(values)
    assert seen == [i if i % 2 else [i] for i in range(COUNT - 1)]


@pytest.mark.filterwarnings("ignore")
def test_a_failed_item_raises_where_it_stands() -> None:
    values, seen = iter(values_of(refuse_one)), []
    with pytest.raises(StepNotRunError, match=r"each\[200\]"):
        seen.extend(values)
    assert seen == [[i] for i in range(200)]
