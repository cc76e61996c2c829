"""Drawn programs of dask arrays and dataframes, run by flowyml, give what numpy and pandas give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("dask.dataframe", reason="the extra `compat` is not installed")

import dask.array as da
import dask.dataframe as dd
import pandas as pd
from dask_scheduler import Scheduler

Operation = Callable[[Any, Any, Any], Any]
"""Takes the module (numpy or dask.array), an array and another one of the same shape; returns one of that shape."""

ARRAYS: dict[str, Operation] = {
    "add": lambda _np, a, b: a + b,
    "centre": lambda _np, a, b: a - b.sum(axis=0) % 17,
    "multiply": lambda _np, a, b: a * b % 101,
    "reverse": lambda _np, a, _b: a[::-1, ::-1],
    "accumulate": lambda np, a, _b: np.cumsum(a, axis=1) % 103,
    "choose": lambda np, a, b: np.where(a > b, a, b),
    "transpose twice": lambda _np, a, b: (a.T + b.T).T,
    "product": lambda _np, a, b: a @ b.T @ b % 107,
    "halves": lambda np, a, b: np.concatenate([a[2:], b[:2]], axis=0),
}

FRAMES: dict[str, Callable[[Any], Any]] = {
    "assign": lambda frame: frame.assign(x=frame.x + frame.y),
    "filter": lambda frame: frame[frame.x > frame.y],
    "shift": lambda frame: frame.assign(y=frame.y.shift(1).fillna(0).astype("int64")),
    "accumulate": lambda frame: frame.assign(x=frame.x.cumsum() % 101),
    "broadcast": lambda frame: frame.assign(y=frame.y - frame.y.sum() % 7),
}


@pytest.fixture(scope="module")
def scheduler(executor: Any) -> Scheduler:
    """Run dask graphs on every executor."""
    return Scheduler(executor)


@given(
    operations=st.lists(st.sampled_from(sorted(ARRAYS)), min_size=1, max_size=6),
    chunks=st.tuples(st.integers(1, 7), st.integers(1, 5)),
    others=st.data(),
)
def test_arrays(scheduler: Scheduler, operations: list[str], chunks: tuple[int, int], others: st.DataObject) -> None:
    plain = [np.arange(35).reshape(7, 5) % 13, np.arange(35)[::-1].reshape(7, 5) % 11]
    chunked = [da.from_array(array, chunks) for array in plain]
    for name in operations:
        first, second = (others.draw(st.integers(0, len(plain) - 1)) for _ in range(2))
        plain.append(ARRAYS[name](np, plain[first], plain[second]))
        chunked.append(ARRAYS[name](da, chunked[first], chunked[second]))
    computed = da.compute(*chunked, scheduler=scheduler)
    for ours, expected in zip(computed, plain, strict=True):
        np.testing.assert_array_equal(ours, expected)


@given(operations=st.lists(st.sampled_from(sorted(FRAMES)), min_size=1, max_size=4), partitions=st.integers(1, 5))
def test_dataframes(scheduler: Scheduler, operations: list[str], partitions: int) -> None:
    rows = np.arange(30)
    plain = pd.DataFrame({"key": rows % 3, "x": rows * 7 % 23, "y": rows * 5 % 19})
    frame = dd.from_pandas(plain, npartitions=partitions)
    for name in operations:
        plain, frame = FRAMES[name](plain), FRAMES[name](frame)
    pd.testing.assert_frame_equal(frame.compute(scheduler=scheduler), plain)
    sums = frame.groupby("key").sum().compute(scheduler=scheduler)
    pd.testing.assert_frame_equal(sums.sort_index(), plain.groupby("key").sum())
