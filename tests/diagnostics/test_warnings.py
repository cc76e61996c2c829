"""Warnings: for the user's line, however a run is begun; as errors they show no frame of ours and change nothing."""

from __future__ import annotations

import asyncio
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from flowyml import ParallelExecutor, Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable


def odd() -> Pipeline:
    return Pipeline("odd").add_step(abs, params={"x": 1})


def run() -> None:
    odd().run({"zzz": 1})


def build() -> None:
    odd().add_step(len, execution_group="g", params={"obj": ""})


async def awaited() -> None:
    await odd().run_async({"zzz": 1})


async def gathered() -> None:
    await asyncio.gather(odd().run_async({"zzz": 1}), odd().run_async({"zzz": 1}))


def in_a_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


WAYS = [run, build, in_a_thread, lambda: asyncio.run(awaited()), lambda: asyncio.run(gathered())]


@pytest.mark.parametrize("way", WAYS)
def test_a_warning_is_for_a_line_of_the_user(way: Callable[[], None]) -> None:
    with pytest.warns(UserWarning, match=r"'zzz' of run\(inputs=\)|execution_group") as told:
        way()
    assert {each.filename for each in told} == {__file__}


def test_where_no_line_is_the_users_the_warning_is_for_none() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.warns(UserWarning, match="'zzz'") as told:
        pool.submit(odd().run, {"zzz": 1}).result()
    assert [each.filename for each in told] == ["sys"]


def test_a_warning_that_is_an_error_shows_the_users_frames_each_time() -> None:
    pipeline = odd()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(UserWarning, match="'zzz'") as raised:
                pipeline.run({"zzz": 1})
            assert {frame.filename for frame in traceback.extract_tb(raised.tb)} == {__file__}
            assert raised.value.__context__ is None


def test_large_functions_are_warned_of_until_it_is_heard() -> None:
    large = bytes(20 << 20)

    def size(x: int) -> int:
        return len(large) + x

    def attempt() -> Any:
        return Pipeline("large").map(size, [1]).run(executor=executor)["size"][0]

    with ParallelExecutor(1) as executor:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                with pytest.raises(UserWarning, match="the functions of this run take"):
                    attempt()
        with pytest.warns(UserWarning, match="the functions of this run take"):
            assert attempt() == 1 + len(large)
        assert attempt() == 1 + len(large)
